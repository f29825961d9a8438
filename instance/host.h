// Host: a live instance with everything around it that makes it part of a volume: the control socket, the
// leader's endpoint, the session with whom it follows. What `reprise run` and `serve` are made of; adapters
// attach to instance().filesystem() and give their coherence hook before connect().
//
// Ownership: owns all of it; stop() ends the sessions, close() also the instance. Threads: open, connect,
// stop and close from one thread.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "base/socket.h"
#include "instance/control.h"
#include "instance/instance.h"
#include "instance/keeper.h"
#include "replay/follower.h"
#include "replay/leader.h"

namespace reprise::instance {

// What a collection did, and what a store takes on the disk (limit: 0 if there is none), as `compact` and
// `stat` say it.
Json collected_json(const store::Collected& collected);
Json disk_json(store::Store& store, uint64_t limit);

struct HostOptions {
  InstanceOptions instance;
  // Created if it is not there; empty: in memory, gone with the instance.
  std::string store_path;
  std::shared_ptr<store::Store> store;  // the same, if this process has it open already
  std::optional<Endpoint> listen, follow;
  std::string name;                     // what whom it follows calls it
  replay::Token token;                  // asked of peers, and told to them, both ways; null: none
  std::string label;                    // of marks set from outside
  uint32_t await_followers_ms = 3'000;  // take_back_tail()
  // The volume's limits (fs::SetLimits) from here on, 0 for none; left as they are where not given. Not for
  // who follows.
  std::optional<uint64_t> volume_bytes, volume_inodes;
};

// As `reprise join` and `reset` show it, asked of a live instance or not.
Json joined_json(const Joined& joined);
Json reset_json(const Reset& reset);
// "ours" or "theirs", or "" for nobody. kInvalidArgument.
Result<std::optional<replay::Winner>> winner_named(std::string_view name);

class Host {
 public:
  static Result<std::unique_ptr<Host>> open(const HostOptions& options, Network& network = system_network());
  ~Host();

  Instance& instance() { return *instance_; }
  // Did open() or connect() make the store?
  bool made_store() const { return made_store_; }
  // Where this is a leader that was not closed cleanly: listens, and waits for followers that may have what
  // its disk lost, and for that to be taken back. Before connect(), and before guests are let in: what they
  // write ends it. kCancelled, and as listening fails.
  Status take_back_tail(const std::function<bool()>& cancelled = nullptr);
  // Starts following: where the store is new it waits until it is caught up, else a second for the leader's
  // greeting. Then listens, for peers and for control. `cancelled` is asked now and then while it waits.
  // kTimeout, kCancelled, kWrongVolume, kBusy …
  Status connect(uint32_t contact_timeout_ms, const std::function<bool()>& cancelled = nullptr);
  // More for `stat` to say; called on control threads.
  void add_statistics(std::function<void(Json&)> add) { more_statistics_ = std::move(add); }
  // Run before an answer that must reflect every write already made (a mount syncs its kernel's caches here).
  void set_flush(std::function<Status()> flush) { flush_ = std::move(flush); }
  // Whoever drives this closes it, makes the branch the one that writes (instance::promote), and opens it
  // again, when promotion_asked() says so. Without it nobody may ask.
  void allow_promotion() { may_promote_ = true; }
  bool promotion_asked() const { return promoted_.load(); }
  Json statistics();
  // What the control socket is asked, by who has this object; no watching (instance/watch.h). Waits as long
  // as the question says, unless `stopping`. Any thread, after connect().
  Result<Json> ask(const Json& question, const std::atomic<bool>& stopping);
  // kDetached, with why, if it follows and has given up; kUnauthorised if that is for a token.
  Status check_not_detached() const;

  // Waits until the connected followers have everything, at most timeout_ms.
  void say_farewell(uint32_t timeout_ms);
  void stop();
  Status close();

 private:
  Host(const HostOptions& options, Network& network) : options_(options), network_(network) {}
  Result<Json> answer(const Json& question, const std::atomic<bool>& stopping, const ControlServer::Say& say);
  Result<Json> watch(const std::atomic<bool>& stopping, const ControlServer::Say& say);
  Result<Json> promote();
  Result<Json> wait_for(const Json& question, const std::atomic<bool>& stopping);
  Result<Json> flush_peers(const Json& question, const std::atomic<bool>& stopping);
  Status set_limits();
  Status meet_leader(const std::function<bool()>& cancelled);
  std::vector<journal::Vector> positions_of_peers() const;
  replay::SessionOptions session_options() const;
  Status await_peers(replay::Leader& leader, const std::function<bool()>& cancelled);
  Json recovery_json() const;

  HostOptions options_;
  Network& network_;
  bool made_store_ = false;
  std::unique_ptr<Instance> instance_;
  std::unique_ptr<replay::Follower> follower_;
  std::unique_ptr<replay::Leader> leader_;
  std::unique_ptr<ControlServer> control_;
  std::unique_ptr<Keeper> keeper_;
  std::optional<uint64_t> taken_back_;  // batches; nullopt: nobody was waited for
  std::function<void(Json&)> more_statistics_;
  std::function<Status()> flush_;
  std::atomic<bool> may_promote_{false};
  std::atomic<bool> promoted_{false};
};

}  // namespace reprise::instance

// Follower: keeps a member in step with the leader at an endpoint: connects, is caught up, applies what
// comes, and after a loss comes back by itself. What is done with the bytes is FollowerLink's; the socket and
// the waiting are here.
//
// It gives up (kDetached) only where trying again would give the same answer: another volume, another
// protocol, out of step again and again, a member that cannot take changes.
//
// Threads: one of its own, which alone changes the member; every function from any thread. stop() (or
// destruction) returns when that thread has ended, at the latest when the group it is applying is done.
#pragma once

#include <atomic>
#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>

#include "base/clock.h"
#include "base/socket.h"
#include "replay/follower_link.h"
#include "replay/member.h"

namespace reprise::replay {

struct FollowerOptions {
  SessionOptions session;
  uint32_t connect_timeout_ms = 1'000;
  uint32_t write_timeout_ms = 30'000;
  uint32_t retry_first_ms = 10;  // doubled at each failure
  uint32_t retry_max_ms = 1'000;
  uint64_t tree_limit_bytes = uint64_t{64} << 30;  // a larger snapshot is refused
  // Session::offers_tree is for leaders on other machines: on one, all is sent in less time than it takes to
  // find out what need not be.
  bool offers_tree_here = false;
};

enum class FollowerState {
  kConnecting,  // nobody there, or not yet greeted
  kCatchingUp,
  kLive,
  kDetached,  // given up; last_error says why
  kStopped,
};
std::string_view state_name(FollowerState state);

struct FollowerStatus {
  FollowerState state = FollowerState::kConnecting;
  VolumeId leader_volume;
  std::optional<CatchUpDecision> decision;  // of the last catch-up
  uint64_t catch_up_bytes = 0;              // received for it
  uint64_t catch_up_operations = 0;         // replayed for it; with a snapshot, those after it
  uint64_t catch_up_us =
      0;  // from connecting, or from falling out of step, until all of it was readable here
  uint64_t received_bytes = 0;       // over all connections
  uint64_t sent_bytes = 0;           // likewise
  uint64_t batches = 0;              // likewise
  uint64_t overwrites = 0;           // likewise
  uint64_t differences = 0;          // likewise
  uint64_t checkpoints = 0;          // digests found equal, likewise
  uint64_t lag_batches = 0;          // of those the leader is known to have
  uint64_t connections = 0;          // greeted by the leader
  std::optional<Error> last_error;   // why the last connection ended or could not be made
  std::optional<Error> last_resync;  // why the leader was asked to overwrite
};

class Follower {
 public:
  using Cancelled = std::function<bool()>;

  // network, member and clock outlive it.
  static std::unique_ptr<Follower> start(Network& network, const Endpoint& endpoint, Member& member,
                                         Clock& clock, const FollowerOptions& options = {});
  ~Follower();
  void stop();

  // Until the leader has greeted us (its volume is adopted). kTimeout names the last error; at once when
  // detached. kCancelled soon after `cancelled`, which is asked now and then, says so.
  Status wait_connected(uint32_t timeout_ms, const Cancelled& cancelled = nullptr);
  // Until we have what the leader had when it greeted us.
  Status wait_caught_up(uint32_t timeout_ms, const Cancelled& cancelled = nullptr);
  FollowerStatus status() const;

 private:
  Follower(Network& network, const Endpoint& endpoint, Member& member, Clock& clock,
           const FollowerOptions& options);
  void run();
  // One connection, from greeting to loss. False when there shall be no other.
  bool follow(Stream& stream);
  void exchange_with(Stream& stream, FollowerLink& link);
  void publish(const FollowerLink& link);
  void note_catch_up(const FollowerSession& session);  // with mutex_ held
  void note_failure(const Error& error);
  void pause(uint32_t ms);
  Status wait_for_state(uint32_t timeout_ms, const Cancelled& cancelled,
                        const std::function<bool(FollowerState)>& reached, std::string_view what);

  Network& network_;
  Endpoint endpoint_;
  Member& member_;
  Clock& clock_;
  FollowerOptions options_;
  // Of the thread.
  ResyncBudget budget_;
  UnfinishedTree unfinished_;
  bool was_live_ = false;           // the last connection had caught up
  uint64_t catch_up_began_ns_ = 0;  // 0: none is under way

  mutable std::mutex mutex_;  // of the rest
  std::condition_variable changed_;
  FollowerStatus status_;
  FollowerStatus before_;  // the sums of former connections
  Stream* stream_ = nullptr;
  bool stopping_ = false;
  std::mutex stop_mutex_;
  std::thread thread_;
};

}  // namespace reprise::replay

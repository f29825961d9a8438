// What followers cost who writes: none, one, four, sixteen; one that stands still; and none beside them, in
// one run.
//
// The leader, in memory, is in this process and bound to one core; the followers are processes of their own,
// in memory, bound to the other together. A guest makes, writes, renames and removes small files. A row's
// time is that of one of its calls, as it sees it; `times_none` how many times that without followers just
// before (median), `until_there_ns` the time per call until all followers have everything (but for one that
// stands still), `bytes_a_follower` what the leader's process has grown by for each connected one.
//
// `catching_up` is a follower alone on its core that replays what it missed: its time is that of an
// operation.
#include <fmt/format.h>
#include <sched.h>

#include <algorithm>
#include <array>
#include <map>

#include "base/check.h"
#include "bench/forwarding_member.h"
#include "bench/memory.h"
#include "bench/must.h"
#include "bench/paired.h"
#include "bench/peer_process.h"
#include "bench/scratch_folder.h"
#include "fs/guest.h"
#include "instance/instance.h"
#include "replay/leader.h"

namespace reprise::bench {
namespace {

constexpr size_t kFollowers = 16;
constexpr size_t kTurns = 5'000;  // of five calls
constexpr size_t kMissedTurns = 40'000;
constexpr size_t kCallsATurn = 5, kOperationsATurn = 6;

// This thread and those that come from it.
void bind_to(int core) {
  cpu_set_t only;
  CPU_ZERO(&only);
  CPU_SET(core, &only);
  CHECK(::sched_setaffinity(0, sizeof only, &only) == 0);
}

// The tree is small, and what is measured is the journal.
class NoSnapshots final : public ForwardingMember {
 public:
  using ForwardingMember::ForwardingMember;
  uint64_t estimated_snapshot_bytes() const override { return UINT64_MAX; }
};

class Crowd {
 public:
  Crowd() {
    CHECK(::sched_getaffinity(0, sizeof before_, &before_) == 0);
    if (CPU_COUNT(&before_) < 2) die("the writer and the followers need a core each");
    bind_to(1);
    for (auto& peer : peers_) peer = PeerProcess::fork(folder_ / "leader");
    bind_to(0);
    store_ = store::Store::in_memory(system_random().next_id<VolumeId>());
    instance_ = must(instance::Instance::open(store_, {.journal = {.in_memory_bytes = UINT64_MAX}}));
    guest_ = std::make_unique<fs::Guest>(instance_->filesystem());
    member_ = std::make_unique<NoSnapshots>(*instance_);
    leader_ = must(replay::Leader::listen(system_network(), {Endpoint::Kind::kUnix, folder_ / "leader"},
                                          *member_, system_clock(), {.keeps_trees = false}));
  }
  ~Crowd() {
    // The later ones have the pipes of those before them, too.
    for (auto peer = peers_.rbegin(); peer != peers_.rend(); ++peer) peer->reset();
    guest_.reset();
    leader_.reset();
    CHECK(::sched_setaffinity(0, sizeof before_, &before_) == 0);
  }

  void measure(Rows& rows) {
    // So that memory is what it is later on, too.
    connect(1);
    write(kTurns);
    wait_for(1);
    disconnect();
    for (auto [name, followers] : {std::pair{"one", size_t{1}}, {"four", 4}, {"sixteen", kFollowers}}) {
      double none = work(rows["none"], 0), before = anonymous_bytes();
      connect(followers);
      rows[name].counters["bytes_a_follower"] = (anonymous_bytes() - before) / static_cast<double>(followers);
      compare(rows[name], name, work(rows[name], followers), none);
      disconnect();
    }
    double none = work(rows["none"], 0);
    connect(1);
    peers_[0]->stall();
    compare(rows["one_stalled"], "one_stalled", work(rows["one_stalled"], 0), none);
    peers_[0]->wake();
    wait_for(1);
    disconnect();
    catch_up(rows["catching_up"]);
  }

 private:
  void write(size_t turns) {
    const std::string bytes(700, 'x');
    for (size_t i = 0; i < turns; ++i) {
      std::string path = fmt::format("/f{}", turn_++ % 1000), other = path + "r";
      CHECK(guest_->mknod(path, S_IFREG | 0644));
      auto fd = must_call(guest_->open(path, O_WRONLY));
      must_call(guest_->pwrite(fd, as_bytes(bytes), 0));
      CHECK(guest_->close(fd));
      CHECK(guest_->rename(path, other));
      CHECK(guest_->unlink(other));
    }
  }
  template <class T>
  static T must_call(const fs::Outcome<T>& outcome) {
    CHECK(outcome);
    return *outcome;
  }
  // ns of a call.
  double work(Row& row, size_t followers) {
    double call = timed(kTurns * kCallsATurn, [&] { write(kTurns); });
    row.ns.push_back(call);
    if (followers > 0)
      row.counters["until_there_ns"] = call + timed(kTurns * kCallsATurn, [&] { wait_for(followers); });
    return call;
  }
  // The median over all rounds.
  static void compare(Row& row, const std::string& name, double with, double without) {
    static std::map<std::string, std::vector<double>> found;
    std::vector<double>& times = found[name];
    times.insert(std::ranges::upper_bound(times, with / without), with / without);
    row.counters["times_none"] = times[times.size() / 2];
  }
  void connect(size_t followers) {
    for (size_t i = 0; i < followers; ++i) peers_[i]->catch_up();
    connected_ = followers;
  }
  void disconnect() {
    for (size_t i = 0; i < connected_; ++i) peers_[i]->disconnect();
    while (std::ranges::any_of(leader_->peers(), &replay::PeerStatus::connected))
      system_clock().sleep_ns(100'000);
    must(instance_->journal().trim(instance_->journal().last() + 1));
  }
  void wait_for(size_t followers) {
    must(instance_->settle());
    journal::Vector all = instance_->vector();
    auto has_all = [&](const replay::PeerStatus& peer) { return peer.connected && peer.acked.covers(all); };
    for (;;) {
      auto peers = leader_->peers();
      if (static_cast<size_t>(std::ranges::count_if(peers, has_all)) >= followers) return;
      system_clock().sleep_ns(50'000);
    }
  }
  // A peer that was in step, and then away.
  void catch_up(Row& row) {
    connect(1);
    peers_[0]->disconnect();
    while (std::ranges::any_of(leader_->peers(), &replay::PeerStatus::connected))
      system_clock().sleep_ns(100'000);
    write(kMissedTurns);
    PeerProcess::CaughtUp by;
    row.ns.push_back(timed(kMissedTurns * kOperationsATurn, [&] { by = peers_[0]->catch_up(); }));
    row.counters["by_suffix"] = by.tier == replay::Tier::kSuffix ? 1 : 0;
    row.counters["received_bytes"] = static_cast<double>(by.received_bytes);
    disconnect();
  }

  cpu_set_t before_;
  ScratchFolder folder_{kSharedMemory};
  std::array<std::unique_ptr<PeerProcess>, kFollowers> peers_;
  std::shared_ptr<store::Store> store_;
  std::unique_ptr<instance::Instance> instance_;
  std::unique_ptr<fs::Guest> guest_;
  std::unique_ptr<NoSnapshots> member_;
  std::unique_ptr<replay::Leader> leader_;
  size_t turn_ = 0, connected_ = 0;
};

const bool registered = [] {
  register_rows("followers", {"none", "one", "four", "sixteen", "one_stalled", "catching_up"}, 5,
                [](Rows& rows) { Crowd().measure(rows); });
  return true;
}();

}  // namespace
}  // namespace reprise::bench

// Is the right way chosen by which a peer that lags is brought up to date? And what would the others cost?
//
// Three peers, each a process of its own, have the same tree and are away while the leader goes on by `lag`
// operations. Then they come back one after the other: to the first the leader sends what it chooses, to the
// others the journal's suffix and a snapshot, whatever it would have chosen. A row's time is the first one's;
// the counters have what each took and what was sent, and `times_best`: how many times as long the first one
// took as the faster of the two. `difference` is what the operations from the one tree to the other would
// take, if they were sent instead.
//
// What is done, in turns of ten operations:
//   all_files  four writes of 1 KiB into a file, a new file and a write to it, a chmod, a utimens, a rename
//   of the
//              new file, the removal of the one that was new a turn before; files at random, of all
//   ten_files  the same, of ten
//   names      no bytes: a new file, six chmods, a utimens, a rename, a removal; of all
//
// missing: the leader has no journal that leads to what the peers have, and no tree of theirs, and `changed`
// in 1,000 of the files have changed. One peer says which blobs it has (which over a Unix socket it would
// not), and is sent the others; another is sent the whole tree, in the same round.
#include <benchmark/benchmark.h>
#include <fcntl.h>
#include <fmt/format.h>

#include <array>
#include <atomic>
#include <cstdlib>
#include <random>

#include "base/check.h"
#include "bench/forwarding_member.h"
#include "bench/must.h"
#include "bench/peer_process.h"
#include "bench/scratch_folder.h"
#include "fs/guest.h"
#include "fs/transition.h"
#include "instance/instance.h"
#include "replay/leader.h"

namespace reprise::bench {
namespace {

constexpr int kFilesPerDirectory = 100;
constexpr size_t kWriteBytes = 1024;

// An instance that says of its snapshots that they cost nothing, or more than any journal; so that the leader
// that serves it has one choice left.
class Priced final : public ForwardingMember {
 public:
  enum class Say : uint8_t { kAsItIs, kSnapshot, kSuffix };
  using ForwardingMember::ForwardingMember;
  void say(Say what) { say_ = what; }

  uint64_t estimated_snapshot_bytes() const override {
    switch (say_.load()) {
      case Say::kSnapshot:
        return 0;
      case Say::kSuffix:
        return UINT64_MAX;
      case Say::kAsItIs:
        break;
    }
    return ForwardingMember::estimated_snapshot_bytes();
  }
  // For a difference the tree of this moment is needed: where the suffix alone is to be left, there is none.
  Result<replay::Pinned> pin() override {
    if (say_.load() == Say::kSuffix) return fail(Code::kUnsupported, "nothing but the suffix");
    return ForwardingMember::pin();
  }

 private:
  std::atomic<Say> say_{Say::kAsItIs};
};

enum class Change : uint8_t { kAllFiles, kTenFiles, kNames };

// What one peer took.
struct Took {
  double ms = 0;
  PeerProcess::CaughtUp by;
};

class World {
 public:
  explicit World(int files) : files_(files), random_(7) {
    // Before there is any thread.
    for (auto& peer : peers_) peer = PeerProcess::fork(folder_ / "leader");
    store_ = store::Store::in_memory(system_random().next_id<VolumeId>());
    instance_ = must(instance::Instance::open(store_, {.journal = {.in_memory_bytes = UINT64_MAX}}));
    guest_ = std::make_unique<fs::Guest>(instance_->filesystem());
    for (int file = 0; file < files_; file++) {
      if (file % kFilesPerDirectory == 0)
        CHECK(guest_->mkdir(fmt::format("/d{:04}", file / kFilesPerDirectory)));
      CHECK(guest_->write_file(path_of(file), bytes(size_of(file))));
    }
    member_ = std::make_unique<Priced>(*instance_);
    leader_ = must(replay::Leader::listen(system_network(), {Endpoint::Kind::kUnix, folder_ / "leader"},
                                          *member_, system_clock()));
    for (size_t peer = 0; peer < kPeers; peer++) bring(peer, Priced::Say::kSnapshot);
    forget_history();
  }

  static constexpr size_t kPeers = 3;
  int files() const { return files_; }
  fs::View now() { return must(instance_->pin()).view; }

  // What peers that are away do not see.
  void go_on(int64_t operations, Change change) {
    for (int64_t i = 0; i < operations; i++) operate(change);
  }
  Took bring(size_t peer, Priced::Say say) {
    member_->say(say);
    uint64_t begin_ns = system_clock().monotonic_ns();
    Took took;
    took.by = peers_[peer]->catch_up();
    took.ms = static_cast<double>(system_clock().monotonic_ns() - begin_ns) / 1e6;
    return took;
  }
  // One file in so many is written to; of the history nothing is kept.
  void change_one_in(int of) {
    for (int file = 0; file < files_; file += of) write(path_of(file));
    must(instance_->journal().trim(must(instance_->settle()).log_index + 1));
  }
  PeerProcess& peer(size_t which) { return *peers_[which]; }
  // All peers go away, having everything; what there was before is not kept for them; nor is their tree, if
  // the member says nothing of it.
  void forget_history(Priced::Say say = Priced::Say::kAsItIs) {
    member_->say(say);
    for (auto& peer : peers_) peer->disconnect();
    // The leader keeps the tree that they have as soon as it notices.
    while (std::ranges::any_of(leader_->peers(), &replay::PeerStatus::connected))
      system_clock().sleep_ns(100'000);
    system_clock().sleep_ns(150'000'000);  // a sender looks every 100 ms
    replay::Moment moment = must(instance_->settle());
    must(instance_->journal().trim(moment.log_index + 1));
  }
  bool peers_equal() {
    Digest128 ours = instance_->filesystem().digest();
    return std::ranges::all_of(peers_, [&](auto& peer) { return peer->digest() == ours; });
  }

 private:
  static std::string path_of(int file) {
    return fmt::format("/d{:04}/f{:06}", file / kFilesPerDirectory, file);
  }
  // Many small, few large, 2.4 kB on average.
  static size_t size_of(int file) {
    std::mt19937_64 random(static_cast<uint64_t>(file));
    std::lognormal_distribution<double> size(7.1, 1.2);
    return std::clamp<size_t>(static_cast<size_t>(size(random)), 50, 100'000);
  }
  std::string bytes(size_t size) {
    std::string out(size, 'x');
    for (size_t at = 0; at + 8 <= size; at += 8) {
      uint64_t bits = random_();
      std::memcpy(out.data() + at, &bits, 8);
    }
    return out;
  }
  std::string made(uint64_t turn) { return fmt::format("/d0000/new{}", turn); }

  void operate(Change change) {
    uint64_t of = change == Change::kTenFiles ? 10 : static_cast<uint64_t>(files_);
    std::string path = path_of(static_cast<int>(random_() % of));
    uint64_t turn = step_ / 10;
    switch (step_++ % 10) {
      case 4:
        CHECK(guest_->mknod(made(turn), S_IFREG | 0644));
        return;
      case 5:
        path = made(turn);
        break;
      case 6:
        CHECK(guest_->chmod(path, random_() % 2 == 0 ? 0600 : 0640));
        return;
      case 7:
        CHECK(guest_->utimens(path, nullptr));
        return;
      case 8:
        CHECK(guest_->rename(made(turn), made(turn) + "r"));
        return;
      case 9:
        if (turn > 0) CHECK(guest_->unlink(made(turn - 1) + "r"));
        return;
      default:
        break;
    }
    if (change == Change::kNames) {
      CHECK(guest_->chmod(path, random_() % 2 == 0 ? 0600 : 0640));
    } else {
      write(path);
    }
  }
  void write(const std::string& path) {
    auto fd = guest_->open(path, O_WRONLY);
    CHECK(fd);
    std::string data = bytes(kWriteBytes);
    CHECK(guest_->pwrite(*fd, as_bytes(data), 0));
    CHECK(guest_->close(*fd));
  }

  const int files_;
  ScratchFolder folder_{kSharedMemory};
  std::mt19937_64 random_;
  uint64_t step_ = 0;
  std::array<std::unique_ptr<PeerProcess>, kPeers> peers_;
  std::shared_ptr<store::Store> store_;
  std::unique_ptr<instance::Instance> instance_;
  std::unique_ptr<fs::Guest> guest_;
  std::unique_ptr<Priced> member_;
  std::unique_ptr<replay::Leader> leader_;
};

World& world_of(int files) {
  static std::unique_ptr<World> world;
  if (world == nullptr || world->files() != files) {
    world.reset();
    world = std::make_unique<World>(files);
  }
  return *world;
}

// What some rounds have found.
struct Found {
  std::array<std::vector<double>, World::kPeers> ms;
  std::array<Took, World::kPeers> last;
  uint64_t difference = 0;
};

double median(std::vector<double> of) {
  std::ranges::sort(of);
  return of[of.size() / 2];
}

uint64_t difference_of(const fs::View& before, const fs::View& after) {
  fs::TreeChanges changes = fs::all_changes(before, after);
  return fs::Transition(before, after, changes).bytes();
}

void measure(World& world, int64_t lag, Change change, size_t round, Found& found) {
  static constexpr std::array kSay = {Priced::Say::kAsItIs, Priced::Say::kSuffix, Priced::Say::kSnapshot};
  {
    fs::View before = world.now();
    world.go_on(lag, change);
    found.difference = difference_of(before, world.now());
  }
  for (size_t i = 0; i < World::kPeers; i++) {
    size_t peer = (i + round) % World::kPeers;  // who comes first finds less in the processor's caches
    found.last[peer] = world.bring(peer, kSay[peer]);
    found.ms[peer].push_back(found.last[peer].ms);
  }
  world.forget_history();
}

void tiers(benchmark::State& state, Change change) {
  World& world = world_of(static_cast<int>(state.range(0)));
  Found found;
  const auto& [chosen, suffix, snapshot] = found.last;
  for (auto unused : state) {
    (void)unused;
    measure(world, state.range(1), change, found.ms[0].size(), found);
    state.SetIterationTime(chosen.ms / 1e3);
    if (suffix.by.tier != replay::Tier::kSuffix || snapshot.by.tier != replay::Tier::kSnapshot)
      state.SkipWithError("caught up another way than was to be measured");
    if (!world.peers_equal()) state.SkipWithError("a peer's tree differs");
  }
  auto kilobytes = [](uint64_t of) { return static_cast<double>(of) / 1e3; };
  double ms = median(found.ms[0]), suffix_ms = median(found.ms[1]), snapshot_ms = median(found.ms[2]);
  state.SetLabel(std::string(replay::tier_name(chosen.by.tier)));
  state.counters["chosen_ms"] = ms;
  state.counters["chosen_kB"] = kilobytes(chosen.by.received_bytes);
  state.counters["suffix_ms"] = suffix_ms;
  state.counters["snapshot_ms"] = snapshot_ms;
  state.counters["suffix_kB"] = kilobytes(suffix.by.received_bytes);
  state.counters["snapshot_kB"] = kilobytes(snapshot.by.received_bytes);
  state.counters["estimated_kB"] = kilobytes(chosen.by.estimated_snapshot_bytes);
  state.counters["difference_kB"] = kilobytes(found.difference);
  state.counters["times_best"] = ms / std::min(suffix_ms, snapshot_ms);
}

void missing(benchmark::State& state) {
  World& world = world_of(static_cast<int>(state.range(0)));
  enum Peer : size_t { kOffering, kOverwritten, kThird };
  std::array<std::vector<double>, 2> ms;
  std::array<Took, 2> took;
  world.peer(kOffering).offer_tree(true);
  // Beyond the tree that the leader has kept of them.
  world.change_one_in(1'000);
  for (size_t peer : {kOffering, kOverwritten, kThird}) world.bring(peer, Priced::Say::kAsItIs);
  for (auto unused : state) {
    (void)unused;
    world.forget_history(Priced::Say::kSuffix);  // which pins no tree
    world.change_one_in(1'000 / static_cast<int>(state.range(1)));
    for (size_t i = 0, round = ms[0].size(); i < 2; i++) {
      size_t peer = (i + round) % 2;
      took[peer] = world.bring(peer, Priced::Say::kAsItIs);
      ms[peer].push_back(took[peer].ms);
    }
    world.bring(kThird, Priced::Say::kAsItIs);
    state.SetIterationTime(took[kOffering].ms / 1e3);
    if (took[kOffering].by.tier != replay::Tier::kMissingBlobs ||
        took[kOverwritten].by.tier != replay::Tier::kSnapshot)
      state.SkipWithError("caught up another way than was to be measured");
    if (!world.peers_equal()) state.SkipWithError("a peer's tree differs");
  }
  world.peer(kOffering).offer_tree(false);
  world.forget_history();
  state.counters["missing_ms"] = median(ms[kOffering]);
  state.counters["snapshot_ms"] = median(ms[kOverwritten]);
  state.counters["missing_kB"] = static_cast<double>(took[kOffering].by.received_bytes) / 1e3;
  state.counters["snapshot_kB"] = static_cast<double>(took[kOverwritten].by.received_bytes) / 1e3;
}

void arguments(benchmark::internal::Benchmark* row) {
  row->ArgNames({"files", "lag"})->UseManualTime()->Unit(benchmark::kMillisecond)->Iterations(5);
  for (int64_t files : {1'000, 10'000, 100'000}) {
    for (int64_t lag : {1, 10, 100, 1'000, 3'000, 10'000, 30'000, 100'000, 300'000, 1'000'000})
      row->Args({files, lag});
  }
}

BENCHMARK_CAPTURE(tiers, all_files, Change::kAllFiles)->Apply(arguments);
BENCHMARK_CAPTURE(tiers, ten_files, Change::kTenFiles)->Apply(arguments);
BENCHMARK_CAPTURE(tiers, names, Change::kNames)->Apply(arguments);
BENCHMARK(missing)
    ->ArgNames({"files", "changed"})
    ->ArgsProduct({{1'000, 10'000, 100'000}, {1, 10, 100, 500}})
    ->UseManualTime()
    ->Unit(benchmark::kMillisecond)
    ->Iterations(5);

}  // namespace
}  // namespace reprise::bench

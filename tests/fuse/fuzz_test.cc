// The mount against the kernel's tmpfs: random scripts, and those that ever made a difference.
//
//   REPRISE_FUZZ_CALLS=1000000 fuse_tests --gtest_filter='MountFuzz.*'   as many calls, however long it takes
//   REPRISE_FUZZ_SEED, REPRISE_FUZZ_FINDINGS: as in tests/fs/fuzz_test.cc
//
// A script that makes a difference is shrunk and printed: kept as a file in tests/fuse/regressions it is run
// every time, after those of tests/fs/regressions.
#include "tests/posix/fuzz.h"

#include <gtest/gtest.h>

#include <iostream>
#include <thread>

#include "tests/fs/recording.h"
#include "tests/fuse/served_mount.h"
#include "tests/posix/guest_calls.h"
#include "tests/posix/kernel_calls.h"
#include "tests/posix/waivers.h"

namespace reprise::fuse::testing {
namespace {

using posix::Contestant;
using posix::Crew;
using posix::KernelRoot;

std::unique_ptr<ServedMount> mount_of(fs::Filesystem& filesystem) {
  KernelRoot::leave();
  auto mount = ServedMount::make(filesystem);
  if (!mount) ADD_FAILURE() << mount.error().message();
  CHECK(mount.has_value());
  return std::move(*mount);
}

// What callers of the kernel see in a mount.
struct Seen {
  std::unique_ptr<ServedMount> mount;
  KernelRoot root{{.root = mount->open_top()}};
  Crew crew = posix::crew_of([this](const posix::Credentials& who) { return root.calls(who); });
};

class ThroughTheMount final : public Contestant {
 public:
  ThroughTheMount() { seen_->crew.perform({.call = "chmod", .path = "/", .mode = 0777}); }
  Crew& crew() override { return seen_->crew; }

  bool excused(const posix::Step& step, const std::string& got, const std::string& expected) override {
    return posix::excused(posix::Which::kFuse, step, got, expected);
  }

  std::string complaint(bool finished) override {
    if (!finished) return world_.filesystem.view().check_invariants();
    auto warm = seen_->crew.tree();
    seen_.reset();
    if (std::string broken = world_.broken_law(); !broken.empty()) return broken;
    fs::Head replayed = world_.replayed();
    if (replayed.digest() != world_.filesystem.digest()) return "replayed, it is another tree";
    if (replayed.usage().inodes != world_.filesystem.usage().inodes)
      return "unmounted, it holds inodes that nobody can reach";
    Crew guests = posix::crew_of(
        [this](const posix::Credentials& who) { return posix::guest_calls(world_.filesystem, who); });
    if (std::string differs = posix::differing_entry(warm, guests.tree()); !differs.empty())
      return "in the mount it is not as to guests in the process (the oracle here): " + differs;
    Seen again{mount_of(world_.filesystem)};
    if (std::string differs = posix::differing_entry(warm, again.crew.tree()); !differs.empty())
      return "in the mount it is not as mounted afresh (the oracle here): " + differs;
    return {};
  }

 private:
  fs::Recorded world_;
  std::optional<Seen> seen_{std::in_place, mount_of(world_.filesystem)};
};

std::unique_ptr<Contestant> mount_contestant() {
  return std::make_unique<ThroughTheMount>();
}

TEST(MountFuzz, RandomCallsAreAnsweredAsByTmpfs) {
  ASSERT_EQ(::geteuid(), 0u) << "calling as several users needs root";
  posix::FuzzRun run =
      posix::fuzz(mount_contestant, posix::tmpfs_contestant, {.usual_time = std::chrono::seconds(8)});
  for (const std::string& finding : run.findings) ADD_FAILURE() << finding;
  RecordProperty("calls", std::to_string(run.calls));
  std::cout << run.calls << " calls\n";
}

// --- several at once, each in a directory of its own, which is its root

struct Told {
  std::vector<std::string> answers;
  std::map<std::string, std::string> tree;
};

Told perform_all(Crew& crew, const posix::Script& script) {
  Told told;
  for (const posix::Step& step : script) told.answers.push_back(crew.perform(step));
  told.tree = crew.tree();
  return told;
}

// In a thread that makes no other calls.
Told perform_below(const ServedMount& mount, const std::string& directory, const posix::Script& script) {
  KernelRoot root({.root = mount.open_top(directory)});
  Crew crew = posix::first_crew_of([&](const posix::Credentials& who) { return root.calls(who); });
  return perform_all(crew, script);
}

void expect_as_by_tmpfs(const posix::Script& script, const Told& got) {
  auto tmpfs = posix::tmpfs_contestant();
  auto excuses = mount_contestant();
  Told expected = perform_all(tmpfs->crew(), script);
  for (size_t i = 0; i < script.size(); ++i) {
    if (excuses->excused(script[i], got.answers[i], expected.answers[i])) continue;
    ASSERT_EQ(got.answers[i], expected.answers[i]) << "call " << i + 1 << " of\n" << to_text(script);
  }
  EXPECT_EQ(posix::differing_entry(got.tree, expected.tree), "") << to_text(script);
}

TEST(MountFuzz, GuestsAtOnceDoNotMeddleWithEachOther) {
  ASSERT_EQ(::geteuid(), 0u) << "calling as several users needs root";
  constexpr size_t kGuests = 6, kSteps = 1500;
  const uint64_t first_seed = posix::from_environment("REPRISE_FUZZ_SEED", 1);
  const uint64_t calls = posix::from_environment("REPRISE_FUZZ_CALLS", kGuests * kSteps * 2);
  uint64_t made = 0;
  (void)posix::keep_mounts_private();  // before there are threads, which have this one's
  for (uint64_t seed = first_seed; made < calls && !HasFatalFailure(); ++seed) {
    fs::Recorded world;
    auto mount = mount_of(world.filesystem);
    std::vector<posix::Script> scripts;
    for (size_t i = 0; i < kGuests; ++i) {
      std::mt19937_64 random(seed * kGuests + i);
      scripts.push_back(posix::random_script(random, kSteps));
      ASSERT_TRUE(world.filesystem.make_directory({}, kRootInode, std::to_string(i), 0755));
    }
    std::vector<Told> told(kGuests);
    std::vector<std::thread> guests;
    for (size_t i = 0; i < kGuests; ++i)
      guests.emplace_back([&, i] { told[i] = perform_below(*mount, "/" + std::to_string(i), scripts[i]); });
    for (std::thread& guest : guests) guest.join();
    mount.reset();
    EXPECT_EQ(world.broken_law(), "");
    EXPECT_EQ(world.replayed().digest().to_string(), world.filesystem.digest().to_string());
    for (size_t i = 0; i < kGuests; ++i) expect_as_by_tmpfs(scripts[i], told[i]);
    made += kGuests * kSteps;
  }
  std::cout << made << " calls\n";
}

class MountRegression : public ::testing::TestWithParam<std::filesystem::path> {};

TEST_P(MountRegression, IsAnsweredAsByTmpfs) {
  ASSERT_EQ(::geteuid(), 0u) << "calling as several users needs root";
  auto script = posix::read_script(GetParam());
  ASSERT_TRUE(script && !script->empty()) << GetParam() << " is no script";
  EXPECT_EQ(difference(*script, mount_contestant, posix::tmpfs_contestant).value_or(""), "");
}

INSTANTIATE_TEST_SUITE_P(InProcess, MountRegression, ::testing::ValuesIn(posix::kept_scripts("fs")),
                         [](const auto& named) { return named.param.stem().string(); });
INSTANTIATE_TEST_SUITE_P(Mount, MountRegression, ::testing::ValuesIn(posix::kept_scripts("fuse")),
                         [](const auto& named) { return named.param.stem().string(); });

}  // namespace
}  // namespace reprise::fuse::testing

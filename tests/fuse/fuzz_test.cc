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

#include "tests/fs/recording.h"
#include "tests/fuse/served_mount.h"
#include "tests/posix/guest_calls.h"
#include "tests/posix/kernel_calls.h"

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

  // The kernel sends a chown that keeps both ids as it does the first half of a write, so that the server
  // cannot tell who must own the file.
  bool excused(const posix::Step& step, const std::string& got, const std::string& expected) override {
    constexpr uint32_t kKeep = ~uint32_t{0};
    return step.call.ends_with("chown") && step.uid == kKeep && step.gid == kKeep && got == "ok" &&
           expected == "EPERM";
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

bool can_mount() {
  return ::geteuid() == 0;
}

TEST(MountFuzz, RandomCallsAreAnsweredAsByTmpfs) {
  if (!can_mount()) GTEST_SKIP() << "calling as several users needs root";
  posix::FuzzRun run =
      posix::fuzz(mount_contestant, posix::tmpfs_contestant, {.usual_time = std::chrono::seconds(8)});
  for (const std::string& finding : run.findings) ADD_FAILURE() << finding;
  RecordProperty("calls", std::to_string(run.calls));
  std::cout << run.calls << " calls\n";
}

class MountRegression : public ::testing::TestWithParam<std::filesystem::path> {};

TEST_P(MountRegression, IsAnsweredAsByTmpfs) {
  if (!can_mount()) GTEST_SKIP() << "calling as several users needs root";
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

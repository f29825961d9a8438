// Random things done by programs in the mount, which check them byte by byte (exercise/exercise.h).
//
//   REPRISE_EXERCISE_STEPS=300000 REPRISE_EXERCISE_SEED=7 fuse_tests --gtest_filter='Exercise.*'
#include <gtest/gtest.h>

#include <cstdlib>
#include <string>

#include "tests/fs/recording.h"
#include "tests/fuse/mounted.h"
#include "tests/fuse/served_mount.h"
#include "tests/posix/fuzz.h"
#include "tests/posix/guest_calls.h"
#include "tests/posix/kernel_calls.h"

namespace reprise::fuse::testing {
namespace {

std::string from_environment(const char* name, const char* otherwise) {
  const char* text = std::getenv(name);
  return text == nullptr ? otherwise : text;
}
std::string seed() {
  return from_environment("REPRISE_EXERCISE_SEED", "1");
}
std::string steps(const char* otherwise) {
  return from_environment("REPRISE_EXERCISE_STEPS", otherwise);
}

std::string content_of(Mounted& mounted, std::string_view path) {
  InodeId inode = mounted.inode_at(path);
  auto attributes = mounted.filesystem().get_attributes(inode);
  if (!attributes) return "not there";
  std::string bytes(attributes->size, '\0');
  auto count = mounted.filesystem().read(inode, 0, std::as_writable_bytes(std::span(bytes)));
  return count && *count == bytes.size() ? bytes : "not readable";
}

TEST(Exercise, EveryByteOfAFileIsTheOneThatWasWritten) {
  Mounted mounted;
  Ran ran = mounted.run(std::string(REPRISE_EXERCISE) + " file " + seed() + " " + steps("15000") + " $OUT");
  EXPECT_EQ(ran.status, 0) << ran.output;
  for (const char* name : {"one", "two"}) {
    EXPECT_TRUE(content_of(mounted, name) == read_host_file(mounted.outside() / name))
        << name << " has not arrived as it was written";
  }
  EXPECT_EQ(mounted.filesystem().view().check_invariants(), "");
  EXPECT_EQ(mounted.filesystem().view().digest().to_string(),
            mounted.filesystem().view().recompute_digest().to_string());
}

// The commands of one mount; what it holds in the end is the sum of what was recorded, and looks the same
// through the mount, cold or warm, and in the process.
TEST(Exercise, ManyProcessesInOneSmallTree) {
  ASSERT_EQ(::geteuid(), 0u) << "looking at it from this process needs root";
  fs::Recorded world;
  auto mount = ServedMount::make(world.filesystem);
  ASSERT_TRUE(mount) << mount.error().message();
  ASSERT_EQ((*mount)->run({REPRISE_EXERCISE, "tree", seed(), steps("6000"), "8"}), 0);

  (void)posix::keep_mounts_private();
  auto look = [](ServedMount& at) {
    posix::KernelRoot root({.root = at.open_top()});
    return posix::crew_of([&](const posix::Credentials& who) { return root.calls(who); }).tree();
  };
  auto warm = look(**mount);
  mount->reset();
  EXPECT_GT(warm.size(), 5u) << "nothing much was there";
  EXPECT_EQ(world.broken_law(), "");
  fs::Head replayed = world.replayed();
  EXPECT_EQ(replayed.digest().to_string(), world.filesystem.digest().to_string());
  EXPECT_EQ(replayed.usage().inodes, world.filesystem.usage().inodes) << "inodes that nobody can reach";
  auto guests = posix::crew_of(
      [&](const posix::Credentials& who) { return posix::guest_calls(world.filesystem, who); });
  EXPECT_EQ(posix::differing_entry(warm, guests.tree()), "");
  auto again = ServedMount::make(world.filesystem);
  ASSERT_TRUE(again) << again.error().message();
  EXPECT_EQ(posix::differing_entry(warm, look(**again)), "");
}

}  // namespace
}  // namespace reprise::fuse::testing

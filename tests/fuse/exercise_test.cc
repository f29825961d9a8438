// Random things done by programs in the mount, which check them byte by byte (exercise/exercise.h).
//
//   REPRISE_EXERCISE_STEPS=300000 REPRISE_EXERCISE_SEED=7 fuse_tests --gtest_filter='Exercise.*'
#include <gtest/gtest.h>

#include <cstdlib>
#include <string>

#include "tests/fuse/mounted.h"

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

}  // namespace
}  // namespace reprise::fuse::testing

// What a path itself can be wrong by, put to every call that takes one.
#include "tests/conformance/table.h"

namespace reprise::conformance {
namespace {

CONFORMANCE_SUITE_OF(House, PathErrors, Which::kTmpfs);

// The same for all of them.
TEST_P(PathErrors, OnTheWay) {
  for (const char* path : {"", "none/x", "full/none/x", "gone/x", "gonefar/x"})
    expect_of_path("ENOENT", &House::root, path);
  for (const char* path : {"file/x", "full/file/x/y", "link/x", "fifo/x", "socket/x", "device/x"})
    expect_of_path("ENOTDIR", &House::root, path);
  for (const char* path : {"loop/x", "d41/x", "full/../loop/x"}) expect_of_path("ELOOP", &House::root, path);
  for (const std::string& path : {long_name(), "full/" + long_name(), long_name() + "/x", long_path()})
    expect_of_path("ENAMETOOLONG", &House::root, path);
}

TEST_P(PathErrors, ThroughWhatMayNotBeSearched) {
  for (const char* path : {"closed/x", "closed/file", "closed/sub/x", "closed/.", "nosearch/x", "door/file",
                           "full/../closed/file"})
    expect_of_path("EACCES", &House::alice, path);
}

TEST_P(PathErrors, AtItsEnd) {
  for (const char* path : {"none", "full/none", "none/"})
    expect_of_path("ENOENT", &House::root, path, kNeeds);
  for (const char* path : {"gone", "gonefar"}) expect_of_path("ENOENT", &House::root, path, kFollows);
  for (const char* path : {"loop", "d41"}) expect_of_path("ELOOP", &House::root, path, kFollows);
  for (const char* path : {"file/", "link/", "fifo/"}) expect_of_path("ENOTDIR", &House::root, path, kNeeds);
  expect_of_path("EACCES", &House::alice, "peep", kFollows);
  for (const char* path : {"file", "full", "gone", "loop", "dirlink", "fifo", "full/.", "full/..", "/"})
    expect_of_path("EEXIST", &House::root, path, kMakes);
}

TEST_P(PathErrors, InADirectoryThatMayNotBeWritten) {
  expect_of_path("EACCES", &House::alice, "full/x", kMakes);
  for (const char* path : {"file", "full"})  // what is there is looked at first
    expect_of_path("EEXIST", &House::alice, path, kMakes);
}

TEST_P(PathErrors, InADirectoryThatHasBeenRemoved) {
  expect_of_path("ENOENT", &House::lost, "x");
}

}  // namespace
}  // namespace reprise::conformance

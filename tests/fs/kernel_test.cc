// The Guest and the kernel's own filesystem, side by side: the same calls must give the same answers and the
// same tree. The little that can be compared without root; fuzz_test.cc does more with it.
#include <gtest/gtest.h>
#include <linux/falloc.h>
#include <rapidcheck/gtest.h>

#include "tests/fs/kernel_calls.h"

namespace reprise::fs {
namespace {

// A file of another owner that one may not write cannot be linked where fs.protected_hardlinks is set: a rule
// of that host's, so links are made by the first actor alone.
void use_first_actor_for_links(Call& call) {
  if (call.kind == Kind::kLink) call.actor = 0;
}

// Symlinks that climb could lead out of the temporary directory.
bool climbs(const Call& call) {
  return call.kind == Kind::kSymlink && call.other.find("..") != std::string::npos;
}

// Above a removed directory that was in a removed directory the kernel still has the outer one, a Guest has
// nothing.
bool removes_twice(const Call& call) {
  return call.kind == Kind::kRmdir && call.path == "../../n";
}

RC_GTEST_PROP(Kernel, RandomCallsAreAnsweredAlike, ()) {
  std::vector<Credentials> actors = actors_of_this_process();
  KernelCallee kernel(actors);
  GuestCallee guest(actors, false);
  auto calls = *gen_calls({.actors = static_cast<int>(actors.size())});
  for (Call& call : calls) {
    use_first_actor_for_links(call);
    if (climbs(call) || removes_twice(call)) continue;
    std::string expected = kernel.perform(call), got = guest.perform(call);
    if (got != expected) RC_LOG() << call << "\nkernel: " << expected << "\nguest:  " << got << "\n";
    RC_ASSERT(got == expected);
  }
  RC_ASSERT(guest.tree() == kernel.tree());
}

// --- what chance is slow to find

struct Sequence {
  const char* name;
  std::vector<Call> calls;
};

void PrintTo(const Sequence& sequence, std::ostream* out) {
  *out << sequence.name;
}

Call make_directory(const char* path, uint32_t mode = 0777) {
  return {.kind = Kind::kMkdir, .path = path, .mode = mode};
}
Call make_file(const char* path, int slot = 0, uint32_t mode = 0666) {
  return {.kind = Kind::kOpen, .path = path, .slot = slot, .flags = O_RDWR | O_CREAT, .mode = mode};
}
Call write_some(int slot, int64_t offset, size_t length, char fill = 'w') {
  return {.kind = Kind::kPwrite, .slot = slot, .offset = offset, .length = length, .fill = fill};
}
Call symlink(const char* path, const char* target) {
  return {.kind = Kind::kSymlink, .path = path, .other = target};
}
Call stat(const char* path) {
  return {.kind = Kind::kStat, .path = path};
}
Call rename(const char* from, const char* to, int flags = 0, int actor = 0) {
  return {.kind = Kind::kRename, .path = from, .other = to, .flags = flags, .actor = actor};
}
Call unlink(const char* path, int actor = 0) {
  return {.kind = Kind::kUnlink, .path = path, .actor = actor};
}

const std::vector<Sequence>& sequences() {
  static const std::vector<Sequence> all = {
      {"symlinks_that_climb",
       {make_directory("d"),
        make_directory("d/e"),
        make_file("f"),
        symlink("d/e/up", "../.."),
        symlink("d/e/f", "../../f"),
        stat("d/e/up/f"),
        stat("d/e/f"),
        stat("d/e/up/d/e/up/f"),
        {.kind = Kind::kList, .path = "d/e/up"},
        {.kind = Kind::kMkdir, .path = "d/e/up/made", .mode = 0700},
        stat("made"),
        rename("d/e/up/f", "d/e/up/d/g"),
        symlink("d/e/new", "../made-through"),
        make_file("d/e/new"),
        stat("d/made-through"),
        {.kind = Kind::kRmdir, .path = "d/e/up"},
        {.kind = Kind::kRmdir, .path = "d/e/up/"},
        unlink("d/e/up/")}},
      {"loops_of_symlinks",
       {symlink("x", "y"),
        symlink("y", "x"),
        symlink("z", "z/z"),
        stat("x"),
        stat("x/"),
        stat("z"),
        make_file("x"),
        {.kind = Kind::kLstat, .path = "x"},
        rename("x", "w"),
        stat("w"),
        {.kind = Kind::kLink, .path = "y", .other = "y2"},
        {.kind = Kind::kLink, .path = "y", .other = "y3", .flags = AT_SYMLINK_FOLLOW},
        {.kind = Kind::kReadlink, .path = "y2"}}},
      {"slashes_at_the_end",
       {make_file("f"),
        make_directory("d/"),
        symlink("s", "d"),
        symlink("sf", "f"),
        make_file("n/"),
        make_file("f/"),
        {.kind = Kind::kMknod, .path = "n/", .mode = S_IFREG | 0644u},
        {.kind = Kind::kMknod, .path = "d/", .mode = S_IFREG | 0644u},
        symlink("n/", "t"),
        {.kind = Kind::kLink, .path = "f", .other = "n/"},
        {.kind = Kind::kLink, .path = "f/", .other = "n"},
        {.kind = Kind::kMkdir, .path = "s/", .mode = 0700},
        rename("f/", "n"),
        rename("f", "n/"),
        rename("d/", "d2/"),
        rename("d2", "d/"),
        rename("s/", "s2"),
        rename("f", "s/"),
        rename("sf", "d/", RENAME_EXCHANGE),
        rename("d/", "f/", RENAME_EXCHANGE),
        rename("d/", "f", RENAME_EXCHANGE),
        unlink("f/"),
        unlink("s/"),
        unlink("n/"),
        {.kind = Kind::kRmdir, .path = "s/"},
        {.kind = Kind::kRmdir, .path = "f/"}}},
      {"dots_and_the_top",
       {make_directory("d"),
        {.kind = Kind::kRmdir, .path = "d/."},
        {.kind = Kind::kRmdir, .path = "d/.."},
        unlink("."),
        unlink(".."),
        {.kind = Kind::kMkdir, .path = "."},
        {.kind = Kind::kMkdir, .path = "/"},
        {.kind = Kind::kRmdir, .path = "/"},
        unlink("/"),
        rename(".", "x"),
        rename("d", "."),
        rename("d", "..", RENAME_NOREPLACE),
        {.kind = Kind::kLink, .path = ".", .other = "x"},
        make_file("."),
        make_file("d/.."),
        {.kind = Kind::kOpen, .path = ".", .flags = O_RDWR | O_CREAT | O_EXCL}}},
      {"renames_over_things",
       {make_directory("a"),
        make_directory("a/b"),
        make_directory("e"),
        make_file("f"),
        make_file("a/f", 1),
        rename("a", "a/b/c"),
        rename("a", "a/b"),
        rename("a/b", "a"),
        rename("f", "e"),
        rename("e", "f"),
        rename("e", "a"),
        rename("a/b", "e"),
        rename("a/f", "f"),
        {.kind = Kind::kFstat, .slot = 0},
        {.kind = Kind::kFstat, .slot = 1},
        rename("a", "e", RENAME_EXCHANGE),
        rename("a", "f", RENAME_EXCHANGE),
        rename("e", "f/x", RENAME_EXCHANGE),
        rename("f", "e/in", RENAME_NOREPLACE),
        stat("e/in")}},
      {"sticky_directories",
       {make_directory("t", 01777),
        {.kind = Kind::kChmod, .path = "t", .mode = 01777},
        make_file("t/f"),
        {.kind = Kind::kMkdir, .path = "t/mine", .mode = 0777, .actor = 1},
        unlink("t/f", 1),
        rename("t/f", "t/g", 0, 1),
        rename("t/mine", "t/yours", 0, 2),
        rename("t/mine", "t/mine2", 0, 1),
        {.kind = Kind::kRmdir, .path = "t/mine2", .actor = 2},
        {.kind = Kind::kRmdir, .path = "t/mine2"}}},
      {"files_without_a_name",
       {make_directory("d"),
        {.kind = Kind::kOpen, .path = "d", .flags = O_TMPFILE | O_RDWR, .mode = 0640},
        write_some(0, 10, 20),
        {.kind = Kind::kFstat},
        {.kind = Kind::kLinkHandle, .path = "d/shown"},
        {.kind = Kind::kLinkHandle, .path = "d/again"},
        unlink("d/shown"),
        unlink("d/again"),
        {.kind = Kind::kLinkHandle, .path = "d/never"},
        {.kind = Kind::kFstat},
        {.kind = Kind::kOpen, .path = "d", .flags = O_TMPFILE | O_RDWR | O_EXCL, .mode = 0640},
        {.kind = Kind::kLinkHandle, .path = "d/excluded"},
        {.kind = Kind::kOpen, .path = "d", .flags = O_TMPFILE | O_RDONLY},
        {.kind = Kind::kOpen, .path = "d/no", .flags = O_TMPFILE | O_RDWR},
        make_file("f"),
        {.kind = Kind::kOpen, .path = "f", .flags = O_TMPFILE | O_RDWR}}},
      {"ranges_of_bytes",
       {make_file("f"),
        make_file("g", 1),
        write_some(0, 0, 10000),
        write_some(0, 50000, 100, 'v'),
        {.kind = Kind::kFallocate, .offset = 40000, .length = 30000},
        {.kind = Kind::kFstat},
        {.kind = Kind::kFallocate, .flags = FALLOC_FL_KEEP_SIZE, .offset = 0, .length = 100000},
        {.kind = Kind::kFstat},
        {.kind = Kind::kFallocate,
         .flags = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
         .offset = 100,
         .length = 9000},
        {.kind = Kind::kFallocate, .flags = FALLOC_FL_PUNCH_HOLE, .offset = 100, .length = 9000},
        {.kind = Kind::kFallocate, .offset = 0, .length = 0},
        {.kind = Kind::kFallocate, .offset = -1, .length = 1},
        {.kind = Kind::kCopyRange, .slot = 0, .flags = 7, .mode = 1, .offset = 49990, .length = 50},
        {.kind = Kind::kCopyRange, .slot = 0, .flags = 0, .mode = 1, .offset = 1 << 20, .length = 50},
        {.kind = Kind::kCopyRange, .slot = 0, .flags = 10, .mode = 0, .offset = 0, .length = 50},
        {.kind = Kind::kCopyRange, .slot = 0, .flags = 80000, .mode = 0, .offset = 0, .length = 50},
        {.kind = Kind::kSeek, .flags = SEEK_END, .offset = 5},
        {.kind = Kind::kWrite, .length = 3},
        {.kind = Kind::kFtruncate, .offset = 12},
        {.kind = Kind::kFtruncate, .offset = 9999}}},
      {"times_and_owners",
       {make_file("f", 0, 0666),
        {.kind = Kind::kTouch, .path = "f"},
        {.kind = Kind::kTouch, .path = "f", .flags = 2},
        {.kind = Kind::kTouch, .path = "f", .flags = 0, .actor = 1},
        {.kind = Kind::kTouch, .path = "f", .flags = 1, .actor = 1},
        {.kind = Kind::kTouch, .path = "f", .flags = 2, .actor = 1},
        {.kind = Kind::kChmod, .path = "f", .mode = 0600},
        {.kind = Kind::kTouch, .path = "f", .flags = 0, .actor = 1},
        {.kind = Kind::kChown, .path = "f", .mode = 1000, .actor = 1},
        {.kind = Kind::kTouch, .path = "none"}}},
  };
  return all;
}

class KernelSequence : public testing::TestWithParam<Sequence> {};

TEST_P(KernelSequence, IsAnsweredAlike) {
  std::vector<Credentials> actors = actors_of_this_process();
  KernelCallee kernel(actors);
  GuestCallee guest(actors, false);
  for (Call call : GetParam().calls) {
    call.actor = std::min(call.actor, static_cast<int>(actors.size()) - 1);
    EXPECT_EQ(guest.perform(call), kernel.perform(call)) << call;
  }
  EXPECT_EQ(guest.tree(), kernel.tree());
  guest.world.expect_laws();
}

INSTANTIATE_TEST_SUITE_P(Kernel, KernelSequence, testing::ValuesIn(sequences()),
                         [](const auto& named) { return std::string(named.param.name); });

}  // namespace
}  // namespace reprise::fs

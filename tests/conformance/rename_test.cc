#include <stdio.h>

#include "tests/conformance/conformance.h"

namespace reprise::conformance {
namespace {

CONFORMANCE_SUITE(Rename);

TEST_P(Rename, MovesAName) {
  OK(root().write_file("f", "bytes"));
  OK(root().mkdir("d"));
  uint64_t before = must(root().stat("f")).inode.value;
  OK(root().rename("f", "d/g"));
  FAILS(ENOENT, root().stat("f"));
  GIVES("bytes", root().read_file("d/g"));
  EXPECT_EQ(must(root().stat("d/g")).inode.value, before);
}

TEST_P(Rename, ReplacesAFileAtOnce) {
  OK(root().write_file("old", "old"));
  OK(root().write_file("new", "new"));
  int fd = must(root().open("old", O_RDONLY));
  OK(root().rename("new", "old"));
  GIVES("new", root().read_file("old"));
  GIVES("old", root().read(fd, 10));
  EXPECT_EQ(must(root().fstat(fd)).nlink, 0u);
  EXPECT_EQ(names_in(root(), "/"), "old ");
}

TEST_P(Rename, OntoItselfOrAnotherNameOfTheFileChangesNothing) {
  OK(root().write_file("f", "x"));
  OK(root().link("f", "g"));
  OK(root().rename("f", "f"));
  OK(root().rename("f", "g"));
  EXPECT_EQ(names_in(root(), "/"), "f g ");
  OK(root().mkdir("d"));
  OK(root().rename("d", "d"));
}

TEST_P(Rename, ReplacesOnlyItsOwnKind) {
  OK(root().write_file("f", ""));
  OK(root().mkdir("d"));
  OK(root().symlink("d", "s"));
  FAILS(ENOTDIR, root().rename("d", "f"));
  FAILS(EISDIR, root().rename("f", "d"));
  FAILS(EISDIR, root().rename("s", "d"));
  OK(root().rename("f", "s"));
  EXPECT_TRUE(must(root().lstat("s")).is_regular());
}

TEST_P(Rename, ReplacesEmptyDirectoriesOnly) {
  OK(root().mkdir("a"));
  OK(root().mkdir("b"));
  OK(root().write_file("b/f", ""));
  FAILS(ENOTEMPTY, root().rename("a", "b"));
  OK(root().rename("b", "a"));
  EXPECT_EQ(names_in(root(), "a"), "f ");
  FAILS(ENOENT, root().stat("b"));
}

TEST_P(Rename, MovesNoDirectoryBelowItself) {
  OK(root().mkdir("a"));
  OK(root().mkdir("a/b"));
  FAILS(EINVAL, root().rename("a", "a/c"));
  FAILS(EINVAL, root().rename("a", "a/b/c"));
  FAILS(EINVAL, root().rename("a", "a/b"));
  FAILS(ENOTEMPTY, root().rename("a/b", "a"));
}

TEST_P(Rename, RefusesDotsAndTheTop) {
  OK(root().mkdir("d"));
  FAILS(EBUSY, root().rename("d/.", "e"));
  FAILS(EBUSY, root().rename("d", "d/.."));
  FAILS(EBUSY, root().rename("/", "e"));
  FAILS(EBUSY, root().rename("d", "/"));
  FAILS(EEXIST, root().rename("d", "/", RENAME_NOREPLACE));
}

TEST_P(Rename, SlashAfterANameMeansDirectory) {
  OK(root().write_file("f", ""));
  OK(root().mkdir("d"));
  FAILS(ENOTDIR, root().rename("f/", "g"));
  FAILS(ENOTDIR, root().rename("f", "g/"));
  OK(root().rename("d/", "e/"));
  EXPECT_EQ(names_in(root(), "/"), "e f ");
}

TEST_P(Rename, NoReplaceRefusesWhatIsThere) {
  OK(root().write_file("f", "f"));
  OK(root().write_file("g", "g"));
  FAILS(EEXIST, root().rename("f", "g", RENAME_NOREPLACE));
  FAILS(EEXIST, root().rename("f", "f", RENAME_NOREPLACE));
  OK(root().rename("f", "h", RENAME_NOREPLACE));
  EXPECT_EQ(names_in(root(), "/"), "g h ");
}

TEST_P(Rename, ExchangeSwapsWhateverTheyAre) {
  OK(root().write_file("f", "f"));
  OK(root().mkdir("d"));
  OK(root().mkdir("d/sub"));
  OK(root().mkdir("x"));
  OK(root().rename("f", "d", RENAME_EXCHANGE));
  GIVES("f", root().read_file("d"));
  EXPECT_EQ(names_in(root(), "f"), "sub ");
  OK(root().rename("f", "x/f", RENAME_NOREPLACE));
  OK(root().rename("d", "x/f", RENAME_EXCHANGE));
  EXPECT_EQ(must(root().stat("x")).nlink, 2u);
  EXPECT_EQ(must(root().stat("/")).nlink, 4u);
}

TEST_P(Rename, ExchangeNeedsBothAndMakesNoCycle) {
  OK(root().mkdir("a"));
  OK(root().mkdir("a/b"));
  FAILS(ENOENT, root().rename("a", "none", RENAME_EXCHANGE));
  FAILS(EINVAL, root().rename("a", "a/b", RENAME_EXCHANGE));
  FAILS(EINVAL, root().rename("a/b", "a", RENAME_EXCHANGE));
  FAILS(EINVAL, root().rename("a", "b", RENAME_EXCHANGE | RENAME_NOREPLACE));
}

TEST_P(Rename, CountsSubdirectoriesOfBothParents) {
  OK(root().mkdir("a"));
  OK(root().mkdir("b"));
  OK(root().mkdir("a/d"));
  EXPECT_EQ(must(root().stat("a")).nlink, 3u);
  OK(root().rename("a/d", "b/d"));
  EXPECT_EQ(must(root().stat("a")).nlink, 2u);
  EXPECT_EQ(must(root().stat("b")).nlink, 3u);
  EXPECT_EQ(must(root().stat("b/d/..")).inode, must(root().stat("b")).inode);
}

TEST_P(Rename, ChangesTimesOfTheDirectoriesAndOfTheFilesStatus) {
  OK(root().mkdir("a"));
  OK(root().mkdir("b"));
  OK(root().write_file("a/f", ""));
  Attributes a = must(root().stat("a")), b = must(root().stat("b")), f = must(root().stat("a/f"));
  tick();
  OK(root().rename("a/f", "b/f"));
  EXPECT_GT(must(root().stat("a")).mtime, a.mtime);
  EXPECT_GT(must(root().stat("b")).mtime, b.mtime);
  EXPECT_GT(must(root().stat("b/f")).ctime, f.ctime);
  EXPECT_EQ(must(root().stat("b/f")).mtime, f.mtime);
}

TEST_P(Rename, NeedsToWriteBothDirectories) {
  OK(alice().mkdir("mine"));
  OK(root().mkdir("theirs", 0755));
  OK(alice().write_file("mine/f", ""));
  OK(root().write_file("theirs/g", ""));
  FAILS(EACCES, alice().rename("mine/f", "theirs/f"));
  FAILS(EACCES, alice().rename("theirs/g", "mine/g"));
}

TEST_P(Rename, MovingADirectoryNeedsToWriteItToo) {
  OK(alice().mkdir("from"));
  OK(alice().mkdir("to"));
  OK(root().mkdir("from/d", 0755));
  FAILS(EACCES, alice().rename("from/d", "to/d"));
  OK(alice().rename("from/d", "from/e"));  // stays where it is
}

TEST_P(Rename, StickyDirectoriesKeepWhatIsNotOnesOwn) {
  OK(root().mkdir("tmp"));
  OK(root().chmod("tmp", 01777));
  OK(alice().write_file("tmp/a", ""));
  OK(bob().write_file("tmp/b", ""));
  FAILS(EPERM, bob().rename("tmp/a", "tmp/c"));
  FAILS(EPERM, bob().rename("tmp/b", "tmp/a"));
  FAILS(EPERM, bob().rename("tmp/b", "tmp/a", RENAME_EXCHANGE));
  OK(alice().rename("tmp/a", "tmp/c"));
}

}  // namespace
}  // namespace reprise::conformance

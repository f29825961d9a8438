#include <set>

#include "tests/conformance/conformance.h"

namespace reprise::conformance {
namespace {

CONFORMANCE_SUITE(Directories);

TEST_P(Directories, MkdirMakesAnEmptyOne) {
  root().set_umask(022);
  OK(root().mkdir("d", 0777));
  Attributes d = must(root().stat("d"));
  EXPECT_EQ(permissions(d), "755");
  EXPECT_EQ(d.nlink, 2u);
  EXPECT_EQ(must(root().stat("/")).nlink, 3u);
  FAILS(EEXIST, root().mkdir("d"));
  FAILS(EEXIST, root().mkdir("d/"));
  FAILS(EEXIST, root().mkdir("d/."));
  FAILS(EEXIST, root().mkdir("/"));
  OK(root().mkdir("d/e/"));
  FAILS(ENOENT, root().mkdir("none/e"));
}

TEST_P(Directories, MkdirKeepsTheStickyBitAndNoOther) {
  OK(root().mkdir("d", 07755));
  EXPECT_EQ(permissions(root().stat("d")), "1755");
}

TEST_P(Directories, MkdirOverAnythingIsEEXIST) {
  OK(root().write_file("f", ""));
  OK(root().symlink("none", "s"));
  FAILS(EEXIST, root().mkdir("f"));
  FAILS(EEXIST, root().mkdir("s"));
  FAILS(ENOTDIR, root().mkdir("f/d"));
}

TEST_P(Directories, RmdirTakesEmptyOnesOnly) {
  OK(root().mkdir("d"));
  OK(root().mkdir("d/e"));
  FAILS(ENOTEMPTY, root().rmdir("d"));
  OK(root().rmdir("d/e/"));
  EXPECT_EQ(must(root().stat("d")).nlink, 2u);
  OK(root().rmdir("d"));
  FAILS(ENOENT, root().rmdir("d"));
}

TEST_P(Directories, RmdirRefusesWhatIsNone) {
  OK(root().write_file("f", ""));
  OK(root().mkdir("d"));
  OK(root().symlink("d", "s"));
  FAILS(ENOTDIR, root().rmdir("f"));
  FAILS(ENOTDIR, root().rmdir("s"));
  FAILS(ENOTDIR, root().rmdir("s/"));
  FAILS(EINVAL, root().rmdir("d/."));
  FAILS(ENOTEMPTY, root().rmdir("d/.."));
  FAILS(EBUSY, root().rmdir("/"));
}

TEST_P(Directories, ARemovedOneHasNothingInItAndTakesNothing) {
  OK(root().mkdir("d"));
  int fd = must(root().open("d", O_RDONLY | O_DIRECTORY));
  OK(root().chdir("d"));
  OK(root().rmdir("/d"));
  FAILS(ENOENT, root().mkdir("e"));
  FAILS(ENOENT, root().open("f", O_RDWR | O_CREAT));
  FAILS(ENOENT, root().stat("f"));
  FAILS(ENOENT, root().working_directory());
  FAILS(ENOENT, root().read_directory(fd, 10));
  EXPECT_EQ(must(root().stat(".")).nlink, 0u);
  EXPECT_EQ(must(root().stat("..")).inode, must(root().stat("/")).inode);
  OK(root().chdir(".."));
}

TEST_P(Directories, AboveARemovedOneIsStillTheOneItWasIn) {
  OK(root().mkdir("a"));
  OK(root().mkdir("a/b"));
  uint64_t a = must(root().stat("a")).inode.value;
  OK(root().chdir("a/b"));
  OK(root().rmdir("/a/b"));
  OK(root().rmdir("/a"));
  EXPECT_EQ(must(root().stat("..")).inode.value, a);
  EXPECT_EQ(must(root().stat("..")).nlink, 0u);
  EXPECT_EQ(must(root().stat("../..")).inode, must(root().stat("/")).inode);
  OK(root().chdir("../.."));
  GIVES("/", root().working_directory());
}

TEST_P(Directories, WorkingDirectoryIsToldFromTheTop) {
  OK(root().mkdir("a"));
  OK(root().mkdir("a/b"));
  OK(root().chdir("a/b"));
  GIVES("/a/b", root().working_directory());
  OK(root().rename("/a", "/c"));
  GIVES("/c/b", root().working_directory());
  OK(root().write_file("f", ""));
  FAILS(ENOTDIR, root().chdir("f"));
  FAILS(ENOENT, root().chdir("none"));
  OK(root().chmod("/c/b", 0700));
  FAILS(EACCES, alice().chdir("/c/b"));
}

TEST_P(Directories, ListingHasDotsAndTypes) {
  OK(root().mkdir("d"));
  OK(root().mkdir("d/sub"));
  OK(root().write_file("d/file", ""));
  OK(root().symlink("x", "d/link"));
  OK(root().mknod("d/fifo", S_IFIFO | 0644));
  OK(root().mknod("d/socket", S_IFSOCK | 0644));
  OK(root().mknod("d/char", S_IFCHR | 0644, 0x103));
  OK(root().mknod("d/block", S_IFBLK | 0644, 0x701));
  int fd = must(root().open("d", O_RDONLY));
  std::map<std::string, int> types;
  for (const DirectoryEntry& entry : must(root().read_directory(fd, 100))) types[entry.name] = entry.type;
  std::map<std::string, int> expected{{".", 4},    {"..", 4},      {"sub", 4},  {"file", 8}, {"link", 10},
                                      {"fifo", 1}, {"socket", 12}, {"char", 2}, {"block", 6}};
  EXPECT_EQ(types, expected);
  EXPECT_TRUE(must(root().read_directory(fd, 100)).empty());
}

// What stays is seen exactly once, whatever comes and goes meanwhile.
TEST_P(Directories, ListingWhileEntriesComeAndGo) {
  OK(root().mkdir("d"));
  for (int i = 0; i < 300; ++i) OK(root().write_file("d/stays" + std::to_string(i), ""));
  for (int i = 0; i < 100; ++i) OK(root().write_file("d/goes" + std::to_string(i), ""));
  int fd = must(root().open("d", O_RDONLY));
  std::multiset<std::string> seen;
  for (int round = 0;; ++round) {
    auto some = must(root().read_directory(fd, 7));
    if (some.empty()) break;
    for (const DirectoryEntry& entry : some) seen.insert(entry.name);
    if (round < 100) OK(root().unlink("d/goes" + std::to_string(round)));
    if (round < 300) OK(root().write_file("d/comes" + std::to_string(round), ""));
    ASSERT_LT(round, 1000);
  }
  for (int i = 0; i < 300; ++i) EXPECT_EQ(seen.count("stays" + std::to_string(i)), 1u) << i;
  for (const std::string& name : seen) EXPECT_EQ(seen.count(name), 1u) << name;
}

TEST_P(Directories, ListingCanBeRewoundAndSeesWhatIsNew) {
  OK(root().mkdir("d"));
  OK(root().write_file("d/a", ""));
  int fd = must(root().open("d", O_RDONLY));
  EXPECT_EQ(must(root().read_directory(fd, 100)).size(), 3u);
  OK(root().write_file("d/b", ""));
  GIVES("0", root().seek(fd, 0, SEEK_SET));
  EXPECT_EQ(must(root().read_directory(fd, 100)).size(), 4u);
}

TEST_P(Directories, ListingNeedsReadAndLookupNeedsSearch) {
  OK(root().mkdir("d"));
  OK(root().write_file("d/f", "x", 0644));
  OK(root().chmod("d", 0711));
  FAILS(EACCES, alice().open("d", O_RDONLY));
  GIVES("x", alice().read_file("d/f"));
  OK(root().chmod("d", 0744));
  EXPECT_EQ(names_in(alice(), "d"), "f ");
  FAILS(EACCES, alice().stat("d/f"));
}

TEST_P(Directories, ReadingOneAsAFileIsEISDIR) {
  OK(root().mkdir("d"));
  int fd = must(root().open("d", O_RDONLY));
  FAILS(EISDIR, root().read(fd, 1));
  FAILS(EISDIR, root().pread(fd, 1, 0));
  FAILS(EBADF, root().write(fd, "x"));
  FAILS(EISDIR, root().open("d", O_WRONLY));
  FAILS(EISDIR, root().open("d", O_RDWR));
  FAILS(EISDIR, root().open("d", O_RDONLY | O_CREAT));
  FAILS(EISDIR, root().open("d", O_RDONLY | O_TRUNC));
  FAILS(EISDIR, root().truncate("d", 0));
  FAILS(EINVAL, root().ftruncate(fd, 0));
}

TEST_P(Directories, DescriptorsAreWherePathsStart) {
  OK(root().mkdir("d"));
  OK(root().write_file("d/f", "x"));
  int fd = must(root().open("d", O_PATH | O_DIRECTORY));
  OK(root().rename("d", "e"));
  GIVES("x", root().read_file({fd, "f"}));
  OK(root().mkdir({fd, "sub"}));
  OK(root().rename({fd, "f"}, {fd, "sub/g"}));
  OK(root().unlink({fd, "sub/g"}));
  OK(root().fchdir(fd));
  GIVES("/e", root().working_directory());
  int file = must(root().open("h", O_RDWR | O_CREAT));
  FAILS(ENOTDIR, root().stat({file, "x"}));
  FAILS(ENOTDIR, root().fchdir(file));
  FAILS(EBADF, root().stat({99, "x"}));
}

TEST_P(Directories, ManyLevelsDeep) {
  for (int i = 0; i < 3000; ++i) {
    OK(root().mkdir("d"));
    OK(root().chdir("d"));
  }
  OK(root().write_file("f", "deep"));
  std::string up(3 * 1000, '.');
  for (size_t i = 2; i < up.size(); i += 3) up[i] = '/';
  OK(root().chdir(up));
  OK(root().chdir(up));
  OK(root().chdir(up));
  EXPECT_EQ(must(root().stat(".")).inode, must(root().stat("/")).inode);
}

}  // namespace
}  // namespace reprise::conformance

#include "tests/conformance/conformance.h"

namespace reprise::conformance {
namespace {

CONFORMANCE_SUITE(Names);

TEST_P(Names, MayHaveAnyByteButSlashAndNul) {
  for (int c = 1; c < 256; ++c) {
    if (c == '/') continue;
    std::string name = "d" + std::string(1, static_cast<char>(c));
    OK(root().write_file(name, "x"));
  }
  EXPECT_EQ(must(root().list("/")).size(), 254u);
  OK(root().write_file(" ", ""));
  OK(root().write_file("...", ""));
  OK(root().write_file("\n", ""));
  OK(root().write_file("\xff\xfe\x80", ""));
  OK(root().write_file("caf\xc3\xa9", "one"));
  OK(root().write_file("cafe\xcc\x81", "two"));
  OK(root().write_file("CAF\xc3\xa9", "three"));
  GIVES("one", root().read_file("caf\xc3\xa9"));
  EXPECT_EQ(must(root().list("/")).size(), 261u);
}

TEST_P(Names, HaveAtMost255Bytes) {
  std::string longest(255, 'n'), longer(256, 'n');
  OK(root().write_file(longest, "x"));
  GIVES("x", root().read_file(longest));
  OK(root().rename(longest, std::string(255, 'm')));
  OK(root().mkdir(longest));
  OK(root().symlink(longest, "s"));
  FAILS(ENAMETOOLONG, root().open(longer, O_CREAT | O_WRONLY));
  FAILS(ENAMETOOLONG, root().open(longer, O_RDONLY));
  FAILS(ENAMETOOLONG, root().mkdir(longer));
  FAILS(ENAMETOOLONG, root().mknod(longer, S_IFIFO));
  FAILS(ENAMETOOLONG, root().symlink("x", longer));
  FAILS(ENAMETOOLONG, root().rename("s", longer));
  FAILS(ENAMETOOLONG, root().rename(longer, "t"));
  FAILS(ENAMETOOLONG, root().link("s", longer));
  FAILS(ENAMETOOLONG, root().unlink(longer));
  FAILS(ENAMETOOLONG, root().rmdir(longer));
  FAILS(ENAMETOOLONG, root().stat(longer));
  FAILS(ENAMETOOLONG, root().stat(longer + "/x"));
}

TEST_P(Names, PathsHaveAtMost4095Bytes) {
  OK(root().mkdir("d"));
  std::string path = "d";
  while (path.size() < 4093) path += "/.";
  OK(root().stat(path + "//"));
  FAILS(ENAMETOOLONG, root().stat(path + "///"));
  FAILS(ENAMETOOLONG, root().mkdir(path + "///"));
  FAILS(ENAMETOOLONG, root().unlink(path + "///"));
  FAILS(ENAMETOOLONG, root().rename("d", path + "///"));
  FAILS(ENAMETOOLONG, root().symlink(std::string(4096, 'x'), "s"));
  OK(root().symlink(std::string(4095, 'x'), "s"));
  GIVES(std::string(4095, 'x'), root().readlink("s"));
}

TEST_P(Names, SlashesAndDotsMeanNothingMore) {
  OK(root().mkdir("d"));
  OK(root().write_file("d/f", "x"));
  for (const char* path : {"d/f", "./d/f", "d//f", "d/./f", "d/../d/f", "/d/f", "//d/f", "../../d/f"})
    GIVES("x", root().read_file(path));
  FAILS(ENOTDIR, root().stat("d/f/."));
  FAILS(ENOTDIR, root().stat("d/f/.."));
  FAILS(ENOENT, root().stat("d/none/.."));
  FAILS(ENOENT, root().stat(""));
}

CONFORMANCE_SUITE(Symlinks);

TEST_P(Symlinks, LeadOn) {
  OK(root().mkdir("d"));
  OK(root().write_file("d/f", "x"));
  OK(root().symlink("d", "s"));
  OK(root().symlink("/d/f", "absolute"));
  OK(root().symlink("../d/f", "d/up"));
  GIVES("x", root().read_file("s/f"));
  GIVES("x", root().read_file("absolute"));
  GIVES("x", root().read_file("s/up"));
  GIVES("d", root().readlink("s"));
  Attributes s = must(root().lstat("s"));
  EXPECT_TRUE(s.is_symlink());
  EXPECT_EQ(s.size, 1u);
  EXPECT_EQ(permissions(s), "777");
  EXPECT_TRUE(must(root().stat("s")).is_directory());
  EXPECT_TRUE(must(root().lstat("s/")).is_directory());
}

TEST_P(Symlinks, MayLeadNowhere) {
  OK(root().symlink("none", "s"));
  FAILS(ENOENT, root().stat("s"));
  OK(root().lstat("s"));
  FAILS(ENOENT, root().symlink("", "t"));
  FAILS(EEXIST, root().symlink("x", "s"));
  FAILS(ENOENT, root().chmod("s", 0600));
  FAILS(EEXIST, root().mkdir("s"));
}

TEST_P(Symlinks, ReadlinkIsForThemAlone) {
  OK(root().write_file("f", ""));
  FAILS(EINVAL, root().readlink("f"));
  FAILS(EINVAL, root().readlink("/"));
  FAILS(ENOENT, root().readlink("none"));
  OK(root().symlink("f", "s"));
  FAILS(ENOTDIR, root().readlink("s/"));
  int fd = must(root().open("s", O_PATH | O_NOFOLLOW));
  GIVES("f", root().readlink({fd, ""}));
  fd = must(root().open("f", O_PATH));
  FAILS(ENOENT, root().readlink({fd, ""}));
}

TEST_P(Symlinks, FortyAreFollowedAndNoMore) {
  OK(root().write_file("0", "x"));
  for (int i = 1; i <= 41; ++i) OK(root().symlink(std::to_string(i - 1), std::to_string(i)));
  GIVES("x", root().read_file("40"));
  FAILS(ELOOP, root().stat("41"));
  OK(root().lstat("41"));
}

TEST_P(Symlinks, LoopsAreELOOP) {
  OK(root().symlink("b", "a"));
  OK(root().symlink("a", "b"));
  OK(root().symlink("c", "c"));
  FAILS(ELOOP, root().stat("a"));
  FAILS(ELOOP, root().stat("c/x"));
  FAILS(ELOOP, root().open("a", O_CREAT | O_WRONLY));
  FAILS(ELOOP, root().chmod("a", 0600));
  FAILS(ELOOP, root().truncate("a", 0));
  OK(root().rename("a", "d"));
  OK(root().unlink("c"));
}

TEST_P(Symlinks, BelongToWhoMadeThem) {
  OK(alice().symlink("x", "s"));
  EXPECT_EQ(must(root().lstat("s")).uid, 1000u);
  OK(root().chown("s", 5, 6, AT_SYMLINK_NOFOLLOW));
  EXPECT_EQ(must(root().lstat("s")).uid, 5u);
  EXPECT_EQ(must(root().lstat("s")).gid, 6u);
  timespec times[2] = {{11, 12}, {13, 14}};
  OK(root().utimens("s", times, AT_SYMLINK_NOFOLLOW));
  EXPECT_EQ(must(root().lstat("s")).mtime, (Timestamp{13, 14}));
}

CONFORMANCE_SUITE(Nodes);

TEST_P(Nodes, OfEveryKind) {
  root().set_umask(022);
  OK(root().mknod("file", S_IFREG | 0666));
  OK(root().mknod("plain", 0600));
  OK(root().mknod("fifo", S_IFIFO | 0666));
  OK(root().mknod("socket", S_IFSOCK | 0777));
  OK(root().mknod("char", S_IFCHR | 0620, 0x501));
  OK(root().mknod("block", S_IFBLK | 0660, 0x10300002));
  EXPECT_EQ(must(root().stat("file")).mode, S_IFREG | 0644u);
  EXPECT_EQ(must(root().stat("plain")).mode, S_IFREG | 0600u);
  EXPECT_EQ(must(root().stat("fifo")).mode, S_IFIFO | 0644u);
  EXPECT_EQ(must(root().stat("socket")).mode, S_IFSOCK | 0755u);
  EXPECT_EQ(must(root().stat("char")).mode, S_IFCHR | 0600u);
  EXPECT_EQ(must(root().stat("char")).rdev, 0x501u);
  EXPECT_EQ(must(root().stat("block")).rdev, 0x10300002u);
  FAILS(EEXIST, root().mknod("fifo", S_IFIFO | 0666));
  FAILS(EPERM, root().mknod("d", S_IFDIR | 0755));
  FAILS(EINVAL, root().mknod("s", S_IFLNK | 0755));
}

TEST_P(Nodes, DevicesAreForRoot) {
  FAILS(EPERM, alice().mknod("c", S_IFCHR | 0600, 0x103));
  FAILS(EPERM, alice().mknod("b", S_IFBLK | 0600, 0x103));
  OK(alice().mknod("fifo", S_IFIFO | 0600));
  OK(alice().mknod("socket", S_IFSOCK | 0600));
  FAILS(EEXIST, alice().mknod("fifo", S_IFCHR | 0600, 0x103));
}

TEST_P(Nodes, DevicesAndSocketsAreNotOpened) {
  OK(root().mknod("char", S_IFCHR | 0666, 0x103));
  OK(root().mknod("socket", S_IFSOCK | 0666));
  FAILS(EACCES, root().open("char", O_RDONLY));
  FAILS(ENXIO, root().open("socket", O_RDONLY));
  OK(root().open("char", O_PATH));
  FAILS(EINVAL, root().truncate("char", 0));
  FAILS(EINVAL, root().truncate("socket", 0));
}

GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(Fifos);  // who is not root has nothing that opens them
CONFORMANCE_SUITE(Fifos);

TEST_P(Fifos, CanBeOpened) {
  OK(root().mknod("fifo", S_IFIFO | 0666));
  int fd = must(root().open("fifo", O_RDWR | O_NONBLOCK));
  OK(root().write(fd, "x"));
  GIVES("x", root().read(fd, 5));
  FAILS(ESPIPE, root().seek(fd, 0, SEEK_SET));
}

CONFORMANCE_SUITE(Statfs);

TEST_P(Statfs, CountsFilesAndBlocks) {
  auto before = must(root().statfs());
  EXPECT_EQ(before.name_max, 255u);
  EXPECT_GT(before.blocks_free, 0u);
  OK(root().write_file("f", std::string(40960, 'x')));
  OK(root().mkdir("d"));
  OK(root().symlink("x", "s"));
  auto after = must(root().statfs());
  EXPECT_EQ(after.blocks_total, before.blocks_total);
  EXPECT_EQ(after.inodes_free, before.inodes_free - 3);
  EXPECT_EQ(after.blocks_free, before.blocks_free - 10);
  OK(root().unlink("f"));
  for (int tries = 0; tries < 500 && must(root().statfs()).blocks_free != before.blocks_free; ++tries) tick();
  EXPECT_EQ(must(root().statfs()).blocks_free, before.blocks_free);
}

}  // namespace
}  // namespace reprise::conformance

#include "tests/conformance/conformance.h"

namespace reprise::conformance {
namespace {

CONFORMANCE_SUITE(Link);

TEST_P(Link, GivesAnotherName) {
  OK(root().write_file("f", "x"));
  OK(root().mkdir("d"));
  OK(root().link("f", "d/g"));
  Attributes f = must(root().stat("f")), g = must(root().stat("d/g"));
  EXPECT_EQ(f.inode, g.inode);
  EXPECT_EQ(f.nlink, 2u);
  OK(root().write_file("d/g", "changed"));
  GIVES("changed", root().read_file("f"));
  OK(root().unlink("f"));
  GIVES("changed", root().read_file("d/g"));
}

TEST_P(Link, RefusesWhatIsThereAndWhatIsNot) {
  OK(root().write_file("f", ""));
  OK(root().write_file("g", ""));
  FAILS(EEXIST, root().link("f", "g"));
  FAILS(EEXIST, root().link("f", "f"));
  FAILS(ENOENT, root().link("none", "h"));
  FAILS(ENOENT, root().link("f", "none/h"));
  FAILS(ENOTDIR, root().link("f", "g/h"));
  FAILS(ENOENT, root().link("f", "h/"));
}

TEST_P(Link, OfADirectoryIsEPERM) {
  OK(root().mkdir("d"));
  FAILS(EPERM, root().link("d", "e"));
  FAILS(EPERM, root().link(".", "e"));
}

TEST_P(Link, FollowsSymlinksOnlyWhenAsked) {
  OK(root().write_file("f", ""));
  OK(root().symlink("f", "s"));
  OK(root().link("s", "t"));
  EXPECT_TRUE(must(root().lstat("t")).is_symlink());
  EXPECT_EQ(must(root().lstat("t")).nlink, 2u);
  OK(root().link("s", "g", AT_SYMLINK_FOLLOW));
  EXPECT_EQ(must(root().stat("g")).inode, must(root().stat("f")).inode);
}

TEST_P(Link, ChangesTimes) {
  OK(root().mkdir("d"));
  OK(root().write_file("f", ""));
  Attributes d = must(root().stat("d")), f = must(root().stat("f"));
  tick();
  OK(root().link("f", "d/g"));
  EXPECT_GT(must(root().stat("d")).mtime, d.mtime);
  EXPECT_GT(must(root().stat("f")).ctime, f.ctime);
  EXPECT_EQ(must(root().stat("f")).mtime, f.mtime);
}

TEST_P(Link, NeedsToWriteTheDirectory) {
  OK(root().mkdir("d", 0755));
  OK(alice().write_file("f", ""));
  FAILS(EACCES, alice().link("f", "d/g"));
}

TEST_P(Link, NodesOfAllKindsMayHaveSeveralNames) {
  OK(root().mknod("fifo", S_IFIFO | 0644));
  OK(root().mknod("device", S_IFCHR | 0644, 0x105));
  OK(root().link("fifo", "fifo2"));
  OK(root().link("device", "device2"));
  EXPECT_EQ(must(root().stat("fifo2")).nlink, 2u);
  EXPECT_EQ(must(root().stat("device2")).rdev, 0x105u);
}

TEST_P(Link, WhatWasUnlinkedStaysUnlinked) {
  int fd = must(root().open("f", O_RDWR | O_CREAT));
  OK(root().unlink("f"));
  FAILS(ENOENT, root().link_descriptor(fd, "g"));
}

// tmpfs has no limit of its own.
CONFORMANCE_SUITE_ON(LinkCount, Which::kExt4);

TEST_P(LinkCount, EndsAt65000) {
  OK(root().mkdir("d"));
  OK(root().write_file("f", ""));
  for (int i = 1; i < 65000; ++i) {
    auto linked = root().link("f", "d/" + std::to_string(i));
    if (!linked) FAIL() << i << ": " << posix::name_of(linked);
  }
  EXPECT_EQ(must(root().stat("f")).nlink, 65000u);
  FAILS(EMLINK, root().link("f", "g"));
  OK(root().unlink("d/1"));
  OK(root().link("f", "g"));
}

CONFORMANCE_SUITE(UnnamedFiles);

TEST_P(UnnamedFiles, GetANameByLink) {
  OK(root().mkdir("d"));
  int fd = must(root().open("d", O_TMPFILE | O_RDWR, 0640));
  OK(root().write(fd, "bytes"));
  EXPECT_EQ(must(root().fstat(fd)).nlink, 0u);
  EXPECT_EQ(names_in(root(), "d"), "");
  OK(root().link_descriptor(fd, "d/f"));
  GIVES("bytes", root().read_file("d/f"));
  OK(root().link_descriptor(fd, "d/g"));
  EXPECT_EQ(must(root().fstat(fd)).nlink, 2u);
  OK(root().unlink("d/f"));
  OK(root().unlink("d/g"));
  FAILS(ENOENT, root().link_descriptor(fd, "d/h"));  // it has had one and has lost it
}

TEST_P(UnnamedFiles, AreMadeForWriting) {
  OK(root().write_file("f", ""));
  FAILS(EINVAL, root().open("/", O_TMPFILE | O_RDONLY));
  FAILS(ENOTDIR, root().open("f", O_TMPFILE | O_RDWR));
  FAILS(ENOENT, root().open("none", O_TMPFILE | O_RDWR));
  OK(root().mkdir("d", 0755));
  FAILS(EACCES, alice().open("d", O_TMPFILE | O_RDWR));
}

TEST_P(UnnamedFiles, TakeModeAndOwnerAsOthersDo) {
  alice().set_umask(027);
  OK(root().mkdir("d"));
  OK(root().chown("d", 0, 2000));
  OK(root().chmod("d", 02777));
  int fd = must(alice().open("d", O_TMPFILE | O_RDWR, 0666));
  Attributes made = must(alice().fstat(fd));
  EXPECT_EQ(permissions(made), "640");
  EXPECT_EQ(made.uid, 1000u);
  EXPECT_EQ(made.gid, 2000u);
  OK(alice().link_descriptor(fd, "f"));
}

TEST_P(UnnamedFiles, StayUnnamedIfExclusive) {
  int fd = must(root().open("/", O_TMPFILE | O_RDWR | O_EXCL, 0640));
  FAILS(ENOENT, root().link_descriptor(fd, "f"));
  OK(root().write(fd, "x"));
}

}  // namespace
}  // namespace reprise::conformance

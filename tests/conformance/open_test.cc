#include "tests/conformance/conformance.h"

namespace reprise::conformance {
namespace {

CONFORMANCE_SUITE(Open);

TEST_P(Open, CreatesWithModeAndUmask) {
  root().set_umask(027);
  OK(root().close(must(root().open("f", O_CREAT | O_WRONLY, 0666))));
  EXPECT_EQ(permissions(root().stat("f")), "640");
  OK(root().close(must(root().open("f", O_CREAT | O_WRONLY, 0777))));
  EXPECT_EQ(permissions(root().stat("f")), "640");
  OK(root().close(must(root().open("s", O_CREAT | O_WRONLY, 06777))));
  EXPECT_EQ(permissions(root().stat("s")), "6750");
}

TEST_P(Open, AnswersWhatIsMissing) {
  FAILS(ENOENT, root().open("none", O_RDONLY));
  FAILS(ENOENT, root().open("none/f", O_CREAT | O_WRONLY));
  FAILS(ENOENT, root().open("", O_RDONLY));
  OK(root().write_file("f", ""));
  FAILS(ENOTDIR, root().open("f/g", O_CREAT | O_WRONLY));
  FAILS(ENOTDIR, root().open("f/", O_RDONLY));
  FAILS(ENOTDIR, root().open("f", O_RDONLY | O_DIRECTORY));
  FAILS(EISDIR, root().open("g/", O_CREAT | O_WRONLY));
  FAILS(EINVAL, root().open("g", O_CREAT | O_DIRECTORY));
}

TEST_P(Open, ExclusiveWantsTheNameToBeFree) {
  OK(root().write_file("f", ""));
  OK(root().symlink("none", "s"));
  FAILS(EEXIST, root().open("f", O_CREAT | O_EXCL | O_WRONLY));
  FAILS(EEXIST, root().open("s", O_CREAT | O_EXCL | O_WRONLY));
  FAILS(EEXIST, root().open(".", O_CREAT | O_EXCL | O_WRONLY));
  FAILS(ENOENT, root().stat("none"));
}

TEST_P(Open, CreatesThroughASymlinkThatLeadsNowhere) {
  OK(root().symlink("made", "s"));
  OK(root().close(must(root().open("s", O_CREAT | O_WRONLY))));
  EXPECT_TRUE(must(root().lstat("made")).is_regular());
}

TEST_P(Open, NoFollowRefusesSymlinksAtTheEnd) {
  OK(root().mkdir("d"));
  OK(root().write_file("d/f", "x"));
  OK(root().symlink("d", "s"));
  OK(root().symlink("f", "d/t"));
  FAILS(ELOOP, root().open("d/t", O_RDONLY | O_NOFOLLOW));
  FAILS(ELOOP, root().open("d/t", O_RDWR | O_CREAT | O_NOFOLLOW));
  FAILS(ENOTDIR, root().open("s", O_RDONLY | O_DIRECTORY | O_NOFOLLOW));
  OK(root().open("s/f", O_RDONLY | O_NOFOLLOW));
}

TEST_P(Open, TruncatesWhenAsked) {
  OK(root().write_file("f", "bytes"));
  OK(root().open("f", O_RDONLY));
  EXPECT_EQ(must(root().stat("f")).size, 5u);
  tick();
  Attributes before = must(root().stat("f"));
  OK(root().open("f", O_WRONLY | O_TRUNC));
  EXPECT_EQ(must(root().stat("f")).size, 0u);
  Attributes emptied = must(root().stat("f"));
  EXPECT_GT(emptied.mtime, before.mtime);
  tick();
  OK(root().open("f", O_WRONLY | O_TRUNC));
  EXPECT_GT(must(root().stat("f")).mtime, emptied.mtime);
}

TEST_P(Open, ModeDecidesWhatADescriptorMay) {
  OK(root().write_file("f", "bytes"));
  int reader = must(root().open("f", O_RDONLY)), writer = must(root().open("f", O_WRONLY));
  int neither = must(root().open("f", O_ACCMODE)), path = must(root().open("f", O_PATH));
  FAILS(EBADF, root().write(reader, "x"));
  FAILS(EBADF, root().read(writer, 1));
  FAILS(EBADF, root().read(neither, 1));
  FAILS(EBADF, root().write(neither, "x"));
  FAILS(EBADF, root().read(path, 1));
  FAILS(EBADF, root().fchmod(path, 0600));
  FAILS(EBADF, root().fsync(path));
  FAILS(EINVAL, root().ftruncate(reader, 0));
  FAILS(EBADF, root().ftruncate(path, 0));
  FAILS(EBADF, root().fallocate(reader, 0, 0, 1));
  OK(root().fstat(path));
  FAILS(EBADF, root().read(99, 1));
  FAILS(EBADF, root().close(99));
}

TEST_P(Open, PermissionsAreOfTheFileAndTheWay) {
  OK(root().mkdir("d", 0755));
  OK(root().write_file("d/f", "x", 0640));
  OK(root().chmod("d/f", 0640));
  FAILS(EACCES, alice().open("d/f", O_RDONLY));
  FAILS(EACCES, alice().open("d/g", O_CREAT | O_WRONLY));
  OK(root().chmod("d/f", 0604));
  GIVES("x", alice().read_file("d/f"));
  FAILS(EACCES, alice().open("d/f", O_RDWR));
  FAILS(EACCES, alice().open("d/f", O_RDONLY | O_TRUNC));
  EXPECT_EQ(must(root().stat("d/f")).size, 1u);
  OK(root().chmod("d", 0644));
  FAILS(EACCES, alice().open("d/f", O_RDONLY));
}

TEST_P(Open, ANewFileMayBeWrittenWhateverItsMode) {
  int fd = must(alice().open("f", O_RDWR | O_CREAT, 0));
  OK(alice().write(fd, "x"));
  GIVES("x", alice().pread(fd, 5, 0));
  FAILS(EACCES, alice().open("f", O_RDONLY));
}

TEST_P(Open, RightsStayWithTheDescriptor) {
  OK(alice().write_file("f", "x", 0600));
  int fd = must(alice().open("f", O_RDWR));
  OK(root().chown("f", 0, 0));
  OK(root().chmod("f", 0));
  GIVES("x", alice().pread(fd, 5, 0));
  OK(alice().pwrite(fd, "y", 0));
  OK(alice().ftruncate(fd, 0));
  FAILS(EPERM, alice().fchmod(fd, 0600));
}

TEST_P(Open, StickyDirectoriesGuardWhatIsSpecial) {
  OK(root().mkdir("tmp"));
  OK(root().chmod("tmp", 01777));
  OK(alice().mknod("tmp/socket", S_IFSOCK | 0666));
  OK(alice().chmod("tmp/socket", 0666));
  FAILS(EACCES, bob().open("tmp/socket", O_RDWR | O_CREAT));
  FAILS(ENXIO, bob().open("tmp/socket", O_RDWR));
}

CONFORMANCE_SUITE(Append);

TEST_P(Append, WritesGoToTheEnd) {
  OK(root().write_file("f", "one"));
  int fd = must(root().open("f", O_RDWR | O_APPEND)), other = must(root().open("f", O_WRONLY | O_APPEND));
  GIVES("0", root().seek(fd, 0, SEEK_CUR));
  OK(root().write(fd, "two"));
  OK(root().write(other, "three"));
  GIVES("6", root().seek(fd, 0, SEEK_CUR));
  GIVES("0", root().seek(fd, 0, SEEK_SET));
  GIVES("one", root().read(fd, 3));
  OK(root().write(fd, "four"));
  OK(root().pwrite(fd, "five", 0));
  GIVES("onetwothreefourfive", root().read_file("f"));
}

TEST_P(Append, IsAFlagThatCanBeSetLater) {
  OK(root().write_file("f", "abc"));
  int fd = must(root().open("f", O_RDWR));
  int same = must(root().dup(fd));
  OK(root().set_status_flags(fd, O_APPEND));
  GIVES(std::to_string(O_RDWR | O_APPEND), root().status_flags(same));
  OK(root().write(same, "d"));
  OK(root().set_status_flags(fd, 0));
  GIVES("0", root().seek(fd, 0, SEEK_SET));
  OK(root().write(fd, "x"));
  GIVES("xbcd", root().read_file("f"));
}

CONFORMANCE_SUITE(Descriptors);

TEST_P(Descriptors, DupSharesThePositionAndOpenDoesNot) {
  OK(root().write_file("f", "abcdef"));
  int fd = must(root().open("f", O_RDONLY)), again = must(root().open("f", O_RDONLY));
  int same = must(root().dup(fd));
  GIVES("abc", root().read(fd, 3));
  GIVES("def", root().read(same, 3));
  GIVES("abc", root().read(again, 3));
  OK(root().close(fd));
  GIVES("6", root().seek(same, 0, SEEK_CUR));
}

TEST_P(Descriptors, SeekGoesAnywhereButBeforeTheStart) {
  OK(root().write_file("f", "abcdef"));
  int fd = must(root().open("f", O_RDWR));
  GIVES("10", root().seek(fd, 4, SEEK_END));
  GIVES("", root().read(fd, 10));
  GIVES("5", root().seek(fd, -5, SEEK_CUR));
  FAILS(EINVAL, root().seek(fd, -6, SEEK_CUR));
  FAILS(EINVAL, root().seek(fd, -1, SEEK_SET));
  FAILS(EINVAL, root().seek(fd, 0, 77));
  GIVES("f", root().read(fd, 10));
}

TEST_P(Descriptors, ReadAndWriteMoveOnPreadAndPwriteDoNot) {
  int fd = must(root().open("f", O_RDWR | O_CREAT));
  GIVES("3", root().write(fd, "abc"));
  GIVES("2", root().pwrite(fd, "XY", 1));
  GIVES("3", root().seek(fd, 0, SEEK_CUR));
  GIVES("aX", root().pread(fd, 2, 0));
  FAILS(EINVAL, root().pread(fd, 1, -1));
  FAILS(EINVAL, root().pwrite(fd, "x", -1));
  GIVES("0", root().write(fd, ""));
}

TEST_P(Descriptors, WritingNothingChangesNoTimes) {
  int fd = must(root().open("f", O_RDWR | O_CREAT));
  Attributes before = must(root().fstat(fd));
  tick();
  OK(root().write(fd, ""));
  OK(root().pwrite(fd, "", 100));
  EXPECT_EQ(must(root().fstat(fd)).mtime, before.mtime);
  EXPECT_EQ(must(root().fstat(fd)).size, 0u);
  OK(root().write(fd, "x"));
  EXPECT_GT(must(root().fstat(fd)).mtime, before.mtime);
  EXPECT_GT(must(root().fstat(fd)).ctime, before.ctime);
}

}  // namespace
}  // namespace reprise::conformance

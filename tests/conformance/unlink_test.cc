#include "tests/conformance/conformance.h"

namespace reprise::conformance {
namespace {

CONFORMANCE_SUITE(Unlink);

TEST_P(Unlink, TakesANameAway) {
  OK(root().write_file("f", "x"));
  OK(root().link("f", "g"));
  OK(root().unlink("f"));
  FAILS(ENOENT, root().stat("f"));
  FAILS(ENOENT, root().unlink("f"));
  EXPECT_EQ(must(root().stat("g")).nlink, 1u);
}

TEST_P(Unlink, OpenFilesLiveOn) {
  int fd = must(root().open("f", O_RDWR | O_CREAT));
  OK(root().write(fd, "before"));
  OK(root().unlink("f"));
  EXPECT_EQ(must(root().fstat(fd)).nlink, 0u);
  GIVES("before", root().pread(fd, 10, 0));
  OK(root().pwrite(fd, "after", 6));
  OK(root().fchmod(fd, 0600));
  OK(root().ftruncate(fd, 11));
  GIVES("beforeafter", root().pread(fd, 100, 0));
  EXPECT_EQ(permissions(root().fstat(fd)), "600");
  OK(root().write_file("f", "another"));
  GIVES("beforeafter", root().pread(fd, 100, 0));
  OK(root().close(fd));
}

TEST_P(Unlink, OfADirectoryIsEISDIR) {
  OK(root().mkdir("d"));
  FAILS(EISDIR, root().unlink("d"));
  FAILS(EISDIR, root().unlink("d/"));
  FAILS(EISDIR, root().unlink("."));
  FAILS(EISDIR, root().unlink("/"));
}

TEST_P(Unlink, SlashAfterAFileIsENOTDIR) {
  OK(root().write_file("f", ""));
  FAILS(ENOTDIR, root().unlink("f/"));
  FAILS(ENOTDIR, root().unlink("f/g"));
  FAILS(ENOENT, root().unlink("none/"));
}

TEST_P(Unlink, TakesTheSymlinkAndNotWhatItLeadsTo) {
  OK(root().write_file("f", "x"));
  OK(root().symlink("f", "s"));
  OK(root().unlink("s"));
  GIVES("x", root().read_file("f"));
}

TEST_P(Unlink, ChangesTimes) {
  OK(root().mkdir("d"));
  OK(root().write_file("d/f", ""));
  OK(root().link("d/f", "g"));
  Attributes d = must(root().stat("d")), g = must(root().stat("g"));
  tick();
  OK(root().unlink("d/f"));
  EXPECT_GT(must(root().stat("d")).mtime, d.mtime);
  EXPECT_GT(must(root().stat("d")).ctime, d.ctime);
  EXPECT_GT(must(root().stat("g")).ctime, g.ctime);
  EXPECT_EQ(must(root().stat("g")).mtime, g.mtime);
}

TEST_P(Unlink, NeedsToWriteAndSearchTheDirectoryOnly) {
  OK(root().mkdir("d", 0777));
  OK(root().chmod("d", 0777));
  OK(root().write_file("d/f", "", 0600));
  OK(alice().unlink("d/f"));
  OK(root().write_file("d/f", "", 0666));
  OK(root().chmod("d", 0755));
  FAILS(EACCES, alice().unlink("d/f"));
  OK(root().chmod("d", 0766));
  FAILS(EACCES, alice().unlink("d/f"));
}

TEST_P(Unlink, StickyDirectoriesLetOwnersOnly) {
  OK(root().mkdir("tmp"));
  OK(root().chmod("tmp", 01777));
  OK(alice().write_file("tmp/a", ""));
  OK(alice().mkdir("tmp/d"));
  FAILS(EPERM, bob().unlink("tmp/a"));
  FAILS(EPERM, bob().rmdir("tmp/d"));
  OK(alice().unlink("tmp/a"));
  OK(root().chown("tmp", 1001, 1001));
  OK(bob().rmdir("tmp/d"));  // the directory is his now
}

}  // namespace
}  // namespace reprise::conformance

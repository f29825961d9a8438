// Who may do what, and what set-user-id and set-group-id come to.
#include <unistd.h>

#include "tests/conformance/conformance.h"

namespace reprise::conformance {
namespace {

CONFORMANCE_SUITE(Permissions);

TEST_P(Permissions, FirstClassThatFitsDecides) {
  OK(root().write_file("f", "x"));
  OK(root().chown("f", 1000, 2000));
  OK(root().chmod("f", 0077));  // the owner less than anybody
  FAILS(EACCES, alice().open("f", O_RDONLY));
  OK(bob().open("f", O_RDWR));
  OK(carol().open("f", O_RDWR));
  OK(root().chmod("f", 0707));
  FAILS(EACCES, bob().open("f", O_RDONLY));
  OK(carol().open("f", O_RDONLY));
}

TEST_P(Permissions, SupplementaryGroupsCount) {
  OK(root().write_file("f", "x"));
  OK(root().chown("f", 0, 2000));
  OK(root().chmod("f", 0640));
  OK(alice().open("f", O_RDONLY));
  OK(bob().open("f", O_RDONLY));
  FAILS(EACCES, carol().open("f", O_RDONLY));
  FAILS(EACCES, alice().open("f", O_WRONLY));
}

TEST_P(Permissions, AccessSaysWhatWouldBe) {
  OK(root().write_file("f", "", 0640));
  OK(root().chown("f", 1000, 2000));
  OK(root().chmod("f", 0540));
  OK(alice().access("f", R_OK | X_OK));
  FAILS(EACCES, alice().access("f", W_OK));
  OK(bob().access("f", R_OK));
  FAILS(EACCES, bob().access("f", X_OK));
  FAILS(EACCES, carol().access("f", R_OK));
  OK(carol().access("f", F_OK));
  FAILS(ENOENT, carol().access("none", F_OK));
  FAILS(EINVAL, carol().access("f", 8));
}

TEST_P(Permissions, RootMayAllButExecuteWhatNobodyMay) {
  OK(root().write_file("f", "", 0));
  OK(root().chmod("f", 0));
  OK(root().access("f", R_OK | W_OK));
  FAILS(EACCES, root().access("f", X_OK));
  OK(root().chmod("f", 0001));
  OK(root().access("f", X_OK));
  OK(root().mkdir("d", 0));
  OK(root().chmod("d", 0));
  OK(root().access("d", R_OK | W_OK | X_OK));
  OK(root().write_file("d/f", ""));
}

TEST_P(Permissions, EveryDirectoryOfAPathMustBeSearched) {
  OK(root().mkdir("a", 0755));
  OK(root().mkdir("a/b", 0755));
  OK(root().write_file("a/b/f", "", 0644));
  OK(alice().stat("a/b/f"));
  OK(root().chmod("a", 0700));
  for (const char* path : {"a/b/f", "a/none", "a/b/none"}) FAILS(EACCES, alice().stat(path));
  OK(alice().stat("a"));
  FAILS(EACCES, alice().stat("a/."));
  OK(root().symlink("a/b/f", "s"));
  FAILS(EACCES, alice().stat("s"));
}

TEST_P(Permissions, NewFilesBelongToWhoMakesThem) {
  OK(alice().write_file("f", ""));
  OK(alice().mkdir("d"));
  for (const char* path : {"f", "d"}) {
    EXPECT_EQ(must(root().stat(path)).uid, 1000u);
    EXPECT_EQ(must(root().stat(path)).gid, 1000u);
  }
}

CONFORMANCE_SUITE(Chmod);

TEST_P(Chmod, SetsAllTwelveBitsForTheOwner) {
  OK(alice().write_file("f", ""));
  for (uint32_t mode : {0u, 0777u, 01000u, 04755u, 02755u, 07777u}) {
    OK(alice().chown("f", UINT32_MAX, UINT32_MAX));
    OK(alice().chmod("f", mode));
    EXPECT_EQ(must(root().stat("f")).mode, S_IFREG | mode);
  }
  FAILS(EPERM, bob().chmod("f", 0777));
  OK(root().chmod("f", 0600));
  FAILS(ENOENT, root().chmod("none", 0600));
  int fd = must(alice().open("f", O_RDONLY));
  OK(alice().fchmod(fd, 0400));
  EXPECT_EQ(permissions(root().stat("f")), "400");
}

TEST_P(Chmod, SetgidOfAnotherGroupIsDropped) {
  OK(alice().write_file("f", ""));
  OK(root().chown("f", 1000, 1002));
  OK(alice().chmod("f", 02755));
  EXPECT_EQ(permissions(root().stat("f")), "755");
  OK(root().chown("f", 1000, 2000));
  OK(alice().chmod("f", 02755));
  EXPECT_EQ(permissions(root().stat("f")), "2755");
}

TEST_P(Chmod, ChangesCtimeOnly) {
  OK(root().write_file("f", ""));
  Attributes before = must(root().stat("f"));
  tick();
  OK(root().chmod("f", 0600));
  EXPECT_EQ(must(root().stat("f")).mtime, before.mtime);
  EXPECT_GT(must(root().stat("f")).ctime, before.ctime);
}

CONFORMANCE_SUITE(Chown);

TEST_P(Chown, OwnersAreGivenByRoot) {
  OK(root().write_file("f", ""));
  OK(root().chown("f", 1000, 1000));
  EXPECT_EQ(must(root().stat("f")).uid, 1000u);
  OK(root().chown("f", UINT32_MAX, 5));
  EXPECT_EQ(must(root().stat("f")).uid, 1000u);
  EXPECT_EQ(must(root().stat("f")).gid, 5u);
  FAILS(EPERM, alice().chown("f", 1001, UINT32_MAX));
  FAILS(EPERM, bob().chown("f", UINT32_MAX, 2000));
}

TEST_P(Chown, GroupsOfOnesOwnByTheOwner) {
  OK(alice().write_file("f", ""));
  OK(alice().chown("f", UINT32_MAX, 2000));
  OK(alice().chown("f", 1000, 1000));
  FAILS(EPERM, alice().chown("f", UINT32_MAX, 1002));
  EXPECT_EQ(must(root().stat("f")).gid, 1000u);
}

TEST_P(Chown, TakesSetUserIdAwayEvenWhenItGivesNothing) {
  OK(root().write_file("f", ""));
  for (uint32_t owner : {7u, 7u, UINT32_MAX}) {
    OK(root().chmod("f", 06755));
    OK(root().chown("f", owner, UINT32_MAX));
    EXPECT_EQ(permissions(root().stat("f")), "755");
  }
  OK(root().chmod("f", 06745));
  OK(root().chown("f", 8, UINT32_MAX));
  EXPECT_EQ(permissions(root().stat("f")), "2745");  // not executable by the group: no privilege
  OK(root().mkdir("d"));
  OK(root().chmod("d", 06755));
  OK(root().chown("d", 8, 8));
  EXPECT_EQ(permissions(root().stat("d")), "6755");
}

CONFORMANCE_SUITE(Privileges);

TEST_P(Privileges, WritingTakesThemAway) {
  OK(alice().write_file("f", "abc"));
  OK(root().chmod("f", 0777));
  for (int way = 0; way < 4; ++way) {
    OK(root().chmod("f", 06777));
    int fd = must(bob().open("f", O_RDWR));
    if (way == 0) OK(bob().write(fd, "x"));
    if (way == 1) OK(bob().ftruncate(fd, 2));
    if (way == 2) OK(bob().truncate("f", 1));
    if (way == 3) OK(bob().fallocate(fd, 0, 0, 100));
    OK(bob().close(fd));
    EXPECT_EQ(permissions(root().stat("f")), "777") << "way " << way;
  }
}

TEST_P(Privileges, RootKeepsThem) {
  OK(root().write_file("f", "abc"));
  OK(root().chmod("f", 06777));
  int fd = must(root().open("f", O_RDWR));
  OK(root().write(fd, "x"));
  OK(root().ftruncate(fd, 1));
  EXPECT_EQ(permissions(root().stat("f")), "6777");
}

TEST_P(Privileges, SetgidWithoutExecutionIsNone) {
  OK(alice().write_file("f", "abc"));
  OK(root().chown("f", 1000, 1000));
  OK(root().chmod("f", 02666));
  int fd = must(alice().open("f", O_RDWR));
  OK(alice().write(fd, "x"));
  EXPECT_EQ(permissions(root().stat("f")), "2666");
  int other = must(carol().open("f", O_RDWR));
  OK(carol().write(other, "x"));
  EXPECT_EQ(permissions(root().stat("f")), "666");
}

TEST_P(Privileges, SetgidDirectoriesHandOnTheirGroup) {
  OK(root().mkdir("d"));
  OK(root().chown("d", 0, 2000));
  OK(root().chmod("d", 02777));
  OK(alice().write_file("d/f", ""));
  OK(alice().mkdir("d/sub", 0755));
  OK(alice().symlink("x", "d/s"));
  EXPECT_EQ(must(root().stat("d/f")).gid, 2000u);
  EXPECT_EQ(must(root().lstat("d/s")).gid, 2000u);
  EXPECT_EQ(must(root().stat("d/sub")).gid, 2000u);
  EXPECT_EQ(permissions(root().stat("d/sub")), "2755");
}

TEST_P(Privileges, SetgidOfAForeignGroupIsNotHandedOn) {
  OK(root().mkdir("d"));
  OK(root().chown("d", 0, 2000));
  OK(root().chmod("d", 02777));
  OK(carol().open("d/f", O_CREAT | O_WRONLY, 02755));
  OK(carol().open("d/g", O_CREAT | O_WRONLY, 02745));
  OK(alice().open("d/h", O_CREAT | O_WRONLY, 02755));
  EXPECT_EQ(permissions(root().stat("d/f")), "755");
  EXPECT_EQ(permissions(root().stat("d/g")), "2745");
  EXPECT_EQ(permissions(root().stat("d/h")), "2755");
}

CONFORMANCE_SUITE(Times);

TEST_P(Times, AreSetToTheNanosecondAndBeyond2038) {
  OK(root().write_file("f", ""));
  for (int64_t sec :
       {int64_t{0}, int64_t{1}, int64_t{2'147'483'648}, int64_t{4'294'967'296}, int64_t{10'000'000'000}}) {
    timespec times[2] = {{sec, 999'999'999}, {sec + 1, 1}};
    OK(root().utimens("f", times));
    EXPECT_EQ(must(root().stat("f")).atime, (Timestamp{sec, 999'999'999}));
    EXPECT_EQ(must(root().stat("f")).mtime, (Timestamp{sec + 1, 1}));
  }
}

TEST_P(Times, NowAndOmit) {
  OK(root().write_file("f", ""));
  timespec set[2] = {{5, 6}, {7, 8}}, mtime_now[2] = {{0, UTIME_OMIT}, {0, UTIME_NOW}};
  timespec nothing[2] = {{0, UTIME_OMIT}, {0, UTIME_OMIT}}, bad[2] = {{0, 1'000'000'000}, {0, 0}};
  OK(root().utimens("f", set));
  Attributes before = must(root().stat("f"));
  tick();
  OK(root().utimens("f", nothing));
  EXPECT_EQ(must(root().stat("f")).ctime, before.ctime);
  OK(root().utimens("f", mtime_now));
  EXPECT_EQ(must(root().stat("f")).atime, (Timestamp{5, 6}));
  EXPECT_GT(must(root().stat("f")).mtime.sec, 1'000'000'000);
  EXPECT_GT(must(root().stat("f")).ctime, before.ctime);
  OK(root().utimens("f", nullptr));
  EXPECT_GT(must(root().stat("f")).atime.sec, 1'000'000'000);
  FAILS(EINVAL, root().utimens("f", bad));
  FAILS(ENOENT, root().utimens("none", bad));
  OK(root().utimens("none", nothing));
}

TEST_P(Times, NowIsForWritersTheRestForOwners) {
  OK(root().write_file("f", ""));
  OK(root().chmod("f", 0666));
  timespec set[2] = {{5, 6}, {7, 8}}, half[2] = {{0, UTIME_OMIT}, {0, UTIME_NOW}};
  OK(alice().utimens("f", nullptr));
  FAILS(EPERM, alice().utimens("f", set));
  FAILS(EPERM, alice().utimens("f", half));
  OK(root().chmod("f", 0444));
  FAILS(EACCES, alice().utimens("f", nullptr));
  OK(root().chown("f", 1000, 1000));
  OK(alice().utimens("f", set));
  OK(alice().utimens("f", nullptr));
}

TEST_P(Times, OfDirectoriesChangeWithTheirNames) {
  OK(root().mkdir("d"));
  Attributes made = must(root().stat("d"));
  tick();
  OK(root().write_file("d/f", "x"));
  Attributes created = must(root().stat("d"));
  EXPECT_GT(created.mtime, made.mtime);
  EXPECT_GT(created.ctime, made.ctime);
  tick();
  OK(root().write_file("d/f", "changed"));
  OK(root().chmod("d/f", 0600));
  EXPECT_EQ(must(root().stat("d")).mtime, created.mtime);
}

CONFORMANCE_SUITE(Xattrs);

std::string names(const Outcome<std::string>& listed) {
  std::string text = value_of(listed);
  for (char& c : text)
    if (c == '\0') c = ' ';
  return text;
}

TEST_P(Xattrs, SetGetListRemove) {
  OK(root().write_file("f", ""));
  OK(root().set_xattr("f", "user.a", "value"));
  OK(root().set_xattr("f", "user.empty", ""));
  GIVES("value", root().get_xattr("f", "user.a"));
  GIVES("", root().get_xattr("f", "user.empty"));
  std::string listed = names(root().list_xattrs("f"));
  EXPECT_TRUE(listed == "user.a user.empty " || listed == "user.empty user.a ") << listed;
  OK(root().remove_xattr("f", "user.a"));
  FAILS(ENODATA, root().get_xattr("f", "user.a"));
  FAILS(ENODATA, root().remove_xattr("f", "user.a"));
  int fd = must(root().open("f", O_RDONLY));
  OK(root().set_xattr({fd, ""}, "user.b", "by descriptor"));
  GIVES("by descriptor", root().get_xattr("f", "user.b"));
}

TEST_P(Xattrs, CreateAndReplace) {
  OK(root().write_file("f", ""));
  FAILS(ENODATA, root().set_xattr("f", "user.a", "1", XattrMode::kReplace));
  OK(root().set_xattr("f", "user.a", "1", XattrMode::kCreate));
  FAILS(EEXIST, root().set_xattr("f", "user.a", "2", XattrMode::kCreate));
  OK(root().set_xattr("f", "user.a", "3", XattrMode::kReplace));
  GIVES("3", root().get_xattr("f", "user.a"));
}

TEST_P(Xattrs, NamesAndSizesHaveLimits) {
  OK(root().write_file("f", ""));
  std::string longest = "user." + std::string(250, 'n');
  OK(root().set_xattr("f", longest, "x"));
  GIVES("x", root().get_xattr("f", longest));
  FAILS(ERANGE, root().set_xattr("f", longest + "n", "x"));
  FAILS(ERANGE, root().set_xattr("f", "", "x"));
  FAILS(E2BIG, root().set_xattr("f", "user.a", std::string(65537, 'v')));
  FAILS(EOPNOTSUPP, root().set_xattr("f", "nonsense", "x"));
  FAILS(EOPNOTSUPP, root().set_xattr("f", "other.a", "x"));
  FAILS(EINVAL, root().set_xattr("f", "user.", "x"));
  OK(root().set_xattr("f", "user.big", std::string(30000, 'v')));
  GIVES(std::string(30000, 'v'), root().get_xattr("f", "user.big"));
}

TEST_P(Xattrs, UserOnesAreForFilesAndDirectories) {
  OK(root().mkdir("d"));
  OK(root().symlink("d", "s"));
  OK(root().mknod("fifo", S_IFIFO | 0666));
  OK(root().set_xattr("d", "user.a", "x"));
  FAILS(EPERM, root().set_xattr("s", "user.a", "x"));
  FAILS(EPERM, root().set_xattr("fifo", "user.a", "x"));
  FAILS(ENODATA, root().get_xattr("s", "user.a"));
  OK(root().set_xattr("s", "trusted.a", "x"));
  GIVES("x", root().get_xattr("s", "trusted.a"));
}

TEST_P(Xattrs, NeedPermission) {
  OK(root().write_file("f", "", 0644));
  OK(root().chmod("f", 0644));
  OK(root().set_xattr("f", "user.a", "x"));
  OK(root().set_xattr("f", "trusted.a", "x"));
  GIVES("x", alice().get_xattr("f", "user.a"));
  FAILS(EACCES, alice().set_xattr("f", "user.a", "y"));
  FAILS(EACCES, alice().remove_xattr("f", "user.a"));
  FAILS(ENODATA, alice().get_xattr("f", "trusted.a"));
  FAILS(EPERM, alice().set_xattr("f", "trusted.a", "y"));
  FAILS(EPERM, alice().set_xattr("f", "security.a", "y"));
  EXPECT_EQ(names(alice().list_xattrs("f")), "user.a ");
  OK(root().chmod("f", 0600));
  FAILS(EACCES, alice().get_xattr("f", "user.a"));
  OK(root().mkdir("tmp"));
  OK(root().chmod("tmp", 01777));
  FAILS(EPERM, alice().set_xattr("tmp", "user.a", "x"));
}

TEST_P(Xattrs, ChangeCtimeOnly) {
  OK(root().write_file("f", ""));
  Attributes before = must(root().stat("f"));
  tick();
  OK(root().set_xattr("f", "user.a", "x"));
  EXPECT_GT(must(root().stat("f")).ctime, before.ctime);
  EXPECT_EQ(must(root().stat("f")).mtime, before.mtime);
}

CONFORMANCE_SUITE(Acls);

TEST_P(Acls, ArePassedThrough) {
  OK(root().mkdir("d"));
  std::string acl("\2\0\0\0\1\0\7\0\xff\xff\xff\xff\4\0\5\0\xff\xff\xff\xff\x20\0\5\0\xff\xff\xff\xff", 28);
  OK(root().set_xattr("d", "system.posix_acl_default", acl));
  GIVES(acl, root().get_xattr("d", "system.posix_acl_default"));
  OK(root().write_file("f", ""));
  FAILS(EACCES, root().set_xattr("f", "system.posix_acl_default", acl));
  FAILS(EPERM, alice().set_xattr("d", "system.posix_acl_access", acl));
}

}  // namespace
}  // namespace reprise::conformance

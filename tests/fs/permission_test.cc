// Who may do what: the facade's checks of untrusted callers, and what becomes of setuid, setgid and sticky
// bits.
#include <gtest/gtest.h>
#include <unistd.h>

#include "tests/fs/recording.h"

namespace reprise::fs {
namespace {

using TimeChange = SetAttributesRequest::TimeChange;

const uint32_t kExtraGroups[] = {30, 31};
const Caller kRoot{.uid = 0, .gid = 0, .trusted = false};
const Caller kOwner{.uid = 10, .gid = 20, .trusted = false};
const Caller kMember{.uid = 11, .gid = 20, .trusted = false};
const Caller kByExtraGroup{.uid = 12, .gid = 21, .groups = kExtraGroups, .trusted = false};
const Caller kStranger{.uid = 13, .gid = 23, .trusted = false};

struct Permission : testing::Test, Recorded {
  Filesystem& fs = filesystem;

  // Owned by kOwner and group 20, or as told.
  InodeId make(std::string_view name, uint32_t mode, uint32_t uid = 10, uint32_t gid = 20,
               InodeId parent = kRootInode) {
    bool directory = S_ISDIR(mode);
    auto made = directory ? fs.make_directory(kTrusted, parent, name, mode)
                          : fs.make_node(kTrusted, parent, name, mode, 0);
    EXPECT_TRUE(made);
    EXPECT_TRUE(fs.set_attributes(kTrusted, made->inode, {.uid = uid, .gid = gid}));
    EXPECT_TRUE(fs.set_attributes(kTrusted, made->inode, {.mode = mode & 07777}));
    return made->inode;
  }
  uint32_t mode_of(InodeId inode) { return fs.get_attributes(inode)->mode & 07777; }
};

TEST_F(Permission, TheFirstClassThatFitsDecides) {
  struct Row {
    uint32_t mode, gid;
    const Caller* caller;
    int wanted, error;
  };
  const Row rows[] = {
      {0600, 20, &kOwner, R_OK | W_OK, 0},
      {0600, 20, &kOwner, X_OK, EACCES},
      {0077, 20, &kOwner, R_OK, EACCES},  // though others may
      {0640, 20, &kMember, R_OK, 0},
      {0640, 20, &kMember, W_OK, EACCES},
      {0607, 20, &kMember, R_OK, EACCES},
      {0640, 31, &kByExtraGroup, R_OK, 0},
      {0640, 32, &kByExtraGroup, R_OK, EACCES},
      {0604, 20, &kStranger, R_OK, 0},
      {0660, 20, &kStranger, R_OK, EACCES},
      {0000, 20, &kRoot, R_OK | W_OK, 0},
      {0666, 20, &kRoot, X_OK, EACCES},
      {0001, 20, &kRoot, X_OK, 0},
      {0000, 20, &kTrusted, R_OK | W_OK | X_OK, 0},
  };
  int number = 0;
  for (const Row& row : rows) {
    InodeId inode = make("f" + std::to_string(++number), S_IFREG | row.mode, 10, row.gid);
    EXPECT_EQ(error_of(fs.access(*row.caller, inode, row.wanted)), row.error) << "row " << number;
  }
}

TEST_F(Permission, NamesNeedWriteAndSearchInTheDirectory) {
  InodeId d = make("d", S_IFDIR | 0755), sealed = make("sealed", S_IFDIR | 0666);
  make("f", S_IFREG | 0644, 10, 20, d);
  make("g", S_IFREG | 0644, 10, 20, sealed);
  EXPECT_EQ(error_of(fs.make_node(kStranger, d, "n", S_IFREG, 0)), EACCES);
  EXPECT_EQ(error_of(fs.make_node(kStranger, d, "f", S_IFREG, 0)), EEXIST);
  EXPECT_EQ(error_of(fs.unlink(kStranger, d, "f")), EACCES);
  EXPECT_EQ(error_of(fs.rename(kStranger, d, "f", d, "n")), EACCES);
  EXPECT_EQ(error_of(fs.lookup(kStranger, sealed, "g")), EACCES);
  EXPECT_EQ(error_of(fs.make_node(kStranger, sealed, "n", S_IFREG, 0)), EACCES);
  EXPECT_EQ(error_of(fs.make_unlinked(kStranger, d, 0600)), EACCES);
  EXPECT_EQ(error_of(fs.make_node(kStranger, kRootInode, "dev", S_IFCHR | 0600, 1)), EACCES);
  EXPECT_EQ(error_of(fs.make_node(kOwner, d, "dev", S_IFCHR | 0600, 1)), EPERM);
  EXPECT_EQ(error_of(fs.make_node(kOwner, d, "n", S_IFREG | 0600, 0)), 0);
  EXPECT_EQ(fs.lookup(kOwner, d, "n")->uid, 10u);
  expect_laws();
}

TEST_F(Permission, ADirectoryThatChangesParentsMustBeWritable) {
  InodeId a = make("a", S_IFDIR | 0777), b = make("b", S_IFDIR | 0777);
  make("sub", S_IFDIR | 0755, 10, 20, a);
  EXPECT_EQ(error_of(fs.rename(kStranger, a, "sub", b, "sub")), EACCES);
  EXPECT_EQ(error_of(fs.rename(kStranger, a, "sub", a, "renamed")), 0);
}

TEST_F(Permission, InStickyDirectoriesOnlyOwnersRemove) {
  InodeId d = make("d", S_IFDIR | 01777, 10);
  for (const char* name : {"a", "b", "c"}) make(name, S_IFREG | 0666, 11, 20, d);
  EXPECT_EQ(error_of(fs.unlink(kStranger, d, "a")), EPERM);
  EXPECT_EQ(error_of(fs.rename(kStranger, d, "a", kRootInode, "a")), EPERM);
  make("mine", S_IFREG | 0666, 13, 20, d);
  EXPECT_EQ(error_of(fs.rename(kStranger, d, "mine", d, "a")), EPERM);
  EXPECT_EQ(error_of(fs.unlink(kMember, d, "a")), 0);  // of the file
  EXPECT_EQ(error_of(fs.unlink(kOwner, d, "b")), 0);   // of the directory
  EXPECT_EQ(error_of(fs.unlink(kRoot, d, "c")), 0);
}

TEST_F(Permission, SetgidDirectoriesHandDownTheirGroup) {
  InodeId d = make("d", S_IFDIR | 02777, 10, 40);
  auto sub = *fs.make_directory(kStranger, d, "sub", 0755);
  EXPECT_EQ(sub.gid, 40u);
  EXPECT_EQ(sub.mode, S_IFDIR | 02755u);
  auto file = *fs.make_node(kStranger, d, "file", S_IFREG | 02755, 0);
  EXPECT_EQ(file.gid, 40u);
  EXPECT_EQ(file.mode, S_IFREG | 0755u);  // not a member: no program that runs as the group
  EXPECT_EQ(fs.make_node(kRoot, d, "roots", S_IFREG | 02755, 0)->mode, S_IFREG | 02755u);
  EXPECT_EQ(fs.make_unlinked(kStranger, d, 0600)->gid, 40u);
}

TEST_F(Permission, WritingAndChangingOwnersRevokesSetuid) {
  struct Row {
    const char* what;
    const Caller* caller;
    uint32_t before, after;
    std::function<bool(InodeId, const Caller&)> change;
  };
  auto write = [&](InodeId i, const Caller& c) { return fs.write(c, i, 0, as_bytes("x")).has_value(); };
  auto truncate = [&](InodeId i, const Caller& c) {
    return fs.set_attributes(c, i, {.size = 3, .opened_for_writing = true}).has_value();
  };
  auto chown = [&](InodeId i, const Caller& c) { return fs.set_attributes(c, i, {.gid = 20}).has_value(); };
  auto reserve = [&](InodeId i, const Caller& c) {
    return fs.allocate(c, i, RangeChange::kReserve, false, 0, 9).has_value();
  };
  const Row rows[] = {
      {"write", &kStranger, 06777, 0777, write},
      {"write as root", &kRoot, 06777, 06777, write},
      {"write, setgid alone", &kMember, 02666, 02666, write},
      {"write, a stranger to the group", &kStranger, 02666, 0666, write},
      {"truncate", &kStranger, 06777, 0777, truncate},
      {"truncate as root", &kRoot, 04777, 04777, truncate},
      {"allocate", &kStranger, 06777, 0777, reserve},
      {"chown", &kOwner, 06755, 0755, chown},
      {"chown as root", &kRoot, 06755, 0755, chown},
      {"chown, nothing to run as", &kRoot, 02644, 02644, chown},
  };
  int number = 0;
  for (const Row& row : rows) {
    InodeId inode = make("f" + std::to_string(++number), S_IFREG | row.before);
    ASSERT_TRUE(row.change(inode, *row.caller)) << row.what;
    EXPECT_EQ(mode_of(inode), row.after) << row.what;
  }
  InodeId d = make("d", S_IFDIR | 06755);
  ASSERT_TRUE(fs.set_attributes(kRoot, d, {.uid = 77}));
  EXPECT_EQ(mode_of(d), 06755u);
  expect_laws();
}

TEST_F(Permission, OnlyOwnersChangeModes) {
  InodeId f = make("f", S_IFREG | 0666);
  EXPECT_EQ(error_of(fs.set_attributes(kStranger, f, {.mode = 0777})), EPERM);
  EXPECT_EQ(error_of(fs.set_attributes(kOwner, f, {.mode = 07777})), 0);
  EXPECT_EQ(mode_of(f), 07777u);
  InodeId foreign = make("foreign", S_IFREG | 0666, 10, 99);
  EXPECT_EQ(error_of(fs.set_attributes(kOwner, foreign, {.mode = 02755})), 0);
  EXPECT_EQ(mode_of(foreign), 0755u);  // not of that group
  auto link = fs.make_symlink(kTrusted, kRootInode, "l", "f");
  EXPECT_EQ(error_of(fs.set_attributes(kRoot, link->inode, {.mode = 0777})), EOPNOTSUPP);
}

TEST_F(Permission, OnlyRootGivesFilesAway) {
  InodeId f = make("f", S_IFREG | 0666);
  EXPECT_EQ(error_of(fs.set_attributes(kOwner, f, {.uid = 11})), EPERM);
  EXPECT_EQ(error_of(fs.set_attributes(kOwner, f, {.uid = 10})), 0);
  EXPECT_EQ(error_of(fs.set_attributes(kOwner, f, {.gid = 20})), 0);
  EXPECT_EQ(error_of(fs.set_attributes(kOwner, f, {.gid = 21})), EPERM);
  EXPECT_EQ(error_of(fs.set_attributes(kMember, f, {.gid = 20})), EPERM);
  InodeId mine = make("mine", S_IFREG | 0666, 12, 21);
  EXPECT_EQ(error_of(fs.set_attributes(kByExtraGroup, mine, {.gid = 30})), 0);
  EXPECT_EQ(error_of(fs.set_attributes(kRoot, f, {.uid = 1, .gid = 2})), 0);
}

TEST_F(Permission, WritersMayTouchOwnersMaySetTimes) {
  InodeId f = make("f", S_IFREG | 0666), closed = make("closed", S_IFREG | 0600);
  const SetAttributesRequest touch{.atime_change = TimeChange::kNow, .mtime_change = TimeChange::kNow};
  const SetAttributesRequest half{.mtime_change = TimeChange::kNow};
  const SetAttributesRequest set{.mtime_change = TimeChange::kSet, .mtime = {1, 2}};
  const SetAttributesRequest invalid{.mtime_change = TimeChange::kSet, .mtime = {1, 1'000'000'000}};
  EXPECT_EQ(error_of(fs.set_attributes(kStranger, f, touch)), 0);
  EXPECT_EQ(error_of(fs.set_attributes(kStranger, closed, touch)), EACCES);
  EXPECT_EQ(error_of(fs.set_attributes(kStranger, f, half)), EPERM);
  EXPECT_EQ(error_of(fs.set_attributes(kStranger, f, set)), EPERM);
  EXPECT_EQ(error_of(fs.set_attributes(kOwner, f, set)), 0);
  EXPECT_EQ(error_of(fs.set_attributes(kOwner, f, invalid)), EINVAL);
  EXPECT_EQ(fs.get_attributes(f)->mtime, (Timestamp{1, 2}));
}

TEST_F(Permission, SettingTheSizeNeedsWriteOrADescriptor) {
  InodeId f = make("f", S_IFREG | 0644);
  EXPECT_EQ(error_of(fs.set_attributes(kStranger, f, {.size = 1})), EACCES);
  EXPECT_EQ(error_of(fs.set_attributes(kStranger, f, {.size = 1, .opened_for_writing = true})), 0);
}

// --- extended attributes

TEST_F(Permission, XattrsFollowTheirNamespaces) {
  make("f", S_IFREG | 0644);
  make("d", S_IFDIR | 0755);
  make("sticky", S_IFDIR | 01777);
  ASSERT_TRUE(fs.make_symlink(kOwner, kRootInode, "l", "f") ||
              fs.make_symlink(kTrusted, kRootInode, "l", "f"));
  struct Row {
    const char* file;
    const char* name;
    const Caller* caller;
    int set, get;
  };
  const Row rows[] = {
      {"f", "user.a", &kOwner, 0, 0},
      {"f", "user.a", &kStranger, EACCES, 0},
      {"d", "user.a", &kOwner, 0, 0},
      {"sticky", "user.a", &kStranger, EPERM, ENODATA},
      {"l", "user.a", &kRoot, EPERM, ENODATA},
      {"f", "trusted.a", &kOwner, EPERM, ENODATA},
      {"f", "trusted.a", &kRoot, 0, 0},
      {"f", "security.a", &kOwner, EPERM, ENODATA},
      {"f", "security.a", &kRoot, 0, 0},
      {"f", "security.a", &kStranger, EPERM, 0},
      {"l", "security.a", &kRoot, 0, 0},
      {"f", "system.posix_acl_access", &kStranger, EPERM, ENODATA},
      {"f", "system.posix_acl_access", &kOwner, 0, 0},
      {"f", "system.posix_acl_default", &kOwner, EACCES, ENODATA},
      {"d", "system.posix_acl_default", &kOwner, 0, 0},
      {"f", "system.other", &kRoot, EOPNOTSUPP, EOPNOTSUPP},
      {"f", "nothing", &kRoot, EOPNOTSUPP, EOPNOTSUPP},
      {"f", "user.", &kRoot, EINVAL, EINVAL},
      {"f", "", &kRoot, ERANGE, ERANGE},
  };
  for (const Row& row : rows) {
    InodeId inode = fs.lookup(kTrusted, kRootInode, row.file)->inode;
    EXPECT_EQ(error_of(fs.set_xattr(*row.caller, inode, row.name, as_bytes("v"), XattrMode::kAny)), row.set)
        << row.file << " " << row.name << " uid " << row.caller->uid;
    EXPECT_EQ(error_of(fs.get_xattr(*row.caller, inode, row.name)), row.get)
        << row.file << " " << row.name << " uid " << row.caller->uid;
  }
  InodeId f = fs.lookup(kTrusted, kRootInode, "f")->inode;
  std::string for_root = *fs.list_xattrs(kRoot, f), for_owner = *fs.list_xattrs(kOwner, f);
  EXPECT_NE(for_root.find(std::string("trusted.a\0", 10)), std::string::npos);
  EXPECT_EQ(for_owner.find("trusted.a"), std::string::npos);
  expect_laws();
}

TEST_F(Permission, XattrsHaveConditionsAndLimits) {
  InodeId f = make("f", S_IFREG | 0644);
  auto set = [&](std::string name, size_t bytes, XattrMode mode) {
    return error_of(fs.set_xattr(kOwner, f, name, as_bytes(std::string(bytes, 'v')), mode));
  };
  EXPECT_EQ(set("user.a", 1, XattrMode::kReplace), ENODATA);
  EXPECT_EQ(set("user.a", 1, XattrMode::kCreate), 0);
  EXPECT_EQ(set("user.a", 1, XattrMode::kCreate), EEXIST);
  EXPECT_EQ(set("user.a", 1, XattrMode::kBoth), EEXIST);
  EXPECT_EQ(set("user.b", 1, XattrMode::kBoth), ENODATA);
  EXPECT_EQ(set("user.a", 0, XattrMode::kReplace), 0);
  EXPECT_EQ(set("user." + std::string(251, 'n'), 1, XattrMode::kAny), ERANGE);
  EXPECT_EQ(set("user.big", kXattrValueMax + 1, XattrMode::kAny), E2BIG);
  EXPECT_EQ(set("user.one", kXattrValueMax, XattrMode::kAny), 0);
  constexpr size_t kLeft = kXattrsMax - kXattrValueMax - 8 - 6 - 9;  // the names are not free
  EXPECT_EQ(set("user.more", kLeft + 1, XattrMode::kAny), ENOSPC);
  EXPECT_EQ(set("user.more", kLeft, XattrMode::kAny), 0);
  EXPECT_EQ(set("user.more", kLeft + 1, XattrMode::kAny), ENOSPC);
  EXPECT_EQ(error_of(fs.remove_xattr(kOwner, f, "user.more")), 0);
  EXPECT_EQ(fs.get_xattr(kOwner, f, "user.a")->size(), 0u);
  EXPECT_EQ(error_of(fs.remove_xattr(kOwner, f, "user.none")), ENODATA);
  EXPECT_EQ(error_of(fs.remove_xattr(kOwner, f, "user.a")), 0);
  EXPECT_EQ(*fs.list_xattrs(kOwner, f), std::string("user.one\0", 9));
  expect_laws();
}

}  // namespace
}  // namespace reprise::fs

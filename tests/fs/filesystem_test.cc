// The facade by inode: what is recorded, what a handle sees, times, limits, overwriting.
#include "fs/filesystem.h"

#include <dirent.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <set>
#include <thread>

#include "tests/fs/recording.h"

namespace reprise::fs {
namespace {

struct Facade : testing::Test, Recorded {
  Filesystem& fs = filesystem;

  InodeId file(std::string_view name, uint32_t mode = 0644, InodeId parent = kRootInode) {
    auto made = fs.make_node(kTrusted, parent, name, S_IFREG | mode, 0);
    EXPECT_TRUE(made);
    return made ? made->inode : InodeId{};
  }
  InodeId directory(std::string_view name, uint32_t mode = 0755, InodeId parent = kRootInode) {
    auto made = fs.make_directory(kTrusted, parent, name, mode);
    EXPECT_TRUE(made);
    return made ? made->inode : InodeId{};
  }
  void write(InodeId inode, uint64_t offset, std::string_view bytes) {
    EXPECT_EQ(fs.write(kTrusted, inode, offset, as_bytes(bytes)).value_or(0), offset + bytes.size());
  }
  std::string bytes_of(InodeId inode) {
    auto attributes = fs.get_attributes(inode);
    if (!attributes) return errno_text(attributes.error());
    std::string bytes(attributes->size, '?');
    EXPECT_EQ(fs.read(inode, 0, std::as_writable_bytes(std::span(bytes))).value_or(0), bytes.size());
    return bytes;
  }
  size_t recorded() const { return sink.operations.size(); }
  std::string_view last_operation() const { return operation_name(sink.operations.back()); }
};

TEST_F(Facade, FailedCallsAreNotRecorded) {
  InodeId a = file("a"), d = directory("d");
  size_t before = recorded();
  EXPECT_EQ(error_of(fs.make_node(kTrusted, kRootInode, "a", S_IFREG | 0644, 0)), EEXIST);
  EXPECT_EQ(error_of(fs.make_node(kTrusted, a, "x", S_IFREG | 0644, 0)), ENOTDIR);
  EXPECT_EQ(error_of(fs.make_node(kTrusted, kRootInode, "x", S_IFDIR | 0644, 0)), EPERM);
  EXPECT_EQ(error_of(fs.make_node(kTrusted, kRootInode, std::string(256, 'x'), S_IFREG, 0)), ENAMETOOLONG);
  EXPECT_EQ(error_of(fs.make_node(kTrusted, kRootInode, "a/b", S_IFREG, 0)), EINVAL);
  EXPECT_EQ(error_of(fs.make_symlink(kTrusted, kRootInode, "s", "")), ENOENT);
  EXPECT_EQ(error_of(fs.link(kTrusted, d, kRootInode, "d2")), EPERM);
  EXPECT_EQ(error_of(fs.unlink(kTrusted, kRootInode, "d")), EISDIR);
  EXPECT_EQ(error_of(fs.remove_directory(kTrusted, kRootInode, "a")), ENOTDIR);
  EXPECT_EQ(error_of(fs.rename(kTrusted, kRootInode, "d", d, "below")), EINVAL);
  EXPECT_EQ(error_of(fs.write(kTrusted, d, 0, as_bytes("x"))), EISDIR);
  EXPECT_EQ(error_of(fs.get_attributes(InodeId{999})), ESTALE);
  EXPECT_EQ(recorded(), before);
  expect_laws();
}

TEST_F(Facade, CallsThatChangeNothingAreNotRecorded) {
  InodeId a = file("a");
  ASSERT_TRUE(fs.link(kTrusted, a, kRootInode, "b"));
  Attributes was = *fs.get_attributes(a);
  size_t before = recorded();
  EXPECT_TRUE(fs.write(kTrusted, a, 7, {}));
  EXPECT_TRUE(fs.rename(kTrusted, kRootInode, "a", kRootInode, "a"));
  EXPECT_TRUE(fs.rename(kTrusted, kRootInode, "a", kRootInode, "b"));
  EXPECT_TRUE(fs.set_attributes(kTrusted, a, {}));
  EXPECT_EQ(fs.copy_range(kTrusted, a, 0, a, 0, 100).value_or(1), 0u);
  EXPECT_EQ(recorded(), before);
  EXPECT_EQ(fs.get_attributes(a)->ctime, was.ctime);
}

TEST_F(Facade, ReadOnlyAnswersErofsToEveryChange) {
  InodeId a = file("a"), d = directory("d");
  size_t before = recorded();
  fs.set_read_only(true);
  EXPECT_EQ(error_of(fs.make_node(kTrusted, kRootInode, "n", S_IFREG, 0)), EROFS);
  EXPECT_EQ(error_of(fs.make_directory(kTrusted, kRootInode, "n", 0755)), EROFS);
  EXPECT_EQ(error_of(fs.make_directory(kTrusted, kRootInode, "d", 0755)), EEXIST);  // mkdir -p
  EXPECT_EQ(error_of(fs.make_symlink(kTrusted, kRootInode, "n", "t")), EROFS);
  EXPECT_EQ(error_of(fs.make_unlinked(kTrusted, kRootInode, 0600)), EROFS);
  EXPECT_EQ(error_of(fs.link(kTrusted, a, kRootInode, "n")), EROFS);
  EXPECT_EQ(error_of(fs.unlink(kTrusted, kRootInode, "a")), EROFS);
  EXPECT_EQ(error_of(fs.remove_directory(kTrusted, kRootInode, "d")), EROFS);
  EXPECT_EQ(error_of(fs.rename(kTrusted, kRootInode, "a", kRootInode, "n")), EROFS);
  EXPECT_EQ(error_of(fs.set_attributes(kTrusted, a, {.mode = 0600})), EROFS);
  EXPECT_EQ(error_of(fs.write(kTrusted, a, 0, as_bytes("x"))), EROFS);
  EXPECT_EQ(error_of(fs.allocate(kTrusted, a, RangeChange::kReserve, false, 0, 1)), EROFS);
  EXPECT_EQ(error_of(fs.copy_range(kTrusted, a, 0, a, 0, 1)), EROFS);
  EXPECT_EQ(error_of(fs.set_xattr(kTrusted, a, "user.x", {}, XattrMode::kAny)), EROFS);
  EXPECT_EQ(error_of(fs.remove_xattr(kTrusted, a, "user.x")), EROFS);
  EXPECT_EQ(error_of(fs.barrier("m", "")), EROFS);
  EXPECT_EQ(error_of(fs.access(kTrusted, a, W_OK)), EROFS);
  EXPECT_EQ(error_of(fs.access(kTrusted, d, R_OK)), 0);
  EXPECT_EQ(recorded(), before);
  fs.set_read_only(false);
  EXPECT_TRUE(fs.unlink(kTrusted, kRootInode, "a"));
}

TEST_F(Facade, ASinkThatHasNoRoomRefusesTheCallBeforeItHappens) {
  InodeId a = file("a");
  sink.refuse = ENOSPC;
  Digest128 before = fs.digest();
  EXPECT_EQ(error_of(fs.write(kTrusted, a, 0, as_bytes("x"))), ENOSPC);
  EXPECT_EQ(error_of(fs.unlink(kTrusted, kRootInode, "a")), ENOSPC);
  EXPECT_EQ(fs.digest(), before);
}

TEST_F(Facade, ALongWriteIsOneCallInPartsAndShortPastTheLimit) {
  InodeId a = file("a");
  size_t calls = sink.ends.size(), operations = recorded();
  std::string bytes(3 * kRecordedWriteMax + 5, 'x');
  write(a, 1, bytes);
  EXPECT_EQ(sink.ends.size(), calls + 1);
  EXPECT_EQ(recorded(), operations + 4);
  EXPECT_EQ(sink.largest_write, kRecordedWriteMax);
  EXPECT_EQ(bytes_of(a), std::string(1, '\0') + bytes);
  bytes.assign(kCallDataMax + 1, 'y');
  EXPECT_EQ(fs.write(kTrusted, a, 0, as_bytes(bytes)).value_or(0), kCallDataMax);
  expect_laws();
}

TEST_F(Facade, LabelsAndEndsOfCallsReachTheSink) {
  Caller labelled{.label = "request 42"};
  ASSERT_TRUE(fs.make_directory(labelled, kRootInode, "d", 0755));
  EXPECT_EQ(sink.labels, std::vector<std::string>{"request 42"});
  EXPECT_EQ(sink.ends, std::vector<size_t>{1});
}

TEST_F(Facade, BarriersHaveNamesThatMarksMayHave) {
  EXPECT_TRUE(fs.barrier("", ""));
  EXPECT_TRUE(fs.barrier("release_1.0-rc", "step"));
  EXPECT_EQ(std::get<Barrier>(sink.operations.back()).name, "release_1.0-rc");
  for (std::string_view name : {"head", "1st", "-x", "a/b", "a b", "\xc3\xa4"})
    EXPECT_EQ(error_of(fs.barrier(name, "")), EINVAL) << name;
  expect_laws();
}

// --- times

TEST_F(Facade, EachChangeTouchesTheTimesThatPosixSays) {
  InodeId d = directory("d"), e = directory("e"), a = file("a", 0644, d);
  struct Row {
    const char* what;
    std::function<bool()> change;
    bool file_mtime, file_ctime, parent_changes;
  };
  const Row rows[] = {
      {"write", [&] { return fs.write(kTrusted, a, 0, as_bytes("x")).has_value(); }, true, true, false},
      {"truncate to the same size", [&] { return fs.set_attributes(kTrusted, a, {.size = 1}).has_value(); },
       true, true, false},
      {"chmod", [&] { return fs.set_attributes(kTrusted, a, {.mode = 0600}).has_value(); }, false, true,
       false},
      {"chown", [&] { return fs.set_attributes(kTrusted, a, {.uid = 5}).has_value(); }, false, true, false},
      {"set xattr",
       [&] { return fs.set_xattr(kTrusted, a, "user.k", as_bytes("v"), XattrMode::kAny).has_value(); }, false,
       true, false},
      {"remove xattr", [&] { return fs.remove_xattr(kTrusted, a, "user.k").has_value(); }, false, true,
       false},
      {"link", [&] { return fs.link(kTrusted, a, d, "a2").has_value(); }, false, true, true},
      {"rename", [&] { return fs.rename(kTrusted, d, "a2", e, "a3").has_value(); }, false, true, true},
      {"unlink", [&] { return fs.link(kTrusted, a, d, "a4") && fs.unlink(kTrusted, d, "a4"); }, false, true,
       true},
      {"read", [&] { return bytes_of(a) == "x"; }, false, false, false},
      {"set atime",
       [&] {
         return fs
             .set_attributes(kTrusted, a,
                             {.atime_change = SetAttributesRequest::TimeChange::kSet, .atime = {77, 8}})
             .has_value();
       },
       false, true, false},
  };
  for (const Row& row : rows) {
    Attributes before = *fs.get_attributes(a), parent_before = *fs.get_attributes(d);
    ASSERT_TRUE(row.change()) << row.what;
    Attributes after = *fs.get_attributes(a), parent_after = *fs.get_attributes(d);
    EXPECT_EQ(after.mtime > before.mtime, row.file_mtime) << row.what;
    EXPECT_EQ(after.ctime > before.ctime, row.file_ctime) << row.what;
    EXPECT_EQ(parent_after.mtime > parent_before.mtime, row.parent_changes) << row.what;
    EXPECT_EQ(parent_after.ctime > parent_before.ctime, row.parent_changes) << row.what;
  }
  EXPECT_EQ(fs.get_attributes(a)->atime, (Timestamp{77, 8}));
  expect_laws();
}

// --- inodes without links

TEST_F(Facade, AnOpenFileOutlivesItsNameAndItsChangesAreNotRecorded) {
  InodeId a = file("a");
  write(a, 0, "kept");
  uint64_t inodes = fs.usage().inodes;
  fs.pin(a, 2);
  ASSERT_TRUE(fs.unlink(kTrusted, kRootInode, "a"));
  size_t before = recorded();
  write(a, 4, " and changed");
  EXPECT_TRUE(fs.set_attributes(kTrusted, a, {.mode = 0600}));
  EXPECT_TRUE(fs.set_xattr(kTrusted, a, "user.x", as_bytes("y"), XattrMode::kAny));
  EXPECT_EQ(recorded(), before);
  EXPECT_EQ(bytes_of(a), "kept and changed");
  EXPECT_EQ(fs.get_attributes(a)->nlink, 0u);
  EXPECT_EQ(error_of(fs.link(kTrusted, a, kRootInode, "again")), ENOENT);
  expect_laws();
  fs.unpin(a);
  EXPECT_EQ(bytes_of(a), "kept and changed");
  fs.unpin(a);
  EXPECT_EQ(error_of(fs.get_attributes(a)), ESTALE);
  EXPECT_EQ(fs.usage().inodes, inodes - 1);
  expect_laws();
}

TEST_F(Facade, AFileNobodyHoldsGoesWithItsName) {
  InodeId a = file("a"), b = file("b");
  ASSERT_TRUE(fs.rename(kTrusted, kRootInode, "a", kRootInode, "b"));
  EXPECT_EQ(error_of(fs.get_attributes(b)), ESTALE);
  EXPECT_TRUE(fs.get_attributes(a));
  ASSERT_TRUE(fs.unlink(kTrusted, kRootInode, "b"));
  EXPECT_EQ(fs.usage().inodes, 1u);
  EXPECT_EQ(fs.usage().blocks, 0u);
}

TEST_F(Facade, AFileMadeWithoutANameIsRecordedWholeWhenItIsLinked) {
  Attributes made = *fs.make_unlinked({.uid = 7, .gid = 8}, kRootInode, 0640);
  InodeId t = made.inode;
  EXPECT_EQ(made.nlink, 0u);
  write(t, 0, "begin");
  write(t, 3 * kRecordedWriteMax + 17, std::string(kRecordedWriteMax + 1000, 'm'));
  ASSERT_TRUE(fs.set_attributes(kTrusted, t, {.size = 9 << 20}));
  ASSERT_TRUE(fs.set_xattr(kTrusted, t, "user.k", as_bytes("value"), XattrMode::kAny));
  ASSERT_TRUE(fs.set_attributes(kTrusted, t,
                                {.atime_change = SetAttributesRequest::TimeChange::kSet, .atime = {5, 6}}));
  EXPECT_EQ(recorded(), 0u);
  expect_laws();
  ASSERT_TRUE(fs.link(kTrusted, t, kRootInode, "t"));
  EXPECT_EQ(sink.ends.size(), 1u);
  EXPECT_LE(sink.largest_write, kRecordedWriteMax);
  EXPECT_EQ(fs.lookup(kTrusted, kRootInode, "t")->inode, t);
  expect_laws();
  Head replay = replayed();
  Attributes there = *replay.stat(t), here = *fs.get_attributes(t);
  EXPECT_EQ(there.mtime, here.mtime);
  EXPECT_EQ(there.atime, here.atime);
  EXPECT_EQ(there.uid, 7u);
  ASSERT_TRUE(fs.unlink(kTrusted, kRootInode, "t"));
  EXPECT_EQ(error_of(fs.link(kTrusted, t, kRootInode, "t")), ENOENT);  // once only
  fs.unpin(t);
  EXPECT_EQ(fs.usage().inodes, 1u);
  expect_laws();
}

TEST_F(Facade, AFileMadeWithoutANameGoesWithItsLastPin) {
  InodeId t = fs.make_unlinked(kTrusted, kRootInode, 0600, false)->inode;
  EXPECT_EQ(error_of(fs.link(kTrusted, t, kRootInode, "t")), ENOENT);  // O_EXCL
  fs.unpin(t);
  EXPECT_EQ(error_of(fs.get_attributes(t)), ESTALE);
  expect_laws();
}

TEST_F(Facade, ACopyFromAFileWithoutLinksIsRecordedAsItsBytes) {
  InodeId a = file("a"), b = file("b");
  write(a, 0, std::string(5000, 'x'));
  write(a, 100000, std::string(5000, 'y'));
  write(b, 0, std::string(60000, 'b'));
  fs.pin(a);
  ASSERT_TRUE(fs.unlink(kTrusted, kRootInode, "a"));
  EXPECT_EQ(fs.copy_range(kTrusted, a, 0, b, 777, 1 << 20).value_or(0), 105000u);
  EXPECT_EQ(bytes_of(b), std::string(777, 'b') + bytes_of(a));
  expect_laws();
  fs.unpin(a);
}

// --- bytes

TEST_F(Facade, CopyRangeSharesAndChecks) {
  InodeId a = file("a"), b = file("b"), d = directory("d");
  std::string bytes(20000, 'a');
  for (size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<char>('a' + i % 23);
  write(a, 0, bytes);
  EXPECT_EQ(fs.copy_range(kTrusted, a, 4096, b, 8192, 100000).value_or(0), bytes.size() - 4096);
  EXPECT_EQ(bytes_of(b), std::string(8192, '\0') + bytes.substr(4096));
  EXPECT_EQ(fs.copy_range(kTrusted, a, 10, a, 30000, 5000).value_or(0), 5000u);
  EXPECT_EQ(bytes_of(a).substr(30000), bytes.substr(10, 5000));
  EXPECT_EQ(error_of(fs.copy_range(kTrusted, a, 0, a, 10, 100)), EINVAL);
  EXPECT_EQ(error_of(fs.copy_range(kTrusted, a, 0, d, 0, 1)), EISDIR);
  EXPECT_EQ(error_of(fs.copy_range(kTrusted, a, 0, b, kFileSizeMax, 1)), EFBIG);
  expect_laws();
}

TEST_F(Facade, AllocateDoesWhatFallocateDoes) {
  InodeId a = file("a"), d = directory("d");
  std::string expected(20000, 'x');
  write(a, 0, expected);
  auto allocate = [&](RangeChange change, bool keep, uint64_t offset, uint64_t length) {
    return error_of(fs.allocate(kTrusted, a, change, keep, offset, length));
  };
  EXPECT_EQ(allocate(RangeChange::kReserve, true, 0, 50000), 0);
  EXPECT_EQ(bytes_of(a), expected);
  EXPECT_EQ(allocate(RangeChange::kReserve, false, 0, 30000), 0);
  expected.resize(30000);
  EXPECT_EQ(bytes_of(a), expected);
  EXPECT_EQ(allocate(RangeChange::kPunch, true, 5000, 9000), 0);
  expected.replace(5000, 9000, 9000, '\0');
  EXPECT_EQ(bytes_of(a), expected);
  EXPECT_EQ(allocate(RangeChange::kZero, false, 10, 20), 0);
  expected.replace(10, 20, 20, '\0');
  EXPECT_EQ(bytes_of(a), expected);
  EXPECT_EQ(allocate(RangeChange::kCollapse, false, 4096, 8192), 0);
  expected.erase(4096, 8192);
  EXPECT_EQ(bytes_of(a), expected);
  EXPECT_EQ(allocate(RangeChange::kInsert, false, 4096, 4096), 0);
  expected.insert(4096, 4096, '\0');
  EXPECT_EQ(bytes_of(a), expected);

  EXPECT_EQ(allocate(RangeChange::kReserve, false, 0, 0), EINVAL);
  EXPECT_EQ(allocate(RangeChange::kReserve, false, kFileSizeMax, 1), EFBIG);
  EXPECT_EQ(allocate(RangeChange::kReserve, false, UINT64_MAX, 2), EFBIG);
  EXPECT_EQ(allocate(RangeChange::kPunch, false, 0, 1), EOPNOTSUPP);
  EXPECT_EQ(allocate(RangeChange::kCollapse, false, 1, 4096), EINVAL);
  EXPECT_EQ(allocate(RangeChange::kCollapse, false, 0, 1 << 20), EINVAL);
  EXPECT_EQ(allocate(RangeChange::kInsert, false, 1 << 20, 4096), EINVAL);
  EXPECT_EQ(allocate(RangeChange::kInsert, false, 0, kFileSizeMax), EFBIG);
  EXPECT_EQ(error_of(fs.allocate(kTrusted, d, RangeChange::kReserve, false, 0, 1)), EISDIR);
  expect_laws();
}

TEST_F(Facade, HolesAreFound) {
  InodeId a = file("a");
  write(a, 40960, "data");
  ASSERT_TRUE(fs.set_attributes(kTrusted, a, {.size = 100000}));
  EXPECT_EQ(fs.seek_data(a, 0).value_or(0), 40960u);
  EXPECT_EQ(fs.seek_hole(a, 0).value_or(1), 0u);
  EXPECT_EQ(fs.seek_hole(a, 40960).value_or(0), 45056u);
  EXPECT_EQ(error_of(fs.seek_data(a, 50000)), ENXIO);
  EXPECT_EQ(error_of(fs.seek_hole(a, 100000)), ENXIO);
}

TEST_F(Facade, SizesStopAtTheLargest) {
  InodeId a = file("a");
  EXPECT_EQ(error_of(fs.set_attributes(kTrusted, a, {.size = kFileSizeMax + 1})), EFBIG);
  EXPECT_TRUE(fs.set_attributes(kTrusted, a, {.size = kFileSizeMax - 2}));
  EXPECT_EQ(fs.write(kTrusted, a, kFileSizeMax - 1, as_bytes("xyz")).value_or(0), kFileSizeMax);
  EXPECT_EQ(error_of(fs.write(kTrusted, a, kFileSizeMax, as_bytes("x"))), EFBIG);
  EXPECT_EQ(error_of(fs.write(kTrusted, a, 0, as_bytes("x"), true)), EFBIG);
  expect_laws();
}

TEST_F(Facade, LinksStopAtTheLargest) {
  InodeId a = file("a"), d = directory("d");
  for (uint32_t i = 1; i < kLinkMax; ++i) ASSERT_TRUE(fs.link(kTrusted, a, d, std::to_string(i)));
  EXPECT_EQ(error_of(fs.link(kTrusted, a, d, "one more")), EMLINK);
  EXPECT_EQ(fs.get_attributes(a)->nlink, kLinkMax);
}

// --- directories

TEST_F(Facade, DirectoriesCountTheirSubdirectories) {
  InodeId d = directory("d"), e = directory("e");
  directory("s", 0755, d);
  file("f", 0644, d);
  EXPECT_EQ(fs.get_attributes(d)->nlink, 3u);
  ASSERT_TRUE(fs.rename(kTrusted, d, "s", e, "s"));
  EXPECT_EQ(fs.get_attributes(d)->nlink, 2u);
  EXPECT_EQ(fs.get_attributes(e)->nlink, 3u);
  EXPECT_EQ(fs.lookup(kTrusted, fs.lookup(kTrusted, e, "s")->inode, "..")->inode, e);
  ASSERT_TRUE(fs.rename(kTrusted, kRootInode, "d", e, "s", RenameMode::kExchange));  // though d has a file
  EXPECT_EQ(fs.lookup(kTrusted, e, "s")->inode, d);
  EXPECT_EQ(fs.get_attributes(e)->nlink, 3u);
  expect_laws();
}

TEST_F(Facade, ReadingADirectoryGoesOnWhereItStopped) {
  InodeId d = directory("d");
  for (int i = 0; i < 100; ++i) file("f" + std::to_string(i), 0644, d);
  std::multiset<std::string> seen;
  uint64_t cookie = 0;
  for (bool more = true; more;) {
    more = false;
    ASSERT_TRUE(
        fs.read_directory(kTrusted, d, cookie, true, [&](const Dentry& dentry, const Attributes* attributes) {
          seen.emplace(dentry.name);
          cookie = dentry.cookie;
          more = true;
          EXPECT_EQ(attributes->inode, dentry.inode);
          EXPECT_EQ(type_of_mode(attributes->mode), dentry.type);
          return seen.size() % 7 != 0;
        }));
    // What goes and comes meanwhile makes nothing else repeat or miss.
    if (seen.size() == 49) {
      ASSERT_TRUE(fs.unlink(kTrusted, d, *seen.rbegin()));
    }
    if (seen.size() == 56) file("new", 0644, d);
  }
  EXPECT_EQ(seen.count("."), 1u);
  EXPECT_EQ(seen.count(".."), 1u);
  for (int i = 0; i < 100; ++i) EXPECT_EQ(seen.count("f" + std::to_string(i)), 1u);
}

TEST_F(Facade, ARemovedDirectoryThatIsHeldIsEmptyForGood) {
  InodeId d = directory("d");
  fs.pin(d);
  ASSERT_TRUE(fs.remove_directory(kTrusted, kRootInode, "d"));
  EXPECT_EQ(error_of(fs.make_node(kTrusted, d, "f", S_IFREG, 0)), ENOENT);
  EXPECT_EQ(error_of(fs.read_directory(kTrusted, d, 0, false, [](auto&, auto*) { return true; })), ENOENT);
  EXPECT_EQ(fs.lookup(kTrusted, d, "..")->inode, kRootInode);
  EXPECT_EQ(fs.get_attributes(d)->nlink, 0u);
  fs.unpin(d);
  EXPECT_EQ(error_of(fs.get_attributes(d)), ESTALE);
  expect_laws();
}

// --- overwriting and replaying

TEST_F(Facade, HandlesFollowTheirIdThroughAnOverwrite) {
  InodeId stays = file("stays"), goes = file("goes");
  write(stays, 0, "old");
  View old_view = fs.view();
  ASSERT_TRUE(fs.unlink(kTrusted, kRootInode, "goes"));
  write(stays, 0, "new bytes");
  InodeId later = file("later");
  for (InodeId inode : {stays, later}) fs.pin(inode);
  Digest128 new_digest = fs.digest();
  View replaced = fs.install(old_view);
  EXPECT_EQ(replaced.digest(), new_digest);
  EXPECT_EQ(bytes_of(stays), "old");
  EXPECT_TRUE(fs.get_attributes(goes));
  EXPECT_EQ(error_of(fs.get_attributes(later)), ESTALE);
  EXPECT_EQ(error_of(fs.read(later, 0, {})), ESTALE);
  EXPECT_EQ(error_of(fs.write(kTrusted, later, 0, as_bytes("x"))), ESTALE);
  fs.unpin(later);
  fs.unpin(stays);
  EXPECT_EQ(bytes_of(stays), "old");
  EXPECT_EQ(broken_law(), "");
}

TEST_F(Facade, AReplayedUnlinkLeavesAnOpenFileToItsHandle) {
  InodeId a = file("a"), b = file("b");
  write(a, 0, "held");
  size_t before = recorded();
  fs.pin(a);
  fs.replay([&](Head& head) {
    ASSERT_TRUE(head.apply(Unlink{.parent = kRootInode, .name = "a", .inode = a}));
    ASSERT_TRUE(head.apply(Unlink{.parent = kRootInode, .name = "b", .inode = b}));
  });
  EXPECT_EQ(recorded(), before);
  EXPECT_EQ(bytes_of(a), "held");
  EXPECT_EQ(error_of(fs.get_attributes(b)), ESTALE);
  fs.unpin(a);
  EXPECT_EQ(error_of(fs.get_attributes(a)), ESTALE);
  EXPECT_EQ(broken_law(), "");
}

// --- threads

TEST_F(Facade, ManyGuestsAtOnceLeaveATreeThatReplaysToTheSameDigest) {
  constexpr int kThreads = 4, kRounds = 400;
  InodeId log = file("log");
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < kRounds; ++i) {
        std::string shared = "s" + std::to_string(i % 5), own = "t" + std::to_string(t);
        auto made = fs.make_node(kTrusted, kRootInode, shared, S_IFREG | 0644, 0, Hold::kPin);
        if (!made) made = fs.lookup(kTrusted, kRootInode, shared, Hold::kPin);
        if (made) {  // pinned: it stays usable whoever unlinks it meanwhile
          EXPECT_TRUE(fs.write(kTrusted, made->inode, 0, as_bytes(own)));
          EXPECT_TRUE(fs.get_attributes(made->inode));
          fs.unpin(made->inode);
        }
        auto renamed = fs.rename(kTrusted, kRootInode, shared, kRootInode, own);
        EXPECT_TRUE(renamed || renamed.error() == Errno{ENOENT});  // somebody else may have been first
        auto unlinked = fs.unlink(kTrusted, kRootInode, own);
        EXPECT_EQ(unlinked.has_value(), renamed.has_value());
        EXPECT_TRUE(fs.write(kTrusted, log, 0, as_bytes("line\n"), true));
        if (i % 50 == 0) {
          EXPECT_EQ(fs.view().check_invariants(), "");
        }
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(fs.get_attributes(log)->size, size_t{5} * kThreads * kRounds);
  expect_laws();
  uint64_t links = 0;
  fs.view().for_each_inode([&](const Attributes& a) { links += a.nlink == 0; });
  EXPECT_EQ(links, 0u);  // nothing that nobody holds is left
}

}  // namespace
}  // namespace reprise::fs

// A guest's calls by path: how paths are walked, what open's flags mean, what descriptors share.
#include "fs/guest.h"

#include <gtest/gtest.h>
#include <linux/falloc.h>
#include <unistd.h>

#include "tests/fs/recording.h"

namespace reprise::fs {
namespace {

struct Guests : testing::Test, Recorded {
  Guest guest{filesystem, {.label = "test"}};

  std::string read_all(int fd) {
    std::string bytes(100, '\0');
    auto n = guest.pread(fd, std::as_writable_bytes(std::span(bytes)), 0);
    return n ? bytes.substr(0, *n) : errno_text(n.error());
  }
};

// --- paths

TEST_F(Guests, PathsAreWalkedPartByPart) {
  ASSERT_TRUE(guest.mkdir("/d"));
  ASSERT_TRUE(guest.mkdir("/d/e/"));
  ASSERT_TRUE(guest.write_file("/d/f", "bytes"));
  ASSERT_TRUE(guest.symlink("e", "/d/link"));
  ASSERT_TRUE(guest.symlink("/d/f", "/absolute"));
  ASSERT_TRUE(guest.symlink("nowhere", "/dangling"));
  struct Row {
    const char* path;
    int stat, lstat;
  };
  const Row rows[] = {
      {"/", 0, 0},
      {"//", 0, 0},
      {"/..", 0, 0},
      {"/../d", 0, 0},
      {"d", 0, 0},
      {"", ENOENT, ENOENT},
      {"/d/./e/../f", 0, 0},
      {"/d/link", 0, 0},
      {"/d/link/", 0, 0},
      {"/d/link/../f", 0, 0},
      {"/d/f/", ENOTDIR, ENOTDIR},
      {"/d/f/x", ENOTDIR, ENOTDIR},
      {"/d/f/..", ENOTDIR, ENOTDIR},
      {"/x/..", ENOENT, ENOENT},
      {"/absolute", 0, 0},
      {"/absolute/", ENOTDIR, ENOTDIR},
      {"/dangling", ENOENT, 0},
      {"/dangling/", ENOENT, ENOENT},
      {"/dangling/x", ENOENT, ENOENT},
  };
  for (const Row& row : rows) {
    EXPECT_EQ(error_of(guest.stat(row.path)), row.stat) << row.path;
    EXPECT_EQ(error_of(guest.lstat(row.path)), row.lstat) << row.path;
  }
  EXPECT_TRUE(guest.lstat("/d/link")->is_symlink());
  EXPECT_TRUE(guest.lstat("/d/link/")->is_directory());
  EXPECT_EQ(guest.stat("/d/link/../f")->inode, guest.stat("/absolute")->inode);
}

TEST_F(Guests, TheRootHasNoNameToTakeAway) {
  ASSERT_TRUE(guest.mkdir("/d"));
  EXPECT_EQ(error_of(guest.rename("/", "/d/x")), EBUSY);
  EXPECT_EQ(error_of(guest.rename("/d", "/")), EBUSY);
  EXPECT_EQ(error_of(guest.rename("/d", "/", RENAME_NOREPLACE)), EEXIST);
  EXPECT_EQ(error_of(guest.rmdir("/")), EBUSY);
  EXPECT_EQ(error_of(guest.unlink("/")), EISDIR);
  EXPECT_EQ(error_of(guest.mkdir("/")), EEXIST);
}

TEST_F(Guests, FortySymlinksAreFollowedAndNoMore) {
  ASSERT_TRUE(guest.write_file("/l0", "end"));
  for (int i = 1; i <= kSymlinksMax + 1; ++i)
    ASSERT_TRUE(guest.symlink("l" + std::to_string(i - 1), "/l" + std::to_string(i)));
  EXPECT_EQ(*guest.read_file("/l40"), "end");
  EXPECT_EQ(error_of(guest.read_file("/l41")), ELOOP);
  EXPECT_EQ(error_of(guest.open("/l41", O_CREAT | O_RDWR)), ELOOP);
  ASSERT_TRUE(guest.symlink("self", "/self"));
  EXPECT_EQ(error_of(guest.stat("/self")), ELOOP);
  EXPECT_EQ(error_of(guest.stat("/self/x")), ELOOP);
  EXPECT_EQ(*guest.readlink("/self"), "self");
}

TEST_F(Guests, NamesAndPathsHaveLimits) {
  std::string long_name(kNameMax, 'n'), longer_name(kNameMax + 1, 'n');
  EXPECT_TRUE(guest.write_file("/" + long_name, ""));
  EXPECT_EQ(error_of(guest.write_file("/" + longer_name, "")), ENAMETOOLONG);
  EXPECT_EQ(error_of(guest.stat("/" + longer_name)), ENAMETOOLONG);
  std::string slashes(kPathMax, '/');
  EXPECT_TRUE(guest.stat(slashes));
  EXPECT_EQ(error_of(guest.stat(slashes + "/")), ENAMETOOLONG);
  EXPECT_EQ(error_of(guest.symlink(slashes + "/", "/s")), ENAMETOOLONG);
  EXPECT_TRUE(guest.symlink(slashes, "/s"));
  EXPECT_TRUE(guest.stat("/s")->is_directory());
  EXPECT_EQ(error_of(guest.stat(std::string_view("/a\0b", 4))), EINVAL);
}

TEST_F(Guests, PathsStartFromDescriptorsAndTheWorkingDirectory) {
  ASSERT_TRUE(guest.mkdir("/a"));
  ASSERT_TRUE(guest.mkdir("/a/b"));
  ASSERT_TRUE(guest.chdir("a/b"));
  EXPECT_EQ(*guest.working_directory(), "/a/b");
  ASSERT_TRUE(guest.write_file("here", "1"));
  EXPECT_TRUE(guest.stat("/a/b/here"));
  int fd = *guest.open("..", O_RDONLY | O_DIRECTORY);
  EXPECT_EQ(*guest.read_file({fd, "b/here"}), "1");
  EXPECT_TRUE(guest.mkdir({fd, "c"}));
  EXPECT_TRUE(guest.rename({fd, "b/here"}, {fd, "c/there"}));
  EXPECT_EQ(*guest.read_file({fd, "/a/c/there"}), "1");
  EXPECT_EQ(error_of(guest.stat({99, "x"})), EBADF);
  int file = *guest.open("/a/c/there", O_RDONLY);
  EXPECT_EQ(error_of(guest.stat({file, "x"})), ENOTDIR);
  EXPECT_EQ(guest.stat({file, ""}, AT_EMPTY_PATH)->inode, guest.stat("/a/c/there")->inode);
  EXPECT_EQ(error_of(guest.chdir("/a/c/there")), ENOTDIR);
  EXPECT_EQ(error_of(guest.fchdir(file)), ENOTDIR);
  ASSERT_TRUE(guest.fchdir(fd));
  EXPECT_EQ(*guest.working_directory(), "/a");
}

TEST_F(Guests, ARenamedWorkingDirectoryStaysAndARemovedOneHasNoName) {
  ASSERT_TRUE(guest.mkdir("/a"));
  ASSERT_TRUE(guest.chdir("/a"));
  ASSERT_TRUE(guest.rename("/a", "/b"));
  EXPECT_EQ(*guest.working_directory(), "/b");
  ASSERT_TRUE(guest.rmdir("/b"));
  EXPECT_EQ(error_of(guest.working_directory()), ENOENT);
  EXPECT_EQ(error_of(guest.write_file("x", "")), ENOENT);
  EXPECT_EQ(error_of(guest.stat("x")), ENOENT);
  EXPECT_TRUE(guest.stat("."));
  EXPECT_TRUE(guest.chdir(".."));
  EXPECT_EQ(*guest.working_directory(), "/");
  EXPECT_EQ(filesystem.usage().inodes, 1u);
}

// --- open

TEST_F(Guests, OpenHeedsItsFlags) {
  ASSERT_TRUE(guest.mkdir("/d"));
  ASSERT_TRUE(guest.write_file("/f", "bytes"));
  ASSERT_TRUE(guest.symlink("f", "/l"));
  ASSERT_TRUE(guest.symlink("made", "/to-be-made"));
  ASSERT_TRUE(guest.mknod("/fifo", S_IFIFO | 0644));
  struct Row {
    const char* path;
    int flags, error;
  };
  const Row rows[] = {
      {"/f", O_RDONLY, 0},
      {"/f", O_RDWR | O_CREAT | O_EXCL, EEXIST},
      {"/l", O_RDWR | O_CREAT | O_EXCL, EEXIST},
      {"/l", O_RDONLY | O_NOFOLLOW, ELOOP},
      {"/l", O_PATH | O_NOFOLLOW, 0},
      {"/l", O_RDONLY | O_DIRECTORY | O_NOFOLLOW, ENOTDIR},
      {"/f", O_RDONLY | O_DIRECTORY, ENOTDIR},
      {"/d", O_RDONLY, 0},
      {"/d", O_WRONLY, EISDIR},
      {"/d", O_RDONLY | O_TRUNC, EISDIR},
      {"/d", O_RDONLY | O_CREAT, EISDIR},
      {"/d/", O_RDONLY | O_CREAT, EISDIR},
      {"/new/", O_RDWR | O_CREAT, EISDIR},
      {"/", O_RDONLY | O_CREAT, EISDIR},
      {"/none", O_RDONLY, ENOENT},
      {"/none/x", O_RDWR | O_CREAT, ENOENT},
      {"/f/x", O_RDWR | O_CREAT, ENOTDIR},
      {"/fifo", O_RDWR, ENXIO},
      {"/f", O_ACCMODE, 0},
      {"/d", O_TMPFILE | O_RDONLY, EINVAL},
      {"/f", O_TMPFILE | O_RDWR, ENOTDIR},
      {"/to-be-made", O_RDWR | O_CREAT, 0},
  };
  for (const Row& row : rows) {
    auto fd = guest.open(row.path, row.flags, 0644);
    EXPECT_EQ(error_of(fd), row.error) << row.path << " 0" << std::oct << row.flags;
    if (fd) {
      EXPECT_TRUE(guest.close(*fd)) << row.path;
    }
  }
  EXPECT_TRUE(guest.stat("/made")->is_regular());
  EXPECT_EQ(*guest.read_file("/f"), "bytes");
  EXPECT_TRUE(guest.open("/f", O_RDONLY | O_TRUNC));
  EXPECT_EQ(*guest.read_file("/f"), "");
  expect_laws();
}

TEST_F(Guests, AFileMayBeMadeThatItsMakerMayNotOpenAgain) {
  ASSERT_TRUE(guest.chmod("/", 0777));
  Guest other(filesystem, {.uid = 10, .gid = 10, .trusted = false});
  auto fd = other.open("/f", O_RDWR | O_CREAT, 0400);
  ASSERT_TRUE(fd);
  EXPECT_EQ(other.write(*fd, as_bytes("x")).value_or(0), 1u);
  EXPECT_EQ(error_of(other.open("/f", O_RDWR)), EACCES);
  EXPECT_EQ(error_of(other.open("/f", O_RDONLY | O_TRUNC)), EACCES);
  EXPECT_EQ(error_of(other.truncate("/f", 0)), EACCES);
  EXPECT_TRUE(other.ftruncate(*fd, 0));
  filesystem.set_read_only(true);
  EXPECT_EQ(error_of(other.open("/f", O_RDWR)), EROFS);
  EXPECT_EQ(error_of(other.open("/new", O_RDWR | O_CREAT, 0600)), EROFS);
  EXPECT_TRUE(other.open("/f", O_RDONLY | O_CREAT, 0600));
}

TEST_F(Guests, TheUmaskIsTakenFromNewModes) {
  EXPECT_EQ(guest.set_umask(027), 022u);
  ASSERT_TRUE(guest.mkdir("/d", 0777));
  ASSERT_TRUE(guest.write_file("/f", "", 0666));
  EXPECT_EQ(guest.stat("/d")->mode & 07777, 0750u);
  EXPECT_EQ(guest.stat("/f")->mode & 07777, 0640u);
}

TEST_F(Guests, FilesWithoutANameAreLinkedByTheirDescriptor) {
  int fd = *guest.open("/", O_TMPFILE | O_RDWR, 0600);
  ASSERT_TRUE(guest.write(fd, as_bytes("made aside")));
  EXPECT_TRUE(guest.list("/")->empty());
  ASSERT_TRUE(guest.link({fd, ""}, "/shown", AT_EMPTY_PATH));
  EXPECT_EQ(*guest.read_file("/shown"), "made aside");
  ASSERT_TRUE(guest.close(fd));
  EXPECT_EQ(guest.stat("/shown")->nlink, 1u);
  int excluded = *guest.open("/", O_TMPFILE | O_RDWR | O_EXCL, 0600);
  EXPECT_EQ(error_of(guest.link({excluded, ""}, "/not", AT_EMPTY_PATH)), ENOENT);
  ASSERT_TRUE(guest.close(excluded));
  EXPECT_EQ(filesystem.usage().inodes, 2u);
  expect_laws();
}

// --- descriptors

TEST_F(Guests, DescriptorsAreTheLowestFreeAndDupsShareThePosition) {
  ASSERT_TRUE(guest.write_file("/f", "0123456789"));
  int a = *guest.open("/f", O_RDONLY), b = *guest.open("/f", O_RDONLY), c = *guest.dup(a);
  EXPECT_EQ(b, a + 1);
  EXPECT_EQ(c, a + 2);
  ASSERT_TRUE(guest.close(b));
  EXPECT_EQ(*guest.open("/f", O_RDWR), b);
  std::byte four[4];
  EXPECT_EQ(*guest.read(a, four), 4u);
  EXPECT_EQ(*guest.seek(c, 0, SEEK_CUR), 4);
  EXPECT_EQ(*guest.seek(b, 0, SEEK_CUR), 0);
  EXPECT_EQ(*guest.dup_to(b, 40), 40);
  EXPECT_EQ(*guest.seek(40, -3, SEEK_END), 7);
  EXPECT_EQ(*guest.seek(b, 0, SEEK_CUR), 7);
  EXPECT_EQ(error_of(guest.seek(b, -8, SEEK_CUR)), EINVAL);
  EXPECT_EQ(error_of(guest.seek(b, INT64_MAX, SEEK_CUR)), EINVAL);
  EXPECT_EQ(error_of(guest.close(39)), EBADF);
  EXPECT_EQ(error_of(guest.dup(-1)), EBADF);
  EXPECT_EQ(error_of(guest.write(a, as_bytes("x"))), EBADF);
  Guest small(filesystem, {.descriptors_max = 1});
  EXPECT_TRUE(small.open("/f", O_RDONLY));
  EXPECT_EQ(error_of(small.open("/f", O_RDONLY)), EMFILE);
}

TEST_F(Guests, AppendingTakesTheEndOfTheFile) {
  int a = *guest.open("/f", O_RDWR | O_CREAT | O_APPEND), b = *guest.open("/f", O_RDWR);
  ASSERT_TRUE(guest.write(a, as_bytes("one")));
  ASSERT_TRUE(guest.write(b, as_bytes("ONE+")));
  ASSERT_TRUE(guest.write(a, as_bytes("two")));
  ASSERT_TRUE(guest.pwrite(a, as_bytes("!"), 0));
  EXPECT_EQ(read_all(a), "ONE+two!");
  EXPECT_EQ(*guest.seek(a, 0, SEEK_CUR), 7);
  ASSERT_TRUE(guest.set_status_flags(a, 0));
  ASSERT_TRUE(guest.pwrite(a, as_bytes("?"), 0));
  EXPECT_EQ(read_all(a), "?NE+two!");
  const auto& append = std::get<Write>(sink.operations[3]);
  EXPECT_EQ(append.offset, 4u);  // recorded where it went
  expect_laws();
}

TEST_F(Guests, AnUnlinkedFileIsThereUntilTheLastDescriptor) {
  ASSERT_TRUE(guest.write_file("/f", "held"));
  {
    Guest other(filesystem);
    int fd = *other.open("/f", O_RDWR);
    ASSERT_TRUE(guest.unlink("/f"));
    EXPECT_EQ(other.fstat(fd)->nlink, 0u);
    ASSERT_TRUE(other.pwrite(fd, as_bytes("more"), 4));
    EXPECT_EQ(filesystem.usage().inodes, 2u);
  }
  EXPECT_EQ(filesystem.usage().inodes, 1u);
  expect_laws();
}

TEST_F(Guests, CopyFileRangeMovesThePositionsItIsNotGiven) {
  ASSERT_TRUE(guest.write_file("/from", "0123456789"));
  int from = *guest.open("/from", O_RDONLY), to = *guest.open("/to", O_RDWR | O_CREAT);
  ASSERT_TRUE(guest.seek(from, 2, SEEK_SET));
  int64_t offset = 1;
  EXPECT_EQ(*guest.copy_file_range(from, nullptr, to, &offset, 5), 5u);
  EXPECT_EQ(*guest.seek(from, 0, SEEK_CUR), 7);
  EXPECT_EQ(offset, 6);
  EXPECT_EQ(*guest.seek(to, 0, SEEK_CUR), 0);
  EXPECT_EQ(read_all(to), std::string("\0", 1) + "23456");
  EXPECT_EQ(error_of(guest.copy_file_range(from, nullptr, from, nullptr, 1)), EBADF);
}

TEST_F(Guests, FallocateTakesLinuxsModes) {
  int fd = *guest.open("/f", O_RDWR | O_CREAT);
  EXPECT_TRUE(guest.fallocate(fd, 0, 0, 100));
  EXPECT_EQ(guest.fstat(fd)->size, 100u);
  EXPECT_TRUE(guest.fallocate(fd, FALLOC_FL_KEEP_SIZE, 0, 1000));
  EXPECT_EQ(guest.fstat(fd)->size, 100u);
  EXPECT_TRUE(guest.fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 10));
  EXPECT_EQ(error_of(guest.fallocate(fd, FALLOC_FL_PUNCH_HOLE, 0, 10)), EOPNOTSUPP);
  EXPECT_EQ(error_of(guest.fallocate(fd, 0x4000, 0, 10)), EOPNOTSUPP);
  EXPECT_EQ(error_of(guest.fallocate(fd, 0, 0, 0)), EINVAL);
  EXPECT_EQ(error_of(guest.fallocate(fd, 0, -1, 1)), EINVAL);
}

TEST_F(Guests, SyncingReachesTheHost) {
  int syncs = 0, answer = 0;
  Guest syncing(filesystem, {.on_sync = [&]() -> Outcome<void> {
                  ++syncs;
                  return answer == 0 ? Outcome<void>{} : errno_of(answer);
                }});
  int fd = *syncing.open("/f", O_RDWR | O_CREAT | O_DSYNC);
  ASSERT_TRUE(syncing.write(fd, as_bytes("x")));
  ASSERT_TRUE(syncing.fsync(fd));
  EXPECT_EQ(syncs, 2);
  answer = EIO;
  EXPECT_EQ(error_of(syncing.fsync(fd)), EIO);
  EXPECT_EQ(error_of(syncing.write(fd, as_bytes("x"))), EIO);
}

TEST_F(Guests, TimesAreSetAsUtimensatSays) {
  ASSERT_TRUE(guest.write_file("/f", ""));
  ASSERT_TRUE(guest.symlink("f", "/l"));
  const timespec set[2] = {{11, 12}, {13, 14}};
  ASSERT_TRUE(guest.utimens("/l", set, AT_SYMLINK_NOFOLLOW));
  EXPECT_EQ(guest.lstat("/l")->mtime, (Timestamp{13, 14}));
  EXPECT_NE(guest.stat("/l")->mtime, (Timestamp{13, 14}));
  const timespec half[2] = {{0, UTIME_OMIT}, {0, UTIME_NOW}};
  Attributes before = *guest.stat("/f");
  ASSERT_TRUE(guest.utimens("/f", half));
  EXPECT_EQ(guest.stat("/f")->atime, before.atime);
  EXPECT_GT(guest.stat("/f")->mtime, before.mtime);
  size_t recorded = sink.operations.size();
  const timespec none[2] = {{0, UTIME_OMIT}, {0, UTIME_OMIT}};
  ASSERT_TRUE(guest.utimens("/f", none));
  EXPECT_EQ(sink.operations.size(), recorded);
  const timespec invalid[2] = {{0, 1'000'000'000}, {0, 0}};
  EXPECT_EQ(error_of(guest.utimens("/f", invalid)), EINVAL);
}

TEST_F(Guests, ListsAndWholeFiles) {
  ASSERT_TRUE(guest.mkdir("/d"));
  for (const char* name : {"b", "a", "c"}) ASSERT_TRUE(guest.write_file(std::string("/d/") + name, name));
  ASSERT_TRUE(guest.write_file("/d/a", "replaced by something longer"));
  ASSERT_TRUE(guest.write_file("/d/a", "shorter"));
  EXPECT_EQ(*guest.read_file("/d/a"), "shorter");
  std::string names;
  auto entries = *guest.list("/d");
  for (const DirectoryEntry& entry : entries) names += entry.name;
  EXPECT_EQ(names, "abc");
  EXPECT_EQ(error_of(guest.list("/d/a")), ENOTDIR);
  EXPECT_EQ(error_of(guest.read_file("/d")), EISDIR);
  std::string large(70 << 20, 'x');  // more than one call takes
  ASSERT_TRUE(guest.write_file("/large", large));
  EXPECT_EQ(*guest.read_file("/large"), large);
}

}  // namespace
}  // namespace reprise::fs

// The limits of a volume: exact, for whoever makes an operation, and for nobody who replays one.
#include <gtest/gtest.h>
#include <linux/falloc.h>
#include <stdio.h>
#include <unistd.h>

#include <array>
#include <random>
#include <set>

#include "fs/guest.h"
#include "tests/fs/recording.h"

namespace reprise::fs {
namespace {

class Limits : public testing::Test {
 protected:
  void limit(const SetLimits& limits) { ASSERT_TRUE(world.filesystem.set_limits(limits)); }
  uint64_t free_blocks() { return world.filesystem.stat_fs().blocks_free; }
  int open(const std::string& path) { return guest.open(path, O_RDWR | O_CREAT).value_or(-1); }
  size_t put(int fd, int64_t offset, size_t length) {
    std::string bytes(length, 'x');
    return guest.pwrite(fd, as_bytes(bytes), offset).value_or(0);
  }
  int error_of_put(int fd, int64_t offset, size_t length) {
    std::string bytes(length, 'x');
    return error_of(guest.pwrite(fd, as_bytes(bytes), offset));
  }
  void TearDown() override { world.expect_laws(); }

  Recorded world;
  Guest guest{world.filesystem};
};

TEST_F(Limits, BytesAreCountedInBlocksThatAreHeld) {
  limit({.bytes = 10 * kBlockSize});
  StatFs shown = world.filesystem.stat_fs();
  EXPECT_EQ(shown.blocks_total, 10u);
  EXPECT_EQ(shown.blocks_free, 10u);
  int fd = open("/f");
  EXPECT_EQ(put(fd, 100 * kBlockSize, 3 * kBlockSize), 3 * kBlockSize);  // the hole before costs nothing
  EXPECT_EQ(free_blocks(), 7u);
  EXPECT_TRUE(guest.write_file("/small", "x"));
  EXPECT_EQ(free_blocks(), 6u);
  EXPECT_TRUE(guest.truncate("/small", 1 << 30));
  EXPECT_EQ(free_blocks(), 6u);
  EXPECT_TRUE(guest.unlink("/small"));
  EXPECT_EQ(free_blocks(), 7u);
}

TEST_F(Limits, AWriteIsShortWhereTheVolumeIsFullAndThenENOSPC) {
  limit({.bytes = 10 * kBlockSize});
  int fd = open("/f");
  EXPECT_EQ(put(fd, 100, 20 * kBlockSize), 10 * kBlockSize - 100);
  EXPECT_EQ(free_blocks(), 0u);
  EXPECT_EQ(error_of_put(fd, 10 * kBlockSize, 1), ENOSPC);
  EXPECT_EQ(error_of_put(open("/g"), 0, 1), ENOSPC);
  EXPECT_EQ(guest.stat("/g")->size, 0u);
  // What is there may be written over, and a little further than it goes into a block that is there.
  EXPECT_EQ(put(fd, 0, 10 * kBlockSize), 10 * kBlockSize);
  EXPECT_EQ(put(fd, 9 * kBlockSize, 2 * kBlockSize), kBlockSize);
  EXPECT_TRUE(guest.fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, kBlockSize));
  EXPECT_EQ(free_blocks(), 1u);
  EXPECT_EQ(put(open("/g"), 0, 1), 1u);
  EXPECT_EQ(free_blocks(), 0u);
}

TEST_F(Limits, WhereBlocksAreThereAlreadyAWriteGoesOn) {
  limit({.bytes = 4 * kBlockSize});
  int fd = open("/f");
  for (int64_t block : {0, 2}) EXPECT_EQ(put(fd, block * kBlockSize, kBlockSize), kBlockSize);
  EXPECT_EQ(put(fd, 0, 8 * kBlockSize), 4 * kBlockSize);  // two were there, two are new
  EXPECT_EQ(free_blocks(), 0u);
}

TEST_F(Limits, AppendsSayHowMuchWent) {
  limit({.bytes = 2 * kBlockSize});
  int fd = guest.open("/f", O_WRONLY | O_CREAT | O_APPEND).value_or(-1);
  std::string bytes(3 * kBlockSize, 'x');
  EXPECT_EQ(guest.write(fd, as_bytes(bytes)).value_or(0), 2 * kBlockSize);
  EXPECT_EQ(error_of(guest.write(fd, as_bytes(bytes))), ENOSPC);
  EXPECT_EQ(guest.stat("/f")->size, 2 * kBlockSize);
}

TEST_F(Limits, CopiesCostBlocksEvenWhenTheyShareThem) {
  limit({.bytes = 10 * kBlockSize});
  int from = open("/from"), to = open("/to");
  EXPECT_EQ(put(from, 0, 6 * kBlockSize), 6 * kBlockSize);
  int64_t from_offset = 0, to_offset = 0;
  EXPECT_EQ(guest.copy_file_range(from, &from_offset, to, &to_offset, 6 * kBlockSize).value_or(0),
            4 * kBlockSize);
  EXPECT_EQ(error_of(guest.copy_file_range(from, &from_offset, to, &to_offset, 6 * kBlockSize)), ENOSPC);
  EXPECT_EQ(free_blocks(), 0u);
  to_offset = 0;
  EXPECT_TRUE(guest.copy_file_range(from, nullptr, to, &to_offset, kBlockSize));
}

TEST_F(Limits, InodesAreCountedTheRootAmongThem) {
  limit({.inodes = 4});
  EXPECT_EQ(world.filesystem.stat_fs().inodes_free, 3u);
  EXPECT_TRUE(guest.mkdir("/d"));
  EXPECT_TRUE(guest.symlink("x", "/s"));
  int fd = open("/f");
  EXPECT_EQ(error_of(guest.open("/g", O_RDWR | O_CREAT)), ENOSPC);
  EXPECT_EQ(error_of(guest.mkdir("/e")), ENOSPC);
  EXPECT_EQ(error_of(guest.open("/", O_RDWR | O_TMPFILE)), ENOSPC);
  EXPECT_EQ(error_of(guest.mkdir("/d")), EEXIST);  // that comes first
  EXPECT_TRUE(guest.link("/f", "/g"));             // a name, not an inode
  EXPECT_TRUE(guest.unlink("/f"));
  EXPECT_TRUE(guest.unlink("/g"));
  EXPECT_EQ(error_of(guest.mkdir("/e")), ENOSPC);  // still open
  EXPECT_TRUE(guest.close(fd));
  EXPECT_TRUE(guest.mkdir("/e"));
}

TEST_F(Limits, AFileHasASizeItMayGrowTo) {
  limit({.file_size = 10000});
  int fd = open("/f");
  EXPECT_EQ(put(fd, 9000, 5000), 1000u);
  EXPECT_EQ(error_of_put(fd, 10000, 1), EFBIG);
  EXPECT_EQ(error_of(guest.truncate("/f", 10001)), EFBIG);
  EXPECT_TRUE(guest.truncate("/f", 10000));
  EXPECT_EQ(error_of(guest.fallocate(fd, 0, 9000, 2000)), EFBIG);
  EXPECT_TRUE(guest.fallocate(fd, FALLOC_FL_KEEP_SIZE, 9000, 2000));
  EXPECT_EQ(error_of(guest.fallocate(fd, FALLOC_FL_INSERT_RANGE, 0, kBlockSize)), EFBIG);
  int64_t from = 0, to = 5000;
  int other = open("/g");
  EXPECT_EQ(guest.copy_file_range(fd, &from, other, &to, 10000).value_or(0), 5000u);
}

TEST_F(Limits, DepthAndNamesPerDirectoryAreEDQUOT) {
  limit({.depth = 3, .names_per_directory = 2});
  EXPECT_TRUE(guest.mkdir("/a"));
  EXPECT_TRUE(guest.mkdir("/a/b"));
  EXPECT_TRUE(guest.write_file("/a/b/c", ""));
  EXPECT_TRUE(guest.mkdir("/a/b/d"));
  EXPECT_EQ(error_of(guest.write_file("/a/b/d/e", "")), EDQUOT);  // too deep
  EXPECT_EQ(error_of(guest.link("/a/b/c", "/a/b/d/e")), EDQUOT);  // the same
  EXPECT_EQ(error_of(guest.write_file("/a/b/e", "")), EDQUOT);    // too many
  EXPECT_TRUE(guest.rename("/a/b/c", "/a/b/e"));                  // as many as before
  EXPECT_TRUE(guest.mkdir("/x"));
  EXPECT_TRUE(guest.rename("/a/b", "/x/y"));
}

TEST_F(Limits, AMovedDirectoryTakesItsDepthAlong) {
  limit({.depth = 4});
  for (const char* path : {"/a", "/a/b", "/x", "/x/y", "/x/y/z"}) EXPECT_TRUE(guest.mkdir(path));
  EXPECT_TRUE(guest.write_file("/a/b/f", ""));
  EXPECT_EQ(error_of(guest.rename("/a", "/x/y/a")), EDQUOT);
  EXPECT_TRUE(guest.rename("/a", "/x/a"));
  EXPECT_EQ(error_of(guest.rename("/x", "/x2")), 0);
  EXPECT_EQ(error_of(guest.rename("/x2/a/b", "/x2/y/z", RENAME_EXCHANGE)), 0);
}

TEST_F(Limits, WhatIsPastThemStaysAndMayShrink) {
  int fd = open("/f");
  EXPECT_EQ(put(fd, 0, 20 * kBlockSize), 20 * kBlockSize);
  limit({.bytes = 5 * kBlockSize, .inodes = 1, .file_size = 100});
  EXPECT_EQ(free_blocks(), 0u);
  EXPECT_EQ(guest.read_file("/f")->size(), 20 * kBlockSize);
  EXPECT_EQ(put(fd, 0, 50), 50u);
  EXPECT_TRUE(guest.truncate("/f", 10 * kBlockSize));
  EXPECT_EQ(error_of_put(fd, 200, 1), EFBIG);
  limit({.bytes = 5 * kBlockSize});
  EXPECT_EQ(put(fd, 0, 10 * kBlockSize), 10 * kBlockSize);
  EXPECT_EQ(error_of_put(fd, 10 * kBlockSize, 1), ENOSPC);
  EXPECT_TRUE(guest.truncate("/f", 4 * kBlockSize));
  EXPECT_EQ(put(fd, 4 * kBlockSize, kBlockSize), kBlockSize);
}

TEST_F(Limits, ReplayExceedsThem) {
  limit({.bytes = kBlockSize, .inodes = 1, .file_size = 10, .depth = 1, .names_per_directory = 1});
  world.filesystem.replay([](Head& head) {
    EXPECT_TRUE(head.apply(Create{.parent = kRootInode, .name = "d", .inode = {77}, .mode = S_IFDIR | 0755}));
    EXPECT_TRUE(head.apply(Create{.parent = {77}, .name = "f", .inode = {78}, .mode = S_IFREG | 0644}));
    EXPECT_TRUE(head.apply(Create{.parent = {77}, .name = "g", .inode = {79}, .mode = S_IFREG | 0644}));
    std::string bytes(3 * kBlockSize, 'r');
    EXPECT_TRUE(head.apply(Write{.inode = {78}, .data = as_bytes(bytes)}));
  });
  EXPECT_EQ(guest.read_file("/d/f")->size(), 3 * kBlockSize);
  EXPECT_EQ(error_of(guest.mkdir("/e")), ENOSPC);
  EXPECT_EQ(world.broken_law(), "");
  world.filesystem.install(Head::create(kBeginning).view());  // the laws are of what was recorded here
  world.sink.operations.clear();
}

TEST_F(Limits, ComeByReplayAndWithTrees) {
  SetLimits limits{.bytes = 1 << 20, .inodes = 10};
  world.filesystem.replay([&](Head& head) { EXPECT_TRUE(head.apply(limits)); });
  EXPECT_EQ(world.filesystem.limits(), limits);
  EXPECT_EQ(Head(world.filesystem.view()).limits(), limits);
  View limited = world.filesystem.view();
  world.filesystem.install(Head::create(kBeginning).view());
  EXPECT_EQ(world.filesystem.limits(), SetLimits{});
  world.filesystem.install(limited);
  EXPECT_EQ(world.filesystem.limits(), limits);
  limit({});
  EXPECT_EQ(world.filesystem.limits(), SetLimits{});
  EXPECT_EQ(operation_name(world.sink.operations.back()), "set-limits");
  world.filesystem.set_read_only(true);
  EXPECT_EQ(error_of(world.filesystem.set_limits(limits)), EROFS);
}

// Near the limit a change is tried and undone: whatever the sequence, the count is exact and nothing is half
// done.
TEST_F(Limits, AreNeverExceededWhateverIsDone) {
  constexpr uint64_t kBlocks = 12;
  limit({.bytes = kBlocks * kBlockSize});
  uint64_t state = 7;
  auto below = [&](uint64_t n) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    return (state >> 33) % n;
  };
  int files[3] = {open("/a"), open("/b"), open("/c")};
  int refused = 0;
  for (int i = 0; i < 3000; ++i) {
    int fd = files[below(3)], other = files[below(3)];
    auto offset = static_cast<int64_t>(below(20 * kBlockSize));
    size_t length = below(3 * kBlockSize) + 1;
    int64_t from = static_cast<int64_t>(below(20)) * kBlockSize,
            to = static_cast<int64_t>(below(20)) * kBlockSize;
    int error = 0;
    switch (below(5)) {
      case 0:
      case 1:
        error = error_of_put(fd, offset, length);
        break;
      case 2:
        error = error_of(guest.copy_file_range(fd, &from, other, &to, length));
        break;
      case 3:
        error =
            error_of(guest.fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset, 2 * kBlockSize));
        break;
      default:
        error = error_of(guest.ftruncate(fd, offset));
    }
    EXPECT_TRUE(error == 0 || error == ENOSPC || error == EINVAL) << error;
    refused += error == ENOSPC;
    Usage used = world.filesystem.usage();
    ASSERT_LE(used.blocks, kBlocks);
    ASSERT_EQ(free_blocks(), kBlocks - used.blocks);
    if (i % 100 != 0) continue;
    ASSERT_EQ(world.broken_law(), "");
  }
  EXPECT_GT(refused, 100);
}

// --- what fallocate promises

TEST_F(Limits, WhatIsAllocatedCanBeWrittenWhenNothingElseCan) {
  limit({.bytes = 10 * kBlockSize});
  int fd = open("/f");
  EXPECT_TRUE(guest.fallocate(fd, 0, 0, 6 * kBlockSize));
  EXPECT_EQ(free_blocks(), 4u);
  EXPECT_EQ(world.filesystem.usage().blocks, 0u);
  int other = open("/g");
  EXPECT_EQ(put(other, 0, 10 * kBlockSize), 4 * kBlockSize);
  EXPECT_EQ(error_of_put(other, 4 * kBlockSize, 1), ENOSPC);
  EXPECT_EQ(put(fd, 2 * kBlockSize + 100, 2 * kBlockSize), 2 * kBlockSize);
  EXPECT_EQ(error_of_put(fd, 6 * kBlockSize, 1), ENOSPC);  // behind it
  EXPECT_EQ(put(fd, 4 * kBlockSize, 4 * kBlockSize), 2 * kBlockSize);
  EXPECT_EQ(put(fd, 0, kBlockSize), kBlockSize);
  EXPECT_EQ(free_blocks(), 0u);
  EXPECT_EQ(put(fd, kBlockSize, kBlockSize), kBlockSize);
  EXPECT_EQ(world.filesystem.usage().blocks, 10u);
}

TEST_F(Limits, MoreThanThereIsCannotBeAllocated) {
  limit({.bytes = 10 * kBlockSize});
  int fd = open("/f");
  EXPECT_EQ(error_of(guest.fallocate(fd, 0, 0, 10 * kBlockSize + 1)), ENOSPC);
  EXPECT_EQ(guest.fstat(fd)->size, 0u);
  EXPECT_EQ(put(fd, 0, 3 * kBlockSize), 3 * kBlockSize);
  EXPECT_TRUE(guest.fallocate(fd, 0, 0, 10 * kBlockSize));  // what is there counts
  EXPECT_TRUE(guest.fallocate(fd, 0, 0, 10 * kBlockSize));  // and what has been promised
  EXPECT_EQ(free_blocks(), 0u);
  EXPECT_EQ(error_of(guest.fallocate(fd, FALLOC_FL_KEEP_SIZE, 10 * kBlockSize, 1)), ENOSPC);
  EXPECT_EQ(error_of(guest.fallocate(open("/g"), 0, 0, 1)), ENOSPC);
}

TEST_F(Limits, APromiseEndsWithTheRangeAndWithTheFile) {
  limit({.bytes = 10 * kBlockSize});
  int fd = open("/f");
  auto allocate = [&] { return guest.fallocate(fd, FALLOC_FL_KEEP_SIZE, 0, 8 * kBlockSize); };
  EXPECT_TRUE(allocate());
  EXPECT_EQ(free_blocks(), 2u);
  const int punch = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
  EXPECT_TRUE(guest.fallocate(fd, punch, 100, 2 * kBlockSize));  // one of them whole
  EXPECT_EQ(free_blocks(), 3u);
  EXPECT_TRUE(guest.fallocate(fd, punch, 100, INT64_MAX - 100));
  EXPECT_EQ(free_blocks(), 9u);
  EXPECT_TRUE(allocate());
  EXPECT_TRUE(guest.ftruncate(fd, 3 * kBlockSize - 1));
  EXPECT_EQ(free_blocks(), 7u);
  EXPECT_TRUE(guest.unlink("/f"));
  EXPECT_EQ(free_blocks(), 7u);  // it is open
  EXPECT_TRUE(guest.close(fd));
  EXPECT_EQ(free_blocks(), 10u);
}

TEST_F(Limits, ZeroedRangesArePromised) {
  limit({.bytes = 10 * kBlockSize});
  int fd = open("/f");
  EXPECT_EQ(put(fd, 0, 4 * kBlockSize), 4 * kBlockSize);
  EXPECT_TRUE(guest.fallocate(fd, FALLOC_FL_ZERO_RANGE, kBlockSize, 5 * kBlockSize));
  EXPECT_EQ(free_blocks(), 4u);
  EXPECT_EQ(error_of(guest.fallocate(fd, FALLOC_FL_ZERO_RANGE, kBlockSize, 10 * kBlockSize)), ENOSPC);
}

TEST_F(Limits, AVolumeWithoutALimitHasNothingToPromise) {
  int fd = open("/f");
  const uint64_t free = free_blocks();
  EXPECT_TRUE(guest.fallocate(fd, 0, 0, 1 << 30));
  EXPECT_EQ(free_blocks(), free);
}

// Against a model that knows each block that was promised and has not been written.
TEST_F(Limits, PromisesAreKeptWhateverIsDone) {
  constexpr uint64_t kBlocks = 24, kFileBlocks = 16;
  limit({.bytes = kBlocks * kBlockSize});
  std::mt19937_64 random(11);
  auto below = [&](uint64_t n) { return random() % n; };
  const std::array<int, 3> files = {open("/a"), open("/b"), open("/c")};
  std::array<std::set<uint64_t>, 3> promised;
  auto is_held = [&](int fd, uint64_t block) {
    auto at = static_cast<int64_t>(block * kBlockSize);
    auto data = guest.seek(fd, at, SEEK_DATA);
    return data && *data == at;
  };
  size_t kept = 0, refused = 0;
  for (int i = 0; i < 5000; ++i) {
    const size_t which = below(3);
    const int fd = files[which];
    std::set<uint64_t>& mine = promised[which];
    const uint64_t first = below(kFileBlocks), blocks = 1 + below(4);
    const auto offset = static_cast<int64_t>(first * kBlockSize),
               length = static_cast<int64_t>(blocks * kBlockSize);
    switch (below(6)) {
      case 0:
      case 1: {
        auto done = guest.fallocate(fd, FALLOC_FL_KEEP_SIZE, offset, length);
        EXPECT_TRUE(done || done.error() == Errno{ENOSPC});
        refused += !done;
        for (uint64_t block = first; done && block < first + blocks; block++) mine.insert(block);
        break;
      }
      case 2: {
        size_t leading = 0;
        while (leading < blocks && (mine.contains(first + leading) || is_held(fd, first + leading)))
          leading++;
        const size_t went = put(fd, offset, static_cast<size_t>(length));
        EXPECT_GE(went, leading * kBlockSize);
        kept += leading;
        break;
      }
      case 3: {
        EXPECT_TRUE(guest.fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset, length));
        for (uint64_t block = first; block < first + blocks; block++) mine.erase(block);
        break;
      }
      case 4: {
        EXPECT_TRUE(guest.ftruncate(fd, offset + 1));
        mine.erase(mine.upper_bound(first), mine.end());
        break;
      }
      default: {
        int64_t from = static_cast<int64_t>(below(kFileBlocks) * kBlockSize), to = offset;
        (void)guest.copy_file_range(files[below(3)], &from, fd, &to, static_cast<size_t>(length));
      }
    }
    uint64_t reserved = 0;
    for (size_t file = 0; file < 3; file++) {
      std::erase_if(promised[file], [&](uint64_t block) { return is_held(files[file], block); });
      reserved += promised[file].size();
    }
    const uint64_t used = world.filesystem.usage().blocks;
    ASSERT_LE(used + reserved, kBlocks) << i;
    ASSERT_EQ(free_blocks(), kBlocks - used - reserved) << i;
  }
  EXPECT_GT(kept, 500u);
  EXPECT_GT(refused, 100u);
}

}  // namespace
}  // namespace reprise::fs

// What is freed when: a caller that holds a lock puts it off until the lock is back.
#include <gtest/gtest.h>

#include <thread>

#include "fs/block_pool.h"
#include "fs/node.h"
#include "tests/fs/recording.h"

namespace reprise::fs {
namespace {

constexpr uint64_t kBlocks = 1000;

class LaterFreesTest : public testing::Test {
 protected:
  LaterFreesTest() : before(BlockPool::in_use()) {
    file = world.filesystem.make_node({}, kRootInode, "f", S_IFREG | 0644, 0)->inode;
    std::string bytes(kBlocks * kBlockSize, 'x');
    EXPECT_TRUE(world.filesystem.write({}, file, 0, as_bytes(bytes)));
    EXPECT_EQ(in_use(), kBlocks);
  }
  size_t in_use() const { return BlockPool::in_use() - before; }
  void cut() { EXPECT_TRUE(world.filesystem.set_attributes({}, file, {.size = 0})); }

  const size_t before;
  Recorded world;
  InodeId file;
};

TEST_F(LaterFreesTest, BlocksOfALargeFileStayUntilItGoes) {
  {
    LaterFrees later;
    world.filesystem.replay([&](Head& head) {
      ASSERT_TRUE(head.apply(Truncate{.inode = file, .size = 0, .time = {}}));
      EXPECT_EQ(in_use(), kBlocks);  // the lock is still held
    });
    EXPECT_EQ(in_use(), 0u);  // not by the outer one: the innermost counts
  }
}

TEST_F(LaterFreesTest, ACallHasFreedWhenItReturns) {
  cut();
  EXPECT_EQ(in_use(), 0u);
}

TEST_F(LaterFreesTest, WhatAViewStillHasStays) {
  {
    View view = world.filesystem.view();
    cut();
    EXPECT_EQ(in_use(), kBlocks);
  }
  EXPECT_EQ(in_use(), 0u);
}

TEST_F(LaterFreesTest, AnotherThreadFreesAtOnce) {
  View view = world.filesystem.view();
  cut();
  LaterFrees later;
  std::thread([last = std::move(view)]() mutable { View gone = std::move(last); }).join();
  EXPECT_EQ(in_use(), 0u);
}

}  // namespace
}  // namespace reprise::fs

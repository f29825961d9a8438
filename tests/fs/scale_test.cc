// Deep, large and many: nothing here recurses as deep as its data, and what is dropped is given back.
#include <gtest/gtest.h>
#include <malloc.h>
#include <sys/resource.h>

#include <thread>

#include "fs/block_pool.h"
#include "fs/guest.h"
#include "fs/node_pool.h"
#include "tests/fs/recording.h"

namespace reprise::fs {
namespace {

// Runs with a stack that any recursion as deep as these trees would overflow.
template <class Run>
void with_small_stack(const Run& run) {
  pthread_attr_t attributes;
  pthread_attr_init(&attributes);
  ASSERT_EQ(pthread_attr_setstacksize(&attributes, 256 << 10), 0);
  pthread_t thread;
  auto entry = [](void* what) -> void* { return (*static_cast<const Run*>(what))(), nullptr; };
  ASSERT_EQ(pthread_create(&thread, &attributes, entry, const_cast<Run*>(&run)), 0);
  pthread_join(thread, nullptr);
  pthread_attr_destroy(&attributes);
}

size_t bytes_in_use() {
  struct mallinfo2 info = mallinfo2();
  return info.uordblks + info.hblkhd + pooled_node_bytes() + BlockPool::in_use() * kBlockSize;
}

TEST(Scale, ATreeOf100000LevelsIsMadeCheckedAndDropped) {
  constexpr uint32_t kLevels = 100'000;
  with_small_stack([&] {
    TickingClock clock;
    auto ids = local_inode_ids();
    auto filesystem = std::make_unique<Filesystem>(Head::create(kBeginning), clock, *ids);
    InodeId at = kRootInode;
    for (uint32_t i = 0; i < kLevels; ++i) {
      auto made = filesystem->make_directory(kTrusted, at, "d", 0755);
      ASSERT_TRUE(made);
      at = made->inode;
    }
    ASSERT_TRUE(filesystem->make_node(kTrusted, at, "f", S_IFREG | 0644, 0));
    // Into itself, from the bottom: the way up is walked.
    EXPECT_EQ(error_of(filesystem->rename(kTrusted, kRootInode, "d", at, "e")), EINVAL);
    View view = filesystem->view();
    EXPECT_EQ(view.usage().inodes, kLevels + 2);
    EXPECT_EQ(view.check_invariants(), "");
    EXPECT_EQ(filesystem->digest(), view.recompute_digest());
    ASSERT_TRUE(content_digest(view));
    // The limit of depth looks at the whole subtree that would move.
    ASSERT_TRUE(filesystem->make_directory(kTrusted, kRootInode, "x", 0755));
    ASSERT_TRUE(filesystem->set_limits({.depth = kLevels + 1}));
    auto x = filesystem->lookup(kTrusted, kRootInode, "x");
    EXPECT_EQ(error_of(filesystem->rename(kTrusted, kRootInode, "d", x->inode, "d")), EDQUOT);
    filesystem.reset();
    view = View();
  });
}

TEST(Scale, RemovedDirectoriesThatHoldEachOtherGoOneAfterTheOther) {
  constexpr int kLevels = 100'000;
  with_small_stack([&] {
    Recorded world;
    std::vector<InodeId> chain{kRootInode};
    for (int i = 0; i < kLevels; ++i) {
      auto made = world.filesystem.make_directory(kTrusted, chain.back(), "d", 0755);
      ASSERT_TRUE(made);
      chain.push_back(made->inode);
    }
    // Only the lowest is in use; ".." keeps all above it while it is.
    world.filesystem.pin(chain.back());
    for (size_t i = chain.size() - 1; i > 0; --i)
      ASSERT_TRUE(world.filesystem.remove_directory(kTrusted, chain[i - 1], "d"));
    EXPECT_EQ(world.filesystem.usage().inodes, kLevels + 1u);
    auto above = world.filesystem.lookup(kTrusted, chain.back(), "..");
    ASSERT_TRUE(above);
    EXPECT_EQ(above->inode, chain[chain.size() - 2]);
    world.filesystem.unpin(chain.back());
    EXPECT_EQ(world.filesystem.usage().inodes, 1u);
    EXPECT_EQ(world.broken_law(), "");
  });
}

TEST(Scale, AFileOfAMillionBlocksIsDroppedAtOnce) {
  constexpr uint64_t kBlocks = 1 << 20;
  with_small_stack([&] {
    Recorded world;
    Guest guest(world.filesystem);
    int fd = guest.open("/f", O_RDWR | O_CREAT).value_or(-1);
    std::string block(kBlockSize, 'b');
    ASSERT_TRUE(guest.write(fd, as_bytes(block)));
    // Doubled by sharing: one block in memory, a million in the file.
    for (uint64_t have = 1; have < kBlocks;) {
      int64_t from = 0, to = static_cast<int64_t>(have * kBlockSize);
      auto copied = guest.copy_file_range(fd, &from, fd, &to, std::min(have, kBlocks - have) * kBlockSize);
      ASSERT_TRUE(copied);
      have += *copied / kBlockSize;
    }
    EXPECT_EQ(guest.fstat(fd)->blocks, kBlocks);
    View view = world.filesystem.view();
    EXPECT_EQ(view.digest(), world.filesystem.digest());
    EXPECT_EQ(view.check_invariants(), "");
    ASSERT_TRUE(guest.pwrite(fd, as_bytes("x"), 0));
    view = View();
    ASSERT_TRUE(guest.ftruncate(fd, 0));
    EXPECT_EQ(world.filesystem.usage().blocks, 0u);
  });
}

TEST(Scale, AMillionViewsAndForksLeaveMemoryWhereItWas) {
  constexpr int kRounds = 1'000'000;  // of a view and a fork each
  TickingClock clock;
  auto ids = local_inode_ids();
  Filesystem filesystem(Head::create(kBeginning), clock, *ids);
  Guest guest(filesystem);
  for (int i = 0; i < 200; ++i) {
    std::string name = "/f" + std::to_string(i);
    ASSERT_TRUE(guest.write_file(name, std::string(static_cast<size_t>(i) * 40, 'x')));
  }
  int fd = guest.open("/f150", O_RDWR).value_or(-1);
  auto round = [&](int i) {
    View view = filesystem.view();
    Head fork(view);
    // Now and then each goes its own way.
    if (i % 16 == 0) {
      ASSERT_TRUE(fork.apply(Write{.inode = guest.fstat(fd)->inode, .offset = 5, .data = as_bytes("fork")}));
      ASSERT_TRUE(guest.pwrite(fd, as_bytes("head"), i % 4000));
      View of_fork = fork.view();
    }
  };
  for (int i = 0; i < 1000; ++i) round(i);
  size_t before = bytes_in_use();
  Usage used = filesystem.usage();
  for (int i = 0; i < kRounds; ++i) round(i);
  size_t after = bytes_in_use();
  EXPECT_LT(after, before + (64 << 10));
  EXPECT_EQ(filesystem.usage().blocks, used.blocks);
  EXPECT_EQ(filesystem.view().check_invariants(), "");
}

}  // namespace
}  // namespace reprise::fs

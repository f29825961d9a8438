#include "fs/tree_lock.h"

#include <gtest/gtest.h>

#include <mutex>
#include <shared_mutex>
#include <thread>
#include <vector>

namespace reprise::fs {
namespace {

// Two numbers that are equal whenever nobody writes. Plain, so that the thread sanitizer watches too.
struct Twins {
  uint64_t a = 0, b = 0;
};

TEST(TreeLock, AWriterIsAloneAndNoChangeIsLost) {
  TreeLock lock;
  Twins twins;
  std::atomic<uint64_t> torn{0};
  constexpr uint64_t kWrites = 20'000;
  std::vector<std::jthread> threads;
  for (int writer = 0; writer < 2; ++writer) {
    threads.emplace_back([&] {
      for (uint64_t i = 0; i < kWrites; ++i) {
        std::unique_lock hold(lock);
        twins.a++;
        if (i % 64 == 0) std::this_thread::yield();
        twins.b++;
      }
    });
  }
  for (int reader = 0; reader < 3; ++reader) {
    threads.emplace_back([&] {
      for (uint64_t i = 0; i < kWrites; ++i) {
        std::shared_lock hold(lock);
        uint64_t a = twins.a;
        if (i % 64 == 0) std::this_thread::yield();
        if (a != twins.b) torn++;
      }
    });
  }
  threads.clear();
  EXPECT_EQ(torn, 0u);
  EXPECT_EQ(twins.a, 2 * kWrites);
  EXPECT_EQ(twins.b, 2 * kWrites);
}

TEST(TreeLock, ReadersAreThereAtOnce) {
  TreeLock lock;
  std::shared_lock mine(lock);
  bool came_in = false;
  std::jthread([&] {
    std::shared_lock theirs(lock);
    came_in = true;
  }).join();
  EXPECT_TRUE(came_in);
}

TEST(TreeLock, AWriterWaitsForTheReadersThereAreAndHoldsUpNewOnes) {
  TreeLock lock;
  std::atomic<int> order{0};
  int writer_was = 0, late_reader_was = 0;
  std::shared_lock early(lock);
  std::jthread writer([&] {
    std::unique_lock hold(lock);
    writer_was = ++order;
  });
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  std::jthread reader([&] {
    std::shared_lock hold(lock);
    late_reader_was = ++order;
  });
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  EXPECT_EQ(order, 0);
  early.unlock();
  writer.join();
  reader.join();
  EXPECT_EQ(writer_was, 1);
  EXPECT_EQ(late_reader_was, 2);
}

}  // namespace
}  // namespace reprise::fs

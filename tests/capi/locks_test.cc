// Locks through the C interface, and waiting for them.
#include <fcntl.h>
#include <sys/file.h>

#include <atomic>
#include <cerrno>
#include <chrono>
#include <thread>

#include "tests/capi/host.h"

namespace {

using namespace std::chrono_literals;
using reprise::Guest;
using reprise::GuestOptions;
using reprise::Instance;

struct Locks : reprise::host::Capi {
  Locks() : one(instance), two(instance, with_pid(42)) {
    one.write_file("/f", "0123456789");
    one_fd = one.open("/f", O_RDWR);
    two_fd = two.open("/f", O_RDWR);
  }
  static GuestOptions with_pid(int32_t pid) {
    GuestOptions options;
    options.pid = pid;
    return options;
  }
  template <class Call>
  static std::chrono::nanoseconds time_of(const Call& call) {
    auto begin = std::chrono::steady_clock::now();
    call();
    return std::chrono::steady_clock::now() - begin;
  }

  Instance instance;
  Guest one, two;
  int one_fd = -1, two_fd = -1;
};

TEST_F(Locks, WhoWaitsGetsItWhenItIsFree) {
  one.flock(one_fd, LOCK_EX);
  std::atomic<bool> freed{false};
  std::thread waiter([&] {
    two.flock(two_fd, LOCK_SH);
    EXPECT_TRUE(freed);
  });
  std::this_thread::sleep_for(50ms);
  freed = true;
  one.flock(one_fd, LOCK_UN);
  waiter.join();
  EXPECT_EQ(reprise_flock(one.handle(), one_fd, LOCK_EX, 0), -EWOULDBLOCK);
}

TEST_F(Locks, WaitingHasALimit) {
  one.flock(one_fd, LOCK_EX);
  one.lock(one_fd, LOCK_EX, 0, 4);
  EXPECT_GE(time_of([&] { EXPECT_EQ(reprise_flock(two.handle(), two_fd, LOCK_SH, 60), -ETIMEDOUT); }), 60ms);
  EXPECT_STREQ(reprise_last_error(), "reprise_flock descriptor 0: the lock was not free within 60 ms");
  EXPECT_GE(time_of([&] { EXPECT_EQ(reprise_lock(two.handle(), two_fd, LOCK_SH, 0, 1, 60), -ETIMEDOUT); }),
            60ms);
  EXPECT_EQ(reprise_lock(two.handle(), two_fd, LOCK_SH, 0, 1, 0), -EWOULDBLOCK);
  EXPECT_LT(time_of([&] { EXPECT_EQ(reprise_lock(two.handle(), two_fd, LOCK_EX, 4, 0, 60'000), 0); }), 20s);
}

TEST_F(Locks, AnotherThreadMayEndAWait) {
  one.flock(one_fd, LOCK_EX);
  std::atomic<bool> over{false};
  std::thread waiter([&] {
    EXPECT_EQ(reprise_flock(two.handle(), two_fd, LOCK_EX, REPRISE_FOREVER), -EINTR);
    over = true;
  });
  while (!over) {  // it may not be waiting yet
    EXPECT_EQ(reprise_guest_interrupt(two.handle()), 0);
    std::this_thread::sleep_for(1ms);
  }
  waiter.join();
  EXPECT_EQ(reprise_guest_interrupt(two.handle()), 0) << "nobody waits";
  one.flock(one_fd, LOCK_UN);
  EXPECT_EQ(reprise_flock(two.handle(), two_fd, LOCK_EX, REPRISE_FOREVER), 0)
      << "an interrupt is of one wait";
}

TEST_F(Locks, OfBytesAreTheGuestsAndSaidWhoseTheyAre) {
  two.lock(two_fd, LOCK_EX, 2, 3);
  int32_t pid = 0;
  EXPECT_EQ(reprise_test_lock(one.handle(), one_fd, LOCK_SH, 0, 2, &pid), 0);
  EXPECT_EQ(reprise_test_lock(one.handle(), one_fd, LOCK_SH, 4, 0, &pid), 1);
  EXPECT_EQ(pid, 42);
  EXPECT_EQ(reprise_test_lock(two.handle(), two_fd, LOCK_EX, 0, 0, nullptr), 0);
  int twin = two.open("/f", O_RDONLY);
  two.close(twin);
  EXPECT_EQ(reprise_test_lock(one.handle(), one_fd, LOCK_EX, 0, 0, nullptr), 0);
}

TEST_F(Locks, TwoWhoWaitForEachOtherAreFoundOut) {
  one.lock(one_fd, LOCK_EX, 0, 1);
  two.lock(two_fd, LOCK_EX, 1, 1);
  std::atomic<int> deadlocks{0};
  auto take = [&](Guest& guest, int fd, int64_t offset) {
    if (reprise_lock(guest.handle(), fd, LOCK_EX, offset, 1, 20'000) != -EDEADLK) return;
    ++deadlocks;
    guest.lock(fd, LOCK_UN, 0, 0);
  };
  std::thread other([&] { take(one, one_fd, 1); });
  take(two, two_fd, 0);
  other.join();
  EXPECT_EQ(deadlocks, 1);
}

TEST_F(Locks, WhatMakesNoSenseIsRefused) {
  for (int operation : {0, -1, 99, LOCK_SH | LOCK_EX}) {
    EXPECT_EQ(reprise_flock(one.handle(), one_fd, operation, 0), -EINVAL);
    EXPECT_EQ(reprise_lock(one.handle(), one_fd, operation, 0, 0, 0), -EINVAL);
    EXPECT_EQ(reprise_test_lock(one.handle(), one_fd, operation, 0, 0, nullptr), -EINVAL);
  }
  EXPECT_EQ(reprise_test_lock(one.handle(), one_fd, LOCK_UN, 0, 0, nullptr), -EINVAL);
  EXPECT_EQ(reprise_lock(one.handle(), one_fd, LOCK_EX, -1, 1, 0), -EINVAL);
  EXPECT_EQ(reprise_lock(one.handle(), one_fd, LOCK_EX, INT64_MAX, INT64_MAX, 0), -EOVERFLOW);
  for (int fd : {-1, 77}) {
    EXPECT_EQ(reprise_flock(one.handle(), fd, LOCK_EX, 1), -EBADF);
    EXPECT_EQ(reprise_lock(one.handle(), fd, LOCK_EX, 0, 0, 1), -EBADF);
    EXPECT_EQ(reprise_test_lock(one.handle(), fd, LOCK_EX, 0, 0, nullptr), -EBADF);
  }
}

}  // namespace

// Who records waits for room, and who makes it hears of that. No test here depends on how long anything
// takes.
#include "journal/allowance.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <thread>
#include <vector>

#include "journal/recorder.h"
#include "tests/journal/batches.h"
#include "tests/journal/fake_world.h"

namespace reprise::journal {
namespace {

using test::FakeClock;
using test::FakeRandom;

constexpr std::chrono::seconds kLong{20};
constexpr std::chrono::milliseconds kNow{0};

// A thread that takes.
class Taker {
 public:
  Taker(Allowance& allowance, uint64_t bytes)
      : thread_([&allowance, bytes, this] {
          allowance.take(bytes);
          done_ = true;
        }) {}
  ~Taker() {
    if (thread_.joinable()) thread_.join();
  }
  bool done() const { return done_; }
  void join() { thread_.join(); }

 private:
  std::atomic<bool> done_{false};
  std::thread thread_;
};

TEST(Allowance, WithoutAKeeperNobodyWaits) {
  Allowance allowance;
  allowance.take(Allowance::kUnbounded / 2);
  allowance.allow_until(0);
  allowance.take(Allowance::kUnbounded / 2);
  EXPECT_FALSE(allowance.wait_until_short(kNow));
}

TEST(Allowance, WhoWouldGoBeyondItWaitsUntilThereIsRoom) {
  Allowance allowance;
  allowance.begin();
  Taker taker(allowance, 100);
  ASSERT_TRUE(allowance.wait_until_short(kLong));
  EXPECT_FALSE(taker.done()) << "nothing was allowed yet";
  EXPECT_EQ(allowance.taken(), 0u) << "who waits has taken nothing";
  allowance.allow_until(99);
  ASSERT_TRUE(allowance.wait_until_short(kLong)) << "it is told again that this is too little";
  EXPECT_FALSE(taker.done());
  allowance.allow_until(allowance.taken() + 100);
  taker.join();
  EXPECT_EQ(allowance.taken(), 100u);
}

TEST(Allowance, TheKeeperIsToldAtHalf) {
  Allowance allowance;
  allowance.begin();
  allowance.allow_until(100);
  allowance.take(50);
  EXPECT_FALSE(allowance.wait_until_short(kNow));
  allowance.take(1);
  EXPECT_TRUE(allowance.wait_until_short(kNow));
  allowance.take(49);
  allowance.allow_until(300);
  EXPECT_FALSE(allowance.wait_until_short(kNow)) << "half of what was allowed last";
  allowance.take(101);
  EXPECT_TRUE(allowance.wait_until_short(kNow));
}

// What is written meanwhile counts: a bound is of all that was ever taken.
TEST(Allowance, WhatIsTakenWhileRoomIsMeasuredIsNotAllowedTwice) {
  Allowance allowance;
  allowance.begin();
  allowance.allow_until(100);
  const uint64_t measured = allowance.taken();
  allowance.take(80);
  allowance.allow_until(measured + 100);
  Taker taker(allowance, 30);
  ASSERT_TRUE(allowance.wait_until_short(kLong));
  EXPECT_FALSE(taker.done());
  allowance.allow_until(110);
}

TEST(Allowance, ACallForWhichThereIsNeverRoomGoesBeyondIt) {
  Allowance allowance;
  allowance.begin();
  Taker taker(allowance, 1000);
  ASSERT_TRUE(allowance.wait_until_short(kLong));
  allowance.allow_until(100);
  ASSERT_TRUE(allowance.wait_until_short(kLong)) << "the keeper is to try again first";
  EXPECT_FALSE(taker.done());
  allowance.allow_until(100);
  taker.join();
  EXPECT_EQ(allowance.taken(), 1000u);
}

TEST(Allowance, WithoutRoomNoCallGoesBeyondIt) {
  Allowance allowance;
  allowance.begin();
  Taker taker(allowance, 1000);
  for (int tries = 0; tries < 5; ++tries) {
    ASSERT_TRUE(allowance.wait_until_short(kLong));
    EXPECT_FALSE(taker.done());
    allowance.allow_until(0);
  }
  allowance.allow_until(Allowance::kUnbounded);
}

TEST(Allowance, WhenTheKeeperGoesNobodyWaitsAnyMore) {
  Allowance allowance;
  allowance.begin();
  Taker one(allowance, 10), two(allowance, 20);
  ASSERT_TRUE(allowance.wait_until_short(kLong));
  allowance.end();
  one.join();
  two.join();
  allowance.take(1'000'000);
}

TEST(Allowance, ManyTakeNoMoreThanIsAllowed) {
  constexpr uint64_t kThreads = 4, kEach = 20'000, kStep = 3000;
  Allowance allowance;
  allowance.begin();
  std::atomic<uint64_t> done{0}, beyond{0};
  std::atomic<uint64_t> until{0};
  std::vector<std::jthread> threads;
  for (uint64_t n = 0; n < kThreads; ++n) {
    threads.emplace_back([&] {
      for (uint64_t i = 0; i < kEach; ++i) {
        allowance.take(1);
        if (done.fetch_add(1) + 1 > until) ++beyond;
      }
    });
  }
  while (done < kThreads * kEach) {
    allowance.wait_until_short(std::chrono::milliseconds(1));
    until = done + kStep;
    allowance.allow_until(until);
  }
  EXPECT_EQ(beyond, 0u);
  threads.clear();
  EXPECT_EQ(allowance.taken(), kThreads * kEach);
}

// 5 bytes would fit; but 50 have waited before.
TEST(Allowance, NoCallIsPassedByOneThatCameLater) {
  Allowance allowance;
  allowance.begin();
  allowance.allow_until(100);
  allowance.take(90);
  Taker large(allowance, 50);
  while (allowance.waiting() < 1) std::this_thread::yield();
  allowance.allow_until(110);
  Taker small(allowance, 5);
  while (allowance.waiting() < 2 && !small.done()) std::this_thread::yield();
  EXPECT_FALSE(small.done());
  EXPECT_FALSE(large.done());
  allowance.allow_until(145);
  large.join();
  small.join();
  EXPECT_EQ(allowance.taken(), 145u);
}

TEST(Allowance, WaitersOfAnySizeAllComeThrough) {
  Allowance allowance;
  allowance.begin();
  uint64_t wanted = 0;
  {
    std::vector<std::unique_ptr<Taker>> takers;
    for (uint64_t bytes : {3000, 1, 70, 5000, 2, 900, 1, 1, 4000, 10}) {
      takers.push_back(std::make_unique<Taker>(allowance, bytes));
      wanted += bytes;
    }
    while (std::ranges::any_of(takers, [](const auto& taker) { return !taker->done(); })) {
      allowance.wait_until_short(std::chrono::milliseconds(1));
      allowance.allow_until(allowance.taken() + 100);
    }
  }
  EXPECT_EQ(allowance.taken(), wanted);
}

TEST(Allowance, AllThatFitComeThroughAtOnce) {
  Allowance allowance;
  allowance.begin();
  std::vector<std::unique_ptr<Taker>> takers;
  for (size_t i = 0; i < 16; ++i) takers.push_back(std::make_unique<Taker>(allowance, 10));
  while (allowance.waiting() < takers.size()) std::this_thread::yield();
  allowance.allow_until(160);
  takers.clear();  // joins
  EXPECT_EQ(allowance.taken(), 160u);
}

// It would wait for ever if hearing from the keeper began its time anew.
TEST(Allowance, NobodyWaitsLongerThanThat) {
  Allowance allowance(std::chrono::milliseconds(20));
  allowance.begin();
  Taker taker(allowance, 100);
  while (!taker.done()) allowance.allow_until(0);
  EXPECT_EQ(allowance.taken(), 100u);
  EXPECT_EQ(allowance.waiting(), 0u);
}

TEST(Allowance, ACallThatIsRecordedTakesFromIt) {
  FakeRandom random;
  FakeClock clock;
  Allowance allowance;
  auto journal = Journal::in_memory(test::kIdentity, {});
  auto recorder = Recorder::create(*journal, clock, random, {}, 0, {}, nullptr, &allowance);
  allowance.begin();
  allowance.allow_until(10'000);
  ASSERT_TRUE(recorder->reserve(4000));
  EXPECT_GE(allowance.taken(), 4000u);
  std::atomic<bool> done{false};
  std::jthread guest([&] {
    EXPECT_TRUE(recorder->reserve(9000));
    done = true;
  });
  ASSERT_TRUE(allowance.wait_until_short(kLong));
  EXPECT_FALSE(done);
  allowance.allow_until(100'000);
}

}  // namespace
}  // namespace reprise::journal

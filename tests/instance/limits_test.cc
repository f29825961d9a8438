// Limits of size are kept while guests write as fast as they may. What the files take is added up all the
// time by another thread, and never may it be more; how fast the machine is decides nothing.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <random>
#include <thread>

#include "instance/keeper.h"
#include "tests/instance/instance_fixture.h"

namespace reprise::instance {
namespace {

std::vector<journal::Vector> no_peers() {
  return {};
}

std::string much_of_no_pattern() {
  std::mt19937_64 random(1);
  std::string bytes(8 << 20, '\0');
  for (char& c : bytes) c = static_cast<char>(random());
  return bytes;
}

// Making them would cost more than writing them: a part of these, each time another.
std::string_view some_bytes(size_t count) {
  static const std::string bytes = much_of_no_pattern();
  static std::atomic<size_t> from{0};
  return std::string_view(bytes).substr(from.fetch_add(4099) % (bytes.size() - count), count);
}

// The most that the store's files take while this is there.
class Watch {
 public:
  Watch(store::Store& store, uint64_t store::StoreUsage::* part)
      : thread_([&store, part, this](auto stop) {
          while (!stop.stop_requested()) look(store, part);
          look(store, part);
        }) {}
  uint64_t largest() {
    thread_ = {};
    return largest_;
  }

 private:
  // Files are looked at one after the other: one may have gone before another grew. Twice, what each part had
  // at least.
  void look(store::Store& store, uint64_t store::StoreUsage::* part) {
    store::StoreUsage one = store.usage().value(), two = store.usage().value();
    store::StoreUsage least{.journals = std::min(one.journals, two.journals),
                            .packs = std::min(one.packs, two.packs),
                            .catalogue = std::min(one.catalogue, two.catalogue)};
    largest_ = std::max(largest_, part == nullptr ? least.all() : least.*part);
  }
  uint64_t largest_ = 0;
  std::jthread thread_;
};
constexpr uint64_t store::StoreUsage::* kAll = nullptr;
constexpr uint64_t store::StoreUsage::* kJournals = &store::StoreUsage::journals;

class LimitsTest : public InstanceTest {
 protected:
  static std::unique_ptr<Instance> open_with(std::shared_ptr<store::Store> store, const Retention& retention,
                                             bool follower = false) {
    InstanceOptions with = options(follower);
    with.retention = retention;
    auto instance = Instance::open(std::move(store), with);
    EXPECT_TRUE(instance) << instance.error().message();
    return std::move(*instance);
  }
  static void overwrite(Instance& instance, int pieces, int files, size_t bytes) {
    for (int i = 0; i < pieces; ++i) write(instance, fmt::format("/{}", i % files), some_bytes(bytes));
  }
  static uint64_t bytes_of_journal(store::Store& store) { return store.usage()->journals; }
};

TEST_F(LimitsTest, AStoreKeepsToItsLimitAtFullSpeed) {
  constexpr uint64_t kLimit = 16 << 20;
  auto store = create_store("s");
  auto instance = open_with(store, {.store_bytes = kLimit});
  {
    Keeper keeper(*instance, no_peers);
    Watch watch(*store, kAll);
    overwrite(*instance, 600, 10, 200'000);
    EXPECT_LE(watch.largest(), kLimit);
  }
  EXPECT_FALSE(instance->over_limit());
  ASSERT_TRUE(instance->sync());
  Digest128 digest = instance->filesystem().digest();
  instance.reset();  // as a crash
  EXPECT_EQ(open(store)->filesystem().digest(), digest);
}

TEST_F(LimitsTest, AJournalKeepsToItsLimitAtFullSpeed) {
  constexpr uint64_t kLimit = 8 << 20;
  auto store = create_store("s");
  auto instance = open_with(store, {.journal_bytes = kLimit});
  Keeper keeper(*instance, no_peers);
  Watch watch(*store, kJournals);
  overwrite(*instance, 1200, 10, 100'000);
  EXPECT_LE(watch.largest(), kLimit);
}

TEST_F(LimitsTest, SeveralGuestsKeepToItTogether) {
  constexpr uint64_t kLimit = 8 << 20, kGuests = 4, kPiece = 100'000;
  auto store = create_store("s");
  auto instance = open_with(store, {.journal_bytes = kLimit});
  Keeper keeper(*instance, no_peers);
  Watch watch(*store, kJournals);
  {
    std::vector<std::jthread> guests;
    for (int guest = 0; guest < static_cast<int>(kGuests); ++guest) {
      guests.emplace_back([&, guest] {
        for (int i = 0; i < 300; ++i)
          write(*instance, fmt::format("/{}-{}", guest, i % 3), some_bytes(kPiece));
      });
    }
  }
  EXPECT_LE(watch.largest(), kLimit + kGuests * kPiece) << "each with one call on its way";
}

// What a leader sends is history, too; and who makes a checkpoint does not wait for who waits for it.
TEST_F(LimitsTest, AFollowerKeepsToItsOwn) {
  constexpr uint64_t kLimit = 4 << 20;
  auto leader = open(create_store("leader"));
  overwrite(*leader, 200, 10, 100'000);
  ASSERT_TRUE(leader->sync());
  std::shared_ptr<store::Store> store = *store::Store::create(path("follower"), leader->volume());
  auto follower = open_with(store, {.journal_bytes = kLimit}, true);
  {
    Keeper keeper(*follower, no_peers);
    Watch watch(*store, kJournals);
    for (const journal::Batch& batch : batches(*leader)) ASSERT_TRUE(follower->apply({&batch, 1}));
    EXPECT_LE(watch.largest(), kLimit);
  }
  EXPECT_EQ(follower->filesystem().digest(), leader->filesystem().digest());
}

// A tree that is larger than the limit holds nobody up, and the history beside it stays small.
TEST_F(LimitsTest, WhatCannotBeKeptDoesNotGrowForThat) {
  constexpr uint64_t kLimit = 16 << 20, kTree = 24'000'000;
  auto store = create_store("s");
  auto instance = open_with(store, {.store_bytes = kLimit});
  {
    Keeper keeper(*instance, no_peers);
    Watch watch(*store, kAll);
    overwrite(*instance, 400, 24, 1'000'000);
    EXPECT_LT(watch.largest(), 2 * kTree + kLimit);  // it is written anew before the one before goes
  }
  ASSERT_TRUE(instance->tend({}));
  ASSERT_TRUE(instance->over_limit());
  for (int i = 0; i < 24; ++i) write(*instance, fmt::format("/{}", i), "");
  ASSERT_TRUE(instance->close());
  instance.reset();
  instance = open_with(store, {.store_bytes = kLimit});
  ASSERT_TRUE(instance->tend({}));
  EXPECT_FALSE(instance->over_limit()) << instance->over_limit()->message();
  EXPECT_LE(store->usage()->all(), kLimit);
}

// One call that is larger than all there ever is room for is not refused, and holds nobody up.
TEST_F(LimitsTest, AWriteThatIsLargerThanTheLimitIsWritten) {
  constexpr uint64_t kLimit = 4 << 20;
  auto store = create_store("s");
  auto instance = open_with(store, {.journal_bytes = kLimit});
  Keeper keeper(*instance, no_peers);
  const std::string large(some_bytes(7'000'000));
  for (int i = 0; i < 3; ++i) write(*instance, "/large", large);
  EXPECT_EQ(read(*instance, "/large"), large);
  overwrite(*instance, 100, 3, 100'000);
  Watch watch(*store, kJournals);
  overwrite(*instance, 100, 3, 100'000);
  EXPECT_LE(watch.largest(), kLimit) << "it is kept again";
}

// Who has no keeper is not held up: nobody would make room.
TEST_F(LimitsTest, WithoutAKeeperNobodyWaits) {
  constexpr uint64_t kLimit = 4 << 20;
  auto store = create_store("s");
  auto instance = open_with(store, {.journal_bytes = kLimit});
  for (int round = 0; round < 2; ++round) {
    overwrite(*instance, 100, 3, 100'000);
    ASSERT_TRUE(instance->sync());
    EXPECT_GT(bytes_of_journal(*store), kLimit);
    ASSERT_TRUE(instance->tend({}));
    EXPECT_LE(bytes_of_journal(*store), kLimit);
  }
}

}  // namespace
}  // namespace reprise::instance

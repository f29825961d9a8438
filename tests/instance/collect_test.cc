// Snapshots that are deleted, what is collected then, and limits of the whole store.
#include "snapshot/collect.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <thread>

#include "instance/history.h"
#include "instance/snapshots.h"
#include "tests/instance/instance_fixture.h"

namespace reprise::instance {
namespace {

class SetClock final : public Clock {
 public:
  Timestamp realtime() override { return {.sec = now_s, .nsec = 0}; }
  uint64_t monotonic_ns() override { return static_cast<uint64_t>(now_s) * 1'000'000'000; }
  void sleep_ns(uint64_t ns) override { system_clock().sleep_ns(ns); }
  std::atomic<int64_t> now_s = 1'000'000;
};

class CollectTest : public InstanceTest {
 protected:
  static store::SnapshotRecord take(Instance& instance, std::string_view label) {
    auto record = instance.snapshot(label);
    EXPECT_TRUE(record) << record.error().message();
    return record.value_or(store::SnapshotRecord{});
  }
  static void expect_all_readable(store::Store& store) {
    std::vector<store::SnapshotRecord> records = store.catalogue().snapshots().value();
    for (const store::SnapshotRecord& record : records) {
      auto head = load_snapshot(store, record);
      ASSERT_TRUE(head) << record.id << ": " << head.error().message();
      EXPECT_EQ(head->recompute_digest(), record.digest);
    }
  }
  static uint64_t packs(store::Store& store) { return store.usage().value().packs; }
  static std::vector<std::string> labels(store::Store& store) {
    std::vector<std::string> labels;
    std::vector<store::SnapshotRecord> records = store.catalogue().snapshots().value();
    for (const store::SnapshotRecord& record : records)
      labels.push_back(record.checkpoint ? "(checkpoint)" : record.label);
    return labels;
  }
};

TEST_F(CollectTest, ADeletedSnapshotGivesBackWhatOnlyItNeeded) {
  auto store = create_store("s");
  auto instance = open(store);
  write(*instance, "/stays", random_bytes(1'000'000));
  write(*instance, "/goes", random_bytes(3'000'000));
  auto first = take(*instance, "first");
  write(*instance, "/goes", "little");
  auto second = take(*instance, "second");
  auto shares = snapshot::shares_of(*store, {first, second});
  ASSERT_TRUE(shares);
  EXPECT_GT((*shares)[0].own_bytes, 3'000'000u);
  EXPECT_LT((*shares)[1].own_bytes, 100'000u);
  EXPECT_GT((*shares)[1].shared_bytes, 1'000'000u);
  EXPECT_EQ((*shares)[0].shared_bytes, (*shares)[1].shared_bytes);
  uint64_t before = packs(*store);
  EXPECT_EQ(instance->drop_snapshot(first.id), true);
  EXPECT_EQ(instance->drop_snapshot(first.id).error().code(), Code::kNotFound);
  auto collected = instance->collect(1.0 / 3);
  ASSERT_TRUE(collected) << collected.error().message();
  EXPECT_LT(packs(*store), before - 2'900'000);
  EXPECT_GT(packs(*store), 1'000'000u);
  expect_all_readable(*store);
  write(*instance, "/more", "x");
  ASSERT_TRUE(instance->close());
  instance.reset();
  expect_all_readable(*store);
  EXPECT_EQ(read(*open(store), "/goes"), "little");
}

// A view holds what no snapshot does any more; its nodes are marked as stored all the same.
TEST_F(CollectTest, WhatWasCollectedIsPutAgain) {
  auto store = create_store("s");
  auto instance = open(store);
  write(*instance, "/file", random_bytes(1'000'000));
  auto first = take(*instance, "first");
  auto pinned = instance->pin();
  ASSERT_TRUE(pinned);
  write(*instance, "/file", "gone");
  take(*instance, "second");
  ASSERT_EQ(instance->drop_snapshot(first.id), true);
  ASSERT_TRUE(instance->collect(0));
  EXPECT_FALSE(load_snapshot(*store, first));
  first.label = "again";
  auto again = capture_snapshot(*store, pinned->view, first);
  ASSERT_TRUE(again) << again.error().message();
  EXPECT_GT(again->stored_bytes, 1'000'000u);
  expect_all_readable(*store);
}

TEST_F(CollectTest, SnapshotsTakenBesideCollectionsAreWhole) {
  auto store = create_store("s");
  auto instance = open(store);
  for (int i = 0; i < 40; ++i) write(*instance, fmt::format("/{}", i), random_bytes(20'000));
  std::atomic<bool> done{false};
  std::atomic<int> collections{0};
  std::thread collector([&] {
    while (!done) {
      auto collected = snapshot::collect(*store, 0.01);
      ASSERT_TRUE(collected) << collected.error().message();
      collections += collected->blobs_dropped > 0;
    }
  });
  std::thread other([&] {  // a second writer of snapshots, of states of the past
    for (int i = 0; i < 30; ++i) {
      auto pinned = instance->pin();
      store::SnapshotRecord record{.branch = "main", .label = fmt::format("other {}", i)};
      record.log_index = pinned->moment.log_index;
      record.vector = pinned->moment.position.vector.encode();
      record.digest = pinned->moment.position.digest;
      auto kept = capture_snapshot(*store, pinned->view, record);
      ASSERT_TRUE(kept) << kept.error().message();
      auto head = load_snapshot(*store, *kept);
      ASSERT_TRUE(head) << head.error().message();
    }
  });
  for (int i = 0; i < 60; ++i) {
    // States come back, with blobs that may just be on their way out.
    write(*instance, fmt::format("/{}", i % 3), std::string(30'000, static_cast<char>('a' + i % 4)));
    auto record = take(*instance, fmt::format("{}", i));
    if (i % 3 != 0) instance->drop_snapshot(record.id).value();
    auto records = store->catalogue().snapshots().value();
    if (records.size() > 8) instance->drop_snapshot(records.front().id).value();
  }
  other.join();
  done = true;
  collector.join();
  EXPECT_GT(collections, 0);
  expect_all_readable(*store);
  ASSERT_TRUE(instance->close());
  instance.reset();
  store.reset();
  expect_all_readable(*open_store("s"));
}

TEST_F(CollectTest, WhatACrashLeftOfASnapshotGoesWithTheNextInstance) {
  auto store = create_store("s");
  ASSERT_TRUE(open(store)->close());
  for (int i = 0; i < 36; ++i) ASSERT_TRUE(store->blobs().put(as_bytes(random_bytes(1 << 20))));
  store.reset();  // as a crash
  store = open_store("s");
  EXPECT_GT(packs(*store), 33u << 20);
  auto instance = open(store);
  auto done = instance->tend({});
  ASSERT_TRUE(done) << done.error().message();
  EXPECT_LT(packs(*store), 1u << 20);
  expect_all_readable(*store);
}

// It is looked for once, not by each fork: that would cost all of the catalogue.
TEST_F(CollectTest, WhatACrashLeftIsLookedForOncePerOpeningOfTheStore) {
  auto store = create_store("s");
  auto instance = open(store);
  write(*instance, "/file", "x");
  ASSERT_TRUE(instance->tend({}));
  for (int i = 0; i < 36; ++i) ASSERT_TRUE(store->blobs().put(as_bytes(random_bytes(1 << 20))));
  ASSERT_TRUE(instance->fork("try"));
  InstanceOptions of_branch = options();
  of_branch.branch = "try";
  auto branch = Instance::open(store, of_branch);
  ASSERT_TRUE(branch) << branch.error().message();
  ASSERT_TRUE((*branch)->tend({}));
  EXPECT_GT(packs(*store), 33u << 20);
  ASSERT_TRUE((*branch)->close());
  ASSERT_TRUE(instance->close());
}

TEST_F(CollectTest, WhatABranchIsOpenedFromStaysAsACheckpoint) {
  auto store = create_store("s");
  auto instance = open(store);
  write(*instance, "/file", "one");
  auto base = take(*instance, "base");
  ASSERT_TRUE(instance->trim());
  write(*instance, "/file", "two");
  EXPECT_EQ(instance->drop_snapshot(base.id), false);
  EXPECT_THAT(labels(*store), testing::ElementsAre("(checkpoint)"));
  ASSERT_TRUE(instance->collect(0));
  ASSERT_TRUE(instance->sync());
  instance.reset();  // as a crash
  auto again = open(store);
  EXPECT_EQ(read(*again, "/file"), "two");
}

TEST_F(CollectTest, SnapshotsWithoutALabelGoByNumberAndAge) {
  SetClock clock;
  InstanceOptions tended{.holder = {getpid(), "instance_test"}, .clock = clock};
  tended.retention.snapshots = 3;
  tended.retention.snapshot_age_s = 1000;
  auto store = create_store("s");
  auto instance = std::move(*Instance::open(store, tended));
  auto tend = [&] {
    auto done = instance->tend({});
    ASSERT_TRUE(done) << done.error().message();
  };
  for (int i = 0; i < 6; ++i) {
    write(*instance, "/file", fmt::format("{}", i));
    take(*instance, i == 1 ? "named" : "");
    clock.now_s += 100;
  }
  tend();
  EXPECT_THAT(labels(*store), testing::ElementsAre("named", "", "", ""));
  EXPECT_EQ(store->catalogue().snapshots()->back().id, 6u);
  clock.now_s += 750;
  tend();
  EXPECT_THAT(labels(*store), testing::ElementsAre("named", "", "")) << "one is older than 1000 s";
  clock.now_s += 10'000;
  tend();
  EXPECT_THAT(labels(*store), testing::ElementsAre("named", "(checkpoint)"))
      << "the newest stays in any case";
  expect_all_readable(*store);
}

TEST_F(CollectTest, TheStoreKeepsToItsLimit) {
  constexpr uint64_t kLimit = 16 << 20;
  SetClock clock;
  InstanceOptions tended{.holder = {getpid(), "instance_test"}, .clock = clock};
  tended.retention.store_bytes = kLimit;
  auto store = create_store("s");
  auto instance = std::move(*Instance::open(store, tended));
  uint64_t largest = 0;
  for (int i = 0; i < 60; ++i) {
    write(*instance, fmt::format("/{}", i % 5), random_bytes(500'000));
    ASSERT_TRUE(instance->sync());
    if (i == 3) take(*instance, "named");
    if (i % 10 == 4) take(*instance, "");
    auto done = instance->tend({});
    ASSERT_TRUE(done) << done.error().message();
    largest = std::max(largest, store->usage()->all());
    EXPECT_FALSE(instance->over_limit()) << instance->over_limit()->message();
    clock.now_s += 40;
  }
  EXPECT_LE(largest, kLimit);
  EXPECT_GT(largest, kLimit / 2);
  EXPECT_THAT(labels(*store), testing::Contains("named"));
  expect_all_readable(*store);
  Digest128 digest = instance->filesystem().digest();
  instance.reset();  // as a crash
  EXPECT_EQ(open(store)->filesystem().digest(), digest);
}

TEST_F(CollectTest, ALimitThatCannotBeKeptIsSaidUntilItCan) {
  SetClock clock;
  InstanceOptions tended{.holder = {getpid(), "instance_test"}, .clock = clock};
  tended.retention.store_bytes = 16 << 20;
  auto store = create_store("s");
  auto instance = std::move(*Instance::open(store, tended));
  auto tend = [&] {
    auto done = instance->tend({});
    ASSERT_TRUE(done) << done.error().message();
    clock.now_s += 40;
  };
  for (int i = 0; i < 20; ++i) write(*instance, fmt::format("/{}", i), random_bytes(1'000'000));
  ASSERT_TRUE(instance->sync());
  tend();
  ASSERT_TRUE(instance->over_limit());
  EXPECT_THAT(instance->over_limit()->message(), testing::HasSubstr("expected at most 16.8 MB"));
  EXPECT_EQ(read(*instance, "/3").size(), 1'000'000u);
  for (int i = 2; i < 20; ++i) write(*instance, fmt::format("/{}", i), "");
  ASSERT_TRUE(instance->sync());
  tend();
  EXPECT_FALSE(instance->over_limit());
  EXPECT_LE(store->usage()->all(), 16u << 20);
}

TEST_F(CollectTest, AQuietJournalAgesOut) {
  SetClock clock;
  InstanceOptions tended{.holder = {getpid(), "instance_test"}, .clock = clock};
  tended.retention.journal_age_s = 3600;
  auto instance = std::move(*Instance::open(create_store("s"), tended));
  auto tend = [&] {
    for (int i = 0; i < 2; ++i) {
      auto done = instance->tend({});
      ASSERT_TRUE(done) << done.error().message();
    }
  };
  write(*instance, "/file", "one");
  ASSERT_TRUE(instance->sync());
  tend();
  clock.now_s += 800;
  tend();
  EXPECT_EQ(instance->journal().files()->segments.size(), 1u) << "not a quarter of an hour old";
  clock.now_s += 200;
  tend();
  EXPECT_EQ(instance->journal().files()->segments.size(), 2u);
  EXPECT_EQ(instance->journal().first(), 1u);
  clock.now_s += 2500;
  tend();
  EXPECT_EQ(instance->journal().first(), 1u) << "not an hour old";
  write(*instance, "/file", "two");
  ASSERT_TRUE(instance->sync());
  LogIndex young = instance->journal().last();
  clock.now_s += 200;
  tend();
  EXPECT_GT(instance->journal().first(), 1u);
  EXPECT_LE(instance->journal().first(), young);
  clock.now_s += 10'000;
  tend();
  EXPECT_EQ(instance->journal().first(), instance->journal().last() + 1) << "everything is old";
  Digest128 digest = instance->filesystem().digest();
  instance.reset();  // as a crash
  EXPECT_EQ(open(open_store("s"))->filesystem().digest(), digest);
}

}  // namespace
}  // namespace reprise::instance

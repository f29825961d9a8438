// What an instance keeps of its past: checkpoints, and a journal that is trimmed by hand, by size and by age.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>

#include "instance/history.h"
#include "tests/instance/instance_fixture.h"

namespace reprise::instance {
namespace {

// Names of the segments, oldest first.
std::vector<std::string> journal_files_of(store::Store& store) {
  auto directory = store.journal_directory("main");
  EXPECT_TRUE(directory);
  auto names = (*directory)->list();
  EXPECT_TRUE(names);
  std::erase_if(*names, [](const std::string& name) { return !name.ends_with(".seg"); });
  return *names;
}

TEST_F(InstanceTest, TrimmingGoesNoFurtherThanTheNewestSnapshot) {
  auto store = create_store("s");
  auto instance = open(store);
  EXPECT_EQ(instance->trim().error().code(), Code::kNotFound);
  write(*instance, "/file", "one");
  auto snapshot = instance->snapshot("kept");
  ASSERT_TRUE(snapshot) << snapshot.error().message();
  write(*instance, "/file", "two");
  auto trimmed = instance->trim();
  ASSERT_TRUE(trimmed) << trimmed.error().message();
  EXPECT_LE(trimmed->first, snapshot->log_index + 1);
  ASSERT_TRUE(instance->sync());
  instance.reset();
  EXPECT_EQ(read(*open(store), "/file"), "two");
}

TEST_F(InstanceTest, TendingKeepsTheNextOpeningShort) {
  InstanceOptions tended = options();
  tended.retention.reopen_batches = 20;
  auto store = create_store("s");
  auto instance = std::move(*Instance::open(store, tended));
  auto write_and_tend = [&](int from, int to) {
    for (int i = from; i < to; ++i) {
      write(*instance, fmt::format("/{}", i), "x");
      ASSERT_TRUE(instance->sync());
    }
    auto done = instance->tend({});
    ASSERT_TRUE(done) << done.error().message();
  };
  write_and_tend(0, 10);
  EXPECT_TRUE(store->catalogue().snapshots()->empty()) << "little to replay so far";
  write_and_tend(10, 40);
  EXPECT_EQ(store->catalogue().snapshots()->size(), 1u);
  write_and_tend(40, 90);
  EXPECT_EQ(store->catalogue().snapshots()->size(), 1u) << "one checkpoint takes the place of the last";
  write_and_tend(90, 95);
  Digest128 digest = instance->filesystem().digest();
  instance.reset();  // as a crash
  store.reset();
  auto again = open(open_store("s"));
  EXPECT_LE(again->open_report().batches_replayed, 20u);
  EXPECT_GE(again->open_report().batches_replayed, 5u);
  EXPECT_EQ(again->filesystem().digest(), digest);
}

TEST_F(InstanceTest, TendingKeepsTheJournalWithinItsLimit) {
  constexpr uint64_t kLimit = 4 << 20;
  InstanceOptions tended = options();
  tended.retention.journal_bytes = kLimit;
  auto store = create_store("s");
  auto instance = std::move(*Instance::open(store, tended));
  uint64_t largest = 0;
  for (int i = 0; i < 60; ++i) {
    write(*instance, fmt::format("/{}", i % 7), random_bytes(300'000));
    ASSERT_TRUE(instance->sync());
    if (i == 10) {
      ASSERT_TRUE(instance->snapshot("early"));
    }
    auto done = instance->tend({});
    ASSERT_TRUE(done) << done.error().message();
    largest = std::max(largest, instance->journal().files()->bytes);
  }
  EXPECT_LE(largest, kLimit);
  EXPECT_GT(largest, kLimit / 2) << "no more is dropped than has to be";
  EXPECT_GT(instance->journal().first(), 20u);
  // What is left of the journal can be looked at.
  auto kept = store->catalogue().snapshots().value();
  std::erase_if(kept, [](const store::SnapshotRecord& record) { return !record.checkpoint; });
  ASSERT_GT(kept.size(), 1u);
  ASSERT_LE(kept.size(), instance->journal().files()->segments.size() + 1)
      << "one as often as a segment ends";
  EXPECT_LE(kept.front().log_index, instance->journal().first() + 5);
  for (LogIndex index = kept.front().log_index; index <= instance->journal().last(); ++index) {
    auto state = state_at(*store, "main", index);
    ASSERT_TRUE(state) << state.error().message();
    EXPECT_EQ(state->log_index, index);
  }
  Digest128 digest = instance->filesystem().digest();
  instance.reset();  // as a crash
  {
    auto without_limits = open(store);
    EXPECT_EQ(without_limits->filesystem().digest(), digest);
    write(*without_limits, "/more", "x");
    ASSERT_TRUE(without_limits->close());
  }
  auto still = state_at(*store, "main", kept.front().log_index);
  EXPECT_TRUE(still) << still.error().message();
  auto early = state_at(*store, "main", store->catalogue().snapshots()->front().log_index);
  EXPECT_TRUE(early) << early.error().message();
}

class SetClock final : public Clock {
 public:
  Timestamp realtime() override { return {.sec = now_s, .nsec = 0}; }
  uint64_t monotonic_ns() override { return system_clock().monotonic_ns(); }
  void sleep_ns(uint64_t ns) override { system_clock().sleep_ns(ns); }
  std::atomic<int64_t> now_s = 1'000'000;
};

TEST_F(InstanceTest, OldBatchesGoUnlessAPeerNeedsThem) {
  SetClock clock;
  InstanceOptions tended{.holder = {getpid(), "instance_test"}, .clock = clock};
  tended.retention.journal_age_s = 3600;
  tended.journal.segment_bytes = 10'000;
  auto instance = std::move(*Instance::open(create_store("s"), tended));
  auto write_some = [&] {
    for (int i = 0; i < 20; ++i) {
      write(*instance, "/file", std::string(2000, static_cast<char>('a' + i)));
      ASSERT_TRUE(instance->sync());
    }
  };
  auto tend = [&](std::vector<journal::Vector> peers) {
    auto done = instance->tend(peers);
    ASSERT_TRUE(done) << done.error().message();
  };
  write_some();
  tend({});  // makes a checkpoint
  LogIndex young = instance->journal().last() + 1;
  const journal::Vector peer = instance->vector(), behind;  // which has nothing yet
  clock.now_s += 3000;
  for (int round = 0; round < 2; ++round) {
    write_some();
    tend({});
  }
  EXPECT_EQ(instance->journal().first(), 1u) << "nothing is an hour old";
  clock.now_s += 1000;
  tend({});
  EXPECT_LE(instance->journal().first(), young) << "only the first is";
  clock.now_s += 10'000;
  LogIndex first = instance->journal().first();
  tend({peer, behind});
  EXPECT_EQ(instance->journal().first(), first) << "a peer needs it all";
  tend({peer});
  EXPECT_TRUE(instance->journal().position_of(peer)) << "what it needs is there";
  tend({});
  EXPECT_GT(instance->journal().first(), young);
  EXPECT_FALSE(instance->journal().position_of(peer));
  Digest128 digest = instance->filesystem().digest();
  instance.reset();  // as a crash
  EXPECT_EQ(open(open_store("s"))->filesystem().digest(), digest);
}

TEST_F(InstanceTest, AMissingBeginningIsToldFromATrimmedOne) {
  InstanceOptions small = options();
  small.journal.segment_bytes = 4096;
  small.journal.compress = false;
  auto store = create_store("s");
  auto instance = std::move(*Instance::open(store, small));
  for (int i = 0; i < 60; ++i) {
    write(*instance, fmt::format("/{}", i), std::string(500, 'x'));
    ASSERT_TRUE(instance->sync());
    if (i == 30) {
      ASSERT_TRUE(instance->snapshot("middle"));
    }
  }
  auto trimmed = instance->trim();
  ASSERT_TRUE(trimmed);
  ASSERT_GT(trimmed->first, 1u);
  ASSERT_TRUE(instance->close());
  instance.reset();
  instance = std::move(*Instance::open(store, small));
  ASSERT_TRUE(instance->close());
  instance.reset();

  auto files = journal_files_of(*store);
  ASSERT_GT(files.size(), 3u);
  auto directory = *store->journal_directory("main");
  for (size_t i = 0; i < 2; ++i) ASSERT_TRUE(directory->unlink(files[i]));
  auto opened = Instance::open(store, small);
  ASSERT_FALSE(opened);
  EXPECT_EQ(opened.error().code(), Code::kCorrupt);
  EXPECT_NE(opened.error().message().find("segments at its beginning are missing"), std::string::npos)
      << opened.error().message();
  auto read_only = History::open(*store, "main");
  ASSERT_FALSE(read_only);
  EXPECT_EQ(read_only.error().code(), Code::kCorrupt);
}

// What was waited for is told to the catalogue now and then, so that a cut below it is noticed.
TEST_F(InstanceTest, TheCatalogueLearnsNowAndThenWhatIsOnTheDisk) {
  class SteppedClock final : public Clock {
   public:
    Timestamp realtime() override { return {1'700'000'000, 0}; }
    uint64_t monotonic_ns() override { return now_ns; }
    void sleep_ns(uint64_t ns) override { now_ns += ns; }
    std::atomic<uint64_t> now_ns{1'000'000'000};
  } clock;
  InstanceOptions stepped{.holder = {getpid(), "retention_test"}, .clock = clock};
  auto store = create_store("s");
  auto instance = std::move(*Instance::open(store, stepped));
  auto hint = [&] { return (*store->catalogue().branch("main"))->durable_hint; };
  ASSERT_TRUE(instance->tend({}));
  LogIndex before = hint();
  write(*instance, "/file", "text");
  ASSERT_TRUE(instance->sync());
  clock.now_ns += 9'000'000'000;
  ASSERT_TRUE(instance->tend({}));
  EXPECT_EQ(hint(), before) << "not each time";
  clock.now_ns += 2'000'000'000;
  ASSERT_TRUE(instance->tend({}));
  EXPECT_EQ(hint(), instance->journal().durable());
  EXPECT_GT(hint(), before);
}

}  // namespace
}  // namespace reprise::instance

// The journal's contract, on a disk in memory: appending, reading, rotation, trimming, durability.
#include "journal/journal.h"

#include <gtest/gtest.h>

#include <thread>

#include "base/hash.h"
#include "journal/segment_format.h"
#include "journal/tailed_journal.h"
#include "tests/journal/batches.h"
#include "tests/journal/fake_world.h"

namespace reprise::journal {
namespace {

using test::FakeDirectory;
using test::FakeDisk;
using test::FakeRandom;
using test::kIdentity;
using test::kOriginA;
using test::kOriginB;
using test::make_batch;
using test::show;

FakeRandom fake_random;

Result<std::unique_ptr<Journal>> open_on(const std::shared_ptr<FakeDisk>& disk,
                                         const JournalOptions& options = {}, LogIndex durable_hint = 0,
                                         Recovery* recovery = nullptr) {
  return Journal::open(std::make_unique<FakeDirectory>(disk), kIdentity, options, fake_random, durable_hint,
                       recovery);
}

// Batches `from` to `to`, log index and LSN of origin A being the same.
void append_range(Journal& journal, Lsn from, Lsn to) {
  for (Lsn lsn = from; lsn <= to; ++lsn) {
    auto index = journal.append(make_batch(kOriginA, lsn));
    ASSERT_TRUE(index) << index.error().message();
    ASSERT_EQ(*index, lsn);
  }
}

void expect_range(Journal& journal, LogIndex from, LogIndex to) {
  auto cursor = journal.read(from);
  for (LogIndex index = from; index <= to; ++index) {
    auto logged = cursor->next();
    ASSERT_TRUE(logged) << logged.error().message();
    ASSERT_TRUE(*logged) << index;
    EXPECT_EQ((*logged)->index, index);
    EXPECT_EQ(show((*logged)->batch), show(make_batch(kOriginA, index)));
  }
  auto end = cursor->next();
  ASSERT_TRUE(end);
  EXPECT_FALSE(*end);
}

// What both kinds of journal do alike.
class AnyJournal : public testing::TestWithParam<bool> {
 protected:
  AnyJournal() {
    // Nothing recent is kept and segments are small, so that reading goes to files.
    JournalOptions options{.segment_bytes = 4096, .recent_bytes = 0};
    if (GetParam())
      journal_ = *open_on(disk_, options);
    else
      journal_ = Journal::in_memory(kIdentity, options);
  }
  std::shared_ptr<FakeDisk> disk_ = FakeDisk::create();
  std::unique_ptr<Journal> journal_;
};
INSTANTIATE_TEST_SUITE_P(Kinds, AnyJournal, testing::Bool(),
                         [](const auto& parameter) { return parameter.param ? "InFiles" : "InMemory"; });

TEST_P(AnyJournal, ReadersSeeWhatWasAppendedInOrder) {
  EXPECT_EQ(journal_->first(), 1u);
  EXPECT_EQ(journal_->last(), 0u);
  append_range(*journal_, 1, 50);
  EXPECT_EQ(journal_->last(), 50u);
  expect_range(*journal_, 1, 50);
  ASSERT_TRUE(journal_->sync(50));
  EXPECT_EQ(journal_->durable(), 50u);
  expect_range(*journal_, 1, 50);
  expect_range(*journal_, 33, 50);
  append_range(*journal_, 51, 60);
  expect_range(*journal_, 49, 60);
}

// Who embeds an instance in memory and leaves it running has no keeper who would trim its journal.
TEST(JournalInMemory, KeepsItsNewestBatchesWithinItsBound) {
  const uint64_t one = make_batch(kOriginA, 1).encoded_bytes() + kHeldAroundABatch;
  auto journal = Journal::in_memory(kIdentity, {.in_memory_bytes = 10 * one + one / 2});
  auto late = journal->read(1);
  auto in_time = journal->read(41);
  append_range(*journal, 1, 50);
  EXPECT_EQ(journal->first(), 41u);
  EXPECT_EQ(journal->last(), 50u);
  expect_range(*journal, 41, 50);
  auto missed = late->next();
  ASSERT_FALSE(missed);
  EXPECT_EQ(missed.error().code(), Code::kGap);
  ASSERT_TRUE(in_time->next());
  Vector has;
  has.set(kOriginA, 39);
  EXPECT_EQ(journal->position_of(has).error().code(), Code::kGap);
  has.set(kOriginA, 40);
  EXPECT_EQ(journal->position_of(has).value(), 41u);
  // One batch that is larger than all of it is kept.
  journal = Journal::in_memory(kIdentity, {.in_memory_bytes = 1});
  append_range(*journal, 1, 3);
  expect_range(*journal, 3, 3);
}

TEST_P(AnyJournal, ACursorFollowsTheHeadThroughFilesAndMemory) {
  auto cursor = journal_->read(1);
  for (Lsn lsn = 1; lsn <= 90; ++lsn) {
    append_range(*journal_, lsn, lsn);
    if (lsn % 7 == 0) {
      ASSERT_TRUE(journal_->sync(lsn));
    }
    if (lsn % 3 != 0) continue;
    for (Lsn seen = lsn - 2; seen <= lsn; ++seen) {
      auto logged = cursor->next();
      ASSERT_TRUE(logged) << logged.error().message();
      ASSERT_TRUE(*logged);
      EXPECT_EQ((*logged)->index, seen);
    }
    EXPECT_FALSE(*cursor->next());
  }
}

TEST_P(AnyJournal, LsnsOfAnOriginAreDense) {
  append_range(*journal_, 1, 2);
  for (Lsn wrong : {1, 2, 4}) {
    auto refused = journal_->append(make_batch(kOriginA, wrong));
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().code(), Code::kInvalidArgument);
    EXPECT_NE(refused.error().message().find("expected LSN 3"), std::string::npos);
  }
  EXPECT_TRUE(journal_->append(make_batch(kOriginB, 1)));
  EXPECT_TRUE(journal_->append(make_batch(kOriginA, 3)));
}

TEST_P(AnyJournal, WaitEndsWithABatchOrWithTheTime) {
  auto cursor = journal_->read(1);
  EXPECT_FALSE(cursor->wait(1));
  std::thread writer([&] { append_range(*journal_, 1, 1); });
  EXPECT_TRUE(cursor->wait(60'000));
  writer.join();
  EXPECT_TRUE(cursor->wait(0));
  ASSERT_TRUE(*cursor->next());
  std::thread closer([&] { ASSERT_TRUE(journal_->close()); });
  EXPECT_FALSE(cursor->wait(60'000));
  closer.join();
}

TEST_P(AnyJournal, BytesFromCountsEncodedBatches) {
  append_range(*journal_, 1, 60);
  ASSERT_TRUE(journal_->sync(60));
  append_range(*journal_, 61, 62);
  uint64_t expected = 0;
  EXPECT_EQ(*journal_->bytes_from(63), 0u);
  for (LogIndex index = 62; index >= 1; --index) {
    expected += make_batch(kOriginA, index).encoded_bytes();
    EXPECT_EQ(*journal_->bytes_from(index), expected) << index;
  }
}

TEST_P(AnyJournal, PositionOfIsTheFirstBatchThatAVectorLacks) {
  // A and B take turns: batch 2n - 1 is A's nth, batch 2n is B's.
  for (Lsn lsn = 1; lsn <= 40; ++lsn) {
    ASSERT_TRUE(journal_->append(make_batch(kOriginA, lsn)));
    ASSERT_TRUE(journal_->append(make_batch(kOriginB, lsn)));
    if (lsn == 30) {
      ASSERT_TRUE(journal_->sync(60));
    }
  }
  for (Lsn a = 0; a <= 41; ++a) {
    for (Lsn b : {Lsn{0}, a / 2, a, a + 1}) {
      Vector vector;
      vector.set(kOriginA, a);
      vector.set(kOriginB, b);
      LogIndex lacks_a = 2 * (a + 1) - 1, lacks_b = 2 * (b + 1);
      EXPECT_EQ(*journal_->position_of(vector), std::min({lacks_a, lacks_b, LogIndex{81}})) << a << " " << b;
    }
  }
}

TEST_P(AnyJournal, ATrimmedHeadIsAGap) {
  append_range(*journal_, 1, 100);
  ASSERT_TRUE(journal_->sync(100));
  auto behind = journal_->read(1);
  ASSERT_TRUE(*behind->next());
  auto first = journal_->trim(70);
  ASSERT_TRUE(first);
  EXPECT_GT(*first, 40u);
  EXPECT_LE(*first, 70u);
  EXPECT_EQ(journal_->first(), *first);
  expect_range(*journal_, *first, 100);
  EXPECT_EQ(journal_->read(*first - 1)->next().error().code(), Code::kGap);
  EXPECT_EQ(journal_->bytes_from(*first - 1).error().code(), Code::kGap);

  Vector vector;
  vector.set(kOriginA, *first - 1);
  EXPECT_EQ(*journal_->position_of(vector), *first);
  vector.set(kOriginA, *first - 2);
  EXPECT_EQ(journal_->position_of(vector).error().code(), Code::kGap);

  // A cursor that was behind may still have its file; sooner or later it meets the gap, and never another
  // batch.
  LogIndex expected = 2;
  auto logged = behind->next();
  for (; logged && *logged; logged = behind->next()) EXPECT_EQ((*logged)->index, expected++);
  ASSERT_FALSE(logged);
  EXPECT_EQ(logged.error().code(), Code::kGap);
}

TEST_P(AnyJournal, TrimmingEverythingLeavesAnEmptyLogThatGoesOn) {
  append_range(*journal_, 1, 10);
  EXPECT_EQ(*journal_->trim(11), 11u);
  EXPECT_EQ(journal_->last(), 10u);
  EXPECT_EQ(*journal_->trim(1000), 11u);
  append_range(*journal_, 11, 12);
  expect_range(*journal_, 11, 12);
}

TEST_P(AnyJournal, RestartBeginsAnewWithAnotherVector) {
  append_range(*journal_, 1, 20);
  EXPECT_EQ(journal_->restart_at(20, {}).error().code(), Code::kInvalidArgument);
  Vector covered;
  covered.set(kOriginA, 499);
  covered.set(kOriginB, 7);
  ASSERT_TRUE(journal_->restart_at(500, covered));
  EXPECT_EQ(journal_->first(), 500u);
  EXPECT_EQ(journal_->last(), 499u);
  EXPECT_EQ(*journal_->position_of(covered), 500u);
  EXPECT_EQ(journal_->position_of({}).error().code(), Code::kGap);
  append_range(*journal_, 500, 505);
  expect_range(*journal_, 500, 505);
  EXPECT_EQ(journal_->read(3)->next().error().code(), Code::kGap);
  EXPECT_TRUE(journal_->append(make_batch(kOriginB, 8)));
}

TEST_P(AnyJournal, NothingIsAppendedOrSyncedPastTheEnd) {
  append_range(*journal_, 1, 3);
  EXPECT_EQ(journal_->sync(4).error().code(), Code::kInvalidArgument);
  ASSERT_TRUE(journal_->close());
  ASSERT_TRUE(journal_->close());
  EXPECT_EQ(journal_->append(make_batch(kOriginA, 4)).error().code(), Code::kInvalidArgument);
  expect_range(*journal_, 1, 3);
}

// --- in files

TEST(Journal, ReopeningFindsEverythingAndSaysHowItWasClosed) {
  auto disk = FakeDisk::create();
  JournalOptions options{.segment_bytes = 4096, .recent_bytes = 0};
  Recovery recovery;
  {
    auto journal = *open_on(disk, options, 0, &recovery);
    EXPECT_EQ(recovery.first, 1u);
    EXPECT_EQ(recovery.last, 0u);
    append_range(*journal, 1, 70);
    ASSERT_TRUE(journal->close());
  }
  {
    std::lock_guard lock(disk->mutex);
    EXPECT_GT(disk->files.size(), 3u) << "it never rotated";
  }
  {
    auto journal = *open_on(disk, options, 70, &recovery);
    EXPECT_EQ(recovery.first, 1u);
    EXPECT_EQ(recovery.last, 70u);
    EXPECT_TRUE(recovery.clean_close);
    EXPECT_EQ(recovery.cut_bytes, 0u);
    EXPECT_EQ(journal->durable(), 70u);
    expect_range(*journal, 1, 70);
    uint64_t all = 0;
    for (LogIndex i = 1; i <= 70; ++i) all += make_batch(kOriginA, i).encoded_bytes();
    EXPECT_EQ(*journal->bytes_from(1), all);
    append_range(*journal, 71, 75);
    ASSERT_TRUE(journal->sync(75));
    auto crashed = disk->copy();
    auto after_crash = *open_on(crashed, options, 75, &recovery);
    EXPECT_FALSE(recovery.clean_close);
    EXPECT_EQ(recovery.last, 75u);
    expect_range(*after_crash, 1, 75);
  }
}

TEST(Journal, ASegmentIsOnDiskBeforeTheNextOneExists) {
  auto disk = FakeDisk::create();
  // Not compressed: a copy that is being made is synced when it is complete.
  auto journal = *open_on(disk, {.durability = Durability::kNone, .segment_bytes = 2048, .compress = false});
  append_range(*journal, 1, 60);
  ASSERT_TRUE(journal->sync(60));
  std::lock_guard lock(disk->mutex);
  ASSERT_GT(disk->files.size(), 3u);
  for (const auto& [name, content] : disk->files)
    EXPECT_EQ(content->synced_bytes, content->bytes.size()) << name;
}

TEST(Journal, ManySyncsAtOnceShareTheDisk) {
  auto disk = FakeDisk::create();
  auto journal = *open_on(disk);
  append_range(*journal, 1, 200);
  int before = disk->syncs;
  std::vector<std::thread> threads;
  for (int t = 0; t < 8; ++t) {
    threads.emplace_back([&, t] {
      for (LogIndex i = 1; i <= 25; ++i) ASSERT_TRUE(journal->sync(static_cast<LogIndex>(t) * 25 + i));
    });
  }
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(journal->durable(), 200u);
  EXPECT_LT(disk->syncs - before, 50);
}

TEST(Journal, LazyReachesTheDiskByItself) {
  auto disk = FakeDisk::create();
  auto journal = *open_on(disk, {.durability = Durability::kLazy, .lazy_interval_ms = 5});
  append_range(*journal, 1, 5);
  for (int i = 0; i < 2000 && journal->durable() < 5; ++i)
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  EXPECT_EQ(journal->durable(), 5u);
}

TEST(Journal, NoneWritesNothingUntilItIsClosed) {
  auto disk = FakeDisk::create();
  auto journal = *open_on(disk, {.durability = Durability::kNone});
  int calls = disk->calls;
  append_range(*journal, 1, 50);
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  EXPECT_EQ(disk->calls, calls);
  ASSERT_TRUE(journal->close());
  Recovery recovery;
  auto reopened = *open_on(disk, {}, 0, &recovery);
  EXPECT_EQ(recovery.last, 50u);
}

TEST(Journal, ABacklogPastItsBoundIsWorkedOffBeforeMoreIsTaken) {
  auto disk = FakeDisk::create();
  auto journal =
      *open_on(disk, {.durability = Durability::kNone, .segment_bytes = 1 << 20, .backlog_bytes = 2000});
  for (Lsn lsn = 1; lsn <= 500; ++lsn) {
    ASSERT_TRUE(journal->reserve(1500));  // would wait for ever if nobody wrote
    append_range(*journal, lsn, lsn);
  }
  ASSERT_TRUE(journal->reserve(1 << 20));  // more than the bound goes through alone
  expect_range(*journal, 1, 500);
}

TEST(Journal, RestartSurvivesACrashBeforeTheOldSegmentsAreGone) {
  auto disk = FakeDisk::create();
  auto journal = *open_on(disk, {.segment_bytes = 2048});
  append_range(*journal, 1, 40);
  ASSERT_TRUE(journal->sync(40));
  auto old_files = disk->copy();
  Vector covered;
  covered.set(kOriginA, 99);
  ASSERT_TRUE(journal->restart_at(100, covered));
  append_range(*journal, 100, 101);
  ASSERT_TRUE(journal->sync(101));
  auto crashed = disk->copy();
  for (const auto& [name, content] : old_files->files) crashed->files.emplace(name, content);
  Recovery recovery;
  auto reopened = *open_on(crashed, {}, 101, &recovery);
  EXPECT_EQ(recovery.first, 100u);
  EXPECT_EQ(recovery.last, 101u);
  EXPECT_EQ(crashed->files.size(), 1u);
  expect_range(*reopened, 100, 101);
}

TEST(Journal, ASealedLastSegmentIsFollowedByAnother) {
  auto disk = FakeDisk::create();
  {
    auto journal = *open_on(disk, {.segment_bytes = 2048});
    append_range(*journal, 1, 20);
    ASSERT_TRUE(journal->close());
  }
  disk->files.erase(std::prev(disk->files.end()));  // as if killed between the seal and the next header
  Recovery recovery;
  auto journal = *open_on(disk, {}, 0, &recovery);
  LogIndex last = recovery.last;
  EXPECT_GT(last, 0u);
  append_range(*journal, last + 1, last + 3);
  expect_range(*journal, 1, last + 3);
  ASSERT_TRUE(journal->close());
  EXPECT_TRUE(open_on(disk, {}, last + 3));
}

TEST(Journal, UnfinishedSegmentFilesAreRemoved) {
  auto disk = FakeDisk::create();
  disk->files["0000000001.seg.new"] = std::make_shared<FakeDisk::Content>();
  disk->files["notes.new"] = std::make_shared<FakeDisk::Content>();
  auto journal = *open_on(disk);
  EXPECT_FALSE(disk->files.contains("0000000001.seg.new"));
  EXPECT_TRUE(disk->files.contains("notes.new"));
}

TEST(Journal, AnotherVolumeOrBranchIsRefused) {
  auto disk = FakeDisk::create();
  ASSERT_TRUE((*open_on(disk))->close());
  auto open_as = [&](const JournalIdentity& identity) {
    return Journal::open(std::make_unique<FakeDirectory>(disk), identity, {}, fake_random, 0, nullptr);
  };
  EXPECT_EQ(open_as({.volume = {1, 1}, .branch = "main"}).error().code(), Code::kWrongVolume);
  auto other = open_as({.volume = kIdentity.volume, .branch = "other"});
  ASSERT_FALSE(other);
  EXPECT_NE(
      other.error().message().find("expected segment 1 of branch other, found segment 1 of branch main"),
      std::string::npos)
      << other.error().message();
}

TEST(Journal, VersionsAndFeaturesItDoesNotKnowAreNamed) {
  SegmentHeader header{
      .volume = kIdentity.volume, .id = {1, 2}, .branch = "main", .sequence = 1, .first_index = 1};
  auto open_with = [&](const SegmentHeader& h, uint16_t version) {
    Bytes bytes = encode_segment_header(h);
    store_value(bytes.data() + 8, version);
    store_value(bytes.data() + bytes.size() - 8, hash64(ByteView(bytes).first(bytes.size() - 8)));
    auto disk = FakeDisk::create();
    disk->files["0000000001.seg"] = std::make_shared<FakeDisk::Content>(bytes);
    return open_on(disk);
  };
  EXPECT_TRUE(open_with(header, kSegmentVersion));
  auto later = open_with(header, 3);
  ASSERT_FALSE(later);
  EXPECT_EQ(later.error().code(), Code::kUnsupported);
  EXPECT_NE(later.error().message().find("expected version 1, found 3"), std::string::npos);
  header.features = {.compat = 1};
  EXPECT_TRUE(open_with(header, kSegmentVersion));
  header.features = {.read_compat = 2};
  EXPECT_EQ(open_with(header, kSegmentVersion).error().code(), Code::kUnsupported);
  header.features = {.incompat = 4};
  EXPECT_EQ(open_with(header, kSegmentVersion).error().code(), Code::kUnsupported);
}

}  // namespace
}  // namespace reprise::journal

#include <gtest/gtest.h>

#include <algorithm>

#include "journal/compressed_segment.h"
#include "journal/recovery.h"
#include "journal/repair.h"
#include "journal/segments_cursor.h"
#include "tests/journal/batches.h"
#include "tests/journal/fake_world.h"
#include "tests/journal/mend_segment.h"
#include "tests/journal/several_segments.h"

namespace reprise::journal {
namespace {

using namespace test;

TEST(Verify, AGoodJournalIsCountedAndLeftAlone) {
  auto disk = several_segments();
  int calls = disk->calls;
  uint64_t done = 0, all = 0;
  FakeDirectory directory(disk);
  auto report = verify_journal(directory, kIdentity, kBatches, [&](uint64_t d, uint64_t a) {
    EXPECT_GE(d, done);
    done = d;
    all = a;
  });
  ASSERT_TRUE(report);
  EXPECT_FALSE(report->problem);
  EXPECT_EQ(report->segments, disk->files.size());
  EXPECT_EQ(report->batches, kBatches);
  EXPECT_EQ(report->first, 1u);
  EXPECT_EQ(report->last, kBatches);
  EXPECT_EQ(report->bytes, all_bytes(*disk));
  EXPECT_EQ(report->vector.get(kOriginA), kBatches);
  EXPECT_TRUE(report->clean_close);
  EXPECT_EQ(done, all);
  EXPECT_EQ(all, all_bytes(*disk));
  EXPECT_EQ(disk->calls, calls);
}

// Each segment is sound by itself, of this volume and branch, and has the right number and log index.
TEST(Verify, ASegmentOfAnotherJournalInTheChainIsFound) {
  auto ours = several_segments(), theirs = several_segments();
  const size_t segments = ours->files.size();
  ASSERT_EQ(theirs->files.size(), segments);
  size_t number = 0;
  for (const auto& [name, content] : theirs->files) {
    ++number;
    auto mixed = ours->copy();
    mixed->files[name] = content;
    FakeDirectory directory(mixed);
    auto report = verify_journal(directory, kIdentity, 0, nullptr);
    ASSERT_TRUE(report);
    ASSERT_TRUE(report->problem) << name;
    EXPECT_EQ(report->problem->code(), Code::kCorrupt);
    EXPECT_NE(report->problem->message().find("chain value"), std::string::npos)
        << report->problem->message();
    EXPECT_FALSE(report->torn_tail);
    EXPECT_LT(report->batches, kBatches);
  }
  EXPECT_EQ(number, segments);
}

TEST(Verify, ATornTailIsToldFromWorse) {
  auto disk = several_segments();
  FakeDirectory directory(disk);
  auto& last = disk->files.rbegin()->second->bytes;
  last.resize(last.size() - 1);
  auto report = verify_journal(directory, kIdentity, kBatches);
  ASSERT_TRUE(report);
  ASSERT_TRUE(report->problem);
  EXPECT_TRUE(report->torn_tail);
  report = verify_journal(directory, kIdentity, kBatches + 1);
  ASSERT_TRUE(report);
  EXPECT_FALSE(report->torn_tail);
}

TEST(Verify, AnotherVolumeIsAnErrorAndNotAProblemToCut) {
  auto disk = several_segments();
  FakeDirectory directory(disk);
  JournalIdentity other{.volume = {9, 9}, .branch = "main"};
  EXPECT_EQ(verify_journal(directory, other, 0).error().code(), Code::kWrongVolume);
  EXPECT_EQ(repair_journal(directory, other, 0, {}, fake_random).error().code(), Code::kWrongVolume);
}

TEST(Cursor, MissesABatchThatIsKnownToHaveBeenOnTheDisk) {
  auto disk = several_segments();
  FakeDirectory directory(disk);
  for (LogIndex hint : {kBatches, kBatches + 1}) {
    auto cursor = SegmentsCursor::open(directory, kIdentity, 0, hint);
    ASSERT_TRUE(cursor);
    for (LogIndex i = 1; i <= kBatches; ++i) ASSERT_TRUE(*(*cursor)->next());
    auto end = (*cursor)->next();
    EXPECT_EQ(end.has_value(), hint == kBatches) << hint;
    if (!end) {
      EXPECT_EQ(end.error().code(), Code::kCorrupt);
    }
  }
}

// Its checksums are right: only who decodes it sees that it is none.
TEST(Verify, ABatchThatCannotBeReadIsFound) {
  auto disk = FakeDisk::create();
  FakeDirectory directory(disk);
  SegmentHeader header{.volume = kIdentity.volume,
                       .id = fake_random.next_id<SegmentId>(),
                       .branch = kIdentity.branch,
                       .sequence = 1,
                       .first_index = 1};
  auto writer = *SegmentWriter::create(directory, header);
  uint64_t message_at = writer->state().offset + kFrameHeaderBytes;
  writer->add(make_batch(kOriginA, 1), 0);
  ASSERT_TRUE(writer->flush());
  Bytes& bytes = disk->files.at("0000000001.seg")->bytes;
  store_value(bytes.data() + message_at, uint64_t{0});  // how long the message is
  test::mend_segment(bytes);
  auto report = verify_journal(directory, kIdentity, 0);
  ASSERT_TRUE(report);
  EXPECT_TRUE(report->problem);
  EXPECT_EQ(report->batches, 0u);
}

// Where a peer must begin is looked up in it.
TEST(Verify, AHeaderWithAnotherVectorIsFound) {
  for (Lsn covered : {1, 2, 3}) {
    FakeDirectory directory(FakeDisk::create());
    SegmentHeader header{.volume = kIdentity.volume,
                         .id = fake_random.next_id<SegmentId>(),
                         .branch = kIdentity.branch,
                         .sequence = 1,
                         .first_index = 1};
    auto writer = *SegmentWriter::create(directory, header);
    for (Lsn lsn : {1, 2}) writer->add(make_batch(kOriginA, lsn), 0);
    ASSERT_TRUE(writer->add_summary(FrameKind::kSeal, 2));
    header.id = fake_random.next_id<SegmentId>();
    header.sequence = 2;
    header.first_index = 3;
    header.previous = writer->state().summary.chain;
    header.covered.set(kOriginA, covered);
    ASSERT_TRUE(SegmentWriter::create(directory, header));
    auto report = verify_journal(directory, kIdentity, 0);
    ASSERT_TRUE(report);
    EXPECT_EQ(report->problem.has_value(), covered != 2) << covered;
    if (report->problem) {
      EXPECT_NE(report->problem->message().find("vector"), std::string::npos);
    }
  }
}

// Its seal was made a close: opening refuses it, so whoever looks must see it too.
TEST(Verify, ASegmentThatAnotherFollowsEndsWithASeal) {
  auto disk = FakeDisk::create();
  FakeDirectory directory(disk);
  SegmentHeader header{
      .volume = kIdentity.volume, .id = {1, 2}, .branch = kIdentity.branch, .sequence = 1, .first_index = 1};
  auto first = *SegmentWriter::create(directory, header);
  first->add(make_batch(kOriginA, 1), 0);
  ASSERT_TRUE(first->add_summary(FrameKind::kClose, 1));
  header.id = {3, 4};
  header.sequence = 2;
  header.first_index = 2;
  header.previous = first->state().summary.chain;
  header.covered.set(kOriginA, 1);
  ASSERT_TRUE(SegmentWriter::create(directory, header));
  EXPECT_FALSE(recover_log(directory, kIdentity, 0));
  auto cursor = SegmentsCursor::open(directory, kIdentity, 0, 0);
  ASSERT_TRUE(cursor);
  EXPECT_TRUE((*cursor)->next());
  EXPECT_EQ((*cursor)->next().error().code(), Code::kCorrupt);
  auto report = verify_journal(directory, kIdentity, 0);
  ASSERT_TRUE(report);
  ASSERT_TRUE(report->problem);
  EXPECT_NE(report->problem->message().find("0000000001.seg: expected a seal"), std::string::npos)
      << report->problem->message();
  auto repair = repair_journal(directory, kIdentity, 0, {}, fake_random);
  ASSERT_TRUE(repair);
  EXPECT_EQ(repair->kept, (std::vector<std::string>{"0000000002.seg.cut-1"}));
  auto opened = recover_log(directory, kIdentity, repair->last);
  ASSERT_TRUE(opened) << opened.error().message();
  EXPECT_EQ(opened->recovery.last, 1u);
}

TEST(Repair, IsOfferedOnceByWhoRefusesAndNotByVerify) {
  auto disk = several_segments();
  disk->files.begin()->second->bytes.resize(disk->files.begin()->second->bytes.size() - 8);
  FakeDirectory directory(disk);
  auto count = [](const std::string& text) {
    size_t times = 0;
    for (size_t at = 0; (at = text.find("reprise repair", at)) != std::string::npos; ++at) ++times;
    return times;
  };
  auto report = verify_journal(directory, kIdentity, 0);
  ASSERT_TRUE(report && report->problem);
  EXPECT_EQ(count(report->problem->message()), 0u) << report->problem->message();
  auto opened = recover_log(directory, kIdentity, 0);
  ASSERT_FALSE(opened);
  EXPECT_EQ(count(opened.error().message()), 1u) << opened.error().message();
  auto cut_at_end = several_segments();
  auto last = std::prev(cut_at_end->files.end());
  last->second->bytes.resize(last->second->bytes.size() - 8);
  FakeDirectory second(cut_at_end);
  auto cursor = SegmentsCursor::open(second, kIdentity, 0, kBatches + 1);
  ASSERT_TRUE(cursor);
  Result<std::optional<Logged>> next;
  do next = (*cursor)->next();
  while (next && *next);
  ASSERT_FALSE(next);
  EXPECT_EQ(count(next.error().message()), 1u) << next.error().message();
}

TEST(Files, OfAJournalThatNobodyHasOpenAreTheSameAsOfOneThatIs) {
  auto disk = several_segments();
  FakeDirectory directory(disk);
  auto stopped = journal_files(directory, kIdentity);
  ASSERT_TRUE(stopped);
  EXPECT_EQ(stopped->bytes, all_bytes(*disk));
  EXPECT_FALSE(stopped->begins_anew);
  auto journal = *open_on(disk);
  auto live = journal->files();
  ASSERT_TRUE(live);
  ASSERT_EQ(live->segments.size(), stopped->segments.size());
  for (size_t i = 0; i < live->segments.size(); ++i) {
    EXPECT_EQ(live->segments[i].first_index, stopped->segments[i].first_index);
    EXPECT_EQ(live->segments[i].bytes, stopped->segments[i].bytes);
  }
  ASSERT_TRUE(journal->restart_at(100, {}));
  ASSERT_TRUE(journal->close());
  auto restarted = journal_files(directory, kIdentity);
  ASSERT_TRUE(restarted);
  EXPECT_TRUE(restarted->begins_anew);
  EXPECT_EQ(restarted->segments.front().first_index, 100u);
}

}  // namespace
}  // namespace reprise::journal

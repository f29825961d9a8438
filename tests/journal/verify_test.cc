#include "journal/verify.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "journal/compressed_segment.h"
#include "journal/recovery.h"
#include "journal/segments_cursor.h"
#include "tests/journal/batches.h"
#include "tests/journal/crash_disk.h"
#include "tests/journal/fake_world.h"
#include "tests/journal/mend_segment.h"

namespace reprise::journal {
namespace {

using test::FakeClock;
using test::FakeDirectory;
using test::FakeDisk;
using test::FakeRandom;
using test::kIdentity;
using test::kOriginA;
using test::make_batch;
using test::show;

FakeClock fake_clock;
FakeRandom fake_random;

Result<std::unique_ptr<Journal>> open_on(const std::shared_ptr<FakeDisk>& disk, LogIndex durable_hint = 0) {
  return Journal::open(std::make_unique<FakeDirectory>(disk), kIdentity,
                       {.segment_bytes = 1500, .compress = false}, fake_clock, fake_random, durable_hint,
                       nullptr);
}

constexpr LogIndex kBatches = 12;

std::shared_ptr<FakeDisk> several_segments() {
  auto disk = FakeDisk::create();
  auto journal = *open_on(disk);
  for (LogIndex i = 1; i <= kBatches; ++i) EXPECT_TRUE(journal->append(make_batch(kOriginA, i)));
  EXPECT_TRUE(journal->close());
  EXPECT_GE(disk->files.size(), 3u);
  return disk;
}

uint64_t all_bytes(FakeDisk& disk) {
  uint64_t bytes = 0;
  for (const auto& [name, content] : disk.files) bytes += content->bytes.size();
  return bytes;
}

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

TEST(Verify, EveryFlippedByteIsFoundAndRepairLeavesAPrefix) {
  auto good = several_segments();
  uint64_t before = all_bytes(*good);
  for (const auto& [name, content] : good->files) {
    for (size_t at = 0; at < content->bytes.size(); at += 3) {
      auto disk = good->copy();
      disk->files.at(name)->bytes[at] ^= std::byte{0x20};
      FakeDirectory directory(disk);
      auto report = verify_journal(directory, kIdentity, 0);
      if (!report) {  // a volume or version of another number: refused as such only with a good checksum
        ADD_FAILURE() << name << " " << at << ": " << report.error().message();
        continue;
      }
      ASSERT_TRUE(report->problem) << name << " " << at;
      EXPECT_NE(report->problem->message().find(name), std::string::npos) << report->problem->message();

      auto repair = repair_journal(directory, kIdentity);
      ASSERT_TRUE(repair) << repair.error().message();
      EXPECT_EQ(repair->last, report->last);
      EXPECT_FALSE(repair->kept.empty());
      EXPECT_EQ(all_bytes(*disk), before) << "bytes were destroyed";
      auto again = verify_journal(directory, kIdentity, repair->last);
      ASSERT_TRUE(again);
      EXPECT_FALSE(again->problem) << again->problem->message();

      auto journal = open_on(disk, repair->last);
      ASSERT_TRUE(journal) << journal.error().message();
      auto cursor = (*journal)->read(1);
      for (LogIndex i = 1; i <= repair->last; ++i)
        EXPECT_EQ(show((**cursor->next()).batch), show(make_batch(kOriginA, i)));
      EXPECT_FALSE(*cursor->next());
    }
  }
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

TEST(Verify, RepairOfAGoodJournalChangesNothing) {
  auto disk = several_segments();
  int calls = disk->calls;
  FakeDirectory directory(disk);
  auto repair = repair_journal(directory, kIdentity);
  ASSERT_TRUE(repair);
  EXPECT_TRUE(repair->kept.empty());
  EXPECT_EQ(repair->last, kBatches);
  EXPECT_EQ(disk->calls, calls);
}

TEST(Verify, AnotherVolumeIsAnErrorAndNotAProblemToCut) {
  auto disk = several_segments();
  FakeDirectory directory(disk);
  JournalIdentity other{.volume = {9, 9}, .branch = "main"};
  EXPECT_EQ(verify_journal(directory, other, 0).error().code(), Code::kWrongVolume);
  EXPECT_EQ(repair_journal(directory, other).error().code(), Code::kWrongVolume);
}

TEST(Verify, RepairMayFailAnywhereAndBeRunAgain) {
  auto damaged = several_segments();
  damaged->files.at("0000000002.seg")->bytes[400] ^= std::byte{1};
  for (int k = 0;; ++k) {
    auto disk = damaged->copy();
    disk->calls_until_failure = k;
    FakeDirectory directory(disk);
    auto first = repair_journal(directory, kIdentity);
    disk->calls_until_failure = -1;
    auto second = repair_journal(directory, kIdentity);
    ASSERT_TRUE(second) << k << ": " << second.error().message();
    EXPECT_TRUE(open_on(disk)) << k;
    EXPECT_GE(all_bytes(*disk), all_bytes(*damaged)) << k;
    if (first) break;
    ASSERT_LT(k, 100);
  }
}

// Is every byte of the segment still there: in its place, in a file that was set aside, or in both together?
bool is_kept(const test::Files& files, const std::string& name, const Bytes& original) {
  auto place = files.find(name);
  Bytes left = place == files.end() ? Bytes() : place->second;
  if (left == original) return true;
  return std::ranges::any_of(files, [&](const auto& file) {
    if (!file.first.starts_with(name + ".cut-")) return false;
    Bytes both = left;
    append_bytes(both, file.second);
    return file.second == original || both == original;
  });
}

// Power fails at every event of a repair, and whatever was not synced is there or not: no byte is lost, and
// what is found can be repaired again.
void expect_nothing_destroyed(const test::Files& damaged) {
  auto disk = std::make_shared<test::CrashDisk>(damaged);
  test::CrashDirectory directory(disk);
  auto repaired = repair_journal(directory, kIdentity);
  ASSERT_TRUE(repaired) << repaired.error().message();
  ASSERT_FALSE(repaired->kept.empty());
  test::Platters platters(damaged);
  FakeRandom chance(11);
  size_t points = 0;
  auto check = [&](const test::Files& files, const char* which) {
    ++points;
    for (const auto& [name, bytes] : damaged)
      ASSERT_TRUE(is_kept(files, name, bytes)) << name << " after " << points << ", " << which;
    test::CrashDirectory left(std::make_shared<test::CrashDisk>(files));
    ASSERT_TRUE(repair_journal(left, kIdentity)) << points << ", " << which;
    auto report = verify_journal(left, kIdentity, 0);
    ASSERT_TRUE(report && !report->problem) << points << ", " << which;
    ASSERT_EQ(report->last, repaired->last) << points << ", " << which;
  };
  for (const test::DiskEvent& event : disk->trace()) {
    platters.advance(event);
    check(platters.survivors([](size_t) { return test::Fate{}; }), "all kept");
    check(platters.survivors([](size_t) { return test::Fate{.kind = test::Fate::kLost}; }), "all lost");
    for (int n = 0; n < 8; ++n) {
      check(platters.survivors([&](size_t) {
        auto kind = static_cast<test::Fate::Kind>(chance.next() % 3);
        return test::Fate{.kind = kind, .sectors = chance.next()};
      }),
            "any");
    }
  }
  EXPECT_GT(points, 50u);
}

TEST(Repair, DestroysNothingWhereverPowerFails) {
  const auto good = several_segments();
  for (const auto& [name, content] : good->files) {
    auto disk = good->copy();
    disk->files.at(name)->bytes[400] ^= std::byte{1};
    test::Files damaged;
    for (const auto& [other, bytes] : disk->files) damaged[other] = bytes->bytes;
    expect_nothing_destroyed(damaged);
  }
}

TEST(Repair, DestroysNothingOfACompressedOneWhereverPowerFails) {
  auto disk = several_segments();
  FakeDirectory directory(disk);
  ASSERT_TRUE(compress_segment(directory, 2, [] { return false; }));
  ASSERT_TRUE(replace_by_compressed(directory, 2));
  test::Files damaged;
  for (const auto& [name, content] : disk->files) damaged[name] = content->bytes;
  Bytes& bytes = damaged.at("0000000002.seg");
  bytes[bytes.size() / 2] ^= std::byte{1};
  expect_nothing_destroyed(damaged);
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
  auto repair = repair_journal(directory, kIdentity);
  ASSERT_TRUE(repair);
  EXPECT_EQ(repair->kept, (std::vector<std::string>{"0000000002.seg.cut-1"}));
  auto opened = recover_log(directory, kIdentity, repair->last);
  ASSERT_TRUE(opened) << opened.error().message();
  EXPECT_EQ(opened->recovery.last, 1u);
}

TEST(Repair, WhatIsLeftCanBeSetAsideAsWellAndIsNamed) {
  auto disk = several_segments();
  uint64_t before = all_bytes(*disk);
  auto second = std::next(disk->files.begin());
  second->second->bytes[200] ^= std::byte{1};
  FakeDirectory directory(disk);
  auto repair = repair_journal(directory, kIdentity);
  ASSERT_TRUE(repair);
  size_t cut = repair->kept.size();
  auto left = list_segments(directory);
  ASSERT_TRUE(left);
  ASSERT_FALSE(left->empty());
  ASSERT_TRUE(set_aside_segments(directory, *repair));
  EXPECT_EQ(repair->kept.size(), cut + left->size());
  EXPECT_TRUE(list_segments(directory)->empty());
  EXPECT_EQ(all_bytes(*disk), before) << "bytes were destroyed";
  for (const std::string& name : repair->kept) EXPECT_TRUE(disk->files.contains(name)) << name;
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

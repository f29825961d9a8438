// Segments that have ended, compressed: the same batches, found at once, whatever happens meanwhile.
#include <gtest/gtest.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <thread>

#include "journal/compressed_segment.h"
#include "journal/journal.h"
#include "journal/recovery.h"
#include "journal/repair.h"
#include "journal/segments_cursor.h"
#include "tests/journal/batches.h"
#include "tests/journal/crash_disk.h"
#include "tests/journal/fake_world.h"
#include "tests/journal/mend_segment.h"

namespace reprise::journal {
namespace {

using test::CrashDirectory;
using test::CrashDisk;
using test::FakeDirectory;
using test::FakeDisk;
using test::FakeRandom;
using test::kIdentity;
using test::kOriginA;
using test::kOriginB;
using test::make_batch;

FakeRandom fake_random;
constexpr const char* kFirst = "0000000001.seg";

bool never() {
  return false;
}

// Sizes that make blocks begin within frames and between them, and frames longer than a block.
Batch batch_of(OriginId origin, Lsn lsn) {
  return make_batch(origin, lsn, lsn % 50 == 7 ? 600'000 : lsn * 7919 % 20'000);
}

template <class Disk>
Result<std::unique_ptr<Journal>> open_on(std::unique_ptr<Disk> directory, bool compress,
                                         uint64_t segment_bytes = 1 << 20) {
  JournalOptions options{.segment_bytes = segment_bytes, .recent_bytes = 0, .compress = compress};
  return Journal::open(std::move(directory), kIdentity, options, fake_random, 0, nullptr);
}

void append(Journal& journal, OriginId origin, Lsn from, Lsn to) {
  for (Lsn lsn = from; lsn <= to; ++lsn) {
    ASSERT_TRUE(journal.reserve(batch_of(origin, lsn).encoded_bytes()));
    ASSERT_TRUE(journal.append(batch_of(origin, lsn)));
  }
  ASSERT_TRUE(journal.sync(journal.last()));
}

// All but the last segment; fails after ten seconds.
void wait_until_compressed(Journal& journal) {
  for (int i = 0; i < 2000; ++i) {
    JournalFiles files = journal.files().value();
    if (files.compressed + 1 == files.segments.size()) return;
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  FAIL() << "not compressed in time";
}

TEST(Compression, SegmentsThatEndAreCompressedAndReadAsBefore) {
  auto disk = FakeDisk::create();
  auto journal = *open_on(std::make_unique<FakeDirectory>(disk), true);
  append(*journal, kOriginA, 1, 400);
  wait_until_compressed(*journal);
  JournalFiles files = journal->files().value();
  EXPECT_GT(files.compressed, 5u);
  EXPECT_FALSE(files.compression_failure);
  EXPECT_LT(files.bytes * 3, journal->bytes_from(1).value()) << "these bytes compress well";

  // From anywhere, forwards.
  for (LogIndex from = 1; from <= 400; from += 13) {
    auto cursor = journal->read(from);
    for (LogIndex index = from; index < std::min<LogIndex>(from + 3, 401); ++index) {
      auto logged = cursor->next();
      ASSERT_TRUE(logged) << logged.error().message();
      ASSERT_TRUE(*logged);
      EXPECT_EQ((*logged)->index, index);
      EXPECT_EQ((*logged)->batch.checksum(), batch_of(kOriginA, index).checksum());
    }
    Vector vector;
    vector.set(kOriginA, from - 1);
    EXPECT_EQ(journal->position_of(vector).value(), from);
  }
  uint64_t bytes = 0;
  for (LogIndex from = 400; from > 0; --from) {
    bytes += batch_of(kOriginA, from).encoded_bytes();
    if (from % 29 == 0) {
      EXPECT_EQ(journal->bytes_from(from).value(), bytes);
    }
  }
  ASSERT_TRUE(journal->close());

  FakeDirectory directory(disk);
  auto report = verify_journal(directory, kIdentity, 400).value();
  EXPECT_FALSE(report.problem) << report.problem->message();
  EXPECT_EQ(report.last, 400u);
  for (LogIndex from : {1, 2, 77, 255, 399, 400}) {
    auto cursor = *SegmentsCursor::open(directory, kIdentity, from, 400);
    auto logged = cursor->next();
    ASSERT_TRUE(logged && *logged) << from;
    EXPECT_EQ((*logged)->index, from);
  }
}

TEST(Compression, PositionsAreFoundWhereSeveralOriginsTookTurns) {
  auto disk = FakeDisk::create();
  auto journal = *open_on(std::make_unique<FakeDirectory>(disk), true);
  Lsn lsn_a = 0, lsn_b = 0;
  std::vector<Vector> vectors = {{}};  // after each batch
  for (int i = 0; i < 300; ++i) {
    bool a = i < 100 || i % 3 == 0;
    ASSERT_TRUE(journal->append(a ? batch_of(kOriginA, ++lsn_a) : batch_of(kOriginB, ++lsn_b)));
    vectors.push_back(vectors.back());
    vectors.back().set(a ? kOriginA : kOriginB, a ? lsn_a : lsn_b);
  }
  ASSERT_TRUE(journal->sync(300));
  wait_until_compressed(*journal);
  for (size_t i = 0; i < vectors.size(); ++i) EXPECT_EQ(journal->position_of(vectors[i]).value(), i + 1);
  // One that has more of one origin than of the other.
  Vector ahead = vectors[120];
  ahead.set(kOriginA, lsn_a);
  LogIndex expected = 1;
  while (ahead.covers(vectors[expected])) ++expected;
  EXPECT_EQ(journal->position_of(ahead).value(), expected);
}

TEST(Compression, WhatWasNotCompressedYetIsWhenTheJournalIsOpenedAgain) {
  auto disk = FakeDisk::create();
  {
    auto journal = *open_on(std::make_unique<FakeDirectory>(disk), false);
    append(*journal, kOriginA, 1, 200);
    EXPECT_EQ(journal->files()->compressed, 0u);
    ASSERT_TRUE(journal->close());
  }
  for (Lsn lsn = 201; lsn <= 220; lsn += 10) {
    auto journal = *open_on(std::make_unique<FakeDirectory>(disk), true);
    wait_until_compressed(*journal);
    append(*journal, kOriginA, lsn, lsn + 9);
    auto cursor = journal->read(1);
    for (LogIndex index = 1; index <= lsn; ++index)
      ASSERT_EQ(cursor->next().value()->batch.checksum(), batch_of(kOriginA, index).checksum());
    ASSERT_TRUE(journal->close());
  }
}

// The last segment may have ended and be compressed, after a crash or a repair: the log goes on behind it.
TEST(Compression, AJournalThatEndsWithACompressedSegmentGoesOn) {
  auto disk = FakeDisk::create();
  {
    auto journal = *open_on(std::make_unique<FakeDirectory>(disk), true);
    append(*journal, kOriginA, 1, 60);
    wait_until_compressed(*journal);
    ASSERT_GT(journal->files()->segments.size(), 1u);
    ASSERT_TRUE(journal->close());
  }
  disk->files.erase(std::prev(disk->files.end()));
  std::string last = std::prev(disk->files.end())->first;
  Bytes before = disk->files.at(last)->bytes;
  auto journal = *open_on(std::make_unique<FakeDirectory>(disk), true);
  LogIndex end = journal->last();
  ASSERT_GT(end, 10u);
  append(*journal, kOriginA, end + 1, end + 5);
  ASSERT_TRUE(journal->close());
  EXPECT_EQ(disk->files.at(last)->bytes, before) << "nothing is written to it";
  FakeDirectory directory(disk);
  auto report = verify_journal(directory, kIdentity, end + 5).value();
  EXPECT_FALSE(report.problem) << report.problem->message();
  EXPECT_EQ(report.last, end + 5);
}

TEST(Compression, TrimmingAndRestartingMeetItAtAnyTime) {
  for (int round = 0; round < 40; ++round) {
    auto disk = FakeDisk::create();
    auto journal = *open_on(std::make_unique<FakeDirectory>(disk), true, 20'000);
    append(*journal, kOriginA, 1, 40);
    std::this_thread::sleep_for(std::chrono::microseconds(round * 97));
    LogIndex first = journal->trim(20).value();
    append(*journal, kOriginA, 41, 60);
    if (round % 2 == 0) {
      if (round % 8 == 0) {  // with the writer at work
        for (Lsn lsn = 61; lsn <= 64; ++lsn) ASSERT_TRUE(journal->append(batch_of(kOriginA, lsn)));
      }
      Vector covered;
      covered.set(kOriginA, 60);
      ASSERT_TRUE(journal->restart_at(100, covered));
      first = 100;
      append(*journal, kOriginA, 61, 80);
    }
    LogIndex last = journal->last();
    if (round % 4 < 2) wait_until_compressed(*journal);
    ASSERT_TRUE(journal->close());
    FakeDirectory directory(disk);
    auto report = verify_journal(directory, kIdentity, last).value();
    EXPECT_FALSE(report.problem) << report.problem->message();
    EXPECT_EQ(report.first, first);
    EXPECT_EQ(report.last, last);
    for (const auto& [name, content] : disk->files) EXPECT_TRUE(parse_segment_name(name)) << name;
  }
}

// A journal of two ended segments and one more, on a disk that records what is done to it.
std::shared_ptr<CrashDisk> two_segments() {
  auto disk = std::make_shared<CrashDisk>();
  auto journal = *open_on(std::make_unique<CrashDirectory>(disk), false, 4000);
  for (Lsn lsn = 1; journal->files()->segments.size() < 3; ++lsn) {
    EXPECT_TRUE(journal->append(make_batch(kOriginA, lsn, 300)));
    EXPECT_TRUE(journal->sync(lsn));
  }
  EXPECT_TRUE(journal->close());
  return disk;
}

enum class Fault { kWrite, kSpace, kSync };

std::string fault_name(const testing::TestParamInfo<Fault>& parameter) {
  constexpr const char* kNames[] = {"EioOnWrite", "NoSpace", "EioOnSync"};
  return kNames[static_cast<size_t>(parameter.param)];
}

class CompressionFault : public testing::TestWithParam<Fault> {};
INSTANTIATE_TEST_SUITE_P(Faults, CompressionFault,
                         testing::Values(Fault::kWrite, Fault::kSpace, Fault::kSync), fault_name);

// Compresses both segments; the n-th write or sync fails. Did it?
bool compress_with_fault(const std::shared_ptr<CrashDisk>& disk, Fault fault, size_t n) {
  if (fault == Fault::kSync) {
    disk->fail_sync(n, EIO);
  } else {
    disk->fail_write(n, fault == Fault::kWrite ? EIO : ENOSPC);
  }
  CrashDirectory directory(disk);
  for (uint64_t sequence : {1, 2}) {
    if (compress_segment(directory, sequence, never))
      static_cast<void>(replace_by_compressed(directory, sequence));
  }
  bool happened = disk->fault_happened();
  disk->heal();
  return happened;
}

TEST_P(CompressionFault, LosesNothing) {
  size_t n = 0;
  for (bool failed = true; failed; ++n) {
    auto disk = two_segments();
    failed = compress_with_fault(disk, GetParam(), n);
    CrashDirectory directory(disk);
    auto report = verify_journal(directory, kIdentity, 0).value();
    ASSERT_FALSE(report.problem) << report.problem->message();
    auto journal = *open_on(std::make_unique<CrashDirectory>(disk), true, 4000);
    ASSERT_EQ(journal->last(), report.last);
    wait_until_compressed(*journal);
    auto cursor = journal->read(1);
    for (LogIndex index = 1; index <= report.last; ++index)
      ASSERT_EQ(cursor->next().value()->batch.checksum(), make_batch(kOriginA, index, 300).checksum());
  }
  EXPECT_GE(n, GetParam() == Fault::kSync ? 3u : 6u) << "header, block, index with its end, of two";
}

TEST(Compression, ADamagedSegmentStaysAsItIs) {
  auto disk = FakeDisk::create();
  {
    auto journal = *open_on(std::make_unique<FakeDirectory>(disk), false);
    append(*journal, kOriginA, 1, 200);
    ASSERT_TRUE(journal->close());
  }
  Bytes& bytes = disk->files.at("0000000002.seg")->bytes;
  bytes[bytes.size() / 2] ^= std::byte{4};
  Bytes damaged = bytes;
  auto journal = *open_on(std::make_unique<FakeDirectory>(disk), true);
  for (int i = 0; i < 2000; ++i) {
    JournalFiles files = journal->files().value();
    if (files.compressed + 2 == files.segments.size()) break;
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  JournalFiles files = journal->files().value();
  EXPECT_EQ(files.compressed + 2, files.segments.size()) << "all but the damaged one and the last";
  ASSERT_TRUE(files.compression_failure);
  EXPECT_EQ(files.compression_failure->code(), Code::kCorrupt);
  EXPECT_NE(files.compression_failure->message().find("0000000002.seg"), std::string::npos);
  ASSERT_TRUE(journal->close());
  EXPECT_EQ(disk->files.at("0000000002.seg")->bytes, damaged);
  EXPECT_FALSE(disk->files.contains("0000000002.seg.new"));
}

// Where the blocks of a compressed segment lie in its file, as its index says.
std::vector<std::pair<uint64_t, uint64_t>> blocks_of(ByteView file) {
  const std::byte* end = file.data() + file.size() - 48;
  std::vector<std::pair<uint64_t, uint64_t>> blocks;
  for (const std::byte* entry = file.data() + load_value<uint64_t>(end + 16); entry < end; entry += 48)
    blocks.emplace_back(load_value<uint64_t>(entry), load_value<uint32_t>(entry + 8));
  return blocks;
}

// Of a compressed segment, by what it was before: the batches whose frames end before block `n`.
LogIndex batches_before_block(Directory& directory, size_t n) {
  auto reader = SegmentReader::open(directory.open(kFirst, OpenMode::kRead).value()).value();
  uint64_t begin = reader->state().offset + n * uint64_t{CompressedSegment::kBlockBytes};
  LogIndex count = 0;
  while (auto frame = reader->next().value()) {
    if (frame->end() > begin) break;
    count += frame->is_batch();
  }
  return count;
}

// The batches before the damaged block are kept in a plain segment, and the file as it was beside it.
TEST(Compression, RepairKeepsWhatIsGoodOfADamagedOne) {
  auto disk = FakeDisk::create();
  {
    auto journal = *open_on(std::make_unique<FakeDirectory>(disk), true, 3 << 20);
    append(*journal, kOriginA, 1, 500);
    wait_until_compressed(*journal);
    ASSERT_TRUE(journal->close());
  }
  FakeDirectory directory(disk);
  auto blocks = blocks_of(disk->files.at(kFirst)->bytes);
  ASSERT_GT(blocks.size(), 8u);
  for (size_t n = 0; n < blocks.size(); ++n) {
    auto copy = disk->copy();
    FakeDirectory damaged(copy);
    Bytes& bytes = copy->files.at(kFirst)->bytes;
    size_t hit = blocks[n].first + blocks[n].second / 2;
    for (size_t at : {hit, hit + 1}) bytes[at] ^= std::byte{1};  // more than can be put right
    Bytes before = bytes;
    LogIndex expected = batches_before_block(directory, n);
    // Who reads gets as far.
    auto cursor = SegmentsCursor::open(damaged, kIdentity, 0, 0);
    ASSERT_TRUE(cursor);
    for (LogIndex index = 1; index <= expected; ++index) ASSERT_TRUE((*cursor)->next()) << index;
    EXPECT_FALSE((*cursor)->next());
    auto repair = repair_journal(damaged, kIdentity, 0, {}, fake_random);
    ASSERT_TRUE(repair) << repair.error().message();
    ASSERT_EQ(repair->problems.size(), 1u);
    EXPECT_EQ(repair->last, expected) << n;
    EXPECT_GT(repair->cut_bytes, 0u);
    EXPECT_EQ(copy->files.at("0000000001.seg.cut-1")->bytes, before) << "all of it is kept";
    auto again = verify_journal(damaged, kIdentity, repair->last).value();
    EXPECT_FALSE(again.problem) << again.problem->message();
    EXPECT_EQ(again.last, repair->last);
    auto journal = *open_on(std::make_unique<FakeDirectory>(copy), true);
    EXPECT_EQ(journal->last(), repair->last);
    append(*journal, kOriginA, repair->last + 1, repair->last + 1);
  }
}

// Checksums are right, so that it is the values of the index that are tried.
TEST(Compression, AHostileIndexIsRefusedOrReadAsItIs) {
  auto disk = two_segments();
  CrashDirectory directory(disk);
  ASSERT_TRUE(compress_segment(directory, 1, never));
  ASSERT_TRUE(replace_by_compressed(directory, 1));
  const Bytes original = directory.read_file(kFirst, 1 << 20).value();
  const SegmentHeader header =
      SegmentReader::open(*directory.open(kFirst, OpenMode::kRead)).value()->header();
  const size_t trailer = original.size() - 48;
  const auto index = load_value<uint64_t>(original.data() + trailer + 16);
  ASSERT_EQ((trailer - index) % 48, 0u);
  int refused = 0, tried = 0;
  auto mend = [&](Bytes& bytes) {
    store_value(bytes.data() + trailer + 32, hash64(ByteView(bytes).subspan(index, trailer - index)));
    store_value(bytes.data() + trailer + 40,
                hash64(ByteView(bytes).subspan(trailer, 40), placement_seed(header.id, 0)));
  };
  // So many bytes that counting their blocks overflows to none.
  Bytes none = original;
  none.erase(none.begin() + static_cast<ptrdiff_t>(index), none.begin() + static_cast<ptrdiff_t>(trailer));
  store_value(none.data() + index + 8, UINT64_MAX);
  store_value(none.data() + index + 24, uint32_t{0});
  store_value(none.data() + index + 32, hash64(ByteView()));
  store_value(none.data() + index + 40,
              hash64(ByteView(none).subspan(index, 40), placement_seed(header.id, 0)));
  auto without_blocks = FakeDisk::create();
  without_blocks->files[kFirst] = std::make_shared<FakeDisk::Content>(none);
  auto found = verify_journal(*std::make_unique<FakeDirectory>(without_blocks), kIdentity, 0);
  EXPECT_TRUE(!found || found->problem);
  for (size_t at = index; at < original.size() - 8; at += 4) {
    for (uint32_t value : {0u, 1u, 2u, 0x100u, 0x40000u, 0x7fffffffu, 0xffffffffu}) {
      Bytes bytes = original;
      store_value(bytes.data() + at, value);
      mend(bytes);
      if (bytes == original) continue;
      auto fake = FakeDisk::create();
      fake->files[kFirst] = std::make_shared<FakeDisk::Content>(bytes);
      FakeDirectory hostile(fake);
      auto report = verify_journal(hostile, kIdentity, 0);
      ++tried;
      if (!report || report->problem) ++refused;
      auto cursor = SegmentsCursor::open(hostile, kIdentity, 2, 0);
      if (!cursor) continue;
      for (LogIndex expected = 2;; ++expected) {
        auto logged = (*cursor)->next();
        if (!logged || !*logged) break;
        ASSERT_EQ((*logged)->batch.checksum(), make_batch(kOriginA, expected, 300).checksum());
      }
    }
  }
  EXPECT_GT(tried, 50);
  EXPECT_GE(refused, tried - 1) << "only that no frame begins in a block may be said, and is no harm";
}

}  // namespace
}  // namespace reprise::journal

// The index of a compressed segment that is damaged, or says what is not so, while its blocks are whole: it
// is made anew, and nothing is lost.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "base/hash.h"
#include "journal/compressed_segment.h"
#include "journal/recovery.h"
#include "journal/repair.h"
#include "tests/journal/several_segments.h"

namespace reprise::journal {
namespace {

using namespace test;

constexpr size_t kEntry = 48, kEnd = 48;
constexpr LogIndex kLast = 40;
const std::string kSecond = "0000000002.seg";

RepairBase base_at(LogIndex index) {
  RepairBase base{.index = index, .vector = {}};
  base.vector.set(kOriginA, index);
  return base;
}

// The second of three segments is compressed, and has several blocks.
std::shared_ptr<FakeDisk> with_compressed() {
  auto disk = FakeDisk::create();
  auto journal = *Journal::open(std::make_unique<FakeDirectory>(disk), kIdentity,
                                {.segment_bytes = 1 << 20, .compress = false}, fake_random, 0, nullptr);
  for (LogIndex i = 1; i <= kLast; ++i) {
    Batch batch = make_batch(kOriginA, i, 70'000);
    EXPECT_TRUE(journal->reserve(batch.encoded_bytes()));
    EXPECT_TRUE(journal->append(batch));
  }
  EXPECT_TRUE(journal->close());
  EXPECT_EQ(disk->files.size(), 3u);
  FakeDirectory directory(disk);
  EXPECT_TRUE(compress_segment(directory, 2, [] { return false; }));
  EXPECT_TRUE(replace_by_compressed(directory, 2));
  return disk;
}

uint64_t index_of(const Bytes& file) {
  return load_value<uint64_t>(file.data() + file.size() - kEnd + 16);
}

void mend_checksums(Bytes& file) {
  const size_t end = file.size() - kEnd;
  const uint64_t index = index_of(file);
  const SegmentId id{load_value<uint64_t>(file.data() + 48), load_value<uint64_t>(file.data() + 56)};
  store_value(file.data() + end + 32, hash64(ByteView(file).subspan(index, end - index)));
  store_value(file.data() + end + 40, hash64(ByteView(file).subspan(end, 40), placement_seed(id, 0)));
}

// Nothing is lost, what was there is kept, and there is nothing to do a second time; the first problem.
std::string expect_mended(const std::shared_ptr<FakeDisk>& good, const std::shared_ptr<FakeDisk>& disk,
                          std::span<const RepairBase> bases, const std::string& what) {
  const Bytes before = disk->files.at(kSecond)->bytes;
  FakeDirectory directory(disk);
  auto repair = repair_journal(directory, kIdentity, 0, bases, fake_random);
  EXPECT_TRUE(repair) << what << ": " << repair.error().message();
  if (!repair) return "";
  EXPECT_EQ(repair->first, 1u) << what;
  EXPECT_EQ(repair->last, kLast) << what;
  EXPECT_EQ(repair->corrected.size(), 1u) << what;
  for (const auto& [name, content] : good->files)
    EXPECT_EQ(disk->files.at(name)->bytes == content->bytes, true) << what << ": " << name;
  const Bytes& right = good->files.at(kSecond)->bytes;
  Bytes original(right.begin(), right.begin() + static_cast<ptrdiff_t>(index_of(right)));
  if (!repair->kept.empty()) append_bytes(original, disk->files.at(kSecond + ".cut-1")->bytes);
  EXPECT_TRUE(original == before) << what << ": bytes were destroyed";
  auto again = repair_journal(directory, kIdentity, 0, bases, fake_random);
  EXPECT_TRUE(again && again->problems.empty()) << what;
  return repair->problems.empty() ? "" : repair->problems[0].message();
}

// Checksums are right. Each field of each entry that says something of the frames is another.
TEST(IndexRepair, TheFramesAreBelievedAndNotWhatIsSaidOfThem) {
  const auto good = with_compressed();
  const Bytes right = good->files.at(kSecond)->bytes;
  size_t tried = 0;
  for (uint64_t entry = index_of(right); entry < right.size() - kEnd; entry += kEntry) {
    if (load_value<uint64_t>(right.data() + entry + 24) == 0) continue;
    for (size_t field : {24, 32, 40}) {
      for (uint64_t delta : {uint64_t{1}, uint64_t{8}, uint64_t{0} - 8}) {
        Bytes bytes = right;
        const auto value = load_value<uint64_t>(bytes.data() + entry + field) + delta;
        store_value(bytes.data() + entry + field, value);
        mend_checksums(bytes);
        const std::string what = fmt::format("entry at {}, {}: {}", entry, field, value);
        for (LogIndex base : {LogIndex{0}, LogIndex{1}, LogIndex{20}, kLast}) {
          auto disk = good->copy();
          disk->files.at(kSecond)->bytes = bytes;
          std::vector<RepairBase> bases;
          if (base != 0) bases.push_back(base_at(base));
          std::string found = expect_mended(good, disk, bases, fmt::format("{}, of {}", what, base));
          const bool within_block = found.find("expected a frame that begins in it") != std::string::npos;
          EXPECT_TRUE(within_block || found.find("expected an index") != std::string::npos) << what << found;
          if (field == 40) {
            EXPECT_NE(found.find(fmt::format("behind {} encoded bytes", value - delta)), std::string::npos);
            EXPECT_TRUE(found.ends_with(fmt::format("behind {}", value))) << what << ": " << found;
          }
          ++tried;
        }
      }
    }
  }
  EXPECT_GE(tried, 100u);
}

// Whatever is there of it, or behind the blocks in its place.
TEST(IndexRepair, NothingNeedsToBeLeftOfIt) {
  const auto good = with_compressed();
  const Bytes right = good->files.at(kSecond)->bytes;
  const uint64_t index = index_of(right);
  for (uint64_t size = index; size < right.size(); size += 7) {
    auto disk = good->copy();
    disk->files.at(kSecond)->bytes.resize(size);
    expect_mended(good, disk, {}, fmt::format("cut at {}", size));
    disk = good->copy();
    Bytes& bytes = disk->files.at(kSecond)->bytes;
    std::fill(bytes.begin() + static_cast<ptrdiff_t>(size == right.size() - 1 ? size - 2 : size), bytes.end(),
              std::byte{0x55});
    expect_mended(good, disk, {}, fmt::format("others from {}", size));
  }
}

// With the batches that begin before a block, of the segment as it was written.
LogIndex last_before_block(const std::shared_ptr<FakeDisk>& good, size_t block) {
  FakeDirectory directory(good);
  auto reader = SegmentReader::open(*directory.open(kSecond, OpenMode::kRead)).value();
  const uint64_t end = reader->state().offset + block * uint64_t{CompressedSegment::kBlockBytes};
  LogIndex last = reader->header().first_index - 1;
  while (auto frame = reader->next().value()) {
    if (frame->end() > end) break;
    last = frame->header.index;
  }
  return last;
}

// The file was cut somewhere, or a block is damaged and the index gone: what is before that is left.
TEST(IndexRepair, BlocksThatAreWholeAreLeft) {
  const auto good = with_compressed();
  const Bytes right = good->files.at(kSecond)->bytes;
  const uint64_t index = index_of(right);
  const size_t blocks = (right.size() - kEnd - index) / kEntry;
  ASSERT_GE(blocks, 4u);
  for (size_t block = 0; block < blocks; ++block) {
    const auto begin = load_value<uint64_t>(right.data() + index + block * kEntry);
    const auto bytes_in_it = load_value<uint32_t>(right.data() + index + block * kEntry + 8);
    const LogIndex expected = last_before_block(good, block);
    for (bool cut : {false, true}) {
      auto disk = good->copy();
      Bytes& bytes = disk->files.at(kSecond)->bytes;
      bytes.resize(cut ? begin + bytes_in_it - 1 : index);
      if (!cut) std::fill_n(bytes.begin() + static_cast<ptrdiff_t>(begin + 9), 30, std::byte{0xff});
      FakeDirectory directory(disk);
      auto repair = repair_journal(directory, kIdentity, 0, {}, fake_random);
      ASSERT_TRUE(repair) << repair.error().message();
      EXPECT_EQ(repair->last, expected) << block << " " << cut;
      auto report = verify_journal(directory, kIdentity, expected).value();
      EXPECT_FALSE(report.problem) << block << " " << cut << ": " << report.problem->message();
    }
  }
}

// The disk fails at any change: another repair ends the same.
TEST(IndexRepair, MayBeInterruptedAnywhere) {
  const auto good = with_compressed();
  auto damaged = good->copy();
  Bytes& bytes = damaged->files.at(kSecond)->bytes;
  store_value(bytes.data() + index_of(bytes) + 40, uint64_t{12345});
  mend_checksums(bytes);
  for (int calls = 0;; ++calls) {
    ASSERT_LT(calls, 50);
    auto disk = damaged->copy();
    disk->calls_until_failure = calls;
    FakeDirectory directory(disk);
    auto first = repair_journal(directory, kIdentity, 0, {}, fake_random);
    disk->calls_until_failure = -1;
    auto second = repair_journal(directory, kIdentity, 0, {}, fake_random);
    ASSERT_TRUE(second) << second.error().message();
    EXPECT_EQ(second->last, kLast) << calls;
    EXPECT_TRUE(disk->files.at(kSecond)->bytes == good->files.at(kSecond)->bytes) << calls;
    if (first) {
      EXPECT_GE(calls, 4);
      break;
    }
  }
}

}  // namespace
}  // namespace reprise::journal

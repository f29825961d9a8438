// What opening makes of damaged files: every cut and every flipped byte, below and above what is known to be
// durable.
#include <gtest/gtest.h>

#include "journal/journal.h"
#include "journal/segment_reader.h"
#include "journal/segments_cursor.h"
#include "tests/journal/batches.h"
#include "tests/journal/fake_world.h"

namespace reprise::journal {
namespace {

using test::FakeDirectory;
using test::FakeDisk;
using test::FakeRandom;
using test::kIdentity;
using test::kOriginA;
using test::make_batch;
using test::show;

FakeRandom fake_random;
constexpr const char* kFirst = "0000000001.seg";

Result<std::unique_ptr<Journal>> open_on(const std::shared_ptr<FakeDisk>& disk, LogIndex durable_hint,
                                         Recovery* recovery = nullptr) {
  return Journal::open(std::make_unique<FakeDirectory>(disk), kIdentity, {}, fake_random, durable_hint,
                       recovery);
}

// A segment of `batches` batches, the first `synced` of them synced before the rest was appended; cut short
// of a close.
struct Sample {
  std::shared_ptr<FakeDisk> disk = FakeDisk::create();
  std::vector<uint64_t> frame_offsets;  // of each batch, then of the end
  uint64_t header_bytes() const { return frame_offsets.front(); }
  Bytes& bytes() const { return disk->files.at(kFirst)->bytes; }

  Sample(LogIndex batches, LogIndex synced) {
    auto live = FakeDisk::create();
    auto journal = *open_on(live, 0);
    for (LogIndex i = 1; i <= batches; ++i) {
      EXPECT_TRUE(journal->append(make_batch(kOriginA, i)));
      if (i == synced) {
        EXPECT_TRUE(journal->sync(i));
      }
    }
    EXPECT_TRUE(journal->close());
    journal.reset();
    disk->files[kFirst] = live->files.at(kFirst);
    bytes().resize(bytes().size() - kSummaryFrameBytes);
    auto reader = *SegmentReader::open(*FakeDirectory(disk).open(kFirst, OpenMode::kRead));
    frame_offsets.push_back(reader->state().offset);
    while (*reader->next()) frame_offsets.push_back(reader->state().offset);
  }
  // Batches whose frames lie wholly before offset.
  LogIndex whole_before(uint64_t offset) const {
    LogIndex n = 0;
    while (n + 1 < frame_offsets.size() && frame_offsets[n + 1] <= offset) ++n;
    return n;
  }
};

// The journal holds exactly batches 1 to `last`, each as it was made.
void expect_prefix(Journal& journal, LogIndex last, const std::string& what) {
  auto cursor = journal.read(1);
  for (LogIndex i = 1; i <= last; ++i) {
    auto logged = cursor->next();
    ASSERT_TRUE(logged && *logged) << what;
    EXPECT_EQ(show((*logged)->batch), show(make_batch(kOriginA, i))) << what;
  }
  auto end = cursor->next();
  ASSERT_TRUE(end && !*end) << what;
}

TEST(Recovery, EveryCutAboveTheDurableMarkOpensAtTheLastWholeBatch) {
  Sample sample(6, 3);
  for (uint64_t cut = sample.frame_offsets[3]; cut < sample.bytes().size(); ++cut) {
    auto disk = sample.disk->copy();
    disk->files.at(kFirst)->bytes.resize(cut);
    Recovery recovery;
    auto journal = open_on(disk, 3, &recovery);
    ASSERT_TRUE(journal) << cut << ": " << journal.error().message();
    LogIndex whole = sample.whole_before(cut);
    EXPECT_EQ(recovery.last, whole) << cut;
    EXPECT_EQ(recovery.cut_bytes, cut - sample.frame_offsets[whole]) << cut;
    if (recovery.cut_bytes > 0) {
      EXPECT_EQ(recovery.cut_offset, sample.frame_offsets[whole]);
      EXPECT_EQ(recovery.cut_file, std::string("fake/") + kFirst);
    }
    EXPECT_FALSE(recovery.clean_close);
    expect_prefix(**journal, whole, std::to_string(cut));
    // And it goes on from there.
    ASSERT_TRUE((*journal)->append(make_batch(kOriginA, whole + 1)));
    ASSERT_TRUE((*journal)->close());
    journal->reset();
    auto again = open_on(disk, whole + 1);
    ASSERT_TRUE(again);
    expect_prefix(**again, whole + 1, std::to_string(cut));
  }
}

TEST(Recovery, SaysHowManyWholeBatchesATornTailHad) {
  Sample sample(6, 2);
  for (LogIndex hit = 3; hit <= 6; ++hit) {
    auto disk = sample.disk->copy();
    disk->files.at(kFirst)->bytes[sample.frame_offsets[hit - 1] + 90] ^= std::byte{1};
    Recovery recovery;
    ASSERT_TRUE(open_on(disk, 2, &recovery));
    EXPECT_EQ(recovery.last, hit - 1);
    EXPECT_EQ(recovery.cut_batches, 6 - hit);
  }
}

TEST(Recovery, EveryCutBelowTheDurableMarkIsRefusedWithFileAndPlace) {
  Sample sample(6, 3);
  for (uint64_t cut = 0; cut < sample.frame_offsets[3]; ++cut) {
    auto disk = sample.disk->copy();
    disk->files.at(kFirst)->bytes.resize(cut);
    auto journal = open_on(disk, 3);
    ASSERT_FALSE(journal) << cut;
    EXPECT_EQ(journal.error().code(), Code::kCorrupt) << cut;
    EXPECT_NE(journal.error().message().find(kFirst), std::string::npos) << cut;
    EXPECT_EQ(disk->files.at(kFirst)->bytes.size(), cut) << "a refused journal was changed";
    if (cut <= sample.header_bytes()) continue;
    std::string place = "log index " + std::to_string(sample.whole_before(cut) + 1);
    bool at_boundary = cut == sample.frame_offsets[sample.whole_before(cut)];
    if (!at_boundary) {
      EXPECT_NE(journal.error().message().find(place), std::string::npos) << journal.error().message();
    }
  }
}

TEST(Recovery, EveryFlippedByteGivesAPrefixOrAClearError) {
  Sample sample(6, 3);
  for (uint64_t at = 0; at < sample.bytes().size(); ++at) {
    for (std::byte flip : {std::byte{1}, std::byte{0x80}}) {
      auto disk = sample.disk->copy();
      disk->files.at(kFirst)->bytes[at] ^= flip;
      Bytes before = disk->files.at(kFirst)->bytes;
      Recovery recovery;
      auto journal = open_on(disk, 0, &recovery);
      // The frame behind the durable ones says what is durable, unless it is itself what was hit.
      bool below_durable = at < sample.frame_offsets[3];
      ASSERT_EQ(journal.has_value(), !below_durable)
          << at << ": " << (journal ? "" : journal.error().message());
      if (journal) {
        EXPECT_EQ(recovery.last, sample.whole_before(at)) << at;
        expect_prefix(**journal, recovery.last, std::to_string(at));
      } else {
        EXPECT_TRUE(journal.error().code() == Code::kCorrupt || journal.error().code() == Code::kUnsupported)
            << at;
        EXPECT_NE(journal.error().message().find(kFirst), std::string::npos);
        EXPECT_EQ(to_hex(disk->files.at(kFirst)->bytes), to_hex(before)) << "a refused journal was changed";
      }
    }
  }
}

// Two journals of the same batches differ only in the ids of their segments, and so in what their frames'
// placement checksums are seeded with: a frame of the other at the same place has the right index, LSN and
// batch.
TEST(Recovery, AFrameOfAnotherSegmentIsNoFrameHere) {
  constexpr LogIndex kBatches = 6;
  Sample ours(kBatches, 0), theirs(kBatches, 0);
  ASSERT_EQ(ours.frame_offsets, theirs.frame_offsets);
  for (LogIndex n = 1; n <= kBatches; ++n) {
    uint64_t from = ours.frame_offsets[n - 1], to = ours.frame_offsets[n];
    auto disk = ours.disk->copy();
    Bytes& bytes = disk->files.at(kFirst)->bytes;
    std::copy(theirs.bytes().begin() + static_cast<ptrdiff_t>(from),
              theirs.bytes().begin() + static_cast<ptrdiff_t>(to),
              bytes.begin() + static_cast<ptrdiff_t>(from));
    ASSERT_NE(bytes, ours.bytes()) << "the placement does not matter";
    auto durable = open_on(disk->copy(), kBatches);
    ASSERT_FALSE(durable) << n;
    EXPECT_EQ(durable.error().code(), Code::kCorrupt);
    bytes.resize(to);
    Recovery recovery;
    auto journal = open_on(disk, 0, &recovery);
    ASSERT_TRUE(journal) << n << ": " << journal.error().message();
    EXPECT_EQ(recovery.cut_offset, from);
    expect_prefix(**journal, n - 1, "frame " + std::to_string(n));
  }
}

// All of it is right but for the number: a batch is missing before it, or it comes a second time.
TEST(Recovery, AFrameOfAnotherLogIndexIsNone) {
  for (LogIndex index : {1, 3}) {
    FakeDirectory directory(FakeDisk::create());
    SegmentId id = fake_random.next_id<SegmentId>();
    SegmentState state;
    {
      auto writer = *SegmentWriter::create(directory, {.volume = kIdentity.volume,
                                                       .id = id,
                                                       .branch = kIdentity.branch,
                                                       .sequence = 1,
                                                       .first_index = 1});
      writer->add(make_batch(kOriginA, 1), 0);
      ASSERT_TRUE(writer->flush());
      state = writer->state();
    }
    state.next_index = index;
    SegmentWriter writer(*directory.open(kFirst, OpenMode::kReadWrite), id, state);
    writer.add(make_batch(kOriginA, 2), 0);
    ASSERT_TRUE(writer.flush());
    auto reader = *SegmentReader::open(*directory.open(kFirst, OpenMode::kRead));
    EXPECT_TRUE(reader->next());
    auto second = reader->next();
    ASSERT_FALSE(second) << index;
    EXPECT_NE(second.error().message().find("another log index"), std::string::npos);
  }
}

// What a writer says was on the disk was there before it wrote that: its own batch was not.
TEST(Recovery, AFrameThatCallsItselfDurableIsNone) {
  FakeDirectory directory(FakeDisk::create());
  auto writer = *SegmentWriter::create(directory, {.volume = kIdentity.volume,
                                                   .id = fake_random.next_id<SegmentId>(),
                                                   .branch = kIdentity.branch,
                                                   .sequence = 1,
                                                   .first_index = 1});
  writer->add(make_batch(kOriginA, 1), 0);
  writer->add(make_batch(kOriginA, 2), 2);
  ASSERT_TRUE(writer->flush());
  auto reader = *SegmentReader::open(*directory.open(kFirst, OpenMode::kRead));
  EXPECT_TRUE(reader->next());
  auto second = reader->next();
  ASSERT_FALSE(second);
  EXPECT_NE(second.error().message().find("calls itself durable"), std::string::npos);
}

TEST(Recovery, DamageInASealedSegmentIsAnErrorForWhoeverReadsIt) {
  auto disk = FakeDisk::create();
  {
    auto journal = *Journal::open(std::make_unique<FakeDirectory>(disk), kIdentity,
                                  {.segment_bytes = 2000, .compress = false}, fake_random, 0, nullptr);
    for (LogIndex i = 1; i <= 20; ++i) ASSERT_TRUE(journal->append(make_batch(kOriginA, i)));
    ASSERT_TRUE(journal->close());
  }
  ASSERT_GT(disk->files.size(), 2u);
  const Bytes& original = disk->files.at(kFirst)->bytes;
  for (uint64_t at = 0; at < original.size(); ++at) {
    auto damaged = disk->copy();
    damaged->files.at(kFirst)->bytes[at] ^= std::byte{4};
    auto journal = open_on(damaged, 0);
    if (!journal) {
      EXPECT_EQ(journal.error().code(), Code::kCorrupt);
      EXPECT_NE(journal.error().message().find(kFirst), std::string::npos);
      continue;
    }
    auto cursor = (*journal)->read(1);
    LogIndex index = 1;
    auto logged = cursor->next();
    for (; logged && *logged; logged = cursor->next(), ++index) {
      EXPECT_EQ(show((*logged)->batch), show(make_batch(kOriginA, index)));
    }
    ASSERT_FALSE(logged) << "flip at " << at << " went unnoticed";
    EXPECT_EQ(logged.error().code(), Code::kCorrupt);
  }
}

// --- the table of docs/journal-format.md

Bytes zeros(size_t n) {
  return Bytes(n);
}

struct TailCase {
  const char* state;
  std::function<void(const Sample&, Bytes&)> damage;
  LogIndex durable_hint;
  int last;  // batches left, or -1: refused
};

class TailTable : public testing::TestWithParam<TailCase> {};

TEST_P(TailTable, StateLeadsToAction) {
  const TailCase& c = GetParam();
  Sample sample(6, 3);
  c.damage(sample, sample.bytes());
  Recovery recovery;
  auto journal = open_on(sample.disk, c.durable_hint, &recovery);
  ASSERT_EQ(journal.has_value(), c.last >= 0)
      << c.state << ": " << (journal ? "opened" : journal.error().message());
  if (c.last < 0) {
    EXPECT_EQ(journal.error().code(), Code::kCorrupt);
  } else {
    EXPECT_EQ(recovery.last, static_cast<LogIndex>(c.last));
  }
}

INSTANTIATE_TEST_SUITE_P(
    Docs, TailTable,
    testing::Values(
        TailCase{"whole", [](const Sample&, Bytes&) {}, 3, 6},
        TailCase{"ends between two frames above the durable mark",
                 [](const Sample& s, Bytes& b) { b.resize(s.frame_offsets[5]); }, 5, 5},
        TailCase{"ends between two frames below the durable mark",
                 [](const Sample& s, Bytes& b) { b.resize(s.frame_offsets[5]); }, 6, -1},
        TailCase{"ends within a frame", [](const Sample& s, Bytes& b) { b.resize(s.frame_offsets[5] + 40); },
                 5, 5},
        TailCase{"goes on with zeros", [](const Sample&, Bytes& b) { append_bytes(b, zeros(4096)); }, 6, 6},
        TailCase{"goes on with garbage",
                 [](const Sample&, Bytes& b) { append_bytes(b, as_bytes("what is this?")); }, 6, 6},
        TailCase{"goes on with a frame from elsewhere",
                 [](const Sample& s, Bytes& b) {
                   append_bytes(b, Bytes(b.begin() + static_cast<long>(s.frame_offsets[5]), b.end()));
                 },
                 6, 6},
        TailCase{"a frame lost, a later one whole, neither synced",
                 [](const Sample& s, Bytes& b) { b[s.frame_offsets[4] + 100] ^= std::byte{1}; }, 3, 4},
        TailCase{"a frame lost that a later one calls durable",
                 [](const Sample& s, Bytes& b) { b[s.frame_offsets[1] + 100] ^= std::byte{1}; }, 0, -1},
        TailCase{"a frame lost that the catalogue calls durable",
                 [](const Sample& s, Bytes& b) { b[s.frame_offsets[5] + 100] ^= std::byte{1}; }, 6, -1}));

TEST(Recovery, ADamagedCloseInTheMiddleIsNotATornTail) {
  auto disk = FakeDisk::create();
  {
    auto journal = *open_on(disk, 0);
    ASSERT_TRUE(journal->append(make_batch(kOriginA, 1)));
    ASSERT_TRUE(journal->close());
  }
  uint64_t close_at = disk->files.at(kFirst)->bytes.size() - kSummaryFrameBytes;
  {
    auto journal = *open_on(disk, 1);
    ASSERT_TRUE(journal->append(make_batch(kOriginA, 2)));
    ASSERT_TRUE(journal->close());
  }
  // Also where nothing behind it calls anything durable that the close did not.
  const size_t size = disk->files.at(kFirst)->bytes.size();
  for (size_t left : {size, size - kSummaryFrameBytes}) {
    for (uint64_t at = close_at; at < close_at + kSummaryFrameBytes; ++at) {
      auto damaged = disk->copy();
      Bytes& bytes = damaged->files.at(kFirst)->bytes;
      bytes.resize(left);
      bytes[at] ^= std::byte{2};
      auto journal = open_on(damaged, 0);
      ASSERT_FALSE(journal) << at;
      EXPECT_EQ(journal.error().code(), Code::kCorrupt);
    }
  }
}

TEST(Recovery, AMissingSegmentIsRefused) {
  auto disk = FakeDisk::create();
  {
    auto journal = *Journal::open(std::make_unique<FakeDirectory>(disk), kIdentity,
                                  {.segment_bytes = 1000, .compress = false}, fake_random, 0, nullptr);
    for (LogIndex i = 1; i <= 20; ++i) ASSERT_TRUE(journal->append(make_batch(kOriginA, i)));
    ASSERT_TRUE(journal->close());
  }
  ASSERT_GT(disk->files.size(), 3u);
  auto middle = disk->copy();
  middle->files.erase(std::next(middle->files.begin()));
  EXPECT_EQ(open_on(middle, 0).error().code(), Code::kCorrupt);
  FakeDirectory without_second(middle);
  auto cursor = *SegmentsCursor::open(without_second, kIdentity, 0, 0);
  Result<std::optional<Logged>> logged = std::nullopt;
  do logged = cursor->next();
  while (logged && *logged);
  ASSERT_FALSE(logged) << "who only reads finds it too";
  EXPECT_EQ(logged.error().code(), Code::kCorrupt);
  EXPECT_NE(logged.error().message().find("expected segment 2"), std::string::npos)
      << logged.error().message();
  auto last = disk->copy();
  last->files.erase(std::prev(last->files.end()));
  EXPECT_EQ(open_on(last, 20).error().code(), Code::kCorrupt);
  EXPECT_EQ(open_on(FakeDisk::create(), 20).error().code(), Code::kCorrupt);
}

}  // namespace
}  // namespace reprise::journal

// Every byte of small segments changed, every length cut, and hostile values in every field: whoever reads
// them gets a prefix of what was written or a clear error, and takes no more memory than the file can account
// for.
#include <gtest/gtest.h>

#include <cstdlib>

#include "journal/compressed_segment.h"
#include "journal/recovery.h"
#include "journal/segments_cursor.h"
#include "journal/verify.h"
#include "tests/journal/allocations.h"
#include "tests/journal/batches.h"
#include "tests/journal/fake_world.h"
#include "tests/journal/mend_segment.h"

namespace reprise::journal {
namespace {

using test::FakeDirectory;
using test::FakeDisk;
using test::FakeRandom;
using test::kIdentity;
using test::kOriginA;
using test::make_batch;

FakeRandom fake_random;
constexpr const char* kFirst = "0000000001.seg";
constexpr const char* kSecond = "0000000002.seg";
constexpr LogIndex kBatches = 7;

struct Form {
  const char* name;
  FrameKind end;  // its last frame: a batch, a close, a seal
  bool followed;  // by another segment
  bool compressed = false;
};

// The files of a journal of `kBatches` batches in its first segment.
Bytes write_segment(FakeDirectory& directory, const Form& form) {
  SegmentHeader header{.volume = kIdentity.volume,
                       .id = fake_random.next_id<SegmentId>(),
                       .branch = kIdentity.branch,
                       .sequence = 1,
                       .first_index = 1};
  auto writer = *SegmentWriter::create(directory, header);
  for (Lsn lsn = 1; lsn <= kBatches; ++lsn) writer->add(make_batch(kOriginA, lsn, lsn * 37 % 180), lsn / 2);
  EXPECT_TRUE(writer->flush());
  if (form.end != FrameKind::kBatch) {
    EXPECT_TRUE(writer->add_summary(form.end, kBatches));
  }
  if (form.followed) {
    header.id = fake_random.next_id<SegmentId>();
    header.sequence = 2;
    header.first_index = kBatches + 1;
    header.previous = writer->state().summary.chain;
    header.covered.set(kOriginA, kBatches);
    EXPECT_TRUE(SegmentWriter::create(directory, header));
  }
  if (form.compressed) {
    EXPECT_TRUE(compress_segment(directory, 1, [] { return false; }));
    EXPECT_TRUE(replace_by_compressed(directory, 1));
  }
  return *directory.read_file(kFirst, 1 << 20);
}

// Whether the batches that are read must be those that were written.
enum class Batches { kAsWritten, kAny };

// Reads as far as `next` gives batches. How many there were, or what was wrong.
template <class Next>
Result<LogIndex> read_all(Batches batches, Next&& next) {
  for (LogIndex index = 1;; ++index) {
    auto batch = next();
    if (!batch) return std::unexpected(batch.error());
    if (!*batch) return index - 1;
    if (batches == Batches::kAny) continue;
    EXPECT_EQ((*batch)->checksum(), make_batch(kOriginA, index, index * 37 % 180).checksum());
  }
}

Result<LogIndex> read_reader(FakeDirectory& directory, Batches batches) {
  auto reader = TRY(SegmentReader::open(TRY(directory.open(kFirst, OpenMode::kRead))));
  return read_all(batches, [&]() -> Result<std::optional<Batch>> {
    for (;;) {
      auto frame = TRY(reader->next());
      if (!frame) return std::optional<Batch>();
      if (frame->is_batch()) return TRY(reader->batch(*frame));
    }
  });
}

Result<LogIndex> read_beside(FakeDirectory& directory, Batches batches) {
  auto cursor = TRY(SegmentsCursor::open(directory, kIdentity, 0, 0));
  return read_all(batches, [&]() -> Result<std::optional<Batch>> {
    auto logged = TRY(cursor->next());
    return logged ? std::optional(std::move(logged->batch)) : std::nullopt;
  });
}

void expect_names_file(const Error& error, const std::string& what) {
  EXPECT_TRUE(error.code() == Code::kCorrupt || error.code() == Code::kUnsupported ||
              error.code() == Code::kWrongVolume)
      << what << ": " << error.message();
  EXPECT_NE(error.message().find(".seg"), std::string::npos) << what << ": " << error.message();
}

class Damaged : public testing::TestWithParam<Form> {
 protected:
  Damaged() {
    FakeDirectory directory(disk_);
    original_ = write_segment(directory, GetParam());
  }

  ~Damaged() override {
    RecordProperty("tried", static_cast<int>(tried_));
    if (std::getenv("REPRISE_COUNT_CRASHES") != nullptr)
      fmt::print("{}: {} damaged segments\n", GetParam().name, tried_);
  }

  // All who read it, and who opens it. `changed`: no byte of it may go unnoticed by who looks at all.
  void try_bytes(const Bytes& bytes, bool changed, const std::string& what) {
    ++tried_;
    auto disk = disk_->copy();
    disk->files.at(kFirst)->bytes = bytes;
    FakeDirectory directory(disk);
    for (auto read : {read_reader, read_beside})
      if (auto found = read(directory, Batches::kAsWritten); !found) expect_names_file(found.error(), what);
    auto report = verify_journal(directory, kIdentity, 0);
    if (!report) expect_names_file(report.error(), what);
    if (report && changed) {
      EXPECT_TRUE(report->problem) << what << " went unnoticed";
    }
    if (report && report->problem) expect_names_file(*report->problem, what);
    auto log = recover_log(directory, kIdentity, 0);
    if (!log) return expect_names_file(log.error(), what);
    LogIndex found = GetParam().followed ? log->recovery.last
                                         : value_of(read_reader(directory, Batches::kAsWritten), what);
    EXPECT_EQ(log->recovery.last, found) << what;
  }
  static LogIndex value_of(const Result<LogIndex>& result, const std::string& what) {
    EXPECT_TRUE(result) << what << ": opened, then " << result.error().message();
    return result.value_or(0);
  }

  std::shared_ptr<FakeDisk> disk_ = FakeDisk::create();
  Bytes original_;
  size_t tried_ = 0;
};

INSTANTIATE_TEST_SUITE_P(Forms, Damaged,
                         testing::Values(Form{"Open", FrameKind::kBatch, false},
                                         Form{"Closed", FrameKind::kClose, false},
                                         Form{"Sealed", FrameKind::kSeal, false},
                                         Form{"Followed", FrameKind::kSeal, true},
                                         Form{"Compressed", FrameKind::kSeal, false, true},
                                         Form{"CompressedAndFollowed", FrameKind::kSeal, true, true}),
                         [](const auto& parameter) { return parameter.param.name; });

TEST_P(Damaged, EveryBitOfEveryByte) {
  ASSERT_GT(original_.size(), GetParam().compressed ? 600u : 2500u);
  for (size_t at = 0; at < original_.size(); ++at) {
    for (int mask : {1, 2, 4, 8, 16, 32, 64, 128, 255}) {
      Bytes bytes = original_;
      bytes[at] ^= static_cast<std::byte>(mask);
      try_bytes(bytes, true, fmt::format("byte {} xor {:#x}", at, mask));
    }
  }
}

TEST_P(Damaged, EveryLength) {
  for (size_t size = 0; size < original_.size(); ++size) {
    Bytes bytes = original_;
    bytes.resize(size);
    try_bytes(bytes, false, fmt::format("cut to {}", size));
  }
  for (size_t more = 1; more <= 200; ++more) {
    for (int fill : {0, 0x5a}) {
      Bytes bytes = original_;
      bytes.resize(original_.size() + more, static_cast<std::byte>(fill));
      try_bytes(bytes, true, fmt::format("{} bytes of {:#x} more", more, fill));
    }
  }
}

TEST_P(Damaged, EveryWordZeroedOrFromAnotherPlace) {
  for (size_t at = 0; at + 8 <= original_.size(); at += 8) {
    for (size_t from : {size_t{0}, (at + 8) % (original_.size() - 8), original_.size() - 8}) {
      Bytes bytes = original_;
      std::copy_n(original_.begin() + static_cast<ptrdiff_t>(from), 8,
                  bytes.begin() + static_cast<ptrdiff_t>(at));
      try_bytes(bytes, bytes != original_, fmt::format("word {} from {}", at, from));
    }
    Bytes bytes = original_;
    std::fill_n(bytes.begin() + static_cast<ptrdiff_t>(at), 8, std::byte{0});
    try_bytes(bytes, bytes != original_, fmt::format("word {} zeroed", at));
  }
}

// --- memory

constexpr size_t kFewMegabytes = 3 << 20;

// What `use` took at its peak, besides what there was.
template <class Use>
size_t peak_of(Use&& use) {
  test::Allocations& ours = test::allocations();
  size_t before = ours.live_bytes;
  ours.peak_bytes = before;
  use();
  return ours.peak_bytes - before;
}

Bytes small_segment() {
  auto disk = FakeDisk::create();
  FakeDirectory directory(disk);
  auto writer = *SegmentWriter::create(directory, {.volume = kIdentity.volume,
                                                   .id = {1, 2},
                                                   .branch = kIdentity.branch,
                                                   .sequence = 1,
                                                   .first_index = 1});
  writer->add(make_batch(kOriginA, 1), 0);
  EXPECT_TRUE(writer->add_summary(FrameKind::kClose, 1));
  return disk->files.at(kFirst)->bytes;
}

// Checksums are right, so that it is the values that are tried: lengths and counts that promise too much.
TEST(Hostile, NoFieldOfASmallSegmentMakesAReaderTakeMuchMemory) {
  const Bytes original = small_segment();
  ASSERT_LE(original.size(), 1024u);
  EXPECT_GT(peak_of([] { Bytes(kFewMegabytes + 1); }), kFewMegabytes) << "nothing is counted";
  for (size_t at = 8; at + 4 <= original.size(); at += 4) {
    for (uint32_t value : {0u, 1u, 8u, 0x7ffffff8u, 0xfffffff8u, 0xffffffffu, 16u << 20, 64u << 20}) {
      Bytes bytes = original;
      store_value(bytes.data() + at, value);
      test::mend_segment(bytes);
      auto disk = FakeDisk::create();
      disk->files[kFirst] = std::make_shared<FakeDisk::Content>(bytes);
      FakeDirectory directory(disk);
      size_t peak = peak_of([&] {
        static_cast<void>(read_reader(directory, Batches::kAny));
        static_cast<void>(read_beside(directory, Batches::kAny));
        static_cast<void>(verify_journal(directory, kIdentity, 0));
        static_cast<void>(recover_log(directory, kIdentity, 0));
      });
      EXPECT_LT(peak, kFewMegabytes) << fmt::format("{:#x} at {}", value, at);
    }
  }
}

// Cap'n Proto pointers that stand for much: elements of no size, a structure within itself, far away, past
// the end.
TEST(Hostile, NoWordOfASmallBatchMakesItsDecoderTakeMuchMemoryOrTime) {
  Batch original = make_batch(kOriginA, 1);
  std::vector<uint64_t> hostile = {
      ~uint64_t{0},
      0xfffffff8'00000001,  // a list of 2^29 - 1 elements of no size …
      0xffffffff'00000001,  // … or that many words of elements that say themselves what they are
      0x00000007'00000001,  // … of none
      0xffffffff'00000000,  // a structure of 65,535 words and as many pointers
      0x00010000'fffffffc,  // one that is its own pointer
      0x00000002'fffffffd,  // a list likewise
      0x00000000'00000002,  // far away, in the same segment
      0x00000001'00000002,  // in another
      0x00000000'7ffffffc,  // a structure of no size, of which there may be 2^29 in a list
      0x0000ffff'7ffffffc, 0x00000000'00000003};
  int accepted = 0, tried = 0;
  for (size_t at = 8; at + 8 <= original.message().size(); at += 8) {
    for (uint64_t word : hostile) {
      Bytes bytes(original.message().begin(), original.message().end());
      append_bytes(bytes, original.body());
      store_value(bytes.data() + at, word);
      uint64_t checksum = hash64(bytes);
      auto shared = std::make_shared<const Bytes>(std::move(bytes));
      size_t operations = 0;
      size_t peak = peak_of([&] {
        auto batch = Batch::parse(shared, original.message().size(), checksum);
        if (!batch) return;
        ++accepted;
        batch->for_each([&](const fs::Operation&) { ++operations; });
      });
      EXPECT_LT(peak, kFewMegabytes) << fmt::format("{:#x} at {}", word, at);
      EXPECT_LT(operations, 10'000u) << fmt::format("{:#x} at {}", word, at);
      ++tried;
    }
  }
  EXPECT_GT(tried, 200);
  EXPECT_GT(tried - accepted, 50) << "hostile pointers are refused";
  EXPECT_GT(accepted, 50) << "values that are no pointers may be anything";
}

}  // namespace
}  // namespace reprise::journal

#include <fmt/format.h>

#include <algorithm>

#include "base/bytes.h"
#include "tests/fuzz/journal_laws.h"
#include "tests/fuzz/memory.h"
#include "tests/fuzz/target.h"
#include "tests/journal/mend_segment.h"
#include "tests/journal/pack_segment.h"

namespace reprise::fuzz {
namespace {

constexpr size_t kFilesMax = 6;
constexpr uint8_t kMend = 16, kFollows = 32, kPack = 64, kUnfinished = 128;

// Where a segment ends, as far as its frames say: what the header of the next one repeats.
struct End {
  uint64_t next_index = 1, chain = 0;
};

// Puts into a header what makes it follow `before`.
void follow(Bytes& file, const End& before, uint64_t sequence) {
  if (file.size() < journal::kSegmentFixedBytes) return;
  store_value(file.data() + 64, sequence);
  store_value(file.data() + 72, before.next_index);
  store_value(file.data() + 80, before.chain);
}

void add_file(test::FakeDisk& disk, uint8_t kind, Bytes file, End& end) {
  uint64_t sequence = kind & 15;
  if ((kind & kFollows) != 0) follow(file, end, sequence);
  if ((kind & kMend) != 0) {
    test::SegmentMender mender(file);
    mender.mend();
    end = {.next_index = mender.next_index(), .chain = mender.chain()};
  }
  if ((kind & kPack) != 0) file = test::pack_segment(file);
  std::string name = journal::segment_name(sequence) + ((kind & kUnfinished) != 0 ? ".new" : "");
  disk.files[name] = std::make_shared<test::FakeDisk::Content>(std::move(file));
}

}  // namespace

void fuzz_folder(ByteView input) {
  ByteReader in(input);
  auto durable_hint = in.value<uint8_t>();
  auto disk = test::FakeDisk::create();
  End end;
  for (size_t n = 0; n < kFilesMax && in.remaining() > 3; ++n) {
    auto kind = in.value<uint8_t>();
    size_t bytes = std::min<size_t>(in.value<uint16_t>(), in.remaining());
    ByteView file = in.take(bytes);
    add_file(*disk, kind, Bytes(file.begin(), file.end()), end);
  }
  MemoryLimit limit(small_memory(input.size()) + kFilesMax * journal::CompressedSegment::kBlockBytes);
  use_journal(*disk, durable_hint);
}

}  // namespace reprise::fuzz

REPRISE_FUZZ_TARGET(reprise::fuzz::fuzz_folder)

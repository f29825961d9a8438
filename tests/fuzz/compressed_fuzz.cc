#include "base/bytes.h"
#include "tests/fuzz/journal_laws.h"
#include "tests/fuzz/memory.h"
#include "tests/fuzz/target.h"
#include "tests/journal/mend_segment.h"
#include "tests/journal/pack_segment.h"

namespace reprise::fuzz {
namespace {

constexpr uint8_t kMend = 1, kPack = 2;
constexpr size_t kZerosUnit = 64 << 10;

// What is packed: patches of the index, and frames, the last of which may be followed by many zeros.
Bytes packed(ByteView input) {
  ByteReader in(input);
  std::vector<test::PackPatch> patches(in.value<uint8_t>() & 7);
  size_t zeros = size_t{in.value<uint8_t>()} * kZerosUnit;
  for (test::PackPatch& patch : patches) patch = {in.value<uint16_t>(), in.value<uint64_t>()};
  if (!in.ok()) return {};
  ByteView rest = in.take(in.remaining());
  Bytes plain(rest.begin(), rest.end());
  plain.resize(plain.size() + zeros);
  test::mend_segment(plain);
  return test::pack_segment(plain, patches);
}

// Of the frames, as the end of the index counts them.
size_t plain_bytes(ByteView file) {
  if (file.size() < test::kPackedTrailerBytes) return 0;
  auto blocks = load_value<uint32_t>(file.data() + file.size() - test::kPackedTrailerBytes + 24);
  return std::min<size_t>(blocks, file.size() / test::kPackedEntryBytes) *
         journal::CompressedSegment::kBlockBytes;
}

}  // namespace

void fuzz_compressed(ByteView input) {
  if (input.empty()) return;
  auto flags = static_cast<uint8_t>(input[0]);
  Bytes file(input.begin() + 1, input.end());
  if ((flags & kPack) != 0) file = packed(input.subspan(1));
  if ((flags & kMend) != 0) test::mend_packed_segment(file);
  auto disk = test::FakeDisk::create();
  disk->files[kFirstSegment] = std::make_shared<test::FakeDisk::Content>(file);
  test::FakeDirectory directory(disk);
  // Of a frame two copies, and one as long as it is cut off to be kept; then blocks and windows.
  MemoryLimit limit(small_memory(file.size()) + 4 * plain_bytes(file));
  read_segment(directory, kFirstSegment);
  use_journal(*disk, flags >> 2);
}

}  // namespace reprise::fuzz

REPRISE_FUZZ_TARGET(reprise::fuzz::fuzz_compressed)

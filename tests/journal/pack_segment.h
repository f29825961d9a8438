// Compressed segments of any content, with right checksums: what compress_segment() would not make.
#pragma once

#include <zstd.h>

#include <algorithm>
#include <span>

#include "base/hash.h"
#include "journal/compressed_segment.h"

namespace reprise::test {

inline constexpr size_t kPackedEntryBytes = 48, kPackedTrailerBytes = 48;

// A value to put into the index and trailer of a packed segment, so many bytes from the index's beginning.
struct PackPatch {
  size_t at = 0;
  uint64_t value = 0;
};

// Makes the checksums of header, blocks, index and trailer match what lies there, as far as the trailer and
// the index say where that is. At the first thing that does not fit the file it stops.
inline void mend_packed_segment(Bytes& file) {
  if (file.size() < journal::kSegmentFixedBytes + kPackedTrailerBytes) return;
  size_t header = load_value<uint32_t>(file.data() + 12);
  size_t trailer = file.size() - kPackedTrailerBytes;
  if (header < journal::kSegmentFixedBytes + 8 || header > trailer) return;
  store_value(file.data() + header - 8, hash64(ByteView(file).first(header - 8)));
  auto index = load_value<uint64_t>(file.data() + trailer + 16);
  if (index < header || index > trailer) return;
  for (size_t entry = index; entry + kPackedEntryBytes <= trailer; entry += kPackedEntryBytes) {
    auto offset = load_value<uint64_t>(file.data() + entry);
    auto bytes = load_value<uint32_t>(file.data() + entry + 8);
    if (offset > index || bytes > index - offset) break;
    store_value(file.data() + entry + 16, hash64(ByteView(file).subspan(offset, bytes)));
  }
  store_value(file.data() + trailer + 32, hash64(ByteView(file).subspan(index, trailer - index)));
  SegmentId id{.hi = load_value<uint64_t>(file.data() + 48), .lo = load_value<uint64_t>(file.data() + 56)};
  store_value(file.data() + trailer + 40,
              hash64(ByteView(file).subspan(trailer, 40), journal::placement_seed(id, 0)));
}

// The next frame that begins at or behind `from`, as far as the lengths in the frames say.
struct PackedFrames {
  const Bytes& plain;
  uint64_t offset;
  uint64_t index, bytes_before = 0;

  void pass_until(uint64_t from) {
    while (offset < from && offset + journal::kFrameHeaderBytes <= plain.size()) {
      uint64_t payload = uint64_t{load_value<uint32_t>(plain.data() + offset + 8)} +
                         load_value<uint32_t>(plain.data() + offset + 12);
      bool is_batch = load_value<uint16_t>(plain.data() + offset + 4) == 1;
      index += is_batch ? 1 : 0;
      bytes_before += is_batch ? payload : 0;
      offset += journal::kFrameHeaderBytes + payload;
    }
  }
};

// The segment `plain` compressed, whatever its frames are, with `patches` in its index before the checksums
// are made. Nothing if there is no header at its beginning, or nothing behind it.
inline Bytes pack_segment(const Bytes& plain, std::span<const PackPatch> patches = {}) {
  constexpr size_t kBlock = journal::CompressedSegment::kBlockBytes;
  if (plain.size() < journal::kSegmentFixedBytes + 8) return {};
  size_t header = load_value<uint32_t>(plain.data() + 12);
  if (header < journal::kSegmentFixedBytes + 8 || header >= plain.size()) return {};
  Bytes file(plain.begin(), plain.begin() + static_cast<ptrdiff_t>(header));
  store_value(file.data() + 24, load_value<uint32_t>(file.data() + 24) | journal::kCompressedFeature);
  Bytes index;
  PackedFrames frames{plain, header, load_value<uint64_t>(plain.data() + 72)};
  uint32_t blocks = 0;
  for (size_t at = header; at < plain.size(); at += kBlock, ++blocks) {
    ByteView block = ByteView(plain).subspan(at, std::min(kBlock, plain.size() - at));
    Bytes stored(ZSTD_compressBound(block.size()));
    stored.resize(ZSTD_compress(stored.data(), stored.size(), block.data(), block.size(), 1));
    frames.pass_until(at);
    bool begins = frames.offset < at + block.size();
    append_value(index, uint64_t{file.size()});
    append_value(index, static_cast<uint32_t>(stored.size()));
    append_value(index, uint32_t{0});
    append_value(index, uint64_t{0});
    append_value(index, begins ? frames.index : uint64_t{0});
    append_value(index, begins ? frames.offset : uint64_t{0});
    append_value(index, begins ? frames.bytes_before : uint64_t{0});
    append_bytes(file, stored);
  }
  uint64_t index_offset = file.size();
  append_bytes(file, index);
  append_value(file, uint64_t{0x0a58444953525052});  // "RPRSIDX\n"
  append_value(file, uint64_t{plain.size()});
  append_value(file, index_offset);
  append_value(file, blocks);
  append_value(file, static_cast<uint32_t>(kBlock));
  append_value(file, uint64_t{0});
  append_value(file, uint64_t{0});
  size_t room = file.size() - index_offset - 8;
  for (const PackPatch& patch : patches)
    store_value(file.data() + index_offset + patch.at % room, patch.value);
  mend_packed_segment(file);
  return file;
}

}  // namespace reprise::test

#include "journal/compressed_segment.h"

#include <fmt/format.h>
#include <zstd.h>

#include <algorithm>

#include "base/check.h"
#include "base/hash.h"
#include "journal/correction.h"
#include "journal/segment_reader.h"

namespace reprise::journal {
namespace {

constexpr uint64_t kTrailerMagic = 0x0a58444953525052;  // "RPRSIDX\n"
constexpr size_t kTrailerBytes = 48;
constexpr size_t kEntryBytes = 48;
constexpr int kLevel = 3;

uint64_t trailer_seed(SegmentId id) {
  return placement_seed(id, 0);
}

size_t blocks_in(uint64_t frames_bytes) {
  constexpr uint64_t kBlock = CompressedSegment::kBlockBytes;
  return frames_bytes / kBlock + (frames_bytes % kBlock != 0 ? 1 : 0);
}

// The header that a segment has once it is compressed, and the one it had.
SegmentHeader with_feature(SegmentHeader header, bool compressed) {
  header.features.incompat = compressed ? kCompressedFeature : 0;
  return header;
}

std::unexpected<Error> stopped() {
  return fail(Code::kCancelled, "compressing a segment was stopped");
}

struct Decompressor {
  ZSTD_DCtx* context = ZSTD_createDCtx();
  ~Decompressor() { ZSTD_freeDCtx(context); }
};

}  // namespace

// --- reading

Result<std::unique_ptr<CompressedSegment>> CompressedSegment::open(std::unique_ptr<File> file,
                                                                   const SegmentHeader& header) {
  Bytes plain_header = encode_segment_header(with_feature(header, false));
  std::unique_ptr<CompressedSegment> segment(new CompressedSegment(std::move(file), std::move(plain_header)));
  TRY(segment->read_index(header));
  return segment;
}

std::unexpected<Error> CompressedSegment::damaged(std::string what) const {
  return fail(Code::kCorrupt, fmt::format("{}: compressed segment: {}", file_->path(), what));
}

Status CompressedSegment::read_index(const SegmentHeader& header) {
  uint64_t size = TRY(file_->size());
  std::byte trailer[kTrailerBytes];
  if (size < plain_header_.size() + kTrailerBytes)
    return damaged("expected an index, found the end of the file");
  if (TRY(file_->pread(trailer, size - kTrailerBytes)) != kTrailerBytes)
    return damaged("expected an index, found the end of the file");
  if (load_value<uint64_t>(trailer + 40) != hash64(ByteView(trailer).first(40), trailer_seed(header.id)))
    return damaged(
        fmt::format("expected the end of an index at offset {}, found none", size - kTrailerBytes));
  ByteReader in(trailer);
  auto magic = in.value<uint64_t>();
  plain_bytes_ = in.value<uint64_t>();
  auto index_offset = in.value<uint64_t>();
  auto entries = in.value<uint32_t>();
  auto block_bytes = in.value<uint32_t>();
  auto checksum = in.value<uint64_t>();
  bool fits = magic == kTrailerMagic && block_bytes == kBlockBytes && plain_bytes_ > plain_header_.size() &&
              entries != 0 && entries == blocks_in(frames_bytes()) && index_offset >= plain_header_.size() &&
              index_offset <= size - kTrailerBytes &&
              size - kTrailerBytes - index_offset == uint64_t{entries} * kEntryBytes;
  if (!fits) return damaged("expected an index that fits the file, found another");
  Bytes index(uint64_t{entries} * kEntryBytes);
  index.resize(TRY(file_->pread(index, index_offset)));
  if (hash64(index) != checksum) return damaged("expected a matching checksum of the index, found another");
  blocks_.reserve(entries);
  for (size_t at = 0; at < index.size(); at += kEntryBytes)
    TRY(add_block(ByteView(index).subspan(at, kEntryBytes), index_offset));
  if (blocks_.back().offset + blocks_.back().bytes != index_offset)
    return damaged("expected blocks up to the index, found a gap");
  return {};
}

Status CompressedSegment::add_block(ByteView entry, uint64_t index_offset) {
  ByteReader in(entry);
  Block block{.offset = in.value<uint64_t>(), .bytes = in.value<uint32_t>()};
  auto reserved = in.value<uint32_t>();
  block.checksum = in.value<uint64_t>();
  block.point = {
      .index = in.value<uint64_t>(), .offset = in.value<uint64_t>(), .bytes_before = in.value<uint64_t>()};
  uint64_t expected = blocks_.empty() ? plain_header_.size() : blocks_.back().offset + blocks_.back().bytes;
  if (reserved != 0 || block.offset != expected || block.bytes == 0 ||
      block.bytes > ZSTD_compressBound(kBlockBytes) || block.bytes > index_offset - block.offset) {
    return damaged(fmt::format("expected block {} at offset {}, found {} bytes at {}", blocks_.size(),
                               expected, block.bytes, block.offset));
  }
  uint64_t begin = plain_header_.size() + blocks_.size() * uint64_t{kBlockBytes};
  bool inside =
      block.point.offset >= begin && block.point.offset < std::min(plain_bytes_, begin + kBlockBytes);
  if (block.point.index != 0 && !inside)
    return damaged(fmt::format("block {}: expected a frame that begins in it, found {}", blocks_.size(),
                               block.point.offset));
  blocks_.push_back(block);
  return {};
}

std::vector<ReadPoint> CompressedSegment::points() const {
  std::vector<ReadPoint> points;
  for (const Block& block : blocks_)
    if (block.point.index != 0) points.push_back(block.point);
  return points;
}

// Puts a block's bytes into plain_.
Status CompressedSegment::load(size_t n) const {
  if (loaded_ == n) return {};
  loaded_ = SIZE_MAX;
  const Block& block = blocks_[n];
  stored_.resize(block.bytes);
  stored_.resize(TRY(file_->pread(stored_, block.offset)));
  if (hash64(stored_) != block.checksum)
    return damaged(
        fmt::format("block {} at offset {}: expected a matching checksum, found another", n, block.offset));
  uint64_t left = frames_bytes() - n * uint64_t{kBlockBytes};
  plain_.resize(std::min<uint64_t>(left, kBlockBytes));
  static thread_local Decompressor decompressor;
  size_t bytes =
      ZSTD_decompressDCtx(decompressor.context, plain_.data(), plain_.size(), stored_.data(), stored_.size());
  if (ZSTD_isError(bytes) || bytes != plain_.size())
    return damaged(fmt::format("block {} at offset {}: expected {} bytes in it, found others", n,
                               block.offset, plain_.size()));
  loaded_ = n;
  return {};
}

Result<size_t> CompressedSegment::pread(ByteSpan into, uint64_t offset) const {
  size_t done = 0;
  while (done < into.size() && offset + done < plain_bytes_) {
    uint64_t at = offset + done;
    ByteView from;
    if (at < plain_header_.size()) {
      from = ByteView(plain_header_).subspan(at);
    } else {
      at -= plain_header_.size();
      TRY(load(at / kBlockBytes));
      from = ByteView(plain_).subspan(at % kBlockBytes);
    }
    size_t n = std::min(from.size(), into.size() - done);
    std::copy_n(from.begin(), n, into.begin() + static_cast<ptrdiff_t>(done));
    done += n;
  }
  return done;
}

Status CompressedSegment::pwrite(ByteView, uint64_t) {
  return fail(Code::kReadOnly, file_->path() + ": a compressed segment is not written to");
}
Status CompressedSegment::resize(uint64_t) {
  return fail(Code::kReadOnly, file_->path() + ": a compressed segment is not written to");
}
Status CompressedSegment::sync_data() {
  return file_->sync_data();
}

// --- putting right

// From the end on, a piece at a time.
Result<std::optional<uint64_t>> CompressedSegment::find_end(const File& file, const SegmentHeader& header) {
  constexpr size_t kPiece = 1 << 20;
  const uint64_t size = TRY(file.size());
  auto ends_here = [&](ByteView trailer, uint64_t at) {
    auto index_offset = load_value<uint64_t>(trailer.data() + 16);
    uint64_t index_bytes = uint64_t{load_value<uint32_t>(trailer.data() + 24)} * kEntryBytes;
    return load_value<uint64_t>(trailer.data()) == kTrailerMagic && index_offset <= at &&
           at - index_offset == index_bytes &&
           load_value<uint64_t>(trailer.data() + 40) == hash64(trailer.first(40), trailer_seed(header.id));
  };
  Bytes piece;
  // Its magic does not begin in a hole.
  for (uint64_t begin = 0; (begin = TRY(file.next_data(begin))) < size;) {
    piece.resize(std::min<uint64_t>(kPiece, size - begin));
    if (TRY(file.pread(piece, begin)) != piece.size() || piece.size() < kTrailerBytes) return std::nullopt;
    for (size_t at = 0; at + kTrailerBytes <= piece.size(); ++at) {
      if (ends_here(ByteView(piece).subspan(at, kTrailerBytes), begin + at))
        return begin + at + kTrailerBytes;
    }
    begin += piece.size() - kTrailerBytes + 1;
  }
  return std::nullopt;
}

Result<std::optional<Correction>> CompressedSegment::correct_index(const File& file,
                                                                   const SegmentHeader& header,
                                                                   const CorrectionEffort& effort) {
  uint64_t size = TRY(file.size());
  if (size < kTrailerBytes) return std::nullopt;
  uint64_t index_end = size - kTrailerBytes;
  Bytes trailer(kTrailerBytes);
  if (TRY(file.pread(trailer, index_end)) != kTrailerBytes) return std::nullopt;
  auto is_trailer = [&](ByteView bytes) {
    return load_value<uint64_t>(bytes.data() + 40) == hash64(bytes.first(40), trailer_seed(header.id));
  };
  if (!is_trailer(trailer)) return correct(std::move(trailer), index_end, effort, is_trailer);
  auto index_offset = load_value<uint64_t>(trailer.data() + 16);
  auto checksum = load_value<uint64_t>(trailer.data() + 32);
  if (index_offset > index_end || index_end - index_offset > effort.every_bit) return std::nullopt;
  Bytes index(index_end - index_offset);
  index.resize(TRY(file.pread(index, index_offset)));
  return correct_hashed(std::move(index), index_offset, effort, checksum);
}

Result<std::vector<uint64_t>> CompressedSegment::damaged_blocks() const {
  std::vector<uint64_t> damaged;
  Bytes bytes;
  for (const Block& block : blocks_) {
    bytes.resize(block.bytes);
    bytes.resize(TRY(file_->pread(bytes, block.offset)));
    if (hash64(bytes) != block.checksum) damaged.push_back(block.offset);
  }
  return damaged;
}

Result<std::optional<Correction>> CompressedSegment::correct_block(uint64_t offset,
                                                                   const CorrectionEffort& effort) const {
  auto block = std::ranges::find(blocks_, offset, &Block::offset);
  CHECK(block != blocks_.end());
  Bytes bytes(block->bytes);
  bytes.resize(TRY(file_->pread(bytes, offset)));
  return correct_hashed(std::move(bytes), offset, effort, block->checksum);
}

// Zstd frames tell where they end and how much is in them.
Status CompressedSegment::find_blocks() {
  const uint64_t size = TRY(file_->size());
  const size_t longest = ZSTD_compressBound(kBlockBytes);
  uint64_t content = kBlockBytes;
  uint64_t offset = plain_bytes_ = plain_header_.size();
  ByteView window;  // of stored_, from `offset` on: several blocks, as they may be small
  // As many as the file might have an index of: crafted ones take less room than what is noted of them.
  while (content == kBlockBytes && blocks_.size() < size / kEntryBytes) {
    if (window.size() < std::min<uint64_t>(longest, size - offset)) {
      stored_.resize(std::min<uint64_t>(4 * longest, size - offset));
      stored_.resize(TRY(file_->pread(stored_, offset)));
      window = stored_;
    }
    size_t bytes = ZSTD_findFrameCompressedSize(window.data(), window.size());
    content = ZSTD_getFrameContentSize(window.data(), window.size());
    if (ZSTD_isError(bytes) || bytes > longest || content == 0 || content > kBlockBytes) break;
    blocks_.push_back({.offset = offset,
                       .bytes = static_cast<uint32_t>(bytes),
                       .checksum = hash64(window.first(bytes)),
                       .point = {}});
    window = window.subspan(bytes);
    offset += bytes;
    plain_bytes_ += content;
  }
  if (blocks_.empty()) return damaged("expected a block behind the header, found none");
  return {};
}

Result<std::optional<Correction>> CompressedSegment::make_index_anew(std::unique_ptr<File> file,
                                                                     const SegmentHeader& header) {
  const File& stored = *file;
  Bytes plain_header = encode_segment_header(with_feature(header, false));
  std::unique_ptr<CompressedSegment> segment(new CompressedSegment(std::move(file), std::move(plain_header)));
  auto made = [&]() -> Result<std::optional<Correction>> {
    TRY(segment->find_blocks());
    std::vector<Block> blocks = segment->blocks_;
    const uint64_t plain_bytes = segment->plain_bytes_;
    auto reader = TRY(SegmentReader::open(std::move(segment)));
    Status noted = note_points(*reader, blocks, [] { return false; });
    if (!noted && (noted.error().code() != Code::kCorrupt || reader->state().summary.batches == 0))
      return std::unexpected(noted.error());
    const uint64_t end = blocks.back().offset + blocks.back().bytes;
    Correction anew{end, encode_index(blocks, plain_bytes, header.id)};
    Bytes there(anew.bytes.size() + 1);
    there.resize(TRY(stored.pread(there, end)));
    if (there == anew.bytes) return std::nullopt;
    return anew;
  }();
  if (!made && made.error().code() == Code::kCorrupt) return std::nullopt;
  return made;
}

// --- writing

// Checks every frame, and notes where those lie with which the blocks begin.
Status CompressedSegment::note_points(SegmentReader& from, std::vector<Block>& blocks,
                                      const std::function<bool()>& cancelled) {
  const uint64_t header_bytes = from.state().offset;
  bool sealed = false;
  for (;;) {
    ReadPoint point{.index = from.state().next_index,
                    .offset = from.state().offset,
                    .bytes_before = from.state().summary.batch_bytes};
    auto frame = TRY(from.next());
    if (!frame) break;
    sealed = frame->header.kind == FrameKind::kSeal;
    Block& block = blocks[(point.offset - header_bytes) / kBlockBytes];
    if (block.point.index == 0) block.point = point;
    if (cancelled()) return stopped();
  }
  if (sealed) return {};
  return fail(Code::kCorrupt, from.path() + ": expected a seal at its end, found none");
}

// With the end behind it.
Bytes CompressedSegment::encode_index(const std::vector<Block>& blocks, uint64_t plain_bytes, SegmentId id) {
  Bytes index;
  for (const Block& block : blocks) {
    append_value(index, block.offset);
    append_value(index, block.bytes);
    append_value(index, uint32_t{0});
    append_value(index, block.checksum);
    append_value(index, block.point.index);
    append_value(index, block.point.offset);
    append_value(index, block.point.bytes_before);
  }
  Bytes trailer;
  append_value(trailer, kTrailerMagic);
  append_value(trailer, plain_bytes);
  append_value(trailer, blocks.back().offset + blocks.back().bytes);
  append_value(trailer, static_cast<uint32_t>(blocks.size()));
  append_value(trailer, kBlockBytes);
  append_value(trailer, hash64(index));
  append_value(trailer, hash64(trailer, trailer_seed(id)));
  CHECK(index.size() == blocks.size() * kEntryBytes && trailer.size() == kTrailerBytes);
  append_bytes(index, trailer);
  return index;
}

class SegmentCompressor {
 public:
  SegmentCompressor(File& to, const std::function<bool()>& cancelled) : to_(to), cancelled_(cancelled) {}
  ~SegmentCompressor() { ZSTD_freeCCtx(context_); }

  Status write(SegmentReader& from) {
    TRY(to_.resize(0));
    Bytes header = encode_segment_header(with_feature(from.header(), true));
    header_bytes_ = from.state().offset;
    CHECK(header.size() == header_bytes_);
    TRY(put(header));
    blocks_.resize(blocks_in(from.limit() - header_bytes_));
    TRY(CompressedSegment::note_points(from, blocks_, cancelled_));
    for (size_t n = 0; n < blocks_.size(); ++n) TRY(write_block(from, n));
    TRY(put(CompressedSegment::encode_index(blocks_, from.limit(), from.header().id)));
    return to_.sync_data();
  }

 private:
  Status write_block(SegmentReader& from, size_t n) {
    if (cancelled_()) return stopped();
    uint64_t begin = header_bytes_ + n * uint64_t{CompressedSegment::kBlockBytes};
    plain_.resize(std::min<uint64_t>(CompressedSegment::kBlockBytes, from.limit() - begin));
    if (TRY(from.read_bytes(plain_, begin)) != plain_.size())
      return fail(Code::kCorrupt, from.path() + ": expected as many bytes as before, found fewer");
    stored_.resize(ZSTD_compressBound(plain_.size()));
    size_t bytes =
        ZSTD_compressCCtx(context_, stored_.data(), stored_.size(), plain_.data(), plain_.size(), kLevel);
    CHECK(!ZSTD_isError(bytes));
    stored_.resize(bytes);
    blocks_[n].offset = written_;
    blocks_[n].bytes = static_cast<uint32_t>(bytes);
    blocks_[n].checksum = hash64(stored_);
    return put(stored_);
  }

  Status put(ByteView bytes) {
    TRY(to_.pwrite(bytes, written_));
    written_ += bytes.size();
    return {};
  }

  File& to_;
  const std::function<bool()>& cancelled_;
  ZSTD_CCtx* context_ = ZSTD_createCCtx();
  uint64_t header_bytes_ = 0, written_ = 0;
  std::vector<CompressedSegment::Block> blocks_;
  Bytes plain_, stored_;
};

namespace {

// Does the copy say all that the segment says? The chain at its end covers every byte.
Result<std::vector<ReadPoint>> check_copy(Directory& directory, const SegmentReader& original,
                                          const std::string& name, const std::function<bool()>& cancelled) {
  auto copy = TRY(SegmentReader::open(TRY(directory.open(name, OpenMode::kRead))));
  while (TRY(copy->next()))
    if (cancelled()) return stopped();
  if (copy->state().offset == original.state().offset && copy->state().summary == original.state().summary)
    return copy->points();
  return fail(Code::kCorrupt,
              fmt::format("{}: expected the frames of {}, found others", copy->path(), original.path()));
}

}  // namespace

std::string compressed_copy_name(uint64_t sequence) {
  return segment_name(sequence) + ".new";
}

Result<std::vector<ReadPoint>> compress_segment(Directory& directory, uint64_t sequence,
                                                const std::function<bool()>& cancelled) {
  auto original = TRY(SegmentReader::open(TRY(directory.open(segment_name(sequence), OpenMode::kRead))));
  std::string name = compressed_copy_name(sequence);
  auto copy = [&]() -> Result<std::vector<ReadPoint>> {
    auto file = TRY(directory.open(name, OpenMode::kCreateOrOpen));
    TRY(SegmentCompressor(*file, cancelled).write(*original));
    return check_copy(directory, *original, name, cancelled);
  }();
  if (!copy) static_cast<void>(directory.unlink(name));  // why there is none matters more
  return copy;
}

Status replace_by_compressed(Directory& directory, uint64_t sequence) {
  TRY(directory.rename(compressed_copy_name(sequence), segment_name(sequence)));
  return directory.sync();
}

}  // namespace reprise::journal

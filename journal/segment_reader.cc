#include "journal/segment_reader.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/check.h"
#include "base/hash.h"
#include "journal/batch_shared.h"
#include "journal/compressed_segment.h"

namespace reprise::journal {
namespace {

constexpr size_t kWindowBytes = 256 * 1024;

}  // namespace

Result<Bytes> read_segment_header(const File& file) {
  uint64_t size = TRY(file.size());
  std::byte first[16];
  size_t got = TRY(file.pread(first, 0));
  auto length = segment_header_bytes(ByteView(first).first(got));
  if (!length) return std::unexpected(length.error().with_context(file.path()));
  if (*length > size) {
    return fail(Code::kCorrupt,
                fmt::format("{}: segment header: expected {} bytes, found {}", file.path(), *length, size));
  }
  Bytes bytes(*length);
  bytes.resize(TRY(file.pread(bytes, 0)));
  return bytes;
}

Result<std::unique_ptr<SegmentReader>> SegmentReader::open(std::unique_ptr<File> file) {
  uint64_t size = TRY(file->size());
  Bytes bytes = TRY(read_segment_header(*file));
  auto header = decode_segment_header(bytes);
  if (!header) return std::unexpected(header.error().with_context(file->path()));
  if (header->features.incompat != 0) return open_compressed(std::move(file), *header);
  SegmentState state{.offset = bytes.size(),
                     .next_index = header->first_index,
                     .summary = {.chain = segment_header_checksum(bytes)}};
  return std::unique_ptr<SegmentReader>(new SegmentReader(std::move(file), *std::move(header), state, size));
}

Result<std::unique_ptr<SegmentReader>> SegmentReader::open_without_header(std::unique_ptr<File> file) {
  uint64_t size = TRY(file->size());
  SegmentHeader header;
  std::byte id[16];
  if (TRY(file->pread(id, kSegmentIdOffset)) != sizeof id) return nullptr;
  header.id = {load_value<uint64_t>(id), load_value<uint64_t>(id + 8)};
  std::unique_ptr<SegmentReader> reader(new SegmentReader(std::move(file), std::move(header), {}, size));
  reader->chain_known_ = false;
  return reader;
}

Result<std::unique_ptr<SegmentReader>> SegmentReader::open_compressed(std::unique_ptr<File> file,
                                                                      const SegmentHeader& header) {
  auto segment = TRY(CompressedSegment::open(std::move(file), header));
  auto points = segment->points();
  auto reader = TRY(open(std::move(segment)));
  reader->points_ = std::move(points);
  reader->compressed_ = true;
  return reader;
}

SegmentReader::SegmentReader(std::unique_ptr<File> file, SegmentHeader header, const SegmentState& state,
                             uint64_t limit)
    : file_(std::move(file)), header_(std::move(header)), state_(state), limit_(limit) {}

void SegmentReader::set_limit(uint64_t bytes) {
  limit_ = bytes;
}

void SegmentReader::seek(uint64_t offset, LogIndex next_index) {
  state_.offset = offset;
  state_.next_index = next_index;
  chain_known_ = false;
}

Result<std::optional<Frame>> SegmentReader::next() {
  return read_frame(true);
}
Result<std::optional<Frame>> SegmentReader::next_header() {
  return read_frame(false);
}

Result<std::optional<Frame>> SegmentReader::read_frame(bool with_payload) {
  if (state_.offset >= limit_) return std::optional<Frame>();
  if (limit_ - state_.offset < kFrameHeaderBytes) return damaged("less than a frame header");
  Frame frame{.offset = state_.offset};
  ByteView bytes = TRY(fetch(frame.offset, kFrameHeaderBytes));
  if (const char* found =
          decode_frame_header(bytes, placement_seed(header_.id, frame.offset), frame.header)) {
    return damaged(found);
  }
  if (const char* found = check_frame(frame)) return damaged(found);
  if (with_payload || !frame.is_batch()) {
    ByteView whole = TRY(fetch(frame.offset, frame.header.frame_bytes()));
    if (const char* found = check_payload(frame, whole.subspan(kFrameHeaderBytes))) return damaged(found);
    if (!frame.is_batch()) frame.summary = FrameSummary::decode(whole.data() + kFrameHeaderBytes);
  }
  pass(frame);
  return frame;
}

const char* SegmentReader::check_frame(const Frame& frame) const {
  if (frame.end() > limit_) return "a frame that goes on past the end of the file";
  if (frame.header.index != state_.next_index) return "a frame of another log index";
  if (frame.header.durable_through >= frame.header.index) return "a frame that calls itself durable";
  if (frame.is_batch()) {
    if (frame.header.message_bytes > kBatchMessageLimit || frame.header.body_bytes > kBatchBodyLimit)
      return "a batch too large";
    if (!frame.header.origin || frame.header.lsn == 0) return "a batch of no origin";
  }
  return nullptr;
}

const char* SegmentReader::check_payload(const Frame& frame, ByteView payload) const {
  if (hash64(payload) != frame.header.checksum) return "a batch that was changed";
  if (!frame.is_batch() && chain_known_ && FrameSummary::decode(payload.data()) != state_.summary) {
    return "a summary of other frames than those before it";
  }
  return nullptr;
}

void SegmentReader::pass(const Frame& frame) {
  state_.offset = frame.end();
  state_.summary.chain = extend_chain(state_.summary.chain, frame.header);
  if (!frame.is_batch()) return;
  state_.next_index += 1;
  state_.summary.batches += 1;
  state_.summary.batch_bytes += uint64_t{frame.header.message_bytes} + frame.header.body_bytes;
  last_origin_ = frame.header.origin;
  last_lsn_ = frame.header.lsn;
}

Result<Batch> SegmentReader::batch(const Frame& frame) {
  ByteView whole = TRY(fetch(frame.offset, frame.header.frame_bytes()));
  ByteView payload = whole.subspan(kFrameHeaderBytes);
  auto bytes = std::make_shared<const Bytes>(payload.begin(), payload.end());
  auto in_frame = [&](const Error& error) {
    return std::unexpected(error.with_context(
        fmt::format("{}: at offset {}, log index {}, LSN {} of origin {}", path(), frame.offset,
                    frame.header.index, frame.header.lsn, frame.header.origin.to_short_string())));
  };
  auto batch = Batch::parse(std::move(bytes), frame.header.message_bytes, frame.header.checksum);
  if (!batch) return in_frame(batch.error());
  if (batch->header().origin != frame.header.origin || batch->header().lsn != frame.header.lsn) {
    return in_frame(
        Error(Code::kCorrupt, fmt::format("found a batch of LSN {} of origin {}", batch->header().lsn,
                                          batch->header().origin.to_short_string())));
  }
  return batch;
}

Result<std::optional<Frame>> SegmentReader::find_frame_after(uint64_t offset) {
  uint64_t data_seen_to = 0;  // a frame's magic does not begin in a hole
  for (uint64_t at = (offset / 8 + 1) * 8; at + kFrameHeaderBytes <= limit_; at += 8) {
    if (at >= data_seen_to) {
      at = std::max(at, TRY(file_->next_data(at)) / 8 * 8);
      data_seen_to = at + kWindowBytes;
      if (at >= limit_ || limit_ - at < kFrameHeaderBytes) break;
    }
    ByteView bytes = TRY(fetch(at, kFrameHeaderBytes));
    if (load_value<uint32_t>(bytes.data()) != kFrameMagic) continue;
    Frame frame{.offset = at};
    if (decode_frame_header(bytes, placement_seed(header_.id, at), frame.header) == nullptr) return frame;
  }
  return std::optional<Frame>();
}

// A view of the file that holds until the next call. The window grows only to what the file was seen to hold.
Result<ByteView> SegmentReader::fetch(uint64_t offset, size_t bytes) {
  CHECK(offset + bytes <= limit_);
  bool inside = offset >= window_offset_ && offset + bytes <= window_offset_ + window_.size();
  if (!inside) {
    window_.resize(std::min<uint64_t>(std::max(bytes, kWindowBytes), limit_ - offset));
    window_offset_ = offset;
    auto got = file_->pread(window_, offset);
    if (!got && window_.size() > bytes) {  // what is wrong may lie behind what is asked for
      window_.resize(bytes);
      got = file_->pread(window_, offset);
    }
    window_.resize(got.value_or(0));
    if (!got) return std::unexpected(got.error());
    if (window_.size() < bytes) return damaged("a file that ends early");
  }
  return ByteView(window_).subspan(offset - window_offset_, bytes);
}

std::unexpected<Error> SegmentReader::damaged(const char* found) const {
  std::string after =
      last_lsn_ == 0 ? ""
                     : fmt::format(" (after LSN {} of origin {})", last_lsn_, last_origin_.to_short_string());
  return fail(Code::kCorrupt, fmt::format("{}: at offset {}: expected log index {}{}, found {}", path(),
                                          state_.offset, state_.next_index, after, found));
}

}  // namespace reprise::journal

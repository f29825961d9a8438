// SegmentReader: reads the frames of one segment file in order, trusting nothing.
//
// It serves the cursors of a live journal, recovery, verify, and `reprise log` on a single file. It never
// reads past a limit given to it, so a writer may append beyond. Nothing is allocated that the file does not
// hold. One thread's object.
//
//   auto reader = TRY(open_segment(std::move(file)));
//   while (auto frame = TRY(reader->next())) if (frame->is_batch()) use(TRY(reader->batch(*frame)));
#pragma once

#include <memory>
#include <optional>
#include <vector>

#include "base/disk.h"
#include "journal/batch.h"
#include "journal/segment_format.h"
#include "journal/segment_writer.h"

namespace reprise::journal {

struct Frame {
  FrameHeader header;
  uint64_t offset = 0;   // in the file
  FrameSummary summary;  // of a close or seal

  bool is_batch() const { return header.kind == FrameKind::kBatch; }
  uint64_t end() const { return offset + header.frame_bytes(); }
};

// The header that a file begins with, to be decoded. kCorrupt if it is not the start of a segment.
Result<Bytes> read_segment_header(const File& file);

class SegmentReader {
 public:
  // Reads and checks the header. kCorrupt, kUnsupported.
  static Result<std::unique_ptr<SegmentReader>> open(std::unique_ptr<File> file);

  // One whose header cannot be read, but for the segment's id, if that is whole. It stands before all frames:
  // find_frame_after() says where there are any. nullptr for a file too short to have one.
  static Result<std::unique_ptr<SegmentReader>> open_without_header(std::unique_ptr<File> file);

  const SegmentHeader& header() const { return header_; }
  const std::string& path() const { return file_->path(); }
  // What has been read so far: after a frame that is no frame, where that is.
  const SegmentState& state() const { return state_; }
  // Of all frames so far, if they were read from the first on.
  std::optional<uint64_t> chain() const {
    return chain_known_ ? std::optional(state_.summary.chain) : std::nullopt;
  }
  uint64_t limit() const { return limit_; }
  // Is it compressed? Then offsets are those it had before.
  bool compressed() const { return compressed_; }
  // Where frames can be read from, as the index of a compressed one says; bytes_before within this segment.
  const std::vector<ReadPoint>& points() const { return points_; }
  // Up to where the file may be read; at first, its size.
  void set_limit(uint64_t bytes);
  // Goes on at a frame whose place is known; the chain is not followed from there on.
  void seek(uint64_t offset, LogIndex next_index);

  // The next frame, whose header and payload verify, whose index is the one to come, and which is not past
  // the limit. nullopt exactly at the limit. kCorrupt says where and what; asking again says the same.
  Result<std::optional<Frame>> next();
  // As next(), without looking at the payload.
  Result<std::optional<Frame>> next_header();
  // The batch of the frame that was returned last.
  Result<Batch> batch(const Frame& frame);
  // The first frame after `offset` whose header verifies: to find out what lies behind damage.
  Result<std::optional<Frame>> find_frame_after(uint64_t offset);
  // Bytes as they lie there, up to the limit; how many there are.
  Result<size_t> read_bytes(ByteSpan into, uint64_t offset) const { return file_->pread(into, offset); }
  // The error to give when this, and not the next frame, is what was found.
  std::unexpected<Error> damaged(const char* found) const;

 private:
  SegmentReader(std::unique_ptr<File> file, SegmentHeader header, const SegmentState& state, uint64_t limit);
  static Result<std::unique_ptr<SegmentReader>> open_compressed(std::unique_ptr<File> file,
                                                                const SegmentHeader& header);
  Result<std::optional<Frame>> read_frame(bool with_payload);
  const char* check_frame(const Frame& frame) const;
  const char* check_payload(const Frame& frame, ByteView payload) const;
  Result<ByteView> fetch(uint64_t offset, size_t bytes);
  void pass(const Frame& frame);

  std::unique_ptr<File> file_;
  SegmentHeader header_;
  SegmentState state_;
  bool chain_known_ = true;
  bool compressed_ = false;
  std::vector<ReadPoint> points_;
  uint64_t limit_;
  OriginId last_origin_;  // of the last batch passed, for messages
  Lsn last_lsn_ = 0;
  Bytes window_;  // of the file, from window_offset_
  uint64_t window_offset_ = 0;
};

// One segment file on its own, wherever it lies.
inline Result<std::unique_ptr<SegmentReader>> open_segment(std::unique_ptr<File> file) {
  return SegmentReader::open(std::move(file));
}

}  // namespace reprise::journal

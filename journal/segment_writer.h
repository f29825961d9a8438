// SegmentWriter: puts frames at the end of one segment file.
//
// Frames are collected in a buffer and written in few large calls. It knows nothing of threads, rotation or
// retention (journal.cc has those), and after a failure it must not be used again.
#pragma once

#include <memory>

#include "base/disk.h"
#include "journal/batch.h"
#include "journal/segment_format.h"

namespace reprise::journal {

// Where a segment stands: what a reader has found up to here, and what a writer needs to go on.
struct SegmentState {
  uint64_t offset = 0;      // of the next frame
  LogIndex next_index = 0;  // of the next batch
  FrameSummary summary;
};

class SegmentWriter {
 public:
  // A new segment file, header and directory entry on the disk when it returns: under its own name there is
  // either a whole header or no file.
  static Result<std::unique_ptr<SegmentWriter>> create(Directory& directory, const SegmentHeader& header);
  // Goes on at `state` in a segment that a reader has read up to there.
  SegmentWriter(std::unique_ptr<File> file, SegmentId id, const SegmentState& state);

  // The batch becomes state().next_index. Written when the buffer is full or at flush().
  Status add(const Batch& batch, LogIndex durable_through);
  // A close or seal frame.
  Status add_summary(FrameKind kind, LogIndex durable_through);
  Status flush();
  Status sync();  // flush and sync_data

  const SegmentState& state() const { return state_; }
  // Up to here the file may be read.
  uint64_t flushed_bytes() const { return state_.offset - buffer_.size(); }

 private:
  void add_frame(FrameHeader header, ByteView first, ByteView second);

  std::unique_ptr<File> file_;
  SegmentId id_;
  SegmentState state_;
  Bytes buffer_;  // what lies at the end, not written yet
};

}  // namespace reprise::journal

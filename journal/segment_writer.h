// SegmentWriter: puts frames at the end of one segment file.
//
// Frames are collected in a buffer and written in few large calls. It knows nothing of threads, rotation or
// retention (file_journal.cc has those). After a write that failed for want of space (kNoSpace) it stands
// where it stood after the last one that did not, and may be asked again; what a sync that failed has left on
// the disk is unknown, whatever the reason (kIo). After any failure but kNoSpace it must not be used again.
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
  bool sealed = false;
};

class SegmentWriter {
 public:
  // A new segment file, header and directory entry on the disk when it returns: under its own name there is
  // either a whole header or no file.
  static Result<std::unique_ptr<SegmentWriter>> create(Directory& directory, const SegmentHeader& header);
  // In a file of another name, emptied first. Nothing is on the disk before sync().
  static Result<std::unique_ptr<SegmentWriter>> begin(std::unique_ptr<File> file,
                                                      const SegmentHeader& header);
  // Goes on at `state` in a segment that a reader has read up to there.
  SegmentWriter(std::unique_ptr<File> file, SegmentId id, const SegmentState& state);

  // The batch becomes state().next_index. Written at flush(), as it should be soon when wants_flush().
  void add(const Batch& batch, LogIndex durable_through);
  // A close or seal frame, written with what is before it.
  Status add_summary(FrameKind kind, LogIndex durable_through);
  bool wants_flush() const;
  // Writes what was added. On kNoSpace all of that is forgotten.
  Status flush();
  Status sync();  // flush and sync_data

  const SegmentState& state() const { return state_; }
  // Up to here the file may be read.
  uint64_t flushed_bytes() const { return flushed_.offset; }

 private:
  void add_frame(FrameHeader header, ByteView first, ByteView second);

  std::unique_ptr<File> file_;
  SegmentId id_;
  SegmentState state_;
  SegmentState flushed_;  // before what is in the buffer
  Bytes buffer_;          // what lies at the end, not written yet
};

}  // namespace reprise::journal

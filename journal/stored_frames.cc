#include "journal/stored_frames.h"

#include <fmt/format.h>

#include <algorithm>

namespace reprise::journal {

Result<Batch> StoredFrames::read(LogIndex index) {
  Frame frame = TRY(advance_to(index, true));
  return reader_->batch(frame);
}

Result<Frame> StoredFrames::at(LogIndex index) {
  return advance_to(index, false);
}

Result<uint64_t> StoredFrames::bytes_before(LogIndex index) {
  ReadPoint point = TRY(locate(index));
  uint64_t bytes = point.bytes_before;
  for (LogIndex i = point.index; i < index; ++i) {
    Frame frame = TRY(at(i));
    bytes += uint64_t{frame.header.message_bytes} + frame.header.body_bytes;
  }
  return bytes;
}

Result<Frame> StoredFrames::advance_to(LogIndex index, bool with_payload) {
  bool located = false;
  if (!reader_ || reader_->state().next_index != index) {
    TRY(locate(index));
    located = true;
  }
  for (;;) {
    auto frame = TRY(with_payload ? reader_->next() : reader_->next_header());
    if (frame && frame->is_batch() && frame->header.index == index) return *frame;
    if (frame) continue;
    // The end of what could be read of this segment: the batch is in the next, or has been written since,
    // unless it was just looked up.
    if (located) {
      return fail(Code::kCorrupt, fmt::format("{}: expected log index {}, found the end of the file at {}",
                                              reader_->path(), index, reader_->state().offset));
    }
    TRY(locate(index));
    located = true;
  }
}

// Opens the segment that holds the batch, at the last known place before it.
Result<ReadPoint> StoredFrames::locate(LogIndex index) {
  uint64_t sequence, readable;
  ReadPoint point;
  {
    std::lock_guard lock(journal_.mutex_);
    if (index < journal_.first_) return journal_.gap(index);
    auto segment =
        std::prev(std::upper_bound(journal_.segments_.begin(), journal_.segments_.end(), index,
                                   [](LogIndex i, const Segment& s) { return i < s.first_index; }));
    point = *std::prev(std::upper_bound(segment->points.begin(), segment->points.end(), index,
                                        [](LogIndex i, const ReadPoint& p) { return i < p.index; }));
    sequence = segment->sequence;
    readable = segment->readable_bytes;
  }
  auto reader = open_own_segment(*journal_.directory_, sequence, journal_.identity_);
  if (!reader) {
    std::lock_guard lock(journal_.mutex_);
    if (index < journal_.first_) return journal_.gap(index);  // trimmed in between
    return std::unexpected(reader.error());
  }
  reader_ = std::move(*reader);
  if (readable != Segment::kToTheEnd) reader_->set_limit(readable);
  reader_->seek(point.offset, point.index);
  return point;
}

}  // namespace reprise::journal

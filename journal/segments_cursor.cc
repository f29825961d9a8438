#include "journal/segments_cursor.h"

#include <fmt/format.h>

#include "journal/recovery.h"

namespace reprise::journal {

Result<std::unique_ptr<SegmentsCursor>> SegmentsCursor::open(Directory& directory,
                                                             const JournalIdentity& identity, LogIndex from) {
  std::unique_ptr<SegmentsCursor> cursor(new SegmentsCursor(directory, identity));
  cursor->from_ = from;
  // Only headers are looked at to find where to begin: from the last segment back to one that starts early
  // enough, or at which the log began anew.
  std::vector<uint64_t> sequences = TRY(list_segments(directory));
  LogIndex begin = ~LogIndex{0};  // of the segments taken so far
  bool at_restart = false;
  for (auto sequence = sequences.rbegin(); sequence != sequences.rend() && !at_restart; ++sequence) {
    auto reader = TRY(open_own_segment(directory, *sequence, identity));
    cursor->first_ = reader->header().first_index;
    at_restart = reader->header().restart;
    if (begin > from || from == 0) {
      cursor->rest_.push_front(*sequence);
      begin = cursor->first_;
    }
  }
  if (from != 0 && from < cursor->first_) {
    return fail(Code::kGap, fmt::format("{}: batch {} has been trimmed; the oldest is {}", directory.path(),
                                        from, cursor->first_));
  }
  if (!cursor->rest_.empty()) TRY(cursor->open_next_segment());
  return cursor;
}

Status SegmentsCursor::open_next_segment() {
  reader_ = TRY(open_own_segment(directory_, rest_.front(), identity_));
  rest_.pop_front();
  return {};
}

Result<std::optional<Logged>> SegmentsCursor::next() {
  while (reader_ != nullptr) {
    auto frame = reader_->next();
    if (!frame && rest_.empty()) {
      torn_tail_ = frame.error();
      reader_.reset();
      break;
    }
    if (!frame) return std::unexpected(frame.error());
    if (!*frame) {
      if (rest_.empty()) break;
      TRY(open_next_segment());
      continue;
    }
    if (!(*frame)->is_batch() || (*frame)->header.index < from_) continue;
    Batch batch = TRY(reader_->batch(**frame));
    return Logged{(*frame)->header.index, std::move(batch)};
  }
  return std::nullopt;
}

}  // namespace reprise::journal

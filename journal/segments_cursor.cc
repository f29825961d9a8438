#include "journal/segments_cursor.h"

#include <fmt/format.h>

#include <algorithm>

#include "journal/recovery.h"

namespace reprise::journal {

Result<std::unique_ptr<SegmentsCursor>> SegmentsCursor::open(Directory& directory,
                                                             const JournalIdentity& identity, LogIndex from,
                                                             LogIndex durable_hint) {
  std::unique_ptr<SegmentsCursor> cursor(new SegmentsCursor(directory, identity, durable_hint));
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
    cursor->begins_anew_ = at_restart;
    if (begin > from || from == 0) {
      cursor->rest_.push_front(*sequence);
      begin = cursor->first_;
    }
  }
  if (from != 0 && from < cursor->first_) {
    return fail(Code::kGap, fmt::format("{}: batch {} has been trimmed; the oldest is {}", directory.path(),
                                        from, cursor->first_));
  }
  if (sequences.empty() && durable_hint > 0) {
    return fail(Code::kCorrupt, fmt::format("{}: expected segments up to log index {}, found none",
                                            directory.path(), durable_hint));
  }
  if (!cursor->rest_.empty()) TRY(cursor->open_next_segment());
  return cursor;
}

Status SegmentsCursor::open_next_segment() {
  auto next = TRY(open_own_segment(directory_, rest_.front(), identity_));
  if (reader_ != nullptr) {
    Status follows = check_succession(*next, reader_->header().sequence + 1, reader_->state().next_index,
                                      reader_->chain());
    if (!follows) return std::unexpected(offer_repair(follows.error()));
  }
  reader_ = std::move(next);
  rest_.pop_front();
  // Past what is not asked for, if the segment has an index.
  const std::vector<ReadPoint>& points = reader_->points();
  auto after = std::ranges::upper_bound(points, from_, {}, &ReadPoint::index);
  if (after != points.begin()) reader_->seek(std::prev(after)->offset, std::prev(after)->index);
  return {};
}

// The last segment ends here, for this reason.
Status SegmentsCursor::end_at(const Error& damage) {
  if (auto worse = damage_below_durable(*reader_, damage, durable_hint_))
    return std::unexpected(offer_repair(*worse));
  torn_tail_ = damage;
  reader_.reset();
  return {};
}

Result<std::optional<Logged>> SegmentsCursor::next() {
  while (reader_ != nullptr) {
    auto frame = reader_->next();
    if (!frame && rest_.empty()) {
      TRY(end_at(frame.error()));
      break;
    }
    if (!frame) return std::unexpected(frame.error());
    if (!*frame) {
      if (rest_.empty()) {
        if (reader_->state().next_index <= durable_hint_)
          return std::unexpected(offer_repair(*damage_below_durable(
              *reader_, reader_->damaged("the end of the file").error(), durable_hint_)));
        break;
      }
      if (!sealed_)
        return std::unexpected(offer_repair(reader_->damaged("the end of the file without a seal").error()));
      TRY(open_next_segment());
      continue;
    }
    sealed_ = (*frame)->header.kind == FrameKind::kSeal;
    if (!(*frame)->is_batch() || (*frame)->header.index < from_) continue;
    Batch batch = TRY(reader_->batch(**frame));
    return Logged{(*frame)->header.index, std::move(batch)};
  }
  return std::nullopt;
}

}  // namespace reprise::journal

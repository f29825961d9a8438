// The part of Instance that keeps the journal and the store within their sizes, and says how much may be
// written until there must be room again (journal/allowance.h). docs/architecture.md, "Limits".
#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <optional>
#include <utility>

#include "base/log.h"
#include "instance/instance.h"
#include "instance/snapshots.h"

namespace reprise::instance {
namespace {

constexpr uint64_t kPatience_ns = 30'000'000'000;  // before what has failed is tried again
constexpr double kDeadShareWhenTight = 0.05;
constexpr uint64_t kSegmentsOfLimit = 16;  // at least: what is trimmed are whole ones

uint64_t less(uint64_t from, uint64_t bytes) {
  return from - std::min(from, bytes);
}

// Of a limited store: as segments, so that what is there twice for a while is little.
uint64_t pack_bytes(const Retention& retention) {
  return retention.store_bytes / kSegmentsOfLimit;
}

// For a call that has taken what it is about to record, and is on its way from the one to the other while it
// is measured what there is; for headers, and what a checkpoint takes besides content.
uint64_t margin(uint64_t limit) {
  return limit / 64;
}

}  // namespace

void Instance::set_sizes() {
  const Retention& retention = options_.retention;
  uint64_t& segment_bytes = options_.journal.segment_bytes;
  if (retention.journal_bytes != 0)
    segment_bytes = std::min(segment_bytes, retention.journal_bytes / kSegmentsOfLimit);
  if (retention.store_bytes == 0) return;
  segment_bytes = std::min(segment_bytes, retention.store_bytes / kSegmentsOfLimit);
  store_->blobs().bound_packs(pack_bytes(retention));
}

// There is one segment at a time that is there twice.
uint64_t Instance::copied_segment() const {
  return options_.journal.compress ? options_.journal.segment_bytes : 0;
}

// What was taken before it is measured is in the measure; what is taken meanwhile counts.
Result<uint64_t> Instance::allowed_until() {
  constexpr uint64_t kUnbounded = journal::Allowance::kUnbounded;
  const Retention& retention = options_.retention;
  const uint64_t taken = allowance().taken();
  if (!retention.bounds() || !size_is_kept_) return kUnbounded;
  if (recorder_ != nullptr) TRY(recorder_->flush());
  uint64_t room = kUnbounded - taken;
  const journal::JournalFiles files = TRY(journal_->files());
  if (retention.journal_bytes != 0) room = std::min(room, room_in_journal(files));
  if (retention.store_bytes != 0) room = std::min(room, TRY(room_in_store(store_bound_)));
  // Once: others went on while room was made, and have used it up. Twice, and there is none to be had; but
  // what is on its way to the disk can only go once it is there.
  const bool none = room == 0 && files.waiting == 0;
  if (std::exchange(had_no_room_, none) && none) return kUnbounded;
  return taken + room;
}

// --- the limit of the store

std::optional<Error> Instance::over_limit() const {
  std::lock_guard lock(state_);
  return over_limit_;
}

// What may be written until room has to be made, if all may take `bound`. Making room takes room itself: for
// checkpoints, which together take what is written since the one before; for a segment that is being
// compressed; for a pack that is copied.
Result<uint64_t> Instance::room_in_store(uint64_t bound) {
  journal::JournalFiles files = TRY(journal_->files());
  const uint64_t used = TRY(store_->usage()).all() + files.waiting;
  const uint64_t free = less(bound, used + copied_segment() + pack_bytes(options_.retention) +
                                        margin(options_.retention.store_bytes));
  auto newest = TRY(newest_snapshot(store_->catalogue(), options_.branch, std::nullopt));
  LogIndex from = std::max(newest ? newest->log_index + 1 : 0, journal_->first());
  return less(free, TRY(journal_->bytes_from(from))) / 2;
}

// Room is made where less than a step is left. What cannot be kept within the limit is kept within half of it
// more than what remains when all has been given up that may be: so history does not grow without bounds.
Status Instance::keep_store_limit() {
  const uint64_t limit = options_.retention.store_bytes;
  if (limit == 0) return {};
  const uint64_t step = options_.journal.segment_bytes;
  uint64_t used = TRY(store_->usage()).all(), now_ns = options_.clock.monotonic_ns();
  store_bound_ = std::max(store_bound_, limit);
  const bool tries_again = used > limit && now_ns >= next_store_limit_ns_;
  if (tries_again || TRY(room_in_store(store_bound_)) < step) {
    TRY(make_room(limit, step));
    store_bound_ = limit;
    if (TRY(room_in_store(limit)) < step) {
      const uint64_t beside = copied_segment() + pack_bytes(options_.retention) + margin(limit);
      store_bound_ = TRY(store_->usage()).all() + beside + limit / 2;
    }
    used = TRY(store_->usage()).all();
    next_store_limit_ns_ = now_ns + kPatience_ns;
  }
  return note_usage(TRY(store_->usage()));
}

Status Instance::note_usage(const store::StoreUsage& usage) {
  const uint64_t limit = options_.retention.store_bytes;
  std::optional<Error> over;
  if (usage.all() > limit) {
    over = Error(
        Code::kNoSpace,
        fmt::format("{}: expected at most {} in the store, found {}: journals {}, packs {}, catalogue "
                    "{}; what is left is the present state and snapshots with a label",
                    store_->path(), format_bytes(limit), format_bytes(usage.all()),
                    format_bytes(usage.journals), format_bytes(usage.packs), format_bytes(usage.catalogue)));
  }
  std::lock_guard lock(state_);
  if (over && !over_limit_) log_warning("{}", over->message());
  over_limit_ = std::move(over);
  return {};
}

// What costs least is given up first: garbage, then history, then snapshots nobody gave a label. A quarter of
// the limit at first, so that it is not to be done again at once; but of what cannot be had again no more
// than one step needs.
Status Instance::make_room(uint64_t limit, uint64_t step) {
  auto has = [&](uint64_t room) -> Result<bool> {
    TRY(collect(kDeadShareWhenTight));
    return TRY(room_in_store(limit)) >= room;
  };
  const uint64_t wanted = limit / 4;
  if (TRY(has(wanted))) return {};
  TRY(trim_to_bytes(TRY(journal_beside(limit, wanted))));
  if (TRY(has(step))) return {};
  while (TRY(drop_one_unlabelled())) {
    if (TRY(has(step))) return {};
  }
  TRY(trim_to_bytes(0));
  TRY(has(step));
  return {};
}

// How large the journal may be so that there is room for `wanted` once a checkpoint has been made.
Result<uint64_t> Instance::journal_beside(uint64_t limit, uint64_t wanted) {
  const uint64_t all = TRY(store_->usage()).all(), journal = TRY(journal_->files()).bytes;
  const uint64_t spare = copied_segment() + pack_bytes(options_.retention) + margin(limit);
  return less(limit, less(all, journal) + snapshot_bytes_at_most(filesystem_->usage()) + spare + 2 * wanted);
}

Status Instance::trim_to_bytes(uint64_t bytes) {
  std::lock_guard keeping(keeping_);
  auto newest = TRY(newest_snapshot(store_->catalogue(), options_.branch, std::nullopt));
  LogIndex within = bytes == 0 ? journal_->last() + 1 : within_bytes(TRY(journal_->files()), bytes);
  if (within > (newest ? newest->log_index : 0) + 1) TRY(checkpoint());
  return trim_to({.not_too_old = 0, .within_size = within});
}

// The oldest; false if there is none.
Result<bool> Instance::drop_one_unlabelled() {
  if (is_damaged()) return false;
  std::lock_guard keeping(keeping_);
  for (const store::SnapshotRecord& record : TRY(own_snapshots())) {
    if (record.checkpoint || !record.label.empty()) continue;
    TRY(drop(record));
    return true;
  }
  return false;
}

// --- the limits of the journal

// The journal is trimmed up to snapshots only, from which what is left can be read: for its size up to the
// next one, for its age up to the one before.
Status Instance::trim_to(const Limits& limits) {
  if (is_damaged()) return {};
  LogIndex first = journal_->first();
  std::optional<LogIndex> old, large;  // trim up to there
  for (const store::SnapshotRecord& record : TRY(store_->catalogue().snapshots())) {
    if (record.branch != options_.branch) continue;
    LogIndex behind = record.log_index + 1;
    if (behind <= limits.not_too_old) old = std::max(old.value_or(0), behind);
    if (limits.within_size > first && behind >= limits.within_size)
      large = std::min(large.value_or(behind), behind);
  }
  LogIndex target = std::max(old.value_or(0), large.value_or(0));
  if (target <= first) return {};
  TRY(trim_before(target));
  auto newest = TRY(newest_snapshot(store_->catalogue(), options_.branch, std::nullopt));
  return newest ? drop_older_checkpoints(newest->id) : Status{};
}

Result<bool> Instance::wants_checkpoint(LogIndex covered) {
  const Retention& retention = options_.retention;
  LogIndex last = journal_->last();
  if (last <= covered) return false;
  if (last - covered > retention.reopen_batches) return true;
  uint64_t bytes = TRY(journal_->bytes_from(std::max(covered + 1, journal_->first())));
  // As often as a segment ends, so that trimming finds one near.
  return bytes > (retention.trims() ? std::min(retention.reopen_bytes, options_.journal.segment_bytes)
                                    : retention.reopen_bytes);
}

Result<Instance::Limits> Instance::limits_of_journal(std::span<const journal::Vector> peers) {
  const Retention& retention = options_.retention;
  Limits limits{journal_->first(), journal_->first()};
  if (!retention.trims()) return limits;
  journal::JournalFiles files = TRY(journal_->files());
  if (retention.journal_age_s != 0) limits.not_too_old = TRY(oldest_by_age(files, peers));
  if (retention.journal_bytes != 0 && room_in_journal(files) < options_.journal.segment_bytes) {
    const uint64_t most = less(retention.journal_bytes, copied_segment());
    limits.within_size = within_bytes(std::move(files), less(most, 3 * options_.journal.segment_bytes));
  }
  return limits;
}

// What may be written until segments have to go.
uint64_t Instance::room_in_journal(const journal::JournalFiles& files) const {
  const uint64_t limit = options_.retention.journal_bytes;
  return less(limit, files.bytes + files.waiting + copied_segment() + margin(limit));
}

// The first batch of what is left when the oldest segments go until no more than `bytes` are there.
LogIndex Instance::within_bytes(journal::JournalFiles files, uint64_t bytes) {
  LogIndex first = journal_->first();
  uint64_t left = files.bytes + files.waiting;
  size_t i = 0;
  for (; i + 1 < files.segments.size() && left > bytes; ++i) {
    left -= files.segments[i].bytes;
    first = std::max(first, files.segments[i + 1].first_index);
  }
  // One that was begun for another limit, or holds one large batch, is ended.
  const bool is_last = i + 1 == files.segments.size();
  return is_last && left > bytes && files.waiting == 0 ? journal_->last() + 1 : first;
}

Result<LogIndex> Instance::oldest_by_age(const journal::JournalFiles& files,
                                         std::span<const journal::Vector> peers) {
  LogIndex keep = journal_->first(), needed = journal_->last() + 1;
  for (const journal::Vector& peer : peers) {
    auto position = journal_->position_of(peer);
    if (!position && position.error().code() == Code::kGap) continue;  // the journal serves it no more
    needed = std::min(needed, TRY(std::move(position)));
  }
  for (size_t i = 1; i < files.segments.size(); ++i) {
    LogIndex end = files.segments[i].first_index;  // of the one before
    if (end > needed || !is_older_than(end - 1, options_.retention.journal_age_s)) break;
    keep = std::max(keep, end);
  }
  return keep;
}

// By the clock of who wrote it. A batch that cannot be read is not known to be old.
bool Instance::is_older_than(LogIndex index, uint64_t age) {
  if (index < journal_->first() || index > journal_->last()) return false;
  auto logged = journal_->read(index)->next();
  if (!logged || !*logged) return false;
  auto age_s = static_cast<int64_t>(std::min<uint64_t>(age, std::numeric_limits<int64_t>::max()));
  int64_t now_s = options_.clock.realtime().sec;
  return now_s >= age_s && (*logged)->batch.header().time.sec < now_s - age_s;
}

}  // namespace reprise::instance

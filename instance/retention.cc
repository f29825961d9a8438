// The part of Instance that keeps the next opening short and the journal small.
#include <algorithm>
#include <limits>
#include <optional>

#include "instance/instance.h"
#include "instance/snapshots.h"

namespace reprise::instance {

Status Instance::tend(std::span<const journal::Vector> peers) {
  if (journal_ == nullptr || in_memory()) return {};
  auto failure = journal_->failure();
  if (failure && failure->code() != Code::kNoSpace) return {};
  std::lock_guard keeping(keeping_);
  if (!failure) TRY(raise_hint_now_and_then());
  auto newest = TRY(newest_snapshot(store_->catalogue(), options_.branch, std::nullopt));
  LogIndex covered = newest ? newest->log_index : 0;
  Limits limits = TRY(limits_of_journal(peers));
  // On a full disk only what makes room is done.
  if (!failure && (limits.within_size > covered + 1 || TRY(wants_checkpoint(covered)))) TRY(checkpoint());
  return trim_to(limits);
}

// A cut below this is noticed, though the frames behind it are gone that would say so. Not each time that
// somebody waited for the disk: that would cost as much again.
Status Instance::raise_hint_now_and_then() {
  constexpr uint64_t kPause_ns = 10'000'000'000;
  uint64_t now_ns = options_.clock.monotonic_ns();
  LogIndex durable = journal_->durable();
  if (hint_raised_ns_ == 0) hint_raised_ns_ = now_ns;
  if (durable <= hint_raised_ || now_ns - hint_raised_ns_ < kPause_ns) return {};
  TRY(store_->catalogue().raise_durable_hint(options_.branch, durable));
  hint_raised_ns_ = now_ns;
  hint_raised_ = durable;
  return {};
}

// The catalogue says first how far it may go, so that a journal that has lost more of its beginning is told
// from one that was trimmed.
Result<LogIndex> Instance::trim_before(LogIndex index) {
  if (!in_memory()) {
    TRY(store_->catalogue().update_branch(options_.branch, [&](store::BranchRecord& branch) {
      branch.journal_begins = std::max(branch.journal_begins, index);
    }));
  }
  return journal_->trim(index);
}

Status Instance::checkpoint() {
  replay::Pinned pinned = TRY(pin());
  TRY(journal_->sync(pinned.moment.log_index));
  auto record = TRY(capture(pinned, "", true));
  TRY(drop_older_checkpoints(record.id));
  return store_->catalogue().raise_durable_hint(options_.branch, record.log_index);
}

// The journal is trimmed up to snapshots only, from which what is left can be read: for its size up to the
// next one, for its age up to the one before.
Status Instance::trim_to(const Limits& limits) {
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
  if (retention.journal_bytes == 0) return limits;
  for (size_t i = 0; i + 1 < files.segments.size() && files.bytes > retention.journal_bytes; ++i) {
    files.bytes -= files.segments[i].bytes;
    limits.within_size = std::max(limits.within_size, files.segments[i + 1].first_index);
  }
  return limits;
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
    LogIndex first = files.segments[i].first_index;
    if (first > needed || !is_older_than_limit(first)) break;
    keep = std::max(keep, first);
  }
  return keep;
}

// By the clock of who wrote it. A batch that cannot be read is not known to be old.
bool Instance::is_older_than_limit(LogIndex index) {
  if (index > journal_->last()) return false;
  auto logged = journal_->read(index)->next();
  if (!logged || !*logged) return false;
  auto age_s = static_cast<int64_t>(
      std::min<uint64_t>(options_.retention.journal_age_s, std::numeric_limits<int64_t>::max()));
  int64_t now_s = options_.clock.realtime().sec;
  return now_s >= age_s && (*logged)->batch.header().time.sec < now_s - age_s;
}

}  // namespace reprise::instance

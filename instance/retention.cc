// The part of Instance that keeps the next opening short, and the journal and the store small.
#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <optional>
#include <utility>

#include "base/log.h"
#include "fs/node_pool.h"
#include "instance/instance.h"
#include "instance/snapshots.h"
#include "snapshot/collect.h"
#include "store/pack_format.h"

namespace reprise::instance {
namespace {

constexpr uint64_t kPatience_ns = 30'000'000'000;  // before what has failed is tried again
// A collection reads through all snapshots: it waits for so many bytes, and for so much of the packs.
constexpr uint64_t kWorthwhileBytes = 32 << 20;
constexpr uint64_t kWorthwhilePart = 4;
constexpr double kDeadShare = 1.0 / 3, kDeadShareWhenTight = 0.05;

}  // namespace

Status Instance::tend(std::span<const journal::Vector> peers) {
  if (journal_ == nullptr || in_memory()) return {};
  auto failure = this->failure();
  if (failure && failure->code() != Code::kNoSpace) return {};
  std::lock_guard tending(tending_);
  {
    std::lock_guard keeping(keeping_);
    if (!failure) TRY(raise_hint_now_and_then());
    Status kept = keep_journal(peers);
    // What there is no room for now, there may be once something has been collected.
    if (!kept && kept.error().code() != Code::kNoSpace) return kept;
    TRY(drop_old_snapshots());
    TRY(keep_within_memory());
    if (!kept) {
      TRY(collect_if_worthwhile());
      return kept;
    }
  }
  TRY(collect_if_worthwhile());
  return keep_store_limit();
}

Status Instance::keep_journal(std::span<const journal::Vector> peers) {
  bool full = journal_->failure().has_value();
  auto newest = TRY(newest_snapshot(store_->catalogue(), options_.branch, std::nullopt));
  LogIndex covered = newest ? newest->log_index : 0;
  Limits limits = TRY(limits_of_journal(peers));
  Status kept;
  // On a full disk only what makes room is done.
  if (!full && (limits.within_size > covered + 1 || TRY(wants_checkpoint(covered)))) kept = try_checkpoint();
  if (!full && kept) kept = end_old_segment();
  TRY(trim_to(limits));
  return kept;
}

// Writing what there is no room for, twice a second, would be of no use to anybody.
Status Instance::try_checkpoint() {
  uint64_t now_ns = options_.clock.monotonic_ns();
  if (now_ns < next_checkpoint_ns_) return {};
  Status made = checkpoint();
  if (!made && made.error().code() == Code::kNoSpace) next_checkpoint_ns_ = now_ns + kPatience_ns;
  return made;
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

// Whole segments are dropped, so one must not stay open until it is full: a quarter of the age is what the
// journal may keep beyond it.
Status Instance::end_old_segment() {
  constexpr uint64_t kPartOfAge = 4;
  const Retention& retention = options_.retention;
  if (retention.journal_age_s == 0) return {};
  LogIndex first = TRY(journal_->files()).segments.back().first_index;
  if (!is_older_than(first, std::max<uint64_t>(retention.journal_age_s / kPartOfAge, 1))) return {};
  auto newest = TRY(newest_snapshot(store_->catalogue(), options_.branch, std::nullopt));
  if (!newest || newest->log_index < journal_->last()) TRY(try_checkpoint());
  return journal_->end_segment();
}

Result<std::vector<store::SnapshotRecord>> Instance::own_snapshots() {
  std::vector<store::SnapshotRecord> records = TRY(store_->catalogue().snapshots());
  std::erase_if(records,
                [&](const store::SnapshotRecord& record) { return record.branch != options_.branch; });
  return records;
}

Status Instance::drop_old_snapshots() {
  const Retention& retention = options_.retention;
  if (retention.snapshots == 0 && retention.snapshot_age_s == 0) return {};
  if (is_damaged()) return {};
  std::vector<store::SnapshotRecord> records = TRY(own_snapshots());
  int64_t now_s = options_.clock.realtime().sec;
  uint64_t seen = 0;
  for (auto record = records.rbegin(); record != records.rend(); ++record) {
    if (record->checkpoint || !record->label.empty()) continue;
    ++seen;
    bool beyond = retention.snapshots != 0 && seen > retention.snapshots;
    int64_t age_s = std::max<int64_t>(now_s - record->time.sec, 0);
    bool old = retention.snapshot_age_s != 0 && static_cast<uint64_t>(age_s) > retention.snapshot_age_s;
    if (beyond || old) TRY(drop(*record));
  }
  return {};
}

// What is in memory and not in the newest snapshot cannot go, so there is a new one first.
Status Instance::keep_within_memory() {
  const uint64_t budget = options_.retention.memory_bytes, used = fs::memory_in_use();
  if (budget == 0 || used <= budget) return {};
  if (recorder_ != nullptr) TRY(recorder_->flush());
  auto newest = TRY(newest_snapshot(store_->catalogue(), options_.branch, std::nullopt));
  if (!newest || newest->log_index < journal_->last()) {
    if (Status made = try_checkpoint(); !made && made.error().code() != Code::kNoSpace) return made;
    newest = TRY(newest_snapshot(store_->catalogue(), options_.branch, std::nullopt));
  }
  if (!newest) return {};
  if (evicts_to_.snapshot != newest->id) {
    auto kept = open_snapshot(store_, *newest, damage_);
    // One of a former version, or one that is damaged: nothing can go until there is another.
    if (!kept || !kept->partial() || !kept->load_table()) return {};
    evicts_to_ = {newest->id, kept->view()};
    read_from_.push_back({newest->id, kept->lazy_source()});
  }
  const uint64_t target = budget / 4 * 3;  // not twice a second a little
  evicted_bytes_ += filesystem_->evict(evicts_to_.kept, used - target, evict_from_);
  return {};
}

// --- what nobody needs any more

Result<store::Collected> Instance::collect(double dead_share) {
  if (store_ == nullptr)
    return fail(Code::kUnreachable, "nothing to collect: the leader has not been reached yet");
  return snapshot::collect(*store_, dead_share);
}

// What the packs hold and the catalogue does not know: what a crash has left of a snapshot, most of it.
Result<uint64_t> Instance::left_over_bytes() {
  uint64_t known = 0;
  TRY(store_->catalogue().for_each_blob(
      [&](BlobId, const store::BlobPlace& place) { known += store::kBlobHeaderBytes + place.stored_bytes; }));
  uint64_t there = TRY(store_->blobs().bytes_on_disk());
  return there - std::min(there, known);
}

Status Instance::collect_if_worthwhile() {
  uint64_t now_ns = options_.clock.monotonic_ns();
  if (now_ns < next_collection_ns_) return {};
  uint64_t removed = TRY(store_->catalogue().removed_bytes());
  if (!std::exchange(looked_for_leftovers_, true)) removed += TRY(left_over_bytes());
  if (removed == 0) return {};
  if (!journal_->failure()) {  // on a full disk everything counts
    if (removed < kWorthwhileBytes) return {};
    if (removed < TRY(store_->blobs().bytes_on_disk()) / kWorthwhilePart) return {};
  }
  auto collected = collect(kDeadShare);
  if (!collected || collected->left) next_collection_ns_ = now_ns + kPatience_ns;
  if (!collected) return std::unexpected(collected.error());
  if (collected->left) log_warning("{}; that pack stays as it is", collected->left->message());
  return {};
}

// --- the limit of the store

std::optional<Error> Instance::over_limit() const {
  std::lock_guard lock(state_);
  return over_limit_;
}

Status Instance::keep_store_limit() {
  uint64_t limit = options_.retention.store_bytes;
  if (limit == 0) return {};
  store::StoreUsage usage = TRY(store_->usage());
  uint64_t now_ns = options_.clock.monotonic_ns();
  // A segment that is being compressed is there twice: room for that is kept where it can be had.
  const uint64_t spare = options_.journal.compress ? options_.journal.segment_bytes : 0;
  const bool is_over = usage.all() > limit;
  if (is_over && now_ns < next_store_limit_ns_) return {};
  if (is_over || (usage.all() + spare > limit && now_ns >= next_spare_ns_)) {
    TRY(make_room(limit));
    usage = TRY(store_->usage());
    if (usage.all() + spare > limit) next_spare_ns_ = now_ns + kPatience_ns;
  }
  std::optional<Error> over;
  if (usage.all() > limit) {
    next_store_limit_ns_ = now_ns + kPatience_ns;
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

// What costs least is given up first: garbage, then history, then snapshots nobody gave a label. A little
// more than has to be, so that it is not to be done again at once; but not of what cannot be had again.
Status Instance::make_room(uint64_t limit) {
  auto fits = [&](uint64_t bytes) -> Result<bool> {
    TRY(collect(kDeadShareWhenTight));
    return TRY(store_->usage()).all() <= bytes;
  };
  uint64_t wanted = limit - limit / 8;
  if (TRY(fits(wanted))) return {};
  uint64_t journal = TRY(journal_->files()).bytes, all = TRY(store_->usage()).all();
  uint64_t others = all - std::min(all, journal);
  TRY(trim_to_bytes(wanted - std::min(wanted, others)));
  if (TRY(fits(limit))) return {};
  while (TRY(drop_one_unlabelled())) {
    if (TRY(fits(limit))) return {};
  }
  TRY(trim_to_bytes(0));
  TRY(fits(limit));
  return {};
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
  if (retention.journal_bytes != 0)
    limits.within_size = within_bytes(std::move(files), retention.journal_bytes);
  return limits;
}

// The first batch of what is left when the oldest segments go until no more than `bytes` are there.
LogIndex Instance::within_bytes(journal::JournalFiles files, uint64_t bytes) {
  LogIndex first = journal_->first();
  for (size_t i = 0; i + 1 < files.segments.size() && files.bytes > bytes; ++i) {
    files.bytes -= files.segments[i].bytes;
    first = std::max(first, files.segments[i + 1].first_index);
  }
  return first;
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

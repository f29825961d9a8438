// The part of Instance that keeps the next opening short, and what is kept of the past small: tend(), and
// what of it is not about sizes (limits.cc).
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
constexpr double kDeadShare = 1.0 / 3;

}  // namespace

Status Instance::tend(std::span<const journal::Vector> peers) {
  std::lock_guard tending(tending_);
  Status done = tend_alone(peers);
  // Where no room can be made, the limit is exceeded: nobody is held up for what will not come.
  auto until = done ? allowed_until() : Result<uint64_t>(journal::Allowance::kUnbounded);
  allowance().allow_until(until ? *until : journal::Allowance::kUnbounded);
  if (done && !until) return std::unexpected(until.error());
  return done;
}

Status Instance::tend_alone(std::span<const journal::Vector> peers) {
  size_is_kept_ = false;
  if (journal_ == nullptr || in_memory()) return {};
  auto failure = this->failure();
  if (failure && failure->code() != Code::kNoSpace) return {};
  if (!failure && join_to_finish_.exchange(false)) {
    if (Status finished = finish_joins(); !finished) return join_to_finish_ = true, finished;
  }
  // What is gathered is counted with the journal.
  if (options_.retention.bounds() && recorder_ != nullptr && !failure) TRY(recorder_->flush());
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
  size_is_kept_ = journal_->first() >= limits.within_size;
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

// What finishes a join that is under way is in the journal. The catalogue says first how far it may go, so
// that a journal that has lost more of its beginning is told from one that was trimmed.
Result<LogIndex> Instance::trim_before(LogIndex index) {
  if (!in_memory()) {
    if (auto end = TRY(end_before_joins(*store_, options_.branch))) index = std::min(index, *end + 1);
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
  if (store_->first_to_look_for_leftovers()) removed += TRY(left_over_bytes());
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

}  // namespace reprise::instance

// Instance::fork and Instance::join.
#include <fmt/format.h>

#include <algorithm>
#include <unordered_set>

#include "base/check.h"
#include "base/log.h"
#include "fs/diff.h"
#include "instance/joining.h"
#include "instance/memory_branch.h"
#include "instance/name.h"
#include "instance/snapshots.h"

namespace reprise::instance {
namespace {

constexpr size_t kGroupBatches = 256;
constexpr uint64_t kGatheredBytes = 1 << 20;

// Those that are recorded once for a batch of the branch. A claim may be repeated: it is one of the same ids.
uint64_t operations_but_claims(const journal::Batch& batch) {
  uint64_t count = 0;
  batch.for_each([&](const fs::Operation& operation) {
    if (!std::holds_alternative<fs::ClaimPrefix>(operation)) ++count;
  });
  return count;
}

std::string mark_in(const journal::Batch& batch) {
  std::string name;
  batch.for_each([&](const fs::Operation& operation) {
    if (const auto* barrier = std::get_if<fs::Barrier>(&operation)) name = barrier->name;
  });
  return store::Store::check_name("mark", name) ? name : "";
}

}  // namespace

Status Joining::open_in_memory(const MemoryBranch& branch) {
  if (!branch.end) {
    return fail(Code::kInvalidArgument,
                fmt::format("{}: expected branch {} to have been closed, found that its instance was given "
                            "back without that; open it and close it, or discard it",
                            name_of(store_), branch_.name));
  }
  journal_ = branch.journal;
  vector_ = branch.end->moment.position.vector;
  digest_ = branch.end->moment.position.digest;
  base_ = branch.began.share();
  theirs_ = fs::Head(branch.end->view);
  return {};
}

Status Joining::open_branch() {
  if (auto kept = memory_branch(store_, branch_.name)) return open_in_memory(*kept);
  journal::JournalOptions options;
  options.compress = false;
  options.threads = parent_.options_.journal.threads;
  bool untouched = TRY(TRY(store_.journal_directory(branch_.name))->list()).empty();
  auto record = TRY(store_.catalogue().branch(branch_.name));
  journal::Recovery recovery;
  journal_ = TRY(journal::Journal::open(TRY(store_.journal_directory(branch_.name)),
                                        {store_.volume(), branch_.name}, options, parent_.options_.random,
                                        record ? record->durable_hint : 0, &recovery));
  vector_ = fork_.position.vector;
  if (untouched) {  // nobody has been there
    digest_ = fork_.position.digest;
    return {};
  }
  if (!recovery.clean_close && !branch_.joining) {
    return fail(
        Code::kInvalidArgument,
        fmt::format("{0}: expected branch {1} to have been closed, found that what ran on it was killed. "
                    "`reprise run --store {0}:{1} -- true` takes it as it is, `reprise discard` drops it",
                    store_.path(), branch_.name));
  }
  if (journal_->last() <= fork_.log_index) return {};  // nothing was done
  if (journal_->first() > fork_.log_index + 1) {
    return fail(Code::kGap,
                fmt::format("{}: expected all that was done on branch {} since batch {}, found its journal "
                            "trimmed to batch {}",
                            store_.path(), branch_.name, fork_.log_index, journal_->first()));
  }
  auto cursor = journal_->read(fork_.log_index + 1);
  while (auto logged = TRY(cursor->next()))
    vector_.set(logged->batch.header().origin, logged->batch.header().lsn);
  auto newest = TRY(newest_snapshot(store_.catalogue(), branch_.name, std::nullopt));
  if (newest && newest->log_index == journal_->last()) digest_ = newest->digest;
  return {};
}

bool Joining::has_moved(const journal::Vector& now) const {
  return !vector_.covers(now);
}

Status Joining::load_both() {
  // What the parent has is compared with both. What guests change from here on, they load first.
  TRY(load_all(parent_.filesystem_->view()));
  std::vector<store::SnapshotRecord> records = TRY(store_.catalogue().snapshots());
  auto record = std::ranges::find(records, fork_.snapshot, &store::SnapshotRecord::id);
  if (record == records.end()) {
    return fail(
        Code::kNotFound,
        fmt::format("{}: expected snapshot {}, with which branch {} began, found none: it was deleted, and "
                    "so it cannot be told what both have changed",
                    store_.path(), fork_.snapshot, branch_.name));
  }
  fs::Head head = TRY(load_snapshot(store_, *record));
  base_ = head.view();
  replay::Replayer replayer(fork_.position.vector, fork_.lamport);
  auto cursor = journal_->read(fork_.log_index + 1);
  TRY(replayer.replay(*cursor, head, replay::Replayer::kToEnd));
  theirs_ = std::move(head);
  return {};
}

// What was recorded since the join began are operations of the branch from its beginning on, in calls that no
// batch ends in the middle of; the last one says where it happened.
Status Joining::skip_what_is_there() {
  began_behind_ = TRY(end_before_join(store_, branch_.name));
  rest_ = fork_.log_index + 1;
  if (!began_behind_) return {};
  uint64_t there = 0;
  auto have = parent_.journal_->read(*began_behind_ + 1);
  while (auto logged = TRY(have->next())) there += operations_but_claims(logged->batch);
  auto cursor = journal_->read(rest_);
  while (there > 0) {
    auto logged = TRY(cursor->next());
    all_there_ = !logged;
    if (all_there_) return {};
    uint64_t count = operations_but_claims(logged->batch);
    if (count > there)
      return fail(Code::kCorrupt,
                  fmt::format("{}: expected whole batches of branch {} behind batch {}, found a "
                              "part of its batch {}",
                              name_of(store_), branch_.name, *began_behind_, logged->index));
    there -= count;
    rest_ = logged->index + 1;
    skipped_.set(logged->batch.header().origin, logged->batch.header().lsn);
  }
  return {};
}

Result<Joined> Joining::run() {
  TRY(open_branch());
  TRY(skip_what_is_there());
  // With all of it recorded guests could go on, although it was not on the disk: more may be behind it.
  if (!all_there_ && !TRY(record_all())) return joined_;
  Status ended = end();
  if (!ended) parent_.join_to_finish_ = true;
  TRY(std::move(ended));
  return joined_;
}

Status Joining::end() {
  TRY(parent_.journal_->sync(parent_.journal_->last()));
  journal_.reset();
  TRY(remove_branch(store_, branch_.name));
  parent_.state_changed_.notify_all();
  return {};
}

Result<bool> Joining::record_all() {
  // Also what gives the parent's stream its origin, if it has not begun.
  if (auto let_in = parent_.recorder_->reserve(0); !let_in) {
    if (auto known = parent_.failure()) return std::unexpected(*known);
    Code code = let_in.error() == fs::Errno{ENOSPC} ? Code::kNoSpace : Code::kReadOnly;
    return fail(code, fmt::format("{}: cannot join {}: {}", name_of(store_), branch_.name,
                                  fs::errno_text(let_in.error())));
  }
  // Later, with all locks held, nobody could make room.
  if (journal_->last() > fork_.log_index)
    parent_.allowance_.take(TRY(journal_->bytes_from(fork_.log_index + 1)));
  std::unique_lock keeping(parent_.keeping_);  // no checkpoint in the middle
  for (;;) {
    // Guests go on writing until the last moment: whether that matters is seen under the filesystem's lock.
    bool compares = has_moved(parent_.vector()) && !branch_.joining && !only_if_unmoved_;
    if (compares && !base_) TRY(load_both());
    needs_both_ = false;
    std::unique_lock applying(parent_.applying_);
    auto swap = [&] {
      auto old = put_in_place();
      // The hook waits for the calls that are under way, which may wait for who makes room.
      if (old) applying.unlock(), keeping.unlock();
      return old;
    };
    CoherenceHook* hook = parent_.hook_.load();
    Status status;
    if (hook != nullptr) {
      status = hook->replace_all(swap, nullptr);
    } else if (auto old = swap(); !old) {
      status = std::unexpected(old.error());
    }
    if (needs_both_) continue;
    if ((joined_.moved && only_if_unmoved_) || !joined_.conflicts.empty()) return false;
    TRY(std::move(status));
    return true;
  }
}

Result<fs::View> Joining::put_in_place() {
  Status status;
  auto old = parent_.filesystem_->replay_aside([&](fs::Head& head, std::vector<InodeId>& unlinked) {
    status = apply(head, unlinked);
    return status.has_value();
  });
  TRY(std::move(status));
  return std::move(*old);
}

// With the filesystem's write lock held, on a head of its own.
Status Joining::apply(fs::Head& head, std::vector<InodeId>& unlinked) {
  TRY(parent_.recorder_->flush());
  journal::Vector now = parent_.recorder_->vector();
  joined_.moved = began_behind_ ? *began_behind_ != fork_.log_index : has_moved(now);
  bool merges = joined_.moved && !branch_.joining;
  if (merges && only_if_unmoved_) return fail(Code::kCancelled, "the branch went on");
  if (merges && !base_) {
    needs_both_ = true;
    return fail(Code::kCancelled, "the branch went on in this moment");
  }
  if (merges) {
    joined_.conflicts = replay::find_conflicts(*base_, head, *theirs_);
    if (!joined_.conflicts.empty()) return fail(Code::kCancelled, "both have changed the same");
  }
  fs::View before = head.view();
  TRY(apply_batches(head, unlinked, now));
  if (merges) TRY(check_result(before, head));
  if (!joined_.conflicts.empty()) return fail(Code::kCancelled, "both have set the same mark");
  if (!joined_.moved && digest_ && head.digest() != *digest_) {
    return fail(
        Code::kDivergence,
        fmt::format("{}: the digest after joining branch {} would be {}, expected {} as the branch has it",
                    name_of(store_), branch_.name, head.digest().to_string(), digest_->to_string()));
  }
  if (joined_.batches == 0 && !branch_.joining) return {};
  if (!branch_.joining) {
    LogIndex last = parent_.journal_->last();
    TRY(parent_.journal_->sync(last));  // what it names is there after a crash
    TRY(begin_joining(store_, branch_.name, last));
  }
  Status done = record_batches();
  if (!done) give_up(done.error());
  return done;
}

// In the middle, which only the next opening can go on from.
void Joining::give_up(const Error& why) {
  parent_.filesystem_->set_read_only(true);
  std::lock_guard lock(parent_.state_);
  parent_.join_failure_ = why.with_context(
      fmt::format("joining branch {} stopped half way; the next opening finishes it", branch_.name));
}

Status Joining::apply_batches(fs::Head& head, std::vector<InodeId>& unlinked, const journal::Vector& now) {
  journal::Vector have = now;
  for (const auto& [origin, lsn] : skipped_.entries()) have.set(origin, lsn);
  replay::Replayer replayer(have, parent_.recorder_->lamport());
  marks_.clear();
  auto cursor = journal_->read(rest_);
  std::vector<journal::Batch> group;
  for (bool more = true; more;) {
    group.clear();
    std::string mark;
    while (group.size() < kGroupBatches && mark.empty()) {
      auto logged = TRY(cursor->next());
      more = logged.has_value();
      if (!more) break;
      mark = mark_in(logged->batch);
      group.push_back(std::move(logged->batch));
    }
    Status applied = replayer.apply(head, group);
    bool may_refuse = joined_.moved && !branch_.joining;
    if (!applied && may_refuse && applied.error().code() == Code::kDivergence) {
      // What the two did on their way, and no longer shows, was the same.
      joined_.conflicts.push_back({"/", applied.error().message()});
    }
    TRY(std::move(applied));
    for (InodeId inode : head.take_unlinked()) unlinked.push_back(inode);
    head.settle();
    if (mark.empty()) continue;
    if (!branch_.joining) {
      auto known = TRY(store_.catalogue().mark(parent_.options_.branch, mark));
      bool set_since = known && known->log_index > fork_.log_index;
      if (set_since) joined_.conflicts.push_back({mark, "a mark that both have set"});
    }
    marks_.push_back({mark, head.digest()});
  }
  joined_.batches = replayer.batches();
  joined_.operations = replayer.operations();
  return {};
}

// Nothing has changed but what the branch had changed.
Status Joining::check_result(const fs::Tree& before, const fs::Head& after) const {
  std::unordered_set<InodeId> theirs;
  fs::for_each_changed_inode(*base_, *theirs_, [&](const fs::ChangedInode& changed) {
    theirs.insert(changed.inode);
    return true;
  });
  std::optional<InodeId> stranger;
  fs::for_each_changed_inode(before, after, [&](const fs::ChangedInode& changed) {
    bool passed = !changed.before && changed.after->nlink == 0;  // made and removed again
    if (!passed && !theirs.contains(changed.inode)) stranger = changed.inode;
    return !stranger;
  });
  if (!stranger) return {};
  return fail(Code::kDivergence,
              fmt::format("{}: joining branch {} would change inode {:x}, which the branch has not",
                          name_of(store_), branch_.name, stranger->value));
}

// In the parent's own stream, call for call: so no number of joins makes vectors longer. What is appended
// once begun to be is appended to the end: a journal that has not failed takes it.
Status Joining::record_batches() {
  journal::Recorder& recorder = *parent_.recorder_;
  auto cursor = journal_->read(rest_);
  auto mark = marks_.begin();
  uint64_t gathered = 0;
  while (auto logged = TRY(cursor->next())) {
    const journal::Batch& batch = logged->batch;
    const uint64_t bytes = batch.encoded_bytes();
    // Waits for its turn; where there is no space now, it waits in memory for some.
    if (auto room = parent_.journal_->reserve(bytes); !room && room.error().code() != Code::kNoSpace)
      return room;
    // A large one begins with a batch of its own, which it fits as it did.
    if (gathered + bytes > kGatheredBytes) TRY(recorder.flush()), gathered = 0;
    gathered += bytes;
    batch.for_each([&](const fs::Operation& operation) { recorder.record(operation, batch.header().label); });
    static_cast<void>(recorder.end_call());  // flush says more
    if (mark_in(batch).empty()) continue;
    CHECK(mark != marks_.end());
    TRY(note_mark(mark->name, mark->digest));
    ++mark;
  }
  recorder.record(fs::Barrier{"", parent_.options_.clock.realtime()}, label_);
  static_cast<void>(recorder.end_call());
  TRY(recorder.flush());
  return {};
}

// As Instance::mark does it.
Status Joining::note_mark(const std::string& name, Digest128 digest) {
  TRY(parent_.recorder_->flush());
  replay::Moment moment{
      {parent_.recorder_->vector(), digest}, parent_.recorder_->lamport(), parent_.journal_->last()};
  std::string token = TRY(parent_.token_of(moment));
  return store_.catalogue().put_mark(
      {name, parent_.options_.branch, moment.log_index, std::move(token), parent_.options_.clock.realtime()});
}

Result<Fork> Instance::fork(std::string_view name) {
  if (store_ == nullptr)
    return fail(Code::kUnreachable, "nothing to fork: the leader has not been reached yet");
  replay::Pinned pinned = TRY(pin());
  TRY(journal_->sync(pinned.moment.log_index));
  return fork_branch(*store_, name, options_.branch, pinned, options_.holder, options_.clock);
}

Result<Joined> Instance::join(std::string_view name, std::optional<replay::Winner> resolve) {
  if (recorder_ == nullptr) {
    return fail(Code::kReadOnly,
                fmt::format("cannot join {}: this instance follows another; join it where that is", name));
  }
  TRY(find_branch(*store_, name));
  auto lock = TRY(store_->lock_branch(name, options_.holder));
  Branch branch = TRY(find_branch(*store_, name));
  TRY(check_has_no_forks(*store_, name));
  if (!branch.fork || branch.fork->parent != options_.branch) {
    return fail(Code::kInvalidArgument,
                fmt::format("{}: expected a fork of {}, found that {} is {}", name_of(*store_),
                            options_.branch, name, branch.fork ? "one of " + branch.fork->parent : "none"));
  }
  Joining joining(*this, std::move(branch), fmt::format("join {}", name));
  Joined joined = TRY(joining.run());
  if (joined.conflicts.empty() || !resolve) return joined;
  return join_resolved(std::string(name), joining, std::move(joined.conflicts), *resolve);
}

// The branch's own batches do not fit any more, so what comes out is recorded; the branch stays, for its
// history and for what was left out of it. The caller holds its lock.
Result<Joined> Instance::join_resolved(const std::string& name, const Joining& joining,
                                       std::vector<replay::Conflict> found, replay::Winner winner) {
  fs::View theirs = joining.theirs();
  std::vector<replay::Conflict> conflicts;
  std::vector<replay::Merged::LeftOut> left_out;
  auto merge = [&](const fs::View& now) -> Result<fs::Head> {
    conflicts = replay::find_conflicts(joining.base(), now, theirs);
    auto merged = replay::merge(joining.base(), now, theirs, winner);
    if (!merged)
      return std::unexpected(Error::from_errno(static_cast<int>(merged.error()), "a file cannot be read"));
    left_out = std::move(merged->left_out);
    return std::move(merged->tree);
  };
  LogIndex before = 0;
  Joined joined = TRY(rewrite(merge, fmt::format("join {}", name), "", before));
  joined.moved = true;
  // Of marks, and of what no longer shows, the trees say nothing.
  joined.conflicts = conflicts.empty() ? std::move(found) : std::move(conflicts);
  joined.resolved = winner;
  joined.left_out = std::move(left_out);
  for (const store::MarkRecord& mark : TRY(store_->catalogue().marks()))
    if (mark.branch == name) joined.left_out.push_back({mark.name, "a mark that was set there"});
  return joined;
}

// A join that a crash interrupted is done already, as far as anybody could see.
Status Instance::finish_joins() {
  if (in_memory()) return {};
  for (const std::string& name : TRY(unfinished_joins(*store_, options_.branch))) {
    auto joined = join(name);
    if (!joined) {
      return std::unexpected(
          joined.error().with_context(fmt::format("{}: cannot finish joining branch {} into {} (`reprise "
                                                  "discard --half-joined` gives up what is missing)",
                                                  store_->path(), name, options_.branch)));
    }
    CHECK(joined->conflicts.empty());  // a join that has begun refuses nothing
    log_warning("{}: finished joining branch {} into {}, which was interrupted", store_->path(), name,
                options_.branch);
  }
  return {};
}

}  // namespace reprise::instance

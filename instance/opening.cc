// The part of Instance that opens: from a snapshot and the journal behind it to a tree that guests may use.
#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "base/check.h"
#include "base/log.h"
#include "instance/branches.h"
#include "instance/history.h"
#include "instance/instance.h"
#include "instance/marks.h"
#include "instance/memory_branch.h"
#include "instance/name.h"
#include "instance/snapshots.h"

namespace reprise::instance {
namespace {

// Stops after each batch that sets a mark of which the catalogue does not know: what came between them, a
// crash or a disk that failed, must not make those wait for ever who wait for it.
class ToUnknownMarks final : public journal::Cursor {
 public:
  ToUnknownMarks(journal::Cursor& all, std::vector<store::MarkRecord> known)
      : all_(all), known_(std::move(known)) {}
  Result<std::optional<journal::Logged>> next() override {
    if (found_) return std::optional<journal::Logged>();
    auto logged = TRY(all_.next());
    if (!logged) return logged;
    logged->batch.for_each([&](const fs::Operation& operation) {
      const auto* barrier = std::get_if<fs::Barrier>(&operation);
      if (barrier == nullptr || !store::Store::check_name("mark", barrier->name)) return;
      auto is_it = [&](const store::MarkRecord& mark) {
        return mark.name == barrier->name && mark.log_index >= logged->index;
      };
      const journal::BatchHeader& header = logged->batch.header();
      if (std::ranges::none_of(known_, is_it))
        found_ = {std::string(barrier->name), header.origin, header.lsn};
    });
    return logged;
  }
  bool wait(uint32_t) override { return false; }

  struct Found {
    std::string name;
    OriginId origin;
    Lsn lsn = 0;
  };
  // Where it has stopped; nothing at the end.
  std::optional<Found> take_found() { return std::exchange(found_, std::nullopt); }

 private:
  journal::Cursor& all_;
  const std::vector<store::MarkRecord> known_;  // of the branch
  std::optional<Found> found_;
};

// An instance that never mints ids.
class NoInodeIds final : public fs::InodeIdSource {
 public:
  InodeId next() override {
    CHECK(!"a follower creates no inodes");
    return {};
  }
};

}  // namespace

Result<std::unique_ptr<Instance>> Instance::open(std::shared_ptr<store::Store> store,
                                                 InstanceOptions options) {
  TRY(store::Store::check_name("branch", options.branch));
  std::unique_ptr<Instance> instance(new Instance(std::move(options)));
  // Branches are made by fork; who follows may call its own as it likes.
  if (instance->options_.branch != "main" && !instance->options_.follower)
    TRY(find_branch(*store, instance->options_.branch));
  instance->volume_ = store->volume();
  instance->store_ = std::move(store);
  TRY(instance->open_history());
  if (instance->options_.follower) return instance;
  TRY(instance->begin_writing());
  TRY(instance->finish_joins());
  return instance;
}

Result<std::unique_ptr<Instance>> Instance::open_new_follower(std::string path, InstanceOptions options) {
  TRY(store::Store::check_name("branch", options.branch));
  CHECK(options.follower);
  std::unique_ptr<Instance> instance(new Instance(std::move(options)));
  instance->new_store_path_ = std::move(path);
  instance->no_ids_ = std::make_unique<NoInodeIds>();
  instance->filesystem_ = std::make_unique<fs::Filesystem>(fs::Head::create(Timestamp{}),
                                                           instance->options_.clock, *instance->no_ids_);
  instance->filesystem_->set_read_only(true);
  return instance;
}

// Of this branch into another one; or, since a follower cannot finish it, of another one into this.
Status Instance::check_no_join_interrupted() {
  if (options_.branch != "main" && !options_.follower)
    return check_not_joining(*store_, TRY(find_branch(*store_, options_.branch)));
  if (!options_.follower) return {};
  std::vector<std::string> joining = TRY(unfinished_joins(*store_, options_.branch));
  if (joining.empty()) return {};
  return fail(Code::kInvalidArgument,
              fmt::format("{0}: expected a whole tree to follow with, found that a join of {1} into {2} was "
                          "interrupted; `reprise join {0} {1}` finishes it",
                          store_->path(), joining.front(), options_.branch));
}

Status Instance::open_journal() {
  journal::JournalIdentity identity{store_->volume(), options_.branch};
  if (auto kept = memory_branch(*store_, options_.branch)) {
    journal_ = TRY(journal_since(kept->fork, kept->journal.get(), identity, options_.journal));
    return {};
  }
  if (in_memory()) {
    journal_ = journal::Journal::in_memory(identity, options_.journal);
    return {};
  }
  auto branch = TRY(store_->catalogue().branch(options_.branch));
  LogIndex durable_hint = branch ? branch->durable_hint : 0;
  if (branch) former_origins_ = branch->writers;
  auto directory = TRY(store_->journal_directory(options_.branch));
  set_sizes();
  journal_ = TRY(journal::Journal::open(std::move(directory), identity, options_.journal, options_.random,
                                        durable_hint, &open_report_.recovery));
  auto lost = missing_beginning(branch, journal_->first(), open_report_.recovery.begins_anew);
  if (lost) return std::unexpected(lost->with_context(store_->path()));
  return {};
}

Status Instance::open_history() {
  lock_ = TRY(store_->lock_branch(options_.branch, options_.holder));
  if (!in_memory()) TRY(check_no_join_interrupted());
  TRY(open_journal());
  fs::Head head = fs::Head::create(Timestamp{});
  if (auto kept = memory_branch(*store_, options_.branch)) {
    TRY(go_on_in_memory(*kept, head));
    return begin_filesystem(std::move(head));
  }
  Status built = rebuild(options_.opening, head);
  if (!built && open_report_.lazily) {
    // What the journal goes on from cannot be loaded. Read whole, an older snapshot may do.
    log_warning("{}; the state is built anew from what can be read whole", built.error().message());
    built = rebuild(Opening::kWhole, head);
  }
  TRY(std::move(built));

  for (const std::string& lost : TRY(drop_marks_after(*store_, options_.branch, journal_->last())))
    log_warning("{}: the mark {} is dropped: what it named has been lost", store_->path(), lost);
  return begin_filesystem(std::move(head));
}

// From the newest snapshot that can be read, and the journal behind it.
Status Instance::rebuild(Opening opening, fs::Head& head) {
  auto load = [&](const store::SnapshotRecord& record) -> Result<fs::Head> {
    constexpr uint64_t kSmallInodes = 2000, kSmallBytes = 16 << 20;
    bool small = record.inodes <= kSmallInodes && record.bytes <= kSmallBytes;
    if (opening == Opening::kWhole || (opening == Opening::kBySize && small))
      return load_snapshot(*store_, record);
    return open_snapshot(store_, record, damage_);
  };
  Base base = TRY(load_base(*store_, options_.branch, std::nullopt, load));
  const std::optional<store::SnapshotRecord>& snapshot = base.snapshot;
  if (snapshot) open_report_.snapshot = snapshot->id;
  open_report_.lazily = base.head.partial();
  LogIndex snapshot_index = snapshot ? snapshot->log_index : 0;
  journal::Vector vector;
  if (snapshot) vector = TRY(journal::Vector::decode(snapshot->vector));

  // The journal would give an older state than there was.
  if (base.unreadable && journal_->last() < base.unreadable_index) return std::unexpected(*base.unreadable);
  // What there is of the journal goes then: all of the snapshot must be there.
  if (journal_->last() < snapshot_index && open_report_.lazily) return rebuild(Opening::kWhole, head);
  if (journal_->last() < snapshot_index) {
    // An overwrite was kept as a snapshot, and the crash came before the journal began anew behind it.
    TRY(journal_->restart_at(snapshot_index + 1, vector));
  } else if (journal_->first() > snapshot_index + 1) {
    if (base.unreadable) return std::unexpected(*base.unreadable);
    return fail(Code::kCorrupt,
                fmt::format("{}: the journal of branch {} begins at batch {}, expected at most {}: {}",
                            store_->path(), options_.branch, journal_->first(), snapshot_index + 1,
                            snapshot ? "the newest snapshot does not reach it"
                                     : "there is no snapshot to start from"));
  }

  if (base.unreadable) {
    log_warning("{}; the state is built from {} and the journal instead", base.unreadable->message(),
                snapshot ? fmt::format("snapshot {}", snapshot->id) : "the beginning");
  }
  replayer_ = replay::Replayer(vector, snapshot ? snapshot->lamport : 0);
  auto cursor = journal_->read(snapshot_index + 1);
  TRY(replay_noting_marks(*cursor, base.head));
  vector_ = replayer_.applied();
  head = std::move(base.head);
  return {};
}

// As it was closed; or, where an instance was given back without that, from what it had recorded.
Status Instance::go_on_in_memory(const MemoryBranch& branch, fs::Head& head) {
  if (branch.end) {
    head = fs::Head(branch.end->view);
    replayer_ = replay::Replayer(branch.end->moment.position.vector, branch.end->moment.lamport);
  } else {
    head = fs::Head(branch.began);
    replayer_ = replay::Replayer(branch.fork.position.vector, branch.fork.lamport);
    auto cursor = journal_->read(branch.fork.log_index + 1);
    TRY(replay_noting_marks(*cursor, head));
  }
  vector_ = replayer_.applied();
  keep_in_memory(nullptr);
  return {};
}

// What the store has of a branch in memory from here on.
void Instance::keep_in_memory(const replay::Pinned* end) {
  auto was = memory_branch(*store_, options_.branch);
  if (was == nullptr) return;
  store_->keep_branch(options_.branch, std::make_shared<MemoryBranch>(was->fork, was->began, journal_, end));
}

Status Instance::begin_filesystem(fs::Head head) {
  if (options_.follower) {
    no_ids_ = std::make_unique<NoInodeIds>();
    filesystem_ = std::make_unique<fs::Filesystem>(std::move(head), options_.clock, *no_ids_);
    filesystem_->set_read_only(true);
    return {};
  }
  OriginId previous;
  if (journal_->last() >= journal_->first() && journal_->last() > 0) {
    auto last = TRY(journal_->read(journal_->last())->next());
    if (last) previous = last->batch.header().origin;
  }
  recorder_ = journal::Recorder::create(
      *journal_, options_.clock, options_.random, vector_, replayer_.lamport(), previous,
      [this](OriginId origin) { return claim_origin(origin); }, &allowance_);
  filesystem_ =
      std::make_unique<fs::Filesystem>(std::move(head), options_.clock, *recorder_, recorder_.get());
  return {};
}

Status Instance::replay_noting_marks(journal::Cursor& cursor, fs::Head& head) {
  std::vector<store::MarkRecord> known = TRY(store_->catalogue().marks());
  const LogIndex last = journal_->last();
  std::erase_if(known, [&](const store::MarkRecord& mark) {
    return mark.branch != options_.branch || mark.log_index > last;
  });
  open_report_.batches_replayed = 0;
  ToUnknownMarks to_mark(cursor, std::move(known));
  for (;;) {
    auto progress = TRY(replayer_.replay(to_mark, head, replay::Replayer::kToEnd));
    open_report_.batches_replayed += progress.batches;
    auto found = to_mark.take_found();
    if (!found) return {};
    head.settle();
    journal::Position position{replayer_.applied(), head.digest()};
    store::MarkRecord record{found->name, options_.branch, progress.log_index,
                             position.by_last_batch(found->origin, found->lsn).to_token(),
                             options_.clock.realtime()};
    TRY(store_->catalogue().put_mark(record));
  }
}

// Before anything is written under it, so that a stream of which the disk loses everything is known to have
// been this branch's.
Status Instance::claim_origin(OriginId origin) {
  if (in_memory()) return {};
  return store_->catalogue().update_branch(options_.branch, [&](store::BranchRecord& branch) {
    branch.writers.push_back(origin);
    if (branch.writers.size() > store::kBranchWritersMax) branch.writers.erase(branch.writers.begin());
  });
}

// Nobody has more of a stream that has been closed. Where nothing was written since, former ones may still be
// taken back the next time.
void Instance::note_clean_close(store::BranchRecord& branch, LogIndex durable) const {
  branch.durable_hint = std::max(branch.durable_hint, durable);
  if (recorder_ == nullptr) return;
  if (recorder_->vector().get(recorder_->origin()) > 0) {
    branch.writers.clear();
  } else {
    std::erase(branch.writers, recorder_->origin());
  }
}

Status Instance::begin_writing() {
  if (!vector_.empty()) return {};
  // A volume begins with a root directory of the year 1970; the first writer gives it its time.
  fs::SetAttributesRequest now;
  now.atime_change = now.mtime_change = fs::SetAttributesRequest::TimeChange::kNow;
  auto done = filesystem_->set_attributes(fs::Caller{}, kRootInode, now);
  if (!done)
    return fail(Code::kIo, fmt::format("{}: cannot begin the volume: {}", name_of(*store_),
                                       fs::errno_text(done.error())));
  // On the disk: from here on a missing journal is noticed.
  TRY(sync());
  return store_->catalogue().raise_durable_hint(options_.branch, journal_->durable());
}

}  // namespace reprise::instance

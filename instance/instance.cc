#include "instance/instance.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <utility>

#include "base/check.h"
#include "base/log.h"
#include "instance/history.h"
#include "instance/marks.h"
#include "instance/name.h"
#include "instance/snapshots.h"

namespace reprise::instance {
namespace {

// Among a branch's writers: whoever wrote before it was promoted.
constexpr OriginId kAnyOrigin{};
constexpr LogIndex kPassed = 0;  // log index of a mark that lies before everything kept here

// To a head under the filesystem's lock, and to its recorder.
class RecordedChanges final : public Changes {
 public:
  RecordedChanges(fs::Head& head, journal::Recorder& recorder, std::string_view label)
      : head_(head), recorder_(recorder), label_(label) {}
  const fs::Tree& tree() const override { return head_; }
  InodeId new_inode() override { return recorder_.next(); }
  void apply(const fs::Operation& operation) override {
    CHECK(head_.apply(operation));
    recorder_.record(operation, label_);
    any_ = true;
  }
  bool any() const { return any_; }

 private:
  fs::Head& head_;
  journal::Recorder& recorder_;
  const std::string_view label_;
  bool any_ = false;
};

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

Instance::Instance(InstanceOptions options) : options_(std::move(options)) {}

Instance::~Instance() = default;

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
  if (in_memory()) {
    journal_ = journal::Journal::in_memory(identity, options_.journal);
    return {};
  }
  auto branch = TRY(store_->catalogue().branch(options_.branch));
  LogIndex durable_hint = branch ? branch->durable_hint : 0;
  if (branch) former_origins_ = branch->writers;
  auto directory = TRY(store_->journal_directory(options_.branch));
  // Trimming goes by segments.
  uint64_t& segment_bytes = options_.journal.segment_bytes;
  if (uint64_t limit = options_.retention.journal_bytes; limit != 0)
    segment_bytes = std::min(segment_bytes, limit / 4);
  if (uint64_t limit = options_.retention.store_bytes; limit != 0)
    segment_bytes = std::min(segment_bytes, limit / 16);
  journal_ = TRY(journal::Journal::open(std::move(directory), identity, options_.journal, options_.clock,
                                        options_.random, durable_hint, &open_report_.recovery));
  auto lost = missing_beginning(branch, journal_->first(), open_report_.recovery.begins_anew);
  if (lost) return std::unexpected(lost->with_context(store_->path()));
  return {};
}

Status Instance::open_history() {
  lock_ = TRY(store_->lock_branch(options_.branch, options_.holder));
  if (!in_memory()) TRY(check_no_join_interrupted());
  TRY(open_journal());
  fs::Head head = fs::Head::create(Timestamp{});
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
  recorder_ =
      journal::Recorder::create(*journal_, options_.clock, options_.random, vector_, replayer_.lamport(),
                                previous, [this](OriginId origin) { return claim_origin(origin); });
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

Status promote(store::Store& store, const std::string& branch, const store::LockHolder& holder) {
  if (store.path().empty()) return fail(Code::kUnsupported, "a store in memory cannot be promoted");
  TRY(find_branch(store, branch));
  auto lock = TRY(store.lock_branch(branch, holder));
  return store.catalogue().update_branch(branch, [&](store::BranchRecord& record) {
    if (std::ranges::find(record.writers, kAnyOrigin) != record.writers.end()) return;
    if (record.writers.size() >= store::kBranchWritersMax) record.writers.erase(record.writers.begin());
    record.writers.push_back(kAnyOrigin);
  });
}

VolumeId Instance::volume() const {
  std::lock_guard lock(state_);
  return volume_;
}

journal::Vector Instance::vector() const {
  if (recorder_ != nullptr) return recorder_->vector();
  std::lock_guard lock(state_);
  return vector_;
}

bool Instance::is_new() const {
  return vector().empty();
}

journal::Journal& Instance::journal() {
  CHECK(journal_ != nullptr);
  return *journal_;
}

void Instance::publish_vector() {
  {
    std::lock_guard lock(state_);
    vector_ = replayer_.applied();
  }
  state_changed_.notify_all();
}

Result<replay::Pinned> Instance::pin() {
  std::lock_guard applying(applying_);
  Result<replay::Pinned> pinned;
  filesystem_->replay([&](fs::Head& head) { pinned = pin_locked(head); });
  return pinned;
}

Result<replay::Pinned> Instance::pin_locked(fs::Head& head) {
  replay::Pinned now;
  head.settle();
  if (recorder_ != nullptr) {
    TRY(recorder_->flush());
    now.moment = {{recorder_->vector(), head.digest()}, recorder_->lamport(), journal_->last()};
  } else {
    now.moment = {{replayer_.applied(), head.digest()}, replayer_.lamport(), journal_ ? journal_->last() : 0};
  }
  now.view = head.view();
  return now;
}

Result<replay::Moment> Instance::settle() {
  auto pinned = TRY(pin());
  return pinned.moment;
}

uint64_t Instance::estimated_snapshot_bytes() const {
  constexpr uint64_t kBytesPerInode =
      130;  // its attributes and its name in a directory, as snapshot/ encodes them
  fs::Usage usage = filesystem_->usage();
  return usage.blocks * fs::kBlockSize + usage.inodes * kBytesPerInode;
}

Status Instance::sync() {
  if (journal_ == nullptr) return {};
  // Not only what was written here: what was taken back may not be on the disk yet either.
  if (recorder_ != nullptr) TRY(recorder_->flush());
  return journal_->sync(journal_->last());
}

Status Instance::guest_sync() {
  journal::Durability durability = options_.journal.durability;
  bool waits = durability == journal::Durability::kFsync || durability == journal::Durability::kAlways;
  if (waits || recorder_ == nullptr) return sync();
  TRY(recorder_->flush());
  return {};
}

Result<std::string> Instance::token_of(const replay::Moment& moment) {
  if (journal_ == nullptr || moment.log_index < journal_->first() || moment.log_index == 0)
    return moment.position.to_token();
  auto last = journal_->read(moment.log_index)->next();
  if (!last && last.error().code() == Code::kGap) return moment.position.to_token();  // trimmed just now
  if (!last) return std::unexpected(last.error());
  if (!*last) return moment.position.to_token();
  const journal::BatchHeader& header = (*last)->batch.header();
  return moment.position.by_last_batch(header.origin, header.lsn).to_token();
}

Status Instance::change(std::string_view label, uint64_t bytes, const std::function<Status(Changes&)>& make) {
  auto refused = [&](fs::Errno why) -> Status {
    if (auto known = failure()) return std::unexpected(*known);
    return std::unexpected(
        Error::from_errno(static_cast<int>(why), fmt::format("{}: cannot be changed", name_of(*store_))));
  };
  if (recorder_ == nullptr || filesystem_->read_only())
    return fail(Code::kReadOnly, fmt::format("{}: this instance is read-only", name_of(*store_)));
  if (auto room = recorder_->reserve(bytes); !room) return refused(room.error());
  Status made;
  fs::Outcome<void> recorded;
  {
    std::lock_guard applying(applying_);
    filesystem_->replay([&](fs::Head& head) {
      RecordedChanges changes(head, *recorder_, label);
      made = make(changes);
      CHECK(made || !changes.any());
      recorded = recorder_->end_call();
    });
  }
  TRY(std::move(made));
  if (recorded) recorded = recorder_->commit();
  return recorded ? Status{} : refused(recorded.error());
}

Result<store::MarkRecord> Instance::mark(std::string_view name, std::string_view label) {
  TRY(store::Store::check_name("mark", name));
  if (recorder_ == nullptr) {
    return fail(Code::kReadOnly,
                fmt::format("cannot set the mark {}: this instance follows another; set it there", name));
  }
  if (auto room = recorder_->reserve(name.size()); !room) {
    return fail(Code::kReadOnly,
                fmt::format("cannot set the mark {}: {}", name, fs::errno_text(room.error())));
  }
  // Until the catalogue has it, nobody pins: a snapshot of a moment after the mark would go without it, and
  // whom it overwrites would wait for the mark forever.
  std::lock_guard applying(applying_);
  // The position is that of the mark itself: nobody writes in between.
  Result<replay::Pinned> pinned;
  Timestamp time = options_.clock.realtime();
  filesystem_->replay([&](fs::Head& head) {
    recorder_->record(fs::Barrier{name, time}, label);
    static_cast<void>(recorder_->end_call());  // pin_locked says what is lost, with more words
    pinned = pin_locked(head);
  });
  replay::Moment moment = TRY(std::move(pinned)).moment;
  TRY(journal_->sync(moment.log_index));
  std::string token = TRY(token_of(moment));
  store::MarkRecord record{std::string(name), options_.branch, moment.log_index, std::move(token), time};
  TRY(store_->catalogue().put_mark(record, journal_->durable()));
  state_changed_.notify_all();
  return record;
}

Status Instance::wait_for(const journal::Vector& wanted, uint32_t timeout_ms) {
  // A writer's own vector moves without notice: look again every few milliseconds.
  for (uint64_t begin = options_.clock.monotonic_ns(); !vector().covers(wanted);) {
    if (options_.clock.monotonic_ns() - begin > uint64_t{timeout_ms} * 1'000'000) {
      return fail(Code::kTimeout, fmt::format("the position was not reached within {} ms", timeout_ms));
    }
    std::unique_lock lock(state_);
    state_changed_.wait_for(lock, std::chrono::milliseconds(5));
  }
  return {};
}

Result<store::MarkRecord> Instance::wait_for_mark(std::string_view name, uint32_t timeout_ms) {
  for (uint64_t begin = options_.clock.monotonic_ns();;) {
    if (volume()) {
      auto record = TRY(store_->catalogue().mark(options_.branch, name));
      // A mark of a tail that the disk lost has not been passed any more.
      if (record && record->log_index <= journal_->last()) return *record;
    }
    if (options_.clock.monotonic_ns() - begin > uint64_t{timeout_ms} * 1'000'000) {
      return fail(Code::kTimeout, fmt::format("the mark {} was not reached within {} ms", name, timeout_ms));
    }
    std::unique_lock lock(state_);
    state_changed_.wait_for(lock, std::chrono::milliseconds(20));
  }
}

Result<Instance::Digests> Instance::digests() {
  auto pinned = TRY(pin());
  return Digests{pinned.moment.position.digest, pinned.view.recompute_digest()};
}

std::optional<Error> Instance::failure() const {
  {
    std::lock_guard lock(state_);
    if (join_failure_) return join_failure_;
  }
  return journal_ != nullptr ? journal_->failure() : std::nullopt;
}

// --- a follower's side

Status Instance::adopt_volume(VolumeId volume) {
  if (store_ != nullptr) {
    return fail(Code::kWrongVolume, fmt::format("{}: this store holds volume {}", name_of(*store_),
                                                store_->volume().to_string()));
  }
  if (new_store_path_.empty()) {
    store_ = store::Store::in_memory(volume);
  } else {
    store_ = TRY(store::Store::create(new_store_path_, volume));
  }
  lock_ = TRY(store_->lock_branch(options_.branch, options_.holder));
  TRY(open_journal());
  std::lock_guard lock(state_);
  volume_ = volume;
  return {};
}

Status Instance::note_marks(const journal::Batch& batch) {
  std::string name;
  batch.for_each([&](const fs::Operation& operation) {
    if (auto* barrier = std::get_if<fs::Barrier>(&operation)) name = barrier->name;
  });
  // A peer may name its marks as it likes; one that could not be asked for here is no mark here.
  if (!store::Store::check_name("mark", name)) return {};
  // What is said to have been passed must still have been after a crash.
  TRY(journal_->sync(journal_->last()));
  Digest128 digest = filesystem_->digest();
  journal::Position position{replayer_.applied(), digest};
  store::MarkRecord record{name, options_.branch, journal_->last(),
                           position.by_last_batch(batch.header().origin, batch.header().lsn).to_token(),
                           options_.clock.realtime()};
  return store_->catalogue().put_mark(record, journal_->durable());
}

// What of the group was applied since the tree was at `before`.
Status Instance::journal_applied(std::span<const journal::Batch> group, const journal::Vector& before) {
  for (const journal::Batch& batch : group) {
    const journal::BatchHeader& header = batch.header();
    if (header.lsn <= before.get(header.origin) || header.lsn > replayer_.applied().get(header.origin))
      continue;
    TRY(journal_->append(batch));
    if (recorder_ != nullptr) recorder_->observe(header);
  }
  return {};
}

Status Instance::apply_and_journal(std::span<const journal::Batch> group, const journal::Vector* giver) {
  journal::Vector before = replayer_.applied();
  Status status, journaled;
  filesystem_->replay([&](fs::Head& head) {
    if (recorder_ == nullptr) {
      status = replayer_.apply(head, group);
      return;
    }
    // A guest's next write comes after these, in the journal as well.
    status = check_takes_back(*giver);
    if (status) status = replayer_.apply(head, group);
    journaled = journal_applied(group, before);
  });
  if (recorder_ == nullptr) journaled = journal_applied(group, before);
  TRY(std::move(journaled));
  return status;
}

// Several may give at once. What one has beside what another has given does not follow it: it was written
// elsewhere.
Status Instance::check_takes_back(const journal::Vector& giver) const {
  if (recorder_->begun())
    return fail(Code::kReadOnly,
                "this instance has written since, so that what it lost does not fit any more");
  if (giver.covers(recorder_->vector())) return {};
  return fail(Code::kDetached,
              "another follower has given back what this one lacks, so that the rest does not fit any more");
}

bool Instance::may_take_back() const {
  if (recorder_ == nullptr || former_origins_.empty()) return false;
  return recorder_->vector().get(recorder_->origin()) == 0;
}

// Where the peer has all that is here and more of former streams, it is as if this instance had never lost
// it.
bool Instance::would_take_back(const journal::Vector& peer) {
  if (!may_take_back()) return false;
  journal::Vector ours = recorder_->vector();
  if (!peer.covers(ours)) return false;
  return std::ranges::all_of(peer.entries(), [&](const auto& entry) {
    return entry.second <= ours.get(entry.first) || is_former(entry.first);
  });
}

bool Instance::was_promoted() const {
  return std::ranges::find(former_origins_, kAnyOrigin) != former_origins_.end();
}

bool Instance::is_former(OriginId origin) const {
  if (was_promoted()) return true;
  return std::ranges::find(former_origins_, origin) != former_origins_.end();
}

Status Instance::take_back(const journal::Vector& giver, std::span<const journal::Batch> group,
                           bool complete) {
  CHECK(recorder_ != nullptr);
  for (const journal::Batch& batch : group) {
    const journal::BatchHeader& header = batch.header();
    if (is_former(header.origin) || header.lsn <= recorder_->vector().get(header.origin)) continue;
    return fail(Code::kCorrupt,
                fmt::format("expected batches of this branch's former origins, found LSN {} of {}",
                            header.lsn, header.origin.to_short_string()));
  }
  TRY(apply_in_groups(group, &giver));
  return complete ? journal_->sync(journal_->last()) : Status{};
}

Status Instance::apply(std::span<const journal::Batch> group) {
  if (journal_ == nullptr) return fail(Code::kInvalidArgument, "batches before the volume is known");
  CHECK(recorder_ == nullptr);
  return apply_in_groups(group);
}

Status Instance::apply_in_groups(std::span<const journal::Batch> group, const journal::Vector* giver) {
  while (!group.empty()) {
    // A mark is a position, so the tree is looked at right after it: a group ends there.
    size_t size = 0;
    std::vector<fs::Operation> operations;
    bool marked = false;
    while (size < group.size() && !marked) {
      group[size++].for_each([&](const fs::Operation& operation) {
        operations.push_back(operation);
        marked |= std::holds_alternative<fs::Barrier>(operation);
      });
    }
    std::lock_guard applying(applying_);
    uint64_t bytes = 0;
    for (const journal::Batch& batch : group.first(size)) bytes += batch.encoded_bytes();
    TRY(journal_->reserve(bytes));
    const journal::BatchHeader& last = group[size - 1].header();
    bool passes_mark = marked && last.lsn > replayer_.applied().get(last.origin);
    auto run = [&] { return apply_and_journal(group.first(size), giver); };
    CoherenceHook* hook = hook_.load();
    Status status = hook != nullptr ? hook->apply_remotely(operations, run) : run();
    // Not before the hook is done: who has waited for a mark sees nothing older than it.
    if (passes_mark && replayer_.applied().get(last.origin) >= last.lsn) {
      Status noted = note_marks(group[size - 1]);
      if (status) status = noted;
    }
    if (status && options_.journal.durability == journal::Durability::kAlways)
      status = journal_->sync(journal_->last());
    publish_vector();
    if (!status) return status;
    group = group.subspan(size);
  }
  return {};
}

Result<std::vector<replay::Mark>> Instance::marks() {
  std::vector<store::MarkRecord> records = TRY(store_->catalogue().marks());
  std::erase_if(records, [&](const store::MarkRecord& record) { return record.branch != options_.branch; });
  std::sort(records.begin(), records.end(), [](auto& a, auto& b) { return a.log_index < b.log_index; });
  std::vector<replay::Mark> marks;
  marks.reserve(records.size());
  for (store::MarkRecord& record : records)
    marks.push_back({std::move(record.name), std::move(record.token)});
  return marks;
}

// Marks that came with a snapshot: passed, but where they were cannot be looked at here.
Result<std::vector<store::MarkRecord>> Instance::passed(std::span<const replay::Mark> marks) const {
  std::vector<store::MarkRecord> records;
  for (const replay::Mark& mark : marks) {
    TRY(store::Store::check_name("mark", mark.name));
    TRY(journal::Position::parse_token(mark.token));
    records.push_back({mark.name, options_.branch, kPassed, mark.token, options_.clock.realtime()});
  }
  return records;
}

Status Instance::install(const fs::View& tree, const journal::Position& position, uint64_t lamport,
                         std::span<const replay::Mark> marks) {
  if (journal_ == nullptr) return fail(Code::kInvalidArgument, "a snapshot before the volume is known");
  std::vector<store::MarkRecord> passed_marks = TRY(passed(marks));
  std::lock_guard keeping(keeping_);
  std::lock_guard applying(applying_);
  if (!in_memory() && !position.vector.covers(replayer_.applied())) TRY(keep_overwritten(position.vector));
  replay::Pinned pinned{tree.share(), {position, lamport, journal_->last() + 1}};
  uint64_t kept = 0;
  Status begun = begin_anew_with(pinned, passed_marks, kept);
  if (journal_->last() < pinned.moment.log_index) return begun;  // nothing has happened
  auto swap = [&]() -> Result<fs::View> { return filesystem_->install(tree); };
  CoherenceHook* hook = hook_.load();
  Status swapped;
  if (hook != nullptr) {
    swapped = hook->replace_all(swap);
  } else {
    TRY(swap());
  }
  replayer_ = replay::Replayer(position.vector, lamport);
  publish_vector();
  TRY(std::move(swapped));
  // Only now: what was not loaded of the old tree was read from one of them.
  if (!in_memory()) TRY(drop_older_checkpoints(kept));
  return begun;
}

// What is about to be installed is kept first, and the journal that led to the old tree given up: what cannot
// be kept is not installed, so that a tree is never ahead of what can be opened again. The snapshot's index
// lies past the old journal's end, so that reopening after a crash in between takes it. The marks on the way
// to it are kept in the same transaction. After an error the journal goes on where it was, unless its last
// batch says otherwise.
Status Instance::begin_anew_with(const replay::Pinned& pinned, const std::vector<store::MarkRecord>& marks,
                                 uint64_t& kept) {
  const LogIndex index = pinned.moment.log_index;
  if (in_memory()) {
    TRY(journal_->restart_at(index + 1, pinned.moment.position.vector));
    for (const store::MarkRecord& mark : marks) TRY(store_->catalogue().put_mark(mark));
    return {};
  }
  std::vector<store::MarkRecord> before = TRY(store_->catalogue().marks());
  auto record = TRY(capture(pinned, "", true, marks));
  Status begun = journal_->restart_at(index + 1, pinned.moment.position.vector);
  kept = record.id;
  if (begun || journal_->last() >= index) return begun;
  TRY(store_->catalogue().remove_snapshot(record.id));
  for (const store::MarkRecord& mark : marks) {
    auto old = std::ranges::find_if(
        before, [&](const auto& each) { return each.branch == mark.branch && each.name == mark.name; });
    if (old != before.end()) {
      TRY(store_->catalogue().put_mark(*old));
    } else {
      TRY(store_->catalogue().remove_mark(mark.branch, mark.name));
    }
  }
  return begun;
}

// --- snapshots

Result<store::SnapshotRecord> Instance::capture(const replay::Pinned& pinned, std::string_view label,
                                                bool checkpoint,
                                                const std::vector<store::MarkRecord>& marks) {
  store::SnapshotRecord record;
  record.branch = options_.branch;
  record.label = label;
  record.checkpoint = checkpoint;
  record.time = options_.clock.realtime();
  record.log_index = pinned.moment.log_index;
  record.vector = pinned.moment.position.vector.encode();
  record.digest = pinned.moment.position.digest;
  record.lamport = pinned.moment.lamport;
  return capture_snapshot(*store_, pinned.view, record, marks);
}

Result<store::SnapshotRecord> Instance::snapshot(std::string_view label) {
  if (store_ == nullptr)
    return fail(Code::kUnreachable, "nothing to take a snapshot of: the leader has not been reached yet");
  replay::Pinned pinned = TRY(pin());
  TRY(journal_->sync(pinned.moment.log_index));
  auto record = TRY(capture(pinned, label, false));
  TRY(store_->catalogue().raise_durable_hint(options_.branch, record.log_index));
  return record;
}

// All but the newest, and the one from which what is left of a trimmed journal can be read; of a journal with
// limits all that lie in it, since it will be trimmed up to them.
Status Instance::drop_older_checkpoints(uint64_t newest) {
  if (is_damaged()) return {};
  std::vector<store::SnapshotRecord> records = TRY(own_snapshots());
  LogIndex first = journal_->first();
  std::vector<uint64_t> needed = needed_snapshots(records, options_.branch, first);
  needed.push_back(newest);
  for (const store::SnapshotRecord& record : records) {
    bool lies_in_it = options_.retention.trims() && record.log_index + 1 >= first;
    if (!record.checkpoint || lies_in_it || std::ranges::find(needed, record.id) != needed.end()) continue;
    if (is_read_from(record.id)) continue;
    TRY(store_->catalogue().remove_snapshot(record.id));
  }
  return {};
}

// What the tree has not loaded, or has let go of, is read from the snapshot that it was opened on, or that
// was the newest then. The first stays for as long as this instance does, the others while there is such.
bool Instance::is_read_from(uint64_t snapshot) {
  std::erase_if(read_from_, [](const ReadFrom& from) { return from.nodes.expired(); });
  return (open_report_.lazily && snapshot == open_report_.snapshot) ||
         std::ranges::find(read_from_, snapshot, &ReadFrom::snapshot) != read_from_.end();
}

// At least as a checkpoint.
Result<bool> Instance::drop(const store::SnapshotRecord& record) {
  if (!is_read_from(record.id)) return instance::drop_snapshot(*store_, record, journal_->first());
  store::SnapshotRecord checkpoint = record;
  checkpoint.label.clear();
  checkpoint.checkpoint = true;
  TRY(store_->catalogue().replace_snapshot(checkpoint));
  return false;
}

Result<bool> Instance::drop_snapshot(uint64_t id) {
  if (store_ == nullptr) return fail(Code::kUnreachable, "no snapshots: the leader has not been reached yet");
  std::lock_guard keeping(keeping_);
  for (const store::SnapshotRecord& record : TRY(own_snapshots()))
    if (record.id == id) return drop(record);
  return fail(Code::kNotFound,
              fmt::format("{}: branch {} has no snapshot {}", name_of(*store_), options_.branch, id));
}

Result<Trimmed> Instance::trim() {
  std::lock_guard keeping(keeping_);
  auto record = TRY(newest_snapshot(store_->catalogue(), options_.branch, std::nullopt));
  if (!record)
    return fail(Code::kNotFound, fmt::format("{}: no snapshot to trim the journal to", name_of(*store_)));
  return Trimmed{TRY(trim_before(record->log_index + 1)), record->id};
}

Status Instance::close() {
  std::lock_guard keeping(keeping_);
  if (std::exchange(closed_, true) || journal_ == nullptr) return {};
  // As a crash would: the next opening finishes what was begun.
  if (join_failure_) return std::unexpected(*join_failure_);
  replay::Pinned pinned = TRY(pin());
  TRY(journal_->sync(pinned.moment.log_index));
  auto newest = TRY(newest_snapshot(store_->catalogue(), options_.branch, std::nullopt));
  if (!in_memory() && (!newest || newest->log_index != pinned.moment.log_index)) {
    // A checkpoint makes the next opening fast. Where there is no room for it, the journal has everything.
    auto record = capture(pinned, "", true);
    if (record) {
      TRY(drop_older_checkpoints(record->id));
    } else {
      log_warning("{}: no checkpoint could be kept ({}); the next opening replays the journal",
                  store_->path(), record.error().message());
    }
  }
  if (recorder_ != nullptr) filesystem_->set_sink(nullptr);
  filesystem_->set_read_only(true);
  TRY(journal_->close());
  auto noted = store_->catalogue().update_branch(options_.branch, [&](store::BranchRecord& branch) {
    note_clean_close(branch, pinned.moment.log_index);
  });
  if (!noted) log_warning("{}: {}", store_->path(), noted.error().message());
  lock_.reset();
  return {};
}

}  // namespace reprise::instance

// Instance: one live copy of a volume, assembled: filesystem, journal, store, and what it has applied. What
// every adapter and the command line use.
//
// A writer records its guests' operations under an origin of its own; a follower is read-only to its guests
// and applies what a leader sends (it is the replay::Member of both). Opening finds the last snapshot,
// replays the journal behind it and cuts a torn tail; closing leaves a checkpoint. One live instance per
// branch: the branch lock names its holder.
//
// Ownership: an Instance owns its filesystem, journal and share of the store; sessions, servers and guests
// that use it go first. Threads: every function may be called from any thread, open and close by its owner.
// Lock order: tending_, keeping_, applying_, then the filesystem's lock, then state_.
//
//   auto instance = TRY(Instance::open(store, {.holder = {getpid(), "a host"}}));
//   Guest guest(instance->filesystem());
//   …
//   TRY(instance->close());
#pragma once

#include <atomic>
#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>

#include "base/clock.h"
#include "fs/filesystem.h"
#include "fs/transition.h"
#include "instance/branches.h"
#include "instance/coherence.h"
#include "instance/snapshots.h"
#include "journal/journal.h"
#include "journal/recorder.h"
#include "replay/conflicts.h"
#include "replay/member.h"
#include "replay/merge.h"
#include "replay/replayer.h"
#include "store/store.h"

namespace reprise::instance {

// What tend() sees to.
struct Retention {
  // A checkpoint is made when an opening would have to replay more than this: about a second's worth.
  uint64_t reopen_bytes = 256 << 20;  // of encoded batches
  uint64_t reopen_batches = 500'000;
  // The journal is trimmed, behind a checkpoint, where its files are larger or its batches older. 0: never.
  uint64_t journal_bytes = 0;
  uint64_t journal_age_s = 0;
  // All of the store: journals, packs, catalogue. Where it takes more, what nobody needs is collected, then
  // the journal is trimmed, then snapshots without a label go. 0: no limit.
  uint64_t store_bytes = 0;
  // Snapshots without a label that are neither: the newest so many, or this young. 0: all.
  uint64_t snapshots = 0;
  uint64_t snapshot_age_s = 0;
  // Of trees, in this process. Where they take more, a checkpoint is made if there is something new, and what
  // it has is let go of and loaded again when it is touched (docs/lazy.md). 0: no limit.
  uint64_t memory_bytes = 0;
  bool bounds() const { return journal_bytes != 0 || store_bytes != 0; }
  bool trims() const { return bounds() || journal_age_s != 0; }
};

// How much of a snapshot is read when an instance opens on it (docs/lazy.md).
enum class Opening : uint8_t {
  kBySize,  // all of a small tree, which takes a few milliseconds; of a large one what is touched
  kWhole,   // all; where it cannot be read an older one, and the journal from there
  kLazily,  // what is touched
};

struct InstanceOptions {
  std::string branch = "main";
  Retention retention;
  bool follower = false;
  Opening opening = Opening::kBySize;
  journal::JournalOptions journal;
  store::LockHolder holder;
  Clock& clock = system_clock();
  Random& random = system_random();
};

// What opening took.
struct OpenReport {
  uint64_t snapshot = 0;  // id of the one it started from, 0 if from nothing
  uint64_t batches_replayed = 0;
  bool lazily = false;  // what is not touched has not been read
  journal::Recovery recovery;
};

// What Instance::change() gives to its caller, for the time of the call.
class Changes {
 public:
  virtual const fs::Tree& tree() const = 0;
  virtual InodeId new_inode() = 0;
  virtual void apply(const fs::Operation& operation) = 0;

 protected:
  ~Changes() = default;
};

// Makes the branch, which nobody has open, the one that writes from its next opening on: what other followers
// have more of the streams of those who wrote before may then be taken back from them (take_back), until it
// writes. kBusy, kNotFound; kUnsupported in memory.
Status promote(store::Store& store, const std::string& branch, const store::LockHolder& holder);

struct Joined {
  uint64_t batches = 0, operations = 0;  // that came over
  bool moved = false;                    // this branch had gone on since the fork
  // What both had changed. If there is any, nothing was done, unless it was resolved.
  std::vector<replay::Conflict> conflicts;
  std::optional<replay::Winner> resolved;         // by whom
  std::vector<replay::Merged::LeftOut> left_out;  // what the other had done, and is not here now
};

struct Reset {
  LogIndex before = 0;     // the last batch that is left behind: where to find what there was
  LogIndex log_index = 0;  // the last batch of what it was reset to, and of which branch
  std::string branch;
  uint64_t operations = 0;  // that it took; 0: it was so already
};

struct Trimmed {
  LogIndex first = 0;  // the oldest batch left
  uint64_t behind_snapshot = 0;
};

class Joining;
struct MemoryBranch;

class Instance final : public replay::Member {
 public:
  // Of a store that is there. kBusy names who holds the branch; kCorrupt, kUnsupported, kIo.
  static Result<std::unique_ptr<Instance>> open(std::shared_ptr<store::Store> store, InstanceOptions options);
  // A follower whose store does not exist yet: it is created at `path` when the leader has said which volume
  // it is; with an empty path, in memory.
  static Result<std::unique_ptr<Instance>> open_new_follower(std::string path, InstanceOptions options);
  ~Instance() override;  // without close(): as a crash would

  fs::Filesystem& filesystem() { return *filesystem_; }
  // Null before a new follower's first contact.
  store::Store* store() { return store_.get(); }
  const std::shared_ptr<store::Store>& shared_store() { return store_; }
  bool follower() const { return options_.follower; }
  const OpenReport& open_report() const { return open_report_; }
  // What could not be read when it was touched, and what depends on it, of an instance that opened lazily.
  std::vector<std::string> damage() const { return damage_->list(); }
  // What has been let go of so far to stay within Retention::memory_bytes.
  uint64_t evicted_bytes() const { return evicted_bytes_.load(); }

  // From now on remote changes go through the hook (null: no longer). Not while a session runs.
  void set_coherence_hook(CoherenceHook* hook) { hook_.store(hook); }

  // Everything acknowledged so far is on the disk when it returns.
  Status sync() override;
  // What a guest's fsync waits for: sync() in the modes kFsync and kAlways; in kNone and kLazy nothing, it
  // only orders.
  Status guest_sync();
  // How a moment's position is shown and stored: by its last batch, if the journal still has that.
  Result<std::string> token_of(const replay::Moment& moment);
  // Several operations as one call, hence in one batch if they fit one, by whoever knows what they do to this
  // very tree: each must be true of it as those before left it (CHECK). `bytes` is about what will be
  // recorded. `make` must not call back into this object; its error, before its first operation, is the
  // call's. kReadOnly; kIo and kNoSpace if what was changed is not recorded.
  Status change(std::string_view label, uint64_t bytes, const std::function<Status(Changes&)>& make);
  // Puts a mark into the stream, makes everything up to it durable and returns its position. A name used
  // before moves here. kReadOnly on a follower.
  Result<store::MarkRecord> mark(std::string_view name, std::string_view label);
  // The whole tree at this moment, kept in the store; durable on return.
  Result<store::SnapshotRecord> snapshot(std::string_view label);
  // Begins the branch `name` at this moment, durably; in memory nothing is copied. kAlreadyExists, kBusy.
  Result<Fork> fork(std::string_view name);
  // Puts what was done on the branch `name`, a fork of this one that was closed, into this one, all or
  // nothing, and takes that branch away. Readers here see all of it at once; a crash in the middle is made
  // good by the next opening. kBusy while the branch is live, kReadOnly on a follower, kInvalidArgument for
  // what is no fork of this branch or was not closed, kGap if its journal was trimmed, kNotFound. Where both
  // have changed the same, nothing is done; or, if `resolve` says who counts, what replay::merge makes of the
  // two is recorded as one change, as reset() does it, and the branch stays, with its history and what was
  // left out of it.
  Result<Joined> join(std::string_view name, std::optional<replay::Winner> resolve = std::nullopt);
  // Makes the tree what it was at a position (instance/history.h) of a branch of this store, by recording
  // what leads there: a change as any other, all or nothing, of which peers and the journal have everything
  // before as well. Inodes that are gone come again under new ids. With `keep` what there was becomes a
  // branch of that name, too. kBusy if guests do not stop writing; kReadOnly on a follower; kUnsupported in
  // memory; as resolve_position, state_at and fork.
  Result<Reset> reset(std::string_view branch, std::string_view position, std::string_view keep = "");
  // Drops the journal before the newest snapshot. kNotFound if there is none.
  Result<Trimmed> trim();
  // As instance::drop_snapshot, of this branch. kNotFound.
  Result<bool> drop_snapshot(uint64_t id);
  // Frees what no snapshot of the store needs; packs are copied from this share on that nobody needs.
  Result<store::Collected> collect(double dead_share);
  // Why the store takes more than Retention::store_bytes although everything has been tried.
  std::optional<Error> over_limit() const;
  // Keeps the next opening short and the journal within its limits (Retention); to be called now and then,
  // and soon after much was written. `peers`: what each connected follower has. Batches that one of them
  // lacks are not too old, but they do not make room beyond `journal_bytes`. In the end it says how much may
  // be written until it is due again, to whom there is a keeper for (allowance()).
  Status tend(std::span<const journal::Vector> peers);
  // Of who writes; for whoever calls tend().
  journal::Allowance& allowance() { return allowance_; }
  const Retention& retention() const { return options_.retention; }

  // Returns when everything in `wanted` is applied; kTimeout.
  Status wait_for(const journal::Vector& wanted, uint32_t timeout_ms);
  // Returns when a mark of this name has been applied here, now or earlier; kTimeout.
  Result<store::MarkRecord> wait_for_mark(std::string_view name, uint32_t timeout_ms);

  // The digest as the sums have it, and counted again from the bytes: equal, or memory is damaged.
  struct Digests {
    Digest128 kept, recomputed;
  };
  Result<Digests> digests();

  // Were there origins of this branch before whose writer did not close, so that peers may have more of their
  // streams than the journal? And may it be taken back, as this instance has written nothing yet?
  bool may_take_back() const;
  // A follower until it was promoted, and has not written since.
  bool was_promoted() const;

  // Why the instance is read-only although it is a writer; nullopt while all is well.
  std::optional<Error> failure() const;
  // Leaves a checkpoint, marks the close as clean, gives the branch back.
  Status close();

  // replay::Member
  VolumeId volume() const override;
  std::string branch() const override { return options_.branch; }
  journal::Vector vector() const override;
  bool is_new() const override;
  Result<replay::Moment> settle() override;
  Result<replay::Pinned> pin() override;
  uint64_t estimated_snapshot_bytes() const override;
  journal::Journal& journal() override;
  bool would_take_back(const journal::Vector& peer) override;
  Status take_back(const journal::Vector& giver, std::span<const journal::Batch> group,
                   bool complete) override;
  Status adopt_volume(VolumeId volume) override;
  Status apply(std::span<const journal::Batch> group) override;
  Result<std::vector<replay::Mark>> marks() override;
  Status install(const fs::View& tree, const journal::Position& position, uint64_t lamport,
                 std::span<const replay::Mark> marks) override;

 private:
  friend class Joining;  // join.cc
  explicit Instance(InstanceOptions options);
  bool in_memory() const { return store_->path().empty(); }
  Status open_journal();
  Status open_history();
  Status replay_noting_marks(journal::Cursor& cursor, fs::Head& head);
  Status begin_writing();
  Status claim_origin(OriginId origin);
  Status rebuild(Opening opening, fs::Head& head);
  Status go_on_in_memory(const MemoryBranch& branch, fs::Head& head);
  void keep_in_memory(const replay::Pinned* end);
  Status begin_filesystem(fs::Head head);
  Result<bool> drop(const store::SnapshotRecord& record);
  void note_clean_close(store::BranchRecord& branch, LogIndex durable) const;
  // `giver`: of batches that are taken back.
  Status apply_in_groups(std::span<const journal::Batch> group, const journal::Vector* giver = nullptr);
  Status check_takes_back(const journal::Vector& giver) const;  // with the filesystem's lock
  bool is_former(OriginId origin) const;
  Status journal_applied(std::span<const journal::Batch> group, const journal::Vector& before);
  Result<replay::Pinned> pin_locked(fs::Head& head);
  Status keep_overwritten(const journal::Vector& leader);
  Status begin_anew_with(const replay::Pinned& pinned, const std::vector<store::MarkRecord>& marks,
                         uint64_t& kept);
  Status take_back_snapshot(uint64_t snapshot, const std::vector<store::MarkRecord>& marks,
                            const std::vector<store::MarkRecord>& before);
  Result<std::string> keep_tail(const journal::Vector& leader);
  Status fill_branch(const std::string& name, LogIndex from);
  Status apply_and_journal(std::span<const journal::Batch> group, const journal::Vector* giver);
  Result<std::vector<store::MarkRecord>> passed(std::span<const replay::Mark> marks) const;
  Status note_marks(const journal::Batch& batch);
  Result<store::SnapshotRecord> capture(const replay::Pinned& pinned, std::string_view label, bool checkpoint,
                                        const std::vector<store::MarkRecord>& marks = {});
  // What rewrite() is to record, of the tree as it is.
  using MakeTree = std::function<Result<fs::Head>(const fs::View& now)>;
  Result<Joined> rewrite(const MakeTree& make, std::string_view label, std::string_view keep,
                         LogIndex& before);
  Result<Joined> try_rewrite(const MakeTree& make, std::string_view label, std::string_view keep,
                             LogIndex& before);
  Result<Joined> record_aside(const replay::Pinned& pinned, const fs::Tree& wanted,
                              const fs::TreeChanges& changes, std::string_view label);
  Status record_on(const std::string& branch, const fs::Tree& have, const fs::Tree& wanted,
                   const fs::TreeChanges& changes, std::string_view label);
  Result<std::string> begin_scratch(const replay::Pinned& pinned);
  Result<Joined> join_resolved(const std::string& name, const Joining& joining,
                               std::vector<replay::Conflict> found, replay::Winner winner);
  Status check_no_join_interrupted();
  Status finish_joins();
  Status drop_older_checkpoints(uint64_t newest);
  Status checkpoint();
  // The first batches to keep, by each rule.
  struct Limits {
    LogIndex not_too_old = 0, within_size = 0;
  };
  Status trim_to(const Limits& limits);
  Result<LogIndex> trim_before(LogIndex index);
  static uint64_t snapshot_bytes_at_most(const fs::Usage& usage);
  Status tend_alone(std::span<const journal::Vector> peers);
  Status raise_hint_now_and_then();
  Status keep_journal(std::span<const journal::Vector> peers);
  Status try_checkpoint();
  Status end_old_segment();
  Status drop_old_snapshots();
  Status keep_within_memory();
  bool is_read_from(uint64_t snapshot);
  Status collect_if_worthwhile();
  Result<uint64_t> left_over_bytes();
  Status keep_store_limit();
  Status make_room(uint64_t limit, uint64_t step);
  Status note_usage(const store::StoreUsage& usage);
  Result<uint64_t> room_in_store(uint64_t bound);
  Result<uint64_t> journal_beside(uint64_t limit, uint64_t wanted);
  uint64_t room_in_journal(const journal::JournalFiles& files) const;
  Result<uint64_t> allowed_until();
  uint64_t copied_segment() const;
  void set_sizes();
  Status trim_to_bytes(uint64_t bytes);
  Result<bool> drop_one_unlabelled();
  Result<std::vector<store::SnapshotRecord>> own_snapshots();
  Result<bool> wants_checkpoint(LogIndex covered);
  Result<Limits> limits_of_journal(std::span<const journal::Vector> peers);
  Result<LogIndex> oldest_by_age(const journal::JournalFiles& files, std::span<const journal::Vector> peers);
  LogIndex within_bytes(journal::JournalFiles files, uint64_t bytes);
  bool is_older_than(LogIndex index, uint64_t age_s);
  void publish_vector();

  InstanceOptions options_;
  std::string new_store_path_;  // of a new follower, until adopt_volume
  std::shared_ptr<store::Store> store_;
  std::unique_ptr<store::BranchLock> lock_;
  // Snapshots that what was evicted is loaded from, for as long as there is such; guarded by keeping_.
  struct ReadFrom {
    uint64_t snapshot;
    std::weak_ptr<fs::NodeSource> nodes;
  };
  std::vector<ReadFrom> read_from_;
  // What is evicted is loaded from this one.
  struct EvictsTo {
    uint64_t snapshot = 0;
    fs::View kept;
  };
  EvictsTo evicts_to_;
  InodeId evict_from_;
  std::atomic<uint64_t> evicted_bytes_ = 0;
  // Blobs of the tree could not be read: older snapshots, and the journal behind them, may be all that is
  // left of what they hold, and are not given up.
  bool is_damaged() const { return !damage_->list().empty(); }
  const std::shared_ptr<Damage> damage_ = std::make_shared<Damage>();
  std::shared_ptr<journal::Journal> journal_;  // of a branch in memory the store's as well
  journal::Allowance allowance_;
  std::unique_ptr<journal::Recorder> recorder_;  // of a writer
  std::unique_ptr<fs::InodeIdSource> no_ids_;    // of a follower: it never mints any
  std::unique_ptr<fs::Filesystem> filesystem_;
  std::atomic<CoherenceHook*> hook_{nullptr};
  OpenReport open_report_;
  bool closed_ = false;
  uint64_t hint_raised_ns_ = 0;  // when last, by tend(); guarded by keeping_
  LogIndex hint_raised_ = 0;     // to what

  std::mutex keeping_;  // one at a time replaces checkpoints or trims; before applying_
  std::mutex tending_;  // one at a time tends; before keeping_
  // Guarded by tending_. Not before these moments of the monotonic clock is tried again what has failed.
  uint64_t next_checkpoint_ns_ = 0, next_collection_ns_ = 0, next_store_limit_ns_ = 0;
  bool size_is_kept_ = false;  // the journal was trimmed as far as it should be, as far as that went
  bool had_no_room_ = false;   // in the end
  uint64_t store_bound_ = 0;   // the limit, or what can be kept
  std::mutex applying_;        // applying and journaling remote batches; taking a moment between them
  replay::Replayer replayer_;  // of a follower; guarded by applying_ (and only used by open() in a writer)

  mutable std::mutex state_;
  std::condition_variable state_changed_;
  std::atomic<bool> join_to_finish_ = false;  // all is recorded, and was not on the disk when it ended
  std::optional<Error> join_failure_;         // in the middle of a join; set once, with keeping_ held as well
  journal::Vector vector_;                    // of a follower
  // Of a writer, set by open(): whose tails may be taken back.
  std::vector<OriginId> former_origins_;  // kAnyOrigin: of everybody's (promote)
  std::optional<Error> over_limit_;
  VolumeId volume_;
};

}  // namespace reprise::instance

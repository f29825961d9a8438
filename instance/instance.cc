#include "instance/instance.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <utility>

#include "base/check.h"
#include "base/log.h"
#include "instance/name.h"
#include "instance/snapshots.h"

namespace reprise::instance {
namespace {

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

}  // namespace

Instance::Instance(InstanceOptions options) : options_(std::move(options)) {}

Instance::~Instance() = default;

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

// A file's last block is sent as far as the file goes: on average it is half empty. How many inodes but the
// root have blocks nobody counts: as many as can.
uint64_t Instance::estimated_snapshot_bytes() const {
  fs::Usage usage = filesystem_->usage();
  return snapshot_bytes_at_most(usage) - std::min(usage.blocks, usage.inodes - 1) * fs::kBlockSize / 2;
}

uint64_t Instance::snapshot_bytes_at_most(const fs::Usage& usage) {
  constexpr uint64_t kBytesPerInode =
      130;  // its attributes and its name in a directory, as snapshot/ encodes them
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
  keep_in_memory(&pinned);
  auto noted = store_->catalogue().update_branch(options_.branch, [&](store::BranchRecord& branch) {
    note_clean_close(branch, pinned.moment.log_index);
  });
  if (!noted) log_warning("{}: {}", store_->path(), noted.error().message());
  lock_.reset();
  return {};
}

}  // namespace reprise::instance

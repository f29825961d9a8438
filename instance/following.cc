// The part of Instance that takes what others wrote: batches, what a promoted instance takes back,
// overwrites.
#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "base/check.h"
#include "base/log.h"
#include "instance/branches.h"
#include "instance/instance.h"
#include "instance/name.h"

namespace reprise::instance {
namespace {

// Among a branch's writers: whoever wrote before it was promoted.
constexpr OriginId kAnyOrigin{};
constexpr LogIndex kPassed = 0;  // log index of a mark that lies before everything kept here

}  // namespace

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
    uint64_t bytes = 0;
    for (const journal::Batch& batch : group.first(size)) bytes += batch.encoded_bytes();
    TRY(journal_->reserve(bytes));
    allowance_.take(bytes);  // who makes room needs applying_
    std::lock_guard applying(applying_);
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
    swapped = hook->replace_all(swap, &tree);
  } else {
    TRY(swap());
  }
  replayer_ = replay::Replayer(position.vector, lamport);
  publish_vector();
  TRY(std::move(swapped));
  // Only now: what was not loaded of the old tree was read from one of them. It is in place all the same.
  if (Status dropped = in_memory() ? Status{} : drop_older_checkpoints(kept); !dropped)
    log_warning("{}; older checkpoints stay until the next is taken", dropped.error().message());
  return begun;
}

// What is about to be installed is kept first, and the journal that led to the old tree given up: what cannot
// be kept is not installed, so that a tree is never ahead of what can be opened again. The snapshot's index
// lies past the old journal's end, so that reopening after a crash in between takes it. The marks on the way
// to it are kept in the same transaction. After an error the journal goes on where it was, unless its last
// batch says otherwise, or the snapshot cannot be taken back: whatever followed the journal's end would be
// taken for what follows the snapshot, so nothing more may.
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
  if (Status back = take_back_snapshot(record.id, marks, before); !back) {
    journal_->give_up(
        Error(Code::kIo,
              fmt::format("{}; and what was to replace the tree cannot be taken back: {}; nothing more is "
                          "taken until the store is opened again",
                          begun.error().message(), back.error().message())));
  }
  return begun;
}

// A snapshot that was to be installed, and the marks that it brought.
Status Instance::take_back_snapshot(uint64_t snapshot, const std::vector<store::MarkRecord>& marks,
                                    const std::vector<store::MarkRecord>& before) {
  TRY(store_->catalogue().remove_snapshot(snapshot));
  for (const store::MarkRecord& mark : marks) {
    auto old = std::ranges::find_if(
        before, [&](const auto& each) { return each.branch == mark.branch && each.name == mark.name; });
    if (old != before.end()) {
      TRY(store_->catalogue().put_mark(*old));
    } else {
      TRY(store_->catalogue().remove_mark(mark.branch, mark.name));
    }
  }
  return {};
}

}  // namespace reprise::instance

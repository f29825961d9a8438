#include "instance/repair.h"

#include <fmt/format.h>

#include <algorithm>
#include <iterator>
#include <unordered_set>

#include "instance/history.h"
#include "instance/snapshots.h"
#include "journal/recovery.h"
#include "snapshot/collect.h"
#include "store/file_repair.h"
#include "store/repair.h"

namespace reprise::instance {
namespace {

// Those that can be read through; with what they need.
Result<std::vector<uint64_t>> readable(store::StoreRepair& repair, std::unordered_set<BlobId>& needed,
                                       std::vector<LostSnapshot>& lost) {
  snapshot::BlobWalk walk(repair.catalogue(), repair.blobs());
  std::vector<uint64_t> kept;
  for (const store::SnapshotRecord& record : TRY(repair.catalogue().snapshots())) {
    std::unordered_set<BlobId> own;
    Status walked = walk.below(record.root, own);
    if (walked) {
      kept.push_back(record.id);
      needed.merge(own);
    } else if (walked.error().code() == Code::kCorrupt || walked.error().code() == Code::kNotFound) {
      lost.push_back({record, walked.error()});
    } else {
      return std::unexpected(walked.error());
    }
  }
  return kept;
}

// As the headers of segments name it that can be read.
Result<std::vector<VolumeId>> volumes_of_journals(const std::string& path) {
  std::vector<VolumeId> volumes;
  auto store = TRY(open_host_directory(path));
  if (!TRY(store->exists("branches"))) return volumes;
  auto branches = TRY(store->open_directory("branches"));
  for (const std::string& branch : TRY(branches->list())) {
    if (!store::Store::check_name("branch", branch) || !TRY(branches->exists(branch + "/journal"))) continue;
    auto journal = TRY(branches->open_directory(branch + "/journal"));
    for (uint64_t sequence : TRY(journal::list_segments(*journal))) {
      auto file = journal->open(journal::segment_name(sequence), OpenMode::kRead);
      if (!file && file.error().code() == Code::kCorrupt) continue;
      auto bytes = journal::read_segment_header(*TRY(std::move(file)));
      auto header = bytes ? journal::decode_segment_header(*bytes) : std::unexpected(bytes.error());
      if (header) volumes.push_back(header->volume);
    }
  }
  return volumes;
}

Status repair_small_files(const std::string& path, StoreRepaired& done) {
  auto note = [&](const std::optional<store::FileRepaired>& repaired) {
    if (!repaired) return;
    done.needed = true;
    done.found.push_back(repaired->found);
    done.made_anew.emplace_back(repaired->name);
    if (!repaired->set_aside.empty()) done.set_aside.push_back(repaired->set_aside);
  };
  if (!store::Store::identify(path)) note(TRY(store::repair_identity(path, TRY(volumes_of_journals(path)))));
  // Before any journal: what rests on the directory counts as unreadable without.
  note(TRY(store::repair_base(path)));
  return {};
}

// From where the branch's states are known: before its journal's first batch, else at the oldest snapshot.
Result<State> oldest_known_state(store::Store& store, const std::string& branch, LogIndex first) {
  if (first <= 1) return State{.head = fs::Head::create(Timestamp{})};
  auto before = state_at(store, branch, first - 1);
  if (before) return before;
  std::optional<LogIndex> oldest;
  for (const journal::RepairBase& base : TRY(readable_bases(store, branch)))
    if (base.index >= first && (!oldest || base.index < *oldest)) oldest = base.index;
  if (!oldest) return before;
  return state_at(store, branch, *oldest);
}

// The mark that a batch sets, but for the position; its name is empty if it sets none.
store::MarkRecord mark_in(const journal::Logged& logged, const std::string& branch) {
  store::MarkRecord mark{.branch = branch, .log_index = logged.index};
  logged.batch.for_each([&](const fs::Operation& operation) {
    auto* barrier = std::get_if<fs::Barrier>(&operation);
    if (barrier == nullptr) return;
    mark.name = barrier->name;
    mark.time = barrier->time;
  });
  if (!store::Store::check_name("mark", mark.name)) mark.name.clear();
  return mark;
}

// The marks that the branch's journal has, put into the catalogue.
Status restore_marks(store::Store& store, const std::string& branch, MarksRestored& done) {
  LogIndex first = TRY(History::open(store, branch)).cursor().first();
  State state = TRY(oldest_known_state(store, branch, first));
  replay::Replayer replayer(state.position.vector, state.lamport);
  History history = TRY(History::open(store, branch));
  while (auto logged = TRY(history.cursor().next())) {
    store::MarkRecord mark = mark_in(*logged, branch);
    if (logged->index < state.log_index) {
      if (!mark.name.empty()) done.lost.push_back(mark.name);
      continue;
    }
    if (logged->index > state.log_index) TRY(replayer.apply(state.head, {&logged->batch, 1}));
    if (mark.name.empty()) continue;
    state.head.settle();
    const journal::BatchHeader& header = logged->batch.header();
    journal::Position position{replayer.applied(), state.head.digest()};
    mark.token = position.by_last_batch(header.origin, header.lsn).to_token();
    TRY(store.catalogue().put_mark(mark));
    std::erase(done.lost, mark.name);
    if (std::ranges::find(done.marks, mark.name) == done.marks.end()) done.marks.push_back(mark.name);
  }
  return {};
}

}  // namespace

Result<StoreRepaired> repair_store(const std::string& path) {
  StoreRepaired done;
  TRY(repair_small_files(path, done));
  auto repair = TRY(store::StoreRepair::begin(path));
  if (!repair->needed()) return done;
  done.needed = done.catalogue_anew = true;
  if (repair->catalogue_problem()) done.found.push_back(repair->catalogue_problem()->message());
  for (const Error& damage : repair->damage()) done.found.push_back(damage.message());
  std::unordered_set<BlobId> needed;
  auto kept = TRY(readable(*repair, needed, done.lost));
  done.snapshots = kept.size();
  for (std::string& name : TRY(repair->finish(kept, [&](BlobId id) { return needed.contains(id); })))
    done.set_aside.push_back(std::move(name));
  return done;
}

Result<std::vector<journal::RepairBase>> readable_bases(store::Store& store, std::string_view branch) {
  std::vector<journal::RepairBase> bases;
  for (const store::SnapshotRecord& record : TRY(store.catalogue().snapshots())) {
    if (record.branch != branch) continue;
    auto head = load_snapshot(store, record);
    if (head) {
      bases.push_back({record.log_index, TRY(journal::Vector::decode(record.vector))});
    } else if (head.error().code() != Code::kCorrupt && head.error().code() != Code::kNotFound) {
      return std::unexpected(head.error());
    }
  }
  return bases;
}

std::optional<Error> missing_base(const store::Store& store, std::string_view branch, LogIndex first,
                                  const std::vector<journal::RepairBase>& bases) {
  auto reaches = [&](const journal::RepairBase& base) { return base.index + 1 >= first; };
  if (first <= 1 || std::ranges::any_of(bases, reaches)) return std::nullopt;
  return Error(Code::kCorrupt,
               fmt::format("{}: the journal of branch {} begins at batch {}: expected a snapshot that holds "
                           "batch {} and can be read, found none",
                           store.path(), branch, first, first - 1));
}

Result<MarksRestored> restore_lost_marks(store::Store& store) {
  MarksRestored done;
  auto directory = TRY(open_host_directory(store.path()));
  if (!TRY(directory->exists(store::kMarksWanted))) return done;
  for (const store::BranchRecord& branch : TRY(store.catalogue().branches())) {
    MarksRestored of_branch;
    Status restored = restore_marks(store, branch.name, of_branch);
    std::ranges::move(of_branch.marks, std::back_inserter(done.marks));
    std::ranges::move(of_branch.lost, std::back_inserter(done.lost));
    if (!restored) done.unread.push_back(restored.error().message());
  }
  if (done.unread.empty()) {
    TRY(directory->unlink(store::kMarksWanted));
    TRY(directory->sync());
  }
  return done;
}

}  // namespace reprise::instance

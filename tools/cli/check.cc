// verify, repair: is everything on the disk what it should be; and what to do where it is not.
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>

#include "instance/history.h"
#include "instance/marks.h"
#include "instance/repair.h"
#include "instance/snapshots.h"
#include "journal/verify.h"
#include "tools/cli/command.h"
#include "tools/cli/target.h"

namespace reprise::cli {
namespace {

struct Options {
  std::string what;
  bool json = false;
};

journal::JournalProgress shown_on(Progress& progress) {
  return [&progress](uint64_t done_bytes, uint64_t all_bytes) {
    progress.show(fmt::format("{} of {}", format_bytes(done_bytes), format_bytes(all_bytes)));
  };
}

// Every snapshot of the branch can be loaded and has the digest it was recorded with.
Result<uint64_t> verify_snapshots(store::Store& store, std::string_view branch,
                                  std::vector<std::string>& problems) {
  uint64_t good = 0;
  for (const store::SnapshotRecord& record : TRY(store.catalogue().snapshots())) {
    if (record.branch != branch) continue;
    Progress progress(fmt::format("snapshot {}", record.id));
    progress.show(format_bytes(record.bytes));
    auto head = instance::load_snapshot(store, record);
    if (!head) {
      problems.push_back(head.error().message());
    } else if (head->recompute_digest() != record.digest) {
      problems.push_back(
          fmt::format("snapshot {}: the digest counted again from the bytes differs", record.id));
    } else {
      good++;
    }
  }
  return good;
}

// Without its catalogue nothing of a store can be looked at.
int print_damaged_store(const Options& options, const Error& problem) {
  if (options.json) {
    fmt::print("{}\n", nlohmann::json{{"problems", {problem.message()}}}.dump());
  } else {
    fmt::print("damaged: {}\n", problem.message());
  }
  return kNo;
}

Result<int> verify(const Options& options) {
  Target target = Target::parse(options.what);
  auto opened = open_target(target);
  bool is_store = store::Store::identify(target.store).has_value();
  if (!opened && opened.error().code() == Code::kCorrupt && is_store)
    return print_damaged_store(options, opened.error());
  OpenTarget open = TRY(std::move(opened));
  TRY(refuse_live(open, "stop it first: verify reads every byte, and the end of a live journal moves"));
  auto branch = TRY(open.store->catalogue().branch(open.target.branch));
  auto directory = TRY(open.store->journal_directory(open.target.branch));
  journal::JournalReport report;
  {
    Progress progress("journal");
    report = TRY(journal::verify_journal(*directory, {open.store->volume(), open.target.branch},
                                         branch ? branch->durable_hint : 0, shown_on(progress)));
  }
  std::vector<std::string> problems;
  bool damaged = report.problem && !report.torn_tail;
  if (auto lost = instance::missing_beginning(branch, report.first, report.begins_anew)) {
    problems.push_back(lost->message());
  }
  if (damaged) {
    problems.push_back(report.problem->message());
  } else {
    for (std::string& wrong : TRY(instance::check_marks(*open.store, open.target.branch, report)))
      problems.push_back(std::move(wrong));
  }
  uint64_t snapshots = TRY(verify_snapshots(*open.store, open.target.branch, problems));
  if (options.json) {
    nlohmann::json json = {{"segments", report.segments},   {"batches", report.batches},
                           {"bytes", report.bytes},         {"clean_close", report.clean_close},
                           {"torn_tail", report.torn_tail}, {"snapshots", snapshots},
                           {"problems", problems}};
    fmt::print("{}\n", json.dump());
  } else {
    fmt::print("{} segments, {} batches, {}; {} snapshots{}\n", report.segments, report.batches,
               format_bytes(report.bytes), snapshots, report.clean_close ? "; cleanly closed" : "");
    if (report.torn_tail)
      fmt::print("torn tail, which the next opening cuts: {}\n", report.problem->message());
    for (const std::string& problem : problems) fmt::print("damaged: {}\n", problem);
    if (damaged) {
      fmt::print("`reprise repair {}` cuts the journal at its first damage and keeps what it cuts\n",
                 options.what);
    }
  }
  return problems.empty() ? kDone : kNo;
}

struct Repaired {
  journal::JournalRepair journal;
  LogIndex durable = 0;         // what was known to be on the disk
  LogIndex missing_before = 0;  // batches are missing at the beginning, before this one; 0: none
  bool set_aside = false;       // all that was left: it ends before what the snapshot holds
  std::optional<store::SnapshotRecord> snapshot;  // the one that reaches furthest
  std::vector<std::string> lost_marks;

  LogIndex lost() const { return durable > journal.last ? durable - journal.last : 0; }
  LogIndex snapshot_reaches() const { return snapshot ? snapshot->log_index : 0; }
  bool nothing() const {
    return !journal.problem && lost() == 0 && missing_before == 0 && lost_marks.empty();
  }
};

// Accepting the loss is what repairing is: the next opening shall not refuse for it again.
Status accept_loss(store::Store& store, const std::string& branch, const Repaired& repaired) {
  return store.catalogue().update_branch(branch, [&](store::BranchRecord& record) {
    LogIndex left = repaired.set_aside ? 0 : repaired.journal.last;
    record.durable_hint = std::min(record.durable_hint, left);
    if (repaired.missing_before != 0) record.journal_begins = repaired.missing_before;
  });
}

Result<Repaired> repair_branch(store::Store& store, const std::string& branch, Directory& directory) {
  Repaired repaired;
  auto record = TRY(store.catalogue().branch(branch));
  repaired.durable = record ? record->durable_hint : 0;
  repaired.snapshot = TRY(instance::newest_snapshot(store.catalogue(), branch, std::nullopt));
  {
    Progress progress("journal");
    repaired.journal = TRY(journal::repair_journal(directory, {store.volume(), branch}, shown_on(progress)));
  }
  journal::JournalFiles left = TRY(journal::journal_files(directory, {store.volume(), branch}));
  bool begins_anew = left.begins_anew;
  if (!left.segments.empty() && instance::missing_beginning(record, repaired.journal.first, begins_anew))
    repaired.missing_before = repaired.journal.first;
  bool cut = repaired.journal.problem || repaired.lost() > 0;
  repaired.set_aside = cut && !left.segments.empty() && repaired.snapshot_reaches() > repaired.journal.last;
  // Where the next opening goes on from the snapshot, it would drop what lies before it.
  if (repaired.set_aside) TRY(journal::set_aside_segments(directory, repaired.journal));
  TRY(accept_loss(store, branch, repaired));
  // The numbers of what was lost will be given to other batches: no mark may go on naming them.
  repaired.lost_marks = TRY(instance::drop_marks_after(
      store, branch, std::max(repaired.journal.last, repaired.snapshot_reaches())));
  return repaired;
}

nlohmann::json as_json(const Repaired& repaired) {
  nlohmann::json json = {{"lost_marks", repaired.lost_marks},
                         {"first", repaired.journal.first},
                         {"last", repaired.journal.last},
                         {"cut_bytes", repaired.journal.cut_bytes},
                         {"kept", repaired.journal.kept},
                         {"set_aside", repaired.set_aside},
                         {"lost_batches", repaired.lost()},
                         {"missing_before", repaired.missing_before},
                         {"snapshot_reaches", repaired.snapshot_reaches()}};
  if (repaired.journal.problem) json["problem"] = repaired.journal.problem->message();
  return json;
}

void print(const Repaired& repaired, const std::string& directory) {
  const journal::JournalRepair& journal = repaired.journal;
  if (repaired.nothing()) {
    fmt::print("nothing to repair: batches {} to {} are sound\n", journal.first, journal.last);
    return;
  }
  if (repaired.missing_before != 0) {
    fmt::print("lost: segments at the beginning; the journal goes on from batch {}\n",
               repaired.missing_before);
  }
  if (repaired.lost() > 0) {
    fmt::print("lost: batches {} to {}, which had been on the disk\n", journal.last + 1, repaired.durable);
  }
  for (const std::string& name : repaired.lost_marks) fmt::print("lost: the mark {}\n", name);
  if (journal.problem) {
    fmt::print("found: {}\ncut {}; batches {} to {} are left\n", journal.problem->message(),
               format_bytes(journal.cut_bytes), journal.first, journal.last);
  }
  if (repaired.set_aside) {
    fmt::print(
        "snapshot {} holds the state up to batch {}; the next opening goes on from there, and what was left "
        "of the journal before it is kept aside too\n",
        repaired.snapshot->id, repaired.snapshot_reaches());
  }
  for (const std::string& name : journal.kept) fmt::print("kept aside: {}/{}\n", directory, name);
}

nlohmann::json repaired_json(const instance::StoreRepaired& done) {
  nlohmann::json json = {{"found", done.found},   {"set_aside", done.set_aside},
                         {"marks", done.marks},   {"snapshots", done.snapshots},
                         {"unread", done.unread}, {"lost_snapshots", nlohmann::json::array()}};
  for (const instance::LostSnapshot& lost : done.lost) json["lost_snapshots"].push_back(lost.record.id);
  return json;
}

void print_repaired(const std::string& store, const instance::StoreRepaired& done) {
  for (const std::string& found : done.found) fmt::print("found: {}\n", found);
  for (const instance::LostSnapshot& lost : done.lost) {
    fmt::print("lost: snapshot {} ({}@{}{}{}): {}\n", lost.record.id, lost.record.branch,
               lost.record.log_index, lost.record.label.empty() ? "" : ", ", printable(lost.record.label),
               lost.why.message());
  }
  for (const std::string& name : done.set_aside) fmt::print("kept aside: {}/{}\n", store, name);
  for (const std::string& name : done.marks) fmt::print("found in the journal: the mark {}\n", name);
  for (const std::string& why : done.unread) fmt::print("marks were not looked for: {}\n", why);
  fmt::print("the catalogue has been made anew; {} snapshots are there\n", done.snapshots);
}

// The catalogue and the packs. Where somebody has them open, they can be opened, and are left as they are.
Result<std::optional<instance::StoreRepaired>> repair_store(const std::string& path) {
  auto done = instance::repair_store(path);
  if (!done && done.error().code() == Code::kBusy) return std::nullopt;
  if (!done) return std::unexpected(done.error());
  if (!done->needed) return std::nullopt;
  return std::move(*done);
}

Result<int> repair(const Options& options) {
  Target target = Target::parse(options.what);
  auto store_repaired = TRY(repair_store(target.store));
  if (store_repaired && !options.json) print_repaired(target.store, *store_repaired);
  OpenTarget open = TRY(open_target(Target::parse(options.what), store::Access::kWrite));
  TRY(refuse_live(open, "stop it first"));
  // Held to the end: nobody may open what is being cut.
  auto lock = TRY(open.store->lock_branch(open.target.branch, {getpid(), "reprise repair " + options.what}));
  auto directory = TRY(open.store->journal_directory(open.target.branch));
  Repaired repaired = TRY(repair_branch(*open.store, open.target.branch, *directory));
  if (options.json) {
    nlohmann::json json = as_json(repaired);
    if (store_repaired) json["store"] = repaired_json(*store_repaired);
    fmt::print("{}\n", json.dump());
  } else if (!store_repaired || !repaired.nothing()) {
    print(repaired, directory->path());
  }
  return kDone;
}

}  // namespace

void add_verify(Command& reprise) {
  auto options = std::make_shared<Options>();
  Command command = reprise.subcommand(
      "verify", "Check every byte of a journal and every snapshot; exit 1 if something is damaged");
  command.required("store", options->what, "STORE[:BRANCH]");
  command.flag("--json", options->json, "the findings as JSON");
  command.does([options] { return verify(*options); });
}

void add_repair(Command& reprise) {
  auto options = std::make_shared<Options>();
  Command command = reprise.subcommand(
      "repair",
      "Make a damaged catalogue anew, set damaged packs aside, cut a journal at its first damage;\n"
      "nothing is destroyed: what is cut or replaced is kept aside and named");
  command.required("store", options->what, "STORE[:BRANCH]");
  command.flag("--json", options->json, "what was done, as JSON");
  command.does([options] { return repair(*options); });
}

}  // namespace reprise::cli

// verify, repair: is everything on the disk what it should be; and what to do where it is not.
#include <fmt/format.h>
#include <unistd.h>

#include "instance/marks.h"
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

Result<int> verify(const Options& options) {
  OpenTarget open = TRY(open_target(Target::parse(options.what)));
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
  if (report.problem && !report.torn_tail) problems.push_back(report.problem->message());
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
    if (report.problem && !report.torn_tail) {
      fmt::print("`reprise repair {}` cuts the journal at its first damage and keeps what it cuts\n",
                 options.what);
    }
  }
  return problems.empty() ? kDone : kNo;
}

Result<int> repair(const Options& options) {
  OpenTarget open = TRY(open_target(Target::parse(options.what), store::Access::kWrite));
  TRY(refuse_live(open, "stop it first"));
  // Held to the end: nobody may open what is being cut.
  auto lock = TRY(open.store->lock_branch(open.target.branch, {getpid(), "reprise repair " + options.what}));
  auto directory = TRY(open.store->journal_directory(open.target.branch));
  Progress progress("journal");
  journal::JournalRepair repair = TRY(
      journal::repair_journal(*directory, {open.store->volume(), open.target.branch}, shown_on(progress)));
  auto branch = TRY(open.store->catalogue().branch(open.target.branch));
  LogIndex durable = branch ? branch->durable_hint : 0;
  LogIndex lost = durable > repair.last ? durable - repair.last : 0;  // batches that were on the disk
  auto snapshot = TRY(instance::newest_snapshot(open.store->catalogue(), open.target.branch, std::nullopt));
  LogIndex kept_by_snapshot = snapshot ? snapshot->log_index : 0;
  // Accepting the loss is what repairing is: the next opening shall not refuse for it again.
  if (lost > 0)
    TRY(open.store->catalogue().put_branch({.name = open.target.branch, .durable_hint = repair.last}));
  // The numbers of what was lost will be given to other batches: no mark may go on naming them.
  auto lost_marks = TRY(
      instance::drop_marks_after(*open.store, open.target.branch, std::max(repair.last, kept_by_snapshot)));
  if (options.json) {
    nlohmann::json json = {{"lost_marks", lost_marks},
                           {"first", repair.first},
                           {"last", repair.last},
                           {"cut_bytes", repair.cut_bytes},
                           {"kept", repair.kept},
                           {"lost_batches", lost},
                           {"snapshot_reaches", kept_by_snapshot}};
    if (repair.problem) json["problem"] = repair.problem->message();
    fmt::print("{}\n", json.dump());
    return kDone;
  }
  if (lost > 0) {
    fmt::print("lost: batches {} to {}, which had been on the disk\n", repair.last + 1, durable);
    if (kept_by_snapshot > repair.last) {
      fmt::print("snapshot {} holds the state up to batch {}; the next opening goes on from there\n",
                 snapshot->id, kept_by_snapshot);
    }
  }
  for (const std::string& name : lost_marks) fmt::print("lost: the mark {}\n", name);
  if (!repair.problem) {
    if (lost > 0 || !lost_marks.empty()) return kDone;
    fmt::print("nothing to repair: batches {} to {} are sound\n", repair.first, repair.last);
    return kDone;
  }
  fmt::print("found: {}\ncut {}; batches {} to {} are left\n", repair.problem->message(),
             format_bytes(repair.cut_bytes), repair.first, repair.last);
  for (const std::string& name : repair.kept) fmt::print("kept aside: {}/{}\n", directory->path(), name);
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
  Command command =
      reprise.subcommand("repair", "Cut a journal at its first damage; what is cut is kept aside and named");
  command.required("store", options->what, "STORE[:BRANCH]");
  command.flag("--json", options->json, "what was done, as JSON");
  command.does([options] { return repair(*options); });
}

}  // namespace reprise::cli

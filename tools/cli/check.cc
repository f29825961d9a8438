// verify, repair: is everything on the disk what it should be; and what to do where it is not.
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <map>
#include <set>

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
  bool all_branches = false;  // of verify
};

journal::JournalProgress shown_on(Progress& progress) {
  return [&progress](uint64_t done_bytes, uint64_t all_bytes) {
    progress.show(fmt::format("{} of {}", format_bytes(done_bytes), format_bytes(all_bytes)));
  };
}

struct VerifiedSnapshots {
  uint64_t there = 0;
  std::vector<journal::RepairBase> good;
};

// Every snapshot of the branch can be loaded and has the digest it was recorded with.
Result<VerifiedSnapshots> verify_snapshots(store::Store& store, std::string_view branch,
                                           std::vector<std::string>& problems) {
  VerifiedSnapshots snapshots;
  for (const store::SnapshotRecord& record : TRY(store.catalogue().snapshots())) {
    if (record.branch != branch) continue;
    snapshots.there++;
    Progress progress(fmt::format("snapshot {}", record.id));
    progress.show(format_bytes(record.bytes));
    auto head = instance::load_snapshot(store, record);
    if (!head) {
      problems.push_back(head.error().message());
    } else if (head->recompute_digest() != record.digest) {
      problems.push_back(
          fmt::format("snapshot {}: the digest counted again from the bytes differs", record.id));
    } else {
      snapshots.good.push_back({record.log_index, TRY(journal::Vector::decode(record.vector))});
    }
  }
  return snapshots;
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

// Where there is no segment, the next opening begins one behind the newest snapshot.
journal::JournalReport behind_snapshots(journal::JournalReport report,
                                        const std::vector<journal::RepairBase>& bases) {
  if (!report.sequences.empty()) return report;
  for (const journal::RepairBase& base : bases) report.last = std::max(report.last, base.index);
  report.first = report.last + 1;
  return report;
}

// Snapshots may suffer from the same damage.
void keep_first_of_each(std::vector<std::string>& problems) {
  std::set<std::string> seen;
  std::erase_if(problems, [&](const std::string& problem) { return !seen.insert(problem).second; });
}

struct BranchFindings {
  journal::JournalReport journal;
  VerifiedSnapshots snapshots;
  std::vector<std::string> problems;
  bool journal_damaged = false;
};

// The first damage of a journal, and more of it; then how much there is does not matter.
Status add_damage(Directory& directory, const journal::JournalIdentity& identity,
                  const journal::JournalReport& report, std::vector<std::string>& problems) {
  constexpr size_t kFurther = 20;
  problems.push_back(report.problem->message());
  auto further = TRY(journal::further_damage(directory, identity, report, kFurther + 1));
  for (size_t i = 0; i < std::min(further.size(), kFurther); ++i) problems.push_back(further[i].message());
  if (further.size() > kFurther) problems.push_back(fmt::format("{}: and more", directory.path()));
  return {};
}

Result<BranchFindings> verify_branch(store::Store& store, const std::string& name) {
  BranchFindings found;
  auto branch = TRY(store.catalogue().branch(name));
  auto directory = TRY(store.journal_directory(name));
  const journal::JournalIdentity identity{store.volume(), name};
  {
    Progress progress("journal");
    found.journal = TRY(
        journal::verify_journal(*directory, identity, branch ? branch->durable_hint : 0, shown_on(progress)));
  }
  const journal::JournalReport& report = found.journal;
  found.journal_damaged = report.problem && !report.torn_tail;
  if (auto lost = instance::missing_beginning(branch, report.first, report.begins_anew))
    found.problems.push_back(lost->message());
  if (found.journal_damaged) TRY(add_damage(*directory, identity, report, found.problems));
  found.snapshots = TRY(verify_snapshots(store, name, found.problems));
  if (!found.journal_damaged) {
    for (std::string& wrong :
         TRY(instance::check_marks(store, name, behind_snapshots(report, found.snapshots.good))))
      found.problems.push_back(std::move(wrong));
  }
  auto no_base = instance::missing_base(store, name, report.first, found.snapshots.good);
  if (no_base) found.problems.push_back(no_base->message());
  return found;
}

nlohmann::json as_json(const BranchFindings& found) {
  const journal::JournalReport& report = found.journal;
  return {{"segments", report.segments},   {"batches", report.batches},
          {"bytes", report.bytes},         {"clean_close", report.clean_close},
          {"torn_tail", report.torn_tail}, {"snapshots", found.snapshots.good.size()}};
}

void print(const BranchFindings& found) {
  const journal::JournalReport& report = found.journal;
  const VerifiedSnapshots& snapshots = found.snapshots;
  fmt::print("{} segments, {} batches, {}; {} snapshots{}{}\n", report.segments, report.batches,
             format_bytes(report.bytes), snapshots.good.size(),
             snapshots.good.size() == snapshots.there ? "" : fmt::format(" of {}", snapshots.there),
             report.clean_close ? "; cleanly closed" : "");
  if (report.torn_tail) fmt::print("torn tail, which the next opening cuts: {}\n", report.problem->message());
}

// Those that have a folder, or should have one.
Result<std::vector<std::string>> all_branches(store::Store& store) {
  std::vector<std::string> names = TRY(store.branch_names());
  for (const store::BranchRecord& branch : TRY(store.catalogue().branches())) names.push_back(branch.name);
  std::ranges::sort(names);
  names.erase(std::ranges::unique(names).begin(), names.end());
  return names;
}

void print_findings(const Options& options, const std::map<std::string, BranchFindings>& found,
                    const store::StoreFindings& files, const std::vector<std::string>& problems,
                    size_t others) {
  bool journal_damaged = false;
  for (const auto& [name, branch] : found) {
    if (options.all_branches) fmt::print("branch {}: ", name);
    print(branch);
    journal_damaged |= branch.journal_damaged;
  }
  for (const std::string& copy : files.not_taken_in)
    fmt::print("not in the catalogue, which the next opening takes it into: {}\n", copy);
  for (const std::string& problem : problems) fmt::print("damaged: {}\n", problem);
  if (others > 0) {
    fmt::print("read was branch {}, and {} not: --all-branches reads every one\n", found.begin()->first,
               others == 1 ? "1 other was" : fmt::format("{} others were", others));
  }
  if (!journal_damaged) return;
  fmt::print(
      "`reprise repair {}` puts right what is only a wrong byte, and takes other damage out and keeps it\n",
      options.what);
}

Result<int> verify_store(const Options& options) {
  OpenTarget open = TRY(open_target(Target::parse(options.what)));
  constexpr std::string_view kStopIt =
      "stop it first: verify reads every byte, and the end of a live journal moves";
  TRY(refuse_live(open, kStopIt));
  std::vector<std::string> names = TRY(all_branches(*open.store));
  const size_t others = names.size() - static_cast<size_t>(std::ranges::count(names, open.target.branch));
  if (!options.all_branches) names = {open.target.branch};
  std::map<std::string, BranchFindings> found;
  std::vector<std::string> problems;
  for (const std::string& name : names) {
    open.target.branch = name;
    open.live = TRY(open.store->lock_holder(name));
    TRY(refuse_live(open, kStopIt));
    BranchFindings& branch = found[name] = TRY(verify_branch(*open.store, name));
    problems.insert(problems.end(), branch.problems.begin(), branch.problems.end());
  }
  store::StoreFindings files = TRY(open.store->check_files());
  for (const Error& damage : files.damage) problems.push_back(damage.message());
  keep_first_of_each(problems);
  if (options.json) {
    nlohmann::json json;
    if (options.all_branches) {
      for (const auto& [name, branch] : found) json["branches"][name] = as_json(branch);
    } else {
      json = as_json(found.begin()->second);
      json["other_branches"] = others;
    }
    json["problems"] = problems;
    json["not_taken_in"] = files.not_taken_in;
    fmt::print("{}\n", json.dump());
  } else {
    print_findings(options, found, files, problems, options.all_branches ? 0 : others);
  }
  return problems.empty() ? kDone : kNo;
}

Result<int> verify(const Options& options) {
  auto verified = verify_store(options);
  bool is_store = store::Store::looks_like_store(Target::parse(options.what).store);
  if (!verified && verified.error().code() == Code::kCorrupt && is_store)
    return print_damaged_store(options, verified.error());
  return verified;
}

struct Repaired {
  journal::JournalRepair journal;
  LogIndex durable = 0;            // what was known to be on the disk
  LogIndex began = 1, begins = 0;  // the journal did, and does, if it has lost its beginning
  bool catalogue_is_new = false;   // so that it does not say what was trimmed
  LogIndex reaches = 0;            // the snapshot that reaches furthest and can be read; 0: none
  std::vector<std::string> lost_marks;
  std::optional<Error> no_base;  // it cannot be opened

  LogIndex end() const { return std::max(journal.last, reaches); }
  // The last of the batches that are in no state any more; end() or before: none.
  LogIndex lost_to() const { return std::max(durable, journal.seen); }
  uint64_t lost() const { return lost_to() > end() ? lost_to() - end() : 0; }
  bool nothing() const {
    return journal.problems.empty() && journal.kept.empty() && lost() == 0 && begins == 0 &&
           lost_marks.empty() && !no_base;
  }
};

// Accepting the loss is what repairing is: the next opening shall not refuse for it again.
Status accept_loss(store::Store& store, const std::string& branch, const Repaired& repaired) {
  return store.catalogue().update_branch(branch, [&](store::BranchRecord& record) {
    record.durable_hint = std::min(record.durable_hint, repaired.journal.last);
    if (repaired.begins != 0) record.journal_begins = repaired.begins;
  });
}

// Segments that were missing at the beginning, or that were taken out there.
void note_lost_beginning(Repaired& repaired, const std::optional<store::BranchRecord>& record,
                         const journal::JournalFiles& left) {
  const journal::JournalRepair& journal = repaired.journal;
  const bool none = left.segments.empty();
  // Nothing is left, and there had been something: the next opening begins behind the snapshot.
  const bool all = none && repaired.reaches != 0 && (!journal.kept.empty() || repaired.durable != 0);
  const LogIndex begins = none ? repaired.reaches + 1 : journal.first;
  const bool were_missing = !none && instance::missing_beginning(record, journal.first, left.begins_anew);
  const bool taken_out = !none && !journal.kept.empty();
  LogIndex began = record ? record->journal_begins : 1;
  if (!were_missing) began = std::max(began, journal.began);
  if (!(all || were_missing || taken_out) || begins <= began) return;
  repaired.began = began;
  repaired.begins = begins;
}

Result<Repaired> repair_branch(store::Store& store, const std::string& branch, Directory& directory) {
  Repaired repaired;
  auto record = TRY(store.catalogue().branch(branch));
  repaired.durable = record ? record->durable_hint : 0;
  auto bases = TRY(instance::readable_bases(store, branch));
  for (const journal::RepairBase& base : bases) repaired.reaches = std::max(repaired.reaches, base.index);
  journal::JournalIdentity identity{store.volume(), branch};
  {
    Progress progress("journal");
    Progress search("looking for a wrong byte");
    repaired.journal =
        TRY(journal::repair_journal(directory, identity, repaired.durable, bases, system_random(),
                                    shown_on(progress), {.progress = shown_on(search)}));
  }
  const journal::JournalRepair& journal = repaired.journal;
  journal::JournalFiles left = TRY(journal::journal_files(directory, identity));
  note_lost_beginning(repaired, record, left);
  repaired.no_base = instance::missing_base(store, branch, journal.first, bases);
  TRY(accept_loss(store, branch, repaired));
  // The numbers of what was lost will be given to other batches: no mark may go on naming them.
  repaired.lost_marks = TRY(instance::drop_marks_after(store, branch, repaired.end()));
  return repaired;
}

nlohmann::json as_json(const Repaired& repaired) {
  const journal::JournalRepair& journal = repaired.journal;
  nlohmann::json json = {{"lost_marks", repaired.lost_marks},
                         {"first", journal.first},
                         {"last", journal.last},
                         {"cut_bytes", journal.cut_bytes},
                         {"kept", journal.kept},
                         {"corrected", journal.corrected},
                         {"lost_batches", repaired.lost()},
                         {"missing_before", repaired.begins},
                         {"snapshot_reaches", repaired.reaches},
                         {"problems", nlohmann::json::array()}};
  for (const Error& problem : journal.problems) json["problems"].push_back(problem.message());
  if (repaired.no_base) json["cannot_be_opened"] = repaired.no_base->message();
  return json;
}

std::string batches(LogIndex first, LogIndex last) {
  return first == last ? fmt::format("batch {}", first) : fmt::format("batches {} to {}", first, last);
}

void print_left(const Repaired& repaired) {
  const journal::JournalRepair& journal = repaired.journal;
  bool any = journal.last >= journal.first;
  fmt::print("the journal has {}", any ? batches(journal.first, journal.last) : "no batches");
  if (repaired.reaches != 0 && (!any || journal.first > 1))
    fmt::print("; a snapshot holds the state up to batch {}", repaired.reaches);
  fmt::print("\n");
}

void print(const Repaired& repaired, const std::string& directory) {
  const journal::JournalRepair& journal = repaired.journal;
  if (repaired.nothing()) {
    fmt::print("nothing to repair: {}\n", journal.last >= journal.first
                                              ? batches(journal.first, journal.last) + " are sound"
                                              : "the journal has no batches");
    return;
  }
  for (const Error& problem : journal.problems) fmt::print("found: {}\n", problem.message());
  for (const std::string& where : journal.corrected) fmt::print("put right: {}\n", where);
  for (const std::string& name : journal.kept) fmt::print("kept aside: {}/{}\n", directory, name);
  if (journal.cut_bytes > 0) fmt::print("that is {} taken out\n", format_bytes(journal.cut_bytes));
  if (repaired.begins != 0) {
    std::string before = batches(repaired.began, repaired.begins - 1);
    if (repaired.catalogue_is_new) {
      fmt::print("not there: the history of {}, which was trimmed or is lost; the state after it is there\n",
                 before);
    } else {
      fmt::print("lost: the history of {}, but not the state after it\n", before);
    }
  }
  if (repaired.lost() > 0)
    fmt::print("lost: {}, which had been on the disk\n", batches(repaired.end() + 1, repaired.lost_to()));
  for (const std::string& name : repaired.lost_marks) fmt::print("lost: the mark {}\n", name);
  if (repaired.no_base) {
    fmt::print("cannot be opened: {}\n", repaired.no_base->message());
    return;
  }
  print_left(repaired);
}

nlohmann::json repaired_json(const instance::StoreRepaired& done) {
  nlohmann::json json = {{"found", done.found},
                         {"set_aside", done.set_aside},
                         {"made_anew", done.made_anew},
                         {"snapshots", done.snapshots},
                         {"lost_snapshots", nlohmann::json::array()}};
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
  for (const std::string& name : done.made_anew) fmt::print("made anew: {}/{}\n", store, name);
  if (done.catalogue_anew)
    fmt::print("the catalogue has been made anew; {} snapshots are there\n", done.snapshots);
}

void print_marks(const instance::MarksRestored& marks) {
  for (const std::string& name : marks.marks) fmt::print("found in the journal: the mark {}\n", name);
  for (const std::string& why : marks.unread) fmt::print("marks were not looked for: {}\n", why);
}

// The catalogue and the packs. Where somebody has them open, they can be opened, and are left as they are.
Result<std::optional<instance::StoreRepaired>> repair_store(const std::string& path) {
  auto done = instance::repair_store(path);
  if (!done && done.error().code() == Code::kBusy) return std::nullopt;
  if (!done) return std::unexpected(done.error());
  if (!done->needed) return std::nullopt;
  return std::move(*done);
}

// What even repair must know cannot be found out; nothing was done to the journal.
int print_cannot_be_opened(const Options& options, const Error& why) {
  if (options.json) {
    fmt::print("{}\n", nlohmann::json{{"cannot_be_opened", why.message()}}.dump());
  } else {
    fmt::print("cannot be opened: {}\n", why.message());
  }
  return kNo;
}

Result<int> repair(const Options& options) {
  Target target = Target::parse(options.what);
  auto repaired_store = repair_store(target.store);
  if (!repaired_store && repaired_store.error().code() == Code::kCorrupt)
    return print_cannot_be_opened(options, repaired_store.error());
  auto store_repaired = TRY(std::move(repaired_store));
  if (store_repaired && !options.json) print_repaired(target.store, *store_repaired);
  OpenTarget open = TRY(open_target(Target::parse(options.what), store::Access::kWrite));
  TRY(refuse_live(open, "stop it first"));
  // Held to the end: nobody may open what is being cut.
  auto lock = TRY(open.store->lock_branch(open.target.branch, {getpid(), "reprise repair " + options.what}));
  auto directory = TRY(open.store->journal_directory(open.target.branch));
  Repaired repaired = TRY(repair_branch(*open.store, open.target.branch, *directory));
  repaired.catalogue_is_new = store_repaired && store_repaired->catalogue_anew;
  auto marks = TRY(instance::restore_lost_marks(*open.store));
  if (options.json) {
    nlohmann::json json = as_json(repaired);
    json["found_marks"] = marks.marks;
    json["unread"] = marks.unread;
    if (store_repaired) json["store"] = repaired_json(*store_repaired);
    fmt::print("{}\n", json.dump());
  } else {
    const bool any_marks = !marks.marks.empty() || !marks.unread.empty();
    print_marks(marks);
    if (!repaired.nothing() || !(store_repaired || any_marks)) print(repaired, directory->path());
  }
  return repaired.no_base ? kNo : kDone;
}

}  // namespace

void add_verify(Command& reprise) {
  auto options = std::make_shared<Options>();
  Command command = reprise.subcommand(
      "verify",
      "Check every byte of a branch's journal and its snapshots, and the files of the store; exit 1 if\n"
      "something is damaged");
  command.required("store", options->what, "STORE[:BRANCH]");
  command.flag("--all-branches", options->all_branches, "of all branches, not of one");
  command.flag("--json", options->json, "the findings as JSON");
  command.does([options] { return verify(*options); });
}

void add_repair(Command& reprise) {
  auto options = std::make_shared<Options>();
  Command command = reprise.subcommand(
      "repair",
      "Make a damaged catalogue anew, set damaged packs aside, put a journal's wrong bytes right or take\n"
      "other damage out of it. Nothing is destroyed: what is taken out or replaced is kept aside and named.\n"
      "Exit 1 if it still cannot be opened");
  command.required("store", options->what, "STORE[:BRANCH]");
  command.flag("--json", options->json, "what was done, as JSON");
  command.does([options] { return repair(*options); });
}

}  // namespace reprise::cli

// repair: what to do where something on the disk is not what it should be.
#include "instance/repair.h"

#include <fmt/format.h>
#include <unistd.h>

#include "tools/cli/branch_repair.h"
#include "tools/cli/command.h"
#include "tools/cli/target.h"

namespace reprise::cli {
namespace {

struct Options {
  std::string what;
  bool json = false;
};

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
  for (const std::string& name : marks.lost)
    fmt::print("lost: the mark {}: its batch is there, but not what the state at it was\n", name);
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
    for (const std::string& name : marks.lost) json["lost_marks"].push_back(name);
    json["unread"] = marks.unread;
    if (store_repaired) json["store"] = repaired_json(*store_repaired);
    fmt::print("{}\n", json.dump());
  } else {
    const bool any_marks = !marks.marks.empty() || !marks.lost.empty() || !marks.unread.empty();
    print_marks(marks);
    if (!repaired.nothing() || !(store_repaired || any_marks)) print(repaired, directory->path());
  }
  return repaired.no_base ? kNo : kDone;
}

}  // namespace

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

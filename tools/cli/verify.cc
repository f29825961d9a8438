// verify: is everything on the disk what it should be?
#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <set>

#include "tools/cli/branch_check.h"
#include "tools/cli/command.h"
#include "tools/cli/target.h"

namespace reprise::cli {
namespace {

struct Options {
  std::string what;
  bool json = false;
  bool all_branches = false;
};

// Without its catalogue nothing of a store can be looked at.
int print_damaged_store(const Options& options, const Error& problem) {
  if (options.json) {
    fmt::print("{}\n", nlohmann::json{{"problems", {problem.message()}}}.dump());
  } else {
    fmt::print("damaged: {}\n", problem.message());
  }
  return kNo;
}

// Snapshots may suffer from the same damage.
void keep_first_of_each(std::vector<std::string>& problems) {
  std::set<std::string> seen;
  std::erase_if(problems, [&](const std::string& problem) { return !seen.insert(problem).second; });
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

}  // namespace reprise::cli

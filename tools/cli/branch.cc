// fork, join, discard, branches: lines of history beside `main`.
#include <fmt/format.h>
#include <unistd.h>

#include "instance/branches.h"
#include "instance/control.h"
#include "instance/host.h"
#include "instance/instance.h"
#include "tools/cli/command.h"
#include "tools/cli/overlay.h"
#include "tools/cli/progress.h"
#include "tools/cli/target.h"

namespace reprise::cli {
namespace {

struct Options {
  std::string what;
  std::string name;
  double count = 0;
  bool json = false;
  bool half_joined = false;
  std::string resolve;
};

store::LockHolder holder(std::string_view command, const Options& options) {
  return {getpid(), fmt::format("reprise {} {} {}", command, options.what, options.name)};
}

// STORE alone: which branch it came from, the branch itself knows.
Result<Target> whole_store(const Options& options) {
  Target target = Target::parse(options.what);
  if (target.branch == "main" && target.position.empty() && target.path.empty()) return target;
  return fail(Code::kInvalidArgument,
              fmt::format("{}: expected STORE and the branch's name behind it", options.what));
}

// Of the live instance, or of the state that is asked for.
Result<nlohmann::json> fork_once(const OpenTarget& open, const std::string& name, const Options& options) {
  if (open.live && open.target.position.empty()) return ask_live(open, {{"ask", "fork"}, {"name", name}});
  Progress progress("replaying");
  instance::State state = TRY(open.state(std::ref(progress)));
  replay::Pinned pinned{state.head.view(), {state.position, state.lamport, state.log_index}};
  instance::Fork fork = TRY(instance::fork_branch(*open.store, name, open.target.branch, pinned,
                                                  holder("fork", options), system_clock()));
  return nlohmann::json{{"parent", fork.parent}, {"log_index", fork.log_index}, {"snapshot", fork.snapshot}};
}

Result<int> fork(const Options& options) {
  Target target = Target::parse(options.what);
  if (!target.path.empty())
    return fail(Code::kInvalidArgument, fmt::format("{}: expected STORE[:BRANCH][@POSITION]", options.what));
  TRY(target.check_branch());
  TRY(store::Store::check_name("branch", options.name));
  OpenTarget open = TRY(open_target(target, store::Access::kWrite));
  auto count = static_cast<uint64_t>(options.count);
  if (static_cast<double>(count) != options.count)
    return fail(Code::kInvalidArgument,
                fmt::format("--count: expected a whole number, found {}", options.count));
  for (uint64_t i = 0; i < std::max<uint64_t>(count, 1); i++) {
    std::string name = count == 0 ? options.name : fmt::format("{}.{}", options.name, i + 1);
    nlohmann::json made = TRY(fork_once(open, name, options));
    made["name"] = name;
    if (options.json) {
      fmt::print("{}\n", made.dump());
    } else {
      fmt::print("{}: a fork of {}@{}\n", name, made["parent"].get<std::string>(),
                 made["log_index"].get<LogIndex>());
    }
  }
  return kDone;
}

Result<nlohmann::json> join_stopped(const OpenTarget& open, const Options& options, bool interrupted) {
  auto resolve = TRY(instance::winner_named(options.resolve));
  instance::InstanceOptions settings;
  settings.branch = open.target.branch;
  settings.holder = holder("join", options);
  auto instance = TRY(instance::Instance::open(open.store, settings));
  // Opening finishes a join that was interrupted.
  auto joined = interrupted ? instance::Joined{} : instance->join(options.name, resolve);
  TRY(instance->close());
  return instance::joined_json(TRY(std::move(joined)));
}

void print_joined(const nlohmann::json& joined, const std::string& name, const std::string& parent) {
  bool resolved = joined.contains("resolved");
  std::string decided;
  if (resolved) decided = joined["resolved"] == "ours" ? ": " + parent + " counts" : ": " + name + " counts";
  for (const auto& conflict : joined["conflicts"]) {
    fmt::print("{}: {}{}\n", conflict["path"].get<std::string>(), conflict["what"].get<std::string>(),
               decided);
  }
  if (!resolved && !joined["conflicts"].empty()) return;
  if (resolved) {
    for (const auto& one : joined["left_out"])
      fmt::print("left out: {}: {}\n", one["path"].get<std::string>(), one["what"].get<std::string>());
  }
  fmt::print("{}: joined into {}, {} operations{}\n", name, parent, joined["operations"].get<uint64_t>(),
             resolved
                 ? "; the branch stays, with its history and what was left out (`reprise discard` drops it)"
                 : "");
}

Result<int> join(const Options& options) {
  Target target = TRY(whole_store(options));
  OpenTarget asked = TRY(open_target(target, store::Access::kWrite));
  instance::Branch branch = TRY(instance::find_branch(*asked.store, options.name));
  if (!branch.fork)
    return fail(Code::kInvalidArgument,
                fmt::format("{}: expected a branch that was forked, found that {} was not", options.what,
                            options.name));
  target.branch = branch.fork->parent;
  OpenTarget open{asked.store, target, TRY(asked.store->lock_holder(target.branch))};
  nlohmann::json question = {{"ask", "join"}, {"name", options.name}, {"resolve", options.resolve}};
  nlohmann::json joined =
      open.live ? TRY(ask_live(open, question)) : TRY(join_stopped(open, options, branch.joining));
  if (options.json) {
    fmt::print("{}\n", joined.dump());
  } else {
    print_joined(joined, options.name, target.branch);
  }
  if (joined["conflicts"].empty() || joined.contains("resolved")) return kDone;
  complain(
      fmt::format("{} was not joined: {} of the things it has changed were changed on {}, too, since it was "
                  "forked; both are as they were (`--resolve ours` or `theirs` decides)",
                  options.name, joined["conflicts"].size(), target.branch));
  return kNo;
}

Result<int> discard(const Options& options) {
  if (options.name.empty()) {
    TRY(discard_overlay(options.what));
    return kDone;
  }
  Target target = TRY(whole_store(options));
  OpenTarget open = TRY(open_target(target, store::Access::kWrite));
  TRY(instance::discard_branch(*open.store, options.name, holder("discard", options), options.half_joined));
  return kDone;
}

Result<int> branches(const Options& options) {
  Target target = TRY(whole_store(options));
  OpenTarget open = TRY(open_target(target));
  nlohmann::json all = nlohmann::json::array();
  for (const instance::Branch& branch : TRY(instance::list_branches(*open.store))) {
    nlohmann::json json = {{"name", branch.name}};
    if (branch.fork) {
      json["parent"] = branch.fork->parent;
      json["log_index"] = branch.fork->log_index;
      json["position"] = branch.fork->position.to_token();
      json["time"] = branch.fork->time.sec;
      if (branch.joining) json["joining"] = true;
    }
    if (branch.damaged) json["damaged"] = branch.damaged->message();
    auto live = TRY(open.store->lock_holder(branch.name));
    if (live) json["live"] = {{"pid", live->pid}, {"command", live->command}};
    if (!options.json) {
      std::string from = branch.fork ? fmt::format("{}@{}", branch.fork->parent, branch.fork->log_index) : "";
      fmt::print("{:20} {:20}{}{}{}\n", branch.name, from, live ? " live: " + live->describe() : "",
                 branch.joining ? " a join of it was interrupted" : "",
                 branch.damaged ? " " + branch.damaged->message() : "");
    }
    all.push_back(std::move(json));
  }
  if (options.json) fmt::print("{}\n", all.dump(2));
  return kDone;
}

}  // namespace

void add_fork(Command& reprise) {
  auto options = std::make_shared<Options>();
  Command command = reprise.subcommand(
      "fork", "Begin a branch at a state of another one; `reprise run --store STORE:NAME` works on it");
  command.required("store", options->what, "STORE[:BRANCH][@POSITION], live or not");
  command.required("name", options->name, "of the new branch: a letter or _, then letters, digits, _ . -");
  command.number("--count", options->count, 1, 1e6, "so many, called NAME.1, NAME.2 …");
  command.flag("--json", options->json, "one line of JSON for each");
  command.does([options] { return fork(*options); });
}

void add_join(Command& reprise) {
  auto options = std::make_shared<Options>();
  Command command = reprise.subcommand(
      "join",
      "Put what was done on a branch into the one it was forked from, all of it or, if both changed the "
      "same, nothing; exit 1 then");
  command.required("store", options->what, "STORE");
  command.required("name", options->name,
                   "the branch, which nobody works on any more; it goes, unless --resolve decides");
  command.option(
      "--resolve", options->resolve,
      "ours|theirs: where both changed the same, what the parent (ours) or the branch (theirs) did "
      "counts, path by path as it is said; of the other's what does not touch that",
      [](const std::string& value) {
        bool known = value == "ours" || value == "theirs";
        return known ? std::string() : "expected ours or theirs, found " + printable(value);
      });
  command.flag("--json", options->json, "what came over, and what conflicts, as JSON");
  command.does([options] { return join(*options); });
}

void add_discard(Command& reprise) {
  auto options = std::make_shared<Options>();
  Command command =
      reprise.subcommand("discard", "Take a branch away, or a whole overlay, and what was done on it");
  command.required("store", options->what, "STORE");
  command.option("name", options->name,
                 "the branch, which nobody works on any more; without it the store must be an overlay (`run "
                 "--from`), and goes");
  command.flag("--half-joined", options->half_joined,
               "even if a join of it was interrupted: then its parent keeps half of it");
  command.does([options] { return discard(*options); });
}

void add_branches(Command& reprise) {
  auto options = std::make_shared<Options>();
  Command command = reprise.subcommand("branches", "List the branches of a store, and where each was forked");
  command.required("store", options->what, "STORE");
  command.flag("--json", options->json, "as JSON");
  command.does([options] { return branches(*options); });
}

}  // namespace reprise::cli

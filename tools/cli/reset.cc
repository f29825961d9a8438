// reset: a branch becomes what it, or another, was at a position. Nothing is taken out of its history.
#include <fmt/format.h>
#include <unistd.h>

#include "instance/host.h"
#include "instance/instance.h"
#include "tools/cli/command.h"
#include "tools/cli/target.h"

namespace reprise::cli {
namespace {

struct Options {
  std::string what, to, keep;
  bool json = false;
};

// The state that is wanted, as STORE:BRANCH@POSITION.
Result<Target> wanted_state(const Target& target, const Options& options) {
  Target wanted = target;
  if (!options.to.empty()) {
    size_t at = options.to.find('@');
    wanted.branch = options.to.substr(0, at);
    wanted.position = at == std::string::npos ? "" : options.to.substr(at + 1);
    TRY(store::Store::check_name("branch", wanted.branch));
    if (at != std::string::npos && wanted.position.empty())
      return fail(Code::kInvalidArgument,
                  fmt::format("--to {}: expected a position behind the @", printable(options.to)));
  }
  return wanted;
}

Result<nlohmann::json> reset_stopped(const OpenTarget& open, const Target& wanted, const Options& options) {
  instance::InstanceOptions settings;
  settings.branch = open.target.branch;
  settings.holder = {getpid(), "reprise reset " + options.what};
  auto instance = TRY(instance::Instance::open(open.store, settings));
  auto reset = instance->reset(wanted.branch, wanted.position, options.keep);
  TRY(instance->close());
  return instance::reset_json(TRY(std::move(reset)));
}

void print(const nlohmann::json& reset, const Target& target, const Options& options) {
  auto before = reset["before"].get<LogIndex>();
  std::string state =
      fmt::format("{}@{}", reset["branch"].get<std::string>(), reset["log_index"].get<LogIndex>());
  auto operations = reset["operations"].get<uint64_t>();
  if (operations == 0) {
    fmt::print("{} is as {} already\n", target.branch, state);
    return;
  }
  std::string full = target.branch == "main" ? target.store : target.store + ":" + target.branch;
  fmt::print("{} is as {} again, by {} operations; what it was is {}@{}\n", target.branch, state, operations,
             full, before);
  if (!options.keep.empty()) fmt::print("and the branch {}\n", options.keep);
}

Result<int> reset(const Options& options) {
  Target target = Target::parse(options.what);
  bool says_once = target.position.empty() != options.to.empty();
  if (!target.path.empty() || !says_once) {
    return fail(
        Code::kInvalidArgument,
        fmt::format("{}: expected STORE[:BRANCH]@POSITION, or STORE[:BRANCH] and --to BRANCH[@POSITION]",
                    printable(options.what)));
  }
  TRY(target.check_branch());
  if (!options.keep.empty()) TRY(store::Store::check_name("branch", options.keep));
  Target wanted = TRY(wanted_state(target, options));
  target.position.clear();
  OpenTarget open = TRY(open_target(target, store::Access::kWrite));
  // Another live instance writes what it has.
  if (wanted.branch != target.branch) {
    TRY(instance::find_branch(*open.store, wanted.branch));
    OpenTarget other{open.store, wanted, TRY(open.store->lock_holder(wanted.branch))};
    if (other.live) TRY(ask_live(other, {{"ask", "sync"}}));
  }
  nlohmann::json reset;
  if (open.live) {
    reset = TRY(ask_live(open, {{"ask", "reset"},
                                {"branch", wanted.branch},
                                {"position", wanted.position},
                                {"keep", options.keep}}));
  } else {
    reset = TRY(reset_stopped(open, wanted, options));
  }
  if (!options.keep.empty()) reset["kept"] = options.keep;
  if (options.json) {
    fmt::print("{}\n", reset.dump());
  } else {
    print(reset, target, options);
  }
  return kDone;
}

}  // namespace

void add_reset(Command& reprise) {
  auto options = std::make_shared<Options>();
  Command command = reprise.subcommand(
      "reset",
      "Make a branch what it was at a position, or what another one is, by a change as any other: its "
      "history stays, and can be reset to in turn");
  command.required("store", options->what, "STORE[:BRANCH]@POSITION, live or not");
  command.option("--to", options->to,
                 "BRANCH[@POSITION] of the same store, say that it was forked from; then STORE[:BRANCH] "
                 "goes without a position");
  command.option("--keep", options->keep, "keep what there was as a branch of this name");
  command.flag("--json", options->json, "what was done, as JSON");
  command.does([options] { return reset(*options); });
}

}  // namespace reprise::cli

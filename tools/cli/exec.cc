// exec: another guest in a live instance.
#include <fmt/format.h>

#include <filesystem>

#include "adapters/fuse/enter.h"
#include "adapters/fuse/mount.h"
#include "tools/cli/command.h"
#include "tools/cli/target.h"

namespace reprise::cli {
namespace {

struct Options {
  std::string what;
  std::vector<std::string> command;
};

struct Mount {
  pid_t pid;
  std::string path;
};

Result<Mount> find_mount(const Target& target) {
  if (!target.position.empty() || !target.path.empty())
    return fail(Code::kInvalidArgument, fmt::format("{}: expected STORE[:BRANCH]", target.store));
  OpenTarget open = TRY(open_target_to_ask(target));
  if (!open.live) {
    return fail(Code::kNotFound,
                fmt::format("{}: branch {} is not live: nothing runs in it (`reprise run` starts something)",
                            target.store, target.branch));
  }
  nlohmann::json stat = TRY(ask_live(open, {{"ask", "stat"}}));
  auto mount = stat.find("mount");
  if (mount == stat.end()) {
    return fail(Code::kUnsupported, fmt::format("{}: branch {} is live in process {}, but mounted nowhere",
                                                target.store, target.branch, open.live->pid));
  }
  return Mount{.pid = (*mount)["pid"].get<pid_t>(), .path = (*mount)["path"].get<std::string>()};
}

Status enter(const Options& options) {
  Target target = Target::parse(options.what);
  Mount mount = TRY(find_mount(target));
  std::error_code ignored;
  std::string store = std::filesystem::absolute(target.store, ignored).string();
  if (target.branch != "main") store += ":" + target.branch;
  ::setenv("REPRISE_STORE", store.c_str(), 1);  // NOLINT(concurrency-mt-unsafe): there is one thread
  return fuse::enter(mount.pid, mount.path);
}

Result<int> exec(const Options& options) {
  int status = fuse::Launch::kOwnFailure;
  Error error = [&] {
    Status entered = enter(options);
    return entered ? fuse::become(options.command, status) : entered.error();
  }();
  complain(error.message());
  return status;
}

}  // namespace

void add_exec(Command& reprise) {
  auto options = std::make_shared<Options>();
  Command command = reprise.subcommand(
      "exec", "Run a command as another guest of a live instance: in its mount, beside what runs there");
  command.required("store", options->what, "STORE[:BRANCH]");
  command.required("command", options->command, "the command, after --");
  command.does([options] { return exec(*options); });
}

}  // namespace reprise::cli

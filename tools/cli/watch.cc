// watch: what changes in a live instance, as it does.
#include <fmt/format.h>

#include <cstdio>

#include "instance/control.h"
#include "tools/cli/command.h"
#include "tools/cli/target.h"

namespace reprise::cli {
namespace {

struct Options {
  std::string what;
  bool json = false;
};

constexpr uint32_t kSilence_ms = 60'000;  // an instance says something every second or so

std::string line_of(const nlohmann::json& change) {
  std::string line = fmt::format("{} ", change["kind"].get<std::string>());
  if (change.contains("from")) line += change["from"].get<std::string>() + " -> ";
  line += change["path"].get<std::string>();
  if (change["kind"] == "changed" && !change.contains("content")) line += " (attributes)";
  return line;
}

void show(const nlohmann::json& part, bool json) {
  if (part.contains("began")) {
    if (json) fmt::print("{}\n", nlohmann::json{{"kind", "began"}, {"position", part["began"]}}.dump());
  } else {
    if (part["overrun"].get<bool>())
      fmt::print("{}\n",
                 json ? nlohmann::json{{"kind", "overrun"}}.dump() : "overrun: anything may have changed");
    for (const nlohmann::json& change : part["changes"])
      fmt::print("{}\n", json ? change.dump() : line_of(change));
  }
  std::fflush(stdout);
}

Result<int> watch(const Options& options) {
  OpenTarget open = TRY(open_target(Target::parse(options.what)));
  if (!open.live) {
    complain(fmt::format("{}: branch {} is not live: nothing changes there", open.target.store,
                         open.target.branch));
    return kNo;
  }
  auto take = [&](const nlohmann::json& part) -> Status {
    show(part, options.json);
    if (std::ferror(stdout) != 0) return fail(Code::kCancelled, "nobody reads any more");
    return {};
  };
  std::string path = open.store->control_socket_path(open.target.branch);
  auto ended = instance::ask(system_network(), path, {{"ask", "watch"}}, kSilence_ms, take);
  bool over = ended || ended.error().code() == Code::kUnreachable || ended.error().code() == Code::kCancelled;
  if (!over) return std::unexpected(ended.error());
  return kDone;
}

}  // namespace

void add_watch(Command& reprise) {
  auto options = std::make_shared<Options>();
  Command command = reprise.subcommand("watch",
                                       "Say what changes in a live instance, one path a line, until it ends. "
                                       "Several changes of a path may be told "
                                       "as one; `overrun` says that some were missed");
  command.required("store", options->what, "STORE[:BRANCH]");
  command.flag("--json", options->json, "one JSON object a line: kind, path, from, content, attributes");
  command.does([options] { return watch(*options); });
}

}  // namespace reprise::cli

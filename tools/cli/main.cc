// reprise: the command line.
#include <fmt/format.h>
#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>

#include <CLI/CLI.hpp>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <iostream>
#include <string_view>
#include <system_error>

#include "adapters/fuse/mount.h"
#include "base/bytes.h"
#include "tools/cli/command.h"

namespace {

constexpr const char* kAbout =
    "Keeps the filesystems of interpreter instances in step: every change is recorded in a journal,\n"
    "replayed on peers, and replaced by a snapshot where that costs less.\n\n"
    "STATE is STORE[:BRANCH][@POSITION]; POSITION is a log index, a mark, a token of `mark` and `stat`,\n"
    "a time such as {10m}, or head.";

// Runs the body and writes out what it printed. A reader that has heard enough (`| head`) is no failure.
reprise::Result<int> run(const reprise::cli::Body& body) {
  try {
    auto status = body();
    if (std::fflush(stdout) == 0 || !status) return status;
    throw std::system_error(errno, std::generic_category());
  } catch (const std::system_error& error) {  // fmt::print says so when it cannot write
    if (error.code().value() == EPIPE) return reprise::cli::kDone;
    return std::unexpected(reprise::Error::from_errno(error.code().value(), "standard output"));
  }
}

// --help and --version.
int print_help(const CLI::App& app, const CLI::ParseError& answer) {
  app.exit(answer);
  std::cout.flush();
  if (std::cout || errno == EPIPE) return reprise::cli::kDone;
  reprise::cli::complain("standard output: cannot write what was asked for");
  return reprise::cli::kFailed;
}

// `run` and `exec` keep the small numbers for their command, as env(1) does.
int usage_status(std::string_view command) {
  return command == "run" || command == "exec" ? reprise::fuse::Launch::kOwnFailure : reprise::cli::kUsage;
}

}  // namespace

// What may escape: an allocation that fails, or a mistake in how options are declared.
// NOLINTNEXTLINE(bugprone-exception-escape)
int main(int argc, char** argv) {
  using namespace reprise::cli;
  std::signal(SIGPIPE, SIG_IGN);  // a reader that goes away is an error of the write, not the end of us
  CLI::App app{kAbout, "reprise"};
  spdlog::set_default_logger(spdlog::stderr_logger_mt("reprise"));  // stdout is for answers
  spdlog::set_pattern("reprise: %v");
  app.set_version_flag("--version", REPRISE_VERSION);
  app.require_subcommand(1);
  app.footer(
      "Exit status: 0 done, 1 the answer is \"no\", 2 wrong usage, 3 failed; `run` and `exec` end as their\n"
      "command did, or as env(1) does: 125 for an error of their own, 126 or 127 for a command that cannot "
      "run.");

  Body body;
  Command top(app, body);
  for (auto* add : {add_run,  add_exec,     add_mount,    add_serve,  add_flush,  add_watch,   add_promote,
                    add_log,  add_replay,   add_snapshot, add_digest, add_diff,   add_ls,      add_cat,
                    add_mark, add_wait_for, add_stat,     add_verify, add_repair, add_compact, add_fork,
                    add_join, add_discard,  add_branches, add_reset,  add_apply}) {
    add(top);
  }
  top.describes_all();
  auto is_asked_for = [&](const CLI::App* command) { return command->get_name() == argv[1]; };
  if (argc == 1) {
    complain("expected a command; `reprise --help` lists those there are");
    return kUsage;
  }
  if (argv[1][0] != '-' && app.get_subcommands(is_asked_for).empty()) {
    complain(fmt::format("there is no command \"{}\"; `reprise --help` lists those there are",
                         reprise::printable(argv[1])));
    return kUsage;
  }
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    if (error.get_exit_code() == 0) return print_help(app, error);
    std::string asked;
    for (const CLI::App* at = &app; !at->get_subcommands().empty(); asked += at->get_name() + " ")
      at = at->get_subcommands().front();
    complain(fmt::format("{}; `reprise {}--help` says what is expected", error.what(), asked));
    return usage_status(argv[1]);
  }
  auto status = run(body);
  if (status) return *status;
  complain(status.error().message());
  return status.error().code() == reprise::Code::kInvalidArgument ? kUsage : kFailed;
}

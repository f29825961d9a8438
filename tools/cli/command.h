// What the subcommands of `reprise` have in common: how they are registered, and how they end.
//
// Exit statuses: 0 done, 1 the answer is "no", 2 wrong usage, 3 failed. `run` ends as its command did, or
// with 125, 126 or 127 as env(1) does.
#pragma once

#include <CLI/CLI.hpp>
#include <functional>
#include <string_view>

#include "base/error.h"

namespace reprise::cli {

inline constexpr int kDone = 0, kNo = 1, kUsage = 2, kFailed = 3;

// A subcommand's body: its exit status, or why it failed.
using Body = std::function<Result<int>()>;

// One line on stderr, "reprise: " before it, whatever names the message holds.
void complain(std::string_view message);

// Registers one subcommand with its options on `app`. When it is the one asked for, its body is put in
// `chosen`.
void add_run(CLI::App& app, Body& chosen);
void add_mount(CLI::App& app, Body& chosen);
void add_exec(CLI::App& app, Body& chosen);
void add_log(CLI::App& app, Body& chosen);
void add_replay(CLI::App& app, Body& chosen);
void add_snapshot(CLI::App& app, Body& chosen);
void add_digest(CLI::App& app, Body& chosen);
void add_diff(CLI::App& app, Body& chosen);
void add_ls(CLI::App& app, Body& chosen);
void add_cat(CLI::App& app, Body& chosen);
void add_mark(CLI::App& app, Body& chosen);
void add_wait_for(CLI::App& app, Body& chosen);
void add_stat(CLI::App& app, Body& chosen);
void add_verify(CLI::App& app, Body& chosen);
void add_repair(CLI::App& app, Body& chosen);

}  // namespace reprise::cli

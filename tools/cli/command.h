// What the subcommands of `reprise` have in common: how they are registered, and how they end.
//
// Exit statuses: 0 done, 1 the answer is "no", 2 wrong usage, 3 failed. `run` ends as its command did, or
// with 125, 126 or 127 as env(1) does.
#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"

namespace CLI {
class App;
}

namespace reprise::cli {

inline constexpr int kDone = 0, kNo = 1, kUsage = 2, kFailed = 3;

// A subcommand's body: its exit status, or why it failed.
using Body = std::function<Result<int>()>;

// One line on stderr, "reprise: " before it, whatever names the message holds.
void complain(std::string_view message);

// What a command takes, and what it does. A thin front of CLI11, whose header takes longer to compile than
// everything else here: only command.cc and main.cc see it. Names are as CLI11 has them: "--name",
// "-n,--name", or "name" for an argument by its place. What is filled in must live until the body has run.
class Command {
 public:
  Command(CLI::App& app, Body& chosen) : app_(app), chosen_(chosen) {}

  Command subcommand(const std::string& name, const std::string& about);
  // One of its subcommands has to be given.
  void require_subcommand();
  void required(const std::string& name, std::string& into, const std::string& help);
  void required(const std::string& name, std::vector<std::string>& into, const std::string& help);
  // Whatever words are left; may be none.
  void rest(const std::string& name, std::vector<std::string>& into, const std::string& help);
  // Checked by `wrong`, which says what is wrong with a value, or "".
  using Check = std::function<std::string(const std::string&)>;
  void option(const std::string& name, std::string& into, const std::string& help, const Check& wrong = {});
  // May be given again and again.
  void options(const std::string& name, std::vector<std::string>& into, const std::string& help);
  // The value that `into` has is the default, and the help says so.
  void choice(const std::string& name, std::string& into, const std::vector<std::string>& among,
              const std::string& help);
  void number(const std::string& name, double& into, double least, double most, const std::string& help);
  void flag(const std::string& name, bool& into, const std::string& help);
  // At most one of these may be given.
  void exclude_each_other(const std::vector<std::string>& names);
  void footer(const std::string& text);
  void does(Body body);
  // Adds the command that prints what there is, in describe.cc.
  void describes_all();

 private:
  CLI::App& app_;
  Body& chosen_;
};

// Each registers one subcommand.
void add_run(Command& reprise);
void add_mount(Command& reprise);
void add_serve(Command& reprise);
void add_exec(Command& reprise);
void add_log(Command& reprise);
void add_replay(Command& reprise);
void add_snapshot(Command& reprise);
// Of `snapshot`.
void add_import(Command& snapshot);
void add_export(Command& snapshot);
void add_compact(Command& reprise);
void add_digest(Command& reprise);
void add_diff(Command& reprise);
void add_ls(Command& reprise);
void add_cat(Command& reprise);
void add_mark(Command& reprise);
void add_wait_for(Command& reprise);
void add_flush(Command& reprise);
void add_watch(Command& reprise);
void add_promote(Command& reprise);
void add_stat(Command& reprise);
void add_verify(Command& reprise);
void add_repair(Command& reprise);
void add_fork(Command& reprise);
void add_join(Command& reprise);
void add_discard(Command& reprise);
void add_apply(Command& reprise);
void add_branches(Command& reprise);
void add_reset(Command& reprise);

}  // namespace reprise::cli

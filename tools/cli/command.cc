#include "tools/cli/command.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>

#include "base/bytes.h"

namespace reprise::cli {

void complain(std::string_view message) {
  fmt::print(stderr, "reprise: {}\n", one_line(message));
}

Command Command::subcommand(const std::string& name, const std::string& about) {
  return {*app_.add_subcommand(name, about), chosen_};
}

void Command::require_subcommand() {
  app_.require_subcommand(1);
}

void Command::required(const std::string& name, std::string& into, const std::string& help) {
  app_.add_option(name, into, help)->required();
}

void Command::required(const std::string& name, std::vector<std::string>& into, const std::string& help) {
  app_.add_option(name, into, help)->required();
}

void Command::rest(const std::string& name, std::vector<std::string>& into, const std::string& help) {
  app_.add_option(name, into, help);
}

void Command::option(const std::string& name, std::string& into, const std::string& help,
                     const Check& wrong) {
  CLI::Option* option = app_.add_option(name, into, help);
  if (wrong) option->check(wrong);
}

void Command::options(const std::string& name, std::vector<std::string>& into, const std::string& help) {
  app_.add_option(name, into, help)->allow_extra_args(false);
}

void Command::choice(const std::string& name, std::string& into, const std::vector<std::string>& among,
                     const std::string& help) {
  app_.add_option(name, into, help)->check(CLI::IsMember(among))->capture_default_str();
}

void Command::number(const std::string& name, double& into, double least, double most,
                     const std::string& help) {
  app_.add_option(name, into, help)->check(CLI::Range(least, most))->capture_default_str();
}

void Command::flag(const std::string& name, bool& into, const std::string& help) {
  app_.add_flag(name, into, help);
}

void Command::exclude_each_other(const std::vector<std::string>& names) {
  for (const std::string& one : names)
    for (const std::string& other : names)
      if (one < other) app_.get_option(one)->excludes(app_.get_option(other));
}

void Command::footer(const std::string& text) {
  app_.footer(text);
}

void Command::does(Body body) {
  app_.callback([&chosen = chosen_, body = std::move(body)] { chosen = body; });
}

}  // namespace reprise::cli

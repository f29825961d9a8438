// describe: what this program can do, as JSON: what tools/manual makes the man pages and the completion of.
// Not listed by --help.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include "tools/cli/command.h"

namespace reprise::cli {
namespace {

nlohmann::json describe_option(const CLI::Option& option) {
  nlohmann::json json = {{"about", option.get_description()}, {"required", option.get_required()}};
  nlohmann::json& names = json["names"] = nlohmann::json::array();
  for (const std::string& name : option.get_snames()) names.push_back("-" + name);
  for (const std::string& name : option.get_lnames()) names.push_back("--" + name);
  if (option.get_positional()) json["argument"] = option.get_single_name();
  if (option.get_items_expected_max() > 0) {
    json["value"] = option.get_type_name();
    json["many"] = option.get_items_expected_max() > 1;
    json["default"] = option.get_default_str();
  }
  return json;
}

nlohmann::json describe(const CLI::App& app) {
  nlohmann::json json = {{"name", app.get_name()},
                         {"about", app.get_description()},
                         {"footer", app.get_footer()},
                         {"options", nlohmann::json::array()},
                         {"commands", nlohmann::json::array()}};
  for (const CLI::Option* option : app.get_options()) json["options"].push_back(describe_option(*option));
  for (const CLI::App* command : app.get_subcommands({})) {
    if (!command->get_group().empty()) json["commands"].push_back(describe(*command));
  }
  return json;
}

}  // namespace

void Command::describes_all() {
  CLI::App& top = app_;
  CLI::App* command = app_.add_subcommand("describe")->group("");
  command->callback([&chosen = chosen_, &top] {
    chosen = [&top]() -> Result<int> {
      nlohmann::json json = describe(top);
      json["version"] = REPRISE_VERSION;
      fmt::print("{}\n", json.dump(2));
      return kDone;
    };
  });
}

}  // namespace reprise::cli

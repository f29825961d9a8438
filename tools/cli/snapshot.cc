// snapshot create, list; import and export are in transfer.cc.
#include <fmt/format.h>
#include <unistd.h>

#include "instance/instance.h"
#include "tools/cli/command.h"
#include "tools/cli/target.h"

namespace reprise::cli {
namespace {

struct Options {
  std::string what, label;
  bool trim = false, json = false;
};

Result<nlohmann::json> create_stopped(const OpenTarget& open, const Options& options) {
  // As a follower would open it: to take a snapshot is not to write, and needs no origin.
  instance::InstanceOptions settings;
  settings.branch = open.target.branch;
  settings.follower = true;
  settings.holder = {getpid(), "reprise snapshot create " + options.what};
  auto instance = TRY(instance::Instance::open(open.store, settings));
  store::SnapshotRecord record = TRY(instance->snapshot(options.label));
  nlohmann::json json = {
      {"id", record.id},         {"log_index", record.log_index}, {"stored_bytes", record.stored_bytes},
      {"inodes", record.inodes}, {"bytes", record.bytes},         {"digest", record.digest.to_string()}};
  if (options.trim) json["journal_first"] = TRY(instance->trim()).first;
  TRY(instance->close());
  return json;
}

Result<int> create(const Options& options) {
  OpenTarget open = TRY(open_target(Target::parse(options.what), store::Access::kWrite));
  nlohmann::json question = {{"ask", "snapshot"}, {"label", options.label}};
  if (options.trim) question["trim"] = true;
  nlohmann::json json = open.live ? TRY(ask_live(open, question)) : TRY(create_stopped(open, options));
  if (options.json) {
    fmt::print("{}\n", json.dump());
  } else {
    fmt::print("snapshot {}: {} inodes, {}; {} added to the store\n", json["id"].get<uint64_t>(),
               json["inodes"].get<uint64_t>(), format_bytes(json["bytes"].get<uint64_t>()),
               format_bytes(json["stored_bytes"].get<uint64_t>()));
    if (json.contains("journal_first"))
      fmt::print("the journal now begins at batch {}\n", json["journal_first"].get<uint64_t>());
  }
  return kDone;
}

Result<int> list(const Options& options) {
  auto store = TRY(store::Store::open(Target::parse(options.what).store, store::Access::kRead));
  for (const store::SnapshotRecord& record : TRY(store->catalogue().snapshots())) {
    if (options.json) {
      nlohmann::json json = {{"id", record.id},
                             {"branch", record.branch},
                             {"label", record.label},
                             {"checkpoint", record.checkpoint},
                             {"time", record.time.sec},
                             {"log_index", record.log_index},
                             {"digest", record.digest.to_string()},
                             {"inodes", record.inodes},
                             {"bytes", record.bytes},
                             {"stored_bytes", record.stored_bytes}};
      fmt::print("{}\n", json.dump());
      continue;
    }
    time_t seconds = record.time.sec;
    tm utc{};
    gmtime_r(&seconds, &utc);
    char when[64];
    std::strftime(when, sizeof when, "%Y-%m-%d %H:%M:%SZ", &utc);
    fmt::print("{:>4}  {}  {}@{:<8} {:>8} inodes {:>9}  +{:<9} {}\n", record.id, when, record.branch,
               record.log_index, record.inodes, format_bytes(record.bytes), format_bytes(record.stored_bytes),
               record.checkpoint ? "(checkpoint)" : printable(record.label));
  }
  return kDone;
}

}  // namespace

void add_snapshot(Command& reprise) {
  auto options = std::make_shared<Options>();
  Command command =
      reprise.subcommand("snapshot", "Keep whole states in the store, list them, bring files in and out");
  command.require_subcommand();

  Command creating = command.subcommand("create", "Keep the state as it is now");
  creating.required("store", options->what, "STORE[:BRANCH]");
  creating.option("--label", options->label, "a note to find it by");
  creating.flag("--trim", options->trim, "and drop the journal before it");
  creating.flag("--json", options->json, "what was kept, as JSON");
  creating.does([options] { return create(*options); });

  Command listing = command.subcommand("list", "List the snapshots of a store");
  listing.required("store", options->what, "STORE");
  listing.flag("--json", options->json, "one JSON object a line");
  listing.does([options] { return list(*options); });

  add_import(command);
  add_export(command);
}

}  // namespace reprise::cli

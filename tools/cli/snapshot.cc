// snapshot create, list, show, delete; compact. Import and export are in transfer.cc.
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <ctime>

#include "instance/control.h"
#include "instance/host.h"
#include "instance/snapshots.h"
#include "snapshot/collect.h"
#include "tools/cli/command.h"
#include "tools/cli/progress.h"
#include "tools/cli/target.h"

namespace reprise::cli {
namespace {

constexpr double kDeadShare = 1.0 / 3, kDeadShareByHand = 0.05;

struct Options {
  std::string what, label;
  std::vector<std::string> which;
  bool trim = false, json = false;
};

// --- create

nlohmann::json made_json(const store::SnapshotRecord& record) {
  return {{"id", record.id},         {"log_index", record.log_index}, {"stored_bytes", record.stored_bytes},
          {"inodes", record.inodes}, {"bytes", record.bytes},         {"digest", record.digest.to_string()}};
}

Result<nlohmann::json> create_stopped(const OpenTarget& open, const Options& options) {
  // As a follower would open it: to take a snapshot is not to write, and needs no origin.
  instance::InstanceOptions settings;
  settings.branch = open.target.branch;
  settings.follower = true;
  settings.holder = {getpid(), "reprise snapshot create " + options.what};
  auto instance = TRY(instance::Instance::open(open.store, settings));
  nlohmann::json json = made_json(TRY(instance->snapshot(options.label)));
  if (options.trim) json["journal_first"] = TRY(instance->trim()).first;
  TRY(instance->close());
  return json;
}

// Of a state of the past; beside a live instance or not.
Result<nlohmann::json> create_at(const OpenTarget& open, const Options& options) {
  Progress progress("replaying");
  instance::State state = TRY(open.state(std::ref(progress)));
  store::SnapshotRecord record;
  record.branch = open.target.branch;
  record.label = options.label;
  record.time = system_clock().realtime();
  record.log_index = state.log_index;
  record.vector = state.position.vector.encode();
  record.digest = state.position.digest;
  record.lamport = state.lamport;
  return made_json(TRY(instance::capture_snapshot(*open.store, state.head.view(), record)));
}

Result<int> create(const Options& options) {
  Target target = Target::parse(options.what);
  bool of_the_past = !target.position.empty() && target.position != "head";
  if (!target.path.empty()) {
    return fail(Code::kInvalidArgument,
                fmt::format("{}: expected STORE[:BRANCH][@POSITION], found the path {}", options.what,
                            printable(target.path)));
  }
  if (of_the_past && options.trim) {
    return fail(
        Code::kInvalidArgument,
        fmt::format("{}: expected no position with --trim, which drops what is before now", options.what));
  }
  OpenTarget open = TRY(open_target(target, store::Access::kWrite));
  nlohmann::json question = {{"ask", "snapshot"}, {"label", options.label}};
  if (options.trim) question["trim"] = true;
  nlohmann::json json = of_the_past ? TRY(create_at(open, options))
                        : open.live ? TRY(ask_live(open, question))
                                    : TRY(create_stopped(open, options));
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

// --- list and show

std::string time_text(int64_t seconds) {
  time_t time = seconds;
  tm utc{};
  gmtime_r(&time, &utc);
  char text[64];
  std::strftime(text, sizeof text, "%Y-%m-%d %H:%M:%SZ", &utc);
  return text;
}

int64_t age_of(const store::SnapshotRecord& record) {
  return std::max<int64_t>(system_clock().realtime().sec - record.time.sec, 0);
}

// In the largest unit of which there are two.
std::string age_text(int64_t seconds) {
  if (seconds < 120) return fmt::format("{}s", seconds);
  if (seconds < 2 * 3600) return fmt::format("{}m", seconds / 60);
  if (seconds < 2 * 86400) return fmt::format("{}h", seconds / 3600);
  return fmt::format("{}d", seconds / 86400);
}

Result<std::string> token_of(const store::SnapshotRecord& record) {
  journal::Vector vector = TRY(journal::Vector::decode(record.vector));
  return journal::Position{std::move(vector), record.digest}.to_token();
}

Result<nlohmann::json> record_json(const store::SnapshotRecord& record, const snapshot::Share& share) {
  std::string position = TRY(token_of(record));
  nlohmann::json json = {{"id", record.id},
                         {"branch", record.branch},
                         {"label", record.label},
                         {"checkpoint", record.checkpoint},
                         {"time", record.time.sec},
                         {"age_s", age_of(record)},
                         {"log_index", record.log_index},
                         {"position", position},
                         {"digest", record.digest.to_string()},
                         {"inodes", record.inodes},
                         {"bytes", record.bytes},
                         {"stored_bytes", record.stored_bytes},
                         {"own_bytes", share.own_bytes},
                         {"shared_bytes", share.shared_bytes}};
  if (share.damage) json["damage"] = share.damage->message();
  return json;
}

Result<int> list(const Options& options) {
  auto store = TRY(store::Store::open(Target::parse(options.what).store, store::Access::kRead));
  auto records = TRY(store->catalogue().snapshots());
  auto shares = TRY(snapshot::shares_of(*store, records));
  if (!options.json && !records.empty()) {
    fmt::print("{:>4}  {:>4}  {:<20} {:<16} {:>9} {:>9} {:>9} {:>9}  {}\n", "id", "age", "time", "state",
               "inodes", "bytes", "own", "shared", "label");
  }
  for (size_t i = 0; i < records.size(); ++i) {
    const store::SnapshotRecord& record = records[i];
    if (options.json) {
      fmt::print("{}\n", TRY(record_json(record, shares[i])).dump());
      continue;
    }
    fmt::print(
        "{:>4}  {:>4}  {:<20} {:<16} {:>9} {:>9} {:>9} {:>9}  {}{}\n", record.id, age_text(age_of(record)),
        time_text(record.time.sec), fmt::format("{}@{}", record.branch, record.log_index), record.inodes,
        format_bytes(record.bytes), format_bytes(shares[i].own_bytes), format_bytes(shares[i].shared_bytes),
        record.checkpoint ? "(checkpoint)" : printable(record.label), shares[i].damage ? " (damaged)" : "");
  }
  return kDone;
}

// A snapshot by its number, its label, or @POSITION on the target's branch.
Result<store::SnapshotRecord> find_snapshot(store::Store& store, const Target& target,
                                            const std::string& which) {
  std::optional<LogIndex> at;
  uint64_t number = 0;
  auto [end, error] = std::from_chars(which.data(), which.data() + which.size(), number);
  bool by_number = error == std::errc() && end == which.data() + which.size();
  if (which.starts_with('@')) {
    at = TRY(instance::resolve_position(store, target.branch, which.substr(1), system_clock()));
    if (!at) return fail(Code::kInvalidArgument, which + ": expected the position of a snapshot");
  }
  std::vector<store::SnapshotRecord> found;
  for (store::SnapshotRecord& record : TRY(store.catalogue().snapshots())) {
    bool matches = at          ? record.branch == target.branch && record.log_index == *at
                   : by_number ? record.id == number
                               : !record.checkpoint && record.label == which;
    if (matches) found.push_back(std::move(record));
  }
  if (found.size() == 1) return std::move(found.front());
  if (found.empty()) {
    return fail(Code::kNotFound,
                fmt::format("{}: there is no snapshot {}; `reprise snapshot list` shows those "
                            "there are (a number, a label, or @POSITION)",
                            store.path(), printable(which)));
  }
  std::string numbers;
  for (const store::SnapshotRecord& record : found) numbers += fmt::format(" {}", record.id);
  return fail(Code::kInvalidArgument,
              fmt::format("{}: expected one snapshot {}, found{}: name it by its number", store.path(),
                          printable(which), numbers));
}

Result<int> show(const Options& options) {
  Target target = Target::parse(options.what);
  auto store = TRY(store::Store::open(target.store, store::Access::kRead));
  for (const std::string& which : options.which) {
    auto wanted = TRY(find_snapshot(*store, target, which));
    auto records = TRY(store->catalogue().snapshots());
    auto shares = TRY(snapshot::shares_of(*store, records));
    for (size_t i = 0; i < records.size(); ++i) {
      if (records[i].id != wanted.id) continue;
      nlohmann::json json = TRY(record_json(records[i], shares[i]));
      if (options.json) fmt::print("{}\n", json.dump());
      if (options.json) continue;
      for (auto& [key, value] : json.items())
        fmt::print("{:14} {}\n", key, value.is_string() ? printable(value.get<std::string>()) : value.dump());
    }
  }
  return kDone;
}

// --- delete and compact

Result<nlohmann::json> ask_branch(store::Store& store, const std::string& branch,
                                  const nlohmann::json& question) {
  return instance::ask(system_network(), store.control_socket_path(branch), question, 600'000);
}

// Whether it is gone; else it stays as a checkpoint.
Result<bool> delete_one(store::Store& store, const store::SnapshotRecord& record) {
  if (TRY(store.lock_holder(record.branch))) {
    auto answer = TRY(ask_branch(store, record.branch, {{"ask", "drop-snapshot"}, {"id", record.id}}));
    return answer["dropped"].get<bool>();
  }
  auto lock = TRY(store.lock_branch(record.branch, {getpid(), "reprise snapshot delete"}));
  instance::History history = TRY(instance::History::open(store, record.branch));
  return instance::drop_snapshot(store, record, history.cursor().first());
}

Result<nlohmann::json> collect(store::Store& store, const std::string& branch, double dead_share) {
  // A live instance can also collect what it is writing.
  if (TRY(store.lock_holder(branch)))
    return ask_branch(store, branch, {{"ask", "collect"}, {"dead_share", dead_share}});
  return instance::collected_json(TRY(snapshot::collect(store, dead_share)));
}

void print_collected(const nlohmann::json& json) {
  fmt::print("packs: {} before, {} now; {} blobs dropped, {} packs removed, {} copied together\n",
             format_bytes(json["bytes_before"].get<uint64_t>()),
             format_bytes(json["bytes_after"].get<uint64_t>()), json["blobs_dropped"].get<uint64_t>(),
             json["packs_removed"].get<uint64_t>(), json["packs_rewritten"].get<uint64_t>());
  if (auto in_use = json["packs_in_use"].get<uint64_t>(); in_use > 0)
    fmt::print("{} packs are being written by live instances and were left alone\n", in_use);
  if (json.contains("left"))
    fmt::print("a pack stays as it is: {}\n", printable(json["left"].get<std::string>()));
}

Result<int> delete_snapshots(const Options& options) {
  Target target = Target::parse(options.what);
  TRY(target.check_branch());
  auto store = TRY(store::Store::open(target.store));
  std::vector<store::SnapshotRecord> records;  // all of them are there, before one goes
  for (const std::string& which : options.which) {
    records.push_back(TRY(find_snapshot(*store, target, which)));
    auto same = [&](const store::SnapshotRecord& record) { return record.id == records.back().id; };
    if (std::count_if(records.begin(), records.end(), same) > 1) records.pop_back();
  }
  nlohmann::json json = {{"deleted", nlohmann::json::array()},
                         {"kept_as_checkpoint", nlohmann::json::array()}};
  for (const store::SnapshotRecord& record : records) {
    bool gone = TRY(delete_one(*store, record));
    json[gone ? "deleted" : "kept_as_checkpoint"].push_back(record.id);
    if (options.json) continue;
    if (gone) fmt::print("snapshot {} is deleted\n", record.id);
    if (!gone) {
      fmt::print(
          "snapshot {} stays as a checkpoint: branch {} is opened from it; it goes when another takes "
          "its place\n",
          record.id, record.branch);
    }
  }
  json["collected"] = TRY(collect(*store, target.branch, kDeadShare));
  if (options.json) fmt::print("{}\n", json.dump());
  if (!options.json) print_collected(json["collected"]);
  return kDone;
}

Result<int> compact(const Options& options) {
  OpenTarget open = TRY(open_target(Target::parse(options.what), store::Access::kWrite));
  nlohmann::json json = TRY(collect(*open.store, open.target.branch, kDeadShareByHand));
  if (options.json) fmt::print("{}\n", json.dump());
  if (!options.json) print_collected(json);
  return kDone;
}

}  // namespace

void add_snapshot(Command& reprise) {
  auto options = std::make_shared<Options>();
  Command command =
      reprise.subcommand("snapshot", "Keep whole states in the store, list them, bring files in and out");
  command.require_subcommand();

  Command creating = command.subcommand("create", "Keep the state as it is now, or was");
  creating.required("store", options->what, "STORE[:BRANCH][@POSITION]");
  creating.option("--label", options->label,
                  "a note to find it by; what has one is kept until it is deleted");
  creating.flag("--trim", options->trim, "and drop the journal before it");
  creating.flag("--json", options->json, "what was kept, as JSON");
  creating.does([options] { return create(*options); });

  Command listing = command.subcommand("list", "List the snapshots of a store, and what each takes in it");
  listing.required("store", options->what, "STORE");
  listing.flag("--json", options->json, "one JSON object a line");
  listing.does([options] { return list(*options); });

  Command showing = command.subcommand("show", "Say all about a snapshot");
  showing.required("store", options->what, "STORE[:BRANCH]");
  showing.required("snapshot", options->which, "its number, its label, or @POSITION");
  showing.flag("--json", options->json, "one JSON object a line");
  showing.does([options] { return show(*options); });

  Command deleting = command.subcommand("delete", "Delete snapshots, and free what no other one needs");
  deleting.required("store", options->what, "STORE[:BRANCH]");
  deleting.required("snapshot", options->which, "its number, its label, or @POSITION");
  deleting.flag("--json", options->json, "what was done, as JSON");
  deleting.does([options] { return delete_snapshots(*options); });

  add_import(command);
  add_export(command);
}

void add_compact(Command& reprise) {
  auto options = std::make_shared<Options>();
  Command command = reprise.subcommand("compact", "Free what no snapshot needs any more; live or not");
  command.required("store", options->what, "STORE[:BRANCH]");
  command.flag("--json", options->json, "what was done, as JSON");
  command.does([options] { return compact(*options); });
}

}  // namespace reprise::cli

// mark, wait-for, stat: asked of the live instance where there is one, else of the store.
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>

#include "instance/control.h"
#include "instance/host.h"
#include "instance/instance.h"
#include "tools/cli/command.h"
#include "tools/cli/progress.h"
#include "tools/cli/target.h"

namespace reprise::cli {
namespace {

struct Options {
  std::string what;
  std::string name;
  std::vector<std::string> peers;
  bool synced = false;
  double timeout_s = 30;
  bool json = false;
};

instance::InstanceOptions instance_options(const Target& target, bool follower, const std::string& command) {
  instance::InstanceOptions options;
  options.branch = target.branch;
  options.follower = follower;
  options.holder = {getpid(), command};
  return options;
}

void print_mark(const nlohmann::json& mark, bool json) {
  fmt::print("{}\n", json ? mark.dump() : mark["position"].get<std::string>());
}

Result<int> mark(const Options& options) {
  TRY(store::Store::check_name("mark", options.name));  // before anything is opened for writing
  OpenTarget open = TRY(open_target(Target::parse(options.what), store::Access::kWrite));
  if (open.live) {
    print_mark(TRY(ask_live(open, {{"ask", "mark"}, {"name", options.name}})), options.json);
    return kDone;
  }
  auto instance = TRY(instance::Instance::open(
      open.store, instance_options(open.target, false, "reprise mark " + options.what)));
  store::MarkRecord record = TRY(instance->mark(options.name, ""));
  TRY(instance->close());
  print_mark({{"name", record.name},
              {"branch", record.branch},
              {"log_index", record.log_index},
              {"position", record.token}},
             options.json);
  return kDone;
}

// The store of a follower that has not met its leader yet does not exist: wait for it as well.
Result<OpenTarget> open_when_there(const Target& target, uint64_t deadline_ns) {
  for (;;) {
    auto open = open_target(target);
    if (open && open->live) return open;
    bool may_come = open || open.error().code() == Code::kUnreachable ||
                    (open.error().code() == Code::kNotFound && store::Store::check_new(target.store));
    if (!may_come || system_clock().monotonic_ns() > deadline_ns) return open;
    if (open && TRY(open->store->lock_holder(target.branch)) == std::nullopt) return open;
    system_clock().sleep_ns(20'000'000);
  }
}

// Nothing in particular, what has been trimmed, and what the journal holds, has been reached.
Result<bool> has_batch(const OpenTarget& open, std::optional<LogIndex> index) {
  if (!index || *index == 0) return true;
  auto history = instance::History::open(*open.store, open.target.branch, *index);
  if (!history && history.error().code() == Code::kGap) return true;
  if (!history) return std::unexpected(history.error());
  return TRY(history->cursor().next()).has_value();
}

Result<int> wait_for(const Options& options) {
  Target target = Target::parse(options.what);
  uint64_t begin_ns = system_clock().monotonic_ns();
  auto timeout_ms = static_cast<uint64_t>(options.timeout_s * 1000);
  OpenTarget open = TRY(open_when_there(target, begin_ns + timeout_ms * 1'000'000));
  bool token = options.name.starts_with("r0.");
  if (!open.live) {
    // Nobody will get there; but it may have been reached already.
    if (TRY(open.store->catalogue().mark(target.branch, options.name))) return kDone;
    auto wanted = instance::resolve_position(*open.store, target.branch, options.name, system_clock());
    if (!wanted && wanted.error().code() != Code::kNotFound) return std::unexpected(wanted.error());
    if (wanted && TRY(has_batch(open, *wanted))) return kDone;
    complain(fmt::format("{}, and no instance is live that could get there",
                         wanted ? fmt::format("{}: log index {} was not reached", target.store, **wanted)
                                : wanted.error().message()));
    return kNo;
  }
  uint64_t passed_ms = (system_clock().monotonic_ns() - begin_ns) / 1'000'000;
  nlohmann::json question = {{"ask", "wait-for"},
                             {token ? "position" : "mark", options.name},
                             {"timeout_ms", timeout_ms > passed_ms ? timeout_ms - passed_ms : 0}};
  auto answer =
      ask_live(open, question, static_cast<uint32_t>(std::min<uint64_t>(timeout_ms + 10'000, 0x7fffffff)));
  if (!answer && answer.error().code() == Code::kTimeout) {
    complain(answer.error().message());
    return kNo;
  }
  if (!answer) return std::unexpected(answer.error());
  if (options.json) fmt::print("{}\n", answer->dump());
  return kDone;
}

// A number of peers, or the names of some.
Result<nlohmann::json> flush_question(const Options& options) {
  nlohmann::json question = {{"ask", "flush"}, {"synced", options.synced}};
  question["timeout_ms"] = static_cast<uint64_t>(options.timeout_s * 1000);
  if (options.peers.empty()) return question;
  const std::string& first = options.peers.front();
  uint64_t count = 0;
  const char* end = first.data() + first.size();
  auto [rest, error] = std::from_chars(first.data(), end, count);
  bool is_number = error == std::errc() && rest == end;
  if (is_number && (count == 0 || options.peers.size() > 1)) {
    return fail(Code::kInvalidArgument,
                fmt::format("--peers {}: expected one number, at least 1, or names", printable(first)));
  }
  for (const std::string& name : options.peers)
    if (!is_number) TRY(store::Store::check_name("peer", name));
  if (is_number) {
    question["count"] = count;
  } else {
    question["names"] = options.peers;
  }
  return question;
}

Result<int> flush(const Options& options) {
  nlohmann::json question = TRY(flush_question(options));
  OpenTarget open = TRY(open_target(Target::parse(options.what)));
  if (!open.live) {
    complain(
        fmt::format("{}: branch {} is not live: nobody follows it", open.target.store, open.target.branch));
    return kNo;
  }
  auto wait_ms = static_cast<uint32_t>(std::min(options.timeout_s * 1000 + 10'000, 2e9));
  auto answer = ask_live(open, question, wait_ms);
  if (!answer && (answer.error().code() == Code::kTimeout || answer.error().code() == Code::kNotFound)) {
    complain(answer.error().message());
    return kNo;
  }
  if (!answer) return std::unexpected(answer.error());
  fmt::print("{}\n", options.json ? answer->dump() : (*answer)["position"].get<std::string>());
  return kDone;
}

Result<nlohmann::json> stat_stopped(const OpenTarget& open) {
  Progress progress("replaying");
  instance::State state = TRY(open.state(std::ref(progress)));
  fs::Usage usage = state.head.usage();
  std::string token = TRY(instance::token_of(*open.store, open.target.branch, state));
  nlohmann::json json = {{"volume", open.store->volume().to_string()},
                         {"branch", open.target.branch},
                         {"role", "stopped"},
                         {"inodes", usage.inodes},
                         {"bytes", usage.blocks * fs::kBlockSize},
                         {"position", token},
                         {"digest", state.position.digest.to_string()}};
  instance::History history = TRY(instance::History::open(*open.store, open.target.branch));
  json["disk"] = instance::disk_json(*open.store, 0);
  json["journal"] = {{"first", history.cursor().first()}, {"last", state.log_index}};
  auto directory = TRY(open.store->journal_directory(open.target.branch));
  journal::JournalFiles files =
      TRY(journal::journal_files(*directory, {open.store->volume(), open.target.branch}));
  json["journal"]["segments"] = files.segments.size();
  json["journal"]["compressed_segments"] = files.compressed;
  json["journal"]["bytes_on_disk"] = files.bytes;
  if (state.torn_tail) json["torn_tail"] = state.torn_tail->message();
  return json;
}

Result<nlohmann::json> stat_live(const OpenTarget& open) {
  auto answer = ask_live(open, {{"ask", "stat"}});
  if (answer || answer.error().code() != Code::kPermission) return answer;
  complain(fmt::format("{}; what it has not written yet is not shown", answer.error().message()));
  return stat_stopped(open);
}

void print_flat(const nlohmann::json& json, const std::string& prefix) {
  for (auto& [key, value] : json.items()) {
    std::string name = prefix.empty() ? key : fmt::format("{}.{}", prefix, key);
    if (value.is_object() || value.is_array()) {
      print_flat(value, name);
    } else {
      fmt::print("{:32} {}\n", name, value.is_string() ? printable(value.get<std::string>()) : value.dump());
    }
  }
}

Result<int> stat(const Options& options) {
  OpenTarget open = TRY(open_target_to_ask(Target::parse(options.what)));
  nlohmann::json json = open.live ? TRY(stat_live(open)) : TRY(stat_stopped(open));
  json["store"] = open.target.store;
  if (open.live) json["live"] = {{"pid", open.live->pid}, {"command", open.live->command}};
  json["snapshots"] = TRY(open.store->catalogue().snapshots()).size();
  json["marks"] = TRY(open.store->catalogue().marks()).size();
  if (options.json) {
    fmt::print("{}\n", json.dump(2));
  } else {
    print_flat(json, "");
  }
  return kDone;
}

}  // namespace

void add_mark(Command& reprise) {
  auto options = std::make_shared<Options>();
  Command command = reprise.subcommand(
      "mark", "Put a mark into the history, or move it here; prints its position as a token");
  command.required("store", options->what, "STORE[:BRANCH]");
  command.required("name", options->name, "a letter or _, then letters, digits, _ . -");
  command.flag("--json", options->json, "name, log index and position as JSON");
  command.does([options] { return mark(*options); });
}

void add_wait_for(Command& reprise) {
  auto options = std::make_shared<Options>();
  Command command = reprise.subcommand(
      "wait-for", "Wait until a mark or position has been applied; exit 1 if it was not in time");
  command.required("store", options->what, "STORE[:BRANCH]");
  command.required("position", options->name, "a mark, or a token of `mark` or `stat`");
  command.number("--timeout", options->timeout_s, 0, 1e6, "seconds");
  command.flag("--json", options->json, "what was reached, as JSON");
  command.does([options] { return wait_for(*options); });
}

void add_flush(Command& reprise) {
  auto options = std::make_shared<Options>();
  Command command = reprise.subcommand("flush",
                                       "Wait until peers have applied what has been written so far; prints "
                                       "that position. Exit 1 if they have not "
                                       "in time, or nobody follows; 3 at once if a peer has gone for good");
  command.required("store", options->what, "STORE[:BRANCH]");
  command.options(
      "--peers", options->peers,
      "how many peers, or the name of one, which may be given again (default: all that are connected)");
  command.flag("--synced", options->synced, "and have it on their disks");
  command.number("--timeout", options->timeout_s, 0, 1e6, "seconds");
  command.flag("--json", options->json, "the position and who has it, as JSON");
  command.does([options] { return flush(*options); });
}

void add_stat(Command& reprise) {
  auto options = std::make_shared<Options>();
  Command command =
      reprise.subcommand("stat", "Say what a store holds and, if an instance is live, how it does");
  command.required("store", options->what, "STORE[:BRANCH]");
  command.flag("--json", options->json, "as JSON");
  command.does([options] { return stat(*options); });
}

}  // namespace reprise::cli

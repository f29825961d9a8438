// log: the operations of a journal, one a line.
#include <fmt/format.h>
#include <fnmatch.h>

#include <algorithm>
#include <ctime>
#include <filesystem>

#include "instance/path_index.h"
#include "instance/snapshots.h"
#include "journal/segment_reader.h"
#include "tools/cli/command.h"
#include "tools/cli/target.h"

namespace reprise::cli {
namespace {

struct Options {
  std::vector<std::string> what;
  std::string path, origin, label, since, until;
  bool json = false;
};

// What is shown of one operation.
struct Line {
  std::string path, path_to;
  nlohmann::json detail = nlohmann::json::object();
};

Line describe(const fs::Operation& operation, const instance::PathIndex& paths) {
  Line line;
  std::visit(
      [&](const auto& op) {
        using Op = std::decay_t<decltype(op)>;
        if constexpr (std::is_same_v<Op, fs::Rename>) {
          line.path = paths.path_of(op.old_parent, op.old_name);
          line.path_to = paths.path_of(op.new_parent, op.new_name);
          if (op.exchange) line.detail["exchange"] = true;
        } else if constexpr (std::is_same_v<Op, fs::CopyRange>) {
          line.path = paths.path_of(op.from);
          line.path_to = paths.path_of(op.to);
          line.detail = {{"from_offset", op.from_offset}, {"to_offset", op.to_offset}, {"length", op.length}};
        } else if constexpr (requires { op.parent; }) {
          line.path = paths.path_of(op.parent, op.name);
        } else if constexpr (requires { op.inode; }) {
          line.path = paths.path_of(op.inode);
        }
        if constexpr (std::is_same_v<Op, fs::Create>) {
          line.detail = {{"mode", fmt::format("{:o}", op.mode)}};
          if (!op.target.empty()) line.detail["target"] = printable(op.target);
        }
        if constexpr (std::is_same_v<Op, fs::Write>)
          line.detail = {{"offset", op.offset}, {"length", op.data.size()}};
        if constexpr (std::is_same_v<Op, fs::Truncate>) line.detail = {{"size", op.size}};
        if constexpr (std::is_same_v<Op, fs::Allocate>)
          line.detail = {{"offset", op.offset}, {"length", op.length}};
        if constexpr (std::is_same_v<Op, fs::SetAttributes>) {
          if ((op.mask & op.kMode) != 0) line.detail["mode"] = fmt::format("{:o}", op.mode);
          if ((op.mask & op.kUid) != 0) line.detail["uid"] = op.uid;
          if ((op.mask & op.kGid) != 0) line.detail["gid"] = op.gid;
          if ((op.mask & op.kMtime) != 0) line.detail["mtime"] = op.mtime.sec;
        }
        if constexpr (std::is_same_v<Op, fs::SetXattr> || std::is_same_v<Op, fs::RemoveXattr>) {
          line.detail = {{"name", printable(op.name)}};
        }
        if constexpr (std::is_same_v<Op, fs::Barrier>) line.detail = {{"mark", printable(op.name)}};
        if constexpr (std::is_same_v<Op, fs::ClaimPrefix>) line.detail = {{"prefix", op.prefix}};
      },
      operation);
  return line;
}

std::string time_text(Timestamp time) {
  time_t seconds = time.sec;
  tm utc{};
  if (gmtime_r(&seconds, &utc) == nullptr) return fmt::format("@{}", time.sec);
  char text[64];
  std::strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%S", &utc);
  return fmt::format("{}.{:03}Z", text, time.nsec / 1'000'000);
}

class Printer {
 public:
  Printer(const Options& options, instance::PathIndex paths) : options_(options), paths_(std::move(paths)) {}

  void print(const journal::Logged& logged, bool within) {
    const journal::BatchHeader& header = logged.batch.header();
    bool wanted = within &&
                  (options_.origin.empty() || header.origin.to_string().starts_with(options_.origin)) &&
                  (options_.label.empty() || header.label == options_.label);
    logged.batch.for_each([&](const fs::Operation& operation) {
      if (wanted) print(logged, operation);
      paths_.follow(operation);
    });
  }

 private:
  bool matches(const std::string& path) const {
    return options_.path.empty() || fnmatch(options_.path.c_str(), path.c_str(), 0) == 0;
  }

  void print(const journal::Logged& logged, const fs::Operation& operation) {
    Line line = describe(operation, paths_);
    if (!matches(line.path) && !matches(line.path_to)) return;
    const journal::BatchHeader& header = logged.batch.header();
    if (options_.json) {
      nlohmann::json json = {{"log_index", logged.index},
                             {"origin", header.origin.to_string()},
                             {"lsn", header.lsn},
                             {"lamport", header.lamport},
                             {"time", time_text(header.time)},
                             {"label", printable(header.label)},
                             {"operation", fs::operation_name(operation)}};
      if (!line.path.empty()) json["path"] = line.path;
      if (!line.path_to.empty()) json["path_to"] = line.path_to;
      json.update(line.detail);
      fmt::print("{}\n", json.dump());
      return;
    }
    std::string detail;
    for (auto& [key, value] : line.detail.items()) {
      detail += fmt::format(" {}={}", key, value.is_string() ? value.get<std::string>() : value.dump());
    }
    fmt::print("{:>7} {}#{:<6} {} {:14} {}{}{}{}{}\n", logged.index, header.origin.to_short_string(),
               header.lsn, time_text(header.time), fs::operation_name(operation), line.path,
               line.path_to.empty() ? "" : " -> ", line.path_to, detail,
               header.label.empty() ? "" : fmt::format("  [{}]", printable(header.label)));
  }

  const Options& options_;
  instance::PathIndex paths_;
};

// What inodes are called before batch `first`, with which the journal begins: as a snapshot of that moment
// says, or one of a later moment and the operations in between.
Result<instance::PathIndex> names_before(OpenTarget& open, LogIndex first) {
  if (first <= 1) return instance::PathIndex();
  auto state = instance::state_at(*open.store, open.target.branch, first - 1);
  if (state) return instance::PathIndex(state->head);
  if (state.error().code() != Code::kGap) return std::unexpected(state.error());
  std::optional<store::SnapshotRecord> base;
  for (store::SnapshotRecord& record : TRY(open.store->catalogue().snapshots())) {
    bool nearer = !base || record.log_index < base->log_index;
    if (record.branch == open.target.branch && record.log_index >= first && nearer) base = std::move(record);
  }
  if (!base) return instance::PathIndex();
  instance::PathIndex paths(TRY(instance::load_snapshot(*open.store, *base)));
  // Whole segments are trimmed: not much more than one lies between.
  std::vector<journal::Batch> between;
  instance::History history = TRY(instance::History::open(*open.store, open.target.branch));
  while (auto logged = TRY(history.cursor().next())) {
    if (logged->index > base->log_index) break;
    between.push_back(std::move(logged->batch));
  }
  for (auto batch = between.rbegin(); batch != between.rend(); ++batch) {
    std::vector<fs::Operation> operations;
    batch->for_each([&](const fs::Operation& operation) { operations.push_back(operation); });
    for (auto operation = operations.rbegin(); operation != operations.rend(); ++operation)
      paths.undo(*operation);
  }
  return paths;
}

Result<int> log_store(const Options& options) {
  OpenTarget open = TRY(open_target(Target::parse(options.what.front())));
  auto resolve = [&](const std::string& position) {
    return instance::resolve_position(*open.store, open.target.branch, position, system_clock());
  };
  LogIndex since = options.since.empty() ? 0 : TRY(resolve(options.since)).value_or(~LogIndex{0});
  std::optional<LogIndex> until = TRY(resolve(options.until.empty() ? open.target.position : options.until));
  instance::History history = TRY(instance::History::open(*open.store, open.target.branch));
  LogIndex first = history.cursor().first();
  instance::PathIndex paths = TRY(names_before(open, first));
  if (first > 1) {
    complain(fmt::format("{}: history begins at batch {}; {}", options.what.front(), first,
                         history.cursor().begins_anew() ? "a snapshot stands for what was before"
                                                        : "what was before has been trimmed"));
  }
  Printer printer(options, std::move(paths));
  LogIndex last = first - 1;
  while (auto logged = TRY(history.cursor().next())) {
    if (until && logged->index > *until) break;
    last = logged->index;
    printer.print(*logged, logged->index > since);
  }
  if (auto& torn = history.cursor().torn_tail()) complain("the log ends in a torn tail: " + torn->message());
  if (until && *until > last) {
    return fail(Code::kNotFound, fmt::format("{}: branch {} has no batch {}; its last is {}",
                                             open.target.store, open.target.branch, *until, last));
  }
  return kDone;
}

Result<int> log_segments(const Options& options) {
  if (!options.since.empty() || !options.until.empty()) {
    return fail(Code::kInvalidArgument,
                "--since and --until need a store: single segments have no marks or branches");
  }
  Printer printer(options, instance::PathIndex());
  for (const std::string& path : options.what) {
    size_t slash = path.rfind('/');
    auto directory = TRY(
        open_host_directory(slash == std::string::npos ? "." : path.substr(0, std::max<size_t>(slash, 1))));
    auto file =
        TRY(directory->open(slash == std::string::npos ? path : path.substr(slash + 1), OpenMode::kRead));
    auto reader = TRY(journal::open_segment(std::move(file)));
    while (auto frame = TRY(reader->next())) {
      if (!frame->is_batch()) continue;
      journal::Batch batch = TRY(reader->batch(*frame));
      printer.print({frame->header.index, std::move(batch)}, true);
    }
  }
  return kDone;
}

Result<int> log(const Options& options) {
  std::error_code ignored;
  if (std::filesystem::is_regular_file(options.what.front(), ignored)) return log_segments(options);
  if (options.what.size() > 1) return fail(Code::kInvalidArgument, "expected one store, or segment files");
  return log_store(options);
}

}  // namespace

void add_log(Command& reprise) {
  auto options = std::make_shared<Options>();
  Command command = reprise.subcommand("log", "Print the operations of a journal, oldest first");
  command.required("store", options->what, "STORE[:BRANCH][@POSITION], or segment files");
  command.option("--path", options->path,
                 "only what touches paths that match this glob ('*' matches '/' too)");
  command.option("--origin", options->origin, "only this origin; the beginning of its id is enough",
                 [](const std::string& origin) {
                   bool good = !origin.empty() && origin.size() <= 32 &&
                               origin.find_first_not_of("0123456789abcdef") == std::string::npos;
                   return good ? "" : "expected 1 to 32 of the digits 0 to 9 and a to f";
                 });
  command.option("--label", options->label, "only what was recorded under this label");
  command.option("--since", options->since, "only what came after this position");
  command.option("--until", options->until, "only up to this position");
  command.flag("--json", options->json, "one JSON object a line");
  command.does([options] { return log(*options); });
}

}  // namespace reprise::cli

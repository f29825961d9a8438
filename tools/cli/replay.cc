// replay: a journal applied from its beginning, and put into a directory or an archive.
#include <fmt/format.h>

#include <algorithm>
#include <filesystem>

#include "instance/snapshots.h"
#include "journal/segment_reader.h"
#include "tools/cli/command.h"
#include "tools/cli/exported.h"
#include "tools/cli/progress.h"
#include "tools/cli/target.h"

namespace reprise::cli {
namespace {

struct Options {
  std::vector<std::string> what;
  std::string onto, until;
  bool json = false;
  ExportSettings settings;
};

struct Replayed {
  fs::Head head = fs::Head::create(Timestamp{});
  replay::ReplayProgress progress;
  uint64_t snapshot = 0;  // that it began with
  uint64_t nanoseconds = 0;
};

// Segment files, in the order given, as one journal.
class SegmentFiles final : public journal::Cursor {
 public:
  static Result<SegmentFiles> open(const std::vector<std::string>& paths) {
    SegmentFiles files;
    for (const std::string& path : paths) {
      size_t slash = path.rfind('/');
      auto directory = TRY(
          open_host_directory(slash == std::string::npos ? "." : path.substr(0, std::max<size_t>(slash, 1))));
      auto file =
          TRY(directory->open(slash == std::string::npos ? path : path.substr(slash + 1), OpenMode::kRead));
      files.readers_.push_back(TRY(journal::open_segment(std::move(file))));
    }
    return files;
  }
  Result<std::optional<journal::Logged>> next() override {
    while (!readers_.empty()) {
      auto frame = TRY(readers_.front()->next());
      if (!frame) {
        readers_.erase(readers_.begin());
      } else if (frame->is_batch()) {
        journal::Batch batch = TRY(readers_.front()->batch(*frame));
        return journal::Logged{frame->header.index, std::move(batch)};
      }
    }
    return std::nullopt;
  }
  bool wait(uint32_t) override { return false; }

 private:
  std::vector<std::unique_ptr<journal::SegmentReader>> readers_;
};

Result<Replayed> replay_segments(const Options& options) {
  if (!options.until.empty())
    return fail(Code::kInvalidArgument, "--until needs a store: single segments have no marks or branches");
  SegmentFiles files = TRY(SegmentFiles::open(options.what));
  Replayed replayed;
  Progress progress("replaying");
  replay::Replayer replayer;
  replayed.progress =
      TRY(replayer.replay(files, replayed.head, replay::Replayer::kToEnd, std::ref(progress)));
  return replayed;
}

Result<Replayed> replay_store(const Options& options) {
  Target target = Target::parse(options.what.front());
  if (!options.until.empty()) target.position = options.until;
  OpenTarget open = TRY(open_target(target));
  auto until = TRY(instance::resolve_position(*open.store, target.branch, target.position, system_clock()));
  instance::History history = TRY(instance::History::open(*open.store, target.branch));
  Progress progress("replaying");
  Replayed replayed;
  if (history.cursor().first() <= 1) {
    replay::Replayer replayer;
    replayed.progress = TRY(replayer.replay(history.cursor(), replayed.head,
                                            until.value_or(replay::Replayer::kToEnd), std::ref(progress)));
    if (until && replayed.progress.log_index < *until) {
      return fail(Code::kNotFound, fmt::format("{}: branch {} has no batch {}; its last is {}", target.store,
                                               target.branch, *until, replayed.progress.log_index));
    }
    return replayed;
  }
  // The beginning has been trimmed: the snapshot that stands for it comes first.
  instance::State state = TRY(instance::state_at(*open.store, target.branch, until, std::ref(progress)));
  replayed.head = std::move(state.head);
  replayed.progress = state.replayed;
  replayed.snapshot = state.snapshot;
  return replayed;
}

Result<int> replay(const Options& options) {
  Destination destination = TRY(Destination::parse(options.onto));
  uint64_t begin_ns = system_clock().monotonic_ns();
  std::error_code ignored;
  bool segments = std::filesystem::is_regular_file(options.what.front(), ignored);
  if (!segments && options.what.size() > 1)
    return fail(Code::kInvalidArgument, "expected one store, or segment files");
  Replayed replayed = segments ? TRY(replay_segments(options)) : TRY(replay_store(options));
  replayed.nanoseconds = system_clock().monotonic_ns() - begin_ns;
  auto exported = TRY(destination.write(replayed.head, kRootInode, options.settings));
  double seconds = static_cast<double>(replayed.nanoseconds) / 1e9;
  if (options.json) {
    nlohmann::json json = {{"operations", replayed.progress.operations},
                           {"batches", replayed.progress.batches},
                           {"bytes", replayed.progress.bytes},
                           {"snapshot", replayed.snapshot},
                           {"replay_seconds", seconds},
                           {"entries", entries_of(exported)},
                           {"digest", replayed.head.recompute_digest().to_string()}};
    fmt::print(destination.report(), "{}\n", json.dump());
  } else {
    fmt::print(destination.report(), "replayed {} operations, {}, in {:.3f} s{}; {} entries in {}\n",
               replayed.progress.operations, format_bytes(replayed.progress.bytes), seconds,
               replayed.snapshot != 0 ? fmt::format(" on top of snapshot {}", replayed.snapshot) : "",
               entries_of(exported), destination.shown());
  }
  return kDone;
}

}  // namespace

void add_replay(Command& reprise) {
  auto options = std::make_shared<Options>();
  Command command = reprise.subcommand(
      "replay",
      "Apply a recorded journal from its beginning and put the result into a directory, a ZIP or a tar");
  command.required("store", options->what, "STORE[:BRANCH], or segment files in order");
  command.required("--onto", options->onto, kDestinationHelp);
  command.option("--until", options->until, "up to this position");
  add_export_settings(command, options->settings);
  command.flag("--json", options->json, "what was done, as JSON");
  command.does([options] { return replay(*options); });
}

}  // namespace reprise::cli

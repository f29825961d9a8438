// run: a command in an instance of its own.
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <optional>

#include "adapters/fuse/mount.h"
#include "base/file_lock.h"
#include "tools/cli/command.h"
#include "tools/cli/overlay.h"
#include "tools/cli/serve_live.h"

namespace reprise::cli {
namespace {

struct Options {
  LiveOptions live;
  std::string at, from;
  std::vector<std::string> command;
};

// A mountpoint inside the store, made together with the store's folder; on destruction what was made goes
// again if it is empty: a run that never began leaves nothing behind. So does a mountpoint that a killed run
// left. Somebody else's run may want the same folder meanwhile, and removing a folder takes away what is
// mounted on it: whoever uses it has it locked.
class Mountpoint {
 public:
  static Result<Mountpoint> make(const std::string& store, const std::string& at) {
    Mountpoint mountpoint;
    if (!at.empty()) {
      mountpoint.path_ = at;
      return mountpoint;
    }
    // Anything else is refused by Store::open with its own words; do not put a folder into it.
    if (!store::Store::looks_like_store(store) && !store::Store::check_new(store)) {
      TRY(store::Store::open(store));
    }
    mountpoint.path_ = store + "/mnt";
    // A run that fails may remove the store's folder, or mnt, between two of these steps.
    for (;;) {
      TRY(mountpoint.make_folder(store));
      auto made = mountpoint.make_folder(mountpoint.path_);
      if (made && mountpoint.made_.empty()) mountpoint.made_.push_back(mountpoint.path_);
      auto in_use = made ? DirectoryLock::share(mountpoint.path_)
                         : Result<DirectoryLock>(std::unexpected(made.error()));
      if (in_use) {
        mountpoint.in_use_.emplace(std::move(*in_use));
        return mountpoint;
      }
      if (in_use.error().code() != Code::kNotFound) return std::unexpected(in_use.error());
      mountpoint.made_.clear();
    }
  }
  Mountpoint() = default;
  Mountpoint(Mountpoint&&) = default;
  ~Mountpoint() {
    if (made_.empty() || !in_use_ || !in_use_->try_exclusive()) return;
    for (auto part = made_.rbegin(); part != made_.rend(); ++part) ::rmdir(part->c_str());
  }

  const std::string& path() const { return path_; }

 private:
  Status make_folder(const std::string& path) {
    if (::mkdir(path.c_str(), 0755) == 0) {
      made_.push_back(path);
    } else if (errno != EEXIST) {
      int code = errno;
      return std::unexpected(Error::from_errno(code, path + ": cannot create"));
    }
    struct stat st, led_to;
    const bool is_link = ::lstat(path.c_str(), &st) == 0 && S_ISLNK(st.st_mode);
    if (is_link && ::stat(path.c_str(), &led_to) != 0)
      return fail(Code::kInvalidArgument,
                  path + ": expected a directory, found a symlink that leads nowhere");
    return {};
  }

  std::string path_;
  std::vector<std::string> made_;
  std::optional<DirectoryLock> in_use_;
};

std::string command_line(const Options& options) {
  std::string line = "reprise run --store " + options.live.store + " --";
  for (const std::string& word : options.command) line += " " + word;
  return line;
}

Result<int> run_in_store(const Options& options, OverlayRun* overlay) {
  Target target = TRY(live_target(options.live.store, "--store"));
  instance::HostOptions settings = TRY(host_options(options.live, target, command_line(options)));
  if (!options.at.empty()) TRY(check_apart(target, options.at));
  Mountpoint mountpoint = TRY(Mountpoint::make(target.store, options.at));
  std::error_code ignored;
  std::string mount_path = std::filesystem::absolute(mountpoint.path(), ignored).string();
  fuse::LaunchOptions launch_options{.command = options.command,
                                     .mountpoint = mount_path,
                                     .environment = {{"REPRISE_STORE", full_name(target)}},
                                     .read_only = settings.follow.has_value()};
  auto launch = TRY(fuse::Launch::prepare(std::move(launch_options)));
  if (overlay != nullptr) TRY(overlay->begin());
  ServedMount mount{.fuse_fd = launch->take_fuse_fd(),
                    .owner = launch->owner(),
                    .path = mount_path,
                    .seen_by = launch->pid()};
  return serve_live(settings, std::move(mount), [&](fuse::Server& server) {
    auto running = launch->start();
    int status = launch->wait();
    if (!running) {
      complain(running.error().message());
      return status;
    }
    auto written = launch->sync();
    if (!written) complain(written.error().message());
    if (!server.drain(kDrain_ms)) complain(kStillWriting);
    return written || status != 0 ? status : fuse::Launch::kOwnFailure;
  });
}

Result<int> run_over(Options options, OverlayRun& overlay) {
  if (options.live.store.empty()) options.live.store = overlay.store();
  if (options.at.empty()) options.at = overlay.directory();
  if (!options.live.listen.empty() || !options.live.follow.empty())
    return fail(Code::kInvalidArgument,
                "--from: expected no --listen and no --follow: an overlay rests on a directory of this host");
  Target target = TRY(live_target(options.live.store, "--store"));
  auto status = run_in_store(options, &overlay);
  if (!status) return status;
  if (auto said = overlay.end(target); !said) complain(said.error().message());
  return status;
}

Result<int> run_command(Options options) {
  if (options.from.empty() && options.live.store.empty())
    return fail(Code::kInvalidArgument, "expected --store STORE[:BRANCH] or --from DIR");
  if (options.from.empty()) {
    auto directory = TRY(rests_on(Target::parse(options.live.store).store));
    if (!directory) return run_in_store(options, nullptr);
    options.from = *directory;
  }
  OverlayRun overlay = TRY(OverlayRun::plan(options.from, Target::parse(options.live.store).store));
  auto status = run_over(options, overlay);
  if (!status) overlay.forget();
  return status;
}

Result<int> run(const Options& options) {
  auto status = run_command(options);
  if (status) return status;
  complain(status.error().message());
  return fuse::Launch::kOwnFailure;
}

}  // namespace

void add_run(Command& reprise) {
  auto options = std::make_shared<Options>();
  Command command = reprise.subcommand(
      "run", "Run a command inside an instance: it starts in the volume's root, mounted for it alone");
  command.option("--store", options->live.store, "STORE[:BRANCH], made if it is not there");
  command.option(
      "--from", options->from,
      "run over this directory, at its own path, without copying or changing it; changes go to the "
      "store, or without --store to a new one in ~/.local/state/reprise, and what they are is said "
      "at the end");
  command.option("--at", options->at,
                 "mount at this directory (default: STORE/mnt, or the directory that is run over)");
  add_live_options(command, options->live);
  command.required("command", options->command, "the command, after --");
  command.does([options] { return run(*options); });
}

}  // namespace reprise::cli

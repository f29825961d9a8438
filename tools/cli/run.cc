// run: a command in an instance of its own.
#include <fcntl.h>
#include <fmt/format.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>

#include "adapters/fuse/mount.h"
#include "adapters/fuse/server.h"
#include "instance/host.h"
#include "tools/cli/command.h"
#include "tools/cli/target.h"

namespace reprise::cli {
namespace {

constexpr uint32_t kContact_ms = 10'000;  // a new follower's patience
constexpr uint32_t kFarewell_ms = 5'000;  // how long the end waits for connected followers to have everything

struct Options {
  std::string store, at, listen, follow, label, durability = "fsync";
  std::vector<std::string> command;
};

Result<journal::Durability> durability_of(const std::string& name) {
  if (name == "none") return journal::Durability::kNone;
  if (name == "lazy") return journal::Durability::kLazy;
  if (name == "fsync") return journal::Durability::kFsync;
  return journal::Durability::kAlways;
}

// A mountpoint inside the store, made with what is missing above it; on destruction what was made goes again
// if it is empty: a run that never began leaves nothing behind.
class Mountpoint {
 public:
  static Result<Mountpoint> make(const std::string& store, const std::string& at) {
    Mountpoint mountpoint;
    if (!at.empty()) {
      mountpoint.path_ = at;
      return mountpoint;
    }
    std::error_code ignored;
    bool usable =
        !std::filesystem::exists(store, ignored) || store::Store::looks_like_store(store) ||
        (std::filesystem::is_directory(store, ignored) && std::filesystem::is_empty(store, ignored));
    // Anything else is refused by Store::open with its own words; do not put a folder into it.
    if (!usable) TRY(store::Store::open(store));
    for (const std::string& part : {store, store + "/mnt"}) {
      if (::mkdir(part.c_str(), 0755) == 0) {
        mountpoint.made_.push_back(part);
      } else if (errno != EEXIST) {
        int code = errno;
        return std::unexpected(Error::from_errno(code, part + ": cannot create"));
      }
    }
    mountpoint.path_ = store + "/mnt";
    return mountpoint;
  }
  Mountpoint() = default;
  Mountpoint(Mountpoint&&) = default;
  ~Mountpoint() {
    for (auto part = made_.rbegin(); part != made_.rend(); ++part) ::rmdir(part->c_str());
  }

  const std::string& path() const { return path_; }

 private:
  std::string path_;
  std::vector<std::string> made_;
};

std::string command_line(const Options& options) {
  std::string line = "reprise run --store " + options.store + " --";
  for (const std::string& word : options.command) line += " " + word;
  return line;
}

Result<instance::HostOptions> host_options(const Options& options, const Target& target) {
  instance::HostOptions host;
  host.store_path = target.store;
  host.label = options.label;
  host.instance.branch = target.branch;
  host.instance.journal.durability = TRY(durability_of(options.durability));
  host.instance.holder = {getpid(), command_line(options)};
  if (!options.listen.empty()) host.listen = TRY(Endpoint::parse(options.listen));
  if (!options.follow.empty()) host.follow = TRY(Endpoint::parse(options.follow));
  return host;
}

// Has the kernel write back what is only in its caches (shared mappings). The mount is seen through the
// command's eyes; once the command is gone nothing can be dirty any more.
Status sync_mount(pid_t pid, const std::string& mountpoint) {
  if (pid < 0) return {};
  int fd =
      ::open(fmt::format("/proc/{}/root{}", pid, mountpoint).c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return {};
  int status = ::syncfs(fd);
  int code = errno;
  ::close(fd);
  if (status != 0) return std::unexpected(Error::from_errno(code, mountpoint + ": cannot write back"));
  return {};
}

// A signal that asks to end and waits to be taken: Launch has them blocked until the command runs.
std::optional<int> pending_signal() {
  sigset_t pending;
  sigpending(&pending);
  for (int signal : {SIGINT, SIGTERM, SIGHUP, SIGQUIT}) {
    struct sigaction action;
    ::sigaction(signal, nullptr, &action);
    bool ignored = action.sa_handler == SIG_IGN;  // `nohup` means it, blocked or not
    if (sigismember(&pending, signal) == 1 && !ignored) return signal;
  }
  return std::nullopt;
}

// All of them; the first, if there are any. Left pending they would end this program before it has cleaned
// up.
std::optional<int> take_pending_signals() {
  std::optional<int> first;
  while (auto signal = pending_signal()) {
    sigset_t only;
    sigemptyset(&only);
    sigaddset(&only, *signal);
    timespec at_once{};
    ::sigtimedwait(&only, nullptr, &at_once);
    if (!first) first = signal;
  }
  return first;
}

// Serves the mount and runs the command in it.
Result<int> serve(instance::Host& host, fuse::Launch& launch, const Options& options,
                  const std::string& mount_path, bool& started) {
  instance::Instance& instance = host.instance();
  fuse::ServerOptions server_options;
  server_options.show_all_as = launch.owner();
  server_options.label = options.label;
  server_options.on_fsync = [&instance] { return instance.guest_sync(); };
  auto server =
      TRY(fuse::Server::start(instance.filesystem(), system_clock(), launch.take_fuse_fd(), server_options));
  instance.set_coherence_hook(&server->coherence());
  host.add_statistics([&, pid = launch.pid()](nlohmann::json& json) {
    json["fuse_requests"] = server->requests().total();
    json["mount"] = {{"path", mount_path}, {"pid", pid}};
  });
  host.set_flush([pid = launch.pid(), mount_path] { return sync_mount(pid, mount_path); });
  auto connected = host.connect(kContact_ms, [] { return pending_signal().has_value(); });
  int status = fuse::Launch::kOwnFailure;
  if (connected) {
    started = true;
    auto running = launch.start();
    status = launch.wait();
    if (!running) fmt::print(stderr, "reprise: {}\n", running.error().message());
    host.say_farewell(kFarewell_ms);
  }
  host.stop();
  instance.set_coherence_hook(nullptr);
  server->stop();
  TRY(std::move(connected));
  return status;
}

// What open() and connect() made of a store that holds nothing: its own files; others' were never in it.
void remove_store(const std::string& path) {
  std::error_code ignored;
  for (const char* name :
       {"reprise.store", "reprise.store.new", "catalogue.lmdb", "catalogue.lmdb-lock", "packs", "branches"}) {
    std::filesystem::remove_all(path + "/" + name, ignored);
  }
}

Result<int> run_command(const Options& options) {
  Target target = Target::parse(options.store);
  if (!target.position.empty() || !target.path.empty()) {
    return fail(Code::kInvalidArgument, fmt::format("--store {}: expected STORE[:BRANCH]", options.store));
  }
  if (auto good = target.check_branch(); !good)
    return std::unexpected(good.error().with_context("--store " + options.store));
  instance::HostOptions host_settings = TRY(host_options(options, target));
  Mountpoint mountpoint = TRY(Mountpoint::make(target.store, options.at));
  std::error_code ignored;
  std::string store_path = std::filesystem::absolute(target.store, ignored).string();
  std::string mount_path = std::filesystem::absolute(mountpoint.path(), ignored).string();
  fuse::LaunchOptions launch_options{
      .command = options.command,
      .mountpoint = mount_path,
      .environment = {{"REPRISE_STORE",
                       target.branch == "main" ? store_path : store_path + ":" + target.branch}},
      .read_only = host_settings.follow.has_value()};
  auto launch = TRY(fuse::Launch::prepare(std::move(launch_options)));

  auto host = TRY(instance::Host::open(host_settings));
  instance::Instance& instance = host->instance();
  const journal::Recovery& recovery = instance.open_report().recovery;
  if (recovery.cut_bytes > 0) {
    fmt::print(stderr,
               "reprise: {}: cut a torn tail of {} bytes at offset {}; everything before it is there\n",
               recovery.cut_file, recovery.cut_bytes, recovery.cut_offset);
  }
  bool started = false;
  auto status = serve(*host, *launch, options, mount_path, started);
  // A follower that has been given a state may keep it; all else that was made for nothing goes again.
  bool empty = host->made_store() && !started && (!host_settings.follow || instance.is_new());
  // What never ran has changed nothing, and leaves the store as it was found.
  auto closed = started ? host->close() : Status{};
  if (empty) {
    host.reset();
    remove_store(target.store);
  }
  if (!started) {
    if (auto signal = take_pending_signals()) return 128 + *signal;
  }
  TRY(std::move(closed));
  return status;
}

Result<int> run(const Options& options) {
  auto status = run_command(options);
  if (status) return status;
  fmt::print(stderr, "reprise: {}\n", status.error().message());
  return fuse::Launch::kOwnFailure;
}

}  // namespace

void add_run(CLI::App& app, Body& chosen) {
  auto options = std::make_shared<Options>();
  auto* command = app.add_subcommand(
      "run", "Run a command inside an instance: it starts in the volume's root, mounted for it alone");
  command->add_option("--store", options->store, "STORE[:BRANCH], made if it is not there")->required();
  command->add_option("--at", options->at, "mount at this directory (default: STORE/mnt)");
  command->add_option("--listen", options->listen, "let followers connect here: unix:PATH");
  command->add_option("--follow", options->follow,
                      "follow the instance that listens there, read-only: unix:PATH");
  command->add_option("--label", options->label, "recorded with every operation")
      ->check([](const std::string& label) {
        return label.size() <= journal::kLabelLimit
                   ? ""
                   : fmt::format("a label has at most {} bytes", journal::kLabelLimit);
      });
  command
      ->add_option("--durability", options->durability,
                   "when the disk has what was written: none (at the end), lazy (ten times a second), fsync "
                   "(when asked), always")
      ->check(CLI::IsMember({"none", "lazy", "fsync", "always"}))
      ->capture_default_str();
  command->add_option("command", options->command, "the command, after --")->required();
  command->callback([&chosen, options] { chosen = [options] { return run(*options); }; });
}

}  // namespace reprise::cli

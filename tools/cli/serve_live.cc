#include "tools/cli/serve_live.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <filesystem>
#include <fstream>
#include <span>

#include "base/host_tree.h"
#include "tools/cli/command.h"

namespace reprise::cli {
namespace {

constexpr uint32_t kContact_ms = 10'000;  // a new follower's patience
constexpr uint32_t kFarewell_ms = 5'000;  // how long the end waits for connected followers to have everything
constexpr size_t kPeerNameMax = 60;       // bytes
constexpr int kEndingSignals[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT};

Result<journal::Durability> durability_of(const std::string& name) {
  if (name == "none") return journal::Durability::kNone;
  if (name == "lazy") return journal::Durability::kLazy;
  if (name == "fsync") return journal::Durability::kFsync;
  return journal::Durability::kAlways;
}

struct Unit {
  char letter;
  uint64_t size;
};
constexpr Unit kSizeUnits[] = {{'M', 1 << 20}, {'G', 1 << 30}, {'T', uint64_t{1} << 40}};
constexpr Unit kTimeUnits[] = {{'s', 1}, {'m', 60}, {'h', 3600}, {'d', 86400}};

// A whole number and a unit, at least `least`, which is a few of the first.
Result<uint64_t> quantity(const char* option, const std::string& text, std::span<const Unit> units,
                          uint64_t least) {
  uint64_t number = 0;
  const char* end = text.data() + text.size();
  auto [rest, error] = std::from_chars(text.data(), end, number);
  auto unit =
      std::ranges::find_if(units, [&](const Unit& u) { return rest + 1 == end && u.letter == *rest; });
  if (error == std::errc() && unit != units.end() && number <= UINT64_MAX / unit->size &&
      number * unit->size >= least)
    return number * unit->size;
  std::string letters;
  for (const Unit& u : units) letters += fmt::format("{}{}", letters.empty() ? "" : ", ", u.letter);
  return fail(Code::kInvalidArgument,
              fmt::format("{}: expected a whole number and one of {}, at least {}{}, found \"{}\"", option,
                          letters, least / units[0].size, units[0].letter, printable(text)));
}

Result<uint64_t> count(const char* option, const std::string& text) {
  uint64_t number = 0;
  const char* end = text.data() + text.size();
  auto [rest, error] = std::from_chars(text.data(), end, number);
  if (error == std::errc() && rest == end && number > 0) return number;
  return fail(Code::kInvalidArgument,
              fmt::format("{}: expected a whole number, at least 1, found \"{}\"", option, printable(text)));
}

// The folder's name, as far as a peer may be called so.
std::string name_of_store(const std::string& store) {
  std::error_code ignored;
  std::string name = std::filesystem::absolute(store, ignored).lexically_normal().filename().string();
  for (char& c : name) {
    const char inside[] = {'a', c};
    if (!store::Store::check_name("peer", std::string_view(inside, sizeof inside))) c = '_';
  }
  if (name.size() > kPeerNameMax) name.resize(kPeerNameMax);
  if (!store::Store::check_name("peer", name)) name.insert(name.begin(), '_');
  return name;
}

// The first line of a file.
Result<replay::Token> read_token(const std::string& path) {
  constexpr size_t kLeast = 16, kMost = 4096;
  auto wrong = [&](const std::string& found) {
    return fail(Code::kInvalidArgument,
                fmt::format("--token-file {}: expected a first line of {} to {} bytes, found {}; `head -c 32 "
                            "/dev/urandom | base64` makes one",
                            printable(path), kLeast, kMost, found));
  };
  std::ifstream file(path, std::ios::binary);
  std::string token(kMost + 2, '\0');
  if (!file)
    return std::unexpected(Error::from_errno(errno, fmt::format("--token-file {}", printable(path))));
  file.read(token.data(), static_cast<std::streamsize>(token.size()));
  if (file.bad())
    return std::unexpected(Error::from_errno(errno, fmt::format("--token-file {}", printable(path))));
  token.resize(static_cast<size_t>(file.gcount()));
  token.resize(std::min(token.find('\n'), token.size()));
  if (token.ends_with('\r')) token.pop_back();
  if (token.size() < kLeast || token.size() > kMost) return wrong(fmt::format("{}", token.size()));
  return std::make_shared<const std::string>(std::move(token));
}

// A signal that asks to end and waits to be taken: they are blocked.
std::optional<int> pending_signal() {
  sigset_t pending;
  sigpending(&pending);
  for (int signal : kEndingSignals) {
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

// Serves the mount for as long as `body` runs.
Result<int> serve(instance::Host& host, const std::string& label, ServedMount& mount,
                  const std::function<int(fuse::Server&)>& body, bool& started) {
  instance::Instance& instance = host.instance();
  fuse::ServerOptions server_options;
  server_options.show_all_as = mount.owner;
  server_options.label = label;
  server_options.on_fsync = [&instance] { return instance.guest_sync(); };
  auto server =
      TRY(fuse::Server::start(instance.filesystem(), system_clock(), mount.fuse_fd, server_options));
  instance.set_coherence_hook(&server->coherence());
  host.add_statistics([&](nlohmann::json& json) {
    json["fuse_requests"] = server->requests().total();
    json["mount"] = {{"path", mount.path}, {"pid", mount.seen_by}};
  });
  constexpr uint64_t kDrainBusy_ms = 200;  // guests go on asking
  host.set_flush([&]() -> Status {
    TRY(sync_mount(mount.seen_by, mount.path));
    server->drain(kDrainBusy_ms);
    return {};
  });
  auto connected = host.connect(kContact_ms, [] { return pending_signal().has_value(); });
  int status = 0;
  if (connected) {
    started = true;
    status = body(*server);
    host.say_farewell(kFarewell_ms);
  }
  host.stop();
  instance.set_coherence_hook(nullptr);
  server->stop();
  TRY(std::move(connected));
  return status;
}

}  // namespace

Status sync_mount(pid_t pid, const std::string& mountpoint) {
  int fd =
      ::open(fmt::format("/proc/{}/root{}", pid, mountpoint).c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return {};
  int status = ::syncfs(fd);
  int code = errno;
  ::close(fd);
  if (status != 0) return std::unexpected(Error::from_errno(code, mountpoint + ": cannot write back"));
  return {};
}

void add_live_options(Command& command, LiveOptions& options) {
  command.option("--listen", options.listen, "let followers connect here: unix:PATH or tcp:HOST:PORT");
  command.number(
      "--await-followers", options.await_followers_s, 0, 3600,
      "with --listen, if the store was not closed cleanly: so many seconds at most are followers waited "
      "for that may have what the disk lost, before the command starts");
  command.option("--follow", options.follow,
                 "follow the instance that listens there, read-only: unix:PATH or tcp:HOST:PORT");
  command.option("--name", options.name,
                 "what whom this one follows calls it, in `stat` and `flush` (default: the store's folder)");
  command.option(
      "--token-file", options.token_file,
      "the first line of this file is a secret that whoever connects, or is connected to, must know "
      "too; needed beyond this machine's loopback. What is sent is not encrypted");
  command.option("--label", options.label, "recorded with every operation", [](const std::string& label) {
    return label.size() <= journal::kLabelLimit
               ? ""
               : fmt::format("a label has at most {} bytes", journal::kLabelLimit);
  });
  command.flag("--hydrate", options.hydrate,
               "read all of the store's snapshot before anything else; without it, what is touched is read "
               "then, and what is not, never");
  command.option(
      "--memory", options.memory,
      "let go of what the newest snapshot has where trees take more memory than this, as 500M or 2G, "
      "and read it again when it is touched; at least 16M",
      [](const std::string& text) { return text.empty() ? "expected a value, found none" : ""; });
  command.choice("--durability", options.durability, {"none", "lazy", "fsync", "always"},
                 "when the disk has what was written: none (at the end), lazy (ten times a second), fsync "
                 "(when asked), always");
  auto not_empty = [](const std::string& text) { return text.empty() ? "expected a value, found none" : ""; };
  command.option("--journal-limit", options.journal_limit,
                 "drop old batches where the journal's files take more than this, as 500M or 2G; at least 4M",
                 not_empty);
  command.option("--journal-age", options.journal_age,
                 "drop batches older than this, as 90s, 30m, 12h or 7d, that no connected follower needs",
                 not_empty);
  command.option(
      "--store-limit", options.store_limit,
      "keep the whole store within this, as 2G: drop old batches, then snapshots without a label; at "
      "least 16M",
      not_empty);
  command.option("--snapshots", options.snapshots, "of snapshots without a label keep the newest so many",
                 not_empty);
  command.option("--snapshot-age", options.snapshot_age,
                 "drop snapshots without a label that are older than this, as 12h or 7d", not_empty);
  command.option("--volume-size", options.volume_size,
                 "what files may take in all from now on, as 500M or 2G; `none` for no limit. Without this "
                 "option it stays as it was",
                 not_empty);
  command.option("--volume-inodes", options.volume_inodes,
                 "likewise, how many files and directories there may be", not_empty);
}

Status check_apart(const Target& target, const std::string& mountpoint) {
  const std::filesystem::path store = canonical_host_path(target.store),
                              mount = canonical_host_path(mountpoint);
  auto lies_in = [](const std::filesystem::path& inner, const std::filesystem::path& outer) {
    return std::mismatch(outer.begin(), outer.end(), inner.begin(), inner.end()).first == outer.end();
  };
  if (!lies_in(store, mount) && !lies_in(mount, store)) return {};
  return fail(Code::kInvalidArgument,
              fmt::format("{}: expected a directory apart from the store {}, found one that {}", mountpoint,
                          target.store, lies_in(store, mount) ? "holds it" : "lies in it"));
}

Result<Target> live_target(const std::string& store, const std::string& option) {
  Target target = Target::parse(store);
  if (!target.position.empty() || !target.path.empty())
    return fail(Code::kInvalidArgument, fmt::format("{} {}: expected STORE[:BRANCH]", option, store));
  if (auto good = target.check_branch(); !good)
    return std::unexpected(good.error().with_context(option + " " + store));
  // A store is made where there is none; a path with a slip in it is no wish for more directories.
  std::error_code ignored;
  std::filesystem::path path = target.store;
  if (!path.has_filename()) path = path.parent_path();  // "S/"
  std::filesystem::path above = path.parent_path();
  if (!above.empty() && !std::filesystem::is_directory(above, ignored))
    return fail(Code::kNotFound,
                fmt::format("{} {}: expected a directory {} with the store in it, or to make it in; "
                            "found none",
                            option, store, above.string()));
  return target;
}

Result<instance::HostOptions> host_options(const LiveOptions& options, const Target& target,
                                           const std::string& command_line) {
  instance::HostOptions host;
  host.store_path = target.store;
  host.label = options.label;
  host.instance.branch = target.branch;
  host.instance.journal.durability = TRY(durability_of(options.durability));
  host.instance.holder = {getpid(), command_line};
  if (options.hydrate) host.instance.opening = instance::Opening::kWhole;
  host.await_followers_ms = static_cast<uint32_t>(options.await_followers_s * 1000);
  instance::Retention& retention = host.instance.retention;
  if (!options.journal_limit.empty())
    retention.journal_bytes = TRY(quantity("--journal-limit", options.journal_limit, kSizeUnits, 4 << 20));
  if (!options.journal_age.empty())
    retention.journal_age_s = TRY(quantity("--journal-age", options.journal_age, kTimeUnits, 1));
  if (!options.store_limit.empty())
    retention.store_bytes = TRY(quantity("--store-limit", options.store_limit, kSizeUnits, 16 << 20));
  if (!options.memory.empty())
    retention.memory_bytes = TRY(quantity("--memory", options.memory, kSizeUnits, 16 << 20));
  if (!options.snapshots.empty()) retention.snapshots = TRY(count("--snapshots", options.snapshots));
  if (!options.snapshot_age.empty())
    retention.snapshot_age_s = TRY(quantity("--snapshot-age", options.snapshot_age, kTimeUnits, 1));
  if (!options.follow.empty() && !(options.volume_size.empty() && options.volume_inodes.empty())) {
    return fail(
        Code::kInvalidArgument,
        fmt::format("--follow {}: expected no limits of the volume, which are set where it is written, "
                    "found --volume-{}",
                    options.follow, options.volume_size.empty() ? "inodes" : "size"));
  }
  if (options.volume_size == "none") {
    host.volume_bytes = 0;
  } else if (!options.volume_size.empty()) {
    host.volume_bytes = TRY(quantity("--volume-size", options.volume_size, kSizeUnits, 1 << 20));
  }
  if (options.volume_inodes == "none") {
    host.volume_inodes = 0;
  } else if (!options.volume_inodes.empty()) {
    host.volume_inodes = TRY(count("--volume-inodes", options.volume_inodes));
  }
  if (!options.name.empty()) TRY(store::Store::check_name("peer", options.name));
  host.name = options.name.empty() ? name_of_store(target.store) : options.name;
  if (!options.token_file.empty()) host.token = TRY(read_token(options.token_file));
  if (!options.listen.empty()) host.listen = TRY(Endpoint::parse(options.listen));
  if (!options.follow.empty()) host.follow = TRY(Endpoint::parse(options.follow));
  if (host.listen && host.follow && host.listen->to_string() == host.follow->to_string()) {
    return fail(Code::kInvalidArgument,
                fmt::format("--follow {}: expected another instance's endpoint, found the one to listen on",
                            options.follow));
  }
  return host;
}

std::string full_name(const Target& target) {
  std::error_code ignored;
  std::string store = std::filesystem::absolute(target.store, ignored).string();
  return target.branch == "main" ? store : store + ":" + target.branch;
}

sigset_t signals_that_end() {
  sigset_t signals;
  sigemptyset(&signals);
  for (int signal : kEndingSignals) sigaddset(&signals, signal);
  return signals;
}

namespace {

// Opens the instance and has it served; what was made for nothing goes again. `serving` says in its second
// argument that it was not for nothing.
Result<int> open_and_serve(const instance::HostOptions& settings,
                           const std::function<Result<int>(instance::Host&, bool&)>& serving) {
  auto host = TRY(instance::Host::open(settings));
  instance::Instance& instance = host->instance();
  const journal::Recovery& recovery = instance.open_report().recovery;
  if (recovery.cut_bytes > 0) {
    std::string with = recovery.cut_batches == 0
                           ? ""
                           : fmt::format(", with {} whole batches that were never said to be on the disk",
                                         recovery.cut_batches);
    complain(fmt::format("{}: cut a torn tail of {} bytes at offset {}{}; everything before it is there",
                         recovery.cut_file, recovery.cut_bytes, recovery.cut_offset, with));
  }
  bool started = false;
  Result<int> status = kFailed;
  if (auto taken_back = host->take_back_tail([] { return pending_signal().has_value(); }); taken_back) {
    status = serving(*host, started);
  } else {
    status = std::unexpected(taken_back.error());
  }
  // A follower that has been given a state may keep it; all else that was made for nothing goes again.
  bool empty = host->made_store() && instance.store() != nullptr && !started &&
               (!settings.follow || instance.is_new());
  // What never ran has changed nothing, and leaves the store as it was found.
  auto closed = started ? host->close() : Status{};
  if (empty) {
    host.reset();
    // Somebody may be using it already: then it was not made for nothing.
    if (auto removed = store::Store::remove_unused(settings.store_path);
        !removed && removed.error().code() != Code::kBusy) {
      complain(removed.error().message());
    }
  }
  if (!started) {
    if (auto signal = take_pending_signals()) return 128 + *signal;
  }
  TRY(std::move(closed));
  return status;
}

// The library does not know how a token is given here. To listen without one is wrong usage; to follow who
// asks for one is not.
Result<int> live(const instance::HostOptions& settings,
                 const std::function<Result<int>(instance::Host&, bool&)>& serving) {
  auto status = open_and_serve(settings, serving);
  if (status || status.error().code() != Code::kUnauthorised || settings.token != nullptr) return status;
  return fail(settings.follow ? Code::kUnauthorised : Code::kInvalidArgument,
              status.error().message() + " (--token-file)");
}

}  // namespace

Result<int> serve_live(const instance::HostOptions& settings, ServedMount mount,
                       const std::function<int(fuse::Server&)>& body) {
  bool taken = false;
  auto status = live(settings, [&](instance::Host& host, bool& started) {
    taken = true;
    return serve(host, settings.label, mount, body, started);
  });
  if (!taken) ::close(mount.fuse_fd);
  return status;
}

Result<int> serve_alone(const instance::HostOptions& settings,
                        const std::function<int(instance::Host&)>& body) {
  return live(settings, [&](instance::Host& host, bool& started) -> Result<int> {
    auto connected = host.connect(kContact_ms, [] { return pending_signal().has_value(); });
    int status = kDone;
    if (connected) {
      started = true;
      status = body(host);
      host.say_farewell(kFarewell_ms);
    }
    host.stop();
    TRY(std::move(connected));
    return status;
  });
}

}  // namespace reprise::cli

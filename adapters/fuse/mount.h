// Launch: runs a command that sees a FUSE mount which nobody else sees.
//
// The command is started in a mount namespace of its own; without root in a user namespace of its own as
// well, in which its user and group are the only ones there are. The mount is made there, with the descriptor
// of the FUSE device handed back to the caller, who serves it (server.h). So nothing is mounted that outlives
// the namespace, whatever happens.
//
//   auto launch = TRY(Launch::prepare({.command = argv, .mountpoint = path}));  // early: it forks
//   auto server = TRY(Server::start(filesystem, clock, launch->take_fuse_fd(), options));
//   TRY(launch->start());           // the command is running, or it is said why not
//   int status = launch->wait();    // as env(1) reports it
//   server->stop();
//
// What the command leaves running when it exits keeps the namespace but not the mount: once the server stops
// it gets ENOTCONN. What it has changed before sync() is kept, also by way of a mapping. The command is
// killed if the caller dies; it has no filesystem any more.
//
// Signals: from prepare() on SIGINT, SIGTERM, SIGHUP, SIGQUIT and SIGCHLD are blocked in the calling thread
// and in those started after; wait() passes them on to the command (a SIGINT or SIGQUIT typed at the terminal
// has reached it already). Threads: prepare() before any other exists in the process; all calls from that one
// thread.
#pragma once

#include <sys/types.h>

#include <csignal>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "adapters/fuse/owners.h"
#include "base/error.h"

namespace reprise::fuse {

struct LaunchOptions {
  std::vector<std::string> command;  // looked up in PATH, after changing to the mountpoint
  std::string mountpoint;            // an existing directory
  std::vector<std::pair<std::string, std::string>> environment;  // added for the command
  bool read_only = false;  // opening for writing answers EROFS: for followers
  // FUSE device; "" takes that of the environment variable REPRISE_FUSE_DEVICE, or else /dev/fuse.
  std::string device;
};

class Launch {
 public:
  // Exit statuses of env(1), which wait() uses and a caller should for errors of its own.
  static constexpr int kOwnFailure = 125, kNotExecutable = 126, kNotFound = 127;

  // Makes the namespace and the mount. kNotFound, kPermission or kUnsupported say what is missing on this
  // machine and what can be done about it.
  static Result<std::unique_ptr<Launch>> prepare(LaunchOptions options);
  // A command not yet started never is; one that runs is killed.
  ~Launch();
  Launch(const Launch&) = delete;
  Launch& operator=(const Launch&) = delete;

  // The mounted device's descriptor, for Server::start; once.
  int take_fuse_fd() { return std::exchange(fuse_fd_, -1); }
  // Whom everything must be shown to belong to: the caller, in a user namespace; nobody when ids are true.
  std::optional<Owner> owner() const { return owner_; }
  pid_t pid() const { return pid_; }

  // Lets the command run; the mount must be served by now. kNotFound or kPermission if there is no such
  // command.
  Status start();
  // Waits for its end. Its exit status; 128 + n after signal n; kNotFound or kNotExecutable if start() said
  // so.
  int wait();
  // Once a command that was started has ended, while the mount is still served: writes what is in the
  // kernel's caches only, which is what mappings have changed that are still in use. An error is what writing
  // it came to. Then the server has to be drained (Server::drain). Does nothing where the caller
  // may not read the root.
  Status sync();

 private:
  Launch() = default;

  pid_t pid_ = -1;    // of the command; -1 once it has ended
  int channel_ = -1;  // to the child, until it is the command
  int fuse_fd_ = -1;
  int root_fd_ = -1;               // of the mount, for sync(): no path leads there once the command has ended
  int exit_status_ = kOwnFailure;  // once it has ended
  std::optional<Owner> owner_;
  std::string command_, mountpoint_;
  sigset_t signals_before_;
};

}  // namespace reprise::fuse

// ServedMount: a filesystem of this process, mounted where no other sees it, for calls that this process
// makes itself. The calls come from threads that serve nothing.
//
// Without a mapping of one of its files: a page fault may keep the memory of the process locked while it
// waits for a server in the same process. What maps files runs in a process of its own (mounted.h).
#pragma once

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "adapters/fuse/mount.h"
#include "adapters/fuse/server.h"
#include "base/check.h"

namespace reprise::fuse::testing {

class ServedMount {
 public:
  // Needs root. The filesystem outlives it.
  static Result<std::unique_ptr<ServedMount>> make(fs::Filesystem& filesystem, ServerOptions options = {}) {
    std::unique_ptr<ServedMount> mount(new ServedMount);
    CHECK(::mkdtemp(mount->mountpoint_) != nullptr);
    mount->launch_ = TRY(Launch::prepare({.command = {"true"}, .mountpoint = mount->mountpoint_}));
    mount->server_ =
        TRY(Server::start(filesystem, system_clock(), mount->launch_->take_fuse_fd(), std::move(options)));
    return mount;
  }
  // Whoever still has something open in it gets ENOTCONN.
  ~ServedMount() {
    if (server_) server_->stop();
    launch_.reset();
    ::rmdir(mountpoint_);
  }

  // A new descriptor of its root, or of a directory below. The mount is in the namespace of a command that is
  // never started.
  int open_top(const std::string& below = "") const {
    std::string top = "/proc/" + std::to_string(launch_->pid()) + "/root" + mountpoint_ + below;
    int fd = ::open(top.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC);
    CHECK(fd >= 0);
    return fd;
  }
  // Runs a program of the machine's with its root as the working directory. Its exit status.
  int run(const std::vector<std::string>& command) const {
    int top = open_top();
    std::vector<char*> argv;
    for (const std::string& argument : command) argv.push_back(const_cast<char*>(argument.c_str()));
    argv.push_back(nullptr);
    pid_t pid = ::fork();
    if (pid == 0) {
      if (::fchdir(top) == 0) ::execv(argv[0], argv.data());
      ::_exit(127);
    }
    int status = -1;
    CHECK(pid > 0 && ::waitpid(pid, &status, 0) == pid);
    ::close(top);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  }
  Server& server() { return *server_; }
  instance::CoherenceHook& coherence() { return server_->coherence(); }

 private:
  ServedMount() = default;

  char mountpoint_[32] = "/tmp/reprise-fuse-XXXXXX";
  std::unique_ptr<Launch> launch_;
  std::unique_ptr<Server> server_;
};

}  // namespace reprise::fuse::testing

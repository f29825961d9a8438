// PublicMount: a FUSE mount that everybody sees who shares the caller's mount namespace, unlike that of a
// Launch (mount.h). Made through libfuse and its setuid helper fusermount3, so that any user may make one;
// what a user other than root mounts, only that user can enter.
//
// It does not outlive this process: a child of its own stays behind and unmounts as soon as the process is
// gone, also after SIGKILL.
//
// Threads: make() before any other exists in the process (it forks); the rest from one thread.
#pragma once

#include <sys/types.h>

#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "adapters/fuse/owners.h"
#include "base/error.h"

namespace reprise::fuse {

class PublicMount {
 public:
  // At an existing directory, which must be the caller's own unless root calls. kAlreadyExists where there is
  // a FUSE mount already.
  static Result<std::unique_ptr<PublicMount>> make(const std::string& mountpoint, bool read_only);
  // Unmounts, if that has not been done. Programs that have it open keep it until they close it.
  ~PublicMount();
  PublicMount(const PublicMount&) = delete;
  PublicMount& operator=(const PublicMount&) = delete;

  const std::string& mountpoint() const { return mountpoint_; }  // absolute, without symbolic links
  // For Server::start; once.
  int take_fuse_fd() { return std::exchange(fuse_fd_, -1); }
  // Whom everything must be shown to belong to; nobody when ids are true.
  std::optional<Owner> owner() const;
  Status unmount();

 private:
  PublicMount() = default;
  Status leave_watcher();
  void dismiss_watcher();

  std::string mountpoint_;
  int fuse_fd_ = -1;
  pid_t watcher_ = -1;  // the child that stays behind
  int served_ = -1;     // it waits for the end of this
  bool mounted_ = false;
};

}  // namespace reprise::fuse

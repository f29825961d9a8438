// System calls as Calls, and filesystems of the kernel to make them in. All of it needs root.
//
// From a call on, "/" of the calling thread is that filesystem, and credentials, umask and working directory
// are the caller's: whoever names a path of the machine's, starts a process or a thread leaves it first
// (KernelRoot::leave). Each call switches to its own; other threads of the process never notice.
//
//   KernelRoot tmpfs(mount_tmpfs());
//   auto someone = tmpfs.calls({.uid = 1000, .gid = 1000});
//   someone->open("f", O_CREAT);
#pragma once

#include <sys/types.h>

#include <functional>

#include "tests/posix/calls.h"

namespace reprise::posix {

// Gives this process mounts that no other sees, once. Empty, or why that cannot be.
std::string keep_mounts_private();

// A descriptor of a filesystem's root, and what to do when it is no longer wanted.
struct MountedFilesystem {
  int root = -1;  // -1: there is none, and `refusal` says why
  std::string refusal;
  std::function<void()> dismount;
};
// Fresh, empty and seen by this process alone. size_bytes and inodes: 0 for as much as there is.
MountedFilesystem mount_tmpfs(uint64_t size_bytes = 0, uint64_t inodes = 0);
// On a loop device.
MountedFilesystem mount_ext4();

class KernelRoot {
 public:
  // Takes the mount over. A thread may have several, in turn with each other; each belongs to the thread that
  // made it.
  explicit KernelRoot(MountedFilesystem filesystem);
  ~KernelRoot();
  KernelRoot(const KernelRoot&) = delete;
  KernelRoot& operator=(const KernelRoot&) = delete;

  // Starts in the filesystem's root with umask 0. Must go before this object.
  std::unique_ptr<Calls> calls(const Credentials& who);

  // Needs that nothing is open for writing in it.
  void make_read_only();

  // This thread is who and where it was before any KernelRoot, until the next call.
  static void leave();

  class Callers;

 private:
  MountedFilesystem filesystem_;
  std::unique_ptr<Callers> callers_;
};

// A process that runs what a descriptor of a kernel filesystem's is open on, until this object goes. It must
// be a program that sleeps as /bin/sleep does.
class RunningProgram {
 public:
  explicit RunningProgram(int fd);
  ~RunningProgram();
  RunningProgram(const RunningProgram&) = delete;
  RunningProgram& operator=(const RunningProgram&) = delete;

  // 0 where it runs, or the errno that execveat(2) gave.
  int error() const { return error_; }

 private:
  pid_t process_ = -1;
  int error_ = 0;
};

}  // namespace reprise::posix

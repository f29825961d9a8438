#include "adapters/fuse/public_mount.h"

#include <fmt/format.h>
#include <spawn.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <vector>

#include "base/host_tree.h"

// Declared in <fuse.h>, libfuse's other interface, which does not go together with the one used here.
extern "C" int fuse_open_channel(const char* mountpoint, const char* options);

extern char** environ;

namespace reprise::fuse {
namespace {

Status run(const char* program, std::vector<const char*> arguments) {
  arguments.insert(arguments.begin(), program);
  arguments.push_back(nullptr);
  pid_t pid;
  int error = ::posix_spawnp(&pid, program, nullptr, nullptr, const_cast<char**>(arguments.data()), environ);
  if (error != 0) return std::unexpected(Error::from_errno(error, program));
  int status;
  while (::waitpid(pid, &status, 0) < 0) {
    if (errno != EINTR) return std::unexpected(Error::from_errno(errno, "waitpid"));
  }
  if (WIFEXITED(status) && WEXITSTATUS(status) == 0) return {};
  return fail(Code::kIo, fmt::format("{} failed", program));
}

}  // namespace

Result<std::unique_ptr<PublicMount>> PublicMount::make(const std::string& mountpoint, bool read_only) {
  struct stat found;
  if (::stat(mountpoint.c_str(), &found) != 0)
    return std::unexpected(Error::from_errno(errno, fmt::format("the mountpoint {}", mountpoint)));
  if (!S_ISDIR(found.st_mode))
    return fail(Code::kInvalidArgument, fmt::format("the mountpoint {} is not a directory", mountpoint));

  std::unique_ptr<PublicMount> mount(new PublicMount);
  mount->mountpoint_ = canonical_host_path(mountpoint);
  std::string options = "fsname=reprise,subtype=reprise,default_permissions,nosuid,nodev,auto_unmount";
  if (::geteuid() == 0) options += ",allow_other";
  if (read_only) options += ",ro";
  mount->fuse_fd_ = ::fuse_open_channel(mount->mountpoint_.c_str(), options.c_str());
  if (mount->fuse_fd_ < 0) {
    return fail(Code::kIo,
                fmt::format("cannot mount at {}; expected a FUSE device at /dev/fuse and fusermount3 "
                            "(package fuse3), and a directory of this user's own",
                            mount->mountpoint_));
  }
  mount->mounted_ = true;
  return mount;
}

std::optional<Owner> PublicMount::owner() const {
  if (::geteuid() == 0) return std::nullopt;
  return Owner{::geteuid(), ::getegid()};
}

Status PublicMount::unmount() {
  if (!std::exchange(mounted_, false)) return {};
  if (::geteuid() != 0) return run("fusermount3", {"-u", "-z", "-q", "--", mountpoint_.c_str()});
  // EINVAL: somebody else has unmounted it.
  if (::umount2(mountpoint_.c_str(), MNT_DETACH | UMOUNT_NOFOLLOW) == 0 || errno == EINVAL) return {};
  return std::unexpected(Error::from_errno(errno, fmt::format("unmounting {}", mountpoint_)));
}

PublicMount::~PublicMount() {
  if (fuse_fd_ >= 0) ::close(fuse_fd_);
  (void)unmount();  // if it fails, fusermount3 tries again when this process ends
}

}  // namespace reprise::fuse

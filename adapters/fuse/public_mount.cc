#include "adapters/fuse/public_mount.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <linux/magic.h>
#include <spawn.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstdlib>
#include <vector>

#include "base/host_tree.h"

// Declared in <fuse.h>, libfuse's other interface, which does not go together with the one used here.
extern "C" int fuse_open_channel(const char* mountpoint, const char* options);

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

// Which mount is at a path, without asking who serves it; 0 if none can be told.
uint64_t mount_id_at(const std::string& path) {
  struct statx found;
  if (::statx(AT_FDCWD, path.c_str(), AT_STATX_DONT_SYNC, STATX_MNT_ID, &found) != 0) return 0;
  return (found.stx_mask & STATX_MNT_ID) != 0 ? found.stx_mnt_id : 0;
}

// What stays behind: a process that waits until the one that serves the mount is gone, however it went, and
// then unmounts. libfuse's own (auto_unmount) leaves a mount alone whose root can still be opened, which it
// can be after its end as long as the kernel has it cached.
[[noreturn]] void unmount_after(int served, const std::string& mountpoint, uint64_t mount) {
  ::setsid();  // what ends the server's group or terminal is not meant
  sigset_t all;
  sigfillset(&all);
  ::pthread_sigmask(SIG_SETMASK, &all, nullptr);
  ::dup2(served, 0);
  ::close_range(1, ~0U, 0);  // the device above all, or the mount would live on
  if (::chdir("/") != 0) ::_exit(1);
  char unmounted;
  ssize_t count;
  do {
    count = ::read(0, &unmounted, 1);
  } while (count < 0 && errno == EINTR);
  if (count == 1 || mount == 0 || mount_id_at(mountpoint) != mount) ::_exit(0);
  if (::umount2(mountpoint.c_str(), MNT_DETACH | UMOUNT_NOFOLLOW) == 0) ::_exit(0);
  ::execlp("fusermount3", "fusermount3", "-u", "-z", "-q", "--", mountpoint.c_str(), nullptr);
  ::_exit(1);
}

// What is said on standard error while it lives, by libfuse and by the helper it starts, goes into a file of
// its own, to become part of one message.
class SaidMeanwhile {
 public:
  SaidMeanwhile() : file_(::memfd_create("said", MFD_CLOEXEC)), before_(::fcntl(2, F_DUPFD_CLOEXEC, 3)) {
    if (file_ >= 0 && before_ >= 0) ::dup2(file_, 2);
  }
  ~SaidMeanwhile() {
    if (file_ >= 0 && before_ >= 0) ::dup2(before_, 2);
    for (int fd : {file_, before_})
      if (fd >= 0) ::close(fd);
  }
  SaidMeanwhile(const SaidMeanwhile&) = delete;
  SaidMeanwhile& operator=(const SaidMeanwhile&) = delete;

  // In one line; empty if nothing was said.
  std::string text() const {
    char said[512];
    ssize_t length = ::pread(file_, said, sizeof said, 0);
    std::string line(said, static_cast<size_t>(std::max<ssize_t>(length, 0)));
    while (line.ends_with('\n')) line.pop_back();
    std::ranges::replace(line, '\n', ';');
    return line;
  }

 private:
  int file_, before_;
};

// A mount over another would hide it, and end with a surprise for whoever is in the first.
Status check_is_free(const std::string& mountpoint) {
  struct statx found;
  struct statfs filesystem;
  if (::statx(AT_FDCWD, mountpoint.c_str(), 0, STATX_TYPE, &found) != 0 ||
      ::statfs(mountpoint.c_str(), &filesystem) != 0)
    return std::unexpected(Error::from_errno(errno, fmt::format("the mountpoint {}", mountpoint)));
  if (!S_ISDIR(found.stx_mode))
    return fail(Code::kInvalidArgument, fmt::format("the mountpoint {} is not a directory", mountpoint));
  if ((found.stx_attributes & STATX_ATTR_MOUNT_ROOT) != 0 && filesystem.f_type == FUSE_SUPER_MAGIC)
    return fail(
        Code::kAlreadyExists,
        fmt::format("a FUSE filesystem is mounted at {} already, perhaps by another `reprise mount`; unmount "
                    "it first, or take another directory",
                    mountpoint));
  return {};
}

// fusermount3 opens /dev/fuse, and cannot be told of another.
Status check_device() {
  const char* asked = ::getenv("REPRISE_FUSE_DEVICE");
  if (asked == nullptr || *asked == '\0') return {};
  struct stat theirs, usual;
  if (::stat(asked, &theirs) != 0)
    return std::unexpected(
        Error::from_errno(errno, fmt::format("the FUSE device {}, which REPRISE_FUSE_DEVICE names", asked)));
  if (::stat("/dev/fuse", &usual) == 0 && usual.st_rdev == theirs.st_rdev) return {};
  return fail(
      Code::kUnsupported,
      fmt::format("REPRISE_FUSE_DEVICE names {}, but a mount that everybody sees can use /dev/fuse only",
                  asked));
}

}  // namespace

Result<std::unique_ptr<PublicMount>> PublicMount::make(const std::string& mountpoint, bool read_only) {
  TRY(check_is_free(mountpoint));
  TRY(check_device());
  std::unique_ptr<PublicMount> mount(new PublicMount);
  mount->mountpoint_ = canonical_host_path(mountpoint);
  std::string options = "fsname=reprise,subtype=reprise,default_permissions,nosuid,nodev";
  if (::geteuid() == 0) options += ",allow_other";
  if (read_only) options += ",ro";
  SaidMeanwhile said;
  mount->fuse_fd_ = ::fuse_open_channel(mount->mountpoint_.c_str(), options.c_str());
  if (mount->fuse_fd_ < 0) {
    return fail(Code::kIo,
                fmt::format("cannot mount at {}; expected a FUSE device at /dev/fuse and fusermount3 "
                            "(package fuse3), and a directory of this user's own; found: {}",
                            mount->mountpoint_, said.text()));
  }
  mount->mounted_ = true;
  TRY(mount->leave_watcher());
  return mount;
}

Status PublicMount::leave_watcher() {
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) != 0) return std::unexpected(Error::from_errno(errno, "pipe"));
  watcher_ = ::fork();
  if (watcher_ == 0) {
    ::close(ends[1]);
    unmount_after(ends[0], mountpoint_, mount_id_at(mountpoint_));
  }
  int error = errno;
  ::close(ends[0]);
  served_ = ends[1];
  if (watcher_ < 0) return std::unexpected(Error::from_errno(error, "fork"));
  return {};
}

void PublicMount::dismiss_watcher() {
  char unmounted = 1;
  if (served_ >= 0 && !mounted_) (void)!::write(served_, &unmounted, 1);
  if (served_ >= 0) ::close(std::exchange(served_, -1));
  if (watcher_ > 0) ::waitpid(std::exchange(watcher_, -1), nullptr, 0);
}

std::optional<Owner> PublicMount::owner() const {
  if (::geteuid() == 0) return std::nullopt;
  return Owner{::geteuid(), ::getegid()};
}

Status PublicMount::unmount() {
  if (!mounted_) return {};
  if (::geteuid() != 0) {
    TRY(run("fusermount3", {"-u", "-z", "-q", "--", mountpoint_.c_str()}));
  } else if (::umount2(mountpoint_.c_str(), MNT_DETACH | UMOUNT_NOFOLLOW) != 0 && errno != EINVAL) {
    // EINVAL: somebody else has unmounted it.
    return std::unexpected(Error::from_errno(errno, fmt::format("unmounting {}", mountpoint_)));
  }
  mounted_ = false;
  return {};
}

PublicMount::~PublicMount() {
  if (fuse_fd_ >= 0) ::close(fuse_fd_);
  (void)unmount();  // if it fails, the watcher tries again
  dismiss_watcher();
}

}  // namespace reprise::fuse

#include "adapters/fuse/enter.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <linux/magic.h>
#include <sched.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <unistd.h>

#include <csignal>
#include <utility>

#include "adapters/fuse/mount.h"

namespace reprise::fuse {
namespace {

class Namespace {
 public:
  static Result<Namespace> open(pid_t pid, const char* kind) {
    Namespace found;
    std::string path = fmt::format("/proc/{}/ns/{}", pid, kind);
    found.fd_ = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
    if (found.fd_ >= 0) return found;
    int error = errno;
    if (error == ENOENT)
      return fail(Code::kNotFound, fmt::format("process {}, which has the mount, is gone", pid));
    return std::unexpected(Error::from_errno(
        error, fmt::format("{}: only who started the instance, or root, may enter it", path)));
  }
  Namespace() = default;
  Namespace(Namespace&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  ~Namespace() {
    if (fd_ >= 0) ::close(fd_);
  }

  bool is_own(const char* kind) const {
    struct stat theirs, ours;
    return ::fstat(fd_, &theirs) == 0 && ::stat(fmt::format("/proc/self/ns/{}", kind).c_str(), &ours) == 0 &&
           theirs.st_dev == ours.st_dev && theirs.st_ino == ours.st_ino;
  }
  Status enter(int kind, const char* what) const {
    if (::setns(fd_, kind) == 0) return {};
    return std::unexpected(
        Error::from_errno(errno, fmt::format("entering the instance's {} namespace", what)));
  }

 private:
  int fd_ = -1;
};

}  // namespace

Status enter(pid_t pid, const std::string& mountpoint) {
  // Both before either is entered: afterwards this process sees other ids and files.
  Namespace users = TRY(Namespace::open(pid, "user"));
  Namespace mounts = TRY(Namespace::open(pid, "mnt"));
  if (!users.is_own("user")) TRY(users.enter(CLONE_NEWUSER, "user"));
  TRY(mounts.enter(CLONE_NEWNS, "mount"));
  if (::chdir(mountpoint.c_str()) != 0)
    return std::unexpected(Error::from_errno(errno, fmt::format("changing to the mount at {}", mountpoint)));
  struct statfs filesystem;
  if (::statfs(".", &filesystem) != 0)
    return std::unexpected(Error::from_errno(errno, fmt::format("the mount at {}", mountpoint)));
  if (filesystem.f_type != FUSE_SUPER_MAGIC)
    return fail(Code::kNotFound,
                fmt::format("process {} has no mount of an instance at {}", pid, mountpoint));
  return {};
}

Error become(const std::vector<std::string>& command, int& exit_status) {
  std::vector<char*> argv;
  argv.reserve(command.size() + 1);
  for (const std::string& argument : command) argv.push_back(const_cast<char*>(argument.c_str()));
  argv.push_back(nullptr);
  ::signal(SIGPIPE, SIG_DFL);  // what this program ignores, the command shall not
  ::execvp(argv[0], argv.data());
  int error = errno;
  exit_status = error == ENOENT ? Launch::kNotFound : Launch::kNotExecutable;
  return Error::from_errno(error, command[0]);
}

}  // namespace reprise::fuse

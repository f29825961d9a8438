#include "base/file_lock.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>

namespace reprise {
namespace {

std::unexpected<Error> failed(const std::string& path, const char* doing) {
  int code = errno;
  return std::unexpected(Error::from_errno(code, path + ": cannot " + doing));
}

// Whatever else lies there is not written to, and keeps nobody waiting.
Result<int> open_file(const std::string& path, int flags) {
  int fd = ::open(path.c_str(), flags | O_CLOEXEC | O_NONBLOCK | O_NOFOLLOW, 0644);
  if (fd < 0) return failed(path, "open");
  struct stat st;
  if (::fstat(fd, &st) == 0 && S_ISREG(st.st_mode)) return fd;
  ::close(fd);
  return fail(Code::kCorrupt, path + ": expected a regular file, found something else");
}

struct flock whole_file(short type) {
  struct flock lock = {};
  lock.l_type = type;
  lock.l_whence = SEEK_SET;
  return lock;
}

}  // namespace

Result<std::unique_ptr<FileLock>> FileLock::acquire(const std::string& path, const std::string& holder) {
  int fd = TRY(open_file(path, O_RDWR | O_CREAT));
  std::unique_ptr<FileLock> held(new FileLock(fd));
  struct flock lock = whole_file(F_WRLCK);
  if (::fcntl(fd, F_OFD_SETLK, &lock) != 0) {
    if (errno == EAGAIN || errno == EACCES)
      return fail(Code::kBusy, path + ": expected it free, found it locked");
    return failed(path, "lock");
  }
  // Whoever held it may have taken the file away meanwhile; then this lock is one on nothing.
  struct stat locked, there;
  if (::fstat(fd, &locked) != 0) return failed(path, "stat");
  if (::stat(path.c_str(), &there) != 0 || there.st_ino != locked.st_ino || there.st_dev != locked.st_dev)
    return fail(Code::kBusy, path + ": expected it to stay, found it removed by whom it belonged to");
  if (::ftruncate(fd, 0) != 0) return failed(path, "truncate");
  if (::pwrite(fd, holder.data(), holder.size(), 0) != static_cast<ssize_t>(holder.size()))
    return failed(path, "write");
  return held;
}

Result<std::unique_ptr<FileLock>> FileLock::own(const std::string& path) {
  int fd = TRY(open_file(path, O_RDWR));
  std::unique_ptr<FileLock> held(new FileLock(fd));
  struct flock lock = whole_file(F_WRLCK);
  if (::fcntl(fd, F_OFD_SETLK, &lock) == 0) return held;
  if (errno == EAGAIN || errno == EACCES)
    return fail(Code::kBusy, path + ": expected it free, found it locked");
  return failed(path, "lock");
}

Result<std::optional<std::string>> FileLock::holder(const std::string& path) {
  auto opened = open_file(path, O_RDONLY);
  if (!opened && opened.error().code() == Code::kNotFound) return std::nullopt;
  int fd = TRY(std::move(opened));
  FileLock closed_at_the_end(fd);
  struct flock lock = whole_file(F_WRLCK);
  if (::fcntl(fd, F_OFD_GETLK, &lock) != 0) return failed(path, "ask who holds the lock of");
  if (lock.l_type == F_UNLCK) return std::nullopt;
  char buffer[4096];
  ssize_t n = ::pread(fd, buffer, sizeof buffer, 0);
  if (n < 0) return failed(path, "read");
  return std::string(buffer, static_cast<size_t>(n));
}

FileLock::~FileLock() {
  ::close(fd_);
}

Result<DirectoryLock> DirectoryLock::share(const std::string& path) {
  return lock(path, LOCK_SH);
}

Result<DirectoryLock> DirectoryLock::own(const std::string& path) {
  return lock(path, LOCK_EX | LOCK_NB);
}

Result<DirectoryLock> DirectoryLock::lock(const std::string& path, int operation) {
  int fd = ::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return failed(path, "open");
  DirectoryLock held(fd);
  while (::flock(fd, operation) != 0) {
    if (errno == EWOULDBLOCK) return fail(Code::kBusy, path + ": expected nobody to use it, found it in use");
    if (errno != EINTR) return failed(path, "lock");
  }
  struct stat st;
  if (::fstat(fd, &st) != 0) return failed(path, "stat");
  if (st.st_nlink == 0) {
    errno = ENOENT;
    return failed(path, "lock");
  }
  return held;
}

bool DirectoryLock::try_exclusive() {
  return ::flock(fd_, LOCK_EX | LOCK_NB) == 0;
}

DirectoryLock::~DirectoryLock() {
  if (fd_ >= 0) ::close(fd_);
}

}  // namespace reprise

// The host's disk: open_host_directory.
#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "base/check.h"
#include "base/descriptor.h"
#include "base/disk.h"
#include "base/host_file.h"

namespace reprise {
namespace {

std::unexpected<Error> failed(std::string_view path, std::string_view doing) {
  int code = errno;
  return std::unexpected(Error::from_errno(code, std::string(path) + ": cannot " + std::string(doing)));
}

std::unexpected<Error> no_file(const std::string& path) {
  return fail(Code::kCorrupt, path + ": expected a regular file, found something else");
}

class HostDirectory final : public Directory {
 public:
  HostDirectory(int fd, std::string path) : fd_(fd), path_(std::move(path)) {}

  Result<std::unique_ptr<File>> open(std::string_view name, OpenMode mode) override {
    int flags = O_CLOEXEC | O_NONBLOCK;                // so that a pipe of that name keeps nobody waiting
    if (mode != OpenMode::kRead) flags |= O_NOFOLLOW;  // nothing is written elsewhere
    switch (mode) {
      case OpenMode::kRead:
        flags |= O_RDONLY;
        break;
      case OpenMode::kReadWrite:
        flags |= O_RDWR;
        break;
      case OpenMode::kCreate:
        flags |= O_RDWR | O_CREAT | O_EXCL;
        break;
      case OpenMode::kCreateOrOpen:
        flags |= O_RDWR | O_CREAT;
        break;
    }
    int fd = ::openat(fd_.get(), std::string(name).c_str(), flags, 0644);
    int code = errno;
    if (fd < 0 && is_no_file(name, code)) return no_file(join(name));
    errno = code;
    if (fd < 0) return failed(join(name), "open");
    Descriptor file(fd);
    struct stat st;
    if (::fstat(fd, &st) != 0) return failed(join(name), "stat");
    if (!S_ISREG(st.st_mode)) return no_file(join(name));
    return std::make_unique<HostFile>(std::move(file), join(name));
  }
  Result<std::unique_ptr<Directory>> open_directory(std::string_view name) override {
    int fd = ::openat(fd_.get(), std::string(name).c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) return failed(join(name), "open");
    return std::make_unique<HostDirectory>(fd, join(name));
  }
  Status make_directory(std::string_view name) override {
    for (size_t end = name.find('/');; end = name.find('/', end + 1)) {
      std::string part(name.substr(0, end));
      if (::mkdirat(fd_.get(), part.c_str(), 0755) == 0) {
        TRY(sync_parent(part));
      } else if (errno != EEXIST) {
        return failed(join(part), "create");
      }
      if (end == std::string_view::npos) break;
    }
    struct stat st;
    if (::fstatat(fd_.get(), std::string(name).c_str(), &st, 0) != 0) return failed(join(name), "create");
    if (!S_ISDIR(st.st_mode)) {
      errno = ENOTDIR;
      return failed(join(name), "create");
    }
    return {};
  }
  Result<bool> exists(std::string_view name) override {
    struct stat st;
    if (::fstatat(fd_.get(), std::string(name).c_str(), &st, AT_SYMLINK_NOFOLLOW) == 0) return true;
    if (errno == ENOENT) return false;
    return failed(join(name), "stat");
  }
  Status rename(std::string_view from, std::string_view to) override {
    if (::renameat(fd_.get(), std::string(from).c_str(), fd_.get(), std::string(to).c_str()) != 0) {
      return failed(join(from), "rename to " + std::string(to));
    }
    return {};
  }
  Status unlink(std::string_view name) override {
    if (::unlinkat(fd_.get(), std::string(name).c_str(), 0) == 0) return {};
    if (errno == EISDIR && ::unlinkat(fd_.get(), std::string(name).c_str(), AT_REMOVEDIR) == 0) return {};
    return failed(join(name), "remove");
  }
  Result<std::vector<std::string>> list() override {
    int fd = ::openat(fd_.get(), ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) return failed(path_, "list");
    DIR* stream = ::fdopendir(fd);
    CHECK(stream != nullptr);
    std::vector<std::string> names;
    errno = 0;
    while (dirent* entry = ::readdir(stream)) {
      std::string_view name = entry->d_name;
      if (name != "." && name != "..") names.emplace_back(name);
      errno = 0;
    }
    int code = errno;
    ::closedir(stream);
    errno = code;
    if (code != 0) return failed(path_, "list");
    std::sort(names.begin(), names.end());
    return names;
  }
  Status sync() override {
    if (::fsync(fd_.get()) != 0) return failed(path_, "sync");
    return {};
  }
  const std::string& path() const override { return path_; }

 private:
  // Why it could not be opened: it is a socket, a directory, or a symlink that leads nowhere or is not
  // followed.
  bool is_no_file(std::string_view name, int code) const {
    struct stat st;
    if (code == ENXIO || code == ELOOP || code == EISDIR) return true;
    return code == ENOENT && ::fstatat(fd_.get(), std::string(name).c_str(), &st, AT_SYMLINK_NOFOLLOW) == 0 &&
           S_ISLNK(st.st_mode);
  }
  std::string join(std::string_view name) const { return path_ + "/" + std::string(name); }
  // A folder that was just made is as lasting as what will be kept in it.
  Status sync_parent(std::string_view name) {
    size_t slash = name.rfind('/');
    if (slash == std::string_view::npos) return sync();
    auto parent = TRY(open_directory(name.substr(0, slash)));
    return parent->sync();
  }

  Descriptor fd_;
  std::string path_;
};

}  // namespace

Result<std::unique_ptr<Directory>> open_host_directory(const std::string& path, bool create) {
  if (create) {
    for (size_t end = path.find('/', 1);; end = path.find('/', end + 1)) {
      if (::mkdir(path.substr(0, end).c_str(), 0755) != 0 && errno != EEXIST) return failed(path, "create");
      if (end == std::string::npos) break;
    }
  }
  int fd = ::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return failed(path, "open");
  return std::make_unique<HostDirectory>(fd, path);
}

Status check_is_file(const std::string& path) {
  struct stat st;
  if (::lstat(path.c_str(), &st) == 0) return S_ISREG(st.st_mode) ? Status{} : no_file(path);
  return errno == ENOENT ? Status{} : failed(path, "stat");
}

Status reserve_file_blocks(const std::string& path, uint64_t bytes) {
  int fd = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NONBLOCK | O_NOFOLLOW, 0644);
  if (fd < 0 && (errno == EACCES || errno == EPERM || errno == EROFS || errno == ENOENT)) return {};
  if (fd < 0) return failed(path, "open");
  Descriptor file(fd);
  if (::fallocate(fd, FALLOC_FL_KEEP_SIZE, 0, static_cast<off_t>(bytes)) == 0) return {};
  if (errno == EOPNOTSUPP || errno == ENOSYS) return {};
  return failed(path, "set aside blocks for");
}

}  // namespace reprise

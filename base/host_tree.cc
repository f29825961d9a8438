#include "base/host_tree.h"

#include <dirent.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <linux/openat2.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <utility>

#include "base/check.h"
#include "base/host_file.h"

namespace reprise {
namespace {

// What Linux allows.
constexpr size_t kXattrListMax = 65536, kXattrValueMax = 65536;

std::unexpected<Error> failed(const std::string& path, std::string_view doing) {
  int code = errno;
  return std::unexpected(Error::from_errno(code, fmt::format("{}: cannot {}", printable(path), doing)));
}

timespec to_timespec(Timestamp t) {
  return {.tv_sec = t.sec, .tv_nsec = static_cast<long>(t.nsec)};
}

HostEntry to_entry(const struct stat& st) {
  HostEntry entry;
  entry.mode = st.st_mode;
  entry.uid = st.st_uid;
  entry.gid = st.st_gid;
  entry.size = static_cast<uint64_t>(st.st_size);
  entry.rdev = st.st_rdev;
  entry.device = st.st_dev;
  entry.inode = st.st_ino;
  entry.nlink = st.st_nlink;
  entry.atime = {st.st_atim.tv_sec, static_cast<uint32_t>(st.st_atim.tv_nsec)};
  entry.mtime = {st.st_mtim.tv_sec, static_cast<uint32_t>(st.st_mtim.tv_nsec)};
  entry.ctime = {st.st_ctim.tv_sec, static_cast<uint32_t>(st.st_ctim.tv_nsec)};
  return entry;
}

std::string parent_of(const std::string& path) {
  size_t slash = path.rfind('/');
  return slash == std::string::npos ? "" : path.substr(0, slash);
}
std::string name_of(const std::string& path) {
  return path.substr(path.rfind('/') + 1);
}

Result<std::vector<std::string>> list_descriptor(Descriptor directory, const std::string& path) {
  DIR* stream = ::fdopendir(directory.get());
  if (stream == nullptr) return failed(path, "list");
  directory.release();
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
  if (code != 0) return failed(path, "list");
  std::sort(names.begin(), names.end());
  return names;
}

class OpenFile final : public HostTreeFile {
 public:
  OpenFile(Descriptor fd, const std::string& path) : file_(std::move(fd), path) {}

  Result<size_t> pread(ByteSpan into, uint64_t offset) override { return file_.pread(into, offset); }
  Status pwrite(ByteView bytes, uint64_t offset) override { return file_.pwrite(bytes, offset); }
  Status resize(uint64_t bytes) override { return file_.resize(bytes); }
  Result<uint64_t> seek_data(uint64_t offset) override { return seek(offset, SEEK_DATA); }
  Result<uint64_t> seek_hole(uint64_t offset) override { return seek(offset, SEEK_HOLE); }
  Result<HostEntry> stat() override {
    struct stat st;
    if (::fstat(file_.fd(), &st) != 0) return failed(file_.path(), "stat");
    return to_entry(st);
  }

 private:
  Result<uint64_t> seek(uint64_t offset, int whence) {
    off_t found = ::lseek(file_.fd(), static_cast<off_t>(offset), whence);
    if (found >= 0) return static_cast<uint64_t>(found);
    if (errno == ENXIO) return TRY(stat()).size;
    if (errno == EINVAL) return whence == SEEK_DATA ? offset : TRY(stat()).size;
    return failed(file_.path(), "seek in");
  }

  HostFile file_;
};

// Removes `name` in the directory `at` with everything in it. Keeps no more than one descriptor a level.
Status remove_tree(int at, const std::string& name, const std::string& shown) {
  if (::unlinkat(at, name.c_str(), 0) == 0 || errno == ENOENT) return {};
  if (errno != EISDIR && errno != EPERM) return failed(shown, "remove");
  int fd = ::openat(at, name.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
  if (fd < 0) return failed(shown, "remove");
  Descriptor directory(fd);
  Descriptor listed(::openat(fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (listed.get() < 0) return failed(shown, "list");
  for (const std::string& entry : TRY(list_descriptor(std::move(listed), shown))) {
    TRY(remove_tree(directory.get(), entry, fmt::format("{}/{}", shown, entry)));
  }
  if (::unlinkat(at, name.c_str(), AT_REMOVEDIR) != 0) return failed(shown, "remove");
  return {};
}

class OpenTree final : public HostTree {
 public:
  OpenTree(Descriptor fd, std::string path) : fd_(std::move(fd)), path_(std::move(path)) {}

  const std::string& path() const override { return path_; }

  Result<HostEntry> stat(const std::string& path) override {
    Descriptor fd = TRY(open_beneath(path, O_PATH | O_NOFOLLOW, "stat"));
    struct stat st;
    if (::fstat(fd.get(), &st) != 0) return failed(shown(path), "stat");
    return to_entry(st);
  }
  Result<std::vector<std::string>> list(const std::string& directory) override {
    return list_descriptor(TRY(open_beneath(directory, O_RDONLY | O_DIRECTORY, "list")), shown(directory));
  }
  Result<std::vector<HostName>> scan(const std::string& directory) override {
    Descriptor fd = TRY(open_beneath(directory, O_RDONLY | O_DIRECTORY, "list"));
    Descriptor listed(::dup(fd.get()));
    if (listed.get() < 0) return failed(shown(directory), "list");
    std::vector<HostName> found;
    for (std::string& name : TRY(list_descriptor(std::move(listed), shown(directory)))) {
      struct stat st;
      if (::fstatat(fd.get(), name.c_str(), &st, AT_SYMLINK_NOFOLLOW) != 0) {
        if (errno == ENOENT) continue;
        return failed(shown(directory) + "/" + name, "stat");
      }
      HostName entry{.name = std::move(name), .entry = to_entry(st), .target = {}, .has_xattrs = false};
      if (S_ISLNK(st.st_mode)) {
        entry.target.resize(4096);
        ssize_t n = ::readlinkat(fd.get(), entry.name.c_str(), entry.target.data(), entry.target.size());
        if (n < 0 && errno == ENOENT) continue;
        if (n < 0) return failed(shown(directory) + "/" + entry.name, "read the link");
        entry.target.resize(static_cast<size_t>(n));
      } else {
        entry.has_xattrs = may_have_xattrs(fd.get(), entry.name);
      }
      found.push_back(std::move(entry));
    }
    return found;
  }
  Result<std::unique_ptr<HostTreeFile>> open_file(const std::string& path) override {
    // Not to be caught by a FIFO that has come in the place of the file.
    constexpr uint64_t kFlags = O_RDONLY | O_NOFOLLOW | O_NONBLOCK;
    auto quietly = open_beneath(path, kFlags | O_NOATIME, "open");
    bool refused = !quietly && quietly.error().sys_errno() == EPERM;  // to who does not own the file
    Descriptor fd = TRY(refused ? open_beneath(path, kFlags, "open") : std::move(quietly));
    auto file = std::make_unique<OpenFile>(std::move(fd), shown(path));
    if (!S_ISREG(TRY(file->stat()).mode)) {
      return fail(Code::kInvalidArgument,
                  printable(shown(path)) + ": expected a regular file, found something else");
    }
    return file;
  }
  Result<std::string> read_link(const std::string& path) override {
    Descriptor fd = TRY(open_beneath(path, O_PATH | O_NOFOLLOW, "read"));
    std::string target(4096, '\0');
    ssize_t n = ::readlinkat(fd.get(), "", target.data(), target.size());
    if (n < 0) return failed(shown(path), "read the link");
    target.resize(static_cast<size_t>(n));
    return target;
  }

  Status make_directory(const std::string& path) override {
    Descriptor parent = TRY(open_parent(path));
    if (::mkdirat(parent.get(), name_of(path).c_str(), 0700) != 0) return failed(shown(path), "create");
    return {};
  }
  Result<std::unique_ptr<HostTreeFile>> create_file(const std::string& path) override {
    Descriptor fd = TRY(open_beneath(path, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW, "create", 0600));
    return std::make_unique<OpenFile>(std::move(fd), shown(path));
  }
  Status make_symlink(const std::string& path, const std::string& target) override {
    Descriptor parent = TRY(open_parent(path));
    if (::symlinkat(target.c_str(), parent.get(), name_of(path).c_str()) != 0)
      return failed(shown(path), "create");
    return {};
  }
  Status make_node(const std::string& path, uint32_t mode, uint64_t rdev) override {
    Descriptor parent = TRY(open_parent(path));
    if (::mknodat(parent.get(), name_of(path).c_str(), mode, rdev) != 0) return failed(shown(path), "create");
    return {};
  }
  Status link(const std::string& existing, const std::string& path) override {
    Descriptor from = TRY(open_parent(existing));
    Descriptor to = TRY(open_parent(path));
    if (::linkat(from.get(), name_of(existing).c_str(), to.get(), name_of(path).c_str(), 0) != 0) {
      return failed(shown(path), "link");
    }
    return {};
  }
  Status set_owner(const std::string& path, uint32_t uid, uint32_t gid) override {
    Descriptor parent = TRY(open_parent(path));
    if (::fchownat(parent.get(), last_part(path).c_str(), uid, gid, AT_SYMLINK_NOFOLLOW) != 0) {
      return failed(shown(path), "change the owner of");
    }
    return {};
  }
  Status set_mode(const std::string& path, uint32_t mode) override {
    // chmod has no form that does not follow links, so it goes through a descriptor that is known to be none.
    Descriptor fd = TRY(open_beneath(path, O_PATH | O_NOFOLLOW, "change the mode of"));
    struct stat st;
    if (::fstat(fd.get(), &st) != 0) return failed(shown(path), "stat");
    if (S_ISLNK(st.st_mode))
      return fail(Code::kInvalidArgument, shown(path) + ": a symbolic link has no mode");
    if (::chmod(fmt::format("/proc/self/fd/{}", fd.get()).c_str(), mode) != 0) {
      return failed(shown(path), "change the mode of");
    }
    return {};
  }
  Status set_times(const std::string& path, Timestamp atime, Timestamp mtime) override {
    Descriptor parent = TRY(open_parent(path));
    timespec times[2] = {to_timespec(atime), to_timespec(mtime)};
    if (::utimensat(parent.get(), last_part(path).c_str(), times, AT_SYMLINK_NOFOLLOW) != 0) {
      return failed(shown(path), "set the times of");
    }
    return {};
  }
  Status set_xattr(const std::string& path, const std::string& name, ByteView value) override {
    Descriptor fd = TRY(open_beneath(path, O_PATH | O_NOFOLLOW, "set attributes of"));
    std::string proc = fmt::format("/proc/self/fd/{}", fd.get());
    if (::setxattr(proc.c_str(), name.c_str(), value.data(), value.size(), 0) != 0) {
      return failed(shown(path), fmt::format("set the attribute {} of", printable(name)));
    }
    return {};
  }

  Result<std::vector<std::pair<std::string, Bytes>>> xattrs(const std::string& path) override {
    Descriptor fd = TRY(open_beneath(path, O_PATH | O_NOFOLLOW, "list attributes of"));
    std::string proc = fmt::format("/proc/self/fd/{}", fd.get());
    std::string names;
    ssize_t size = ::listxattr(proc.c_str(), nullptr, 0);
    if (size > 0) {
      names.resize(kXattrListMax);  // there may be more of them by now
      size = ::listxattr(proc.c_str(), names.data(), names.size());
    }
    if (size < 0 && errno == ENOTSUP) size = 0;
    if (size < 0) return failed(shown(path), "list the attributes of");
    names.resize(static_cast<size_t>(size));
    std::vector<std::pair<std::string, Bytes>> found;
    for (size_t begin = 0; begin < names.size(); begin = names.find('\0', begin) + 1) {
      std::string name = names.c_str() + begin;
      Bytes value(kXattrValueMax);
      ssize_t got = ::getxattr(proc.c_str(), name.c_str(), value.data(), value.size());
      if (got < 0 && errno == ENODATA) continue;  // it went meanwhile
      if (got < 0) return failed(shown(path), fmt::format("read the attribute {} of", printable(name)));
      value.resize(static_cast<size_t>(got));
      found.emplace_back(std::move(name), std::move(value));
    }
    std::sort(found.begin(), found.end());
    return found;
  }
  Status rename(const std::string& from, const std::string& to) override {
    Descriptor from_parent = TRY(open_parent(from));
    Descriptor to_parent = TRY(open_parent(to));
    if (::renameat(from_parent.get(), name_of(from).c_str(), to_parent.get(), name_of(to).c_str()) != 0)
      return failed(shown(to), "put in place");
    return {};
  }
  Status remove_all(const std::string& path) override {
    Descriptor parent = TRY(open_parent(path));
    return remove_tree(parent.get(), name_of(path), shown(path));
  }
  Status remove_file(const std::string& path) override { return remove_entry(path, 0); }
  Status remove_directory(const std::string& path) override { return remove_entry(path, AT_REMOVEDIR); }
  Status sync() override {
    if (::syncfs(fd_.get()) != 0) return failed(path_, "sync");
    return {};
  }

 private:
  Status remove_entry(const std::string& path, int flags) {
    Descriptor parent = TRY(open_parent(path));
    if (::unlinkat(parent.get(), name_of(path).c_str(), flags) != 0) return failed(shown(path), "remove");
    return {};
  }
  // Not through a link: the name is looked up in the directory, and its last part is meant itself.
  static bool may_have_xattrs(int directory, const std::string& name) {
    std::string proc = fmt::format("/proc/self/fd/{}/{}", directory, name);
    ssize_t size = ::llistxattr(proc.c_str(), nullptr, 0);
    return size > 0 || (size < 0 && errno != ENOTSUP && errno != ENOENT);
  }
  std::string shown(const std::string& path) const { return path.empty() ? path_ : path_ + "/" + path; }
  static std::string last_part(const std::string& path) { return path.empty() ? "." : name_of(path); }

  Result<Descriptor> open_beneath(const std::string& path, uint64_t flags, std::string_view doing,
                                  uint64_t mode = 0) {
    open_how how = {};
    how.flags = flags | O_CLOEXEC;
    how.mode = mode;
    how.resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS;
    if ((flags & O_PATH) != 0 && !path.empty()) {
      // A link as the last part is meant itself here, which RESOLVE_NO_SYMLINKS would refuse.
      Descriptor parent = TRY(open_parent(path));
      int fd = ::openat(parent.get(), name_of(path).c_str(), static_cast<int>(how.flags));
      if (fd < 0) return failed(shown(path), doing);
      return Descriptor(fd);
    }
    std::string name = path.empty() ? "." : path;
    int fd = static_cast<int>(::syscall(SYS_openat2, fd_.get(), name.c_str(), &how, sizeof how));
    if (fd < 0) return failed(shown(path), doing);
    return Descriptor(fd);
  }
  Result<Descriptor> open_parent(const std::string& path) {
    return open_beneath(path.empty() ? "" : parent_of(path), O_RDONLY | O_DIRECTORY, "open the directory of");
  }

  Descriptor fd_;
  std::string path_;
};

class Staged final : public StagedHostTree {
 public:
  Staged(Descriptor parent, std::string temporary, std::string name, std::string parent_path)
      : parent_(std::move(parent)),
        temporary_(std::move(temporary)),
        name_(std::move(name)),
        parent_path_(std::move(parent_path)) {}
  ~Staged() override {
    // Nobody is left to hear of a failure; what stays behind is hidden and says by its name what it is.
    if (!published_) (void)remove_tree(parent_.get(), temporary_, parent_path_ + "/" + temporary_);
  }
  Status open_tree() {
    tree_ = TRY(HostTree::open(parent_path_ + "/" + temporary_));
    return {};
  }
  HostTree& tree() override { return *tree_; }
  Status publish() override {
    CHECK(!published_);
    TRY(tree_->sync());
    // A directory may be renamed over an empty one, and over nothing else.
    if (::renameat(parent_.get(), temporary_.c_str(), parent_.get(), name_.c_str()) != 0) {
      if (errno == ENOTEMPTY || errno == EEXIST || errno == ENOTDIR) {
        return fail(Code::kAlreadyExists,
                    fmt::format("{}/{}: expected a new path or an empty directory, found other files",
                                parent_path_, name_));
      }
      return failed(parent_path_ + "/" + name_, "put in place");
    }
    published_ = true;
    if (::fsync(parent_.get()) != 0) return failed(parent_path_, "sync");
    return {};
  }

 private:
  Descriptor parent_;
  std::string temporary_, name_, parent_path_;
  std::unique_ptr<HostTree> tree_;
  bool published_ = false;
};

}  // namespace

std::string canonical_host_path(const std::string& path) {
  std::string existing = path, rest;
  for (;;) {
    if (char* resolved = ::realpath(existing.empty() ? "." : existing.c_str(), nullptr)) {
      std::string out = resolved + rest;
      ::free(resolved);
      return out;
    }
    size_t slash = existing.rfind('/');
    if (errno != ENOENT || existing.empty() || slash == 0) return path;
    rest.insert(0, existing, slash == std::string::npos ? 0 : slash + 1);
    rest.insert(0, 1, '/');
    existing.resize(slash == std::string::npos ? 0 : slash);
  }
}

Result<std::unique_ptr<HostTree>> HostTree::open(const std::string& path) {
  int fd = ::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return failed(path, "open");
  return std::make_unique<OpenTree>(Descriptor(fd), path);
}

Result<std::unique_ptr<StagedHostTree>> StagedHostTree::begin(const std::string& path, Random& random) {
  std::string trimmed = path;
  while (trimmed.size() > 1 && trimmed.back() == '/') trimmed.pop_back();
  std::string name = name_of(trimmed);
  if (name.empty() || name == "." || name == "..") {
    return fail(Code::kInvalidArgument,
                path + ": expected the path of a directory to make, found one without a name");
  }
  size_t slash = trimmed.rfind('/');
  std::string parent_path = slash == std::string::npos ? "." : slash == 0 ? "/" : trimmed.substr(0, slash);
  Descriptor parent(::open(parent_path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (parent.get() < 0) return failed(parent_path, "open");

  struct stat st;
  if (::fstatat(parent.get(), name.c_str(), &st, AT_SYMLINK_NOFOLLOW) == 0) {
    std::string_view found = S_ISDIR(st.st_mode) ? "" : "something that is no directory";
    if (S_ISDIR(st.st_mode)) {
      Descriptor there(::openat(parent.get(), name.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
      if (there.get() < 0) return failed(trimmed, "open");
      if (!TRY(list_descriptor(std::move(there), trimmed)).empty()) found = "a directory with files in it";
    }
    if (!found.empty()) {
      return fail(Code::kAlreadyExists,
                  fmt::format("{}: expected a new path or an empty directory, found {}", trimmed, found));
    }
  }
  std::string temporary =
      fmt::format(".{}.reprise-{:08x}", name.substr(0, 200), static_cast<uint32_t>(random.next()));
  if (::mkdirat(parent.get(), temporary.c_str(), 0700) != 0)
    return failed(parent_path + "/" + temporary, "create");
  auto staged = std::make_unique<Staged>(std::move(parent), temporary, name, parent_path);
  TRY(staged->open_tree());
  return staged;
}

}  // namespace reprise

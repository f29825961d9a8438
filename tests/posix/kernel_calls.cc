#include "tests/posix/kernel_calls.h"

#include <dirent.h>
#include <stdio.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <array>
#include <cstring>

#include "base/check.h"

namespace reprise::posix {
namespace {

constexpr int kStatusFlags = O_ACCMODE | O_APPEND | O_PATH;

Outcome<void> done(long result) {
  if (result < 0) return fs::errno_of(errno);
  return {};
}
template <class T>
Outcome<T> counted(long result) {
  if (result < 0) return fs::errno_of(errno);
  return static_cast<T>(result);
}

Attributes attributes_of(const struct stat& st) {
  return {.inode = InodeId{st.st_ino},
          .mode = st.st_mode,
          .uid = st.st_uid,
          .gid = st.st_gid,
          .nlink = static_cast<uint32_t>(st.st_nlink),
          .size = static_cast<uint64_t>(st.st_size),
          .blocks = static_cast<uint64_t>(st.st_blocks) * 512 / fs::kBlockSize,
          .rdev = st.st_rdev,
          .atime = {st.st_atim.tv_sec, static_cast<uint32_t>(st.st_atim.tv_nsec)},
          .mtime = {st.st_mtim.tv_sec, static_cast<uint32_t>(st.st_mtim.tv_nsec)},
          .ctime = {st.st_ctim.tv_sec, static_cast<uint32_t>(st.st_ctim.tv_nsec)}};
}

}  // namespace

namespace {

struct State {
  Credentials who;
  int root = -1;
  int directory = -1;
  uint32_t umask = 0;
};

std::vector<uint32_t> groups_of_this_thread() {
  std::vector<uint32_t> groups(static_cast<size_t>(::getgroups(0, nullptr)));
  CHECK(::getgroups(static_cast<int>(groups.size()), groups.data()) >= 0);
  return groups;
}

// Who the calling thread is at the moment, and who it was before any caller. As long as something of it is in
// a KernelRoot.
class ThreadIdentity {
 public:
  static std::shared_ptr<ThreadIdentity> of_this_thread() {
    auto found = known().lock();
    if (!found) known() = found = std::make_shared<ThreadIdentity>();
    return found;
  }
  // Null where there is no KernelRoot.
  static std::weak_ptr<ThreadIdentity>& known() {
    thread_local std::weak_ptr<ThreadIdentity> identity;
    return identity;
  }

  ThreadIdentity() {
    CHECK(::geteuid() == 0);
    // First, as "/" is another one after it. Whoever mounts something asks whether it was possible.
    (void)keep_mounts_private();
    CHECK(::unshare(CLONE_FS) == 0);  // other threads keep theirs
    proc_ = ::open("/proc/thread-self/fd", O_PATH | O_DIRECTORY | O_CLOEXEC);
    before_.root = ::open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
    before_.directory = ::open(".", O_PATH | O_DIRECTORY | O_CLOEXEC);
    CHECK(proc_ >= 0 && before_.root >= 0 && before_.directory >= 0);
    before_.who = {0, ::getegid(), groups_of_this_thread()};
    before_.umask = ::umask(0);
    ::umask(before_.umask);
    groups_ = before_.who.groups;
    root_ = before_.root;
  }
  ~ThreadIdentity() {
    leave();
    for (int fd : {proc_, before_.root, before_.directory}) ::close(fd);
  }
  ThreadIdentity(const ThreadIdentity&) = delete;
  ThreadIdentity& operator=(const ThreadIdentity&) = delete;

  int proc() const { return proc_; }
  void leave() { become(before_); }

  // By the thread's own system calls: libc's wrappers change every thread of the process.
  void become(const State& next) {
    if (current_ == &next) return;
    CHECK(::syscall(SYS_setresuid, 0, 0, 0) == 0);
    if (groups_ != next.who.groups)
      CHECK(::syscall(SYS_setgroups, next.who.groups.size(), next.who.groups.data()) == 0);
    if (root_ != next.root) CHECK(::fchdir(next.root) == 0 && ::chroot(".") == 0);
    CHECK(::fchdir(next.directory) == 0);
    ::umask(next.umask);
    CHECK(::syscall(SYS_setresgid, next.who.gid, next.who.gid, -1) == 0);
    CHECK(::syscall(SYS_setresuid, next.who.uid, next.who.uid, 0) == 0);
    groups_ = next.who.groups;
    root_ = next.root;
    current_ = &next;
  }

 private:
  int proc_ = -1;
  State before_;
  std::vector<uint32_t> groups_;
  int root_ = -1;
  const State* current_ = &before_;
};

}  // namespace

// What the callers of one root share.
class KernelRoot::Callers {
 public:
  explicit Callers(int root) : as_root_{.who = {}, .root = root, .directory = root, .umask = 0} {}
  ~Callers() { thread_->leave(); }

  const State& as_root() const { return as_root_; }
  ThreadIdentity& thread() { return *thread_; }

 private:
  std::shared_ptr<ThreadIdentity> thread_ = ThreadIdentity::of_this_thread();
  State as_root_;
};

namespace {

class KernelCalls final : public Calls {
 public:
  KernelCalls(KernelRoot::Callers& callers, const Credentials& who) : thread_(callers.thread()) {
    thread_.become(callers.as_root());
    int top = ::open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
    CHECK(top >= 0);
    state_ = {.who = who, .root = callers.as_root().root, .directory = top, .umask = 0};
  }
  ~KernelCalls() override {
    thread_.leave();  // before the state it may be in goes
    ::close(state_.directory);
    for (int fd : open_) ::close(fd);
  }

  uint32_t set_umask(uint32_t umask) override {
    enter();
    ::umask(umask & 0777);
    return std::exchange(state_.umask, umask & 0777);
  }
  Outcome<int> open(PathAt path, int flags, uint32_t mode) override {
    return opened(::openat(at(path), text(path), flags | O_CLOEXEC, mode));
  }
  Outcome<void> close(int fd) override {
    enter();
    std::erase(open_, fd);
    return done(::close(fd));
  }
  Outcome<int> dup(int fd) override {
    enter();
    return opened(::fcntl(fd, F_DUPFD_CLOEXEC, 0));
  }
  Outcome<int> status_flags(int fd) override {
    enter();
    int flags = TRY(counted<int>(::fcntl(fd, F_GETFL)));
    return flags & kStatusFlags;
  }
  Outcome<void> set_status_flags(int fd, int flags) override {
    enter();
    return done(::fcntl(fd, F_SETFL, flags));
  }
  Outcome<std::string> read(int fd, size_t length) override {
    enter();
    std::string bytes(length, '\0');
    bytes.resize(TRY(counted<size_t>(::read(fd, bytes.data(), length))));
    return bytes;
  }
  Outcome<std::string> pread(int fd, size_t length, int64_t offset) override {
    enter();
    std::string bytes(length, '\0');
    bytes.resize(TRY(counted<size_t>(::pread(fd, bytes.data(), length, offset))));
    return bytes;
  }
  Outcome<size_t> write(int fd, std::string_view data) override {
    enter();
    return counted<size_t>(::write(fd, data.data(), data.size()));
  }
  Outcome<size_t> pwrite(int fd, std::string_view data, int64_t offset) override {
    enter();
    return counted<size_t>(::pwrite(fd, data.data(), data.size(), offset));
  }
  Outcome<int64_t> seek(int fd, int64_t offset, int whence) override {
    enter();
    return counted<int64_t>(::lseek(fd, offset, whence));
  }
  Outcome<Attributes> fstat(int fd) override { return stat({fd, ""}, AT_EMPTY_PATH); }
  Outcome<void> ftruncate(int fd, int64_t size) override {
    enter();
    return done(::ftruncate(fd, size));
  }
  Outcome<void> fchmod(int fd, uint32_t mode) override {
    enter();
    return done(::fchmod(fd, mode));
  }
  Outcome<void> fchown(int fd, uint32_t uid, uint32_t gid) override {
    enter();
    return done(::fchown(fd, uid, gid));
  }
  Outcome<void> futimens(int fd, const timespec* times) override {
    enter();
    return done(::futimens(fd, times));
  }
  Outcome<void> fallocate(int fd, int mode, int64_t offset, int64_t length) override {
    enter();
    return done(::fallocate(fd, mode, offset, length));
  }
  Outcome<size_t> copy_file_range(int from, int64_t* from_offset, int to, int64_t* to_offset,
                                  size_t length) override {
    enter();
    return counted<size_t>(::copy_file_range(from, from_offset, to, to_offset, length, 0));
  }
  Outcome<void> fsync(int fd) override {
    enter();
    return done(::fsync(fd));
  }
  Outcome<std::vector<DirectoryEntry>> read_directory(int fd, size_t max) override;

  Outcome<Attributes> stat(PathAt path, int flags) override {
    struct stat st;
    TRY(done(::fstatat(at(path), text(path), &st, flags)));
    return attributes_of(st);
  }
  Outcome<void> access(PathAt path, int wanted) override {
    return done(::faccessat(at(path), text(path), wanted, AT_EACCESS));
  }
  Outcome<void> mkdir(PathAt path, uint32_t mode) override {
    return done(::mkdirat(at(path), text(path), mode));
  }
  Outcome<void> mknod(PathAt path, uint32_t mode, uint64_t rdev) override {
    return done(::mknodat(at(path), text(path), mode, rdev));
  }
  Outcome<void> symlink(std::string_view target, PathAt path) override {
    return done(::symlinkat(std::string(target).c_str(), at(path), text(path)));
  }
  Outcome<std::string> readlink(PathAt path) override {
    char target[8192];
    auto length = TRY(counted<size_t>(::readlinkat(at(path), text(path), target, sizeof target)));
    return std::string(target, length);
  }
  Outcome<void> link(PathAt old_path, PathAt new_path, int flags) override {
    return done(::linkat(at(old_path), text(old_path), at(new_path), text(new_path, other_), flags));
  }
  Outcome<void> link_descriptor(int fd, PathAt new_path) override {
    std::string name = std::to_string(fd);
    return done(::linkat(thread_.proc(), name.c_str(), at(new_path), text(new_path), AT_SYMLINK_FOLLOW));
  }
  Outcome<void> unlink(PathAt path, int flags) override {
    return done(::unlinkat(at(path), text(path), flags));
  }
  Outcome<void> rename(PathAt old_path, PathAt new_path, unsigned flags) override {
    return done(
        ::syscall(SYS_renameat2, at(old_path), text(old_path), at(new_path), text(new_path, other_), flags));
  }
  Outcome<void> truncate(PathAt path, int64_t size) override {
    enter();
    return done(::truncate(text(path), size));
  }
  Outcome<void> chmod(PathAt path, uint32_t mode) override {
    return done(::syscall(SYS_fchmodat, at(path), text(path), mode));
  }
  Outcome<void> chown(PathAt path, uint32_t uid, uint32_t gid, int flags) override {
    return done(::fchownat(at(path), text(path), uid, gid, flags));
  }
  Outcome<void> utimens(PathAt path, const timespec* times, int flags) override {
    return done(::utimensat(at(path), text(path), times, flags));
  }
  Outcome<void> chdir(std::string_view path) override {
    enter();
    TRY(done(::chdir(std::string(path).c_str())));
    return remember_directory();
  }
  Outcome<void> fchdir(int fd) override {
    enter();
    TRY(done(::fchdir(fd)));
    return remember_directory();
  }
  Outcome<std::string> working_directory() override {
    enter();
    char path[4096];
    TRY(counted<size_t>(::syscall(SYS_getcwd, path, sizeof path)));
    return std::string(path);
  }

  Outcome<std::string> get_xattr(PathAt path, std::string_view name) override {
    enter();
    std::string key(name), value(70000, '\0');
    bool by_fd = path.directory != AT_FDCWD;
    value.resize(
        TRY(counted<size_t>(by_fd ? ::fgetxattr(path.directory, key.c_str(), value.data(), value.size())
                                  : ::lgetxattr(text(path), key.c_str(), value.data(), value.size()))));
    return value;
  }
  Outcome<std::string> list_xattrs(PathAt path) override {
    enter();
    std::string names(70000, '\0');
    bool by_fd = path.directory != AT_FDCWD;
    names.resize(TRY(counted<size_t>(by_fd ? ::flistxattr(path.directory, names.data(), names.size())
                                           : ::llistxattr(text(path), names.data(), names.size()))));
    return names;
  }
  Outcome<void> set_xattr(PathAt path, std::string_view name, std::string_view value,
                          XattrMode mode) override {
    enter();
    std::string key(name);
    constexpr std::array<int, 4> kFlags = {0, XATTR_CREATE, XATTR_REPLACE, XATTR_CREATE | XATTR_REPLACE};
    const int flags = kFlags.at(static_cast<size_t>(mode));
    bool by_fd = path.directory != AT_FDCWD;
    return done(by_fd ? ::fsetxattr(path.directory, key.c_str(), value.data(), value.size(), flags)
                      : ::lsetxattr(text(path), key.c_str(), value.data(), value.size(), flags));
  }
  Outcome<void> remove_xattr(PathAt path, std::string_view name) override {
    enter();
    std::string key(name);
    return done(path.directory != AT_FDCWD ? ::fremovexattr(path.directory, key.c_str())
                                           : ::lremovexattr(text(path), key.c_str()));
  }
  Outcome<Capacity> statfs() override {
    enter();
    struct statvfs s;
    TRY(done(::statvfs("/", &s)));
    uint64_t scale = s.f_frsize;
    return Capacity{s.f_blocks * scale / fs::kBlockSize, s.f_bfree * scale / fs::kBlockSize, s.f_files,
                    s.f_ffree, s.f_namemax};
  }

 private:
  void enter() { thread_.become(state_); }
  int at(const PathAt& path) {
    enter();
    return path.directory;
  }
  const char* text(const PathAt& path) { return text(path, path_); }
  static const char* text(const PathAt& path, std::string& into) {
    into.assign(path.path);
    return into.c_str();
  }
  Outcome<int> opened(int fd) {
    if (fd < 0) return fs::errno_of(errno);
    open_.push_back(fd);
    return fd;
  }
  Outcome<void> remember_directory() {
    int now = ::open(".", O_PATH | O_DIRECTORY | O_CLOEXEC);
    CHECK(now >= 0);
    ::close(std::exchange(state_.directory, now));
    return {};
  }

  ThreadIdentity& thread_;
  State state_;
  std::string path_, other_;
  std::vector<int> open_;
};

// Reads more than it needs and goes back to behind what it shows.
Outcome<std::vector<DirectoryEntry>> KernelCalls::read_directory(int fd, size_t max) {
  enter();
  alignas(dirent64) char buffer[8192];
  auto got = TRY(counted<size_t>(::syscall(SYS_getdents64, fd, buffer, sizeof buffer)));
  std::vector<DirectoryEntry> entries;
  for (size_t position = 0; position < got;) {
    const auto* entry = reinterpret_cast<const dirent64*>(buffer + position);
    entries.push_back({entry->d_name, InodeId{entry->d_ino}, entry->d_type});
    position += entry->d_reclen;
    if (entries.size() < max) continue;
    if (position < got) CHECK(::lseek(fd, entry->d_off, SEEK_SET) == entry->d_off);
    break;
  }
  return entries;
}

}  // namespace

KernelRoot::KernelRoot(MountedFilesystem filesystem) : filesystem_(std::move(filesystem)) {
  CHECK(filesystem_.root >= 0);
  callers_ = std::make_unique<Callers>(filesystem_.root);
}

KernelRoot::~KernelRoot() {
  callers_.reset();
  ::close(filesystem_.root);
  if (filesystem_.dismount) filesystem_.dismount();
}

void KernelRoot::leave() {
  if (auto identity = ThreadIdentity::known().lock()) identity->leave();
}

void KernelRoot::make_read_only() {
  leave();
  const int options = ::fspick(filesystem_.root, "", FSPICK_EMPTY_PATH | FSPICK_CLOEXEC);
  CHECK(options >= 0);
  CHECK(::fsconfig(options, FSCONFIG_SET_FLAG, "ro", nullptr, 0) == 0);
  CHECK(::fsconfig(options, FSCONFIG_CMD_RECONFIGURE, nullptr, nullptr, 0) == 0);
  ::close(options);
}

std::unique_ptr<Calls> KernelRoot::calls(const Credentials& who) {
  return std::make_unique<KernelCalls>(*callers_, who);
}

}  // namespace reprise::posix

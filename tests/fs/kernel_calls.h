// Puts calls to the kernel, in a temporary directory. As root, actors other than the process's own act by
// setfsuid(2).
#pragma once

#include <dirent.h>
#include <grp.h>
#include <sys/fsuid.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>

#include "tests/fs/guest_calls.h"

namespace reprise::fs {

// The process's own credentials first; if it may take on others, two more.
inline std::vector<Credentials> actors_of_this_process() {
  std::vector<uint32_t> groups(static_cast<size_t>(getgroups(0, nullptr)));
  CHECK(getgroups(static_cast<int>(groups.size()), groups.data()) >= 0);
  std::vector<Credentials> actors{{geteuid(), getegid(), groups}};
  if (geteuid() == 0) {
    actors.push_back({1000, 1000, groups});
    actors.push_back({1001, 1000, groups});
  }
  return actors;
}

class KernelCallee final : public Callee {
 public:
  explicit KernelCallee(std::vector<Credentials> actors) : actors_(std::move(actors)) {
    umask_ = ::umask(0);
    // The reference is tmpfs where there is one: nlink of directories, O_TMPFILE and exchanges are not on all
    // the others.
    bool shared_memory = access("/dev/shm", W_OK | X_OK) == 0;
    std::filesystem::path base = shared_memory ? "/dev/shm" : std::filesystem::temp_directory_path();
    std::string made = base / "reprise-test-XXXXXX";
    CHECK(mkdtemp(made.data()) != nullptr);
    top_ = made;
    CHECK(chmod(top_.c_str(), 0755) == 0);
    std::string path = top_;
    for (int i = 0; i < 3; ++i) {
      path += "/n";
      CHECK(mkdir(path.c_str(), 0777) == 0);
    }
    bottom_ = ::open(path.c_str(), O_PATH | O_DIRECTORY);
    before_ = ::open(".", O_PATH | O_DIRECTORY);
    CHECK(bottom_ >= 0 && before_ >= 0 && fchdir(bottom_) == 0);  // there is no truncateat
  }
  ~KernelCallee() override {
    for (int fd : handles_)
      if (fd >= 0) ::close(fd);
    CHECK(fchdir(before_) == 0);
    ::close(before_);
    ::close(bottom_);
    ::umask(umask_);
    make_removable(top_);
    std::error_code ignored;  // what is left lies in the temporary directory
    std::filesystem::remove_all(top_, ignored);
  }

  std::string perform(const Call& c) override {
    // A handle is its opener's, as it is among guests.
    int& opener = openers_[static_cast<size_t>(c.slot)];
    std::string answer = perform_as(is_by_handle(c.kind) ? opener : c.actor, c);
    if (c.kind == Kind::kOpen && answer == ok()) opener = c.actor;
    return answer;
  }
  std::string perform_as(int actor, const Call& c) {
    const Credentials& who = actors_[static_cast<size_t>(actor)];
    if (actor == 0) return call(c);
    setfsgid(who.gid);
    setfsuid(who.uid);  // drops the capabilities over files as well
    std::string answer = call(c);
    setfsuid(actors_[0].uid);
    setfsgid(actors_[0].gid);
    return answer;
  }

  std::map<std::string, std::string> tree() override {
    std::map<std::string, std::string> found;
    std::map<uint64_t, std::string> first_names;
    describe_below("", found, first_names);
    return found;
  }

  int bottom() const { return bottom_; }

 private:
  static std::string shown(long result) { return result < 0 ? failed(errno) : ok(); }
  static std::string counted(long result) { return result < 0 ? failed(errno) : ok(std::to_string(result)); }
  static std::string describe(const struct stat& st) {
    return GuestCallee::describe_attributes(st.st_mode, st.st_uid, st.st_gid, st.st_nlink,
                                            static_cast<uint64_t>(st.st_size));
  }
  std::string stat_at(int fd, const std::string& path, int flags) {
    struct stat st;
    return fstatat(fd, path.c_str(), &st, flags) < 0 ? failed(errno) : ok(describe(st));
  }

  std::string call(const Call& c) {
    const char* path = c.path.c_str();
    const char* other = c.other.c_str();
    switch (c.kind) {
      case Kind::kOpen:
        return open(c);
      case Kind::kStat:
        return stat_at(bottom_, c.path, 0);
      case Kind::kLstat:
        return stat_at(bottom_, c.path, AT_SYMLINK_NOFOLLOW);
      case Kind::kAccess:
        return shown(faccessat(bottom_, path, c.flags, AT_EACCESS));
      case Kind::kTruncate:
        return shown(::truncate(path, c.offset));
      case Kind::kMkdir:
        return shown(mkdirat(bottom_, path, c.mode));
      case Kind::kMknod:
        return shown(mknodat(bottom_, path, c.mode, 0));
      case Kind::kUnlink:
        return shown(unlinkat(bottom_, path, 0));
      case Kind::kRmdir:
        return shown(unlinkat(bottom_, path, AT_REMOVEDIR));
      case Kind::kRename:
        return shown(syscall(SYS_renameat2, bottom_, path, bottom_, other, static_cast<unsigned>(c.flags)));
      case Kind::kLink:
        return shown(linkat(bottom_, path, bottom_, other, c.flags));
      case Kind::kSymlink:
        return shown(symlinkat(other, bottom_, path));
      case Kind::kReadlink:
        return readlink(c.path);
      case Kind::kChmod:
        return shown(fchmodat(bottom_, path, c.mode, 0));
      case Kind::kChown:
        return shown(fchownat(bottom_, path, c.mode, c.mode, AT_SYMLINK_NOFOLLOW));
      case Kind::kList:
        return list(c.path);
      case Kind::kTouch: {
        const timespec times[2] = {{5, c.flags == 2 ? 6 : UTIME_OMIT}, {7, c.flags == 2 ? 8 : UTIME_NOW}};
        return shown(utimensat(bottom_, path, c.flags == 0 ? nullptr : times, 0));
      }
      default:
        return by_handle(c);
    }
  }

  std::string readlink(const std::string& path) {
    char target[4096];
    ssize_t n = readlinkat(bottom_, path.c_str(), target, sizeof target);
    return n < 0 ? failed(errno) : ok(std::string(target, static_cast<size_t>(n)));
  }

  std::string open(const Call& c) {
    int fd = openat(bottom_, c.path.c_str(), c.flags, c.mode & 0777);
    if (fd < 0) return failed(errno);
    int& handle = handles_[static_cast<size_t>(c.slot)];
    if (handle >= 0) ::close(handle);
    handle = fd;
    return ok();
  }

  std::string by_handle(const Call& c) {
    int& handle = handles_[static_cast<size_t>(c.slot)];
    if (handle < 0) return "no handle";
    std::string bytes(c.length, c.fill);
    switch (c.kind) {
      case Kind::kClose:
        return shown(::close(std::exchange(handle, -1)));
      case Kind::kWrite:
        return counted(::write(handle, bytes.data(), bytes.size()));
      case Kind::kPwrite:
        return counted(::pwrite(handle, bytes.data(), bytes.size(), c.offset));
      case Kind::kFtruncate:
        return shown(::ftruncate(handle, c.offset));
      case Kind::kFchmod:
        return shown(::fchmod(handle, c.mode));
      case Kind::kFallocate:
        return shown(::fallocate(handle, c.flags, c.offset, static_cast<off_t>(c.length)));
      case Kind::kLinkHandle: {  // as it is done without capabilities
        std::string proc = "/proc/self/fd/" + std::to_string(handle);
        return shown(linkat(AT_FDCWD, proc.c_str(), bottom_, c.path.c_str(), AT_SYMLINK_FOLLOW));
      }
      case Kind::kCopyRange: {
        off_t from = c.offset, to = c.flags;
        return counted(copy_file_range(handle, &from, handles_[c.mode], &to, c.length, 0));
      }
      case Kind::kFstat:
        return stat_at(handle, "", AT_EMPTY_PATH);
      case Kind::kSeek: {
        struct stat st;
        if (fstat(handle, &st) == 0 && S_ISDIR(st.st_mode)) return "not compared";
        return counted(lseek(handle, c.offset, c.flags));
      }
      case Kind::kRead: {
        ssize_t n = ::read(handle, bytes.data(), bytes.size());
        return n < 0 ? failed(errno) : ok(bytes.substr(0, static_cast<size_t>(n)));
      }
      default:
        CHECK(false);
    }
  }

  std::string list(const std::string& path) {
    int fd = openat(bottom_, path.c_str(), O_RDONLY | O_DIRECTORY);
    if (fd < 0) return failed(errno);
    std::vector<std::string> names;
    DIR* directory = fdopendir(fd);
    errno = 0;
    while (dirent* entry = readdir(directory)) {
      std::string name = entry->d_name;
      if (name != "." && name != "..") names.push_back(name + " " + std::to_string(entry->d_type) + ",");
    }
    closedir(directory);
    std::ranges::sort(names);
    std::string all;
    for (const std::string& name : names) all += name;
    return ok(all);
  }

  void describe_below(const std::string& path, std::map<std::string, std::string>& found,
                      std::map<uint64_t, std::string>& first_names) {
    std::vector<std::string> names;
    DIR* directory = opendir((top_ + path).c_str());
    if (directory == nullptr) {
      found[path + "/"] = failed(errno);
      return;
    }
    while (dirent* entry = readdir(directory)) names.emplace_back(entry->d_name);
    closedir(directory);
    std::ranges::sort(names);
    for (const std::string& entry : names) {
      if (entry == "." || entry == "..") continue;
      std::string name = path + "/" + entry, full = top_ + name;
      struct stat st;
      CHECK(lstat(full.c_str(), &st) == 0);
      std::string text = describe(st);
      // Whoever is not root has to let himself in first.
      bool opens = geteuid() != 0 && (S_ISREG(st.st_mode) || S_ISDIR(st.st_mode));
      if (opens) CHECK(chmod(full.c_str(), 0700) == 0);
      if (S_ISREG(st.st_mode)) text += " bytes " + contents(full);
      if (S_ISLNK(st.st_mode)) text += " to " + std::filesystem::read_symlink(full).string();
      if (!S_ISDIR(st.st_mode)) text += " is " + first_names.try_emplace(st.st_ino, name).first->second;
      found[name] = text;
      if (S_ISDIR(st.st_mode)) describe_below(name, found, first_names);
      if (opens) CHECK(chmod(full.c_str(), st.st_mode & 07777) == 0);
    }
  }

  static std::string contents(const std::string& path) {
    std::string bytes;
    int fd = ::open(path.c_str(), O_RDONLY);
    if (fd < 0) return failed(errno);
    char buffer[65536];
    for (ssize_t n; (n = ::read(fd, buffer, sizeof buffer)) > 0;)
      bytes.append(buffer, static_cast<size_t>(n));
    ::close(fd);
    return bytes;
  }

  static void make_removable(const std::string& top) {
    chmod(top.c_str(), 0700);
    std::error_code ignored;  // a directory that vanished needs no permission
    for (auto& entry : std::filesystem::directory_iterator(top, ignored))
      if (entry.is_directory(ignored) && !entry.is_symlink(ignored)) make_removable(entry.path());
  }

  std::vector<Credentials> actors_;
  std::string top_;
  mode_t umask_;
  int bottom_ = -1, before_ = -1;
  std::array<int, kSlots> openers_{};
  std::array<int, kSlots> handles_{-1, -1, -1};
};

}  // namespace reprise::fs

#include "tests/posix/guest_calls.h"

namespace reprise::posix {
namespace {

fs::GuestOptions options_of(const Credentials& who) {
  return {.uid = who.uid, .gid = who.gid, .groups = who.groups, .trusted = false, .umask = 0};
}

// What of a descriptor's flags is the same everywhere: the kernel has some of its own.
constexpr int kStatusFlags = O_ACCMODE | O_APPEND | O_PATH;

class GuestCalls final : public Calls {
 public:
  GuestCalls(fs::Filesystem& filesystem, const Credentials& who) : guest_(filesystem, options_of(who)) {}

  uint32_t set_umask(uint32_t umask) override { return guest_.set_umask(umask); }
  Outcome<int> open(PathAt path, int flags, uint32_t mode) override { return guest_.open(path, flags, mode); }
  Outcome<void> close(int fd) override { return guest_.close(fd); }
  Outcome<int> dup(int fd) override { return guest_.dup(fd); }
  Outcome<int> status_flags(int fd) override {
    int flags = TRY(guest_.status_flags(fd));
    return flags & kStatusFlags;
  }
  Outcome<void> set_status_flags(int fd, int flags) override { return guest_.set_status_flags(fd, flags); }
  Outcome<std::string> read(int fd, size_t length) override {
    std::string bytes(length, '\0');
    bytes.resize(TRY(guest_.read(fd, std::as_writable_bytes(std::span(bytes)))));
    return bytes;
  }
  Outcome<std::string> pread(int fd, size_t length, int64_t offset) override {
    std::string bytes(length, '\0');
    bytes.resize(TRY(guest_.pread(fd, std::as_writable_bytes(std::span(bytes)), offset)));
    return bytes;
  }
  Outcome<size_t> write(int fd, std::string_view data) override { return guest_.write(fd, as_bytes(data)); }
  Outcome<size_t> pwrite(int fd, std::string_view data, int64_t offset) override {
    return guest_.pwrite(fd, as_bytes(data), offset);
  }
  Outcome<int64_t> seek(int fd, int64_t offset, int whence) override {
    return guest_.seek(fd, offset, whence);
  }
  Outcome<Attributes> fstat(int fd) override { return guest_.fstat(fd); }
  Outcome<void> ftruncate(int fd, int64_t size) override { return guest_.ftruncate(fd, size); }
  Outcome<void> fchmod(int fd, uint32_t mode) override { return guest_.fchmod(fd, mode); }
  Outcome<void> fchown(int fd, uint32_t uid, uint32_t gid) override { return guest_.fchown(fd, uid, gid); }
  Outcome<void> futimens(int fd, const timespec* times) override { return guest_.futimens(fd, times); }
  Outcome<void> fallocate(int fd, int mode, int64_t offset, int64_t length) override {
    return guest_.fallocate(fd, mode, offset, length);
  }
  Outcome<size_t> copy_file_range(int from, int64_t* from_offset, int to, int64_t* to_offset,
                                  size_t length) override {
    return guest_.copy_file_range(from, from_offset, to, to_offset, length);
  }
  Outcome<void> fsync(int fd) override { return guest_.fsync(fd); }
  Outcome<std::vector<DirectoryEntry>> read_directory(int fd, size_t max) override {
    return guest_.read_directory(fd, max);
  }

  Outcome<Attributes> stat(PathAt path, int flags) override { return guest_.stat(path, flags); }
  Outcome<void> access(PathAt path, int wanted) override { return guest_.access(path, wanted); }
  Outcome<void> mkdir(PathAt path, uint32_t mode) override { return guest_.mkdir(path, mode); }
  Outcome<void> mknod(PathAt path, uint32_t mode, uint64_t rdev) override {
    return guest_.mknod(path, mode, rdev);
  }
  Outcome<void> symlink(std::string_view target, PathAt path) override {
    return guest_.symlink(target, path);
  }
  Outcome<std::string> readlink(PathAt path) override { return guest_.readlink(path); }
  Outcome<void> link(PathAt old_path, PathAt new_path, int flags) override {
    return guest_.link(old_path, new_path, flags);
  }
  Outcome<void> link_descriptor(int fd, PathAt new_path) override {
    return guest_.link({fd, ""}, new_path, AT_EMPTY_PATH);
  }
  Outcome<void> unlink(PathAt path, int flags) override { return guest_.unlink(path, flags); }
  Outcome<void> rename(PathAt old_path, PathAt new_path, unsigned flags) override {
    return guest_.rename(old_path, new_path, flags);
  }
  Outcome<void> truncate(PathAt path, int64_t size) override { return guest_.truncate(path, size); }
  Outcome<void> chmod(PathAt path, uint32_t mode) override { return guest_.chmod(path, mode); }
  Outcome<void> chown(PathAt path, uint32_t uid, uint32_t gid, int flags) override {
    return guest_.chown(path, uid, gid, flags);
  }
  Outcome<void> utimens(PathAt path, const timespec* times, int flags) override {
    return guest_.utimens(path, times, flags);
  }
  Outcome<void> chdir(std::string_view path) override { return guest_.chdir(path); }
  Outcome<void> fchdir(int fd) override { return guest_.fchdir(fd); }
  Outcome<std::string> working_directory() override { return guest_.working_directory(); }

  Outcome<std::string> get_xattr(PathAt path, std::string_view name) override {
    Bytes value = TRY(guest_.get_xattr(path, name, at_end(path)));
    return std::string(as_text(value));
  }
  Outcome<std::string> list_xattrs(PathAt path) override { return guest_.list_xattrs(path, at_end(path)); }
  Outcome<void> set_xattr(PathAt path, std::string_view name, std::string_view value,
                          XattrMode mode) override {
    return guest_.set_xattr(path, name, as_bytes(value), mode, at_end(path));
  }
  Outcome<void> remove_xattr(PathAt path, std::string_view name) override {
    return guest_.remove_xattr(path, name, at_end(path));
  }
  Outcome<Capacity> statfs() override {
    fs::StatFs s = guest_.filesystem().stat_fs();
    return Capacity{s.blocks_total, s.blocks_free, s.inodes_total, s.inodes_free, fs::kNameMax};
  }

 private:
  static int at_end(const PathAt& path) {
    return path.directory == AT_FDCWD ? AT_SYMLINK_NOFOLLOW : AT_EMPTY_PATH;
  }

  fs::Guest guest_;
};

}  // namespace

std::unique_ptr<Calls> guest_calls(fs::Filesystem& filesystem, const Credentials& who) {
  return std::make_unique<GuestCalls>(filesystem, who);
}

}  // namespace reprise::posix

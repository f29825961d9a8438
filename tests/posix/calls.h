// Calls: what a program can ask of a filesystem, as an interface, so that one test can be put to a fs::Guest
// and to a kernel. Signatures and errors are fs::Guest's, which are POSIX's.
//
// One object is one caller: credentials, working directory, umask and descriptors are its own. One thread at
// a time.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "fs/guest.h"

namespace reprise::posix {

using fs::Attributes;
using fs::DirectoryEntry;
using fs::Outcome;
using fs::PathAt;
using fs::XattrMode;

struct Credentials {
  uint32_t uid = 0, gid = 0;
  std::vector<uint32_t> groups;  // supplementary
  auto operator<=>(const Credentials&) const = default;
};

struct Capacity {
  uint64_t blocks_total, blocks_free;  // of fs::kBlockSize
  uint64_t inodes_total, inodes_free;
  uint64_t name_max;
};

class Calls {
 public:
  virtual ~Calls() = default;

  virtual uint32_t set_umask(uint32_t umask) = 0;
  virtual Outcome<int> open(PathAt path, int flags, uint32_t mode = 0666) = 0;
  virtual Outcome<void> close(int fd) = 0;
  virtual Outcome<int> dup(int fd) = 0;
  virtual Outcome<int> status_flags(int fd) = 0;
  virtual Outcome<void> set_status_flags(int fd, int flags) = 0;
  virtual Outcome<std::string> read(int fd, size_t length) = 0;
  virtual Outcome<std::string> pread(int fd, size_t length, int64_t offset) = 0;
  virtual Outcome<size_t> write(int fd, std::string_view data) = 0;
  virtual Outcome<size_t> pwrite(int fd, std::string_view data, int64_t offset) = 0;
  virtual Outcome<int64_t> seek(int fd, int64_t offset, int whence) = 0;
  virtual Outcome<Attributes> fstat(int fd) = 0;
  virtual Outcome<void> ftruncate(int fd, int64_t size) = 0;
  virtual Outcome<void> fchmod(int fd, uint32_t mode) = 0;
  virtual Outcome<void> fchown(int fd, uint32_t uid, uint32_t gid) = 0;
  virtual Outcome<void> futimens(int fd, const timespec* times) = 0;
  virtual Outcome<void> fallocate(int fd, int mode, int64_t offset, int64_t length) = 0;
  virtual Outcome<size_t> copy_file_range(int from, int64_t* from_offset, int to, int64_t* to_offset,
                                          size_t length) = 0;
  virtual Outcome<void> fsync(int fd) = 0;
  virtual Outcome<std::vector<DirectoryEntry>> read_directory(int fd, size_t max) = 0;

  virtual Outcome<Attributes> stat(PathAt path, int flags = 0) = 0;
  virtual Outcome<void> access(PathAt path, int wanted) = 0;  // with the effective ids
  virtual Outcome<void> mkdir(PathAt path, uint32_t mode = 0777) = 0;
  virtual Outcome<void> mknod(PathAt path, uint32_t mode, uint64_t rdev = 0) = 0;
  virtual Outcome<void> symlink(std::string_view target, PathAt path) = 0;
  virtual Outcome<std::string> readlink(PathAt path) = 0;
  virtual Outcome<void> link(PathAt old_path, PathAt new_path, int flags = 0) = 0;
  // As link, of what a descriptor is open on: by AT_EMPTY_PATH or, where that takes privileges, /proc.
  virtual Outcome<void> link_descriptor(int fd, PathAt new_path) = 0;
  virtual Outcome<void> unlink(PathAt path, int flags = 0) = 0;
  virtual Outcome<void> rename(PathAt old_path, PathAt new_path, unsigned flags = 0) = 0;
  virtual Outcome<void> truncate(PathAt path, int64_t size) = 0;
  virtual Outcome<void> chmod(PathAt path, uint32_t mode) = 0;
  virtual Outcome<void> chown(PathAt path, uint32_t uid, uint32_t gid, int flags = 0) = 0;
  virtual Outcome<void> utimens(PathAt path, const timespec* times, int flags = 0) = 0;
  virtual Outcome<void> chdir(std::string_view path) = 0;
  virtual Outcome<void> fchdir(int fd) = 0;
  virtual Outcome<std::string> working_directory() = 0;
  // Of a path, not following a symlink at its end, or of a descriptor.
  virtual Outcome<std::string> get_xattr(PathAt path, std::string_view name) = 0;
  virtual Outcome<std::string> list_xattrs(PathAt path) = 0;  // names in no order, each ended by NUL
  virtual Outcome<void> set_xattr(PathAt path, std::string_view name, std::string_view value,
                                  XattrMode mode = XattrMode::kAny) = 0;
  virtual Outcome<void> remove_xattr(PathAt path, std::string_view name) = 0;
  virtual Outcome<Capacity> statfs() = 0;

  // --- made of the above
  Outcome<void> rmdir(PathAt path) { return unlink(path, AT_REMOVEDIR); }
  Outcome<Attributes> lstat(PathAt path) { return stat(path, AT_SYMLINK_NOFOLLOW); }
  Outcome<std::string> read_file(PathAt path);
  Outcome<void> write_file(PathAt path, std::string_view bytes, uint32_t mode = 0666);
  // Names without "." and "..", sorted.
  Outcome<std::vector<DirectoryEntry>> list(PathAt path);
};

// "ok", or the errno's name.
std::string name_of(int error);
template <class T>
std::string name_of(const Outcome<T>& outcome) {
  return outcome ? "ok" : name_of(static_cast<int>(outcome.error()));
}

}  // namespace reprise::posix

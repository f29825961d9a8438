// Guest: one interpreter attached to a Filesystem by path: descriptor table, working directory, credentials,
// umask and label. Calls are POSIX's, flags and errno Linux's (O_…, AT_…, RENAME_…, FALLOC_FL_…, UTIME_…).
//
// Many guests share one Filesystem. One guest is used by one thread at a time; its Filesystem must outlive
// it. Descriptors and the working directory pin their inodes until they are closed, at the latest with the
// guest. Not here: pipes and devices. Opening a FIFO or socket is ENXIO, a device EACCES as where a
// filesystem is mounted with nodev.
//
//   Guest guest(filesystem, {.label = "request 42"});
//   int fd = TRY(guest.open("/hello", O_CREAT | O_WRONLY));
#pragma once

#include <fcntl.h>

#include <functional>
#include <memory>
#include <stop_token>
#include <string>
#include <string_view>
#include <vector>

#include "fs/filesystem.h"
#include "fs/path_walk.h"

namespace reprise::fs {

struct GuestOptions {
  uint32_t uid = 0, gid = 0;
  std::vector<uint32_t> groups;  // supplementary
  bool trusted = true;           // skip permission checks
  uint32_t umask = 022;
  std::string label;
  int32_t pid = 0;  // what F_GETLK says of its locks
  size_t descriptors_max = 65536;
  // Runs when fsync is called, and after each write through O_SYNC or O_DSYNC.
  std::function<Outcome<void>()> on_sync;
};

// A path as the *at calls take it: from a directory's descriptor, or from the working directory. A bare
// string will do.
struct PathAt {
  template <class Text>
    requires std::convertible_to<const Text&, std::string_view>
  PathAt(const Text& from_working_directory) : path(from_working_directory) {}  // NOLINT: meant to convert
  PathAt(int fd, std::string_view from_there) : directory(fd), path(from_there) {}

  int directory = AT_FDCWD;
  std::string_view path;
};

struct DirectoryEntry {
  std::string name;
  InodeId inode;
  uint8_t type = 0;  // DT_…
};

class Guest {
 public:
  explicit Guest(Filesystem& filesystem, GuestOptions options = {});
  ~Guest();
  Guest(const Guest&) = delete;
  Guest& operator=(const Guest&) = delete;

  Filesystem& filesystem() { return filesystem_; }
  void set_label(std::string label) { options_.label = std::move(label); }
  uint32_t set_umask(uint32_t umask);  // returns the old one

  // --- descriptors: the lowest number that is free
  Outcome<int> open(PathAt path, int flags, uint32_t mode = 0666);
  Outcome<void> close(int fd);
  Outcome<int> dup(int fd);
  Outcome<int> dup_to(int fd, int wanted);            // dup2
  Outcome<int> status_flags(int fd);                  // F_GETFL
  Outcome<void> set_status_flags(int fd, int flags);  // F_SETFL: O_APPEND, O_SYNC, O_DSYNC
  Outcome<size_t> read(int fd, ByteSpan into);
  Outcome<size_t> pread(int fd, ByteSpan into, int64_t offset);
  Outcome<size_t> write(int fd, ByteView data);
  Outcome<size_t> pwrite(int fd, ByteView data, int64_t offset);
  Outcome<int64_t> seek(int fd, int64_t offset, int whence);  // SEEK_SET, CUR, END, DATA, HOLE
  Outcome<Attributes> fstat(int fd);
  Outcome<void> ftruncate(int fd, int64_t size);
  Outcome<void> fchmod(int fd, uint32_t mode);
  Outcome<void> fchown(int fd, uint32_t uid, uint32_t gid);
  Outcome<void> futimens(int fd, const timespec* times);
  Outcome<void> fallocate(int fd, int mode, int64_t offset, int64_t length);
  // Null offsets stand for the descriptors' own positions; all are moved on.
  Outcome<size_t> copy_file_range(int from, int64_t* from_offset, int to, int64_t* to_offset, size_t length);
  Outcome<void> fsync(int fd);
  // Up to max entries from the descriptor's position; none at the end.
  Outcome<std::vector<DirectoryEntry>> read_directory(int fd, size_t max = 256);

  // --- advisory locks (fs/locks.h), in fs/guest_locks.cc. Those of flock and of open files (OFD) belong to
  // the open file and go with its last descriptor; those of fcntl to this guest, and go when it closes any
  // descriptor of the file. Who waits is EINTR once `interrupted` asks to stop.
  Outcome<void> flock(int fd, int operation, std::stop_token interrupted = {});
  Outcome<void> set_lock(int fd, int command, const struct flock& wanted,  // F_SETLK[W], F_OFD_SETLK[W]
                         std::stop_token interrupted = {});
  Outcome<struct flock> get_lock(int fd, int command, const struct flock& wanted);  // F_GETLK, F_OFD_GETLK

  // --- paths. flags: AT_SYMLINK_NOFOLLOW, AT_SYMLINK_FOLLOW (link), AT_REMOVEDIR, AT_EMPTY_PATH as Linux
  // takes them.
  Outcome<Attributes> stat(PathAt path, int flags = 0);
  Outcome<Attributes> lstat(PathAt path) { return stat(path, AT_SYMLINK_NOFOLLOW); }
  Outcome<void> access(PathAt path, int wanted);
  Outcome<void> mkdir(PathAt path, uint32_t mode = 0777);
  Outcome<void> mknod(PathAt path, uint32_t mode, uint64_t rdev = 0);
  Outcome<void> symlink(std::string_view target, PathAt path);
  Outcome<std::string> readlink(PathAt path);
  Outcome<void> link(PathAt old_path, PathAt new_path, int flags = 0);
  Outcome<void> unlink(PathAt path, int flags = 0);
  Outcome<void> rmdir(PathAt path) { return unlink(path, AT_REMOVEDIR); }
  Outcome<void> rename(PathAt old_path, PathAt new_path, unsigned flags = 0);
  Outcome<void> truncate(PathAt path, int64_t size);
  Outcome<void> chmod(PathAt path, uint32_t mode);
  Outcome<void> chown(PathAt path, uint32_t uid, uint32_t gid, int flags = 0);  // UINT32_MAX leaves it
  Outcome<void> lchown(PathAt path, uint32_t uid, uint32_t gid) {
    return chown(path, uid, gid, AT_SYMLINK_NOFOLLOW);
  }
  Outcome<void> utimens(PathAt path, const timespec* times, int flags = 0);  // null: now
  Outcome<void> chdir(std::string_view path);
  Outcome<void> fchdir(int fd);
  Outcome<std::string> working_directory();  // ENOENT when it has been removed
  Outcome<Bytes> get_xattr(PathAt path, std::string_view name, int flags = 0);
  Outcome<std::string> list_xattrs(PathAt path, int flags = 0);
  Outcome<void> set_xattr(PathAt path, std::string_view name, ByteView value,
                          XattrMode mode = XattrMode::kAny, int flags = 0);
  Outcome<void> remove_xattr(PathAt path, std::string_view name, int flags = 0);

  // --- whole files and directories
  Outcome<std::string> read_file(PathAt path);
  // Creates the file or replaces what it holds.
  Outcome<void> write_file(PathAt path, std::string_view bytes, uint32_t mode = 0666);
  // All entries but "." and "..", sorted by name.
  Outcome<std::vector<DirectoryEntry>> list(PathAt path);

 private:
  // What descriptors made by dup share.
  struct OpenFile {
    OpenFile(Filesystem& fs, const Attributes& opened, int open_flags)
        : filesystem(fs), inode(opened.inode), type(opened.mode & S_IFMT), flags(open_flags) {}
    ~OpenFile() {
      if (lock_owner.id != 0) filesystem.locks().release(inode, lock_owner);
      filesystem.unpin(inode);
    }
    OpenFile(const OpenFile&) = delete;
    OpenFile& operator=(const OpenFile&) = delete;
    bool readable() const {
      return (flags & (O_PATH | O_ACCMODE)) == O_RDONLY || (flags & (O_PATH | O_ACCMODE)) == O_RDWR;
    }
    bool writable() const {
      return (flags & (O_PATH | O_ACCMODE)) == O_WRONLY || (flags & (O_PATH | O_ACCMODE)) == O_RDWR;
    }

    Filesystem& filesystem;
    const InodeId inode;
    const uint32_t type;  // S_IF…
    int flags;
    uint64_t position = 0;  // of a directory: cookie
    LockOwner lock_owner;   // of flock and OFD locks, once there was one
  };

  Caller caller() const;
  Outcome<OpenFile*> file(int fd) const;           // EBADF
  Outcome<OpenFile*> file_to_read(int fd) const;   // EBADF, EISDIR
  Outcome<OpenFile*> file_to_write(int fd) const;  // EBADF
  Outcome<int> add(std::shared_ptr<OpenFile> opened);
  Outcome<size_t> write_at(OpenFile& file, ByteView data, uint64_t* position);
  Outcome<void> sync_if_asked(const OpenFile& file);
  Outcome<void> set(int fd, const SetAttributesRequest& request);
  Outcome<Attributes> find_with_xattrs(PathAt path, int flags);
  Outcome<void> set(PathAt path, int flags, const SetAttributesRequest& request);

  // fs/guest_locks.cc
  LockOwner owner_of(OpenFile& opened, bool open_file);
  Outcome<LockRange> lock_range(const OpenFile& opened, const struct flock& wanted);
  void drop_locks(int fd);

  // fs/guest_open.cc
  Outcome<Attributes> find_to_open(PathAt path, int flags, uint32_t mode, bool& created);
  Outcome<Attributes> find_or_create(PathWalk& walk, Place place, int flags, uint32_t mode, bool& created);
  Outcome<void> may_open_in_sticky(const Place& place, const Attributes& found);
  Outcome<void> check_open(const Attributes& found, int flags, bool created);
  Outcome<int> open_unlinked(PathAt path, int flags, uint32_t mode);

  // fs/guest_paths.cc
  Outcome<InodeId> start_of(const PathAt& path, bool may_be_empty = false) const;
  Outcome<Attributes> find(PathAt path, int flags);
  Outcome<void> check_rename_slashes(PathWalk& old_walk, const Place& from, PathWalk& new_walk,
                                     const Place& to, RenameMode mode);
  template <class Make>
  Outcome<void> make(const PathAt& path, bool directory, const Make& make_at);

  Filesystem& filesystem_;
  GuestOptions options_;
  InodeId working_directory_ = kRootInode;
  LockOwner lock_owner_;  // of POSIX locks, once there was one
  std::vector<std::shared_ptr<OpenFile>> descriptors_;
};

}  // namespace reprise::fs

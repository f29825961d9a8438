// HostTree: a directory of the host with all that is below it, for writing a tree out and for reading one in.
//
// Every call is relative to the directory's descriptor and goes through openat2(2) with RESOLVE_BENEATH and
// RESOLVE_NO_SYMLINKS: whatever lies in the directory, or is put there meanwhile, nothing outside it is
// touched. A path is relative, its parts are parted by single '/', none is "." or ".."; "" is the directory
// itself where that makes sense. A path of more than 4095 bytes is ENAMETOOLONG. Errors name the path. Not
// for stores and journals: they use base/disk.h. Files are opened so that reading them leaves their time of
// access as it is, where the host allows that. Threads: one at a time for each object, but for pread and stat
// of a file.
#pragma once

#include <sys/stat.h>

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "base/bytes.h"
#include "base/clock.h"
#include "base/error.h"

namespace reprise {

// `path` with symbolic links and dots resolved as far as it exists; as given where that cannot be told.
std::string canonical_host_path(const std::string& path);

struct HostEntry {
  uint32_t mode = 0;  // type and permission bits
  uint32_t uid = 0, gid = 0;
  uint64_t size = 0;
  uint64_t rdev = 0;
  uint64_t device = 0, inode = 0;  // which inode of the host it is
  uint64_t nlink = 0;
  Timestamp atime, mtime, ctime;
};

// What HostTree::scan finds.
struct HostName {
  std::string name;
  HostEntry entry;
  std::string target;       // of a symlink
  bool has_xattrs = false;  // or cannot be asked for them
};

// An open file below a HostTree.
class HostTreeFile {
 public:
  virtual ~HostTreeFile() = default;
  virtual Result<size_t> pread(ByteSpan into, uint64_t offset) = 0;  // fewer only at the end
  virtual Status pwrite(ByteView bytes, uint64_t offset) = 0;
  virtual Status resize(uint64_t bytes) = 0;
  // Start of the next data, and of the next hole (the end counts as one), at or after offset; the file's size
  // if there is no more data. On filesystems that cannot tell, all is data.
  virtual Result<uint64_t> seek_data(uint64_t offset) = 0;
  virtual Result<uint64_t> seek_hole(uint64_t offset) = 0;
  virtual Result<HostEntry> stat() = 0;
};

class HostTree {
 public:
  static Result<std::unique_ptr<HostTree>> open(const std::string& path);
  virtual ~HostTree() = default;
  virtual const std::string& path() const = 0;

  // --- reading
  virtual Result<HostEntry> stat(const std::string& path) = 0;  // of a symlink, not of what it points to
  virtual Result<std::vector<std::string>> list(const std::string& directory) = 0;  // sorted by bytes
  // list, with the stat of each, in few calls. What goes meanwhile is left out.
  virtual Result<std::vector<HostName>> scan(const std::string& directory) = 0;
  virtual Result<std::unique_ptr<HostTreeFile>> open_file(const std::string& path) = 0;  // a regular file
  virtual Result<std::string> read_link(const std::string& path) = 0;
  // Extended attributes, sorted by name; not of a symlink. None where the host's filesystem has none.
  virtual Result<std::vector<std::pair<std::string, Bytes>>> xattrs(const std::string& path) = 0;

  // --- writing: the name must be new
  virtual Status make_directory(const std::string& path) = 0;                              // of mode 0700
  virtual Result<std::unique_ptr<HostTreeFile>> create_file(const std::string& path) = 0;  // of mode 0600
  virtual Status make_symlink(const std::string& path, const std::string& target) = 0;
  virtual Status make_node(const std::string& path, uint32_t mode,
                           uint64_t rdev) = 0;  // FIFO, socket, device
  virtual Status link(const std::string& existing, const std::string& path) = 0;
  virtual Status set_owner(const std::string& path, uint32_t uid, uint32_t gid) = 0;
  virtual Status set_mode(const std::string& path, uint32_t mode) = 0;  // not of a symlink
  virtual Status set_times(const std::string& path, Timestamp atime, Timestamp mtime) = 0;
  virtual Status set_xattr(const std::string& path, const std::string& name,
                           ByteView value) = 0;  // not of a symlink

  // --- what is there
  // `to` may be another file, which goes; of a directory it must be new.
  virtual Status rename(const std::string& from, const std::string& to) = 0;
  virtual Status remove_all(const std::string& path) = 0;  // with everything in it; nothing there is fine
  virtual Status remove_file(const std::string& path) = 0;
  virtual Status remove_directory(const std::string& path) = 0;  // an empty one
  // Everything written to the directory's filesystem is on the disk when it returns.
  virtual Status sync() = 0;
};

// A directory in the making: a hidden one beside `path`, which takes its place at publish() or goes, with all
// that is in it, when the object does. path must be missing, or an empty directory: kAlreadyExists.
class StagedHostTree {
 public:
  static Result<std::unique_ptr<StagedHostTree>> begin(const std::string& path, Random& random);
  virtual ~StagedHostTree() = default;
  virtual HostTree& tree() = 0;
  virtual Status publish() = 0;  // on the disk when it returns
};

}  // namespace reprise

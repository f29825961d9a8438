// Files and folders on the host's disk, behind an interface so that tests can drop, cut and refuse writes.
//
// Not a filesystem for guests (that is fs/): only what stores, journals and packs need of the disk. A name is
// a path relative to the Directory, with '/' between parts and no part "." or ".."; the caller vouches for
// that. Atomicity and durability are separate: rename() is atomic at once and durable after sync() of the
// directory; bytes are durable after sync_data(). Thread rules: a File may be used from several threads at
// disjoint ranges.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/bytes.h"
#include "base/error.h"

namespace reprise {

class File {
 public:
  virtual ~File() = default;
  // Reads up to into.size() bytes at offset; fewer only at the end of the file.
  virtual Result<size_t> pread(ByteSpan into, uint64_t offset) const = 0;
  // Writes all of bytes at offset, or fails; after a failure any part of them may have been written.
  virtual Status pwrite(ByteView bytes, uint64_t offset) = 0;
  virtual Result<uint64_t> size() const = 0;
  // Where, at or behind `offset`, there may next be bytes that are no zeros; the size, if nowhere: a file may
  // have holes larger than any disk.
  virtual Result<uint64_t> next_data(uint64_t offset) const { return offset; }
  virtual Status resize(uint64_t bytes) = 0;
  // Returns when the bytes and the size are on the disk. After a failure nothing may be assumed about any
  // byte written since the last success: never retry as if nothing had happened.
  virtual Status sync_data() = 0;
  // What messages call it: its path.
  virtual const std::string& path() const = 0;
};

enum class OpenMode {
  kRead,         // must exist
  kReadWrite,    // must exist
  kCreate,       // must not exist; read and write
  kCreateOrOpen  // read and write
};

class Directory {
 public:
  virtual ~Directory() = default;
  // Of what is no regular file kCorrupt.
  virtual Result<std::unique_ptr<File>> open(std::string_view name, OpenMode mode) = 0;
  virtual Result<std::unique_ptr<Directory>> open_directory(std::string_view name) = 0;
  // Creates name and what is missing above it, durably; succeeds if it is there already.
  virtual Status make_directory(std::string_view name) = 0;
  virtual Result<bool> exists(std::string_view name) = 0;
  virtual Status rename(std::string_view from, std::string_view to) = 0;
  virtual Status unlink(std::string_view name) = 0;
  // Names in this directory, sorted, without "." and "..".
  virtual Result<std::vector<std::string>> list() = 0;
  // Returns when entries created, renamed and removed in this directory are on the disk.
  virtual Status sync() = 0;
  virtual const std::string& path() const = 0;

  // The whole of a file, refused with kCorrupt when it is larger than limit bytes.
  Result<Bytes> read_file(std::string_view name, uint64_t limit);
  // Puts bytes in place under name all or nothing, durably: a temporary file, sync_data, rename, sync.
  Status replace_file(std::string_view name, ByteView bytes);
};

// Copies what `from` has from `begin` on to the beginning of `to`, which is empty, and syncs it. Zeros are
// not written: where there was a hole there is one. How many bytes.
Result<uint64_t> copy_sparsely(const File& from, uint64_t begin, File& to);

// The host's own directory at path; create makes it (and what is missing above it) first.
Result<std::unique_ptr<Directory>> open_host_directory(const std::string& path, bool create = false);

// Has the host's disk set aside blocks for the first bytes of a file that somebody is going to map and write
// to; makes the file where it is missing, and leaves its size as it is. kNoSpace. Where this user may not
// write the file, or the filesystem cannot set blocks aside, nothing is done.
Status reserve_file_blocks(const std::string& path, uint64_t bytes);

// kCorrupt if something else than a regular file lies there, a symlink to one too: for who is going to write
// by that path what shall not go elsewhere. Nothing there is good.
Status check_is_file(const std::string& path);

}  // namespace reprise

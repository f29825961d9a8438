// From a directory of the host, a ZIP or a tar to a tree. docs/import-export.md says what each can hold, and
// how what is dangerous in one is answered.
//
// All or none: a head that was given is left half changed by an error, so give one that can be thrown away
// (a Head of a View costs nothing). No name leads outside: not by "..", not by an absolute path, not through
// a symlink, whether it came with the archive or was there before. Bytes of archives are nobody's word:
// every size is checked against the limits before anything of it is allocated. Threads: one.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "base/error.h"
#include "base/host_stream.h"
#include "fs/tree.h"

namespace reprise::snapshot {

// What an archive may make of itself. 0 means none.
struct ImportLimits {
  uint64_t entries = 2'000'000;                 // made, directories that are only implied included
  uint64_t bytes = uint64_t{16} << 30;          // of file data that takes room, so zeros do not count
  uint64_t file_bytes = uint64_t{1} << 40;      // size of one file, holes and zeros included
  uint64_t unpacked_bytes = uint64_t{1} << 38;  // that have to be unpacked, zeros included
  uint64_t depth = 256;                         // names in a path
  // Bytes that take room for each byte of the archive, once they are more than 64 MiB. Zeros, which take
  // none, may be eleven times as many: that is more than deflate can make of a byte.
  uint64_t ratio = 100;

  static ImportLimits none() { return {0, 0, 0, 0, 0, 0}; }
};

struct ImportOptions {
  ImportLimits limits;
  bool set_ids = false;     // setuid and setgid bits
  bool devices = false;     // device nodes
  bool all_xattrs = false;  // security.* and trusted.*, too
  std::string into;         // a path in the tree, made if it is missing; "" is the root
  // Becomes the ctime of what is made, and all times of what has none in the archive.
  Timestamp now;

  static ImportOptions everything() { return {ImportLimits::none(), true, true, true, "", {}}; }
};

struct Imported {
  uint64_t entries = 0;  // names made, implied directories included
  uint64_t bytes = 0;    // of file data that is kept
  // What the archive has and the tree does not.
  uint64_t skipped_devices = 0, skipped_set_ids = 0, skipped_xattrs = 0;
  uint64_t replaced = 0;         // files that were there before, in the tree imported into
  uint64_t duplicates = 0;       // names that came again, in a tar: the later one counts
  uint64_t case_collisions = 0;  // names that some filesystems would take for another one's
  std::string first_duplicate, first_case_collision;  // paths, printable
};

using ImportProgress = std::function<void(const Imported&)>;

// A new tree, from a directory. Inode ids count up from the root in the order of a walk by names, so equal
// directories give equal ids. Through base/host_tree.h: no symlink is followed. A directory that changes
// meanwhile gives a tree of some of its states, file by file, or an error that names what went away.
Result<fs::Head> import_directory(const std::string& path, const ImportProgress& progress = nullptr);

// The same into a head, on top of what is there: directories are merged, other files replaced; a directory
// never takes the place of another file, nor the other way round.
Result<Imported> import_directory_into(fs::Head& head, const std::string& path, const ImportOptions& options,
                                       const ImportProgress& progress = nullptr);

// A ZIP or a tar, told by its first bytes; a tar may be compressed by gzip, bzip2, xz or zstd. A ZIP that can
// only be read from front to back is first put into a temporary file.
Result<Imported> import_archive(fs::Head& head, const std::string& path, const ImportOptions& options,
                                const ImportProgress& progress = nullptr);
Result<Imported> import_stream(fs::Head& head, std::unique_ptr<ByteSource> source,
                               const ImportOptions& options, const ImportProgress& progress = nullptr);

// One of the two for sure. `archive` is at its beginning.
Result<Imported> import_zip(fs::Head& head, const File& archive, const ImportOptions& options,
                            const ImportProgress& progress = nullptr);
Result<Imported> import_tar(fs::Head& head, ByteSource& archive, const ImportOptions& options,
                            const ImportProgress& progress = nullptr);

}  // namespace reprise::snapshot

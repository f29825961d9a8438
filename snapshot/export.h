// From a tree to a directory of the host, a ZIP or a tar, and what can be compared with it there.
// docs/import-export.md says what each can hold.
//
// Left out unless asked for, and counted: setuid and setgid, devices, `security.*` and `trusted.*`
// attributes; of a directory, owners, too. What the format cannot hold is left out and counted. A directory
// appears whole or not at all, through base/host_tree.h, so that nothing outside it is touched. Equal trees
// give equal bytes of a ZIP or a tar, however they came to be; what is in them comes in the order of its
// names. Threads: one.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/disk.h"
#include "base/error.h"
#include "base/host_stream.h"
#include "fs/tree.h"

namespace reprise::snapshot {

// Which part of a tree. Patterns are those of a shell: '*' and '?' match no '/'. One without a '/' is about a
// name, wherever it is; one with a '/' about a path from the top. What a pattern is about it says of all
// below it, too.
struct PathFilter {
  std::vector<std::string> include;  // empty: everything
  std::vector<std::string> exclude;  // counts more
};

struct ExportOptions {
  bool owners = false;      // of a directory: uid and gid as in the tree; needs root
  bool set_ids = false;     // setuid and setgid bits
  bool devices = false;     // device nodes; in a directory that needs root
  bool all_xattrs = false;  // security.* and trusted.*, too; in a directory that needs root
  PathFilter filter;
};

struct Exported {
  uint64_t files = 0, directories = 0, symlinks = 0, others = 0, hard_links = 0;
  uint64_t bytes = 0;  // of file data written
  // What the tree has and the export does not.
  uint64_t skipped_devices = 0, skipped_sockets = 0, skipped_set_ids = 0, skipped_xattrs = 0;
  uint64_t skipped_others = 0;     // FIFOs, in a ZIP
  uint64_t copied_hard_links = 0;  // that have become files of their own, in a ZIP
};

using ExportProgress = std::function<void(const Exported&)>;

// Writes what is below `top` to the directory `path`, which must be missing or empty (kAlreadyExists); its
// parent must exist. `progress`, if any, is called with the running totals now and then. A path that the host
// cannot hold (longer than 4095 bytes) is an error that names it.
Result<Exported> export_directory(const fs::Tree& tree, InodeId top, const std::string& path,
                                  const ExportOptions& options, Random& random,
                                  const ExportProgress& progress = nullptr);

// The same into a directory that is there, over what it has: directories are merged, other files replaced,
// and what the tree does not have stays. Everything is written aside first, and that it fits is checked; then
// it is moved into place file by file. kAlreadyExists, with nothing changed, where a directory and another
// file meet.
Result<Exported> export_over_directory(const fs::Tree& tree, InodeId top, const std::string& path,
                                       const ExportOptions& options, Random& random,
                                       const ExportProgress& progress = nullptr);

// A pax archive. Times to the ns, owners, hard links, holes, extended attributes and devices are in it.
Result<Exported> export_tar(const fs::Tree& tree, InodeId top, ByteSink& archive,
                            const ExportOptions& options, const ExportProgress& progress = nullptr);

// `archive` is empty. Times to 100 ns and owners are in it; no hard links, extended attributes, FIFOs or
// devices. kUnsupported where libzip takes two names for one: a name that is no UTF-8, and one that looks
// like it in the old code page of ZIPs.
Result<Exported> export_zip(const fs::Tree& tree, InodeId top, File& archive, const ExportOptions& options,
                            const ExportProgress& progress = nullptr);

// What fs::content_digest says of a tree with the same content.
Result<Digest128> content_digest_of_directory(const std::string& path);

}  // namespace reprise::snapshot

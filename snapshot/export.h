// From a tree to a directory of the host, and what can be compared with it there.
//
// Written: files with their holes, directories, symlinks, hard links, FIFOs, permissions, times. Left out
// unless asked for, and counted: owners, setuid and setgid, devices, sockets, `security.*` and `trusted.*`
// attributes. All through base/host_tree.h, so that nothing outside the new directory is touched, and it
// appears whole or not at all.
#pragma once

#include <functional>
#include <string>

#include "base/clock.h"
#include "base/error.h"
#include "fs/tree.h"

namespace reprise::snapshot {

struct ExportOptions {
  bool owners = false;   // uid and gid as in the tree; needs root
  bool set_ids = false;  // setuid and setgid bits
  bool devices = false;  // device nodes; needs root
};

struct Exported {
  uint64_t files = 0, directories = 0, symlinks = 0, others = 0, hard_links = 0;
  uint64_t bytes = 0;  // of file data written
  // What the tree has and the directory does not.
  uint64_t skipped_devices = 0, skipped_sockets = 0, skipped_set_ids = 0, skipped_xattrs = 0;
};

// Writes what is below `top` to the directory `path`, which must be missing or empty (kAlreadyExists); its
// parent must exist. `progress`, if any, is called with the running totals now and then. A path that the host
// cannot hold (longer than 4095 bytes) is an error that names it.
Result<Exported> export_directory(const fs::Tree& tree, InodeId top, const std::string& path,
                                  const ExportOptions& options, Random& random,
                                  const std::function<void(const Exported&)>& progress = nullptr);

// What fs::content_digest says of a tree with the same content.
Result<Digest128> content_digest_of_directory(const std::string& path);

}  // namespace reprise::snapshot

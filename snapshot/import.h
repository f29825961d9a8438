// From a directory of the host to a tree: files with their holes, directories, symlinks, hard links, FIFOs,
// sockets and devices, with their permissions, owners and times. Extended attributes are left out.
//
// Through base/host_tree.h: no symlink is followed, nothing outside the directory is read. A directory that
// changes meanwhile gives a tree of some of its states, file by file, or an error that names what went away.
#pragma once

#include <functional>
#include <string>

#include "base/error.h"
#include "fs/tree.h"

namespace reprise::snapshot {

struct Imported {
  uint64_t entries = 0;
  uint64_t bytes = 0;  // of file data read
};

// All bytes are read at once and held in memory. Inode ids count up from the root in the order of a walk by
// names, so equal directories give equal ids. `progress`, if any, is called with the running totals.
Result<fs::Head> import_directory(const std::string& path,
                                  const std::function<void(const Imported&)>& progress = nullptr);

}  // namespace reprise::snapshot

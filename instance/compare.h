// Two trees compared by their paths: what `diff` shows. Pure; any thread.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "base/error.h"
#include "fs/tree.h"

namespace reprise::instance {

// One path that differs.
struct PathDifference {
  std::string path;      // without a leading '/'; in the newer tree, or in the older one if it is gone
  std::string old_path;  // what it was called before, if it was renamed
  std::optional<fs::Attributes> before, after;
  bool content = false;     // some byte differs, or the target of a symlink
  bool attributes = false;  // permissions; of one volume also owner, times and extended attributes

  bool added() const { return !before; }
  bool deleted() const { return !after; }
  bool renamed() const { return !old_path.empty(); }
  bool type_changed() const { return before && after && (before->mode & S_IFMT) != (after->mode & S_IFMT); }
};

struct CompareOptions {
  bool one_volume = false;  // both are versions of it
  bool list_moved = false;  // also what has only come along with a directory that was renamed
};

// By path. Two versions of one volume have inode ids in common, so that renames are seen, and owners and
// times mean the same; otherwise types, permissions, targets and bytes are compared, as the content digest
// has them. Everything below a directory that came or went is listed.
//
// Of trees that were opened lazily the names are loaded, and the bytes of what may differ. kCorrupt where
// that cannot be.
Result<std::vector<PathDifference>> compare(const fs::Tree& before, const fs::Tree& after,
                                            const CompareOptions& options);

}  // namespace reprise::instance

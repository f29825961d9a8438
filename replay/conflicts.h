// What two lines of history that began at one tree cannot both have: things that both changed.
//
// A pure comparison of three trees, which decides nothing. Where it finds nothing, the changes of the two
// commute but for what a directory's own times and link count say, so either line's operations may be applied
// after the other's. It is careful rather than clever: two changes of one file are a conflict even if they
// came out the same. docs/replication.md, "Fork and join", has the rules.
//
// Cost: what differs between base and each of the two (fs/diff.h), and, to name what was found, the tree.
#pragma once

#include <string>
#include <vector>

#include "fs/tree.h"

namespace reprise::replay {

struct Conflict {
  std::string path;  // in `ours`, or where it was in `base`; a name in it is as it is, not printable
  std::string what;  // "both changed it", …
  auto operator<=>(const Conflict&) const = default;
};

// In order of path.
std::vector<Conflict> find_conflicts(const fs::Tree& base, const fs::Tree& ours, const fs::Tree& theirs);

}  // namespace reprise::replay

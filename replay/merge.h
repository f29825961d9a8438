// Two lines of history that began at one tree, put together where both changed the same: what one of them
// did counts, and of the other what does not touch that. docs/replication.md, "Fork and join", has the rules.
//
// Pure, as replay/conflicts.h is. What comes out is a tree, not a history. All three trees are loaded before.
#pragma once

#include <string>
#include <vector>

#include "fs/tree.h"

namespace reprise::replay {

enum class Winner : uint8_t { kOurs, kTheirs };

struct Merged {
  fs::Head tree;
  // What the other line did and is not in the tree: paths as that line has them, printable by whoever shows
  // them; in order of path.
  struct LeftOut {
    std::string path;
    std::string what;  // "made there", "renamed there", …
    auto operator<=>(const LeftOut&) const = default;
  };
  std::vector<LeftOut> left_out;
};

// EIO and the like where the source of a file cannot be read.
fs::Outcome<Merged> merge(const fs::Tree& base, const fs::View& ours, const fs::View& theirs, Winner winner);

}  // namespace reprise::replay

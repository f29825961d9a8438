// What each of two lines of history changed since the tree that both began with, and what it is called: what
// finding conflicts and merging have in common. Internal to replay/.
#pragma once

#include <map>
#include <optional>
#include <set>
#include <string>
#include <unordered_map>
#include <utility>

#include "fs/diff.h"

namespace reprise::replay {

using NameIn = std::pair<InodeId, std::string>;  // of a directory

struct MeaningOfName {
  InodeId before, after;  // zero: nothing
};

struct Side {
  const fs::Tree& tree;
  std::unordered_map<InodeId, fs::ChangedInode> inodes;
  std::map<NameIn, MeaningOfName> names;
  std::set<InodeId> moved_directories;  // that `base` has elsewhere

  // Of a rename nothing but the ctime shows in the inode, and not even that within one tick of the clock.
  void note_renamed(const fs::Tree& base, std::optional<InodeId> inode);
};

Side side_of(const fs::Tree& base, const fs::Tree& tree);

bool is_gone(const fs::ChangedInode& changed);
bool is_directory(const fs::ChangedInode& changed);
// More than what its entries coming and going do to a directory.
bool changed_itself(const fs::ChangedInode& changed);
// Do these changes of one inode by both exclude each other?
bool exclude_each_other(const fs::ChangedInode& one, const fs::ChangedInode& other);

// Paths of inodes and of names in directories, found in one walk for each tree.
class Paths {
 public:
  // Of those that are not known yet; what is found is taken out of `wanted`.
  void add(const fs::Tree& tree, std::set<InodeId>& wanted);
  std::string of(InodeId inode) const;
  std::string of(InodeId directory, const std::string& name) const;

 private:
  std::unordered_map<InodeId, std::string> paths_;
};

}  // namespace reprise::replay

// PathIndex: what inodes are called at a point of history, kept up by following the operations. For `log`.
#pragma once

#include <string>
#include <unordered_map>

#include "fs/operation.h"
#include "fs/tree.h"

namespace reprise::cli {

class PathIndex {
 public:
  PathIndex() = default;                     // of a new volume
  explicit PathIndex(const fs::Tree& tree);  // of what the tree holds
  void follow(const fs::Operation& operation);
  // The other way: from after an operation to before it. Of an inode with several names one may be forgotten.
  void undo(const fs::Operation& operation);

  // A path of it, printable; "#5" for an inode it has not heard of.
  std::string path_of(InodeId inode) const;
  std::string path_of(InodeId parent, std::string_view name) const;

 private:
  struct Place {
    InodeId parent;
    std::string name;
  };
  void drop(InodeId inode, InodeId parent, std::string_view name);

  // One name of each inode: hard links are known by the name they got last.
  std::unordered_map<InodeId, Place> places_;
};

}  // namespace reprise::cli

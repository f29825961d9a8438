// PathIndex: what inodes are called at a point of history, kept up by following the operations. For `log` and
// Watch. It holds a name of every inode. Values; any thread.
#pragma once

#include <optional>
#include <string>
#include <unordered_map>

#include "fs/operation.h"
#include "fs/tree.h"

namespace reprise::instance {

class PathIndex {
 public:
  PathIndex() = default;                     // of a new volume
  explicit PathIndex(const fs::Tree& tree);  // of what the tree holds
  void follow(const fs::Operation& operation);
  // The other way: from after an operation to before it.
  void undo(const fs::Operation& operation);

  // A path of it, printable; "#5" for an inode it has not heard of.
  std::string path_of(InodeId inode) const;
  std::string path_of(InodeId parent, std::string_view name) const;
  // The same as it is, of one that it has heard of.
  std::optional<std::string> find_path(InodeId inode) const;
  std::optional<std::string> find_path(InodeId parent, std::string_view name) const;

 private:
  struct Place {
    InodeId parent;
    std::string name;
  };
  void put(InodeId inode, InodeId parent, std::string_view name);
  void drop(InodeId inode, InodeId parent, std::string_view name);

  // Of each inode the name it got last, and what else it is called.
  std::unordered_map<InodeId, Place> places_;
  std::unordered_multimap<InodeId, Place> others_;
};

}  // namespace reprise::instance

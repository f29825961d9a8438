// What differs between two versions of one volume's tree, at the cost of what differs: nodes that both
// versions share are skipped unseen. Any two trees may be compared; those that share nothing cost all they
// hold.
//
// Of trees that were opened lazily (Tree::load_all) what differs is loaded; what cannot be counts as absent,
// so whoever takes decisions by the answer loads all of both first, or asks take_load_failure()
// (fs/lazy_node.h) before and after. Nodes of one blob are the same.
//
// Inodes are the same when their ids are. What a change is called (moved, replaced) is the caller's business.
// docs/filesystem.md says how it works. Threads: as the trees that are compared.
#pragma once

#include <functional>
#include <optional>

#include "fs/tree.h"

namespace reprise::fs {

struct ChangedInode {
  InodeId inode;
  std::optional<Attributes> before, after;  // at least one of them; without links if nlink is 0
  bool content = false;                     // some byte, or the size; of a symlink its target
  bool names = false;                       // of a directory: some entry
  bool xattrs = false;
};

// In order of id, until visit says false. An inode is changed if anything that stat(2) shows is (atime and
// the space it takes included), or one of the three above.
void for_each_changed_inode(const Tree& before, const Tree& after,
                            const std::function<bool(const ChangedInode&)>& visit);

struct ChangedName {
  std::string_view name;                    // valid while both trees are
  std::optional<InodeId> before, after;     // what it means; of different type if equal
  uint8_t type_before = 0, type_after = 0;  // DT_…
};

// The entries of a directory that differ, in order of their hashes, until visit says false. A directory that
// one side lacks has no entries there.
void for_each_changed_name(const Tree& before, const Tree& after, InodeId directory,
                           const std::function<bool(const ChangedName&)>& visit);

// The ranges [offset, end) of a file that differ, in order and apart, in whole blocks but for the ends; where
// one file is longer, what it has more. Until visit says false. A file that one side lacks is empty there.
void for_each_changed_range(const Tree& before, const Tree& after, InodeId file,
                            const std::function<bool(uint64_t offset, uint64_t end)>& visit);
// The same for a file that has another id in the other tree.
void for_each_changed_range(const Tree& before, InodeId file_before, const Tree& after, InodeId file_after,
                            const std::function<bool(uint64_t offset, uint64_t end)>& visit);

}  // namespace reprise::fs

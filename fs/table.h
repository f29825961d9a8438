// Inode table: InodeId → Inode, as a radix tree (fs/node.h). Inside fs/ only.
#pragma once

#include <functional>

#include "fs/node.h"

namespace reprise::fs::table {

// Null if there is no such inode, or it cannot be loaded (take_load_failure says).
const Inode* find(const Node* root, InodeId id);
// For changing: owns the way down and marks the inode dirty, its hash as it was being taken out of the sums.
// Call it before the first change. The reference stays good until the inode is erased or the root is shared.
// The inode must be there.
Inode& own(Node*& root, InodeId id);
// A new, dirty, zeroed inode; there must be none of that id.
Inode* insert(Node*& root, InodeId id);
// Forgets an inode that is there, with its content.
void erase(Node*& root, InodeId id);
// In order of id, until visit says false, or something cannot be loaded (take_load_failure says).
void for_each(const Node* root, const std::function<bool(InodeId, const Inode&)>& visit);

// Total of the subtree's hashes without changing anything.
Digest128 total(const Node* root);
// The same, and nothing is dirty afterwards.
Digest128 settle(Node*& root);

}  // namespace reprise::fs::table

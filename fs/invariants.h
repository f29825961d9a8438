// Is it a tree? Walks nodes that nobody vouches for (just decoded, or under test) and says what is wrong.
// Inside fs/ only.
#pragma once

#include <string>

#include "fs/lazy_node.h"
#include "fs/tree.h"

namespace reprise::fs {

// Everything but sums: node kinds, levels, orders and ranges; every name leads to an inode of its type; links
// counted; every directory hangs on the root, once, and knows its parent; bytes past the end of a file are
// zero. The empty string if all is well. Fills in what the tree holds. An inode table that is a tree of
// pointers is taken for granted (nobody can build a cycle out of decoded bytes); everything said by its bytes
// is not.
std::string check_structure(const Node* root, Usage* usage);

// The same for one node that has been loaded in place of `lazy`, and for what came with it, so far as it can
// be said without loading more: what it stands for must add the same to the sums.
std::string misfit(const LazyNode& lazy, const Node& found);

}  // namespace reprise::fs

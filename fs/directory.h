// Directories: name → inode, as a B+ tree ordered by the hash of the name (fs/node.h). Inside fs/ only.
//
// The order is also that of readdir: an entry's key is its cookie, and it keeps it for as long as it exists,
// whatever comes and goes beside it. Only hash, ordinal and content are kept here; Inode::size and ::sum are
// the caller's.
#pragma once

#include <functional>
#include <optional>

#include "fs/node.h"

namespace reprise::fs::directory {

struct Entry {
  std::string_view name;  // points into the tree
  InodeId inode;
  uint8_t type = 0;
  DirKey key = 0;
};

// Nothing is found where the directory cannot be loaded (take_load_failure says). What is changed has been
// brought in.
std::optional<Entry> find(const Node* root, std::string_view name);
// There must be no entry of that name. False if 2^15 names of this hash are there already.
bool insert(Node*& root, std::string_view name, InodeId inode, uint8_t type);
// Both want an entry that is there.
void erase(Node*& root, std::string_view name);
void replace(Node*& root, std::string_view name, InodeId inode, uint8_t type);
// Entries with a key greater than `after`, in order, until visit says false.
void for_each(const Node* root, DirKey after, const std::function<bool(const Entry&)>& visit);

}  // namespace reprise::fs::directory

#include "adapters/fuse/lookup_table.h"

namespace reprise::fuse {

LookupTable::~LookupTable() {
  for (Shard& shard : shards_) {
    for (const auto& [inode, entry] : shard.entries) filesystem_.unpin(inode);
  }
}

bool LookupTable::add(InodeId inode, bool directory) {
  Shard& shard = shard_of(inode);
  std::lock_guard lock(shard.mutex);
  Entry& entry = shard.entries[inode];
  entry.directory = directory;
  if (entry.count++ != 0) return false;
  // Under the shard's lock, so that nobody takes the inode for pinned before it is.
  filesystem_.pin(inode);
  return true;
}

void LookupTable::remove(InodeId inode, uint64_t count) {
  {
    Shard& shard = shard_of(inode);
    std::lock_guard lock(shard.mutex);
    auto found = shard.entries.find(inode);
    if (found == shard.entries.end()) return;  // the root, which was never looked up
    if (found->second.count > count) {
      found->second.count -= count;
      return;
    }
    shard.entries.erase(found);
  }
  // Outside it: the last unpin may take the filesystem's lock, under which add() is called as well. Pins are
  // counted, so an add() in between is not undone.
  filesystem_.unpin(inode);
}

bool LookupTable::knows(InodeId inode) const {
  if (inode == kRootInode) return true;
  const Shard& shard = shard_of(inode);
  std::lock_guard lock(shard.mutex);
  return shard.entries.contains(inode);
}

std::vector<InodeId> LookupTable::all() const {
  std::vector<InodeId> known{kRootInode};
  for (const Shard& shard : shards_) {
    std::lock_guard lock(shard.mutex);
    for (const auto& [inode, entry] : shard.entries) {
      if (inode != kRootInode) known.push_back(inode);
    }
  }
  return known;
}

std::vector<InodeId> LookupTable::directories() const {
  std::vector<InodeId> known{kRootInode};
  for (const Shard& shard : shards_) {
    std::lock_guard lock(shard.mutex);
    for (const auto& [inode, entry] : shard.entries) {
      if (entry.directory && inode != kRootInode) known.push_back(inode);
    }
  }
  return known;
}

}  // namespace reprise::fuse

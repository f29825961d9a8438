// LookupTable: the inodes the kernel has been told of and not yet forgotten, with its reference counts.
//
// Each is pinned in the Filesystem, so that a file stays readable by who holds it open after its last name
// went: the kernel forgets an inode only when no descriptor, mapping or working directory refers to it.
// Threads: any.
#pragma once

#include <array>
#include <cstdint>
#include <mutex>
#include <unordered_map>
#include <vector>

#include "fs/filesystem.h"

namespace reprise::fuse {

class LookupTable {
 public:
  explicit LookupTable(fs::Filesystem& filesystem) : filesystem_(filesystem) {}
  ~LookupTable();
  LookupTable(const LookupTable&) = delete;
  LookupTable& operator=(const LookupTable&) = delete;

  // The kernel is about to be told of it once more. True if it was not known (and so not pinned) before.
  bool add(InodeId inode, bool directory);
  // The kernel forgets `count` of its references, or a reply did not reach it.
  void remove(InodeId inode, uint64_t count);

  // The root always is.
  bool knows(InodeId inode) const;
  std::vector<InodeId> all() const;
  std::vector<InodeId> directories() const;

 private:
  struct Entry {
    uint64_t count = 0;
    bool directory = false;
  };
  struct Shard {
    mutable std::mutex mutex;
    std::unordered_map<InodeId, Entry> entries;
  };

  Shard& shard_of(InodeId inode) { return shards_[std::hash<InodeId>{}(inode) >> 59]; }
  const Shard& shard_of(InodeId inode) const { return shards_[std::hash<InodeId>{}(inode) >> 59]; }

  fs::Filesystem& filesystem_;
  std::array<Shard, 32> shards_;
};

}  // namespace reprise::fuse

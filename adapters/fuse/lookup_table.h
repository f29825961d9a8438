// LookupTable: the inodes the kernel has been told of and not yet forgotten, with its reference counts.
//
// Each is pinned in the Filesystem, so that a file stays readable by who holds it open after its last name
// went: the kernel forgets an inode only when no descriptor, mapping or working directory refers to it.
//
// It also knows which inodes have settled. After a change from outside, the kernel takes the first new
// attributes in field by field, having declared them valid before: somebody else's stat(2) at that moment is
// answered from what is there, in part old. So new attributes may be cached only once the kernel has been
// given them with a zero timeout, and has had time to take them in: then whatever it still writes over them
// is equal.
//
// Threads: any.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <mutex>
#include <unordered_map>

#include "fs/filesystem.h"

namespace reprise::fuse {

class LookupTable {
 public:
  explicit LookupTable(fs::Filesystem& filesystem);
  ~LookupTable();
  LookupTable(const LookupTable&) = delete;
  LookupTable& operator=(const LookupTable&) = delete;

  // The kernel is about to be told of it once more. True if it was not known (and so not pinned) before.
  bool add(InodeId inode);
  // The kernel forgets `count` of its references, or a reply did not reach it.
  void remove(InodeId inode, uint64_t count);

  // The root always is.
  bool knows(InodeId inode) const;

  // The kernel is being told at time `now` to drop the inode's attributes. False if it does not know it.
  bool unsettle(InodeId inode, uint64_t now_ns);
  // May it cache the attributes it is given at time `now`? Asked for each answer that holds any.
  bool settled(InodeId inode, uint64_t now_ns);

 private:
  struct Entry {
    uint64_t count = 0;
    uint64_t changed_ns = 0;  // when the kernel was last told to drop its attributes; 0: it has settled
    uint64_t answered_ns =
        0;  // when it was first given those that followed, so that it uses them; 0: not yet
  };
  struct Shard {
    mutable std::mutex mutex;
    std::unordered_map<InodeId, Entry> entries;
  };

  Shard& shard_of(InodeId inode) { return shards_[std::hash<InodeId>{}(inode) >> 59]; }
  const Shard& shard_of(InodeId inode) const { return shards_[std::hash<InodeId>{}(inode) >> 59]; }

  fs::Filesystem& filesystem_;
  std::array<Shard, 32> shards_;
  std::atomic<uint64_t> unsettled_{0};  // entries that have not settled
};

}  // namespace reprise::fuse

// Reservations: the room that fallocate(2) keeps for blocks that nobody has written yet, of files of a volume
// with a limit of bytes. They are promises of the instance where they were made, for as long as it is open:
// no part of the tree, its digest, or the journal.
//
// A block is reserved or held by the tree, never both: whoever makes the tree hold blocks takes their
// reservation, whoever clears or cuts them drops it. Threads: as whoever owns it locks it.
#pragma once

#include <cstdint>
#include <map>
#include <unordered_map>

#include "base/ids.h"

namespace reprise::fs {

// Blocks [first, end) of a file.
struct BlockRange {
  uint64_t first = 0, end = 0;
};

class Reservations {
 public:
  // Of all files, in blocks.
  uint64_t total() const { return total_; }
  bool empty() const { return total_ == 0; }
  uint64_t count(InodeId inode, BlockRange range) const;
  // Those of the range that are not reserved yet become so.
  void add(InodeId inode, BlockRange range);
  void remove(InodeId inode, BlockRange range);
  void remove_all(InodeId inode);
  void clear();

 private:
  using Ranges = std::map<uint64_t, uint64_t>;  // first → end; disjoint, none empty

  std::unordered_map<InodeId, Ranges> files_;
  uint64_t total_ = 0;
};

}  // namespace reprise::fs

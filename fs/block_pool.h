// BlockPool: 4 KiB blocks of file bytes, page aligned and counted, recycled because fresh memory is the
// largest cost of a write. One pool for the process. Threads: any.
//
// Blocks lie in 2 MiB slabs; the counts are at the slab's beginning, found from a block's address.
#pragma once

#include <cstddef>
#include <cstdint>

namespace reprise::fs {

class BlockPool {
 public:
  // A block with one owner; its bytes are whatever they were.
  static std::byte* allocate();
  static void retain(std::byte* block);
  static void release(std::byte* block);
  // One owner, as seen by that owner.
  static bool unshared(const std::byte* block);

  // Blocks with owners, in the whole process.
  static size_t in_use();
};

}  // namespace reprise::fs

// NodePool: memory for nodes of one size, close together in slabs (fs/slab.h) and recycled. One for each size
// of the nodes that a tree of many files is made of, for the whole process. Not here: what the nodes are, and
// who counts them.
//
// Threads: any; a node may be given back by another thread than the one that took it.
#pragma once

#include <cstddef>
#include <mutex>

namespace reprise::fs {

class NodePool {
 public:
  // Pieces are aligned to, and a multiple of, a cache line.
  explicit NodePool(size_t piece_bytes);

  void* allocate();
  void free(void* piece);
  size_t in_use();  // bytes

 private:
  struct Slab;

  Slab* add_slab();
  void link(Slab* slab);
  void unlink(Slab* slab);

  const size_t piece_bytes_;
  std::mutex mutex_;
  Slab* partial_ = nullptr;  // list of the slabs that have room
  size_t pieces_in_use_ = 0;
  size_t empty_slabs_ = 0;
};

// The pool of what has this size, one for each multiple of 64 up to 2 KiB.
NodePool& node_pool(size_t bytes);
// Bytes of nodes in all pools.
size_t pooled_node_bytes();
// The same, and the blocks of files: what trees take in this process, but for small files and long
// attributes.
size_t memory_in_use();

}  // namespace reprise::fs

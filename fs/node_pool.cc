#include "fs/node_pool.h"

#include <array>
#include <utility>

#include "base/check.h"
#include "fs/block_pool.h"
#include "fs/slab.h"
#include "fs/types.h"

namespace reprise::fs {
namespace {

constexpr size_t kCacheLine = 64;
constexpr size_t kLargestPiece = 2048;
constexpr size_t kEmptySlabsKept = 4;

size_t rounded(size_t bytes) {
  return (bytes + kCacheLine - 1) / kCacheLine * kCacheLine;
}

using Pools = std::array<NodePool*, kLargestPiece / kCacheLine>;

// Never destroyed: nodes may be released by objects with static lifetime.
Pools& pools() {
  static Pools& pools = *[] {
    auto* made = new Pools;
    for (size_t i = 0; i < made->size(); i++) (*made)[i] = new NodePool((i + 1) * kCacheLine);
    return made;
  }();
  return pools;
}

}  // namespace

// The first line of a slab; pieces follow.
struct alignas(kCacheLine) NodePool::Slab {
  struct Free {
    Free* next;
  };
  Free* freed;           // pieces that were given back
  uint32_t fresh_count;  // pieces at the end that nobody has had yet: their memory is left untouched
  uint32_t free_count;   // all pieces that can be had
  Slab* previous;
  Slab* next;
};

NodePool::NodePool(size_t piece_bytes) : piece_bytes_(rounded(piece_bytes)) {}

void* NodePool::allocate() {
  std::lock_guard lock(mutex_);
  Slab* slab = partial_ != nullptr ? partial_ : add_slab();
  void* piece = slab->freed;
  if (piece != nullptr) {
    slab->freed = slab->freed->next;
  } else {
    piece = reinterpret_cast<std::byte*>(slab) + kSlabBytes - slab->fresh_count-- * piece_bytes_;
  }
  const size_t pieces = (kSlabBytes - sizeof(Slab)) / piece_bytes_;
  if (slab->free_count == pieces) empty_slabs_--;
  if (--slab->free_count == 0) unlink(slab);
  pieces_in_use_++;
  return piece;
}

void NodePool::free(void* piece) {
  auto* slab = static_cast<Slab*>(slab_around(piece));
  std::lock_guard lock(mutex_);
  slab->freed = new (piece) Slab::Free{slab->freed};
  pieces_in_use_--;
  if (slab->free_count++ == 0) link(slab);
  const size_t pieces = (kSlabBytes - sizeof(Slab)) / piece_bytes_;
  if (slab->free_count < pieces) return;
  // Recycled memory is much cheaper than fresh: keep a quarter of what is in use.
  if (++empty_slabs_ <= kEmptySlabsKept + pieces_in_use_ / pieces / 4) return;
  empty_slabs_--;
  unlink(slab);
  unmap_slab(slab);
}

size_t NodePool::in_use() {
  std::lock_guard lock(mutex_);
  return pieces_in_use_ * piece_bytes_;
}

NodePool::Slab* NodePool::add_slab() {
  const size_t pieces = (kSlabBytes - sizeof(Slab)) / piece_bytes_;
  // Small trees, with a few nodes of each size, take no more memory than these need.
  auto* slab = new (map_slab(pieces_in_use_ < pieces ? Pages::kSmall : Pages::kHuge)) Slab{};
  slab->fresh_count = slab->free_count = static_cast<uint32_t>(pieces);
  empty_slabs_++;
  link(slab);
  return slab;
}

void NodePool::link(Slab* slab) {
  slab->previous = nullptr;
  slab->next = partial_;
  if (partial_ != nullptr) partial_->previous = slab;
  partial_ = slab;
}

void NodePool::unlink(Slab* slab) {
  (slab->previous != nullptr ? slab->previous->next : partial_) = slab->next;
  if (slab->next != nullptr) slab->next->previous = slab->previous;
}

NodePool& node_pool(size_t bytes) {
  CHECK(bytes > 0 && bytes <= kLargestPiece);
  return *pools()[(bytes - 1) / kCacheLine];
}

size_t memory_in_use() {
  return pooled_node_bytes() + BlockPool::in_use() * kBlockSize;
}

size_t pooled_node_bytes() {
  size_t bytes = 0;
  for (NodePool* pool : pools()) bytes += pool->in_use();
  return bytes;
}

}  // namespace reprise::fs

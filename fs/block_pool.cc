#include "fs/block_pool.h"

#include <atomic>
#include <mutex>
#include <new>

#include "fs/slab.h"
#include "fs/types.h"

namespace reprise::fs {
namespace {

constexpr uint16_t kSlabBlocks = kSlabBytes / kBlockSize;

// The first block of a slab.
struct Slab {
  std::atomic<uint32_t> refs[kSlabBlocks];
  uint16_t next_free[kSlabBlocks];  // chain of free blocks from first_free
  uint16_t first_free;
  uint16_t free_count;
  Slab* previous;  // list of the slabs that have free blocks
  Slab* next;

  std::byte* block(uint16_t index) { return reinterpret_cast<std::byte*>(this) + size_t{index} * kBlockSize; }
};
static_assert(sizeof(Slab) <= kBlockSize);

Slab* slab_of(const std::byte* block) {
  return static_cast<Slab*>(slab_around(block));
}
uint16_t index_of(const std::byte* block) {
  return static_cast<uint16_t>((reinterpret_cast<uintptr_t>(block) & (kSlabBytes - 1)) / kBlockSize);
}

class Pool {
 public:
  std::byte* allocate() {
    std::lock_guard lock(mutex_);
    if (partial_ == nullptr) add_slab();
    Slab* slab = partial_;
    uint16_t index = slab->first_free;
    slab->first_free = slab->next_free[index];
    if (slab->free_count == kSlabBlocks - 1) empty_slabs_--;
    if (--slab->free_count == 0) unlink(slab);
    in_use_++;
    slab->refs[index].store(1, std::memory_order_relaxed);
    return slab->block(index);
  }

  void free(std::byte* block) {
    Slab* slab = slab_of(block);
    uint16_t index = index_of(block);
    std::lock_guard lock(mutex_);
    slab->next_free[index] = slab->first_free;
    slab->first_free = index;
    in_use_--;
    if (slab->free_count++ == 0) link(slab);
    if (slab->free_count == kSlabBlocks - 1) {
      // Recycled memory is much cheaper than fresh: keep a quarter of what is in use, and 32 MiB at least.
      size_t keep = 16 + in_use_ / kSlabBlocks / 4;
      if (++empty_slabs_ > keep) {
        empty_slabs_--;
        unlink(slab);
        unmap_slab(slab);
      }
    }
  }

  size_t in_use() {
    std::lock_guard lock(mutex_);
    return in_use_;
  }

 private:
  void add_slab() {
    Slab* slab = new (map_slab(Pages::kHuge)) Slab{};
    for (uint16_t i = kSlabBlocks - 1; i >= 1; i--) {
      slab->next_free[i] = slab->first_free;
      slab->first_free = i;
    }
    slab->free_count = kSlabBlocks - 1;
    empty_slabs_++;
    link(slab);
  }
  void link(Slab* slab) {
    slab->previous = nullptr;
    slab->next = partial_;
    if (partial_ != nullptr) partial_->previous = slab;
    partial_ = slab;
  }
  void unlink(Slab* slab) {
    (slab->previous != nullptr ? slab->previous->next : partial_) = slab->next;
    if (slab->next != nullptr) slab->next->previous = slab->previous;
  }

  std::mutex mutex_;
  Slab* partial_ = nullptr;
  size_t in_use_ = 0;
  size_t empty_slabs_ = 0;
};

// Never destroyed: blocks may be released by objects with static lifetime.
Pool& pool() {
  static Pool* pool = new Pool;
  return *pool;
}

std::atomic<uint32_t>& refs_of(const std::byte* block) {
  return slab_of(block)->refs[index_of(block)];
}

}  // namespace

std::byte* BlockPool::allocate() {
  return pool().allocate();
}

void BlockPool::retain(std::byte* block) {
  refs_of(block).fetch_add(1, std::memory_order_relaxed);
}

void BlockPool::release(std::byte* block) {
  if (refs_of(block).fetch_sub(1, std::memory_order_acq_rel) == 1) pool().free(block);
}

bool BlockPool::unshared(const std::byte* block) {
  return refs_of(block).load(std::memory_order_acquire) == 1;
}

size_t BlockPool::in_use() {
  return pool().in_use();
}

}  // namespace reprise::fs

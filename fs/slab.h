// Slabs: 2 MiB of fresh memory at a multiple of 2 MiB, which the kernel can be asked to back with one huge
// page. What BlockPool and NodePool carve their pieces from: a tree of many files is looked up at random, and
// with small pages most of a look-up's time goes into finding out where its pages are.
//
// Threads: any.
#pragma once

#include <cstddef>
#include <cstdint>

namespace reprise::fs {

inline constexpr size_t kSlabBytes = 2 << 20;

// A huge page is had whole at the first touch, small ones as they are touched.
enum class Pages : bool { kSmall, kHuge };

// Zeroed. Aborts when there is no memory: byte limits are what prevents that.
void* map_slab(Pages pages);
void unmap_slab(void* slab);

// The slab that a piece of it lies in.
inline void* slab_around(const void* piece) {
  return reinterpret_cast<void*>(reinterpret_cast<uintptr_t>(piece) & ~(kSlabBytes - 1));
}

}  // namespace reprise::fs

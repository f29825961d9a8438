#include "fs/slab.h"

#include <sys/mman.h>

#include "base/check.h"

namespace reprise::fs {

// mmap gives page alignment only: map twice as much and give back what lies around the aligned part.
void* map_slab(Pages pages) {
  void* mapped = mmap(nullptr, 2 * kSlabBytes, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  CHECK(mapped != MAP_FAILED);
  auto begin = reinterpret_cast<uintptr_t>(mapped);
  uintptr_t aligned = (begin + kSlabBytes - 1) & ~(kSlabBytes - 1);
  if (aligned > begin) munmap(mapped, aligned - begin);
  size_t behind = begin + kSlabBytes - aligned;
  if (behind > 0) munmap(reinterpret_cast<void*>(aligned + kSlabBytes), behind);
  auto* slab = reinterpret_cast<void*>(aligned);
  if (pages == Pages::kHuge) madvise(slab, kSlabBytes, MADV_HUGEPAGE);  // advice: not every kernel heeds it
  return slab;
}

void unmap_slab(void* slab) {
  munmap(slab, kSlabBytes);
}

}  // namespace reprise::fs

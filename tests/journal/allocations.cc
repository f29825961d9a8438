#include "tests/journal/allocations.h"

#include <malloc.h>

#include <algorithm>
#include <cstdlib>
#include <new>

namespace reprise::test {

Allocations& allocations() {
  thread_local Allocations ours;
  return ours;
}

}  // namespace reprise::test

namespace {

void* count_new(size_t bytes) {
  void* at = std::malloc(bytes == 0 ? 1 : bytes);
  if (at == nullptr) std::abort();
  reprise::test::Allocations& ours = reprise::test::allocations();
  ++ours.count;
  ours.live_bytes += malloc_usable_size(at);
  ours.peak_bytes = std::max(ours.peak_bytes, ours.live_bytes);
  return at;
}

void count_delete(void* at) noexcept {
  if (at != nullptr) reprise::test::allocations().live_bytes -= malloc_usable_size(at);
  std::free(at);
}

}  // namespace

void* operator new(size_t bytes) {
  return count_new(bytes);
}
void* operator new[](size_t bytes) {
  return count_new(bytes);
}
void operator delete(void* at) noexcept {
  count_delete(at);
}
void operator delete[](void* at) noexcept {
  count_delete(at);
}
void operator delete(void* at, size_t) noexcept {
  count_delete(at);
}
void operator delete[](void* at, size_t) noexcept {
  count_delete(at);
}

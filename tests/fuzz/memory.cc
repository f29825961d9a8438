#include "tests/fuzz/memory.h"

#include <malloc.h>

#include <algorithm>
#include <cstdlib>
#include <new>

#include "base/check.h"

namespace {

thread_local size_t live_bytes = 0, peak_bytes = 0;

void count(size_t bytes) {
  live_bytes += bytes;
  peak_bytes = std::max(peak_bytes, live_bytes);
}
// What another thread, or nobody, was seen to take may be given back here.
void uncount(size_t bytes) {
  live_bytes -= std::min(live_bytes, bytes);
}

}  // namespace

#ifdef REPRISE_LIBFUZZER

#include <sanitizer/allocator_interface.h>

namespace {

void counted_malloc(const volatile void* at, size_t) {
  count(__sanitizer_get_allocated_size(at));
}
void counted_free(const volatile void* at) {
  if (at != nullptr) uncount(__sanitizer_get_allocated_size(at));
}
const int kHooked = __sanitizer_install_malloc_and_free_hooks(counted_malloc, counted_free);

}  // namespace

#else

namespace {

void* counted_new(size_t bytes) {
  void* at = std::malloc(bytes == 0 ? 1 : bytes);
  if (at == nullptr) std::abort();
  count(malloc_usable_size(at));
  return at;
}
void counted_delete(void* at) noexcept {
  if (at != nullptr) uncount(malloc_usable_size(at));
  std::free(at);
}

}  // namespace

void* operator new(size_t bytes) {
  return counted_new(bytes);
}
void* operator new[](size_t bytes) {
  return counted_new(bytes);
}
void operator delete(void* at) noexcept {
  counted_delete(at);
}
void operator delete[](void* at) noexcept {
  counted_delete(at);
}
void operator delete(void* at, size_t) noexcept {
  counted_delete(at);
}
void operator delete[](void* at, size_t) noexcept {
  counted_delete(at);
}

#endif

namespace reprise::fuzz {

MemoryLimit::MemoryLimit(size_t bytes) : limit_(bytes), before_(live_bytes) {
  peak_bytes = live_bytes;
}

MemoryLimit::~MemoryLimit() {
  CHECK(peak_bytes - before_ <= limit_);
}

}  // namespace reprise::fuzz

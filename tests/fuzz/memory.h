// How much memory what is tried may take at once: more is a failed check, as a crash would be.
//
// Counted is what this thread allocates: with libFuzzer all of it, in the ordinary test program what `new`
// gives. For one scope at a time.
#pragma once

#include <cstddef>

namespace reprise::fuzz {

class MemoryLimit {
 public:
  explicit MemoryLimit(size_t bytes);
  ~MemoryLimit();
  MemoryLimit(const MemoryLimit&) = delete;
  MemoryLimit& operator=(const MemoryLimit&) = delete;

 private:
  size_t limit_, before_;
};

// What reading a small file may take, whatever it says, and so much for each of its bytes besides.
inline size_t small_memory(size_t file_bytes) {
  return (size_t{4} << 20) + 8 * file_bytes;
}

}  // namespace reprise::fuzz

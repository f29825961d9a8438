// RequestCounts: how many requests of each kind the kernel has sent. Threads: any.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>

namespace reprise::fuse {

class RequestCounts {
 public:
  // As <linux/fuse.h> numbers them; what lies beyond is counted under 0.
  static constexpr uint32_t kOpcodes = 64;

  void count(uint32_t opcode) { of_[opcode < kOpcodes ? opcode : 0].fetch_add(1, std::memory_order_relaxed); }
  uint64_t of(uint32_t opcode) const {
    return opcode < kOpcodes ? of_[opcode].load(std::memory_order_relaxed) : 0;
  }
  // All that a guest had to wait for: everything but FORGET and BATCH_FORGET.
  uint64_t total() const;

 private:
  std::array<std::atomic<uint64_t>, kOpcodes> of_{};
};

}  // namespace reprise::fuse

// TreeLock: one writer or many readers, for a tree that is read far more often than it is held. Readers on
// different threads count themselves on different cache lines, so that they do not slow each other down; a
// writer looks at all of these. For std::unique_lock and std::shared_lock.
//
// Whoever waits, sleeps. A writer keeps new readers out while it waits for those there are; a reader that
// finds a writer there queues up like one, so neither kind starves the other. Not recursive, in no way. A
// reader unlocks on the thread that it locked on.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>

namespace reprise::fs {

class TreeLock {
 public:
  TreeLock() = default;
  TreeLock(const TreeLock&) = delete;
  TreeLock& operator=(const TreeLock&) = delete;

  void lock() {
    close_gate();
    for (Readers& readers : readers_) {
      while (uint32_t count = readers.count.load()) readers.count.wait(count);
    }
  }
  void unlock() { open_gate(); }

  void lock_shared() {
    std::atomic<uint32_t>& count = my_readers();
    count.fetch_add(1);
    if (gate_.load() != kOpen) [[unlikely]]
      queue(count);
  }
  void unlock_shared() {
    std::atomic<uint32_t>& count = my_readers();
    count.fetch_sub(1);
    if (gate_.load() != kOpen) [[unlikely]]
      count.notify_all();
  }

 private:
  // A reader counts itself and then looks at the gate; a writer closes the gate and then looks at the counts.
  // In the one order of all these (memory_order_seq_cst) one of the two sees the other.
  struct alignas(64) Readers {
    std::atomic<uint32_t> count{0};
  };
  static constexpr size_t kLines = 16;
  enum : uint32_t { kOpen, kClosed, kClosedAndAwaited };

  std::atomic<uint32_t>& my_readers() { return readers_[thread_number() % kLines].count; }
  static size_t thread_number() {
    static std::atomic<size_t> threads{0};
    thread_local const size_t number = threads.fetch_add(1, std::memory_order_relaxed);
    return number;
  }

  void close_gate() {
    uint32_t found = kOpen;
    if (gate_.compare_exchange_strong(found, kClosed)) return;
    while (gate_.exchange(kClosedAndAwaited) != kOpen) gate_.wait(kClosedAndAwaited);
  }
  void open_gate() {
    if (gate_.exchange(kOpen) == kClosedAndAwaited) gate_.notify_one();
  }
  // For a reader that has counted itself too late.
  void queue(std::atomic<uint32_t>& count) {
    count.fetch_sub(1);
    count.notify_all();
    close_gate();  // no writer is in now
    count.fetch_add(1);
    open_gate();
  }

  alignas(64) std::atomic<uint32_t> gate_{kOpen};
  std::array<Readers, kLines> readers_;
};

}  // namespace reprise::fs

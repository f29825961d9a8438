// CallGate: keeps the thread that records a call apart from those who take what calls have gathered.
//
// For the recorder alone. One thread at a time enters and leaves, and one other at a time takes and gives
// back. Whoever takes does not wait for a long call: it leaves word that it was there. Entering and leaving
// cost one atomic instruction each, and no call of the system unless somebody sleeps.
#pragma once

#include <atomic>
#include <cstdint>
#include <thread>

namespace reprise::journal {

class CallGate {
 public:
  // A call begins; waits while somebody takes, which is a matter of moments.
  void enter() {
    uint32_t found = kOpen;
    if (!state_.compare_exchange_strong(found, kCalling, std::memory_order_acquire)) [[unlikely]]
      wait_and_enter();
  }
  // It ends. True: somebody came to take in the meantime and went without.
  bool leave() { return (state_.exchange(kOpen, std::memory_order_acq_rel) & kAsked) != 0; }

  // Waits a moment for the end of the call there is. True: until give_back() no call begins. False: the call
  // goes on, and leave() will tell its thread.
  bool take() {
    constexpr int kPatience = 50;  // looks, of at least half a microsecond: more than most calls last
    uint32_t found = state_.load(std::memory_order_relaxed);
    for (int looks = 0; looks < kPatience; ++looks) {
      if (found == kOpen && state_.compare_exchange_weak(found, kTaken, std::memory_order_acquire))
        return true;
      std::this_thread::yield();
      found = state_.load(std::memory_order_relaxed);
    }
    for (;;) {
      if (found == kOpen) {
        if (state_.compare_exchange_weak(found, kTaken, std::memory_order_acquire)) return true;
      } else if (state_.compare_exchange_weak(found, found | kAsked, std::memory_order_acq_rel)) {
        return false;
      }
    }
  }
  void give_back() {
    if ((state_.exchange(kOpen, std::memory_order_release) & kAwaited) != 0) state_.notify_one();
  }

 private:
  enum : uint32_t { kOpen = 0, kCalling = 1, kTaken = 2, kAsked = 4, kAwaited = 8 };

  void wait_and_enter() {
    for (;;) {
      uint32_t found = kOpen;
      if (state_.compare_exchange_strong(found, kCalling, std::memory_order_acquire)) return;
      if (found == kTaken) state_.compare_exchange_strong(found, kTaken | kAwaited);
      state_.wait(kTaken | kAwaited);
    }
  }

  std::atomic<uint32_t> state_{kOpen};
};

}  // namespace reprise::journal

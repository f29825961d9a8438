// InFlight: which requests are being answered right now, so that somebody can wait for all answers begun
// before a moment, or have none answered for a moment.
//
// One slot per worker, written by that worker alone: entering and leaving cost one uncontended atomic
// addition each. A worker enters before it looks at the filesystem, so whoever drains after publishing a
// change knows that every reply still to come has seen the change.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <thread>

#include "base/clock.h"

namespace reprise::fuse {

class InFlight {
 public:
  class Slot {
   public:
    // Waits while it is closed.
    void enter(InFlight& all) {
      for (;;) {
        turns_.fetch_add(1);
        if (!all.closed_.load()) return;
        turns_.fetch_add(1);
        all.wait_until_open();
      }
    }
    // Also early, by a request that has nothing more to say about the tree and is about to wait for something
    // slow.
    void leave() {
      if (busy()) turns_.fetch_add(1);
    }

   private:
    friend class InFlight;
    bool busy() const { return turns_.load(std::memory_order_relaxed) % 2 != 0; }
    alignas(64) std::atomic<uint64_t> turns_{0};  // odd: answering
  };

  InFlight(size_t workers, Clock& clock) : slots_(new Slot[workers]), count_(workers), clock_(clock) {}

  Slot& slot(size_t worker) { return slots_[worker]; }

  // Until open() no request is answered, and when close() returns, none is being answered. Between the two
  // the kernel must not be asked for anything that takes requests. Never called by a worker; by one thread at
  // a time.
  void close() {
    closed_.store(true);
    drain();
  }
  void open() {
    {
      std::lock_guard lock(mutex_);
      closed_.store(false);
    }
    opened_.notify_all();
  }

  // Returns when every request that was being answered at the time of the call has been. Never called by a
  // worker.
  void drain() {
    for (size_t i = 0; i < count_; ++i) {
      uint64_t turn = slots_[i].turns_.load();
      if (turn % 2 == 0) continue;
      for (int spins = 0; slots_[i].turns_.load() == turn; ++spins) {
        if (spins < kYields) {
          std::this_thread::yield();
        } else {
          clock_.sleep_ns(kPause_ns);
        }
      }
    }
  }

 private:
  void wait_until_open() {
    std::unique_lock lock(mutex_);
    opened_.wait(lock, [&] { return !closed_.load(); });
  }

  static constexpr int kYields = 32;
  static constexpr uint64_t kPause_ns = 20'000;

  std::unique_ptr<Slot[]> slots_;
  const size_t count_;
  Clock& clock_;
  std::atomic<bool> closed_{false};
  std::mutex mutex_;
  std::condition_variable opened_;
};

}  // namespace reprise::fuse

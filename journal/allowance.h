// Allowance: how many bytes may still be recorded before whoever keeps a journal or a store within its limit
// must have made room (the keeper of the instance). Whoever records takes from it and waits where it is used
// up; whoever makes room measures what is there and says how far it goes.
//
// It knows of no files, and it counts what is announced, not what is written: a little more for small
// operations. Who waits does so in a queue: no large call is passed by small ones for ever. Unless there is a
// keeper (begin) it is without bounds: who has nobody that makes room is not held up. docs/architecture.md,
// "Limits", says what is promised.
//
// Threads: any; one keeper. Owned by an Instance and the journal that it has open.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <list>
#include <mutex>

namespace reprise::journal {

class Allowance {
 public:
  static constexpr uint64_t kUnbounded = UINT64_MAX;
  // No call waits longer in all, whatever has become of the keeper: it then goes beyond.
  static constexpr std::chrono::milliseconds kLongestWait{60'000};

  explicit Allowance(std::chrono::milliseconds longest_wait = kLongestWait) : longest_wait_(longest_wait) {}

  // --- who records

  // So many bytes are about to be recorded. Waits while others wait or that would go beyond what is allowed;
  // a call for which there is no room after the keeper has made all it can, twice, since there never is so
  // much, goes beyond it as soon as anything is allowed. Never with a lock held that the keeper may need: in
  // an Instance those of its lock order (instance.h), nor with one that who holds them waits for.
  void take(uint64_t bytes) {
    if (!bounded_.load(std::memory_order_relaxed)) [[likely]]
      return;
    uint64_t taken = taken_.fetch_add(bytes, std::memory_order_relaxed) + bytes;
    if (taken > unhurried_.load(std::memory_order_relaxed)) [[unlikely]]
      take_slowly(bytes);
  }

  // --- the keeper

  // From now on there is one; nothing is allowed before it has said how much.
  void begin();
  // From now on there is none; nobody waits.
  void end();
  // All that was taken so far. What of it is not on the disk yet, will be.
  uint64_t taken() const { return taken_.load(std::memory_order_relaxed); }
  // Whatever is taken, up to this in all, may go ahead.
  void allow_until(uint64_t taken);
  // Waits until half of what was allowed is taken, or somebody waits, or wake(); at most so long. True
  // unless the time was up.
  bool wait_until_short(std::chrono::milliseconds longest);
  void wake();
  // How many calls wait now.
  size_t waiting() const;

 private:
  void take_slowly(uint64_t bytes);
  struct Waiter {
    uint64_t bytes;
    uint64_t first_since;  // how often had been allowed when nobody was before it any more
  };
  bool may_go(const Waiter& waiter) const;
  void set_unhurried();

  const std::chrono::milliseconds longest_wait_;

  std::atomic<bool> bounded_{false};
  std::atomic<uint64_t> taken_{0};
  std::atomic<uint64_t> unhurried_{kUnbounded};  // who takes no further than this goes ahead unseen
  mutable std::mutex mutex_;
  std::condition_variable short_;   // for the keeper
  std::condition_variable raised_;  // for who waits
  uint64_t until_ = kUnbounded, half_ = kUnbounded;
  uint64_t times_allowed_ = 0;
  std::list<Waiter> waiting_;  // in the order in which they came
  bool wanted_ = false;        // somebody waits who has found what was last allowed too little
  bool woken_ = false;
};

}  // namespace reprise::journal

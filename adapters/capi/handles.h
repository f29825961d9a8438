// Handles: what a host holds instead of an address. One that is null, stale or made up is found out.
//
// A handle is a number in a pointer's clothes: a slot, how many objects the slot has had, and which kind it
// is. Who uses an object counts itself in its slot, so that it cannot go meanwhile. Slots are never given
// back to the system; a kind has at most 2^20 at a time. Threads: any.
#pragma once

#include <pthread.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstdint>
#include <memory>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

namespace reprise::capi {

inline constexpr uint64_t kUsersBits = 24, kSlotBits = 20, kKindBits = 2;

// Set in the child of a fork(2): threads and locks of its parent are not there.
inline std::atomic<bool> forked{false};

template <class T, uint64_t kKind>
class Handles {
 public:
  // One who uses an object, for as long as this lives. `error` is 0, or why there is none.
  class Use {
   public:
    Use() = default;
    explicit Use(int why) : error(why) {}
    Use(T* object, std::atomic<uint64_t>* state) : object_(object), state_(state) {}
    Use(Use&& other) noexcept
        : error(other.error), object_(other.object_), state_(std::exchange(other.state_, nullptr)) {}
    Use& operator=(Use&&) = delete;
    ~Use() {
      if (state_ != nullptr) state_->fetch_sub(1, std::memory_order_release);
    }
    T* operator->() const { return object_; }
    T& operator*() const { return *object_; }

    int error = 0;

   private:
    T* object_ = nullptr;
    std::atomic<uint64_t>* state_ = nullptr;
  };

  // Null where there are too many.
  void* add(std::unique_ptr<T> object) {
    static const int registered = ::pthread_atfork(nullptr, nullptr, [] { forked = true; });
    static_cast<void>(registered);
    std::lock_guard lock(mutex_);
    if (free_.empty() && !make_slots()) return nullptr;
    uint64_t at = free_.back();
    free_.pop_back();
    Slot& slot = *find(at);
    slot.object = std::move(object);
    uint64_t generation = (slot.state.load(std::memory_order_relaxed) >> kUsersBits) + 1;
    slot.state.store(generation << kUsersBits, std::memory_order_release);
    return reinterpret_cast<void*>((generation << kSlotBits | at) << kKindBits | kKind);
  }

  // EBADF, EPERM; EBUSY if it is being removed, or somebody uses it and `alone` says that nobody may.
  Use use(const void* handle, bool alone) {
    if (forked.load(std::memory_order_relaxed)) return Use(EPERM);
    Slot* slot = slot_of(handle);
    if (slot == nullptr) return Use(EBADF);
    uint64_t generation = generation_of(handle);
    uint64_t state = slot->state.load(std::memory_order_relaxed);
    do {
      if (state >> kUsersBits != generation) return Use(EBADF);
      uint64_t users = state & kUsersMask;
      if ((state & kRemoving) != 0 || (users != 0 && alone) || users == kUsersMask) return Use(EBUSY);
    } while (!slot->state.compare_exchange_weak(state, state + 1, std::memory_order_acquire));
    return Use(slot->object.get(), &slot->state);
  }

  // 0, EBADF or EPERM; at this moment, of which nothing is held.
  int check(const void* handle) {
    if (forked.load(std::memory_order_relaxed)) return EPERM;
    Slot* slot = slot_of(handle);
    if (slot == nullptr) return EBADF;
    return slot->state.load(std::memory_order_relaxed) >> kUsersBits == generation_of(handle) ? 0 : EBADF;
  }

  // Takes it away from everybody. New users are refused from now on; those there are are waited for as long
  // as `waits`, given the object, says so. EBUSY if it does not any more, and all is as before.
  template <class Waits>
  int remove(const void* handle, std::unique_ptr<T>& object, const Waits& waits) {
    if (forked.load(std::memory_order_relaxed)) return EPERM;
    Slot* slot = slot_of(handle);
    if (slot == nullptr) return EBADF;
    const uint64_t generation = generation_of(handle);
    uint64_t state = slot->state.load(std::memory_order_relaxed);
    do {
      if (state >> kUsersBits != generation) return EBADF;
      if ((state & kRemoving) != 0) return EBUSY;
    } while (!slot->state.compare_exchange_weak(state, state | kRemoving, std::memory_order_acq_rel));
    while ((slot->state.load(std::memory_order_acquire) & kUsersMask) != 0) {
      if (!waits(*slot->object)) {
        slot->state.fetch_and(~kRemoving, std::memory_order_acq_rel);
        return EBUSY;
      }
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    object = std::move(slot->object);
    slot->state.store((generation + 1) << kUsersBits, std::memory_order_release);
    std::lock_guard lock(mutex_);
    free_.push_back(slot_number_of(handle));
    return 0;
  }

 private:
  static constexpr uint64_t kRemoving = uint64_t{1} << (kUsersBits - 1);
  static constexpr uint64_t kUsersMask = kRemoving - 1;
  static constexpr uint64_t kChunk = 1024;

  struct Slot {
    std::atomic<uint64_t> state{0};  // generation, odd while there is an object; kRemoving; users
    std::unique_ptr<T> object;
  };

  static uint64_t generation_of(const void* handle) {
    return reinterpret_cast<uint64_t>(handle) >> (kKindBits + kSlotBits);
  }
  static uint64_t slot_number_of(const void* handle) {
    return (reinterpret_cast<uint64_t>(handle) >> kKindBits) & ((uint64_t{1} << kSlotBits) - 1);
  }
  // Null for what cannot be a handle of this kind.
  Slot* slot_of(const void* handle) {
    bool may_be =
        reinterpret_cast<uint64_t>(handle) % (1 << kKindBits) == kKind && generation_of(handle) % 2 == 1;
    return may_be ? find(slot_number_of(handle)) : nullptr;
  }
  Slot* find(uint64_t at) {
    std::array<Slot, kChunk>* chunk = chunks_[at / kChunk].load(std::memory_order_acquire);
    return chunk != nullptr ? &(*chunk)[at % kChunk] : nullptr;
  }
  bool make_slots() {
    uint64_t at = 0;
    while (at < chunks_.size() && chunks_[at].load(std::memory_order_relaxed) != nullptr) ++at;
    if (at == chunks_.size()) return false;
    chunks_[at].store(new std::array<Slot, kChunk>, std::memory_order_release);
    for (uint64_t i = kChunk; i > 0; --i) free_.push_back(at * kChunk + i - 1);
    return true;
  }

  std::mutex mutex_;
  std::vector<uint64_t> free_;
  std::array<std::atomic<std::array<Slot, kChunk>*>, (uint64_t{1} << kSlotBits) / kChunk> chunks_{};
};

}  // namespace reprise::capi

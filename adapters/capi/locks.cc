// Locks of guests, which are the only calls of theirs that wait for each other.
#include <fmt/format.h>
#include <sys/file.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <optional>
#include <stop_token>
#include <thread>
#include <unordered_map>

#include "adapters/capi/answers.h"
#include "adapters/capi/objects.h"
#include "adapters/capi/reprise.h"

namespace reprise::capi {
namespace {

// The guests that are waiting, and what ends that. Beside the guests, for whoever wants to end a wait must
// not be taken for one who uses the guest.
class Waits {
 public:
  static Waits& all() {
    static auto& all = *new Waits;
    return all;
  }
  // One wait, for as long as this lives.
  class One {
   public:
    explicit One(const void* guest) : guest_(guest) {
      std::lock_guard lock(all().mutex_);
      all().waits_[guest] = source_;
    }
    ~One() {
      std::lock_guard lock(all().mutex_);
      all().waits_.erase(guest_);
    }
    One(const One&) = delete;
    One& operator=(const One&) = delete;
    const std::stop_source& source() const { return source_; }

   private:
    const void* guest_;
    std::stop_source source_;
  };
  void interrupt(const void* guest) {
    std::stop_source wait = wait_of(guest);  // who is told runs without the lock
    wait.request_stop();
  }

 private:
  std::stop_source wait_of(const void* guest) {
    std::lock_guard lock(mutex_);
    auto at = waits_.find(guest);
    return at == waits_.end() ? std::stop_source(std::nostopstate) : at->second;
  }

  std::mutex mutex_;
  std::unordered_map<const void*, std::stop_source> waits_;
};

// Ends a wait when its time is over. The thread that it takes is there only while somebody really waits.
class Alarm {
 public:
  Alarm(const std::stop_source& wait, uint32_t timeout_ms) {
    if (timeout_ms == REPRISE_FOREVER) return;
    thread_ = std::jthread([this, wait, timeout_ms](const std::stop_token& over) mutable {
      std::mutex mutex;
      std::unique_lock lock(mutex);
      std::condition_variable_any never;
      never.wait_for(lock, over, std::chrono::milliseconds(timeout_ms), [] { return false; });
      if (over.stop_requested()) return;
      rang_ = true;
      wait.request_stop();
    });
  }
  bool rang() const { return rang_; }

 private:
  std::atomic<bool> rang_{false};
  std::jthread thread_;
};

// Takes a lock by `take`, which is told whether to wait and until when.
template <class Take>
int take_lock(const reprise_guest* handle, const char* call, int fd, uint32_t timeout_ms,
              const Take& take) noexcept {
  return guarded(call, [&]() -> int {
    auto used = guests().use(handle, true);
    if (used.error != 0) return refuse_handle(used.error, call, "guest");
    std::string of = fmt::format("descriptor {}", fd);
    fs::Outcome<void> taken = take(used->guest, false, std::stop_token());
    bool must_wait = !taken && static_cast<int>(taken.error()) == EWOULDBLOCK && timeout_ms != 0;
    if (taken || !must_wait) return taken ? 0 : refuse(taken.error(), call, of);
    Waits::One wait(handle);
    Alarm alarm(wait.source(), timeout_ms);
    taken = take(used->guest, true, wait.source().get_token());
    if (taken) return 0;
    if (static_cast<int>(taken.error()) == EINTR && alarm.rang())
      return refuse(ETIMEDOUT,
                    fmt::format("{} {}: the lock was not free within {} ms", call, of, timeout_ms));
    return refuse(taken.error(), call, of);
  });
}

// What fcntl calls it; nullopt for what is no operation.
std::optional<struct flock> range_of(int operation, int64_t offset, int64_t length) {
  struct flock range{};
  if (operation != LOCK_SH && operation != LOCK_EX && operation != LOCK_UN) return std::nullopt;
  range.l_type = operation == LOCK_SH ? F_RDLCK : operation == LOCK_EX ? F_WRLCK : F_UNLCK;
  range.l_whence = SEEK_SET;
  range.l_start = offset;
  range.l_len = length;
  return range;
}

int refuse_operation(const char* call, int operation) {
  return refuse(
      EINVAL, fmt::format("{}: operation: expected LOCK_SH, LOCK_EX or LOCK_UN, found {}", call, operation));
}

}  // namespace
}  // namespace reprise::capi

using namespace reprise;
using namespace reprise::capi;

int reprise_flock(reprise_guest* handle, int fd, int operation, uint32_t timeout_ms) {
  return take_lock(handle, "reprise_flock", fd, timeout_ms,
                   [&](fs::Guest& guest, bool wait, std::stop_token interrupted) {
                     return guest.flock(fd, wait ? operation : operation | LOCK_NB, std::move(interrupted));
                   });
}

int reprise_lock(reprise_guest* handle, int fd, int operation, int64_t offset, int64_t length,
                 uint32_t timeout_ms) {
  constexpr const char* kCall = "reprise_lock";
  auto range = range_of(operation, offset, length);
  if (!range) return refuse_operation(kCall, operation);
  return take_lock(handle, kCall, fd, timeout_ms,
                   [&](fs::Guest& guest, bool wait, std::stop_token interrupted) {
                     return guest.set_lock(fd, wait ? F_SETLKW : F_SETLK, *range, std::move(interrupted));
                   });
}

int reprise_test_lock(reprise_guest* handle, int fd, int operation, int64_t offset, int64_t length,
                      int32_t* pid) {
  constexpr const char* kCall = "reprise_test_lock";
  return guarded(kCall, [&]() -> int {
    auto range = range_of(operation, offset, length);
    if (!range || operation == LOCK_UN) return refuse_operation(kCall, operation);
    auto used = guests().use(handle, true);
    if (used.error != 0) return refuse_handle(used.error, kCall, "guest");
    auto found = used->guest.get_lock(fd, F_GETLK, *range);
    if (!found) return refuse(found.error(), kCall, fmt::format("descriptor {}", fd));
    if (found->l_type == F_UNLCK) return 0;
    if (pid != nullptr) *pid = found->l_pid;
    return 1;
  });
}

int reprise_guest_interrupt(reprise_guest* handle) {
  constexpr const char* kCall = "reprise_guest_interrupt";
  return guarded(kCall, [&]() -> int {
    if (int error = guests().check(handle); error != 0) return refuse_handle(error, kCall, "guest");
    Waits::all().interrupt(handle);
    return 0;
  });
}

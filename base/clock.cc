#include "base/clock.h"

#include <sys/random.h>
#include <time.h>

#include <mutex>

#include "base/check.h"

namespace reprise {
namespace {

class SystemClock final : public Clock {
 public:
  Timestamp realtime() override { return read(CLOCK_REALTIME); }
  Timestamp coarse_realtime() override { return read(CLOCK_REALTIME_COARSE); }
  uint64_t monotonic_ns() override {
    timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return static_cast<uint64_t>(now.tv_sec) * 1'000'000'000 + static_cast<uint64_t>(now.tv_nsec);
  }
  void sleep_ns(uint64_t ns) override {
    timespec wait{static_cast<time_t>(ns / 1'000'000'000), static_cast<long>(ns % 1'000'000'000)};
    while (nanosleep(&wait, &wait) != 0) {
    }
  }

 private:
  static Timestamp read(clockid_t clock) {
    timespec now;
    clock_gettime(clock, &now);
    return {now.tv_sec, static_cast<uint32_t>(now.tv_nsec)};
  }
};

class SystemRandom final : public Random {
 public:
  uint64_t next() override {
    uint64_t value;
    CHECK(getrandom(&value, sizeof value, 0) ==
          sizeof value);  // small requests are never cut short or interrupted
    return value;
  }
};

}  // namespace

Clock& system_clock() {
  static SystemClock clock;
  return clock;
}

Random& system_random() {
  static SystemRandom random;
  return random;
}

}  // namespace reprise

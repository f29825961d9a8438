// Time and chance from outside, injected so that the simulator can supply its own. No other folder reads a
// clock or draws randomness. Implementations are safe from any thread.
#pragma once

#include <cstdint>

#include "base/ids.h"

namespace reprise {

// A point in time as Unix filesystems keep it: seconds since 1970-01-01 UTC, of any sign, and 0…999,999,999
// ns.
struct Timestamp {
  int64_t sec = 0;
  uint32_t nsec = 0;
  auto operator<=>(const Timestamp&) const = default;
};

class Clock {
 public:
  virtual ~Clock() = default;
  virtual Timestamp realtime() = 0;  // may go backwards
  // As of the last tick, up to 10 ms ago: with this Linux stamps files, too. It costs a fifth of the above,
  // which may be ahead of it.
  virtual Timestamp coarse_realtime() { return realtime(); }
  virtual uint64_t monotonic_ns() = 0;  // never does
  virtual void sleep_ns(uint64_t ns) = 0;
};

class Random {
 public:
  virtual ~Random() = default;
  virtual uint64_t next() = 0;  // 64 uniformly random bits

  template <class Id>
  Id next_id() {
    Id id;
    do {
      id.hi = next();
      id.lo = next();
    } while (!id);
    return id;
  }
};

// The machine's own; both live as long as the process.
Clock& system_clock();
Random& system_random();

}  // namespace reprise

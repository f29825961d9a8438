// The hashes of this project: XXH3, from libxxhash. They guard against accident, not malice.
#pragma once

#include <xxhash.h>

#include "base/bytes.h"
#include "base/ids.h"

namespace reprise {

inline uint64_t hash64(ByteView bytes, uint64_t seed = 0) {
  return XXH3_64bits_withSeed(bytes.data(), bytes.size(), seed);
}
inline Digest128 hash128(ByteView bytes) {
  XXH128_hash_t h = XXH3_128bits(bytes.data(), bytes.size());
  return {.lo = h.low64, .hi = h.high64};
}

}  // namespace reprise

// Putting right one byte that was changed, of bytes whose checksum is known: by trying.
#pragma once

#include <cstddef>
#include <functional>
#include <optional>

#include "base/bytes.h"

namespace reprise {

// The one byte of `bytes` that has to be another one for `fits(bytes)` to be true; `bytes` has it then.
// nullopt, and nothing changed, if there is none. Each is tried with every value or, without `every_value`,
// with each bit flipped. `fits` is false of the bytes as they are.
template <class Fits>
std::optional<size_t> correct_byte(ByteSpan bytes, bool every_value, const Fits& fits) {
  for (size_t at = 0; at < bytes.size(); ++at) {
    const std::byte found = bytes[at];
    for (unsigned n = 1; n < 256; n = every_value ? n + 1 : n * 2) {
      bytes[at] = found ^ static_cast<std::byte>(n);
      if (fits(bytes)) return at;
    }
    bytes[at] = found;
  }
  return std::nullopt;
}

// The same where it fits if hash64(bytes) is `checksum` (base/hash.h), without hashing all for each try: 1 ns
// for each KiB behind the byte. Bits are flipped everywhere before other values are tried. `progress` is
// called now and then with how many bytes of how many were looked at.
std::optional<size_t> correct_hashed_byte(
    ByteSpan bytes, uint64_t checksum, bool every_value,
    const std::function<void(uint64_t done, uint64_t all)>& progress = nullptr);

}  // namespace reprise

// Putting right one byte that was changed, of bytes whose checksum is known: by trying.
#pragma once

#include <cstddef>
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

}  // namespace reprise

// A change as text that git-apply(1) and, but for bytes that are no text, patch(1) understand.
#pragma once

#include <string>
#include <string_view>

#include "base/bytes.h"

namespace reprise::cli {

// One side of a file: mode as git has it (0100644, 0100755, 0120000), or 0 if it is not there.
struct PatchSide {
  std::string path;
  uint32_t mode = 0;
  ByteView bytes;
};

// Of a file that was made, removed, renamed or changed; "" if both sides are equal. Bytes that are no text,
// or more of it than can be compared in reasonable time, come as a binary patch, which holds both sides.
std::string patch_of(const PatchSide& before, const PatchSide& after);

}  // namespace reprise::cli

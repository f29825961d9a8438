// What the user named where a store, a directory or an archive may stand, if it is one of the latter two.
#pragma once

#include <string>

#include "snapshot/import.h"

namespace reprise::cli {

struct Outside {
  enum class Kind : uint8_t { kNone, kDirectory, kArchive } kind = Kind::kNone;
  std::string path;

  // By dir:, zip: or tar: before it, otherwise by what is there. What exists and is neither is a store's
  // business.
  static Outside parse(const std::string& text);
  explicit operator bool() const { return kind != Kind::kNone; }

  // All that it has, as a tree; kCorrupt, kNotFound …
  Result<fs::Head> read() const;
};

}  // namespace reprise::cli

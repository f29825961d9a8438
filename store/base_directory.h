// The directory of the host that a store rests on: files of its trees that nobody has changed have their
// bytes there, and nowhere else (docs/lazy.md). The file `base` of the store names it. Threads: any.
#pragma once

#include <optional>
#include <string>

#include "base/clock.h"
#include "base/disk.h"

namespace reprise::store {

struct BaseDirectory {
  std::string path;       // absolute
  uint64_t snapshot = 0;  // the directory as it was; 0: the store was not finished
  Timestamp time;         // when that was
};

inline constexpr const char* kBaseFile = "base";
inline constexpr uint64_t kBaseLimit = 8192;  // no such file is longer

Status write_base(Directory& store, const BaseDirectory& base);
// nullopt if the store rests on nothing; kCorrupt, kUnsupported.
Result<std::optional<BaseDirectory>> read_base(Directory& store);
// The same of its bytes; `file` is for messages.
Result<BaseDirectory> decode_base(ByteView bytes, const std::string& file);

}  // namespace reprise::store

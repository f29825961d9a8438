// The file `reprise.store`: it makes a folder a store, and names its volume. Private to this folder.
#pragma once

#include <string>

#include "base/bytes.h"
#include "base/error.h"
#include "base/ids.h"

namespace reprise::store {

inline constexpr const char* kIdentityFile = "reprise.store";
inline constexpr uint64_t kIdentityLimit = 4096;  // no such file is longer

Bytes encode_identity(VolumeId volume);
// kUnsupported, kCorrupt; `path` is for messages.
Result<VolumeId> decode_identity(ByteView bytes, const std::string& path);

}  // namespace reprise::store

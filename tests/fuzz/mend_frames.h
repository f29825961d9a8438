// Frames of a connection with any payload and right checksums.
#pragma once

#include "base/hash.h"
#include "replay/wire.h"

namespace reprise::fuzz {

inline void mend_frames(Bytes& frames) {
  for (size_t at = 0; at + replay::kFrameHeaderBytes <= frames.size();) {
    size_t payload = load_value<uint32_t>(frames.data() + at + 8);
    size_t begin = at + replay::kFrameHeaderBytes;
    if (payload > frames.size() - begin) return;
    store_value(frames.data() + at + 16, hash64(ByteView(frames).subspan(begin, payload)));
    at = begin + payload;
  }
}

}  // namespace reprise::fuzz

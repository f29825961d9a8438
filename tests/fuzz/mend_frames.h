// Frames of a connection with any payload, right numbers and right checksums.
#pragma once

#include "base/hash.h"
#include "replay/wire.h"

namespace reprise::fuzz {

inline void mend_frames(Bytes& frames) {
  uint64_t number = 0;
  for (size_t at = 0; at + replay::kFrameHeaderBytes <= frames.size();) {
    size_t payload = load_value<uint32_t>(frames.data() + at + 8);
    size_t begin = at + replay::kFrameHeaderBytes;
    if (payload > frames.size() - begin) return;
    replay::number_frame(std::span(frames).subspan(at), number++);
    store_value(frames.data() + at + 16, hash64(ByteView(frames).subspan(begin, payload)));
    at = begin + payload;
  }
}

}  // namespace reprise::fuzz

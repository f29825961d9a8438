// Frames of one direction of a connection, made by hand, with the numbers they must have.
#pragma once

#include "base/check.h"
#include "replay/wire.h"

namespace reprise::replay {

class Frames {
 public:
  // `before`: frames that have gone that way already.
  explicit Frames(uint64_t before = 0) : next_(before) {}

  Bytes of(const Control& control) { return numbered(encode_control(control).value()); }
  Bytes of(const journal::Batch& batch) {
    auto header = batch_frame_header(batch);
    Bytes frame(header.begin(), header.end());
    append_bytes(frame, batch.message());
    append_bytes(frame, batch.body());
    return numbered(std::move(frame));
  }
  Bytes of_tree(ByteView piece) {
    auto header = tree_frame_header(piece.size());
    Bytes frame(header.begin(), header.end());
    append_bytes(frame, piece);
    return numbered(std::move(frame));
  }
  // A whole frame, or the beginning of one.
  Bytes numbered(Bytes frame) {
    number_frame(frame, next_++);
    return frame;
  }

 private:
  uint64_t next_;
};

// Each frame of what one end has said, by itself.
template <class Do>
void for_frames(ByteView said, const Do& done) {
  while (!said.empty()) {
    size_t bytes = kFrameHeaderBytes + load_value<uint32_t>(said.data() + 8);
    done(said.first(bytes));
    said = said.subspan(bytes);
  }
}

inline uint64_t count_frames(ByteView said) {
  uint64_t frames = 0;
  for_frames(said, [&](ByteView) { ++frames; });
  return frames;
}

}  // namespace reprise::replay

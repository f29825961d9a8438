// Segments with wrong fields and right checksums.
#pragma once

#include "base/hash.h"
#include "journal/segment_format.h"

namespace reprise::test {

class SegmentMender {
 public:
  explicit SegmentMender(Bytes& file) : file_(file) {}

  void mend() {
    if (file_.size() < journal::kSegmentFixedBytes) return;
    uint64_t header = load_value<uint32_t>(at(12));
    if (header % 8 != 0 || header < journal::kSegmentFixedBytes + 8 || header > file_.size()) return;
    chain_ = hash64(ByteView(file_).first(header - 8));
    next_index_ = load_value<uint64_t>(at(72));
    store_value(at(header - 8), chain_);
    SegmentId id{.hi = load_value<uint64_t>(at(48)), .lo = load_value<uint64_t>(at(56))};
    for (uint64_t offset = header; offset + journal::kFrameHeaderBytes <= file_.size();) {
      uint64_t end = mend_frame(offset, journal::placement_seed(id, offset));
      if (end > file_.size()) return;
      offset = end;
    }
  }
  // Behind the last frame.
  uint64_t chain() const { return chain_; }
  LogIndex next_index() const { return next_index_ + batches_; }

 private:
  std::byte* at(uint64_t offset) { return file_.data() + offset; }

  uint64_t mend_frame(uint64_t offset, uint64_t seed) {
    std::byte* header = at(offset);
    uint64_t payload = uint64_t{load_value<uint32_t>(header + 8)} + load_value<uint32_t>(header + 12);
    uint64_t end = offset + journal::kFrameHeaderBytes + payload;
    if (end > file_.size()) return end;
    bool is_batch = load_value<uint16_t>(header + 4) == static_cast<uint16_t>(journal::FrameKind::kBatch);
    if (!is_batch && payload == journal::FrameSummary::kBytes)
      journal::FrameSummary{.batches = batches_, .batch_bytes = bytes_, .chain = chain_}.encode(
          header + journal::kFrameHeaderBytes);
    store_value(header + 56, hash64({header + journal::kFrameHeaderBytes, payload}));
    store_value(header + 64, hash64({header, 64}, seed));
    journal::FrameHeader chained{.self_checksum = hash64({header, 72})};
    store_value(header + 72, chained.self_checksum);
    chain_ = journal::extend_chain(chain_, chained);
    batches_ += is_batch;
    bytes_ += is_batch ? payload : 0;
    return end;
  }

  Bytes& file_;
  uint64_t chain_ = 0, batches_ = 0, bytes_ = 0;
  LogIndex next_index_ = 0;
};

// Makes every checksum, and what summaries count, what it would be had a writer put the other fields there.
// Stops at what cannot be a frame.
inline void mend_segment(Bytes& file) {
  SegmentMender(file).mend();
}

}  // namespace reprise::test

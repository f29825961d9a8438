// How a segment lies on disk: its header and the headers of its frames (docs/journal-format.md). Values and
// pure functions only; segment_writer.h and segment_reader.h do the reading and writing.
#pragma once

#include <optional>
#include <string>

#include "base/bytes.h"
#include "base/error.h"
#include "base/ids.h"
#include "journal/position.h"

namespace reprise::journal {

inline constexpr uint16_t kSegmentVersion = 1;
inline constexpr size_t kSegmentFixedBytes = 104;  // header up to the branch name
inline constexpr size_t kSegmentIdOffset = 48;
inline constexpr size_t kSegmentHeaderLimit = 64 << 20;  // refused by readers beyond this
inline constexpr size_t kFrameHeaderBytes = 80;
inline constexpr uint32_t kFrameMagic = 0x314d5246;  // "FRM1"

// Features a reader may not know: those in `compat` do not matter to it, those in `read_compat` keep it from
// writing, those in `incompat` from reading.
inline constexpr uint32_t kCompressedFeature = 1;  // incompat: what follows the header is compressed
struct FeatureBits {
  uint32_t compat = 0, read_compat = 0, incompat = 0;
};

struct SegmentHeader {
  VolumeId volume;
  SegmentId id;
  std::string branch;
  uint64_t sequence = 0;     // from 1, one more than the segment before
  LogIndex first_index = 0;  // of the first batch in it, or to come
  uint64_t previous = 0;     // chain value of the segment before, at its end; 0 if there is none
  bool restart = false;      // the log begins anew here: segments before it are no part of it
  FeatureBits features;
  Vector covered;  // what all batches before the first one here add up to
};

Bytes encode_segment_header(const SegmentHeader& header);
// Bytes of the whole header, from its first 16; kCorrupt when they are not the start of a segment.
Result<size_t> segment_header_bytes(ByteView first_16);
// Of exactly the bytes that segment_header_bytes() said. kUnsupported names the version or feature.
Result<SegmentHeader> decode_segment_header(ByteView bytes);
// The checksum at the end of an encoded header: where the segment's chain begins.
uint64_t segment_header_checksum(ByteView bytes);

enum class FrameKind : uint16_t {
  kBatch = 1,
  kClose = 2,  // the journal was closed here, and everything before is on the disk; payload: a FrameSummary
  kSeal = 3,   // the last frame of a segment that another follows; payload: a FrameSummary
};

struct FrameHeader {
  FrameKind kind = FrameKind::kBatch;
  uint32_t message_bytes = 0, body_bytes = 0;  // a summary's are those of FrameSummary, and 0
  LogIndex index = 0;            // of the batch; of a close or seal that of the next batch to come
  LogIndex durable_through = 0;  // known to be on the disk when this was written
  OriginId origin;               // of the batch
  Lsn lsn = 0;                   // likewise
  uint64_t checksum = 0;         // of message and body
  uint64_t self_checksum = 0;    // of the header; filled by encode and decode

  uint64_t frame_bytes() const { return kFrameHeaderBytes + uint64_t{message_bytes} + body_bytes; }
};

// A frame belongs to one segment and one offset: its placement checksum is seeded with both.
uint64_t placement_seed(SegmentId segment, uint64_t offset);

// Writes kFrameHeaderBytes at `to` and returns the header's own checksum.
uint64_t encode_frame_header(const FrameHeader& header, uint64_t seed, std::byte* to);
// Null if the bytes are a frame header that was written for this place; else what is wrong, for a message.
const char* decode_frame_header(ByteView bytes, uint64_t seed, FrameHeader& header);

// What a segment holds up to here. The chain is a hash of the segment's header and of every frame's header so
// far, so of everything: a seal's value goes into the header of the next segment.
struct FrameSummary {
  uint64_t batches = 0;
  uint64_t batch_bytes = 0;  // messages and bodies
  uint64_t chain = 0;        // before this frame

  static constexpr size_t kBytes = 24;
  void encode(std::byte* to) const;
  static FrameSummary decode(const std::byte* from);
  bool operator==(const FrameSummary&) const = default;
};
inline constexpr size_t kSummaryFrameBytes = kFrameHeaderBytes + FrameSummary::kBytes;

uint64_t extend_chain(uint64_t chain, const FrameHeader& header);

// A place in a segment from which frames can be read.
struct ReadPoint {
  LogIndex index = 0;  // of the next batch
  uint64_t offset = 0;
  uint64_t bytes_before = 0;  // encoded bytes of all batches before it, of the journal unless said otherwise
};

// "0000000012.seg", and back; nullopt for any other name.
std::string segment_name(uint64_t sequence);
std::optional<uint64_t> parse_segment_name(std::string_view name);

}  // namespace reprise::journal

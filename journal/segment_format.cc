#include "journal/segment_format.h"

#include <fmt/format.h>

#include <charconv>

#include "base/check.h"
#include "base/hash.h"

namespace reprise::journal {
namespace {

constexpr std::string_view kSegmentMagic = "RPRSLOG\n";
constexpr uint16_t kFlagRestart = 1;
constexpr size_t kVectorEntryBytes = 24;
constexpr size_t kSegmentNameDigits = 10;
constexpr std::string_view kSegmentSuffix = ".seg";

constexpr size_t kPlacementOffset = 64;  // in a frame header
constexpr size_t kSelfChecksumOffset = 72;
static_assert(kSelfChecksumOffset + 8 == kFrameHeaderBytes);

size_t padded(size_t bytes) {
  return (bytes + 7) & ~size_t{7};
}

std::unexpected<Error> damaged(std::string what) {
  return fail(Code::kCorrupt, "segment header: " + std::move(what));
}

void pad_to_8(Bytes& bytes) {
  bytes.resize(padded(bytes.size()));
}

Status check_features(uint16_t version, const FeatureBits& features) {
  if (version != kSegmentVersion) {
    return fail(Code::kUnsupported,
                fmt::format("segment header: expected version {}, found {}", kSegmentVersion, version));
  }
  if ((features.incompat & ~kCompressedFeature) != 0) {
    return fail(
        Code::kUnsupported,
        fmt::format("segment header: expected no unknown features needed for reading, found bits {:#x}",
                    features.incompat & ~kCompressedFeature));
  }
  return {};
}

}  // namespace

Bytes encode_segment_header(const SegmentHeader& header) {
  size_t entries = header.covered.entries().size();
  size_t all = kSegmentFixedBytes + padded(header.branch.size()) + entries * kVectorEntryBytes + 8;
  Bytes bytes;
  bytes.reserve(all);
  append_bytes(bytes, as_bytes(kSegmentMagic));
  append_value(bytes, kSegmentVersion);
  append_value(bytes, static_cast<uint16_t>(header.restart ? kFlagRestart : 0));
  append_value(bytes, static_cast<uint32_t>(all));
  append_value(bytes, header.features.compat);
  append_value(bytes, header.features.read_compat);
  append_value(bytes, header.features.incompat);
  append_value(bytes, static_cast<uint32_t>(header.branch.size()));
  append_value(bytes, header.volume.hi);
  append_value(bytes, header.volume.lo);
  append_value(bytes, header.id.hi);
  append_value(bytes, header.id.lo);
  append_value(bytes, header.sequence);
  append_value(bytes, header.first_index);
  append_value(bytes, header.previous);
  append_value(bytes, static_cast<uint64_t>(entries));
  append_value(bytes, uint64_t{0});  // reserved
  CHECK(bytes.size() == kSegmentFixedBytes);
  append_bytes(bytes, as_bytes(header.branch));
  pad_to_8(bytes);
  for (const auto& [origin, lsn] : header.covered.entries()) {
    append_value(bytes, origin.hi);
    append_value(bytes, origin.lo);
    append_value(bytes, lsn);
  }
  append_value(bytes, hash64(bytes));
  CHECK(bytes.size() == all);
  return bytes;
}

Result<size_t> segment_header_bytes(ByteView first_16) {
  if (first_16.size() < 16 || as_text(first_16.first(8)) != kSegmentMagic) {
    return damaged(fmt::format("expected a segment (\"RPRSLOG\"), found \"{}\"",
                               printable(as_text(first_16.first(std::min<size_t>(first_16.size(), 8))))));
  }
  size_t all = load_value<uint32_t>(first_16.data() + 12);
  if (all < kSegmentFixedBytes + 8 || all % 8 != 0 || all > kSegmentHeaderLimit) {
    return damaged(fmt::format("expected a length of {} to {} in multiples of 8, found {}",
                               kSegmentFixedBytes + 8, kSegmentHeaderLimit, all));
  }
  return all;
}

Result<SegmentHeader> decode_segment_header(ByteView bytes) {
  size_t all = TRY(segment_header_bytes(bytes.first(std::min<size_t>(bytes.size(), 16))));
  if (all != bytes.size()) return damaged(fmt::format("expected {} bytes, found {}", all, bytes.size()));
  if (segment_header_checksum(bytes) != hash64(bytes.first(all - 8)))
    return damaged("expected a matching checksum, found another");

  ByteReader from(bytes.first(all - 8));
  SegmentHeader header;
  from.take(8);
  uint16_t version = from.value<uint16_t>();
  uint16_t flags = from.value<uint16_t>();
  from.value<uint32_t>();
  header.features = {from.value<uint32_t>(), from.value<uint32_t>(), from.value<uint32_t>()};
  TRY(check_features(version, header.features));
  header.restart = (flags & kFlagRestart) != 0;
  size_t branch_bytes = from.value<uint32_t>();
  header.volume = {from.value<uint64_t>(), from.value<uint64_t>()};
  header.id = {from.value<uint64_t>(), from.value<uint64_t>()};
  header.sequence = from.value<uint64_t>();
  header.first_index = from.value<uint64_t>();
  header.previous = from.value<uint64_t>();
  uint64_t entries = from.value<uint64_t>();
  from.value<uint64_t>();
  header.branch = as_text(from.take(branch_bytes));
  from.take(padded(branch_bytes) - branch_bytes);
  if (!from.ok() || entries != from.remaining() / kVectorEntryBytes ||
      from.remaining() % kVectorEntryBytes != 0 || header.sequence == 0 || header.first_index == 0) {
    return damaged("expected a branch name, a vector, a sequence number and a log index that fit");
  }
  OriginId previous;
  for (uint64_t i = 0; i < entries; ++i) {
    OriginId origin{.hi = from.value<uint64_t>(), .lo = from.value<uint64_t>()};
    Lsn lsn = from.value<uint64_t>();
    if (!(previous < origin) || lsn == 0) return damaged("expected a vector in ascending order of origins");
    header.covered.set(origin, lsn);
    previous = origin;
  }
  return header;
}

uint64_t segment_header_checksum(ByteView bytes) {
  return load_value<uint64_t>(bytes.data() + bytes.size() - 8);
}

uint64_t placement_seed(SegmentId segment, uint64_t offset) {
  uint64_t place[] = {segment.hi, segment.lo, offset};
  return hash64(std::as_bytes(std::span(place)));
}

uint64_t encode_frame_header(const FrameHeader& header, uint64_t seed, std::byte* to) {
  store_value(to, kFrameMagic);
  store_value(to + 4, static_cast<uint16_t>(header.kind));
  store_value(to + 6, uint16_t{0});
  store_value(to + 8, header.message_bytes);
  store_value(to + 12, header.body_bytes);
  store_value(to + 16, header.index);
  store_value(to + 24, header.durable_through);
  store_value(to + 32, header.origin.hi);
  store_value(to + 40, header.origin.lo);
  store_value(to + 48, header.lsn);
  store_value(to + 56, header.checksum);
  store_value(to + kPlacementOffset, hash64({to, kPlacementOffset}, seed));
  uint64_t self = hash64({to, kSelfChecksumOffset});
  store_value(to + kSelfChecksumOffset, self);
  return self;
}

const char* decode_frame_header(ByteView bytes, uint64_t seed, FrameHeader& header) {
  CHECK(bytes.size() == kFrameHeaderBytes);
  const std::byte* from = bytes.data();
  if (load_value<uint32_t>(from) != kFrameMagic) return "no frame";
  header.self_checksum = load_value<uint64_t>(from + kSelfChecksumOffset);
  if (header.self_checksum != hash64(bytes.first(kSelfChecksumOffset)))
    return "a frame header that was changed";
  if (load_value<uint64_t>(from + kPlacementOffset) != hash64(bytes.first(kPlacementOffset), seed)) {
    return "a frame that was written for another place";
  }
  auto kind = load_value<uint16_t>(from + 4);
  if (kind < 1 || kind > 3 || load_value<uint16_t>(from + 6) != 0) return "a frame of an unknown kind";
  header.kind = static_cast<FrameKind>(kind);
  header.message_bytes = load_value<uint32_t>(from + 8);
  header.body_bytes = load_value<uint32_t>(from + 12);
  header.index = load_value<uint64_t>(from + 16);
  header.durable_through = load_value<uint64_t>(from + 24);
  header.origin = {load_value<uint64_t>(from + 32), load_value<uint64_t>(from + 40)};
  header.lsn = load_value<uint64_t>(from + 48);
  header.checksum = load_value<uint64_t>(from + 56);
  bool summary = header.kind != FrameKind::kBatch;
  if (summary && (header.message_bytes != FrameSummary::kBytes || header.body_bytes != 0))
    return "a summary of a wrong length";
  if (header.message_bytes % 8 != 0 || header.body_bytes % 8 != 0)
    return "a frame of a length that is no multiple of 8";
  return nullptr;
}

void FrameSummary::encode(std::byte* to) const {
  store_value(to, batches);
  store_value(to + 8, batch_bytes);
  store_value(to + 16, chain);
}
FrameSummary FrameSummary::decode(const std::byte* from) {
  return {load_value<uint64_t>(from), load_value<uint64_t>(from + 8), load_value<uint64_t>(from + 16)};
}

uint64_t extend_chain(uint64_t chain, const FrameHeader& header) {
  return hash64(std::as_bytes(std::span(&header.self_checksum, 1)), chain);
}

std::string segment_name(uint64_t sequence) {
  return fmt::format("{:010}{}", sequence, kSegmentSuffix);
}

std::optional<uint64_t> parse_segment_name(std::string_view name) {
  if (!name.ends_with(kSegmentSuffix)) return std::nullopt;
  std::string_view digits = name.substr(0, name.size() - kSegmentSuffix.size());
  uint64_t sequence = 0;
  auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), sequence);
  bool whole =
      error == std::errc() && end == digits.data() + digits.size() && digits.size() >= kSegmentNameDigits;
  return whole && sequence > 0 ? std::optional(sequence) : std::nullopt;
}

}  // namespace reprise::journal

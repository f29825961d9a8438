#include "replay/wire.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/check.h"
#include "base/hash.h"

namespace reprise::replay {
namespace {

// Frame header, little-endian:
//   0 magic:u32  4 kind:u8  5 frames before:u24  8 payload bytes:u32  12 message bytes:u32 (batch)  16
//   checksum:u64
constexpr uint32_t kFrameMagic = 0x31535052;  // "RPS1"
constexpr size_t kNumberAt = 5, kNumberBytes = 3;
constexpr uint64_t kNumbers = 1 << (8 * kNumberBytes);
constexpr uint8_t kControlKind = 1;
constexpr uint8_t kBatchKind = 2;
constexpr uint8_t kTreeKind = 3;
// Memory is taken as bytes arrive, beginning with this much: a header alone makes nobody allocate what it
// claims.
constexpr size_t kFirstReserve = 256 << 10;

std::array<std::byte, kFrameHeaderBytes> frame_header(uint8_t kind, size_t payload_bytes,
                                                      size_t message_bytes, uint64_t checksum) {
  std::array<std::byte, kFrameHeaderBytes> out{};
  store_value(out.data(), kFrameMagic);
  store_value(out.data() + 4, kind);
  store_value(out.data() + 8, static_cast<uint32_t>(payload_bytes));
  store_value(out.data() + 12, static_cast<uint32_t>(message_bytes));
  store_value(out.data() + 16, checksum);
  return out;
}

size_t payload_limit(uint8_t kind) {
  switch (kind) {
    case kControlKind:
      return kControlLimit;
    case kBatchKind:
      return journal::kBatchMessageLimit + journal::kBatchBodyLimit;
    case kTreeKind:
      return kTreeFrameLimit;
    default:
      return 0;
  }
}

std::unexpected<Error> malformed(std::string what) {
  return fail(Code::kCorrupt, "malformed message: " + std::move(what));
}

}  // namespace

void Outgoing::append_pieces(std::vector<ByteView>& pieces) const {
  if (!bytes.empty()) pieces.push_back(bytes);
  if (!batch) return;
  if (ByteView message = batch.message(); !message.empty()) pieces.push_back(message);
  if (ByteView body = batch.body(); !body.empty()) pieces.push_back(body);
}

std::array<std::byte, kFrameHeaderBytes> batch_frame_header(const journal::Batch& batch) {
  return frame_header(kBatchKind, batch.encoded_bytes(), batch.message().size(), batch.checksum());
}

std::array<std::byte, kFrameHeaderBytes> tree_frame_header(size_t payload_bytes) {
  CHECK(payload_bytes > 0 && payload_bytes <= kTreeFrameLimit);
  // No checksum: each blob in the stream is named by its hash, and the digest covers the whole.
  return frame_header(kTreeKind, payload_bytes, 0, 0);
}

std::array<std::byte, kFrameHeaderBytes> control_frame_header(ByteView payload) {
  return frame_header(kControlKind, payload.size(), 0, hash64(payload));
}

void number_frame(std::span<std::byte> header, uint64_t frames_before) {
  for (size_t i = 0; i < kNumberBytes; ++i)
    header[kNumberAt + i] = static_cast<std::byte>(frames_before >> (8 * i));
}

Result<std::optional<Incoming>> FrameReader::take(ByteView& bytes) {
  if (header_have_ < kFrameHeaderBytes) {
    ByteView part = bytes.first(std::min(bytes.size(), kFrameHeaderBytes - header_have_));
    std::copy(part.begin(), part.end(), header_.begin() + header_have_);
    header_have_ += part.size();
    bytes = bytes.subspan(part.size());
    if (header_have_ < kFrameHeaderBytes) return std::nullopt;
    TRY(read_header());
  }
  ByteView part = bytes.first(std::min<size_t>(bytes.size(), payload_bytes_ - payload_.size()));
  append_bytes(payload_, part);
  bytes = bytes.subspan(part.size());
  if (payload_.size() < payload_bytes_) return std::nullopt;
  header_have_ = 0;
  return TRY(finish());
}

Status FrameReader::read_header() {
  ByteReader in(header_);
  if (auto magic = in.value<uint32_t>(); magic != kFrameMagic)
    return malformed(
        fmt::format("expected a frame of this protocol (RPS1), found the bytes {}", to_hex(header_)));
  kind_ = in.value<uint8_t>();
  uint64_t number = 0;
  for (size_t i = 0; i < kNumberBytes; ++i) number |= uint64_t{in.value<uint8_t>()} << (8 * i);
  payload_bytes_ = in.value<uint32_t>();
  message_bytes_ = in.value<uint32_t>();
  checksum_ = in.value<uint64_t>();
  if (kind_ < kControlKind || kind_ > kTreeKind)
    return malformed(fmt::format("unknown kind of frame {}", kind_));
  if (uint64_t expected = frames_ % kNumbers; number != expected)
    return malformed(fmt::format(
        "frame {} came, expected {}: something was lost, doubled or moved on its way", number, expected));
  ++frames_;
  if (size_t limit = std::min(limit_, payload_limit(kind_)); payload_bytes_ == 0 || payload_bytes_ > limit)
    return malformed(
        fmt::format("a frame of kind {} claims {} bytes, expected 1 to {}", kind_, payload_bytes_, limit));
  if (kind_ == kBatchKind ? message_bytes_ > payload_bytes_ : message_bytes_ != 0)
    return malformed(
        fmt::format("a frame of {} bytes claims a message of {}", payload_bytes_, message_bytes_));
  payload_ = Bytes();
  payload_.reserve(std::min<size_t>(payload_bytes_, kFirstReserve));
  return {};
}

Result<Incoming> FrameReader::finish() {
  if (kind_ == kTreeKind) return Incoming(TreeData{std::move(payload_)});
  if (kind_ == kBatchKind) {
    auto shared = std::make_shared<const Bytes>(std::move(payload_));
    return Incoming(TRY(journal::Batch::parse(std::move(shared), message_bytes_, checksum_)));
  }
  if (hash64(payload_) != checksum_) return malformed("the checksum of a control message is wrong");
  return Incoming(TRY(decode_control(payload_)));
}

}  // namespace reprise::replay

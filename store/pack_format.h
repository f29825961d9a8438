// How a pack lies on the disk: docs/snapshot-format.md, section 2. Encoding and checking of headers; no I/O.
#pragma once

#include <array>
#include <optional>

#include "base/bytes.h"
#include "base/ids.h"

namespace reprise::store {

inline constexpr uint64_t kPackMagic = 0x31304b4341505052;  // "RPPACK01"
inline constexpr uint32_t kPackVersion = 0;
inline constexpr size_t kPackHeaderBytes = 40;
inline constexpr uint32_t kBlobMagic = 0x424f4c42;  // "BLOB"
inline constexpr size_t kBlobHeaderBytes = 40;

enum class Codec : uint8_t { kRaw = 0, kZstd = 1 };

struct BlobHeader {
  Codec codec = Codec::kRaw;
  BlobId id;
  uint32_t raw_bytes = 0;
  uint32_t stored_bytes = 0;  // that follow the header
  bool refers_to_none = false;
};

std::array<std::byte, kPackHeaderBytes> encode_pack_header(VolumeId volume, uint32_t pack);
// nullopt if these bytes are no pack's header.
std::optional<VolumeId> volume_of_pack(ByteView header);
std::array<std::byte, kBlobHeaderBytes> encode_blob_header(const BlobHeader& header);
// nullopt if these bytes are no blob header: magic, checksum, codec and the bounds of both sizes are checked.
std::optional<BlobHeader> decode_blob_header(ByteView bytes);

}  // namespace reprise::store

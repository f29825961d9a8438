#include "store/pack_format.h"

#include "base/hash.h"
#include "store/blob.h"

namespace reprise::store {

std::array<std::byte, kPackHeaderBytes> encode_pack_header(VolumeId volume, uint32_t pack) {
  std::array<std::byte, kPackHeaderBytes> out;
  store_value(out.data(), kPackMagic);
  store_value(out.data() + 8, kPackVersion);
  store_value(out.data() + 12, pack);
  store_value(out.data() + 16, volume.hi);
  store_value(out.data() + 24, volume.lo);
  store_value(out.data() + 32, hash64(ByteView(out).first(32)));
  return out;
}

std::optional<VolumeId> volume_of_pack(ByteView header) {
  if (header.size() < kPackHeaderBytes || load_value<uint64_t>(header.data()) != kPackMagic ||
      load_value<uint64_t>(header.data() + 32) != hash64(header.first(32)))
    return std::nullopt;
  return VolumeId{load_value<uint64_t>(header.data() + 16), load_value<uint64_t>(header.data() + 24)};
}

std::array<std::byte, kBlobHeaderBytes> encode_blob_header(const BlobHeader& header) {
  std::array<std::byte, kBlobHeaderBytes> out = {};
  store_value(out.data(), kBlobMagic);
  store_value(out.data() + 4, header.codec);
  store_value(out.data() + 5, static_cast<uint8_t>(header.refers_to_none));
  store_value(out.data() + 8, header.id.lo);
  store_value(out.data() + 16, header.id.hi);
  store_value(out.data() + 24, header.raw_bytes);
  store_value(out.data() + 28, header.stored_bytes);
  store_value(out.data() + 32, hash64(ByteView(out).first(32)));
  return out;
}

std::optional<BlobHeader> decode_blob_header(ByteView bytes) {
  if (bytes.size() < kBlobHeaderBytes) return std::nullopt;
  ByteReader in(bytes.first(kBlobHeaderBytes));
  uint32_t magic = in.value<uint32_t>();
  auto codec = in.value<uint8_t>(), refers_to_none = in.value<uint8_t>();
  auto zero = in.value<uint16_t>();
  BlobHeader header;
  header.id.lo = in.value<uint64_t>();
  header.id.hi = in.value<uint64_t>();
  header.raw_bytes = in.value<uint32_t>();
  header.stored_bytes = in.value<uint32_t>();
  auto checksum = in.value<uint64_t>();
  if (magic != kBlobMagic || checksum != hash64(bytes.first(32))) return std::nullopt;
  if (codec > static_cast<uint8_t>(Codec::kZstd) || refers_to_none > 1 || zero != 0) return std::nullopt;
  header.codec = static_cast<Codec>(codec);
  header.refers_to_none = refers_to_none == 1;
  if (header.raw_bytes > kBlobLimit || header.stored_bytes > header.raw_bytes) return std::nullopt;
  return header;
}

}  // namespace reprise::store

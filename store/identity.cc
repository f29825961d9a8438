#include "store/identity.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/hash.h"

namespace reprise::store {
namespace {

constexpr std::string_view kIdentityMagic = "reprise store\n";  // filled up with NULs to 16 bytes
constexpr uint32_t kStoreVersion = 0;
constexpr size_t kIdentityBytes = 48;

bool is_ours_but_for_the_version(ByteView bytes) {
  if (bytes.size() != kIdentityBytes) return false;
  Bytes ours(bytes.begin(), bytes.end());
  store_value(ours.data() + 16, kStoreVersion);
  return hash64(ByteView(ours).first(kIdentityBytes - 8)) == load_value<uint64_t>(ours.data() + 40);
}

}  // namespace

// magic 16, version u32, zero u32, volume hi and lo u64, checksum u64 of what precedes.
Bytes encode_identity(VolumeId volume) {
  Bytes out;
  append_bytes(out, as_bytes(kIdentityMagic));
  out.resize(16);
  append_value(out, kStoreVersion);
  append_value(out, uint32_t{0});
  append_value(out, volume.hi);
  append_value(out, volume.lo);
  append_value(out, hash64(out));
  return out;
}

Result<VolumeId> decode_identity(ByteView bytes, const std::string& path) {
  ByteReader in(bytes);
  Bytes magic = encode_identity({});
  if (!std::ranges::equal(in.take(16), ByteView(magic).first(16))) {
    return fail(Code::kCorrupt, path + ": expected a store's identity, found other bytes");
  }
  auto version = in.value<uint32_t>();
  // Of another version, unless it is only this that is wrong.
  if (in.ok() && version != kStoreVersion && !is_ours_but_for_the_version(bytes)) {
    return fail(Code::kUnsupported,
                fmt::format("{}: expected store version {}, found {}", path, kStoreVersion, version));
  }
  if (bytes.size() != kIdentityBytes) {
    return fail(Code::kCorrupt,
                fmt::format("{}: expected {} bytes, found {}", path, kIdentityBytes, bytes.size()));
  }
  in.value<uint32_t>();
  VolumeId volume;
  volume.hi = in.value<uint64_t>();
  volume.lo = in.value<uint64_t>();
  uint64_t expected = hash64(bytes.first(kIdentityBytes - 8));
  auto found = in.value<uint64_t>();
  if (expected != found || !volume) {
    return fail(Code::kCorrupt,
                fmt::format("{}: expected checksum {:016x}, found {:016x}", path, expected, found));
  }
  return volume;
}

}  // namespace reprise::store

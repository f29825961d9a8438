// The identities of a volume and its parts (docs/data-model.md). All are values, compared bit by bit; none is
// reused.
#pragma once

#include <compare>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>

namespace reprise {

// 128 random bits that name one thing for ever; Tag keeps the kinds apart. Zero means "none".
template <class Tag>
struct Id128 {
  uint64_t hi = 0, lo = 0;

  explicit operator bool() const { return (hi | lo) != 0; }
  auto operator<=>(const Id128&) const = default;

  std::string to_string() const;  // 32 lower-case hexadecimal digits
  std::string to_short_string() const { return to_string().substr(0, 8); }
  static std::optional<Id128> parse(std::string_view hex);  // exactly 32 hexadecimal digits
};

using VolumeId = Id128<struct VolumeTag>;
using OriginId = Id128<struct OriginTag>;
using SegmentId = Id128<struct SegmentTag>;

// An inode of a volume: a 40-bit random prefix claimed in an origin's stream and a 24-bit counter. 0 is none;
// the root directory is 1 in every volume (prefix 0, which nobody may claim).
struct InodeId {
  uint64_t value = 0;

  static constexpr int kCounterBits = 24;
  static constexpr uint64_t kMaxPrefix = (uint64_t{1} << 40) - 1;
  static constexpr InodeId make(uint64_t prefix, uint32_t counter) {
    return {prefix << kCounterBits | counter};
  }
  constexpr uint64_t prefix() const { return value >> kCounterBits; }
  constexpr uint32_t counter() const { return static_cast<uint32_t>(value & ((1u << kCounterBits) - 1)); }

  explicit operator bool() const { return value != 0; }
  auto operator<=>(const InodeId&) const = default;
};
inline constexpr InodeId kRootInode{1};

// Dense sequence number within one origin, from 1; 0 means "nothing yet".
using Lsn = uint64_t;
// Number of a batch in one branch of one store, from 1; local, never sent to a peer.
using LogIndex = uint64_t;

// 128-bit hash or sum of hashes. Addition wraps, so a sum does not depend on order.
struct Digest128 {
  uint64_t lo = 0, hi = 0;

  Digest128& operator+=(const Digest128& other) {
    unsigned __int128 sum = value() + other.value();
    lo = static_cast<uint64_t>(sum);
    hi = static_cast<uint64_t>(sum >> 64);
    return *this;
  }
  Digest128& operator-=(const Digest128& other) {
    unsigned __int128 difference = value() - other.value();
    lo = static_cast<uint64_t>(difference);
    hi = static_cast<uint64_t>(difference >> 64);
    return *this;
  }
  explicit operator bool() const { return (hi | lo) != 0; }
  auto operator<=>(const Digest128&) const = default;

  std::string to_string() const;  // 32 lower-case hexadecimal digits, hi first
  static std::optional<Digest128> parse(std::string_view hex);

 private:
  unsigned __int128 value() const { return static_cast<unsigned __int128>(hi) << 64 | lo; }
};
// Names a blob: XXH3-128 of its bytes. Zero means "not stored".
using BlobId = Digest128;

}  // namespace reprise

template <class Tag>
struct std::hash<reprise::Id128<Tag>> {
  size_t operator()(const reprise::Id128<Tag>& id) const noexcept { return id.hi ^ id.lo; }
};
template <>
struct std::hash<reprise::InodeId> {
  size_t operator()(reprise::InodeId id) const noexcept { return id.value * 0x9e3779b97f4a7c15u; }
};
template <>
struct std::hash<reprise::Digest128> {
  size_t operator()(const reprise::Digest128& digest) const noexcept { return digest.lo; }
};

#include "base/ids.h"

#include <fmt/format.h>

#include <charconv>

namespace reprise {
namespace {

std::optional<std::pair<uint64_t, uint64_t>> parse_hex_128(std::string_view hex) {
  if (hex.size() != 32) return std::nullopt;
  uint64_t parts[2];
  for (int i = 0; i < 2; i++) {
    const char* begin = hex.data() + 16 * i;
    auto [end, error] = std::from_chars(begin, begin + 16, parts[i], 16);
    if (error != std::errc() || end != begin + 16) return std::nullopt;
  }
  return std::pair(parts[0], parts[1]);
}

}  // namespace

template <class Tag>
std::string Id128<Tag>::to_string() const {
  return fmt::format("{:016x}{:016x}", hi, lo);
}

template <class Tag>
std::optional<Id128<Tag>> Id128<Tag>::parse(std::string_view hex) {
  auto parts = parse_hex_128(hex);
  if (!parts) return std::nullopt;
  return Id128{parts->first, parts->second};
}

template struct Id128<VolumeTag>;
template struct Id128<OriginTag>;
template struct Id128<SegmentTag>;

std::string Digest128::to_string() const {
  return fmt::format("{:016x}{:016x}", hi, lo);
}

std::optional<Digest128> Digest128::parse(std::string_view hex) {
  auto parts = parse_hex_128(hex);
  if (!parts) return std::nullopt;
  return Digest128{.lo = parts->second, .hi = parts->first};
}

}  // namespace reprise

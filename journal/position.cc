#include "journal/position.h"

#include <fmt/format.h>

#include <algorithm>
#include <optional>

#include "base/check.h"
#include "base/hash.h"

namespace reprise::journal {
namespace {

constexpr size_t kEntryBytes = 24;  // origin.hi, origin.lo, lsn
constexpr std::string_view kTokenPrefix = "r0.";
constexpr size_t kTokenCheckBytes = 4;
constexpr std::string_view kAlphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

bool by_origin(const Vector::Entry& entry, OriginId origin) {
  return entry.first < origin;
}

void append_varint(Bytes& to, uint64_t value) {
  for (; value >= 0x80; value >>= 7) to.push_back(static_cast<std::byte>(value | 0x80));
  to.push_back(static_cast<std::byte>(value));
}

std::optional<uint64_t> take_varint(ByteReader& from) {
  uint64_t value = 0;
  for (int shift = 0; shift < 64; shift += 7) {
    uint64_t byte = from.value<uint8_t>();
    if (!from.ok() || (shift == 63 && byte > 1)) return std::nullopt;
    value |= (byte & 0x7f) << shift;
    if (byte < 0x80) return value;
  }
  return std::nullopt;
}

// RFC 4648 §5, without padding.
std::string to_base64url(ByteView bytes) {
  std::string text;
  uint32_t bits = 0;
  int held = 0;
  for (std::byte byte : bytes) {
    bits = bits << 8 | static_cast<uint8_t>(byte);
    for (held += 8; held >= 6; held -= 6) text += kAlphabet[bits >> (held - 6) & 63];
  }
  if (held > 0) text += kAlphabet[bits << (6 - held) & 63];
  return text;
}

std::optional<Bytes> from_base64url(std::string_view text) {
  Bytes bytes;
  uint32_t bits = 0;
  int held = 0;
  for (char c : text) {
    size_t value = kAlphabet.find(c);
    if (value == std::string_view::npos) return std::nullopt;
    bits = bits << 6 | static_cast<uint32_t>(value);
    held += 6;
    if (held >= 8) {
      held -= 8;
      bytes.push_back(static_cast<std::byte>(bits >> held));
    }
  }
  bool one_spelling = held < 6 && (bits & ((1u << held) - 1)) == 0;
  return one_spelling ? std::optional(std::move(bytes)) : std::nullopt;
}

uint32_t token_check(ByteView bytes) {
  return static_cast<uint32_t>(hash64(bytes));
}

std::unexpected<Error> bad_token(std::string_view token, std::string_view found) {
  return fail(
      Code::kInvalidArgument,
      fmt::format("\"{}\" is not a position: expected a whole token as `mark` and `stat` print it, found {}",
                  printable(token), found));
}

}  // namespace

Lsn Vector::get(OriginId origin) const {
  auto at = std::lower_bound(entries_.begin(), entries_.end(), origin, by_origin);
  return at != entries_.end() && at->first == origin ? at->second : 0;
}

void Vector::set(OriginId origin, Lsn lsn) {
  auto at = std::lower_bound(entries_.begin(), entries_.end(), origin, by_origin);
  bool present = at != entries_.end() && at->first == origin;
  if (lsn == 0) {
    if (present) entries_.erase(at);
  } else if (present) {
    at->second = lsn;
  } else {
    entries_.insert(at, {origin, lsn});
  }
}

bool Vector::covers(const Vector& other) const {
  auto at = entries_.begin();
  for (const auto& [origin, lsn] : other.entries_) {
    at = std::lower_bound(at, entries_.end(), origin, by_origin);
    if (at == entries_.end() || at->first != origin || at->second < lsn) return false;
  }
  return true;
}

void Vector::merge(const Vector& other) {
  for (const auto& [origin, lsn] : other.entries_) set(origin, std::max(get(origin), lsn));
}

std::vector<Vector::Entry> Vector::difference_from(const Vector& previous) const {
  CHECK(covers(previous));
  std::vector<Entry> changed;
  for (const Entry& entry : entries_) {
    if (previous.get(entry.first) != entry.second) changed.push_back(entry);
  }
  return changed;
}

Bytes Vector::encode() const {
  Bytes bytes;
  bytes.reserve(sizeof(uint32_t) + entries_.size() * kEntryBytes);
  append_value(bytes, static_cast<uint32_t>(entries_.size()));
  for (const auto& [origin, lsn] : entries_) {
    append_value(bytes, origin.hi);
    append_value(bytes, origin.lo);
    append_value(bytes, lsn);
  }
  return bytes;
}

Result<Vector> Vector::decode(ByteView bytes) {
  ByteReader from(bytes);
  uint64_t count = from.value<uint32_t>();
  if (!from.ok() || from.remaining() != count * kEntryBytes) {
    return fail(Code::kCorrupt,
                fmt::format("vector: expected a count and that many entries, found {} bytes", bytes.size()));
  }
  Vector vector;
  vector.entries_.reserve(count);
  for (uint64_t i = 0; i < count; ++i) {
    OriginId origin{.hi = from.value<uint64_t>(), .lo = from.value<uint64_t>()};
    Lsn lsn = from.value<uint64_t>();
    bool ascending =
        vector.entries_.empty() ? static_cast<bool>(origin) : vector.entries_.back().first < origin;
    if (!ascending || lsn == 0) {
      return fail(
          Code::kCorrupt,
          fmt::format("vector: expected ascending origins and no LSN 0, found {} at LSN {} as entry {}",
                      origin.to_string(), lsn, i));
    }
    vector.entries_.emplace_back(origin, lsn);
  }
  return vector;
}

Position Position::by_last_batch(OriginId origin, Lsn lsn) const {
  if (lsn == 0 || vector.get(origin) != lsn) return *this;
  Position last{.vector = {}, .digest = digest};
  last.vector.set(origin, lsn);
  return last;
}

std::string Position::to_token() const {
  Bytes bytes;
  append_varint(bytes, vector.entries().size());
  for (const auto& [origin, lsn] : vector.entries()) {
    append_value(bytes, origin.hi);
    append_value(bytes, origin.lo);
    append_varint(bytes, lsn);
  }
  append_value(bytes, digest.lo);
  append_value(bytes, digest.hi);
  append_value(bytes, token_check(bytes));
  return std::string(kTokenPrefix) + to_base64url(bytes);
}

Result<Position> Position::parse_token(std::string_view token) {
  if (!token.starts_with(kTokenPrefix)) return bad_token(token, "no \"r0.\" at its start");
  std::optional<Bytes> bytes = from_base64url(token.substr(kTokenPrefix.size()));
  if (!bytes || bytes->size() < kTokenCheckBytes)
    return bad_token(token, "characters missing or out of place");
  ByteView fields = ByteView(*bytes).first(bytes->size() - kTokenCheckBytes);
  if (load_value<uint32_t>(fields.data() + fields.size()) != token_check(fields)) {
    return bad_token(token, "a mistyped or missing character");
  }

  ByteReader from(fields);
  Position position;
  std::optional<uint64_t> count = take_varint(from);
  if (!count || *count > from.remaining()) return bad_token(token, "a count that does not fit");
  OriginId previous;
  for (uint64_t i = 0; i < *count; ++i) {
    OriginId origin{.hi = from.value<uint64_t>(), .lo = from.value<uint64_t>()};
    std::optional<uint64_t> lsn = take_varint(from);
    if (!lsn || *lsn == 0 || !(previous < origin)) return bad_token(token, "entries out of order");
    position.vector.set(origin, *lsn);
    previous = origin;
  }
  position.digest.lo = from.value<uint64_t>();
  position.digest.hi = from.value<uint64_t>();
  if (!from.at_end()) return bad_token(token, "bytes missing or left over");
  return position;
}

}  // namespace reprise::journal

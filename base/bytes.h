// Byte spans and little-endian fields: what every format of this project is read and written with.
// Nothing here checks bounds for the caller except ByteReader, which never reads past its end.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace reprise {

using ByteView = std::span<const std::byte>;
using ByteSpan = std::span<std::byte>;
using Bytes = std::vector<std::byte>;

static_assert(std::endian::native == std::endian::little, "formats are little-endian and are read in place");

inline ByteView as_bytes(std::string_view text) {
  return {reinterpret_cast<const std::byte*>(text.data()), text.size()};
}
inline std::string_view as_text(ByteView bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

template <class T>
T load_value(const std::byte* from) {
  static_assert(std::is_trivially_copyable_v<T>);
  T value;
  std::memcpy(&value, from, sizeof value);
  return value;
}
template <class T>
void store_value(std::byte* to, const T& value) {
  static_assert(std::is_trivially_copyable_v<T>);
  std::memcpy(to, &value, sizeof value);
}

inline void append_bytes(Bytes& to, ByteView bytes) {
  to.insert(to.end(), bytes.begin(), bytes.end());
}
template <class T>
void append_value(Bytes& to, const T& value) {
  static_assert(std::is_trivially_copyable_v<T>);
  append_bytes(to, {reinterpret_cast<const std::byte*>(&value), sizeof value});
}

// Takes fields off the front of untrusted bytes. After a read past the end ok() is false, every further read
// gives zero or an empty span, and nothing outside the span was touched.
class ByteReader {
 public:
  explicit ByteReader(ByteView bytes) : rest_(bytes) {}

  template <class T>
  T value() {
    ByteView from = take(sizeof(T));
    return from.size() == sizeof(T) ? load_value<T>(from.data()) : T{};
  }
  ByteView take(size_t n) {
    if (n > rest_.size()) {
      ok_ = false;
      rest_ = {};
      return {};
    }
    ByteView out = rest_.first(n);
    rest_ = rest_.subspan(n);
    return out;
  }
  bool ok() const { return ok_; }
  size_t remaining() const { return rest_.size(); }
  bool at_end() const { return ok_ && rest_.empty(); }

 private:
  ByteView rest_;
  bool ok_ = true;
};

std::string to_hex(ByteView bytes);
// "62.8 MB", "812 B": decimal units, three significant figures.
std::string format_bytes(uint64_t bytes);
// Text as a terminal may show it: control and non-UTF-8 bytes as \xNN, backslash doubled.
std::string printable(std::string_view text);
// The same for text in which names have been made printable already: a backslash stays one.
std::string one_line(std::string_view text);

}  // namespace reprise

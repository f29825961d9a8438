#include "snapshot/tar_format.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cstring>

namespace reprise::snapshot::tar {
namespace {

ByteView bytes_of(const Block& block, field::Range range) {
  return ByteView(block).subspan(range.offset, range.size);
}

// Up to the first NUL.
std::string text_of(const Block& block, field::Range range) {
  std::string_view text = as_text(bytes_of(block, range));
  return std::string(text.substr(0, text.find('\0')));
}

void put_text(Block& block, field::Range range, std::string_view text) {
  std::memcpy(block.data() + range.offset, text.data(), std::min(text.size(), range.size));
}

// Octal where it fits, otherwise base 256, as GNU tar does.
void put_number(Block& block, field::Range range, uint64_t value) {
  std::string octal = fmt::format("{:0{}o}", value, range.size - 1);
  if (octal.size() == range.size - 1) return put_text(block, range, octal);
  for (size_t i = range.size; i-- > 1; value >>= 8) block[range.offset + i] = std::byte(value & 0xff);
  block[range.offset] = std::byte{0x80};
}

struct Sums {
  int64_t of_unsigned = 0, of_signed = 0;  // some old tars added signed chars
};
Sums sums_of(const Block& block) {
  Sums sums;
  for (size_t i = 0; i < block.size(); i++) {
    bool in_checksum = i >= field::kChecksum.offset && i < field::kChecksum.offset + field::kChecksum.size;
    auto value = in_checksum ? static_cast<unsigned char>(' ') : std::to_integer<unsigned char>(block[i]);
    sums.of_unsigned += value;
    sums.of_signed += static_cast<signed char>(value);
  }
  return sums;
}

Result<uint64_t> parse_unsigned(const Block& block, field::Range range, std::string_view what) {
  auto number = parse_number(bytes_of(block, range));
  if (number && *number >= 0) return static_cast<uint64_t>(*number);
  return fail(Code::kCorrupt, fmt::format("expected a number as {}, found \"{}\"", what,
                                          printable(as_text(bytes_of(block, range)))));
}

}  // namespace

bool is_zero(const Block& block) {
  return std::ranges::all_of(block, [](std::byte b) { return b == std::byte{}; });
}

bool has_checksum(const Block& block) {
  auto stored = parse_number(bytes_of(block, field::kChecksum));
  Sums sums = sums_of(block);
  return stored && (*stored == sums.of_unsigned || *stored == sums.of_signed);
}

Result<int64_t> parse_number(ByteView field) {
  auto first = std::to_integer<unsigned char>(field[0]);
  if ((first & 0x80) != 0) {
    bool negative = (first & 0x40) != 0;
    // The sign's bits have to fill all but the last eight bytes.
    auto value = negative ? ~uint64_t{0} : uint64_t{0};
    auto fill = std::byte(negative ? 0xff : 0);
    for (size_t i = 0; i < field.size(); i++) {
      std::byte byte = i == 0 ? std::byte(negative ? first : first & 0x7f) : field[i];
      if (i + 8 < field.size() && byte != fill) return fail(Code::kCorrupt, "too large");
      value = value << 8 | std::to_integer<uint64_t>(byte);
    }
    auto number = static_cast<int64_t>(value);
    if ((number < 0) != negative) return fail(Code::kCorrupt, "too large");
    return number;
  }
  std::string_view text = as_text(field);
  size_t begin = text.find_first_not_of(' ');
  if (begin == std::string_view::npos) return 0;
  text = text.substr(begin);
  text = text.substr(0, text.find_first_of(std::string_view(" \0", 2)));
  if (text.empty()) return 0;
  int64_t number = 0;
  auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number, 8);
  if (error != std::errc() || end != text.data() + text.size() || number < 0)
    return fail(Code::kCorrupt, "no octal number");
  return number;
}

Result<Header> parse_header(const Block& block) {
  if (!has_checksum(block))
    return fail(Code::kCorrupt, "expected a header, found a block whose checksum does not match");
  Header header;
  header.name = text_of(block, field::kName);
  header.link_name = text_of(block, field::kLinkName);
  header.type = static_cast<char>(block[field::kType.offset]);
  header.mode = static_cast<uint32_t>(TRY(parse_unsigned(block, field::kMode, "the mode")) & 07777);
  header.uid = TRY(parse_unsigned(block, field::kUid, "the owner"));
  header.gid = TRY(parse_unsigned(block, field::kGid, "the group"));
  header.size = TRY(parse_unsigned(block, field::kSize, "the size"));
  auto mtime = parse_number(bytes_of(block, field::kMtime));
  if (!mtime) return fail(Code::kCorrupt, "expected a number as the time, found none");
  header.mtime = *mtime;
  if (header.type == '3' || header.type == '4') {
    header.device_major = TRY(parse_unsigned(block, field::kDeviceMajor, "the device's number"));
    header.device_minor = TRY(parse_unsigned(block, field::kDeviceMinor, "the device's number"));
  }
  // GNU tar, whose magic has other bytes, keeps something else in the prefix.
  if (as_text(bytes_of(block, field::kMagic)).starts_with(std::string_view("ustar\0", 6))) {
    std::string prefix = text_of(block, field::kPrefix);
    if (!prefix.empty()) header.name = prefix + "/" + header.name;
  }
  return header;
}

Block format_header(const Header& header) {
  Block block{};
  put_text(block, field::kName, header.name);
  put_number(block, field::kMode, header.mode);
  put_number(block, field::kUid, header.uid);
  put_number(block, field::kGid, header.gid);
  put_number(block, field::kSize, header.size);
  put_number(block, field::kMtime, static_cast<uint64_t>(header.mtime));
  block[field::kType.offset] = std::byte(header.type);
  put_text(block, field::kLinkName, header.link_name);
  put_text(block, field::kMagic, std::string_view("ustar\00000", 8));
  put_number(block, field::kDeviceMajor, header.device_major);
  put_number(block, field::kDeviceMinor, header.device_minor);
  put_text(block, field::kChecksum, fmt::format("{:06o}", sums_of(block).of_unsigned));
  block[field::kChecksum.offset + 7] = std::byte{' '};
  return block;
}

// --- pax

const std::string* PaxRecords::find(std::string_view key) const {
  auto found = values.find(key);
  return found == values.end() ? nullptr : &found->second;
}

Result<PaxRecords> parse_pax(std::string_view body) {
  PaxRecords records;
  while (!body.empty()) {
    size_t length = 0;
    auto [end, error] = std::from_chars(body.data(), body.data() + body.size(), length);
    auto digits = static_cast<size_t>(end - body.data());
    bool sound = error == std::errc() && digits < body.size() && *end == ' ' && length > digits + 1 &&
                 length <= body.size() && body[length - 1] == '\n';
    std::string_view record = sound ? body.substr(digits + 1, length - digits - 2) : std::string_view();
    size_t equals = record.find('=');
    if (!sound || equals == std::string_view::npos || equals == 0)
      return fail(Code::kCorrupt,
                  fmt::format("expected a pax record, found \"{}\"", printable(body.substr(0, 40))));
    std::string_view key = record.substr(0, equals), value = record.substr(equals + 1);
    if (key == "GNU.sparse.offset" || key == "GNU.sparse.numbytes")
      records.sparse_0_0.emplace_back(key, value);
    records.values.insert_or_assign(std::string(key), std::string(value));
    body.remove_prefix(length);
  }
  return records;
}

void append_pax(std::string& body, std::string_view key, std::string_view value) {
  size_t rest = key.size() + value.size() + 3;  // ' ', '=' and '\n'
  size_t length = rest + 1;
  while (rest + std::to_string(length).size() != length) length = rest + std::to_string(length).size();
  body += fmt::format("{} {}=", length, key);
  body += value;
  body += '\n';
}

Result<uint64_t> parse_decimal(std::string_view text) {
  uint64_t number = 0;
  auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (text.empty() || error != std::errc() || end != text.data() + text.size() || number > INT64_MAX)
    return fail(Code::kCorrupt,
                fmt::format("expected a number, found \"{}\"", printable(text.substr(0, 40))));
  return number;
}

// Rounded down: -0.25 is a quarter of a second before 1970.
Result<Timestamp> parse_time(std::string_view text) {
  auto wrong = [&] {
    return fail(Code::kCorrupt, fmt::format("expected a time, found \"{}\"", printable(text.substr(0, 40))));
  };
  std::string_view whole = text.substr(0, text.find('.'));
  std::string_view fraction = whole.size() < text.size() ? text.substr(whole.size() + 1) : std::string_view();
  bool negative = whole.starts_with('-');
  int64_t seconds = 0;
  auto [end, error] = std::from_chars(whole.data(), whole.data() + whole.size(), seconds);
  if (error != std::errc() || end != whole.data() + whole.size() || seconds == INT64_MIN) return wrong();
  uint32_t nanoseconds = 0;
  for (size_t i = 0; i < std::max<size_t>(fraction.size(), 9); i++) {
    char digit = i < fraction.size() ? fraction[i] : '0';
    if (digit < '0' || digit > '9') return wrong();
    if (i < 9) nanoseconds = nanoseconds * 10 + static_cast<uint32_t>(digit - '0');
  }
  if (negative && nanoseconds > 0) return Timestamp{seconds - 1, 1'000'000'000 - nanoseconds};
  return Timestamp{seconds, nanoseconds};
}

std::string format_time(Timestamp time) {
  if (time.nsec == 0) return std::to_string(time.sec);
  bool negative = time.sec < 0;
  int64_t whole = negative ? time.sec + 1 : time.sec;
  uint32_t fraction = negative ? 1'000'000'000 - time.nsec : time.nsec;
  std::string text = fmt::format("{}{}.{:09}", negative ? "-" : "", negative ? -whole : whole, fraction);
  while (text.back() == '0') text.pop_back();
  return text;
}

std::string escape_xattr_name(std::string_view name) {
  std::string escaped;
  for (char c : name) escaped += c == '%' ? "%25" : c == '=' ? "%3D" : std::string(1, c);
  return escaped;
}

std::string unescape_xattr_name(std::string_view name) {
  std::string plain;
  for (size_t i = 0; i < name.size(); i++) {
    std::string_view three = name.substr(i, 3);
    bool escaped = three == "%25" || three == "%3D";
    plain += escaped ? (three == "%25" ? '%' : '=') : name[i];
    if (escaped) i += 2;
  }
  return plain;
}

Status check_extents(const std::vector<Extent>& extents, uint64_t file_size, uint64_t data_size) {
  uint64_t end = 0, sum = 0;
  for (const Extent& extent : extents) {
    if (extent.offset < end || extent.offset > file_size || extent.size > file_size - extent.offset) {
      return fail(Code::kCorrupt,
                  fmt::format("expected parts of a sparse file in order and within {} bytes, found {} "
                              "bytes at {}",
                              file_size, extent.size, extent.offset));
    }
    end = extent.offset + extent.size;
    sum += extent.size;
  }
  if (sum == data_size) return {};
  return fail(Code::kCorrupt,
              fmt::format("expected parts of a sparse file of {} bytes together, found {}", data_size, sum));
}

}  // namespace reprise::snapshot::tar

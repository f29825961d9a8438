// The bytes of a tar: blocks of 512, headers as POSIX 1003.1-2001 (pax) and GNU tar have them. Parsing and
// formatting of single headers and of pax records; in which order they come is for tar_reader and tar_writer.
//
// Parsers take bytes from outside: they check all, allocate no more than they were given, and say what was
// expected. Names are bytes, whatever `hdrcharset` says. Values only; any thread.
#pragma once

#include <array>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "base/bytes.h"
#include "base/clock.h"
#include "base/error.h"

namespace reprise::snapshot::tar {

inline constexpr size_t kBlockBytes = 512;
inline constexpr size_t kRecordBytes = 20 * kBlockBytes;  // what an archive's size is a multiple of
inline constexpr size_t kExtensionMax = 1 << 20;          // bytes of one pax header or long name
inline constexpr size_t kSparseExtentsMax = 1 << 20;

using Block = std::array<std::byte, kBlockBytes>;

// Where the fields of a header lie.
namespace field {
struct Range {
  size_t offset, size;
};
inline constexpr Range kName{0, 100}, kMode{100, 8}, kUid{108, 8}, kGid{116, 8}, kSize{124, 12},
    kMtime{136, 12}, kChecksum{148, 8}, kType{156, 1}, kLinkName{157, 100}, kMagic{257, 8},
    kUserName{265, 32}, kGroupName{297, 32}, kDeviceMajor{329, 8}, kDeviceMinor{337, 8}, kPrefix{345, 155},
    kSparse{386, 96}, kSparseContinues{482, 1}, kRealSize{483, 12}, kExtensionContinues{504, 1};
}  // namespace field

struct Header {
  std::string name, link_name;
  uint32_t mode = 0;
  uint64_t uid = 0, gid = 0, size = 0, device_major = 0, device_minor = 0;
  int64_t mtime = 0;
  char type = '0';
};

bool is_zero(const Block& block);
// Could these be the first bytes of a tar? By the checksum.
bool has_checksum(const Block& block);
// What is wrong is said without the archive's name: the caller knows that.
Result<Header> parse_header(const Block& block);
Block format_header(const Header& header);

// An octal number, or one of base 256. Negative numbers are refused but for times.
Result<int64_t> parse_number(ByteView field);

// "length key=value\n" after each other. Of a key that comes again the last counts, but all of `repeated`.
struct PaxRecords {
  std::map<std::string, std::string, std::less<>> values;
  std::vector<std::pair<std::string, std::string>> sparse_0_0;  // GNU.sparse.offset and .numbytes, in order

  const std::string* find(std::string_view key) const;
};
Result<PaxRecords> parse_pax(std::string_view body);
void append_pax(std::string& body, std::string_view key, std::string_view value);

Result<uint64_t> parse_decimal(std::string_view text);
Result<Timestamp> parse_time(std::string_view text);  // "1700000000.5", to ns
std::string format_time(Timestamp time);

// Names of extended attributes, in which GNU tar escapes '=' and '%'.
std::string escape_xattr_name(std::string_view name);
std::string unescape_xattr_name(std::string_view name);

// The bytes of a sparse file that are there.
struct Extent {
  uint64_t offset = 0, size = 0;
  bool operator==(const Extent&) const = default;
};
// In order, apart, within `file_size`, and `data_size` together.
Status check_extents(const std::vector<Extent>& extents, uint64_t file_size, uint64_t data_size);

}  // namespace reprise::snapshot::tar

#include "snapshot/zip_layout.h"

#include <fmt/format.h>

#include <algorithm>
#include <optional>

namespace reprise::snapshot {
namespace {

constexpr uint32_t kLocalSignature = 0x04034b50, kEntrySignature = 0x02014b50, kEndSignature = 0x06054b50,
                   kEnd64Signature = 0x06064b50, kLocatorSignature = 0x07064b50;
constexpr size_t kEndBytes = 22, kLocatorBytes = 20, kEnd64Bytes = 56, kEntryBytes = 46, kLocalBytes = 30;
constexpr size_t kCommentMax = 0xffff;
constexpr uint16_t kZip64Extra = 1;
constexpr uint16_t kEncrypted = 1, kSizesFollow = 8, kStronglyEncrypted = 1 << 6, kMasked = 1 << 13;
// What one byte can become: of deflate 1032, of bzip2 a block of 900,000 bytes that take 45 or so.
constexpr uint64_t kDeflateMost = 1032, kBzip2Most = 1 << 16;

struct Directory {
  uint64_t entries = 0, offset = 0, size = 0;
};

class LayoutReader {
 public:
  LayoutReader(const File& archive, const ImportLimits& limits) : archive_(archive), limits_(limits) {}

  Result<std::vector<ZipEntry>> run() {
    size_ = TRY(archive_.size());
    Directory directory = TRY(find_directory());
    if (limits_.entries != 0 && directory.entries > limits_.entries) {
      return wrong(fmt::format("expected at most {} entries, found {} (--max-entries)", limits_.entries,
                               directory.entries),
                   Code::kNoSpace);
    }
    Bytes bytes = TRY(read(directory.offset, directory.size));
    std::vector<ZipEntry> entries;
    entries.reserve(directory.entries);
    ByteReader in(bytes);
    for (uint64_t i = 0; i < directory.entries; i++) entries.push_back(TRY(read_entry(in)));
    if (in.remaining() != 0)
      return wrong(
          fmt::format("expected a directory of {} entries, found more bytes in it", directory.entries));
    TRY(check_places(entries, directory.offset));
    return entries;
  }

 private:
  struct Place {
    uint64_t begin, end;
    size_t entry;
  };

  std::unexpected<Error> wrong(std::string_view why, Code code = Code::kCorrupt) const {
    return fail(code, fmt::format("{}: {}", printable(archive_.path()), why));
  }
  std::unexpected<Error> wrong_entry(const ZipEntry& entry, std::string_view why,
                                     Code code = Code::kCorrupt) const {
    return wrong(fmt::format("entry {}: {}", printable(entry.name), why), code);
  }
  Result<Bytes> read(uint64_t offset, uint64_t size) const {
    if (offset > size_ || size > size_ - offset)
      return wrong(fmt::format("expected {} bytes at {}, found the end of the archive", size, offset));
    Bytes bytes(size);
    if (TRY(archive_.pread(bytes, offset)) != size) return wrong("it has become shorter while it was read");
    return bytes;
  }

  // The last end record whose comment reaches exactly to the end of the file.
  Result<Directory> find_directory() const {
    uint64_t tail_size = std::min<uint64_t>(size_, kEndBytes + kCommentMax);
    Bytes tail = TRY(read(size_ - tail_size, tail_size));
    for (size_t at = tail.size() >= kEndBytes ? tail.size() - kEndBytes + 1 : 0; at-- > 0;) {
      ByteReader in(ByteView(tail).subspan(at));
      if (in.value<uint32_t>() != kEndSignature) continue;
      in.take(kEndBytes - 6);
      if (in.value<uint16_t>() != tail.size() - at - kEndBytes) continue;
      return read_end(ByteView(tail).subspan(at, kEndBytes), size_ - tail_size + at);
    }
    return wrong("expected the end of a ZIP, found that it is cut off or something else");
  }

  Result<Directory> read_end(ByteView record, uint64_t at) const {
    ByteReader in(record);
    in.take(4);
    auto disk = in.value<uint16_t>(), directory_disk = in.value<uint16_t>();
    auto entries_here = in.value<uint16_t>(), entries = in.value<uint16_t>();
    auto size = in.value<uint32_t>(), offset = in.value<uint32_t>();
    Directory directory{entries, offset, size};
    uint64_t end = at;  // of the directory
    bool is_64 = at >= kLocatorBytes &&
                 load_value<uint32_t>(TRY(read(at - kLocatorBytes, 4)).data()) == kLocatorSignature;
    if (is_64) {
      directory = TRY(read_end_64(at - kLocatorBytes, end));
      bool agrees = (entries == 0xffff || entries == directory.entries) &&
                    (size == 0xffffffff || size == directory.size) &&
                    (offset == 0xffffffff || offset == directory.offset);
      if (!agrees) return wrong("expected both its end records to agree, found that they do not");
    }
    bool disks = (disk != 0 && disk != 0xffff) || (directory_disk != 0 && directory_disk != 0xffff) ||
                 (!is_64 && entries_here != entries);
    if (disks) return wrong("expected a whole ZIP, found one of several disks", Code::kUnsupported);
    if (directory.offset > end || directory.size != end - directory.offset) {
      return wrong(
          fmt::format("expected a directory from byte {} to {}, found that it has {} bytes from {} on",
                      directory.offset, end, directory.size, directory.offset));
    }
    if (directory.entries > directory.size / kEntryBytes) {
      return wrong(fmt::format("expected a directory of {} entries, found {} bytes", directory.entries,
                               directory.size));
    }
    return directory;
  }

  Result<Directory> read_end_64(uint64_t locator_at, uint64_t& end) const {
    Bytes locator = TRY(read(locator_at, kLocatorBytes));
    ByteReader in(locator);
    in.take(4);
    auto disk = in.value<uint32_t>();
    auto at = in.value<uint64_t>();
    auto disks = in.value<uint32_t>();
    if (disk != 0 || disks > 1)
      return wrong("expected a whole ZIP, found one of several disks", Code::kUnsupported);
    Bytes record = TRY(read(at, kEnd64Bytes));
    ByteReader fields(record);
    if (fields.value<uint32_t>() != kEnd64Signature)
      return wrong("expected a zip64 end record, found something else");
    auto record_size = fields.value<uint64_t>();
    if (record_size < kEnd64Bytes - 12 || record_size > locator_at - 12 - std::min(at, locator_at - 12) ||
        at + 12 + record_size != locator_at)
      return wrong("expected a zip64 end record before its locator, found one of another size");
    fields.take(4);  // made by, needed
    auto this_disk = fields.value<uint32_t>(), directory_disk = fields.value<uint32_t>();
    auto entries_here = fields.value<uint64_t>(), entries = fields.value<uint64_t>();
    auto size = fields.value<uint64_t>(), offset = fields.value<uint64_t>();
    if (this_disk != 0 || directory_disk != 0 || entries_here != entries)
      return wrong("expected a whole ZIP, found one of several disks", Code::kUnsupported);
    end = at;
    return Directory{entries, offset, size};
  }

  Result<ZipEntry> read_entry(ByteReader& in) {
    ZipEntry entry;
    if (in.value<uint32_t>() != kEntrySignature)
      return wrong("expected an entry of the directory, found something else");
    entry.made_by = in.value<uint16_t>();
    in.take(2);  // version needed: what it needs is seen
    entry.flags = in.value<uint16_t>();
    entry.method = in.value<uint16_t>();
    entry.dos_time = in.value<uint16_t>();
    entry.dos_date = in.value<uint16_t>();
    entry.crc = in.value<uint32_t>();
    auto packed = in.value<uint32_t>(), bytes = in.value<uint32_t>();
    auto name = in.value<uint16_t>(), extra = in.value<uint16_t>(), comment = in.value<uint16_t>();
    auto disk = in.value<uint16_t>();
    in.take(2);
    entry.attributes = in.value<uint32_t>();
    auto offset = in.value<uint32_t>();
    entry.name = as_text(in.take(name));
    ByteView extra_bytes = in.take(extra);
    entry.extra.assign(extra_bytes.begin(), extra_bytes.end());
    in.take(comment);
    if (!in.ok()) return wrong("expected an entry of the directory, found that it is cut off");
    if (disk != 0 && disk != 0xffff)
      return wrong_entry(entry, "expected it here, found that it is on another disk", Code::kUnsupported);
    entry.packed_bytes = packed;
    entry.bytes = bytes;
    entry.header_offset = offset;
    TRY(read_zip64(entry, bytes == 0xffffffff, packed == 0xffffffff, offset == 0xffffffff));
    TRY(check_entry(entry));
    return entry;
  }

  // The fields that are all ones are here, in this order.
  Status read_zip64(ZipEntry& entry, bool bytes, bool packed, bool offset) const {
    ByteReader in(entry.extra);
    bool found = false;
    while (in.remaining() >= 4) {
      auto id = in.value<uint16_t>(), size = in.value<uint16_t>();
      ByteReader field(in.take(size));
      if (!in.ok()) return wrong_entry(entry, "expected whole extra fields, found one cut off");
      if (id != kZip64Extra) continue;
      if (found) return wrong_entry(entry, "expected one zip64 field, found two");
      found = true;
      if (bytes) entry.bytes = field.value<uint64_t>();
      if (packed) entry.packed_bytes = field.value<uint64_t>();
      if (offset) entry.header_offset = field.value<uint64_t>();
      if (!field.ok())
        return wrong_entry(entry, "expected sizes in its zip64 field, found that it is too short");
    }
    return {};
  }

  Status check_entry(const ZipEntry& entry) {
    // libzip would take it for the end of the name.
    if (entry.name.find('\0') != std::string::npos)
      return wrong_entry(entry, "expected a name, found a NUL in it");
    if ((entry.flags & (kEncrypted | kStronglyEncrypted | kMasked)) != 0)
      return wrong_entry(entry, "expected plain bytes, found that it is encrypted", Code::kUnsupported);
    uint64_t most = 0;
    if (entry.method == kZipStored) {
      most = entry.packed_bytes;
      if (entry.bytes != entry.packed_bytes) {
        return wrong_entry(entry, fmt::format("expected as many bytes as are stored, found {} and {}",
                                              entry.bytes, entry.packed_bytes));
      }
    } else if (entry.method == kZipDeflate || entry.method == kZipBzip2) {
      uint64_t each = entry.method == kZipDeflate ? kDeflateMost : kBzip2Most;
      most = entry.packed_bytes > UINT64_MAX / each ? UINT64_MAX : entry.packed_bytes * each;
    } else {
      return wrong_entry(
          entry,
          fmt::format("expected it stored or packed by deflate or bzip2, found method {}", entry.method),
          Code::kUnsupported);
    }
    if (entry.bytes > most) {
      return wrong_entry(entry, fmt::format("expected at most {} bytes out of {}, found {}", most,
                                            entry.packed_bytes, entry.bytes));
    }
    if (limits_.unpacked_bytes != 0 &&
        entry.bytes > limits_.unpacked_bytes - std::min(unpacked_bytes_, limits_.unpacked_bytes)) {
      return wrong_entry(entry,
                         fmt::format("expected at most {} to unpack, found more (--max-size)",
                                     format_bytes(limits_.unpacked_bytes)),
                         Code::kNoSpace);
    }
    unpacked_bytes_ += entry.bytes;
    return {};
  }

  // Local headers say what the directory says, and entries lie apart.
  Status check_places(const std::vector<ZipEntry>& entries, uint64_t end) {
    std::vector<Place> places;
    places.reserve(entries.size());
    for (size_t i = 0; i < entries.size(); i++) {
      uint64_t data = TRY(check_local(entries[i], end));
      if (data > end || entries[i].packed_bytes > end - data)
        return wrong_entry(entries[i],
                           "expected its bytes before the directory, found that they reach into it");
      places.push_back({entries[i].header_offset, data + entries[i].packed_bytes, i});
    }
    std::ranges::sort(places, {}, &Place::begin);
    for (size_t i = 1; i < places.size(); i++) {
      if (places[i].begin >= places[i - 1].end) continue;
      return wrong_entry(entries[places[i].entry],
                         fmt::format("expected bytes of its own, found that it overlaps {}",
                                     printable(entries[places[i - 1].entry].name)));
    }
    return {};
  }

  // Where the entry's bytes begin.
  Result<uint64_t> check_local(const ZipEntry& entry, uint64_t end) {
    if (entry.header_offset > end || end - entry.header_offset < kLocalBytes)
      return wrong_entry(entry, "expected its header before the directory, found that it is not");
    uint64_t room = end - entry.header_offset;
    local_.resize(std::min<uint64_t>(room, kLocalBytes + entry.name.size()));
    if (TRY(archive_.pread(local_, entry.header_offset)) != local_.size())
      return wrong("it has become shorter while it was read");
    ByteReader in(local_);
    if (in.value<uint32_t>() != kLocalSignature)
      return wrong_entry(
          entry, fmt::format("expected its header at byte {}, found something else", entry.header_offset));
    in.take(2);
    auto flags = in.value<uint16_t>(), method = in.value<uint16_t>();
    in.take(4);
    auto crc = in.value<uint32_t>(), packed = in.value<uint32_t>(), bytes = in.value<uint32_t>();
    auto name = in.value<uint16_t>(), extra = in.value<uint16_t>();
    std::string_view name_here = as_text(in.take(entry.name.size()));
    bool later = (flags & kSizesFollow) != 0;  // sizes and checksum stand behind the bytes
    auto differs = [&](uint32_t here, uint64_t there) {
      return here != 0xffffffff && here != there && !(later && here == 0);
    };
    bool lies = name != entry.name.size() || name_here != entry.name || method != entry.method ||
                ((flags ^ entry.flags) & (kEncrypted | kMasked)) != 0 ||
                (crc != entry.crc && !(later && crc == 0)) || differs(packed, entry.packed_bytes) ||
                differs(bytes, entry.bytes);
    if (lies)
      return wrong_entry(entry, "expected its header to say what the directory says, found that it does not");
    return entry.header_offset + kLocalBytes + name + extra;
  }

  const File& archive_;
  const ImportLimits& limits_;
  uint64_t size_ = 0;
  uint64_t unpacked_bytes_ = 0;
  Bytes local_;
};

}  // namespace

Result<std::vector<ZipEntry>> read_zip_layout(const File& archive, const ImportLimits& limits) {
  return LayoutReader(archive, limits).run();
}

}  // namespace reprise::snapshot

// A tree as a pax archive (POSIX 1003.1-2001), which GNU tar, bsdtar and Python read.
#include <fmt/format.h>
#include <sys/sysmacros.h>

#include <algorithm>
#include <cstring>

#include "snapshot/export_walk.h"
#include "snapshot/tar_format.h"

namespace reprise::snapshot {
namespace {

using tar::Extent;
using tar::kBlockBytes;

constexpr uint64_t kOctal7 = 07777777, kOctal11 = 077777777777;  // what the fields hold
constexpr uint64_t kHolesWorthIt = 32 << 10;  // bytes of zeros that make a file a sparse one
constexpr size_t kBufferBytes = 256 << 10;

bool is_zero(ByteView bytes) {
  return bytes.empty() ||
         (bytes[0] == std::byte{} && std::memcmp(bytes.data(), bytes.data() + 1, bytes.size() - 1) == 0);
}

bool is_utf8(std::string_view text) {
  for (size_t i = 0; i < text.size();) {
    auto first = static_cast<unsigned char>(text[i]);
    size_t size = first < 0x80 ? 1 : first >= 0xf0 ? 4 : first >= 0xe0 ? 3 : 2;
    if (first >= 0x80 && (first < 0xc2 || first > 0xf4 || size > text.size() - i)) return false;
    uint32_t code = size == 1 ? first : first & (0xffu >> (size + 1));
    for (size_t j = 1; j < size; j++) {
      auto next = static_cast<unsigned char>(text[i + j]);
      if ((next & 0xc0) != 0x80) return false;
      code = code << 6 | (next & 0x3f);
    }
    bool too_long = (size == 3 && code < 0x800) || (size == 4 && code < 0x10000);
    if (too_long || code > 0x10ffff || (code >= 0xd800 && code < 0xe000)) return false;
    i += size;
  }
  return true;
}

class TarWriter final : public EntrySink {
 public:
  TarWriter(const fs::Tree& tree, ByteSink& archive) : tree_(tree), archive_(archive) {}

  Status add(const ExportEntry& entry, Exported& done) override {
    const fs::Attributes& attributes = entry.attributes;
    tar::Header header;
    std::string pax;
    describe(entry, header, pax);
    if (!entry.hard_link.empty()) {
      header.type = '1';
      put_name(entry.hard_link, "linkpath", header.link_name, pax);
      done.hard_links++;
      return write_header(entry, header, pax);
    }
    for (const auto& [name, value] : entry.xattrs)
      tar::append_pax(pax, "SCHILY.xattr." + tar::escape_xattr_name(name), as_text(value));
    switch (attributes.mode & S_IFMT) {
      case S_IFDIR:
        header.type = '5';
        done.directories++;
        break;
      case S_IFLNK:
        header.type = '2';
        put_name(entry.target, "linkpath", header.link_name, pax);
        done.symlinks++;
        break;
      case S_IFIFO:
        header.type = '6';
        done.others++;
        break;
      case S_IFCHR:
      case S_IFBLK:
        header.type = S_ISCHR(attributes.mode) ? '3' : '4';
        header.device_major = major(attributes.rdev);
        header.device_minor = minor(attributes.rdev);
        done.others++;
        break;
      default:
        done.files++;
        return write_file(entry, header, pax, done);
    }
    return write_header(entry, header, pax);
  }

  Status finish() override {
    buffer_.resize(buffer_.size() + 2 * kBlockBytes);
    size_t over = (written_ + buffer_.size()) % tar::kRecordBytes;
    if (over != 0) buffer_.resize(buffer_.size() + tar::kRecordBytes - over);
    return flush();
  }

 private:
  void describe(const ExportEntry& entry, tar::Header& header, std::string& pax) const {
    const fs::Attributes& attributes = entry.attributes;
    std::string path = entry.path + (attributes.is_directory() ? "/" : "");
    put_name(path, "path", header.name, pax);
    header.mode = attributes.mode & 07777;
    header.uid = put_number(attributes.uid, kOctal7, "uid", pax);
    header.gid = put_number(attributes.gid, kOctal7, "gid", pax);
    bool whole = attributes.mtime.nsec == 0 && attributes.mtime.sec >= 0 &&
                 attributes.mtime.sec <= static_cast<int64_t>(kOctal11);
    if (!whole) tar::append_pax(pax, "mtime", tar::format_time(attributes.mtime));
    header.mtime = std::clamp<int64_t>(attributes.mtime.sec, 0, kOctal11);
  }

  // A record whose bytes may be no UTF-8; the first such record says so for all.
  static void append_name(std::string& pax, std::string_view key, std::string_view name) {
    std::string binary;
    tar::append_pax(binary, "hdrcharset", "BINARY");
    if (!is_utf8(name) && !pax.starts_with(binary)) pax.insert(0, binary);
    tar::append_pax(pax, key, name);
  }
  // In the header if it fits, otherwise in a pax record.
  static void put_name(std::string_view name, std::string_view key, std::string& field, std::string& pax) {
    field = name.substr(0, tar::field::kName.size);
    if (name.size() > tar::field::kName.size) append_name(pax, key, name);
  }
  static uint64_t put_number(uint64_t number, uint64_t most, std::string_view key, std::string& pax) {
    if (number <= most) return number;
    tar::append_pax(pax, key, std::to_string(number));
    return 0;
  }

  Status write_header(const ExportEntry& entry, const tar::Header& header, const std::string& pax) {
    if (!pax.empty()) {
      tar::Header extension;
      extension.type = 'x';
      extension.name = ("PaxHeaders/" + entry.path).substr(0, tar::field::kName.size);
      extension.mode = 0644;
      extension.size = pax.size();
      TRY(write(tar::format_header(extension)));
      TRY(write(as_bytes(pax)));
      TRY(pad());
    }
    return write(tar::format_header(header));
  }

  Status write_file(const ExportEntry& entry, tar::Header& header, std::string& pax, Exported& done) {
    uint64_t size = entry.attributes.size;
    std::vector<Extent> extents = TRY(extents_of(entry));
    std::string map;
    uint64_t data = 0;
    for (const Extent& extent : extents) data += extent.size;
    bool sparse = size - data >= kHolesWorthIt;
    if (sparse) {
      // What tar calls version 1.0: the map lies before the bytes, and the name says what it is to who knows
      // none.
      if (extents.empty() || extents.back().offset + extents.back().size < size) extents.push_back({size, 0});
      map = std::to_string(extents.size()) + "\n";
      for (const Extent& extent : extents) map += fmt::format("{}\n{}\n", extent.offset, extent.size);
      map.resize((map.size() + kBlockBytes - 1) / kBlockBytes * kBlockBytes);
      tar::append_pax(pax, "GNU.sparse.major", "1");
      tar::append_pax(pax, "GNU.sparse.minor", "0");
      append_name(pax, "GNU.sparse.name", entry.path);
      tar::append_pax(pax, "GNU.sparse.realsize", std::to_string(size));
      header.name = ("GNUSparseFile.0/" + entry.path).substr(0, tar::field::kName.size);
    } else {
      extents = {{0, size}};
    }
    header.size = put_number(sparse ? map.size() + data : size, kOctal11, "size", pax);
    TRY(write_header(entry, header, pax));
    TRY(write(as_bytes(map)));
    TRY(write_extents(entry, extents, done));
    return pad();
  }

  // The blocks that are not zero: whether zeros are written or holes must not show.
  Result<std::vector<Extent>> extents_of(const ExportEntry& entry) {
    std::vector<Extent> extents;
    TRY(for_each_piece(tree_, entry, piece_, [&](uint64_t offset, ByteView bytes) -> Status {
      for (size_t at = 0; at < bytes.size(); at += fs::kBlockSize) {
        ByteView block = bytes.subspan(at, std::min<size_t>(fs::kBlockSize, bytes.size() - at));
        if (is_zero(block)) continue;
        if (!extents.empty() && extents.back().offset + extents.back().size == offset + at) {
          extents.back().size += block.size();
        } else {
          extents.push_back({offset + at, block.size()});
        }
      }
      return {};
    }));
    return extents;
  }

  Status write_extents(const ExportEntry& entry, const std::vector<Extent>& extents, Exported& done) {
    for (const Extent& extent : extents) {
      for (uint64_t at = 0; at < extent.size;) {
        piece_.resize(std::min<uint64_t>(kBufferBytes, extent.size - at));
        auto got = tree_.read(entry.attributes.inode, extent.offset + at, piece_);
        if (!got || *got != piece_.size()) {
          return fail(Code::kCorrupt, fmt::format("{} in the tree: expected {} bytes at {}",
                                                  printable(entry.path), piece_.size(), extent.offset + at));
        }
        TRY(write(piece_));
        done.bytes += piece_.size();
        at += piece_.size();
      }
    }
    return {};
  }

  Status write(ByteView bytes) {
    append_bytes(buffer_, bytes);
    return buffer_.size() >= kBufferBytes ? flush() : Status{};
  }
  Status pad() {
    size_t over = (written_ + buffer_.size()) % kBlockBytes;
    if (over != 0) buffer_.resize(buffer_.size() + kBlockBytes - over);
    return {};
  }
  Status flush() {
    TRY(archive_.write(buffer_));
    written_ += buffer_.size();
    buffer_.clear();
    return {};
  }

  const fs::Tree& tree_;
  ByteSink& archive_;
  Bytes buffer_, piece_;
  uint64_t written_ = 0;
};

}  // namespace

Result<Exported> export_tar(const fs::Tree& tree, InodeId top, ByteSink& archive,
                            const ExportOptions& options, const ExportProgress& progress) {
  TarWriter writer(tree, archive);
  return walk_tree(tree, top, writer, options, progress);
}

}  // namespace reprise::snapshot

// A tar, entry by entry, to an EntryWriter.
#include <fmt/format.h>
#include <sys/sysmacros.h>

#include <algorithm>

#include "snapshot/entry_writer.h"
#include "snapshot/tar_format.h"

namespace reprise::snapshot {
namespace {

using tar::Block;
using tar::Extent;
using tar::kBlockBytes;

constexpr size_t kChunkBytes = 256 << 10;

class TarReader {
 public:
  TarReader(ByteSource& archive, EntryWriter& out) : archive_(archive), out_(out) {}

  Result<Imported> run() {
    while (TRY(read_entry())) {
    }
    return out_.finish();
  }

 private:
  // What the extension headers before a header say of it.
  struct Extensions {
    tar::PaxRecords pax;
    std::optional<std::string> long_name, long_link;
  };
  struct Sparse {
    uint64_t size = 0;  // of the file, with its holes
    std::vector<Extent> extents;
  };

  std::unexpected<Error> corrupt(std::string_view why) const {
    return fail(Code::kCorrupt,
                fmt::format("{}: at byte {}: {}", printable(out_.archive()), read_bytes_, why));
  }
  template <class T>
  Result<T> at_entry(Result<T> result, std::string_view path) const {
    if (result) return result;
    return out_.refuse(path, result.error().message(), result.error().code());
  }

  Result<Block> next_block() {
    Block block;
    if (TRY(archive_.read(block)) != block.size())
      return corrupt("expected a header or the end of the archive, found that it is cut off");
    read_bytes_ += block.size();
    return block;
  }
  Status read_exactly(ByteSpan into, std::string_view path) {
    if (TRY(archive_.read(into)) != into.size())
      return out_.refuse(path, "expected more bytes, found that the archive is cut off");
    read_bytes_ += into.size();
    return {};
  }
  static uint64_t padded(uint64_t size) { return (size + kBlockBytes - 1) / kBlockBytes * kBlockBytes; }
  Status skip_padding(uint64_t size, std::string_view path) {
    Block rest;
    return read_exactly(ByteSpan(rest).first(padded(size) - size), path);
  }

  // False at the end of the archive.
  Result<bool> read_entry() {
    Extensions extensions;
    for (bool first = true;; first = false) {
      Block block = TRY(next_block());
      if (tar::is_zero(block)) {
        if (!first) return corrupt("expected the entry that an extended header is about, found the end");
        TRY(read_end());
        return false;
      }
      auto header = tar::parse_header(block);
      if (!header) return corrupt(header.error().message());
      if (!TRY(read_extension(*header, extensions))) {
        TRY(read_plain(*header, block, extensions));
        return true;
      }
    }
  }

  // After a block of zeros. What follows the second is of no account, but is read, for whoever writes it.
  Status read_end() {
    Block block;
    size_t got = TRY(archive_.read(block));
    if (got != block.size() || !tar::is_zero(block))
      return corrupt("expected two blocks of zeros at the end of the archive, found one");
    buffer_.resize(kChunkBytes);
    while (TRY(archive_.read(buffer_)) == buffer_.size()) {
    }
    return {};
  }

  // False if it is none, but an entry itself.
  Result<bool> read_extension(const tar::Header& header, Extensions& extensions) {
    if (header.type != 'x' && header.type != 'g' && header.type != 'L' && header.type != 'K' &&
        header.type != 'V')
      return false;
    if (header.size > tar::kExtensionMax) {
      return corrupt(fmt::format("expected an extended header of at most {} bytes, found one of {}",
                                 tar::kExtensionMax, header.size));
    }
    std::string body(header.size, '\0');
    TRY(read_exactly(std::as_writable_bytes(std::span(body)), header.name));
    TRY(skip_padding(header.size, header.name));
    if (header.type == 'L' || header.type == 'K') {
      body.resize(std::min(body.find('\0'), body.size()));
      (header.type == 'L' ? extensions.long_name : extensions.long_link) = std::move(body);
    } else if (header.type != 'V') {
      auto records = tar::parse_pax(body);
      if (!records) return corrupt(records.error().message());
      if (header.type == 'x') {
        extensions.pax = std::move(*records);
      } else {
        TRY(read_global(*records));
      }
    }
    return true;
  }

  // Of records for all that follow only times and owners are of use; a name or a size would be a trap.
  Status read_global(const tar::PaxRecords& records) {
    for (const auto& [key, value] : records.values) {
      bool of_one_file = key == "path" || key == "linkpath" || key == "size" ||
                         key.starts_with("GNU.sparse.") || key.starts_with("SCHILY.xattr.");
      if (of_one_file)
        return corrupt(fmt::format("expected no {} for all entries at once, found one", printable(key)));
      if (key == "mtime" || key == "atime" || key == "uid" || key == "gid") global_[key] = value;
    }
    return {};
  }

  const std::string* value_of(const tar::PaxRecords& pax, const std::string& key) const {
    if (const std::string* own = pax.find(key)) return own;
    auto found = global_.find(key);
    return found == global_.end() ? nullptr : &found->second;
  }

  Status read_plain(tar::Header header, const Block& block, const Extensions& extensions) {
    const tar::PaxRecords& pax = extensions.pax;
    if (extensions.long_name) header.name = *extensions.long_name;
    if (extensions.long_link) header.link_name = *extensions.long_link;
    if (const std::string* path = pax.find("path")) header.name = *path;
    if (const std::string* path = pax.find("GNU.sparse.name")) header.name = *path;
    if (const std::string* target = pax.find("linkpath")) header.link_name = *target;
    if (const std::string* size = pax.find("size"))
      header.size = TRY(at_entry(tar::parse_decimal(*size), header.name));
    ImportEntry entry{.path = header.name, .xattrs = {}};
    TRY(at_entry(read_attributes(header, pax, entry), header.name));
    TRY(read_kind(header, entry));
    return read_content(header, block, pax, entry);
  }

  Status read_attributes(const tar::Header& header, const tar::PaxRecords& pax, ImportEntry& entry) const {
    uint64_t uid = header.uid, gid = header.gid;
    if (const std::string* value = value_of(pax, "uid")) uid = TRY(tar::parse_decimal(*value));
    if (const std::string* value = value_of(pax, "gid")) gid = TRY(tar::parse_decimal(*value));
    if (uid > UINT32_MAX || gid > UINT32_MAX)
      return fail(Code::kCorrupt, fmt::format("expected owners of 32 bits, found {}:{}", uid, gid));
    entry.uid = static_cast<uint32_t>(uid);
    entry.gid = static_cast<uint32_t>(gid);
    entry.mtime = Timestamp{header.mtime, 0};
    if (const std::string* value = value_of(pax, "mtime")) entry.mtime = TRY(tar::parse_time(*value));
    if (const std::string* value = value_of(pax, "atime")) entry.atime = TRY(tar::parse_time(*value));
    for (const auto& [key, value] : pax.values) {
      constexpr std::string_view kXattr = "SCHILY.xattr.";
      if (!key.starts_with(kXattr)) continue;
      ByteView bytes = as_bytes(value);
      entry.xattrs.emplace_back(tar::unescape_xattr_name(std::string_view(key).substr(kXattr.size())),
                                Bytes(bytes.begin(), bytes.end()));
    }
    return {};
  }

  Status read_kind(const tar::Header& header, ImportEntry& entry) const {
    entry.mode = header.mode;
    switch (header.type) {
      case '\0':
      case '0':
      case '7':
        // Before there was a kind for directories, a slash at the end told them.
        entry.mode |= header.name.ends_with('/') && header.size == 0 ? S_IFDIR : S_IFREG;
        break;
      case 'S':
        entry.mode |= S_IFREG;
        break;
      case '1':
        entry.hard_link = header.link_name;
        if (header.link_name.empty())
          return out_.refuse(header.name, "expected what it is a link to, found nothing");
        break;
      case '2':
        entry.mode |= S_IFLNK;
        entry.target = header.link_name;
        break;
      case '3':
      case '4':
        entry.mode |= header.type == '3' ? S_IFCHR : S_IFBLK;
        if (header.device_major > UINT32_MAX || header.device_minor > UINT32_MAX)
          return out_.refuse(header.name, "expected a device's numbers of 32 bits, found larger ones");
        entry.rdev = makedev(header.device_major, header.device_minor);
        break;
      case '5':
        entry.mode |= S_IFDIR;
        break;
      case '6':
        entry.mode |= S_IFIFO;
        break;
      case 'M':
        return out_.refuse(header.name, "expected a whole archive, found one of several volumes",
                           Code::kUnsupported);
      default:
        return out_.refuse(header.name,
                           fmt::format("expected an entry of a known kind, found '{}'",
                                       printable(std::string_view(&header.type, 1))),
                           Code::kUnsupported);
    }
    if (!S_ISREG(entry.mode) && header.size != 0)
      return out_.refuse(header.name,
                         fmt::format("expected no bytes in what is no file, found {}", header.size));
    return {};
  }

  Status read_content(const tar::Header& header, const Block& block, const tar::PaxRecords& pax,
                      ImportEntry& entry) {
    if (!S_ISREG(entry.mode)) {
      TRY(out_.begin(entry));
      return {};
    }
    uint64_t left = header.size;  // of the entry's bytes in the archive
    Sparse sparse = TRY(read_map(header, block, pax, left));
    TRY(at_entry(tar::check_extents(sparse.extents, sparse.size, left), header.name));
    entry.size = sparse.size;
    if (TRY(out_.begin(entry)) != EntryWriter::Begun::kFile) return {};
    buffer_.resize(kChunkBytes);
    for (const Extent& extent : sparse.extents) {
      for (uint64_t done = 0; done < extent.size;) {
        ByteSpan part = ByteSpan(buffer_).first(std::min<uint64_t>(buffer_.size(), extent.size - done));
        TRY(read_exactly(part, header.name));
        out_.set_archive_bytes(archive_.taken_bytes());
        TRY(out_.write(extent.offset + done, part));
        done += part.size();
      }
    }
    TRY(skip_padding(left, header.name));
    return out_.end_file();
  }

  // Which bytes of the file the archive has. `left` is lessened by what the map itself takes of them.
  Result<Sparse> read_map(const tar::Header& header, const Block& block, const tar::PaxRecords& pax,
                          uint64_t& left) {
    if (header.type == 'S') return read_old_map(header, block);
    const std::string* major = pax.find("GNU.sparse.major");
    if (major != nullptr) {
      const std::string* minor = pax.find("GNU.sparse.minor");
      if (*major != "1" || minor == nullptr || *minor != "0")
        return out_.refuse(header.name, "expected a sparse file of version 1.0, found another",
                           Code::kUnsupported);
      return read_map_1_0(header, pax, left);
    }
    const std::string* size = pax.find("GNU.sparse.size");
    if (size == nullptr) return Sparse{header.size, {{0, header.size}}};
    Sparse sparse{TRY(at_entry(tar::parse_decimal(*size), header.name)), {}};
    std::vector<uint64_t> numbers;
    if (const std::string* map = pax.find("GNU.sparse.map")) {
      for (size_t begin = 0; begin < map->size();) {
        size_t end = std::min(map->find(',', begin), map->size());
        numbers.push_back(TRY(
            at_entry(tar::parse_decimal(std::string_view(*map).substr(begin, end - begin)), header.name)));
        begin = end + 1;
      }
    } else {
      for (const auto& [key, value] : pax.sparse_0_0) {
        bool is_offset = key == "GNU.sparse.offset";
        if (is_offset != (numbers.size() % 2 == 0))
          return out_.refuse(header.name,
                             "expected a size for each place of a sparse file, found another order");
        numbers.push_back(TRY(at_entry(tar::parse_decimal(value), header.name)));
      }
    }
    if (numbers.size() % 2 != 0)
      return out_.refuse(header.name,
                         "expected a size for each place of a sparse file, found one more place");
    for (size_t i = 0; i < numbers.size(); i += 2) sparse.extents.push_back({numbers[i], numbers[i + 1]});
    return sparse;
  }

  // GNU's own: four extents in the header, then blocks of 21.
  Result<Sparse> read_old_map(const tar::Header& header, const Block& block) {
    ByteView real = ByteView(block).subspan(tar::field::kRealSize.offset, tar::field::kRealSize.size);
    int64_t size = TRY(at_entry(tar::parse_number(real), header.name));
    if (size < 0) return out_.refuse(header.name, "expected the size of a sparse file, found a negative one");
    Sparse sparse{static_cast<uint64_t>(size), {}};
    TRY(add_extents(sparse, ByteView(block).subspan(tar::field::kSparse.offset, tar::field::kSparse.size),
                    header.name));
    bool continues = block[tar::field::kSparseContinues.offset] != std::byte{};
    while (continues) {
      Block more;
      TRY(read_exactly(more, header.name));
      TRY(add_extents(sparse, ByteView(more).first(tar::field::kExtensionContinues.offset), header.name));
      continues = more[tar::field::kExtensionContinues.offset] != std::byte{};
    }
    return sparse;
  }

  Status add_extents(Sparse& sparse, ByteView fields, std::string_view path) const {
    for (; fields.size() >= 24; fields = fields.subspan(24)) {
      if (fields[0] == std::byte{}) return {};
      int64_t offset = TRY(at_entry(tar::parse_number(fields.first(12)), path));
      int64_t size = TRY(at_entry(tar::parse_number(fields.subspan(12, 12)), path));
      if (offset < 0 || size < 0 || sparse.extents.size() >= tar::kSparseExtentsMax)
        return out_.refuse(path, "expected the map of a sparse file, found one that cannot be");
      sparse.extents.push_back({static_cast<uint64_t>(offset), static_cast<uint64_t>(size)});
    }
    return {};
  }

  // Lines of decimal numbers before the bytes, padded to whole blocks: how many extents, and each of them.
  Result<Sparse> read_map_1_0(const tar::Header& header, const tar::PaxRecords& pax, uint64_t& left) {
    const std::string* size = pax.find("GNU.sparse.realsize");
    if (size == nullptr) return out_.refuse(header.name, "expected the size of a sparse file, found none");
    Sparse sparse{TRY(at_entry(tar::parse_decimal(*size), header.name)), {}};
    std::string line;
    std::vector<uint64_t> numbers;  // how many extents there are, then place and size of each
    while (numbers.empty() || numbers.size() < 1 + 2 * numbers[0]) {
      if (left < kBlockBytes)
        return out_.refuse(header.name, "expected the map of a sparse file, found its end");
      Block block;
      TRY(read_exactly(block, header.name));
      left -= kBlockBytes;
      TRY(add_lines(as_text(block), line, numbers, header.name));
    }
    for (size_t i = 1; i < numbers.size(); i += 2) sparse.extents.push_back({numbers[i], numbers[i + 1]});
    return sparse;
  }

  // Lines may go on in the next block; what is behind the last one is padding.
  Status add_lines(std::string_view text, std::string& line, std::vector<uint64_t>& numbers,
                   std::string_view path) const {
    for (char c : text) {
      if (!numbers.empty() && numbers.size() == 1 + 2 * numbers[0]) return {};
      if (c != '\n') {
        line += c;
        if (line.size() > 20)
          return out_.refuse(path, "expected a number in the map of a sparse file, found more");
        continue;
      }
      numbers.push_back(TRY(at_entry(tar::parse_decimal(line), path)));
      line.clear();
      if (numbers[0] > tar::kSparseExtentsMax) {
        return out_.refuse(path, fmt::format("expected at most {} parts of a sparse file, found {}",
                                             tar::kSparseExtentsMax, numbers[0]));
      }
    }
    return {};
  }

  ByteSource& archive_;
  EntryWriter& out_;
  uint64_t read_bytes_ = 0;
  std::map<std::string, std::string> global_;
  Bytes buffer_;
};

}  // namespace

Result<Imported> import_tar(fs::Head& head, ByteSource& archive, const ImportOptions& options,
                            const ImportProgress& progress) {
  EntryWriter out(head, options, archive.path(), EntryOrigin::kTar, progress);
  return TarReader(archive, out).run();
}

}  // namespace reprise::snapshot

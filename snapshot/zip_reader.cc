// A ZIP, entry by entry, to an EntryWriter: zip_layout says what there is, libzip unpacks it.
#include <fmt/format.h>

#include <algorithm>

#include "snapshot/entry_writer.h"
#include "snapshot/zip_extra.h"
#include "snapshot/zip_file.h"
#include "snapshot/zip_layout.h"

namespace reprise::snapshot {
namespace {

constexpr size_t kChunkBytes = 256 << 10;

class ZipReader {
 public:
  ZipReader(ZipFile& zip, EntryWriter& out) : zip_(zip), out_(out) {}

  Result<Imported> run(const std::vector<ZipEntry>& entries) {
    if (zip_get_num_entries(zip_.get(), 0) != static_cast<zip_int64_t>(entries.size()))
      return fail(Code::kCorrupt,
                  fmt::format("{}: expected {} entries, found that libzip sees {}", printable(out_.archive()),
                              entries.size(), zip_get_num_entries(zip_.get(), 0)));
    for (size_t i = 0; i < entries.size(); i++) {
      TRY(check_agreement(entries[i], i));
      TRY(read_entry(entries[i], i));
    }
    return out_.finish();
  }

 private:
  // What was checked has to be what is unpacked.
  Status check_agreement(const ZipEntry& entry, zip_uint64_t index) const {
    zip_stat_t stat;
    const char* name = zip_get_name(zip_.get(), index, ZIP_FL_ENC_RAW);
    bool agrees = name != nullptr && entry.name == name && zip_stat_index(zip_.get(), index, 0, &stat) == 0 &&
                  stat.size == entry.bytes && stat.comp_size == entry.packed_bytes && stat.crc == entry.crc &&
                  stat.comp_method == entry.method;
    if (agrees) return {};
    return out_.refuse(entry.name, "expected one meaning, found that libzip reads it in another way");
  }

  Status read_entry(const ZipEntry& entry, zip_uint64_t index) {
    bool slash = entry.name.ends_with('/');
    bool dos = (entry.made_by >> 8) != zip::kUnix && (entry.made_by >> 8) != zip::kMac;
    if (dos && entry.name.find('\\') != std::string::npos)
      return out_.refuse(
          entry.name,
          "expected names parted by '/', found a backslash in one from a system that parts by it");
    zip::Extra extra = zip::parse_extra(entry.extra);
    ImportEntry made{.path = entry.name,
                     .mode = zip::mode_of(entry.made_by, entry.attributes, slash),
                     .uid = extra.uid.value_or(0),
                     .gid = extra.gid.value_or(0),
                     .size = entry.bytes,
                     .mtime = extra.mtime.value_or(zip::time_of_dos(entry.dos_date, entry.dos_time)),
                     .atime = extra.atime,
                     .xattrs = {}};
    if (slash && !S_ISDIR(made.mode))
      return out_.refuse(entry.name,
                         "expected a directory behind a name that ends in '/', found another file");
    std::string target;
    if (S_ISLNK(made.mode)) {
      target = TRY(read_target(entry, index));
      made.target = target;
    } else if (!S_ISREG(made.mode) && entry.bytes != 0) {
      return out_.refuse(entry.name,
                         fmt::format("expected no bytes in what is no file, found {}", entry.bytes));
    } else if (!is_known(made.mode)) {
      return out_.refuse(entry.name,
                         fmt::format("expected an entry of a known kind, found the mode {:o}", made.mode),
                         Code::kUnsupported);
    }
    if (TRY(out_.begin(made)) != EntryWriter::Begun::kFile) return {};
    TRY(read_bytes(entry, index, [&](uint64_t offset, ByteView bytes) { return out_.write(offset, bytes); }));
    return out_.end_file();
  }

  static bool is_known(uint32_t mode) {
    return S_ISREG(mode) || S_ISDIR(mode) || S_ISFIFO(mode) || S_ISCHR(mode) || S_ISBLK(mode) ||
           S_ISSOCK(mode);
  }

  Result<std::string> read_target(const ZipEntry& entry, zip_uint64_t index) {
    if (entry.bytes > fs::kPathMax) {
      return out_.refuse(entry.name, fmt::format("expected a symlink's target of at most {} bytes, found {}",
                                                 fs::kPathMax, entry.bytes));
    }
    std::string target;
    TRY(read_bytes(entry, index, [&](uint64_t, ByteView bytes) -> Status {
      target += as_text(bytes);
      return {};
    }));
    return target;
  }

  // libzip compares the checksum at the end.
  Status read_bytes(const ZipEntry& entry, zip_uint64_t index,
                    const std::function<Status(uint64_t, ByteView)>& take) {
    std::unique_ptr<zip_file_t, decltype(&zip_fclose)> file(zip_fopen_index(zip_.get(), index, 0),
                                                            &zip_fclose);
    if (file == nullptr) return out_.refuse(entry.name, zip_.error("open").message());
    buffer_.resize(kChunkBytes);
    uint64_t offset = 0;
    for (;;) {
      zip_int64_t got = zip_fread(file.get(), buffer_.data(), buffer_.size());
      if (got < 0) return unreadable(entry, file.get());
      if (got == 0) break;
      ByteView bytes = ByteView(buffer_).first(static_cast<size_t>(got));
      if (bytes.size() > entry.bytes - offset)
        return out_.refuse(entry.name, fmt::format("expected {} bytes, found more", entry.bytes));
      TRY(take(offset, bytes));
      offset += bytes.size();
    }
    if (offset == entry.bytes) return {};
    return out_.refuse(entry.name, fmt::format("expected {} bytes, found {}", entry.bytes, offset));
  }

  std::unexpected<Error> unreadable(const ZipEntry& entry, zip_file_t* file) const {
    const char* why = zip_error_strerror(zip_file_get_error(file));
    return out_.refuse(entry.name, fmt::format("expected its bytes, found that they cannot be unpacked: {}",
                                               printable(why)));
  }

  ZipFile& zip_;
  EntryWriter& out_;
  Bytes buffer_;
};

}  // namespace

Result<Imported> import_zip(fs::Head& head, const File& archive, const ImportOptions& options,
                            const ImportProgress& progress) {
  std::vector<ZipEntry> entries = TRY(read_zip_layout(archive, options.limits));
  EntryWriter out(head, options, archive.path(), EntryOrigin::kZip, progress);
  out.set_archive_bytes(TRY(archive.size()));
  auto zip = TRY(ZipFile::open(archive));
  return ZipReader(*zip, out).run(entries);
}

}  // namespace reprise::snapshot

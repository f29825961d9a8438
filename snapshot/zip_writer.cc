// A tree as a ZIP, written by libzip.
#include <fmt/format.h>

#include <cerrno>
#include <cstring>
#include <deque>

#include "snapshot/export_walk.h"
#include "snapshot/zip_extra.h"
#include "snapshot/zip_file.h"

namespace reprise::snapshot {
namespace {

constexpr zip_uint32_t kDeflateLevel = 6;

// What libzip reads an entry's bytes from, when it writes them.
class Source {
 public:
  // `bytes`: of a symlink, its target; of a file null: they are read from the tree.
  Source(const fs::Tree& tree, const fs::Attributes& attributes, std::optional<std::string> bytes)
      : tree_(tree), attributes_(attributes), bytes_(std::move(bytes)) {}

  static zip_int64_t answer(void* self, void* data, zip_uint64_t size, zip_source_cmd_t command) {
    return static_cast<Source*>(self)->serve(data, size, command);
  }
  uint64_t size() const { return bytes_ ? bytes_->size() : attributes_.size; }

 private:
  zip_int64_t serve(void* data, zip_uint64_t size, zip_source_cmd_t command) {
    switch (command) {
      case ZIP_SOURCE_SUPPORTS:
        return ZIP_SOURCE_SUPPORTS_READABLE;
      case ZIP_SOURCE_OPEN:
        at_ = 0;
        return 0;
      case ZIP_SOURCE_READ:
        return read({static_cast<std::byte*>(data), size});
      case ZIP_SOURCE_STAT: {
        auto* stat = static_cast<zip_stat_t*>(data);
        zip_stat_init(stat);
        stat->size = this->size();
        stat->valid = ZIP_STAT_SIZE;
        return sizeof *stat;
      }
      case ZIP_SOURCE_ERROR: {
        int codes[2] = {ZIP_ER_READ, EIO};  // what ZIP_SOURCE_ERROR is to be given
        if (size < sizeof codes) return -1;
        std::memcpy(data, codes, sizeof codes);
        return sizeof codes;
      }
      case ZIP_SOURCE_CLOSE:
      case ZIP_SOURCE_FREE:
        return 0;
      default:
        return -1;
    }
  }

  zip_int64_t read(ByteSpan into) {
    size_t got = 0;
    if (bytes_) {
      got = bytes_->copy(reinterpret_cast<char*>(into.data()), into.size(),
                         std::min<size_t>(at_, bytes_->size()));
    } else {
      auto read = tree_.read(attributes_.inode, at_, into);
      if (!read) return -1;
      got = *read;
    }
    at_ += got;
    return static_cast<zip_int64_t>(got);
  }

  const fs::Tree& tree_;
  const fs::Attributes attributes_;
  const std::optional<std::string> bytes_;
  uint64_t at_ = 0;
};

class ZipWriter final : public EntrySink {
 public:
  ZipWriter(const fs::Tree& tree, File& archive) : tree_(tree), archive_(archive) {}

  Status open() {
    zip_ = TRY(ZipFile::create(archive_));
    return {};
  }

  Status add(const ExportEntry& entry, Exported& done) override {
    const fs::Attributes& attributes = entry.attributes;
    if (!entry.hard_link.empty()) done.copied_hard_links++;
    if (entry.hard_link.empty()) done.skipped_xattrs += entry.xattrs.size();
    zip_int64_t index = -1;
    switch (attributes.mode & S_IFMT) {
      case S_IFDIR:
        index = zip_dir_add(zip_->get(), entry.path.c_str(), ZIP_FL_ENC_GUESS);
        done.directories++;
        break;
      case S_IFREG:
        index = add_source(entry, std::nullopt);
        done.files++;
        done.bytes += attributes.size;
        break;
      case S_IFLNK:
        index = add_source(entry, std::string(entry.target));
        done.symlinks++;
        break;
      default:
        (S_ISFIFO(attributes.mode) ? done.skipped_others : done.skipped_devices)++;
        return {};
    }
    if (index < 0) return refused(entry);
    return describe(entry, static_cast<zip_uint64_t>(index));
  }

  // Everything is written here.
  Status finish() override {
    if (zip_get_num_entries(zip_->get(), 0) > 0) return zip_->close();
    // libzip removes an archive without entries; this is one.
    Bytes end(22);
    store_value(end.data(), uint32_t{0x06054b50});
    return archive_.pwrite(end, 0);
  }

 private:
  zip_int64_t add_source(const ExportEntry& entry, std::optional<std::string> bytes) {
    sources_.emplace_back(tree_, entry.attributes, std::move(bytes));
    zip_source_t* source = zip_source_function(zip_->get(), &Source::answer, &sources_.back());
    if (source == nullptr) return -1;
    zip_int64_t index = zip_file_add(zip_->get(), entry.path.c_str(), source, ZIP_FL_ENC_GUESS);
    if (index < 0) {
      zip_source_free(source);
      return -1;
    }
    bool packs = S_ISREG(entry.attributes.mode) && entry.attributes.size > 0;
    auto at = static_cast<zip_uint64_t>(index);
    if (zip_set_file_compression(zip_->get(), at, packs ? ZIP_CM_DEFLATE : ZIP_CM_STORE,
                                 packs ? kDeflateLevel : 0) != 0)
      return -1;
    return index;
  }

  Status describe(const ExportEntry& entry, zip_uint64_t index) {
    const fs::Attributes& attributes = entry.attributes;
    zip::DosTime dos = zip::dos_of_time(attributes.mtime);
    bool done = zip_file_set_external_attributes(zip_->get(), index, 0, ZIP_OPSYS_UNIX,
                                                 zip::attributes_of(attributes.mode)) == 0 &&
                zip_file_set_dostime(zip_->get(), index, dos.time, dos.date, 0) == 0;
    if (auto times = zip::times_field(attributes.mtime))
      done = done && set_field(index, zip::kTimesExtra, *times);
    if (attributes.mtime.nsec != 0 || !zip::times_field(attributes.mtime))
      done = done && set_field(index, zip::kNtfsExtra, zip::ntfs_field(attributes.mtime));
    done = done && set_field(index, zip::kOwnersExtra, zip::owners_field(attributes.uid, attributes.gid));
    return done ? Status{} : refused(entry);
  }

  bool set_field(zip_uint64_t index, uint16_t id, const Bytes& field) {
    return zip_file_extra_field_set(zip_->get(), index, id, ZIP_EXTRA_FIELD_NEW,
                                    reinterpret_cast<const zip_uint8_t*>(field.data()),
                                    static_cast<zip_uint16_t>(field.size()),
                                    ZIP_FL_LOCAL | ZIP_FL_CENTRAL) == 0;
  }

  Status refused(const ExportEntry& entry) const {
    if (zip_error_code_zip(zip_get_error(zip_->get())) == ZIP_ER_EXISTS) {
      return fail(
          Code::kUnsupported,
          fmt::format(
              "{}: a ZIP cannot hold {}: it is no UTF-8, or another name is, and as the old code page "
              "of ZIPs reads them they are the same",
              printable(archive_.path()), printable(entry.path)));
    }
    return std::unexpected(zip_->error("add to").with_context(printable(entry.path)));
  }

  const fs::Tree& tree_;
  File& archive_;
  std::deque<Source> sources_;  // which libzip uses until it closes: they stay where they are
  std::unique_ptr<ZipFile> zip_;
};

}  // namespace

Result<Exported> export_zip(const fs::Tree& tree, InodeId top, File& archive, const ExportOptions& options,
                            const ExportProgress& progress) {
  ZipWriter writer(tree, archive);
  TRY(writer.open());
  return walk_tree(tree, top, writer, options, progress);
}

}  // namespace reprise::snapshot

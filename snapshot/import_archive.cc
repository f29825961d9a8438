// Which kind of archive it is, and the way to its reader.
#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "snapshot/import.h"
#include "snapshot/tar_format.h"
#include "snapshot/unpacker.h"

namespace reprise::snapshot {
namespace {

constexpr size_t kChunkBytes = 1 << 20;

// A source whose first bytes have been looked at.
class LookedAt final : public ByteSource {
 public:
  LookedAt(std::unique_ptr<ByteSource> source, Bytes first)
      : source_(std::move(source)), first_(std::move(first)) {}

  Result<size_t> read(ByteSpan into) override {
    size_t ahead = std::min(into.size(), first_.size() - given_);
    if (ahead > 0) std::memcpy(into.data(), first_.data() + given_, ahead);
    given_ += ahead;
    if (ahead == into.size()) return ahead;
    return ahead + TRY(source_->read(into.subspan(ahead)));
  }
  uint64_t taken_bytes() const override { return source_->taken_bytes(); }
  const std::string& path() const override { return source_->path(); }

 private:
  std::unique_ptr<ByteSource> source_;
  Bytes first_;
  size_t given_ = 0;
};

// A file under the name of what it was copied from.
class NamedFile final : public File {
 public:
  NamedFile(std::unique_ptr<File> file, std::string path) : file_(std::move(file)), path_(std::move(path)) {}
  Result<size_t> pread(ByteSpan into, uint64_t offset) const override { return file_->pread(into, offset); }
  Status pwrite(ByteView bytes, uint64_t offset) override { return file_->pwrite(bytes, offset); }
  Result<uint64_t> size() const override { return file_->size(); }
  Status resize(uint64_t bytes) override { return file_->resize(bytes); }
  Status sync_data() override { return file_->sync_data(); }
  const std::string& path() const override { return path_; }

 private:
  std::unique_ptr<File> file_;
  std::string path_;
};

bool is_zip(ByteView first) {
  std::string_view text = as_text(first);
  return text.starts_with("PK\3\4") || text.starts_with("PK\5\6");
}

bool is_tar(ByteView first) {
  tar::Block block;
  if (first.size() < block.size()) return false;
  std::memcpy(block.data(), first.data(), block.size());
  return tar::is_zero(block) || tar::has_checksum(block);
}

std::unexpected<Error> neither(const std::string& path, std::string_view found) {
  return fail(Code::kInvalidArgument,
              fmt::format("{}: expected a ZIP or a tar, found {}", printable(path), found));
}

Result<std::unique_ptr<File>> spool(ByteSource& source) {
  auto file = std::make_unique<NamedFile>(TRY(make_unnamed_file()), source.path());
  Bytes buffer(kChunkBytes);
  for (uint64_t size = 0;;) {
    size_t got = TRY(source.read(buffer));
    TRY(file->pwrite(ByteView(buffer).first(got), size));
    size += got;
    if (got < buffer.size()) return file;
  }
}

}  // namespace

Result<Imported> import_stream(fs::Head& head, std::unique_ptr<ByteSource> source,
                               const ImportOptions& options, const ImportProgress& progress) {
  Bytes first(tar::kBlockBytes);
  first.resize(TRY(source->read(first)));
  if (first.empty()) return neither(source->path(), "nothing");
  LookedAt whole(std::move(source), first);
  if (is_zip(first)) return import_zip(head, *TRY(spool(whole)), options, progress);
  if (is_tar(first)) return import_tar(head, whole, options, progress);
  std::string_view packer = packed_by(first);
  if (packer.empty()) return neither(whole.path(), "something else");
  auto unpacked = TRY(unpack(whole));
  return import_tar(head, *unpacked, options, progress);
}

Result<Imported> import_archive(fs::Head& head, const std::string& path, const ImportOptions& options,
                                const ImportProgress& progress) {
  if (auto file = TRY(open_regular_file(path))) {
    Bytes first(tar::kBlockBytes);
    first.resize(TRY(file->pread(first, 0)));
    if (is_zip(first)) return import_zip(head, *file, options, progress);
  }
  return import_stream(head, TRY(open_host_source(path)), options, progress);
}

}  // namespace reprise::snapshot

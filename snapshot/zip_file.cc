#include "snapshot/zip_file.h"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "base/check.h"

namespace reprise::snapshot {
namespace {

constexpr size_t kBufferBytes = 1 << 20;

}  // namespace

Result<std::unique_ptr<ZipFile>> ZipFile::open(const File& archive) {
  std::unique_ptr<ZipFile> file(new ZipFile(archive, nullptr));
  file->size_ = TRY(archive.size());
  TRY(file->begin(ZIP_RDONLY));
  return file;
}

Result<std::unique_ptr<ZipFile>> ZipFile::create(File& archive) {
  std::unique_ptr<ZipFile> file(new ZipFile(archive, &archive));
  TRY(file->begin(ZIP_CREATE | ZIP_TRUNCATE));
  return file;
}

Status ZipFile::begin(int flags) {
  zip_error_init(&zip_error_);
  zip_source_t* source = zip_source_function_create(&ZipFile::answer, this, &zip_error_);
  if (source == nullptr) return std::unexpected(error("open"));
  zip_ = zip_open_from_source(source, flags, &zip_error_);
  if (zip_ != nullptr) return {};
  zip_source_free(source);
  return std::unexpected(error("open"));
}

ZipFile::~ZipFile() {
  if (zip_ != nullptr) zip_discard(zip_);
  zip_error_fini(&zip_error_);
}

Status ZipFile::close() {
  CHECK(writes_ != nullptr);
  if (zip_close(zip_) != 0) return std::unexpected(error("write"));
  zip_ = nullptr;
  return flush();
}

Error ZipFile::error(std::string_view doing) const {
  if (failure_) return *failure_;
  zip_error_t* error = zip_ != nullptr ? zip_get_error(zip_) : const_cast<zip_error_t*>(&zip_error_);
  return {Code::kCorrupt, fmt::format("{}: libzip cannot {} it: {}", printable(reads_.path()), doing,
                                      printable(zip_error_strerror(error)))};
}

zip_int64_t ZipFile::answer(void* self, void* data, zip_uint64_t size, zip_source_cmd_t command) {
  return static_cast<ZipFile*>(self)->serve(data, size, command);
}

zip_int64_t ZipFile::keep(Status status) {
  if (status) return 0;
  if (!failure_) failure_ = status.error();
  zip_error_set(&zip_error_, writes_ != nullptr ? ZIP_ER_WRITE : ZIP_ER_READ, EIO);
  return -1;
}

zip_int64_t ZipFile::seek(uint64_t& place, uint64_t end, void* data, zip_uint64_t size) {
  zip_int64_t to = zip_source_seek_compute_offset(place, end, data, size, &zip_error_);
  if (to < 0) return -1;
  place = static_cast<uint64_t>(to);
  return 0;
}

zip_int64_t ZipFile::serve(void* data, zip_uint64_t size, zip_source_cmd_t command) {
  switch (command) {
    case ZIP_SOURCE_SUPPORTS:
      return writes_ != nullptr ? ZIP_SOURCE_SUPPORTS_WRITABLE : ZIP_SOURCE_SUPPORTS_SEEKABLE;
    case ZIP_SOURCE_OPEN:
      read_at_ = 0;
      return 0;
    case ZIP_SOURCE_READ: {
      auto got = reads_.pread({static_cast<std::byte*>(data), size}, read_at_);
      if (!got) return keep(std::unexpected(got.error()));
      read_at_ += *got;
      return static_cast<zip_int64_t>(*got);
    }
    case ZIP_SOURCE_SEEK:
      return seek(read_at_, size_, data, size);
    case ZIP_SOURCE_TELL:
      return static_cast<zip_int64_t>(read_at_);
    case ZIP_SOURCE_STAT: {
      auto* stat = static_cast<zip_stat_t*>(data);
      zip_stat_init(stat);
      stat->size = size_;
      stat->valid = ZIP_STAT_SIZE;
      return sizeof *stat;
    }
    case ZIP_SOURCE_ERROR:
      return zip_error_to_data(&zip_error_, data, size);
    case ZIP_SOURCE_CLOSE:
    case ZIP_SOURCE_FREE:
    case ZIP_SOURCE_BEGIN_WRITE:
    case ZIP_SOURCE_ROLLBACK_WRITE:
    case ZIP_SOURCE_REMOVE:
      return 0;
    case ZIP_SOURCE_COMMIT_WRITE:
      return keep(flush());
    case ZIP_SOURCE_WRITE: {
      zip_int64_t kept = keep(write({static_cast<const std::byte*>(data), size}));
      return kept < 0 ? kept : static_cast<zip_int64_t>(size);
    }
    case ZIP_SOURCE_SEEK_WRITE:
      return seek(write_at_, written_end_, data, size);
    case ZIP_SOURCE_TELL_WRITE:
      return static_cast<zip_int64_t>(write_at_);
    default:
      zip_error_set(&zip_error_, ZIP_ER_OPNOTSUPP, 0);
      return -1;
  }
}

Status ZipFile::write(ByteView bytes) {
  bool fits = write_at_ >= buffer_at_ && write_at_ <= buffer_at_ + buffer_.size() &&
              write_at_ + bytes.size() <= buffer_at_ + kBufferBytes;
  if (!fits) {
    TRY(flush());
    buffer_at_ = write_at_;
    buffer_.reserve(kBufferBytes);
  }
  if (bytes.size() > kBufferBytes) {
    TRY(writes_->pwrite(bytes, write_at_));
    buffer_at_ = write_at_ + bytes.size();
  } else {
    size_t at = write_at_ - buffer_at_;
    buffer_.resize(std::max(buffer_.size(), at + bytes.size()));
    std::memcpy(buffer_.data() + at, bytes.data(), bytes.size());
  }
  write_at_ += bytes.size();
  written_end_ = std::max(written_end_, write_at_);
  return {};
}

Status ZipFile::flush() {
  if (!buffer_.empty()) TRY(writes_->pwrite(buffer_, buffer_at_));
  buffer_at_ += buffer_.size();
  buffer_.clear();
  return {};
}

}  // namespace reprise::snapshot

#include "snapshot/unpacker.h"

#include <archive.h>
#include <archive_entry.h>
#include <fmt/format.h>

#include <cerrno>
#include <optional>

namespace reprise::snapshot {
namespace {

constexpr size_t kChunkBytes = 64 << 10;

struct Magic {
  std::string_view bytes, name;
};
constexpr Magic kMagics[] = {{"\x1f\x8b", "gzip"},
                             {"BZh", "bzip2"},
                             {std::string_view("\xfd\x37zXZ\0", 6), "xz"},
                             {"\x28\xb5\x2f\xfd", "zstd"}};

class Unpacker final : public ByteSource {
 public:
  explicit Unpacker(ByteSource& source) : source_(source), archive_(archive_read_new()) {}
  ~Unpacker() override { archive_read_free(archive_); }
  Unpacker(const Unpacker&) = delete;
  Unpacker& operator=(const Unpacker&) = delete;

  Status open() {
    archive_read_support_filter_gzip(archive_);
    archive_read_support_filter_bzip2(archive_);
    archive_read_support_filter_xz(archive_);
    archive_read_support_filter_zstd(archive_);
    archive_read_support_format_raw(archive_);
    archive_entry* entry = nullptr;
    if (archive_read_open(archive_, this, nullptr, take, nullptr) != ARCHIVE_OK ||
        archive_read_next_header(archive_, &entry) != ARCHIVE_OK)
      return failed();
    return {};
  }
  Result<size_t> read(ByteSpan into) override {
    size_t done = 0;
    while (done < into.size()) {
      la_ssize_t n = archive_read_data(archive_, into.data() + done, into.size() - done);
      if (n < 0) return std::unexpected(failed().error());
      if (n == 0) break;
      done += static_cast<size_t>(n);
    }
    return done;
  }
  uint64_t taken_bytes() const override { return source_.taken_bytes(); }
  const std::string& path() const override { return source_.path(); }

 private:
  static la_ssize_t take(archive* archive, void* self, const void** bytes) {
    auto& unpacker = *static_cast<Unpacker*>(self);
    unpacker.buffer_.resize(kChunkBytes);
    auto got = unpacker.source_.read(unpacker.buffer_);
    if (!got) {
      unpacker.failure_ = got.error();
      archive_set_error(archive, EIO, "reading failed");
      return -1;
    }
    *bytes = unpacker.buffer_.data();
    return static_cast<la_ssize_t>(*got);
  }
  Status failed() const {
    if (failure_) return std::unexpected(*failure_);
    const char* why = archive_error_string(archive_);
    return fail(Code::kCorrupt,
                fmt::format("{}: cannot be unpacked: {}", printable(path()),
                            why != nullptr ? printable(why) : "for a reason that is not known"));
  }

  ByteSource& source_;
  archive* archive_;
  Bytes buffer_;
  std::optional<Error> failure_;  // of the source
};

}  // namespace

std::string_view packed_by(ByteView first) {
  for (const Magic& magic : kMagics) {
    if (as_text(first).starts_with(magic.bytes)) return magic.name;
  }
  return "";
}

Result<std::unique_ptr<ByteSource>> unpack(ByteSource& source) {
  auto unpacker = std::make_unique<Unpacker>(source);
  TRY(unpacker->open());
  return unpacker;
}

}  // namespace reprise::snapshot

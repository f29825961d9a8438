// Archives made by hand, byte by byte, for the tests of what they may not do.
#pragma once

#include <zlib.h>

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "snapshot/import.h"
#include "snapshot/tar_format.h"

namespace reprise::snapshot {

class MemoryFile final : public File {
 public:
  explicit MemoryFile(std::string bytes = "") : bytes_(std::move(bytes)) {}
  Result<size_t> pread(ByteSpan into, uint64_t offset) const override {
    if (offset >= bytes_.size()) return 0;
    return bytes_.copy(reinterpret_cast<char*>(into.data()), into.size(), offset);
  }
  Status pwrite(ByteView bytes, uint64_t offset) override {
    bytes_.resize(std::max<size_t>(bytes_.size(), offset + bytes.size()));
    bytes_.replace(offset, bytes.size(), as_text(bytes));
    return {};
  }
  Result<uint64_t> size() const override { return bytes_.size(); }
  Status resize(uint64_t bytes) override {
    bytes_.resize(bytes);
    return {};
  }
  Status sync_data() override { return {}; }
  const std::string& path() const override { return path_; }
  const std::string& bytes() const { return bytes_; }

 private:
  std::string bytes_, path_ = "crafted";
};

class MemorySource final : public ByteSource {
 public:
  explicit MemorySource(std::string bytes) : bytes_(std::move(bytes)) {}
  Result<size_t> read(ByteSpan into) override {
    size_t got = bytes_.copy(reinterpret_cast<char*>(into.data()), into.size(), at_);
    at_ += got;
    return got;
  }
  uint64_t taken_bytes() const override { return at_; }
  const std::string& path() const override { return path_; }

 private:
  std::string bytes_, path_ = "crafted";
  size_t at_ = 0;
};

class MemorySink final : public ByteSink {
 public:
  Status write(ByteView bytes) override {
    bytes_ += as_text(bytes);
    return {};
  }
  const std::string& path() const override { return path_; }
  const std::string& bytes() const { return bytes_; }

 private:
  std::string bytes_, path_ = "crafted";
};

// --- tar

struct TarEntry {
  tar::Header header;
  std::string body;
};
inline TarEntry tar_entry(const std::string& name, char type = '0', const std::string& body = "",
                          const std::string& link = "") {
  TarEntry entry;
  entry.header = {.name = name,
                  .link_name = link,
                  .mode = 0644,
                  .size = body.size(),
                  .mtime = 1'700'000'000,
                  .type = type};
  entry.body = body;
  return entry;
}
inline TarEntry pax_entry(const std::vector<std::pair<std::string, std::string>>& records, char type = 'x') {
  std::string body;
  for (const auto& [key, value] : records) tar::append_pax(body, key, value);
  return tar_entry("pax", type, body);
}
inline std::string tar_of(const std::vector<TarEntry>& entries) {
  std::string bytes;
  for (const TarEntry& entry : entries) {
    tar::Block block = tar::format_header(entry.header);
    bytes += as_text(block);
    bytes += entry.body;
    bytes.resize((bytes.size() + 511) / 512 * 512);
  }
  bytes.resize(bytes.size() + 1024);
  return bytes;
}

// --- ZIP

struct ZipPart {
  std::string name, body;
  uint32_t mode = 0100644;
  uint16_t made_by = 3 << 8 | 20, flags = 0, method = 0;
  std::string packed;  // what is stored, if not the body as it is
  // What the headers say, where they lie.
  std::optional<uint32_t> size, packed_size, crc, offset;
  std::optional<std::string> local_name;
  std::string extra;
};

template <class T>
void put(std::string& to, T value) {
  to.append(reinterpret_cast<const char*>(&value), sizeof value);
}

inline std::string deflated(const std::string& body) {
  std::string packed(compressBound(body.size()) + 64, '\0');
  z_stream stream{};
  deflateInit2(&stream, 9, Z_DEFLATED, -15, 8, Z_DEFAULT_STRATEGY);
  stream.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(body.data()));
  stream.avail_in = static_cast<uInt>(body.size());
  stream.next_out = reinterpret_cast<Bytef*>(packed.data());
  stream.avail_out = static_cast<uInt>(packed.size());
  deflate(&stream, Z_FINISH);
  packed.resize(stream.total_out);
  deflateEnd(&stream);
  return packed;
}

inline std::string zip_of(const std::vector<ZipPart>& parts, std::optional<uint16_t> count = std::nullopt) {
  std::string bytes, directory;
  for (const ZipPart& part : parts) {
    const std::string& stored = part.packed.empty() ? part.body : part.packed;
    auto crc = part.crc.value_or(static_cast<uint32_t>(
        crc32(0, reinterpret_cast<const Bytef*>(part.body.data()), static_cast<uInt>(part.body.size()))));
    auto size = part.size.value_or(static_cast<uint32_t>(part.body.size()));
    auto packed_size = part.packed_size.value_or(static_cast<uint32_t>(stored.size()));
    auto offset = part.offset.value_or(static_cast<uint32_t>(bytes.size()));
    auto common = [&](std::string& to, const std::string& name) {
      put(to, uint16_t{20});
      put(to, part.flags);
      put(to, part.method);
      put(to, uint32_t{0x58000000});
      put(to, crc);
      put(to, packed_size);
      put(to, size);
      put(to, static_cast<uint16_t>(name.size()));
      put(to, static_cast<uint16_t>(part.extra.size()));
    };
    const std::string& local_name = part.local_name ? *part.local_name : part.name;
    put(bytes, uint32_t{0x04034b50});
    common(bytes, local_name);
    bytes += local_name + part.extra + stored;
    put(directory, uint32_t{0x02014b50});
    put(directory, part.made_by);
    common(directory, part.name);
    put(directory, uint16_t{0});
    put(directory, uint16_t{0});
    put(directory, uint16_t{0});
    put(directory, part.mode << 16);
    put(directory, offset);
    directory += part.name + part.extra;
  }
  auto entries = count.value_or(static_cast<uint16_t>(parts.size()));
  auto at = static_cast<uint32_t>(bytes.size());
  bytes += directory;
  put(bytes, uint32_t{0x06054b50});
  put(bytes, uint32_t{0});
  put(bytes, entries);
  put(bytes, entries);
  put(bytes, static_cast<uint32_t>(directory.size()));
  put(bytes, at);
  put(bytes, uint16_t{0});
  return bytes;
}

}  // namespace reprise::snapshot

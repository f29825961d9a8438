#include "store/pack.h"

#include <fmt/format.h>
#include <zstd.h>

#include <algorithm>
#include <charconv>
#include <mutex>
#include <unordered_map>

#include "base/check.h"
#include "base/hash.h"
#include "store/pack_format.h"

namespace reprise::store {
namespace {

constexpr size_t kOpenPacksMax = 64;  // files kept open for reading

std::string pack_name(uint32_t number) {
  return fmt::format("{:08}.pack", number);
}

// 0 if it is no pack's name.
uint32_t pack_number(std::string_view name) {
  uint32_t number = 0;
  if (name.size() != 13 || !name.ends_with(".pack")) return 0;
  const char *begin = name.data(), *dot = begin + 8;
  auto [end, error] = std::from_chars(begin, dot, number);
  return error == std::errc{} && end == dot ? number : 0;
}

// Of a sync, that there was no space does not mean that trying again helps: the bytes may be gone.
Status synced(Status status) {
  if (status || status.error().code() != Code::kNoSpace) return status;
  return std::unexpected(Error(Code::kIo, status.error().message(), status.error().sys_errno()));
}

struct CompressorDeleter {
  void operator()(ZSTD_CCtx* context) const { ZSTD_freeCCtx(context); }
};
struct DecompressorDeleter {
  void operator()(ZSTD_DCtx* context) const { ZSTD_freeDCtx(context); }
};

class Packs final : public BlobStore {
 public:
  Packs(std::unique_ptr<Directory> directory, VolumeId volume, Catalogue& catalogue,
        const PackOptions& options)
      : directory_(std::move(directory)),
        volume_(volume),
        catalogue_(catalogue),
        options_(options),
        compressor_(ZSTD_createCCtx()) {}

  Result<BlobId> put(ByteView bytes) override {
    if (bytes.size() > kBlobLimit) {
      return fail(Code::kInvalidArgument, fmt::format("{}: expected a blob of at most {} bytes, found {}",
                                                      directory_->path(), kBlobLimit, bytes.size()));
    }
    BlobId id = options_.hash(bytes);
    std::lock_guard lock(mutex_);
    if (failure_) return std::unexpected(*failure_);
    if (auto place = TRY(find(id))) {
      TRY(compare(id, *place, bytes));
      return id;
    }
    if (Status appended = append(id, bytes); !appended) {
      // What found no space is still in memory, and written when there is some.
      if (appended.error().code() != Code::kNoSpace) failure_ = appended.error();
      return std::unexpected(appended.error());
    }
    return id;
  }

  Result<Bytes> get(BlobId id) override {
    std::unique_lock lock(mutex_);
    auto place = TRY(find(id));
    if (!place)
      return fail(Code::kNotFound, fmt::format("{}: no blob {}", directory_->path(), id.to_string()));
    return read(id, *place, lock);
  }

  Status sync() override {
    std::lock_guard lock(mutex_);
    if (failure_) return std::unexpected(*failure_);
    Status written = write_out();
    if (!written && written.error().code() == Code::kNoSpace) return written;
    Status done = written ? flush_to_disk() : written;
    if (!done) failure_ = done.error();
    return done;
  }

  uint64_t stored_bytes() const override {
    std::lock_guard lock(mutex_);
    return stored_bytes_;
  }

 private:
  // --- all of these with mutex_ held

  Result<std::optional<BlobPlace>> find(BlobId id) {
    if (auto it = pending_.find(id); it != pending_.end()) return it->second;
    return catalogue_.blob(id);
  }

  Status compare(BlobId id, const BlobPlace& place, ByteView bytes) {
    std::unique_lock<std::mutex> held;  // mutex_ stays locked by the caller
    Bytes there = TRY(read(id, place, held));
    if (std::ranges::equal(there, bytes)) return {};
    return fail(Code::kCorrupt, fmt::format("{}: two different blobs of {} and {} bytes have the hash {}",
                                            directory_->path(), there.size(), bytes.size(), id.to_string()));
  }

  Status append(BlobId id, ByteView bytes) {
    if (pack_ == nullptr || pack_end() >= options_.pack_bytes) TRY(begin_pack());
    BlobHeader header{.codec = Codec::kRaw, .id = id, .raw_bytes = static_cast<uint32_t>(bytes.size())};
    ByteView payload = bytes;
    if (bytes.size() >= options_.compress_from_bytes) {
      ByteView compressed = compress(bytes);
      // A sixteenth is the least that is worth decompressing for.
      if (compressed.size() < bytes.size() - bytes.size() / 16) {
        header.codec = Codec::kZstd;
        payload = compressed;
      }
    }
    header.stored_bytes = static_cast<uint32_t>(payload.size());
    BlobPlace place{.pack = pack_number_, .offset = pack_end(), .stored_bytes = header.stored_bytes};
    append_bytes(buffer_, encode_blob_header(header));
    append_bytes(buffer_, payload);
    stored_bytes_ += kBlobHeaderBytes + payload.size();
    pending_.emplace(id, place);
    return buffer_.size() >= options_.buffer_bytes ? write_out() : Status{};
  }

  ByteView compress(ByteView bytes) {
    scratch_.resize(ZSTD_compressBound(bytes.size()));
    size_t n = ZSTD_compressCCtx(compressor_.get(), scratch_.data(), scratch_.size(), bytes.data(),
                                 bytes.size(), options_.compression_level);
    return ZSTD_isError(n) ? bytes : ByteView(scratch_).first(n);
  }

  uint64_t pack_end() const { return written_ + buffer_.size(); }

  Status begin_pack() {
    if (pack_ != nullptr) {
      TRY(write_out());
      TRY(synced(pack_->sync_data()));
    }
    uint32_t number = pack_number_ + 1;
    for (const std::string& name : TRY(directory_->list())) number = std::max(number, pack_number(name) + 1);
    for (;; number++) {
      auto file = directory_->open(pack_name(number), OpenMode::kCreate);
      if (!file && file.error().code() == Code::kAlreadyExists) continue;  // another writer was faster
      pack_ = TRY(std::move(file));
      break;
    }
    pack_number_ = number;
    written_ = 0;
    directory_unsynced_ = true;
    append_bytes(buffer_, encode_pack_header(volume_, number));
    return {};
  }

  // The buffer's bytes are in the file, not yet on the disk.
  Status write_out() {
    if (buffer_.empty()) return {};
    TRY(pack_->pwrite(buffer_, written_));
    written_ += buffer_.size();
    buffer_.clear();
    return {};
  }

  Status flush_to_disk() {
    if (pending_.empty()) return {};
    TRY(pack_->sync_data());
    if (directory_unsynced_) TRY(directory_->sync());
    directory_unsynced_ = false;
    TRY(catalogue_.put_blobs({pending_.begin(), pending_.end()}));
    pending_.clear();
    return {};
  }

  Result<std::shared_ptr<File>> reader(uint32_t number) {
    if (number == pack_number_ && pack_ != nullptr) return pack_;
    if (auto it = readers_.find(number); it != readers_.end()) return it->second;
    if (readers_.size() >= kOpenPacksMax) readers_.clear();
    std::shared_ptr<File> file = TRY(directory_->open(pack_name(number), OpenMode::kRead));
    readers_.emplace(number, file);
    return file;
  }

  // Lets go of `lock`, if it is held, before it touches the disk.
  Result<Bytes> read(BlobId id, const BlobPlace& place, std::unique_lock<std::mutex>& lock) {
    if (place.stored_bytes > kBlobLimit) return damaged(id, place, "more than a blob can have");
    Bytes frame(kBlobHeaderBytes + place.stored_bytes);
    if (place.pack == pack_number_ && place.offset >= written_) {
      size_t at = place.offset - written_;
      if (at + frame.size() > buffer_.size()) return damaged(id, place, "the end of the pack");
      std::memcpy(frame.data(), buffer_.data() + at, frame.size());
    } else {
      std::shared_ptr<File> file = TRY(reader(place.pack));
      if (lock.owns_lock()) lock.unlock();
      if (TRY(file->pread(frame, place.offset)) != frame.size())
        return damaged(id, place, "the end of the pack");
    }
    return unpack(id, place, frame);
  }

  // --- without

  Result<Bytes> unpack(BlobId id, const BlobPlace& place, ByteView frame) const {
    auto header = decode_blob_header(frame);
    if (!header) return damaged(id, place, "no valid blob header");
    if (header->id != id || header->stored_bytes != place.stored_bytes)
      return damaged(id, place, "another blob");
    ByteView payload = frame.subspan(kBlobHeaderBytes);
    Bytes raw(header->raw_bytes);
    if (header->codec == Codec::kRaw) {
      if (payload.size() != raw.size()) return damaged(id, place, "another size");
      std::ranges::copy(payload, raw.begin());
    } else {
      // One each per thread: making one costs more than most blobs.
      static thread_local std::unique_ptr<ZSTD_DCtx, DecompressorDeleter> context(ZSTD_createDCtx());
      size_t n = ZSTD_decompressDCtx(context.get(), raw.data(), raw.size(), payload.data(), payload.size());
      if (ZSTD_isError(n) || n != raw.size()) return damaged(id, place, "bytes that do not decompress to it");
    }
    if (options_.hash(raw) != id) return damaged(id, place, "bytes with another hash");
    return raw;
  }

  std::unexpected<Error> damaged(BlobId id, const BlobPlace& place, std::string_view found) const {
    return fail(Code::kCorrupt,
                fmt::format("{}/{}: expected blob {} at offset {}, found {}", directory_->path(),
                            pack_name(place.pack), id.to_string(), place.offset, found));
  }

  const std::unique_ptr<Directory> directory_;
  const VolumeId volume_;
  Catalogue& catalogue_;
  const PackOptions options_;

  mutable std::mutex mutex_;
  std::optional<Error> failure_;
  std::shared_ptr<File> pack_;  // being written; null before the first put
  uint32_t pack_number_ = 0;
  uint64_t written_ = 0;  // bytes of it handed to the file
  Bytes buffer_;          // that follow them
  bool directory_unsynced_ = false;
  std::unordered_map<BlobId, BlobPlace> pending_;  // put since the last sync
  std::unordered_map<uint32_t, std::shared_ptr<File>> readers_;
  uint64_t stored_bytes_ = 0;
  std::unique_ptr<ZSTD_CCtx, CompressorDeleter> compressor_;
  Bytes scratch_;
};

class MemoryBlobs final : public BlobStore {
 public:
  Result<BlobId> put(ByteView bytes) override {
    if (bytes.size() > kBlobLimit) {
      return fail(Code::kInvalidArgument,
                  fmt::format("expected a blob of at most {} bytes, found {}", kBlobLimit, bytes.size()));
    }
    BlobId id = hash128(bytes);
    std::lock_guard lock(mutex_);
    auto [it, is_new] = blobs_.try_emplace(id, bytes.begin(), bytes.end());
    if (is_new) {
      stored_bytes_ += bytes.size();
    } else if (!std::ranges::equal(it->second, bytes)) {
      return fail(Code::kCorrupt, fmt::format("two different blobs have the hash {}", id.to_string()));
    }
    return id;
  }
  Result<Bytes> get(BlobId id) override {
    std::lock_guard lock(mutex_);
    auto it = blobs_.find(id);
    if (it == blobs_.end()) return fail(Code::kNotFound, fmt::format("no blob {}", id.to_string()));
    return it->second;
  }
  Status sync() override { return {}; }
  uint64_t stored_bytes() const override {
    std::lock_guard lock(mutex_);
    return stored_bytes_;
  }

 private:
  mutable std::mutex mutex_;
  std::unordered_map<BlobId, Bytes> blobs_;
  uint64_t stored_bytes_ = 0;
};

}  // namespace

std::unique_ptr<BlobStore> open_packs(std::unique_ptr<Directory> packs, VolumeId volume, Catalogue& catalogue,
                                      const PackOptions& options) {
  return std::make_unique<Packs>(std::move(packs), volume, catalogue, options);
}

std::unique_ptr<BlobStore> blobs_in_memory() {
  return std::make_unique<MemoryBlobs>();
}

}  // namespace reprise::store

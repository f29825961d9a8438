#include "store/pack.h"

#include <fmt/format.h>
#include <zstd.h>

#include <algorithm>
#include <atomic>
#include <mutex>
#include <unordered_map>

#include "base/check.h"
#include "base/hash.h"
#include "store/pack_format.h"

namespace reprise::store {
namespace {

constexpr size_t kOpenPacksMax = 64;  // files kept open for reading
constexpr int kReadTries = 5;         // of a blob that is moved again and again meanwhile

// Of a sync, that there was no space does not mean that trying again helps: the bytes may be gone.
Status synced(Status status) {
  if (status || status.error().code() != Code::kNoSpace) return status;
  return std::unexpected(Error(Code::kIo, status.error().message(), status.error().sys_errno()));
}

// What can be tried again.
bool passes(const Error& error) {
  return error.code() == Code::kNoSpace || error.code() == Code::kBusy;
}

std::optional<uint64_t> value_of(Result<uint64_t> number) {
  return number ? std::optional(*number) : std::nullopt;
}

struct CompressorDeleter {
  void operator()(ZSTD_CCtx* context) const { ZSTD_freeCCtx(context); }
};

// A pack with bytes behind those that the catalogue knows of.
struct Unfinished {
  OwnedPack pack;
  uint64_t synced_bytes = 0;
};

class Packs final : public BlobStore {
 public:
  Packs(std::unique_ptr<Directory> directory, VolumeId volume, Catalogue& catalogue,
        const PackOptions& options)
      : directory_(std::move(directory)),
        volume_(volume),
        catalogue_(catalogue),
        options_(options),
        sweeps_when_opened_(value_of(catalogue.sweeps())),
        compressor_(ZSTD_createCCtx()) {}

  Result<BlobId> put(ByteView bytes) override { return put(bytes, Refers::kMaybe); }

  Result<BlobId> put_parts(std::span<const ByteView> parts, Refers refers) override {
    if (parts.size() == 1) return put(parts[0], refers);
    Bytes whole;
    for (ByteView part : parts) append_bytes(whole, part);
    return put(whole, refers);
  }

  Result<bool> keeps(BlobId id) override {
    std::lock_guard lock(mutex_);
    if (!doubted_) return true;
    return TRY(find(id)).has_value();
  }

  Result<Bytes> get(BlobId id) override {
    std::unique_lock lock(mutex_);
    auto bytes = TRY(look_up(id, lock));
    if (bytes) return std::move(*bytes);
    return fail(Code::kNotFound, fmt::format("{}: no blob {}", directory_->path(), id.to_string()));
  }

  std::mutex& capture_mutex() override { return capture_mutex_; }
  std::mutex& collect_mutex() override { return collect_mutex_; }

  Result<uint64_t> begin() override {
    uint64_t sweeps = TRY(catalogue_.sweeps());
    std::lock_guard lock(mutex_);
    // Nodes of trees that were marked as stored before: their blobs may have gone.
    doubted_ |= sweeps_when_opened_ != sweeps;
    rests_on_sweeps_ = sweeps;
    return sweeps;
  }

  Status sync() override {
    std::lock_guard lock(mutex_);
    if (failure_) return std::unexpected(*failure_);
    Status written = write_out();
    if (!written && written.error().code() == Code::kNoSpace) return written;
    Status done = written ? flush_to_disk() : written;
    if (!done && !passes(done.error())) failure_ = done.error();
    return done;
  }

  void abandon() override {
    std::lock_guard lock(mutex_);
    doubted_ = true;
    pending_.clear();
    buffer_.clear();
    stored_bytes_ = synced_stored_bytes_;
    uint32_t number = pack_.number;
    // Where this does not work the bytes stay, and are collected some time.
    bool to_cut = written_ > synced_bytes_ || synced_bytes_ == 0;
    if (pack_.file != nullptr && to_cut) unfinished_.push_back({std::move(pack_), synced_bytes_});
    for (Unfinished& left : unfinished_) {
      if (left.synced_bytes == 0) {
        static_cast<void>(directory_->unlink(pack_name(left.pack.number)));
      } else if (left.pack.file->resize(left.synced_bytes) && left.pack.number == number) {
        pack_ = std::move(left.pack);  // to go on with
      }
    }
    unfinished_.clear();
    written_ = synced_bytes_;
  }

  void close_readers() override {
    std::lock_guard lock(mutex_);
    readers_.clear();
  }

  uint64_t stored_bytes() const override {
    std::lock_guard lock(mutex_);
    return stored_bytes_;
  }

  void bound_packs(uint64_t bytes) override { pack_bytes_ = std::min(bytes, options_.pack_bytes); }

  Result<Collected> collect(const std::vector<uint64_t>& snapshots, const std::function<bool(BlobId)>& needed,
                            double dead_share) override {
    {
      // So that the pack written so far can be collected, too.
      std::lock_guard lock(mutex_);
      if (pending_.empty() && buffer_.empty()) pack_ = {};
      readers_.clear();
    }
    CollectOptions options{.dead_share = dead_share, .pack_bytes = pack_bytes_, .own = options_.own};
    // Where packs are small by intention, only the smallest are put together.
    if (options.pack_bytes < options_.pack_bytes)
      options.small_bytes = std::min(options.small_bytes, options.pack_bytes / 4);
    auto collected = collect_packs(*directory_, volume_, catalogue_, snapshots, needed, options);
    close_readers();
    return collected;
  }

  Result<uint64_t> bytes_on_disk() override {
    uint64_t bytes = 0;
    for (const PackFile& file : TRY(list_packs(*directory_))) bytes += file.bytes;
    return bytes;
  }

 private:
  Result<BlobId> put(ByteView bytes, Refers refers) {
    if (bytes.size() > kBlobLimit) {
      return fail(Code::kInvalidArgument, fmt::format("{}: expected a blob of at most {} bytes, found {}",
                                                      directory_->path(), kBlobLimit, bytes.size()));
    }
    BlobId id = options_.hash(bytes);
    std::lock_guard lock(mutex_);
    if (failure_) return std::unexpected(*failure_);
    std::unique_lock<std::mutex> held;  // mutex_ stays locked here
    if (auto there = TRY(look_up(id, held))) {
      if (std::ranges::equal(*there, bytes)) return id;
      return fail(Code::kCorrupt,
                  fmt::format("{}: two different blobs of {} and {} bytes have the hash {}",
                              directory_->path(), there->size(), bytes.size(), id.to_string()));
    }
    if (Status appended = append(id, bytes, refers); !appended) {
      // What found no space is still in memory, and written when there is some.
      if (appended.error().code() != Code::kNoSpace) failure_ = appended.error();
      return std::unexpected(appended.error());
    }
    return id;
  }

  // --- all of these with mutex_ held

  Result<std::optional<BlobPlace>> find(BlobId id) {
    if (auto it = pending_.find(id); it != pending_.end()) return it->second;
    return catalogue_.blob(id);
  }

  // The blob, if it is there. Lets go of `lock`, if that is held, before it touches the disk. A blob may be
  // moved to another pack meanwhile, and the number of one that has gone may be given to another.
  Result<std::optional<Bytes>> look_up(BlobId id, std::unique_lock<std::mutex>& lock) {
    bool lets_go = lock.owns_lock();
    std::optional<BlobPlace> before;
    for (int tries = 1;; ++tries) {
      auto place = TRY(find(id));
      if (!place) return std::nullopt;
      auto bytes = read(id, *place, lock);
      if (bytes) return std::move(*bytes);
      Code code = bytes.error().code();
      bool moved = code == Code::kNotFound || code == Code::kCorrupt;
      if (!moved || tries == kReadTries || (tries > 1 && place == before)) {
        if (code != Code::kNotFound) return std::unexpected(bytes.error());
        return damaged_blob(*directory_, id, *place, "no such pack");
      }
      before = place;
      if (lets_go && !lock.owns_lock()) lock.lock();
      readers_.erase(place->pack);
    }
  }

  Status append(BlobId id, ByteView bytes, Refers refers) {
    if (pack_.file == nullptr || pack_end() >= pack_bytes_) TRY(begin_pack());
    BlobHeader header{.codec = Codec::kRaw,
                      .id = id,
                      .raw_bytes = static_cast<uint32_t>(bytes.size()),
                      .refers_to_none = refers == Refers::kToNone};
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
    BlobPlace place{.pack = pack_.number,
                    .offset = pack_end(),
                    .stored_bytes = header.stored_bytes,
                    .refers_to_none = header.refers_to_none};
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
    if (pack_.file != nullptr) {
      TRY(write_out());
      TRY(synced(pack_.file->sync_data()));
    }
    OwnedPack next = TRY(create_pack(*directory_, options_.own, pack_.number));
    // One whose blobs the catalogue does not know yet stays ours until it does.
    if (pack_.file != nullptr && written_ > synced_bytes_)
      unfinished_.push_back({std::move(pack_), synced_bytes_});
    pack_ = std::move(next);
    written_ = synced_bytes_ = 0;
    directory_unsynced_ = true;
    append_bytes(buffer_, encode_pack_header(volume_, pack_.number));
    return {};
  }

  // The buffer's bytes are in the file, not yet on the disk.
  Status write_out() {
    if (buffer_.empty()) return {};
    TRY(pack_.file->pwrite(buffer_, written_));
    written_ += buffer_.size();
    buffer_.clear();
    return {};
  }

  Status flush_to_disk() {
    if (pending_.empty()) return {};
    TRY(synced(pack_.file->sync_data()));
    if (directory_unsynced_) TRY(synced(directory_->sync()));
    directory_unsynced_ = false;
    TRY(catalogue_.put_blobs({pending_.begin(), pending_.end()}, rests_on_sweeps_));
    pending_.clear();
    unfinished_.clear();
    synced_bytes_ = written_;
    synced_stored_bytes_ = stored_bytes_;
    return {};
  }

  Result<std::shared_ptr<File>> reader(uint32_t number) {
    if (number == pack_.number && pack_.file != nullptr) return pack_.file;
    if (auto it = readers_.find(number); it != readers_.end()) return it->second;
    if (readers_.size() >= kOpenPacksMax) readers_.clear();
    std::shared_ptr<File> file = TRY(directory_->open(pack_name(number), OpenMode::kRead));
    readers_.emplace(number, file);
    return file;
  }

  // Lets go of `lock`, if it is held, before it touches the disk.
  Result<Bytes> read(BlobId id, const BlobPlace& place, std::unique_lock<std::mutex>& lock) {
    if (place.stored_bytes > kBlobLimit)
      return damaged_blob(*directory_, id, place, "more than a blob can have");
    Bytes frame(kBlobHeaderBytes + place.stored_bytes);
    if (pack_.file != nullptr && place.pack == pack_.number && place.offset >= written_) {
      size_t at = place.offset - written_;
      if (at + frame.size() > buffer_.size())
        return damaged_blob(*directory_, id, place, "the end of the pack");
      std::memcpy(frame.data(), buffer_.data() + at, frame.size());
    } else {
      std::shared_ptr<File> file = TRY(reader(place.pack));
      if (lock.owns_lock()) lock.unlock();
      if (TRY(file->pread(frame, place.offset)) != frame.size())
        return damaged_blob(*directory_, id, place, "the end of the pack");
    }
    return unpack_blob(*directory_, id, place, frame, options_.hash);
  }

  const std::unique_ptr<Directory> directory_;
  const VolumeId volume_;
  Catalogue& catalogue_;
  const PackOptions options_;
  std::atomic<uint64_t> pack_bytes_ = options_.pack_bytes;

  std::mutex capture_mutex_, collect_mutex_;  // in this order, before mutex_
  mutable std::mutex mutex_;
  std::optional<Error> failure_;
  OwnedPack pack_;                           // being written; without a file before the first put
  uint64_t written_ = 0, synced_bytes_ = 0;  // bytes of it handed to the file; and known to the catalogue
  Bytes buffer_;                             // that follow them
  std::vector<Unfinished> unfinished_;       // full, with blobs that the catalogue does not know yet
  bool directory_unsynced_ = false;
  std::unordered_map<BlobId, BlobPlace> pending_;  // put since the last sync
  std::unordered_map<uint32_t, std::shared_ptr<File>> readers_;
  uint64_t stored_bytes_ = 0, synced_stored_bytes_ = 0;
  const std::optional<uint64_t> sweeps_when_opened_;
  std::optional<uint64_t> rests_on_sweeps_;
  bool doubted_ = false;  // what was put once may have gone
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
  Result<bool> keeps(BlobId id) override {
    std::lock_guard lock(mutex_);
    return blobs_.contains(id);
  }
  std::mutex& capture_mutex() override { return capture_mutex_; }
  std::mutex& collect_mutex() override { return collect_mutex_; }
  Result<uint64_t> begin() override { return 0; }
  void abandon() override {}
  void close_readers() override {}
  Result<Collected> collect(const std::vector<uint64_t>&, const std::function<bool(BlobId)>&,
                            double) override {
    return fail(Code::kUnsupported, "a store in memory is not collected");
  }
  Result<uint64_t> bytes_on_disk() override { return 0; }
  Result<Bytes> get(BlobId id) override {
    std::lock_guard lock(mutex_);
    auto it = blobs_.find(id);
    if (it == blobs_.end()) return fail(Code::kNotFound, fmt::format("no blob {}", id.to_string()));
    return it->second;
  }
  Status sync() override { return {}; }
  void bound_packs(uint64_t) override {}
  uint64_t stored_bytes() const override {
    std::lock_guard lock(mutex_);
    return stored_bytes_;
  }

 private:
  std::mutex capture_mutex_, collect_mutex_;
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

#include "store/collect.h"

#include <algorithm>
#include <map>

#include "base/hash.h"

namespace reprise::store {
namespace {

constexpr size_t kOwnedAtOnce = 64;  // open files
constexpr size_t kBufferBytes = 1 << 20;

// A pack that nobody appends to any more, ours for as long as this lives.
struct Candidate {
  PackFile file;
  std::unique_ptr<FileLock> lock;
  std::vector<std::pair<BlobId, BlobPlace>> blobs;  // that lie in it
  uint64_t live_bytes = 0;

  bool small(const CollectOptions& options) const { return file.bytes < options.small_bytes; }
  bool mostly_dead(const CollectOptions& options) const {
    uint64_t all = file.bytes - std::min<uint64_t>(file.bytes, kPackHeaderBytes);
    return static_cast<double>(all) * (1 - options.dead_share) >= static_cast<double>(live_bytes);
  }
};

class Collection {
 public:
  Collection(Directory& packs, VolumeId volume, Catalogue& catalogue, const CollectOptions& options)
      : packs_(packs), volume_(volume), catalogue_(catalogue), options_(options) {}

  // With `files` all that were listed.
  Status run(const std::vector<PackFile>& files) {
    auto is_small = [&](const PackFile& file) { return file.bytes < options_.small_bytes; };
    merges_small_ = static_cast<size_t>(std::ranges::count_if(files, is_small)) >= options_.small_packs;
    for (size_t at = 0; at < files.size(); at += kOwnedAtOnce) {
      size_t n = std::min(kOwnedAtOnce, files.size() - at);
      auto candidates = TRY(own({files.data() + at, n}));
      if (options_.repairs) {
        TRY(put_aside(candidates));
        continue;
      }
      TRY(remove_dead(candidates));
      TRY(copy_together(candidates));
    }
    if (unsynced_) TRY(packs_.sync());
    return {};
  }

  Collected result;

 private:
  // Owned first, then looked at: what its last writer put into the catalogue is seen.
  Result<std::vector<Candidate>> own(std::span<const PackFile> files) {
    std::vector<Candidate> candidates;
    std::map<uint32_t, size_t> by_number;
    for (const PackFile& file : files) {
      if (file.bytes == 0 || file.number == out_.number) continue;  // one that is being made, or ours
      auto lock = options_.own(packs_.path() + "/" + pack_name(file.number));
      if (!lock && lock.error().code() == Code::kNotFound) continue;
      if (!lock && lock.error().code() == Code::kBusy) {
        ++result.packs_in_use;
        continue;
      }
      by_number[file.number] = candidates.size();
      candidates.push_back({.file = file, .lock = TRY(std::move(lock))});
    }
    TRY(catalogue_.for_each_blob([&](BlobId id, const BlobPlace& place) {
      auto it = by_number.find(place.pack);
      if (it == by_number.end()) return;
      Candidate& candidate = candidates[it->second];
      candidate.blobs.emplace_back(id, place);
      candidate.live_bytes += kBlobHeaderBytes + place.stored_bytes;
    }));
    return candidates;
  }

  Status remove(const Candidate& candidate) {
    // Its writer may have given it up, and let go of it, between the look for it and the lock on it.
    Status removed = packs_.unlink(pack_name(candidate.file.number));
    if (!removed && removed.error().code() != Code::kNotFound) return removed;
    unsynced_ = true;
    return {};
  }

  Status put_aside(std::vector<Candidate>& candidates) {
    for (Candidate& candidate : candidates) {
      if (std::ranges::find(options_.set_aside, candidate.file.number) == options_.set_aside.end()) continue;
      if (!candidate.blobs.empty()) TRY(copy(candidate));
      std::string name = pack_name(candidate.file.number), aside = name + ".damaged";
      for (int n = 2; TRY(packs_.exists(aside)); ++n) aside = name + ".damaged-" + std::to_string(n);
      TRY(packs_.rename(name, aside));
      unsynced_ = true;
      result.set_aside.push_back(std::move(aside));
    }
    return {};
  }

  Status remove_dead(std::vector<Candidate>& candidates) {
    for (const Candidate& candidate : candidates) {
      if (!candidate.blobs.empty()) continue;
      TRY(remove(candidate));
      ++result.packs_removed;
    }
    std::erase_if(candidates, [](const Candidate& candidate) { return candidate.blobs.empty(); });
    return {};
  }

  // Those with least to copy first: on a full disk each makes room for the next.
  Status copy_together(std::vector<Candidate>& candidates) {
    std::ranges::sort(candidates, {}, &Candidate::live_bytes);
    for (Candidate& candidate : candidates) {
      if (!candidate.mostly_dead(options_) && !(merges_small_ && candidate.small(options_))) continue;
      Status copied = copy(candidate);
      if (copied) {
        TRY(remove(candidate));
        ++result.packs_rewritten;
        continue;
      }
      Code code = copied.error().code();
      if (code != Code::kCorrupt && code != Code::kNoSpace) return copied;
      if (!result.left) result.left = copied.error();
      TRY(give_up_output());
      if (code == Code::kNoSpace) break;
    }
    return {};
  }

  // The blobs of a pack to the end of the one being made, and the catalogue to there.
  Status copy(Candidate& candidate) {
    std::ranges::sort(candidate.blobs, {}, [](const auto& blob) { return blob.second.offset; });
    if (written_ >= options_.pack_bytes) out_ = {};
    if (out_.file == nullptr) TRY(begin_output());
    auto from = TRY(packs_.open(pack_name(candidate.file.number), OpenMode::kRead));
    std::vector<BlobMove> moves;
    for (const auto& [id, place] : candidate.blobs) {
      Bytes frame(kBlobHeaderBytes + place.stored_bytes);
      if (TRY(from->pread(frame, place.offset)) != frame.size())
        return damaged_blob(packs_, id, place, "the end of the pack");
      TRY(unpack_blob(packs_, id, place, frame, hash128));  // damage does not spread
      BlobPlace to = place;
      to.pack = out_.number;
      to.offset = written_ + buffer_.size();
      moves.push_back({id, place, to});
      append_bytes(buffer_, frame);
      result.bytes_copied += frame.size();
      if (buffer_.size() >= kBufferBytes) TRY(write_out());
    }
    TRY(make_durable());
    TRY(catalogue_.move_blobs(moves));
    settled_ = written_;
    return {};
  }

  Status begin_output() {
    out_ = TRY(create_pack(packs_, options_.own, 0));
    written_ = settled_ = 0;
    unsynced_ = true;
    append_bytes(buffer_, encode_pack_header(volume_, out_.number));
    return {};
  }
  Status write_out() {
    if (buffer_.empty()) return {};
    TRY(out_.file->pwrite(buffer_, written_));
    written_ += buffer_.size();
    buffer_.clear();
    return {};
  }
  Status make_durable() {
    TRY(write_out());
    TRY(out_.file->sync_data());
    if (!unsynced_) return {};
    TRY(packs_.sync());
    unsynced_ = false;
    return {};
  }

  // What the catalogue does not know of goes.
  Status give_up_output() {
    buffer_.clear();
    written_ = settled_;
    if (out_.file == nullptr) return {};
    if (settled_ > 0) return out_.file->resize(settled_);
    TRY(packs_.unlink(pack_name(out_.number)));
    out_ = {};
    unsynced_ = true;
    return {};
  }

  Directory& packs_;
  const VolumeId volume_;
  Catalogue& catalogue_;
  const CollectOptions& options_;
  bool merges_small_ = false;
  bool unsynced_ = false;               // entries of the folder
  OwnedPack out_;                       // being made
  uint64_t written_ = 0, settled_ = 0;  // bytes of it in the file, and of those that the catalogue points to
  Bytes buffer_;
};

uint64_t bytes_of(const std::vector<PackFile>& files) {
  uint64_t bytes = 0;
  for (const PackFile& file : files) bytes += file.bytes;
  return bytes;
}

}  // namespace

Result<Collected> collect_packs(Directory& packs, VolumeId volume, Catalogue& catalogue,
                                const std::vector<uint64_t>& snapshots,
                                const std::function<bool(BlobId)>& needed, const CollectOptions& options) {
  Collection collection(packs, volume, catalogue, options);
  collection.result.blobs_dropped = TRY(catalogue.sweep(snapshots, needed));
  std::vector<PackFile> files = TRY(list_packs(packs));
  collection.result.bytes_before = bytes_of(files);
  TRY(collection.run(files));
  collection.result.bytes_after = bytes_of(TRY(list_packs(packs)));
  return std::move(collection.result);
}

}  // namespace reprise::store

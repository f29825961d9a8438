// Taking out of the packs what nobody needs: a sweep of the catalogue, then packs without blobs go, and packs
// with few are copied together. docs/snapshot-format.md, section 7, says why nothing is lost by it, wherever
// it stops and whoever writes meanwhile.
//
// What is needed is not decided here (snapshot/collect.h). Threads: any; collections side by side are safe.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "base/disk.h"
#include "store/catalogue.h"
#include "store/pack_files.h"

namespace reprise::store {

struct CollectOptions {
  double dead_share = 1.0 / 3;      // a pack is copied from this share of bytes on that nobody needs
  uint64_t pack_bytes = 256 << 20;  // a new pack begins past this
  uint64_t small_bytes = 8 << 20;   // packs of less are copied together when there are
  size_t small_packs = 16;          // so many
  OwnPack own = FileLock::own;
  bool repairs = false;  // then nothing is removed, and
  // what is needed of these is copied, and then they are renamed to NAME.damaged; all others
  // stay as they are.
  std::vector<uint32_t> set_aside;
};

struct Collected {
  uint64_t blobs_dropped = 0;
  uint64_t bytes_before = 0, bytes_after = 0;  // of all packs
  uint64_t packs_removed = 0, packs_rewritten = 0, packs_in_use = 0;
  uint64_t bytes_copied = 0;
  std::vector<std::string> set_aside;  // their new names
  // Why a pack that should have been copied was not: it is damaged, or there is no room. It stays as it is.
  std::optional<Error> left;
};

// Drops all blobs for which `needed` says no, given that the snapshots there are, are those of these ids:
// kBusy if they are not any more, and nothing has been done then.
Result<Collected> collect_packs(Directory& packs, VolumeId volume, Catalogue& catalogue,
                                const std::vector<uint64_t>& snapshots,
                                const std::function<bool(BlobId)>& needed, const CollectOptions& options);

}  // namespace reprise::store

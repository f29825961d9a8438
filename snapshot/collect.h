// Which blobs the snapshots of a store need, and taking away the others. docs/snapshot-format.md, section 7.
//
// Reads only blobs that may refer to others, not file bytes. Threads: any; a capture meanwhile is safe.
#pragma once

#include <functional>
#include <optional>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "store/store.h"

namespace reprise::snapshot {

// Walks trees of blobs. What a blob refers to is read once, however many trees have it.
class BlobWalk {
 public:
  BlobWalk(store::Catalogue& catalogue, store::BlobSource& blobs) : catalogue_(catalogue), blobs_(blobs) {}
  // The blobs of a tree that are not among `seen` yet, parents first, each once; they are added to it.
  // kCorrupt where one is missing or cannot be read.
  using Visit = std::function<void(BlobId, const store::BlobPlace&)>;
  Status below(BlobId root, std::unordered_set<BlobId>& seen, const Visit& visit = nullptr);

 private:
  struct Known {
    store::BlobPlace place;
    std::vector<BlobId> children;
  };
  Result<const Known*> look_at(BlobId id);
  store::Catalogue& catalogue_;
  store::BlobSource& blobs_;
  std::unordered_map<BlobId, Known> known_;
};

// What a snapshot takes in the packs.
struct Share {
  uint64_t own_bytes = 0, shared_bytes = 0;  // needed by no other snapshot; by others, too
  std::optional<Error> damage;  // the tree cannot be read through; what was found so far is counted
};
Result<std::vector<Share>> shares_of(store::Store& store, const std::vector<store::SnapshotRecord>& records);

// Drops the blobs that no snapshot in the catalogue needs. A snapshot that cannot be read through stops it:
// it is not known then what that one needs. `dead_share`: of a pack's bytes, from which on it is copied.
Result<store::Collected> collect(store::Store& store, double dead_share = 1.0 / 3);

}  // namespace reprise::snapshot

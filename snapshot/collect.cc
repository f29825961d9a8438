#include "snapshot/collect.h"

#include <fmt/format.h>

#include <algorithm>
#include <mutex>

#include "snapshot/node_format.h"
#include "store/pack_format.h"

namespace reprise::snapshot {

Result<const BlobWalk::Known*> BlobWalk::look_at(BlobId id) {
  auto it = known_.find(id);
  if (it != known_.end()) return &it->second;
  auto place = TRY(catalogue_.blob(id));
  if (!place) return fail(Code::kCorrupt, fmt::format("blob {}: not in the catalogue", id.to_string()));
  Known known{*place, {}};
  if (!place->refers_to_none) {
    Bytes bytes = TRY(blobs_.get(id));
    auto children = children_of(bytes);
    if (!children) {
      return fail(Code::kCorrupt,
                  fmt::format("blob {}: expected a node of a tree, found other bytes", id.to_string()));
    }
    known.children = std::move(*children);
  }
  return &known_.emplace(id, std::move(known)).first->second;
}

Status BlobWalk::below(BlobId root, std::unordered_set<BlobId>& seen, const Visit& visit) {
  std::vector<BlobId> open;
  if (seen.insert(root).second) open.push_back(root);
  while (!open.empty()) {
    BlobId id = open.back();
    open.pop_back();
    const Known* known = TRY(look_at(id));
    if (visit) visit(id, known->place);
    for (BlobId child : known->children)
      if (seen.insert(child).second) open.push_back(child);
  }
  return {};
}

Result<std::vector<Share>> shares_of(store::Store& store, const std::vector<store::SnapshotRecord>& records) {
  struct Use {
    size_t first;  // of the snapshots that need it
    bool shared = false;
    uint64_t bytes;
  };
  BlobWalk walk(store.catalogue(), store.blobs());
  std::unordered_map<BlobId, Use> uses;
  std::vector<Share> shares(records.size());
  for (size_t i = 0; i < records.size(); ++i) {
    std::unordered_set<BlobId> seen;
    uint64_t all = 0;
    auto count = [&](BlobId id, const store::BlobPlace& place) {
      uint64_t bytes = store::kBlobHeaderBytes + place.stored_bytes;
      all += bytes;
      auto [use, is_new] = uses.try_emplace(id, Use{.first = i, .bytes = bytes});
      if (!is_new) use->second.shared = true;
    };
    if (Status walked = walk.below(records[i].root, seen, count); !walked) {
      Code code = walked.error().code();
      if (code != Code::kCorrupt && code != Code::kNotFound) return std::unexpected(walked.error());
      shares[i].damage = walked.error();
    }
    shares[i].shared_bytes = all;
  }
  for (const auto& [id, use] : uses) {
    if (use.shared) continue;
    shares[use.first].own_bytes += use.bytes;
    shares[use.first].shared_bytes -= use.bytes;
  }
  return shares;
}

Result<store::Collected> collect(store::Store& store, double dead_share) {
  constexpr int kTries = 10;
  constexpr int kPatience = 3;  // then snapshots of this process wait for us
  std::unordered_set<BlobId> needed;
  for (int tries = 1;; ++tries) {
    std::unique_lock nobody_captures(store.blobs().capture_mutex(), std::defer_lock);
    if (tries > kPatience) nobody_captures.lock();
    std::lock_guard collecting(store.blobs().collect_mutex());
    BlobWalk walk(store.catalogue(), store.blobs());
    std::vector<uint64_t> ids;
    bool gone = false;
    for (const store::SnapshotRecord& record : TRY(store.catalogue().snapshots())) {
      ids.push_back(record.id);
      Status walked = walk.below(record.root, needed);
      if (walked) continue;
      // A snapshot that was removed meanwhile may have been collected by somebody else.
      auto now = TRY(store.catalogue().snapshots());
      gone = std::ranges::none_of(now, [&](auto& other) { return other.id == record.id; });
      if (!gone || tries == kTries)
        return std::unexpected(
            walked.error().with_context(fmt::format("{}: snapshot {}", store.path(), record.id)));
      break;
    }
    if (!gone) {
      auto collected = store.blobs().collect(ids, [&](BlobId id) { return needed.contains(id); }, dead_share);
      // kBusy: a snapshot has come or gone meanwhile, and what is new needs to be known.
      if (collected || collected.error().code() != Code::kBusy || tries == kTries) return collected;
    }
    needed.clear();
  }
}

}  // namespace reprise::snapshot

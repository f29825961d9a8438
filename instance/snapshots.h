// Snapshots of one store, by their catalogue records: find, load, capture. Used by Instance and by those who
// only read.
#pragma once

#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "fs/tree.h"
#include "store/store.h"

namespace reprise::instance {

// The one that reaches furthest of a branch, or of those at or before `until`; nullopt if there is none.
Result<std::optional<store::SnapshotRecord>> newest_snapshot(store::Catalogue& catalogue,
                                                             std::string_view branch,
                                                             std::optional<LogIndex> until);
// A tree to replay onto, and the snapshot it came from (nullopt: from nothing).
struct Base {
  fs::Head head;
  std::optional<store::SnapshotRecord> snapshot;
  // What was wrong with better ones that could not be read. The journal has to reach back to `snapshot`, or
  // else this is the error.
  std::optional<Error> unreadable;
  LogIndex unreadable_index = 0;  // of the one that reaches furthest: the last batch in it
};
// From the snapshot that reaches furthest, at or before `until`, and can be read. kIo only. With `load` that
// is how one is read, and not load_snapshot.
using LoadSnapshot = std::function<Result<fs::Head>(const store::SnapshotRecord&)>;
Result<Base> load_base(store::Store& store, std::string_view branch, std::optional<LogIndex> until,
                       const LoadSnapshot& load = nullptr);

// Everything, now. kCorrupt if it does not have the digest it was recorded with.
Result<fs::Head> load_snapshot(store::Store& store, const store::SnapshotRecord& record);

// The same of which nothing is loaded that is not touched (docs/lazy.md), where its format allows that. What
// is found to be damaged later is added to `damage`. The record has to stay in the catalogue for as long as
// the head, or a version made from it, is there.
class Damage {
 public:
  void add(const Error& error);  // logged, too
  std::vector<std::string> list() const;

 private:
  static constexpr size_t kListed = 100;
  mutable std::mutex mutex_;
  std::vector<std::string> found_;
};
// Loads what has not been loaded of a tree, for whoever looks at all of it. kCorrupt where that cannot be.
Status load_all(const fs::Tree& tree);
Status load_names(const fs::Tree& tree);    // inodes, directories and symlinks only
std::unexpected<Error> cannot_be_loaded();  // what both say
Result<fs::Head> open_snapshot(const std::shared_ptr<store::Store>& store,
                               const store::SnapshotRecord& record, const std::shared_ptr<Damage>& damage);

// The snapshots of `records` that the history of `branch` cannot be read without, its journal beginning at
// `first`: the newest, and the one from which a trimmed journal is read.
std::vector<uint64_t> needed_snapshots(const std::vector<store::SnapshotRecord>& records,
                                       std::string_view branch, LogIndex first);

// Takes a snapshot out of the catalogue; its blobs go with the next collection. One that its branch needs
// stays as a checkpoint, without a label, until another takes its place: false then. The branch's journal
// begins at `first`. The caller holds the branch's lock.
Result<bool> drop_snapshot(store::Store& store, const store::SnapshotRecord& record, LogIndex first);

// Stores the tree and the record, whose tree-dependent fields are filled in, and with the record these marks,
// all or none; durable on return. Blobs that are collected meanwhile are put again; without room for all of
// it what there was is used again.
Result<store::SnapshotRecord> capture_snapshot(store::Store& store, const fs::View& view,
                                               const store::SnapshotRecord& record,
                                               const std::vector<store::MarkRecord>& marks = {});

}  // namespace reprise::instance

// Snapshots of one store, by their catalogue records: find, load, capture. Used by Instance and by those who
// only read.
#pragma once

#include <optional>
#include <string_view>

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
};
// From the snapshot that reaches furthest, at or before `until`, and can be read. kIo only.
Result<Base> load_base(store::Store& store, std::string_view branch, std::optional<LogIndex> until);

// Everything, now. kCorrupt if it does not have the digest it was recorded with.
Result<fs::Head> load_snapshot(store::Store& store, const store::SnapshotRecord& record);

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

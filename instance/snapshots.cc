#include "instance/snapshots.h"

#include <fmt/format.h>

#include <algorithm>

#include "snapshot/snapshot.h"

namespace reprise::instance {

Result<std::optional<store::SnapshotRecord>> newest_snapshot(store::Catalogue& catalogue,
                                                             std::string_view branch,
                                                             std::optional<LogIndex> until) {
  std::optional<store::SnapshotRecord> newest;
  for (store::SnapshotRecord& record : TRY(catalogue.snapshots())) {
    if (record.branch != branch || (until && record.log_index > *until)) continue;
    if (!newest || record.log_index >= newest->log_index) newest = std::move(record);
  }
  return newest;
}

Result<Base> load_base(store::Store& store, std::string_view branch, std::optional<LogIndex> until) {
  std::vector<store::SnapshotRecord> records = TRY(store.catalogue().snapshots());
  std::erase_if(
      records, [&](auto& record) { return record.branch != branch || (until && record.log_index > *until); });
  std::stable_sort(records.begin(), records.end(),
                   [](auto& a, auto& b) { return a.log_index < b.log_index; });
  Base base{.head = fs::Head::create(Timestamp{}), .snapshot = std::nullopt, .unreadable = std::nullopt};
  for (auto record = records.rbegin(); record != records.rend(); ++record) {
    auto head = load_snapshot(store, *record);
    if (head) {
      base.head = std::move(*head);
      base.snapshot = std::move(*record);
      break;
    }
    if (head.error().code() != Code::kCorrupt && head.error().code() != Code::kNotFound)
      return std::unexpected(head.error());
    if (!base.unreadable) base.unreadable = head.error();
  }
  return base;
}

Result<fs::Head> load_snapshot(store::Store& store, const store::SnapshotRecord& record) {
  auto view = snapshot::load(record.root, store.blobs());
  if (!view)
    return std::unexpected(
        view.error().with_context(fmt::format("{}: snapshot {}", store.path(), record.id)));
  if (view->digest() != record.digest) {
    return fail(Code::kCorrupt,
                fmt::format("{}: snapshot {} has the digest {}, expected {}", store.path(), record.id,
                            view->digest().to_string(), record.digest.to_string()));
  }
  return fs::Head(*view);
}

Result<store::SnapshotRecord> capture_snapshot(store::Store& store, const fs::View& view,
                                               store::SnapshotRecord record,
                                               const std::vector<store::MarkRecord>& marks) {
  uint64_t stored_before = store.blobs().stored_bytes();
  record.root = TRY(snapshot::capture(view, store.blobs())).root;
  TRY(store.blobs().sync());
  record.stored_bytes = store.blobs().stored_bytes() - stored_before;
  record.inodes = view.usage().inodes;
  record.bytes = view.usage().blocks * fs::kBlockSize;
  record.id = TRY(store.catalogue().add_snapshot(record, marks));
  return record;
}

}  // namespace reprise::instance

#include "instance/snapshots.h"

#include <fmt/format.h>

#include <algorithm>
#include <mutex>

#include "base/log.h"
#include "snapshot/snapshot.h"
#include "store/host_source.h"

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

Result<Base> load_base(store::Store& store, std::string_view branch, std::optional<LogIndex> until,
                       const LoadSnapshot& load) {
  std::vector<store::SnapshotRecord> records = TRY(store.catalogue().snapshots());
  std::erase_if(
      records, [&](auto& record) { return record.branch != branch || (until && record.log_index > *until); });
  std::stable_sort(records.begin(), records.end(),
                   [](auto& a, auto& b) { return a.log_index < b.log_index; });
  Base base{.head = fs::Head::create(Timestamp{}), .snapshot = {}, .unreadable = {}};
  for (auto record = records.rbegin(); record != records.rend(); ++record) {
    auto head = load ? load(*record) : load_snapshot(store, *record);
    if (head) {
      base.head = std::move(*head);
      base.snapshot = std::move(*record);
      break;
    }
    if (head.error().code() != Code::kCorrupt && head.error().code() != Code::kNotFound)
      return std::unexpected(head.error());
    if (base.unreadable) continue;
    base.unreadable = head.error();
    base.unreadable_index = record->log_index;
  }
  return base;
}

Result<fs::Head> load_snapshot(store::Store& store, const store::SnapshotRecord& record) {
  auto rests_on = TRY(store.source());
  auto view = snapshot::load(record.root, store.blobs(), snapshot::Remember::kYes, {}, std::move(rests_on));
  store.blobs().close_readers();
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

void Damage::add(const Error& error) {
  log_warning("{}", error.message());
  std::lock_guard lock(mutex_);
  if (found_.size() < kListed) found_.push_back(error.message());
}

std::vector<std::string> Damage::list() const {
  std::lock_guard lock(mutex_);
  return found_;
}

std::unexpected<Error> cannot_be_loaded() {
  return fail(
      Code::kCorrupt,
      "a part of the tree cannot be loaded from the store; `reprise stat` says which, of a live instance, "
      "and `reprise verify` of any");
}

Status load_all(const fs::Tree& tree) {
  return !tree.partial() || tree.load_all() ? Status{} : cannot_be_loaded();
}

Status load_names(const fs::Tree& tree) {
  return !tree.partial() || tree.load_names() ? Status{} : cannot_be_loaded();
}

Result<fs::Head> open_snapshot(const std::shared_ptr<store::Store>& store,
                               const store::SnapshotRecord& record, const std::shared_ptr<Damage>& damage) {
  auto rests_on = TRY(store->source());
  const std::string name = fmt::format("{}: snapshot {}", store->path(), record.id);
  auto view = snapshot::open_lazily(
      record.root, std::shared_ptr<store::BlobSource>(store, &store->blobs()),
      [damage, name](const Error& error) { damage->add(Error(error).with_context(name)); },
      std::move(rests_on));
  if (!view && view.error().code() == Code::kUnsupported) return load_snapshot(*store, record);
  if (!view) return std::unexpected(view.error().with_context(name));
  if (view->digest() == record.digest) return fs::Head(*view);
  return fail(Code::kCorrupt, fmt::format("{} has the digest {}, expected {}", name,
                                          view->digest().to_string(), record.digest.to_string()));
}

std::vector<uint64_t> needed_snapshots(const std::vector<store::SnapshotRecord>& records,
                                       std::string_view branch, LogIndex first) {
  const store::SnapshotRecord *newest = nullptr, *base = nullptr;
  for (const store::SnapshotRecord& record : records) {
    if (record.branch != branch) continue;
    if (newest == nullptr || record.log_index >= newest->log_index) newest = &record;
    bool reaches = first > 1 && record.log_index + 1 >= first;
    if (reaches && (base == nullptr || record.log_index < base->log_index)) base = &record;
  }
  std::vector<uint64_t> needed;
  for (const store::SnapshotRecord* record : {newest, base})
    if (record != nullptr) needed.push_back(record->id);
  return needed;
}

Result<bool> drop_snapshot(store::Store& store, const store::SnapshotRecord& record, LogIndex first) {
  auto needed = needed_snapshots(TRY(store.catalogue().snapshots()), record.branch, first);
  if (std::ranges::find(needed, record.id) == needed.end()) {
    TRY(store.catalogue().remove_snapshot(record.id));
    return true;
  }
  store::SnapshotRecord checkpoint = record;
  checkpoint.label.clear();
  checkpoint.checkpoint = true;
  TRY(store.catalogue().replace_snapshot(checkpoint));
  return false;
}

namespace {

Result<store::SnapshotRecord> capture_once(store::Store& store, const fs::View& view,
                                           store::SnapshotRecord record,
                                           const std::vector<store::MarkRecord>& marks) {
  uint64_t sweeps = TRY(store.blobs().begin());
  uint64_t stored_before = store.blobs().stored_bytes();
  record.root = TRY(snapshot::capture(view, store.blobs())).root;
  TRY(store.blobs().sync());
  record.stored_bytes = store.blobs().stored_bytes() - stored_before;
  record.inodes = view.usage().inodes;
  record.bytes = view.usage().blocks * fs::kBlockSize;
  record.id = TRY(store.catalogue().add_snapshot(record, marks, sweeps));
  return record;
}

}  // namespace

Result<store::SnapshotRecord> capture_snapshot(store::Store& store, const fs::View& view,
                                               const store::SnapshotRecord& record,
                                               const std::vector<store::MarkRecord>& marks) {
  constexpr int kTries = 10;    // collections are seldom, and do not last
  constexpr int kPatience = 3;  // then those of this process wait for us
  store::BlobStore& blobs = store.blobs();
  std::lock_guard alone(blobs.capture_mutex());
  std::unique_lock nobody_collects(blobs.collect_mutex(), std::defer_lock);
  for (int tries = 1;; ++tries) {
    if (tries == kPatience + 1) nobody_collects.lock();
    auto captured = capture_once(store, view, record, marks);
    blobs.close_readers();
    if (captured) return captured;
    // Where there is no room it is given back; where blobs were collected, they are put once more.
    blobs.abandon();
    if (captured.error().code() != Code::kBusy || tries == kTries) return captured;
  }
}

}  // namespace reprise::instance

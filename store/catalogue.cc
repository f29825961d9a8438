#include "store/catalogue.h"

#include <fmt/format.h>

#include <array>
#include <map>
#include <mutex>

#include "store/lmdb.h"
#include "store/records.h"
#include "store/snapshot_files.h"

namespace reprise::store {
namespace {

constexpr uint32_t kCatalogueVersion = 1;
enum Table : size_t { kMeta, kSnapshots, kMarks, kBranches, kBlobs };
const std::vector<const char*> kTables = {"meta", "snapshots", "marks", "branches", "blobs"};

// Numbers in the table of facts.
constexpr std::string_view kLastSnapshot = "last snapshot", kSweeps = "sweeps",
                           kRemovedBytes = "removed bytes";

Status swept(std::string_view path) {
  return fail(Code::kBusy, fmt::format("{}: blobs were collected meanwhile, on which this rested", path));
}

// Big-endian, so that LMDB's order is the order of the numbers.
std::array<std::byte, 8> number_key(uint64_t number) {
  std::array<std::byte, 8> key;
  store_value(key.data(), __builtin_bswap64(number));
  return key;
}
std::array<std::byte, 16> blob_key(BlobId id) {
  std::array<std::byte, 16> key;
  store_value(key.data(), id.lo);
  store_value(key.data() + 8, id.hi);
  return key;
}
// Names have no NUL in them.
std::string mark_key(std::string_view branch, std::string_view name) {
  return std::string(branch) + '\0' + std::string(name);
}

class LmdbCatalogue final : public Catalogue {
 public:
  LmdbCatalogue(std::unique_ptr<Lmdb> lmdb, std::unique_ptr<SnapshotFiles> copies)
      : lmdb_(std::move(lmdb)), copies_(std::move(copies)) {}

  // Writes the format version into a new catalogue, refuses another one's.
  Status check_version(Access access) {
    std::optional<uint32_t> found;
    TRY(lmdb_->read([&](Lmdb::Transaction& txn) { return read_version(txn, found); }));
    auto begin = [&](Lmdb::Transaction& txn) -> Status {
      TRY(read_version(txn, found));  // another process may have been faster
      if (found) return {};
      Bytes version;
      append_value(version, kCatalogueVersion);
      return txn.put(kMeta, as_bytes("version"), version);
    };
    if (!found && access == Access::kWrite) TRY(lmdb_->write(begin));
    if (!found || *found == kCatalogueVersion) return {};
    return fail(Code::kUnsupported, fmt::format("{}: expected catalogue version {}, found {}", lmdb_->path(),
                                                kCatalogueVersion, *found));
  }

  // What was on its way into the catalogue when a process was killed, or has gone from it by damage.
  Status take_in_copies() {
    if (copies_ == nullptr) return {};
    std::vector<Error> damaged;  // stay as they are, for who verifies
    if (TRY(copies_->behind(TRY(last_snapshot()), damaged)).empty()) return {};
    return lmdb_->write([&](Lmdb::Transaction& txn) -> Status {
      // Looked for once more: nobody else writes one now.
      for (const SnapshotCopy& copy : TRY(copies_->behind(TRY(number(txn, kLastSnapshot)), damaged))) {
        // Else a sweep has taken what it needs.
        if (TRY(txn.get(kBlobs, blob_key(copy.record.root)))) TRY(put_copied(txn, copy));
        TRY(put_number(txn, kLastSnapshot, copy.record.id));
      }
      return {};
    });
  }

  using Catalogue::add_snapshot;
  Result<uint64_t> add_snapshot(SnapshotRecord record, const std::vector<MarkRecord>& marks,
                                std::optional<uint64_t> sweeps) override {
    TRY(check(record));
    for (const MarkRecord& mark : marks) TRY(check(mark));
    auto add = [&](Lmdb::Transaction& txn) -> Status {
      TRY(check_not_swept(txn, sweeps));
      record.id = TRY(number(txn, kLastSnapshot)) + 1;
      TRY(put_number(txn, kLastSnapshot, record.id));
      for (const MarkRecord& mark : marks)
        TRY(txn.put(kMarks, as_bytes(mark_key(mark.branch, mark.name)), encode(mark)));
      if (copies_ != nullptr) TRY(copies_->put({record, marks}));
      return txn.put(kSnapshots, number_key(record.id), encode(record));
    };
    TRY(lmdb_->write(add));
    return record.id;
  }
  Result<std::vector<SnapshotRecord>> snapshots() override {
    return all<SnapshotRecord>(kSnapshots, "snapshot");
  }
  Result<uint64_t> last_snapshot() override { return read_number(kLastSnapshot); }
  Status remove_snapshot(uint64_t id) override {
    TRY(lmdb_->write([&](Lmdb::Transaction& txn) -> Status {
      auto value = TRY(txn.get(kSnapshots, number_key(id)));
      if (!value) return no_snapshot(id);
      auto record = decode<SnapshotRecord>(*value);
      if (!record) return damaged("snapshot");
      uint64_t removed = TRY(number(txn, kRemovedBytes)) + record->stored_bytes;
      TRY(txn.remove(kSnapshots, number_key(id)));
      return put_number(txn, kRemovedBytes, removed);
    }));
    return copies_ != nullptr ? copies_->remove(id) : Status{};
  }
  Status replace_snapshot(const SnapshotRecord& record) override {
    TRY(check(record));
    return lmdb_->write([&](Lmdb::Transaction& txn) -> Status {
      if (!TRY(txn.get(kSnapshots, number_key(record.id)))) return no_snapshot(record.id);
      if (copies_ != nullptr) TRY(copies_->replace_record(record));
      return txn.put(kSnapshots, number_key(record.id), encode(record));
    });
  }

  using Catalogue::put_mark;
  Status put_mark(const MarkRecord& mark, LogIndex durable) override {
    TRY(check(mark));
    return lmdb_->write([&](Lmdb::Transaction& txn) -> Status {
      TRY(raise_in(txn, {mark.branch, durable}));
      return txn.put(kMarks, as_bytes(mark_key(mark.branch, mark.name)), encode(mark));
    });
  }
  Status remove_mark(std::string_view branch, std::string_view name) override {
    return lmdb_->write([&](Lmdb::Transaction& txn) -> Status {
      if (TRY(txn.remove(kMarks, as_bytes(mark_key(branch, name))))) return {};
      return fail(Code::kNotFound, fmt::format("{}: no mark {} of branch {}", lmdb_->path(), name, branch));
    });
  }
  Result<std::optional<MarkRecord>> mark(std::string_view branch, std::string_view name) override {
    return one<MarkRecord>(kMarks, as_bytes(mark_key(branch, name)), "mark");
  }
  Result<std::vector<MarkRecord>> marks() override { return all<MarkRecord>(kMarks, "mark"); }

  Status put_branch(const BranchRecord& branch) override {
    TRY(check(branch));
    return put(kBranches, as_bytes(branch.name), encode(branch));
  }
  Status raise_durable_hint(std::string_view branch, LogIndex durable) override {
    BranchRecord record{.name = std::string(branch), .durable_hint = durable};
    TRY(check(record));
    return lmdb_->write([&](Lmdb::Transaction& txn) { return raise_in(txn, record); });
  }
  Status update_branch(std::string_view name, const std::function<void(BranchRecord&)>& change) override {
    TRY(check(BranchRecord{.name = std::string(name)}));
    return lmdb_->write([&](Lmdb::Transaction& txn) { return update_in(txn, name, change); });
  }
  Status remove_branch(std::string_view name) override {
    return lmdb_->write([&](Lmdb::Transaction& txn) -> Status {
      TRY(txn.remove(kBranches, as_bytes(name)));
      return {};
    });
  }
  Result<std::optional<BranchRecord>> branch(std::string_view name) override {
    return one<BranchRecord>(kBranches, as_bytes(name), "branch");
  }
  Result<std::vector<BranchRecord>> branches() override { return all<BranchRecord>(kBranches, "branch"); }

  Result<std::optional<BlobPlace>> blob(BlobId id) override {
    return one<BlobPlace>(kBlobs, blob_key(id), "blob's place");
  }
  using Catalogue::put_blobs;
  Status put_blobs(const BlobPlaces& places, std::optional<uint64_t> sweeps) override {
    if (places.empty()) return {};
    return lmdb_->write([&](Lmdb::Transaction& txn) -> Status {
      TRY(check_not_swept(txn, sweeps));
      for (const auto& [id, place] : places) TRY(txn.put(kBlobs, blob_key(id), encode(place)));
      return {};
    });
  }
  Status for_each_blob(const std::function<void(BlobId, const BlobPlace&)>& visit) override {
    BlobPlaces all;
    auto collect = [&](Lmdb::Transaction& txn) {
      all.clear();
      return each_blob(txn, [&](BlobId id, const BlobPlace& place) { all.emplace_back(id, place); });
    };
    TRY(lmdb_->read(collect));
    for (const auto& [id, place] : all) visit(id, place);
    return {};
  }
  Result<uint64_t> sweeps() override { return read_number(kSweeps); }
  Result<uint64_t> removed_bytes() override { return read_number(kRemovedBytes); }
  Result<uint64_t> sweep(const std::vector<uint64_t>& snapshots,
                         const std::function<bool(BlobId)>& needed) override {
    std::vector<BlobId> gone;
    auto take_out = [&](Lmdb::Transaction& txn) -> Status {
      std::vector<uint64_t> there;
      TRY(txn.for_each(kSnapshots, [&](ByteView key, ByteView) -> Status {
        if (key.size() != 8) return damaged("snapshot");
        there.push_back(__builtin_bswap64(load_value<uint64_t>(key.data())));
        return {};
      }));
      if (there != snapshots) return other_snapshots();
      // One that a crash has left when it was deleted must not come back when its blobs have gone.
      if (copies_ != nullptr) TRY(copies_->remove_all_but(there, TRY(number(txn, kLastSnapshot))));
      gone.clear();
      TRY(each_blob(txn, [&](BlobId id, const BlobPlace&) {
        if (!needed(id)) gone.push_back(id);
      }));
      for (BlobId id : gone) TRY(txn.remove(kBlobs, blob_key(id)));
      if (!gone.empty()) TRY(put_number(txn, kSweeps, TRY(number(txn, kSweeps)) + 1));
      return put_number(txn, kRemovedBytes, 0);
    };
    TRY(lmdb_->write(take_out));
    return gone.size();
  }
  Status fill(const Content& content) override {
    return lmdb_->write([&](Lmdb::Transaction& txn) -> Status {
      uint64_t last = 0;
      for (const SnapshotRecord& record : content.snapshots) {
        TRY(txn.put(kSnapshots, number_key(record.id), encode(record)));
        last = std::max(last, record.id);
      }
      for (const MarkRecord& mark : content.marks)
        TRY(txn.put(kMarks, as_bytes(mark_key(mark.branch, mark.name)), encode(mark)));
      for (const BranchRecord& branch : content.branches)
        TRY(txn.put(kBranches, as_bytes(branch.name), encode(branch)));
      return put_number(txn, kLastSnapshot, last);
    });
  }
  Status move_blobs(const std::vector<BlobMove>& moves) override {
    return lmdb_->write([&](Lmdb::Transaction& txn) -> Status {
      for (const BlobMove& move : moves) {
        auto value = TRY(txn.get(kBlobs, blob_key(move.id)));
        if (!value || decode<BlobPlace>(*value) != move.from) continue;
        TRY(txn.put(kBlobs, blob_key(move.id), encode(move.to)));
      }
      return {};
    });
  }

 private:
  Result<uint64_t> number(Lmdb::Transaction& txn, std::string_view name) {
    auto value = TRY(txn.get(kMeta, as_bytes(name)));
    if (value && value->size() != 8) return std::unexpected(damaged(name).error());
    return value ? load_value<uint64_t>(value->data()) : 0;
  }
  Result<uint64_t> read_number(std::string_view name) {
    uint64_t found = 0;
    auto look = [&](Lmdb::Transaction& txn) -> Status {
      found = TRY(number(txn, name));
      return {};
    };
    TRY(lmdb_->read(look));
    return found;
  }
  static Status put_number(Lmdb::Transaction& txn, std::string_view name, uint64_t value) {
    Bytes bytes;
    append_value(bytes, value);
    return txn.put(kMeta, as_bytes(name), bytes);
  }
  Status check_not_swept(Lmdb::Transaction& txn, std::optional<uint64_t> sweeps) {
    if (!sweeps || TRY(number(txn, kSweeps)) == *sweeps) return {};
    return swept(lmdb_->path());
  }
  Status no_snapshot(uint64_t id) {
    return fail(Code::kNotFound, fmt::format("{}: no snapshot {}", lmdb_->path(), id));
  }
  Status other_snapshots() {
    return fail(Code::kBusy, fmt::format("{}: snapshots were added or removed meanwhile", lmdb_->path()));
  }
  Status each_blob(Lmdb::Transaction& txn, const std::function<void(BlobId, const BlobPlace&)>& visit) {
    return txn.for_each(kBlobs, [&](ByteView key, ByteView value) -> Status {
      auto place = decode<BlobPlace>(value);
      if (!place || key.size() != 16) return damaged("blob's place");
      visit({.lo = load_value<uint64_t>(key.data()), .hi = load_value<uint64_t>(key.data() + 8)}, *place);
      return {};
    });
  }
  Status read_version(Lmdb::Transaction& txn, std::optional<uint32_t>& found) {
    auto value = TRY(txn.get(kMeta, as_bytes("version")));
    if (value && value->size() != 4) return damaged("version");
    if (value) found = load_value<uint32_t>(value->data());
    return {};
  }
  Status raise_in(Lmdb::Transaction& txn, const BranchRecord& branch) {
    return update_in(txn, branch.name, [&](BranchRecord& record) {
      record.durable_hint = std::max(record.durable_hint, branch.durable_hint);
    });
  }
  Status update_in(Lmdb::Transaction& txn, std::string_view name,
                   const std::function<void(BranchRecord&)>& change) {
    auto known = TRY(txn.get(kBranches, as_bytes(name)));
    auto before = known ? decode<BranchRecord>(*known) : std::nullopt;
    if (known && !before) return damaged("branch");
    BranchRecord before_change = before.value_or(BranchRecord{.name = std::string(name)});
    BranchRecord record = before_change;
    change(record);
    if (record == before_change) return {};
    TRY(check(record));
    return txn.put(kBranches, as_bytes(name), encode(record));
  }
  Status put(Table table, ByteView key, const Bytes& value) {
    return lmdb_->write([&](Lmdb::Transaction& txn) { return txn.put(table, key, value); });
  }
  // Is it the key of this record, and no other's?
  static bool fits(ByteView key, const SnapshotRecord& record) {
    return std::ranges::equal(key, number_key(record.id));
  }
  static bool fits(ByteView key, const MarkRecord& record) {
    return as_text(key) == mark_key(record.branch, record.name);
  }
  static bool fits(ByteView key, const BranchRecord& record) { return as_text(key) == record.name; }
  static bool fits(ByteView, const BlobPlace&) { return true; }  // which says nothing of the blob
  template <class Record>
  Result<std::optional<Record>> one(Table table, ByteView key, std::string_view what) {
    std::optional<Record> found;
    if (key.empty() || key.size() > 511) return found;  // LMDB's own bounds: no such name was ever put
    auto look = [&](Lmdb::Transaction& txn) -> Status {
      auto value = TRY(txn.get(table, key));
      if (!value) return {};
      found = decode<Record>(*value);
      return found && fits(key, *found) ? Status{} : damaged(what);
    };
    TRY(lmdb_->read(look));
    return found;
  }
  template <class Record>
  Result<std::vector<Record>> all(Table table, std::string_view what) {
    std::vector<Record> found;
    TRY(lmdb_->read([&](Lmdb::Transaction& txn) {
      found.clear();
      return txn.for_each(table, [&](ByteView key, ByteView value) -> Status {
        auto record = decode<Record>(value);
        if (!record || !fits(key, *record)) return damaged(what);
        found.push_back(std::move(*record));
        return {};
      });
    }));
    return found;
  }
  Status damaged(std::string_view what) {
    return fail(Code::kCorrupt,
                fmt::format("{}: expected a {}, found bytes that are none", lmdb_->path(), what));
  }

  static Status put_copied(Lmdb::Transaction& txn, const SnapshotCopy& copy) {
    for (const MarkRecord& mark : copy.marks)
      TRY(txn.put(kMarks, as_bytes(mark_key(mark.branch, mark.name)), encode(mark)));
    return txn.put(kSnapshots, number_key(copy.record.id), encode(copy.record));
  }

  std::unique_ptr<Lmdb> lmdb_;
  std::unique_ptr<SnapshotFiles> copies_;  // may be null; used inside transactions
};

class MemoryCatalogue final : public Catalogue {
 public:
  using Catalogue::add_snapshot;
  Result<uint64_t> add_snapshot(SnapshotRecord record, const std::vector<MarkRecord>& marks,
                                std::optional<uint64_t> sweeps) override {
    TRY(check(record));
    for (const MarkRecord& mark : marks) TRY(check(mark));
    std::lock_guard lock(mutex_);
    if (sweeps && *sweeps != sweeps_) return std::unexpected(swept("catalogue").error());
    for (const MarkRecord& mark : marks) marks_[mark_key(mark.branch, mark.name)] = mark;
    record.id = ++last_snapshot_;
    snapshots_[record.id] = record;
    return record.id;
  }
  Result<std::vector<SnapshotRecord>> snapshots() override { return values(snapshots_); }
  Result<uint64_t> last_snapshot() override {
    std::lock_guard lock(mutex_);
    return last_snapshot_;
  }
  Status remove_snapshot(uint64_t id) override {
    std::lock_guard lock(mutex_);
    auto it = snapshots_.find(id);
    if (it == snapshots_.end()) return fail(Code::kNotFound, fmt::format("no snapshot {}", id));
    removed_bytes_ += it->second.stored_bytes;
    snapshots_.erase(it);
    return {};
  }
  Status replace_snapshot(const SnapshotRecord& record) override {
    TRY(check(record));
    std::lock_guard lock(mutex_);
    auto it = snapshots_.find(record.id);
    if (it == snapshots_.end()) return fail(Code::kNotFound, fmt::format("no snapshot {}", record.id));
    it->second = record;
    return {};
  }
  using Catalogue::put_mark;
  Status put_mark(const MarkRecord& mark, LogIndex durable) override {
    TRY(check(mark));
    std::lock_guard lock(mutex_);
    marks_[mark_key(mark.branch, mark.name)] = mark;
    raise_locked(mark.branch, durable);
    return {};
  }
  Status remove_mark(std::string_view branch, std::string_view name) override {
    std::lock_guard lock(mutex_);
    if (marks_.erase(mark_key(branch, name)) == 0)
      return fail(Code::kNotFound, fmt::format("no mark {} of branch {}", name, branch));
    return {};
  }
  Result<std::optional<MarkRecord>> mark(std::string_view branch, std::string_view name) override {
    return one(marks_, mark_key(branch, name));
  }
  Result<std::vector<MarkRecord>> marks() override { return values(marks_); }
  Status put_branch(const BranchRecord& branch) override {
    TRY(check(branch));
    std::lock_guard lock(mutex_);
    branches_[branch.name] = branch;
    return {};
  }
  Status raise_durable_hint(std::string_view branch, LogIndex durable) override {
    std::string name(branch);
    TRY(check(BranchRecord{.name = name, .durable_hint = durable}));
    std::lock_guard lock(mutex_);
    raise_locked(name, durable);
    return {};
  }
  Status update_branch(std::string_view name, const std::function<void(BranchRecord&)>& change) override {
    std::lock_guard lock(mutex_);
    auto known = branches_.find(std::string(name));
    BranchRecord record = known == branches_.end() ? BranchRecord{.name = std::string(name)} : known->second;
    BranchRecord before = record;
    change(record);
    if (record == before) return {};
    TRY(check(record));
    branches_[record.name] = record;
    return {};
  }
  Status remove_branch(std::string_view name) override {
    std::lock_guard lock(mutex_);
    branches_.erase(std::string(name));
    return {};
  }
  Result<std::optional<BranchRecord>> branch(std::string_view name) override {
    return one(branches_, std::string(name));
  }
  Result<std::vector<BranchRecord>> branches() override { return values(branches_); }
  Result<std::optional<BlobPlace>> blob(BlobId id) override { return one(blobs_, id); }
  using Catalogue::put_blobs;
  Status put_blobs(const BlobPlaces& places, std::optional<uint64_t> sweeps) override {
    std::lock_guard lock(mutex_);
    if (sweeps && *sweeps != sweeps_) return swept("catalogue");
    for (const auto& [id, place] : places) blobs_[id] = place;
    return {};
  }
  Status for_each_blob(const std::function<void(BlobId, const BlobPlace&)>& visit) override {
    std::lock_guard lock(mutex_);
    for (const auto& [id, place] : blobs_) visit(id, place);
    return {};
  }
  Result<uint64_t> sweeps() override {
    std::lock_guard lock(mutex_);
    return sweeps_;
  }
  Result<uint64_t> removed_bytes() override {
    std::lock_guard lock(mutex_);
    return removed_bytes_;
  }
  Result<uint64_t> sweep(const std::vector<uint64_t>& snapshots,
                         const std::function<bool(BlobId)>& needed) override {
    std::lock_guard lock(mutex_);
    auto same = [](const auto& record, uint64_t id) { return record.first == id; };
    if (!std::equal(snapshots_.begin(), snapshots_.end(), snapshots.begin(), snapshots.end(), same))
      return fail(Code::kBusy, "catalogue: snapshots were added or removed meanwhile");
    uint64_t gone = std::erase_if(blobs_, [&](const auto& blob) { return !needed(blob.first); });
    if (gone > 0) ++sweeps_;
    removed_bytes_ = 0;
    return gone;
  }
  Status fill(const Content& content) override {
    std::lock_guard lock(mutex_);
    for (const SnapshotRecord& record : content.snapshots) {
      snapshots_[record.id] = record;
      last_snapshot_ = std::max(last_snapshot_, record.id);
    }
    for (const MarkRecord& mark : content.marks) marks_[mark_key(mark.branch, mark.name)] = mark;
    for (const BranchRecord& branch : content.branches) branches_[branch.name] = branch;
    return {};
  }
  Status move_blobs(const std::vector<BlobMove>& moves) override {
    std::lock_guard lock(mutex_);
    for (const BlobMove& move : moves) {
      auto it = blobs_.find(move.id);
      if (it != blobs_.end() && it->second == move.from) it->second = move.to;
    }
    return {};
  }

 private:
  void raise_locked(const std::string& name, LogIndex durable) {
    if (durable == 0) return;
    BranchRecord& branch = branches_.try_emplace(name, BranchRecord{.name = name}).first->second;
    branch.durable_hint = std::max(branch.durable_hint, durable);
  }
  template <class Map>
  std::vector<typename Map::mapped_type> values(const Map& map) {
    std::lock_guard lock(mutex_);
    std::vector<typename Map::mapped_type> out;
    out.reserve(map.size());
    for (const auto& [key, value] : map) out.push_back(value);
    return out;
  }
  template <class Map>
  std::optional<typename Map::mapped_type> one(const Map& map, const typename Map::key_type& key) {
    std::lock_guard lock(mutex_);
    auto it = map.find(key);
    if (it == map.end()) return std::nullopt;
    return it->second;
  }

  std::mutex mutex_;
  uint64_t last_snapshot_ = 0, sweeps_ = 0, removed_bytes_ = 0;
  std::map<uint64_t, SnapshotRecord> snapshots_;
  std::map<std::string, MarkRecord> marks_;
  std::map<std::string, BranchRecord> branches_;
  std::map<BlobId, BlobPlace> blobs_;
};

}  // namespace

Result<std::unique_ptr<Catalogue>> open_catalogue(const std::string& path, Access access, size_t map_bytes,
                                                  std::unique_ptr<SnapshotFiles> copies) {
  auto lmdb = TRY(Lmdb::open(path, access, kTables, map_bytes));
  if (lmdb == nullptr) return catalogue_in_memory();  // what a crash left of a store that was being made
  auto catalogue = std::make_unique<LmdbCatalogue>(std::move(lmdb), std::move(copies));
  TRY(catalogue->check_version(access));
  TRY(catalogue->take_in_copies());
  return catalogue;
}

Result<std::unique_ptr<Catalogue>> open_catalogue(const std::string& path, Access access, size_t map_bytes) {
  return open_catalogue(path, access, map_bytes, nullptr);
}

std::unique_ptr<Catalogue> catalogue_in_memory() {
  return std::make_unique<MemoryCatalogue>();
}

}  // namespace reprise::store

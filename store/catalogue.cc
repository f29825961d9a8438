#include "store/catalogue.h"

#include <fmt/format.h>

#include <array>
#include <map>
#include <mutex>

#include "store/lmdb.h"
#include "store/records.h"

namespace reprise::store {
namespace {

constexpr uint32_t kCatalogueVersion = 0;
enum Table : size_t { kMeta, kSnapshots, kMarks, kBranches, kBlobs };
const std::vector<const char*> kTables = {"meta", "snapshots", "marks", "branches", "blobs"};

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
  explicit LmdbCatalogue(std::unique_ptr<Lmdb> lmdb) : lmdb_(std::move(lmdb)) {}

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

  using Catalogue::add_snapshot;
  Result<uint64_t> add_snapshot(SnapshotRecord record, const std::vector<MarkRecord>& marks) override {
    TRY(check(record));
    for (const MarkRecord& mark : marks) TRY(check(mark));
    auto add = [&](Lmdb::Transaction& txn) -> Status {
      auto last = TRY(txn.get(kMeta, as_bytes("last snapshot")));
      if (last && last->size() != 8) return damaged("number of the last snapshot");
      record.id = (last ? load_value<uint64_t>(last->data()) : 0) + 1;
      Bytes number;
      append_value(number, record.id);
      TRY(txn.put(kMeta, as_bytes("last snapshot"), number));
      for (const MarkRecord& mark : marks)
        TRY(txn.put(kMarks, as_bytes(mark_key(mark.branch, mark.name)), encode(mark)));
      return txn.put(kSnapshots, number_key(record.id), encode(record));
    };
    TRY(lmdb_->write(add));
    return record.id;
  }
  Result<std::vector<SnapshotRecord>> snapshots() override {
    return all<SnapshotRecord>(kSnapshots, "snapshot");
  }
  Status remove_snapshot(uint64_t id) override {
    return lmdb_->write([&](Lmdb::Transaction& txn) -> Status {
      if (TRY(txn.remove(kSnapshots, number_key(id)))) return {};
      return fail(Code::kNotFound, fmt::format("{}: no snapshot {}", lmdb_->path(), id));
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
  Result<std::optional<BranchRecord>> branch(std::string_view name) override {
    return one<BranchRecord>(kBranches, as_bytes(name), "branch");
  }
  Result<std::vector<BranchRecord>> branches() override { return all<BranchRecord>(kBranches, "branch"); }

  Result<std::optional<BlobPlace>> blob(BlobId id) override {
    return one<BlobPlace>(kBlobs, blob_key(id), "blob's place");
  }
  Status put_blobs(const std::vector<std::pair<BlobId, BlobPlace>>& places) override {
    if (places.empty()) return {};
    return lmdb_->write([&](Lmdb::Transaction& txn) -> Status {
      for (const auto& [id, place] : places) TRY(txn.put(kBlobs, blob_key(id), encode(place)));
      return {};
    });
  }

 private:
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
  template <class Record>
  Result<std::optional<Record>> one(Table table, ByteView key, std::string_view what) {
    std::optional<Record> found;
    if (key.empty() || key.size() > 511) return found;  // LMDB's own bounds: no such name was ever put
    auto look = [&](Lmdb::Transaction& txn) -> Status {
      auto value = TRY(txn.get(table, key));
      if (!value) return {};
      found = decode<Record>(*value);
      return found ? Status{} : damaged(what);
    };
    TRY(lmdb_->read(look));
    return found;
  }
  template <class Record>
  Result<std::vector<Record>> all(Table table, std::string_view what) {
    std::vector<Record> found;
    TRY(lmdb_->read([&](Lmdb::Transaction& txn) {
      found.clear();
      return txn.for_each(table, [&](ByteView, ByteView value) -> Status {
        auto record = decode<Record>(value);
        if (!record) return damaged(what);
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

  std::unique_ptr<Lmdb> lmdb_;
};

class MemoryCatalogue final : public Catalogue {
 public:
  using Catalogue::add_snapshot;
  Result<uint64_t> add_snapshot(SnapshotRecord record, const std::vector<MarkRecord>& marks) override {
    TRY(check(record));
    for (const MarkRecord& mark : marks) TRY(check(mark));
    std::lock_guard lock(mutex_);
    for (const MarkRecord& mark : marks) marks_[mark_key(mark.branch, mark.name)] = mark;
    record.id = ++last_snapshot_;
    snapshots_[record.id] = record;
    return record.id;
  }
  Result<std::vector<SnapshotRecord>> snapshots() override { return values(snapshots_); }
  Status remove_snapshot(uint64_t id) override {
    std::lock_guard lock(mutex_);
    if (snapshots_.erase(id) == 0) return fail(Code::kNotFound, fmt::format("no snapshot {}", id));
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
  Result<std::optional<BranchRecord>> branch(std::string_view name) override {
    return one(branches_, std::string(name));
  }
  Result<std::vector<BranchRecord>> branches() override { return values(branches_); }
  Result<std::optional<BlobPlace>> blob(BlobId id) override { return one(blobs_, id); }
  Status put_blobs(const std::vector<std::pair<BlobId, BlobPlace>>& places) override {
    std::lock_guard lock(mutex_);
    for (const auto& [id, place] : places) blobs_[id] = place;
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
  uint64_t last_snapshot_ = 0;
  std::map<uint64_t, SnapshotRecord> snapshots_;
  std::map<std::string, MarkRecord> marks_;
  std::map<std::string, BranchRecord> branches_;
  std::map<BlobId, BlobPlace> blobs_;
};

}  // namespace

Result<std::unique_ptr<Catalogue>> open_catalogue(const std::string& path, Access access, size_t map_bytes) {
  auto lmdb = TRY(Lmdb::open(path, access, kTables, map_bytes));
  if (lmdb == nullptr) return catalogue_in_memory();  // what a crash left of a store that was being made
  auto catalogue = std::make_unique<LmdbCatalogue>(std::move(lmdb));
  TRY(catalogue->check_version(access));
  return catalogue;
}

std::unique_ptr<Catalogue> catalogue_in_memory() {
  return std::make_unique<MemoryCatalogue>();
}

}  // namespace reprise::store

#include "store/repair.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <set>
#include <unordered_map>

#include "base/file_lock.h"
#include "base/hash.h"
#include "store/file_repair.h"
#include "store/lmdb_check.h"
#include "store/pack.h"
#include "store/snapshot_files.h"

namespace reprise::store {
namespace {

constexpr std::string_view kCatalogueFile = "catalogue.lmdb", kNewCatalogueFile = "catalogue.lmdb.new";
constexpr std::string_view kUnfinishedCopy = "catalogue.lmdb.copy";
constexpr std::string_view kCopies = "snapshots/";
constexpr size_t kMapBytes = size_t{64} << 20;

// The valid blobs of one pack, whatever lies between them.
class PackScan {
 public:
  PackScan(const Directory& packs, const File& file, uint32_t number, uint64_t bytes)
      : packs_(packs), file_(file), number_(number), end_(bytes) {}

  Status run(const std::function<void(BlobId, const BlobPlace&)>& found) {
    for (uint64_t at = kPackHeaderBytes; at + kBlobHeaderBytes <= end_;) {
      auto place = TRY(blob_at(at));
      if (place) {
        found(id_, *place);
        at += kBlobHeaderBytes + place->stored_bytes;
        continue;
      }
      auto next = TRY(next_magic(at + 1));
      if (!next) return {};
      at = *next;
    }
    return {};
  }

 private:
  // nullopt if there is none that is whole. Its id is in id_ then.
  Result<std::optional<BlobPlace>> blob_at(uint64_t at) {
    Bytes frame(kBlobHeaderBytes);
    if (TRY(file_.pread(frame, at)) != frame.size()) return std::nullopt;
    auto header = decode_blob_header(frame);
    if (!header || header->stored_bytes > end_ - at - kBlobHeaderBytes) return std::nullopt;
    BlobPlace place{number_, at, header->stored_bytes, header->refers_to_none};
    frame.resize(kBlobHeaderBytes + header->stored_bytes);
    if (TRY(file_.pread(frame, at)) != frame.size()) return std::nullopt;
    if (!unpack_blob(packs_, header->id, place, frame, hash128)) return std::nullopt;
    id_ = header->id;
    return place;
  }

  // Where the mark of a blob's header is next.
  Result<std::optional<uint64_t>> next_magic(uint64_t from) {
    std::array<std::byte, sizeof kBlobMagic> magic;
    store_value(magic.data(), kBlobMagic);
    Bytes window(size_t{1} << 20);
    for (uint64_t at = from; at + magic.size() <= end_; at += window.size() - magic.size() + 1) {
      at = std::max(at, TRY(file_.next_data(at)));
      size_t n = TRY(file_.pread(window, at));
      auto end = window.begin() + static_cast<ptrdiff_t>(n);
      auto hit = std::search(window.begin(), end, magic.begin(), magic.end());
      if (hit != end) return at + static_cast<uint64_t>(hit - window.begin());
      if (n < window.size()) break;
    }
    return std::nullopt;
  }

  const Directory& packs_;
  const File& file_;
  const uint32_t number_;
  const uint64_t end_;
  BlobId id_;
};

class Repair final : public StoreRepair {
 public:
  Repair(std::string path, VolumeId volume, DirectoryLock alone, std::unique_ptr<Directory> store,
         std::unique_ptr<Directory> packs)
      : path_(std::move(path)),
        volume_(volume),
        alone_(std::move(alone)),
        store_(std::move(store)),
        packs_(std::move(packs)) {}

  Status look() {
    Catalogue::BlobPlaces known;
    TRY(read_old(known));
    TRY(scan_packs());
    no_packs_ = TRY(list_no_packs(*packs_));
    for (const NoPack& other : no_packs_) damage_.push_back(other.why);
    for (const auto& [id, place] : known) {
      auto it = valid_.find(id);
      bool here = it != valid_.end() && std::ranges::find(it->second, place) != it->second.end();
      if (here) continue;
      auto bad = damaged_blob(*packs_, id, place, it == valid_.end() ? "damaged bytes" : "it elsewhere");
      damage_.push_back(bad.error());
      set_aside_.insert(place.pack);
    }
    if (needed()) TRY(make_new());
    return {};
  }

  bool needed() const override { return catalogue_problem_ || !damage_.empty(); }
  const std::optional<Error>& catalogue_problem() const override { return catalogue_problem_; }
  const std::vector<Error>& damage() const override { return damage_; }
  Catalogue& catalogue() override { return *catalogue_; }
  BlobSource& blobs() override { return *blobs_; }

  Result<std::vector<std::string>> finish(const std::vector<uint64_t>& snapshots,
                                          const std::function<bool(BlobId)>& needed) override {
    std::vector<uint64_t> kept;
    for (const SnapshotRecord& record : TRY(catalogue_->snapshots())) {
      if (std::ranges::find(snapshots, record.id) != snapshots.end()) {
        kept.push_back(record.id);
        if (catalogue_problem_) TRY(note_known_to_be_durable(record));
      } else {
        TRY(catalogue_->remove_snapshot(record.id));
      }
    }
    CollectOptions options{.repairs = true, .set_aside = {set_aside_.begin(), set_aside_.end()}};
    auto copied = TRY(collect_packs(*packs_, volume_, *catalogue_, kept, needed, options));
    if (copied.left) return std::unexpected(*copied.left);
    std::vector<std::string> aside;
    aside.reserve(copied.set_aside.size());
    for (const NoPack& other : no_packs_) TRY(put_aside(*packs_, "packs/", other.name, aside));
    TRY(packs_->sync());
    for (const std::string& name : copied.set_aside) aside.push_back("packs/" + name);
    blobs_.reset();
    catalogue_.reset();  // closed, so that the file can take its place
    if (catalogue_problem_) {
      TRY(store_->open(kMarksWanted, OpenMode::kCreateOrOpen));
      TRY(store_->sync());
    }
    TRY(put_in_place(aside));
    TRY(keep_copies(kept, aside));
    return aside;
  }

 private:
  // A journal that ends before a snapshot is what an interrupted overwrite leaves, and the next opening
  // removes it. Where nobody knows any more whether it went on, it is refused, and set aside by a repair of
  // its branch. A fork on which nothing was done has none.
  Status note_known_to_be_durable(const SnapshotRecord& snapshot) {
    const std::string journal = fmt::format("branches/{}/journal", snapshot.branch);
    if (!TRY(store_->exists(journal)) || TRY(TRY(store_->open_directory(journal))->list()).empty()) return {};
    return catalogue_->update_branch(snapshot.branch, [&](BranchRecord& branch) {
      branch.durable_hint = std::max(branch.durable_hint, snapshot.log_index);
    });
  }
  // What is left of the old catalogue; else why it is of no use, and the copies instead.
  Status read_old(Catalogue::BlobPlaces& known) {
    auto opened = open_old();
    if (!opened) {
      Code code = opened.error().code();
      // Another version is no damage.
      if (code != Code::kCorrupt && code != Code::kNotFound) return std::unexpected(opened.error());
      catalogue_problem_ = opened.error();
    } else if (Status read = read_records(**opened, known); !read) {
      if (read.error().code() != Code::kCorrupt) return read;
      catalogue_problem_ = read.error();
    }
    if (!catalogue_problem_) return check_copies(**opened);
    known.clear();
    content_ = {};
    if (!TRY(store_->exists("snapshots"))) return {};
    SnapshotFiles files(TRY(store_->open_directory("snapshots")));
    for (SnapshotCopy& copy : TRY(files.all(damage_))) add_copy(std::move(copy));
    for (const std::string& branch : TRY(TRY(store_->open_directory("branches"))->list()))
      if (Store::check_name("branch", branch)) content_.branches.push_back({.name = branch});
    return {};
  }
  void add_copy(SnapshotCopy copy) {
    content_.snapshots.push_back(std::move(copy.record));
    for (MarkRecord& mark : copy.marks) content_.marks.push_back(std::move(mark));
  }
  Status check_copies(Catalogue& old) {
    TRY(store_->make_directory("snapshots"));
    SnapshotFiles files(TRY(store_->open_directory("snapshots")));
    for (Error& wrong : TRY(files.check(content_.snapshots))) damage_.push_back(std::move(wrong));
    for (SnapshotCopy& copy : TRY(files.behind(TRY(old.last_snapshot()), damage_))) {
      damage_.emplace_back(Code::kCorrupt,
                           fmt::format("{}: expected snapshot {} in the catalogue, too, found none",
                                       files.path_of(copy.record.id), copy.record.id));
      add_copy(std::move(copy));
    }
    return {};
  }
  Result<std::unique_ptr<Catalogue>> open_old() {
    std::string path = path_ + "/" + std::string(kCatalogueFile);
    bool there = TRY(store_->exists(kCatalogueFile));
    if (!there || TRY(TRY(store_->open(kCatalogueFile, OpenMode::kRead))->size()) == 0)
      return fail(Code::kNotFound, fmt::format("{}: expected a catalogue, found none", path));
    return open_catalogue(path, Access::kRead);
  }
  Status read_records(Catalogue& old, Catalogue::BlobPlaces& known) {
    content_.snapshots = TRY(old.snapshots());
    content_.marks = TRY(old.marks());
    content_.branches = TRY(old.branches());
    return old.for_each_blob([&](BlobId id, const BlobPlace& place) { known.emplace_back(id, place); });
  }

  Status scan_packs() {
    for (const PackFile& pack : TRY(list_packs(*packs_))) {
      auto file = TRY(packs_->open(pack_name(pack.number), OpenMode::kRead));
      PackScan scan(*packs_, *file, pack.number, pack.bytes);
      TRY(scan.run([&](BlobId id, const BlobPlace& place) { valid_[id].push_back(place); }));
    }
    return {};
  }

  Status make_new() {
    for (std::string_view name : {kNewCatalogueFile, std::string_view("catalogue.lmdb.new-lock")})
      if (TRY(store_->exists(name))) TRY(store_->unlink(name));  // of a repair that was interrupted
    catalogue_ = TRY(open_catalogue(path_ + "/" + std::string(kNewCatalogueFile), Access::kWrite, kMapBytes));
    TRY(catalogue_->fill(content_));
    Catalogue::BlobPlaces places;
    // A place in a pack that stays, if there is one.
    auto stays = [&](const BlobPlace& place) { return !set_aside_.contains(place.pack); };
    for (const auto& [id, found] : valid_) {
      auto best = std::ranges::find_if(found, stays);
      places.emplace_back(id, best != found.end() ? *best : found.front());
    }
    TRY(catalogue_->put_blobs(places));
    blobs_ = open_packs(TRY(store_->open_directory("packs")), volume_, *catalogue_);
    return {};
  }

  // At any moment there is the old one or the new one.
  Status put_in_place(std::vector<std::string>& aside) {
    if (TRY(store_->exists(kCatalogueFile))) {
      std::string kept = TRY(free_name(*store_, kCatalogueFile));
      TRY(keep_old(kept));
      aside.push_back(kept);
    }
    for (const char* lock : {"catalogue.lmdb-lock", "catalogue.lmdb.new-lock"})
      if (TRY(store_->exists(lock))) TRY(store_->unlink(lock));
    TRY(store_->rename(kNewCatalogueFile, kCatalogueFile));
    return store_->sync();
  }

  Status keep_old(const std::string& kept) {
    auto old = store_->open(kCatalogueFile, OpenMode::kRead);
    if (!old && old.error().code() == Code::kCorrupt) return store_->rename(kCatalogueFile, kept);  // no file
    if (!old) return std::unexpected(old.error());
    auto copy = TRY(store_->open(kUnfinishedCopy, OpenMode::kCreateOrOpen));
    TRY(copy->resize(0));
    TRY(copy_sparsely(**old, 0, *copy));
    return store_->rename(kUnfinishedCopy, kept);
  }

  // A copy of each snapshot in the catalogue, and no other under such a name.
  Status keep_copies(const std::vector<uint64_t>& kept, std::vector<std::string>& aside) {
    TRY(store_->make_directory("snapshots"));
    auto directory = TRY(store_->open_directory("snapshots"));
    SnapshotFiles files(TRY(store_->open_directory("snapshots")));
    for (const SnapshotRecord& record : content_.snapshots) {
      if (std::ranges::find(kept, record.id) == kept.end()) continue;
      if (auto damaged = TRY(files.damaged_file(record.id)))
        TRY(put_aside(*directory, kCopies, *damaged, aside));
      TRY(files.replace_record(record));
    }
    for (const std::string& name : TRY(files.names_of_others(kept)))
      TRY(put_aside(*directory, kCopies, name, aside));
    return directory->sync();
  }

  static Status put_aside(Directory& directory, std::string_view below, const std::string& name,
                          std::vector<std::string>& aside) {
    std::string to = TRY(free_name(directory, name));
    TRY(directory.rename(name, to));
    aside.push_back(std::string(below) + to);
    return {};
  }

  const std::string path_;
  const VolumeId volume_;
  const DirectoryLock alone_;
  const std::unique_ptr<Directory> store_, packs_;
  std::optional<Error> catalogue_problem_;
  std::vector<Error> damage_;
  Catalogue::Content content_;
  std::unordered_map<BlobId, std::vector<BlobPlace>> valid_;
  std::set<uint32_t> set_aside_;
  std::vector<NoPack> no_packs_;
  std::unique_ptr<Catalogue> catalogue_;
  std::unique_ptr<BlobStore> blobs_;  // after the catalogue, which it uses
};

}  // namespace

Result<std::unique_ptr<StoreRepair>> StoreRepair::begin(const std::string& path) {
  VolumeId volume = TRY(Store::identify(path));
  auto alone = TRY(DirectoryLock::own(path));
  auto store = TRY(open_host_directory(path));
  TRY(store->make_directory("packs"));
  TRY(store->make_directory("branches"));
  auto packs = TRY(store->open_directory("packs"));
  auto repair = std::make_unique<Repair>(path, volume, std::move(alone), std::move(store), std::move(packs));
  TRY(repair->look());
  return repair;
}

}  // namespace reprise::store

#include "tests/sim/machine_disk.h"

#include <set>
#include <utility>

#include "base/hash.h"
#include "store/host_source.h"
#include "store/pack.h"

namespace reprise::sim {
namespace {

using store::BlobMove;
using store::BlobPlace;
using store::BranchRecord;
using store::MarkRecord;
using store::SnapshotRecord;

// Of a program that has died nothing more is taken, and on a full disk only a few changes.
class MortalCatalogue final : public store::Catalogue {
 public:
  MortalCatalogue(store::Catalogue& on, std::shared_ptr<test::Lifeline> program,
                  std::optional<uint64_t>& room)
      : on_(on), program_(std::move(program)), room_(room) {}

  Result<uint64_t> add_snapshot(SnapshotRecord record, const std::vector<MarkRecord>& marks,
                                std::optional<uint64_t> sweeps) override {
    TRY(takes());
    return on_.add_snapshot(std::move(record), marks, sweeps);
  }
  Result<std::vector<SnapshotRecord>> snapshots() override { return on_.snapshots(); }
  Status remove_snapshot(uint64_t id) override {
    TRY(takes());
    return on_.remove_snapshot(id);
  }
  Status replace_snapshot(const SnapshotRecord& record) override {
    TRY(takes());
    return on_.replace_snapshot(record);
  }
  Status put_mark(const MarkRecord& mark, LogIndex durable) override {
    TRY(takes());
    return on_.put_mark(mark, durable);
  }
  Status remove_mark(std::string_view branch, std::string_view name) override {
    TRY(takes());
    return on_.remove_mark(branch, name);
  }
  Result<std::optional<MarkRecord>> mark(std::string_view branch, std::string_view name) override {
    return on_.mark(branch, name);
  }
  Result<std::vector<MarkRecord>> marks() override { return on_.marks(); }
  Status put_branch(const BranchRecord& branch) override {
    TRY(takes());
    return on_.put_branch(branch);
  }
  Status update_branch(std::string_view name, const std::function<void(BranchRecord&)>& change) override {
    TRY(takes());
    return on_.update_branch(name, change);
  }
  Status raise_durable_hint(std::string_view branch, LogIndex durable) override {
    TRY(takes());
    return on_.raise_durable_hint(branch, durable);
  }
  Status remove_branch(std::string_view name) override {
    TRY(takes());
    return on_.remove_branch(name);
  }
  Result<std::optional<BranchRecord>> branch(std::string_view name) override { return on_.branch(name); }
  Result<std::vector<BranchRecord>> branches() override { return on_.branches(); }
  Result<std::optional<BlobPlace>> blob(BlobId id) override { return on_.blob(id); }
  Status put_blobs(const BlobPlaces& places, std::optional<uint64_t> sweeps) override {
    TRY(takes());
    return on_.put_blobs(places, sweeps);
  }
  Status for_each_blob(const std::function<void(BlobId, const BlobPlace&)>& visit) override {
    return on_.for_each_blob(visit);
  }
  Result<uint64_t> sweeps() override { return on_.sweeps(); }
  Result<uint64_t> sweep(const std::vector<uint64_t>& snapshots,
                         const std::function<bool(BlobId)>& needed) override {
    TRY(takes());
    return on_.sweep(snapshots, needed);
  }
  Status move_blobs(const std::vector<BlobMove>& moves) override {
    TRY(takes());
    return on_.move_blobs(moves);
  }
  Result<uint64_t> last_snapshot() override { return on_.last_snapshot(); }
  Result<uint64_t> removed_bytes() override { return on_.removed_bytes(); }
  Status fill(const Content& content) override {
    TRY(takes());
    return on_.fill(content);
  }

 private:
  Status takes() {
    if (!program_->change()) return fail(Code::kIo, "the program is dead");
    if (room_ && *room_ == 0) return fail(Code::kNoSpace, "the catalogue: no space left");
    if (room_) --*room_;
    return {};
  }
  store::Catalogue& on_;
  std::shared_ptr<test::Lifeline> program_;
  std::optional<uint64_t>& room_;
};

Result<std::unique_ptr<FileLock>> own_freely(const std::string&) {
  return std::unique_ptr<FileLock>();
}

}  // namespace

// The store as one program has it open: packs, catalogue and locks are the program's, the bytes the
// machine's.
class SimulatedStore final : public store::Store {
 public:
  explicit SimulatedStore(MachineDisk& machine)
      : machine_(machine), catalogue_(*machine.catalogue_, machine.program_, machine.catalogue_room_) {
    store::PackOptions options{.pack_bytes = 64 << 10, .buffer_bytes = 4 << 10, .own = own_freely};
    blobs_ = store::open_packs(std::make_unique<test::CrashDirectory>(machine.folder("packs").disk),
                               machine.volume_, catalogue_, options);
  }

  VolumeId volume() const override { return machine_.volume_; }
  const std::string& path() const override { return path_; }
  store::Catalogue& catalogue() override { return catalogue_; }
  store::BlobStore& blobs() override { return *blobs_; }
  Result<std::optional<store::BaseDirectory>> base_directory() override { return std::nullopt; }
  Status set_base_directory(const store::BaseDirectory&) override {
    return fail(Code::kUnsupported, "a simulated store rests on no directory");
  }
  Result<std::shared_ptr<store::HostSource>> source() override {
    return std::shared_ptr<store::HostSource>();
  }

  Result<std::unique_ptr<Directory>> branch_directory(std::string_view branch) override {
    return open("branches/" + std::string(branch));
  }
  Result<std::unique_ptr<Directory>> journal_directory(std::string_view branch) override {
    TRY(branch_directory(branch));
    return open("branches/" + std::string(branch) + "/journal");
  }
  Result<std::vector<std::string>> branch_names() override {
    constexpr std::string_view kFolder = "branches/";
    std::vector<std::string> names;
    for (const auto& [name, folder] : machine_.folders_) {
      if (!name.starts_with(kFolder) || name.ends_with("/journal")) continue;
      names.push_back(name.substr(kFolder.size()));
    }
    return names;
  }
  Status clear_branch_directory(std::string_view branch) override {
    auto directory = TRY(branch_directory(branch));
    for (const std::string& name : TRY(directory->list())) TRY(directory->unlink(name));
    machine_.folders_.erase("branches/" + std::string(branch) + "/journal");
    return directory->sync();
  }
  Status remove_branch_directory(std::string_view branch) override {
    TRY(alive());
    std::string name = "branches/" + std::string(branch);
    machine_.folders_.erase(name + "/journal");
    machine_.folders_.erase(name);
    return {};
  }
  Result<std::unique_ptr<store::BranchLock>> lock_branch(std::string_view branch,
                                                         const store::LockHolder&) override {
    if (!held_->insert(std::string(branch)).second)
      return fail(Code::kBusy, "branch " + std::string(branch) + " is in use");
    return std::make_unique<Lock>(held_, std::string(branch));
  }
  Result<store::StoreFindings> check_files() override { return store::StoreFindings{}; }
  Result<store::StoreUsage> usage() override { return store::StoreUsage{}; }
  Result<std::optional<store::LockHolder>> lock_holder(std::string_view branch) override {
    if (held_->contains(std::string(branch))) return store::LockHolder{1, "a simulated program"};
    return std::nullopt;
  }
  std::string control_socket_path(std::string_view) const override { return ""; }

 private:
  using Held = std::set<std::string>;
  struct Lock final : store::BranchLock {
    Lock(std::shared_ptr<Held> in, std::string name) : held(std::move(in)), branch(std::move(name)) {}
    ~Lock() override { held->erase(branch); }
    std::shared_ptr<Held> held;
    std::string branch;
  };
  Status alive() const {
    if (machine_.program_->change()) return {};
    return fail(Code::kIo, "the program is dead");
  }
  Result<std::unique_ptr<Directory>> open(const std::string& name) {
    if (!machine_.folders_.contains(name)) TRY(alive());
    return std::make_unique<test::CrashDirectory>(machine_.folder(name).disk);
  }

  MachineDisk& machine_;
  const std::string path_ = "store";
  MortalCatalogue catalogue_;
  std::unique_ptr<store::BlobStore> blobs_;
  std::shared_ptr<Held> held_ = std::make_shared<Held>();
};

MachineDisk::MachineDisk(VolumeId volume) : volume_(volume) {}

std::shared_ptr<store::Store> MachineDisk::open_store() {
  return std::make_shared<SimulatedStore>(*this);
}

MachineDisk::Folder& MachineDisk::folder(const std::string& name, const test::Files& files) {
  Folder& folder = folders_[name];
  if (folder.disk == nullptr) {
    folder.disk = std::make_shared<test::CrashDisk>(files);
    folder.disk->belong_to(program_);
    folder.disk->set_space(space_left_);
    folder.platters = std::make_unique<test::Platters>(files);
  }
  return folder;
}

void MachineDisk::follow() {
  for (auto& [name, folder] : folders_) {
    for (const test::DiskEvent& event : folder.disk->take_trace()) {
      folder.platters->advance(event);
      uint64_t parts[] = {changes_, static_cast<uint64_t>(event.kind), event.inode, event.offset,
                          hash64(event.bytes)};
      changes_ = hash64(std::as_bytes(std::span(parts)));
    }
  }
}

void MachineDisk::after_kill() {
  follow();
  program_->live_on();
}

void MachineDisk::after_power_loss(std::mt19937_64& random) {
  follow();
  uint64_t mood = random() % 4;  // all is lost, all is kept, or each change for itself
  auto fate = [&](size_t) {
    uint64_t kind = mood == 0 ? 1 : mood == 1 ? 0 : random() % 3;
    return test::Fate{.kind = static_cast<test::Fate::Kind>(kind), .sectors = random()};
  };
  for (auto& [name, folder] : folders_) {
    test::Files left = folder.platters->survivors(fate);
    folder = {};
    this->folder(name, left);
  }
  program_->live_on();
}

void MachineDisk::fill_up(uint64_t left) {
  space_left_ = left;
  catalogue_room_ = left % 12;
  for (auto& [name, folder] : folders_) folder.disk->set_space(left);
}

void MachineDisk::fill_up_journals(uint64_t catalogue_changes) {
  catalogue_room_ = catalogue_changes;
  for (auto& [name, folder] : folders_)
    if (name.ends_with("/journal")) folder.disk->set_space(0);
}

void MachineDisk::fail_next_write(int sys_errno) {
  for (auto& [name, folder] : folders_)
    if (name.ends_with("/journal") || name == "packs") folder.disk->fail_write(0, sys_errno);
}

void MachineDisk::fail_next_sync(int sys_errno) {
  for (auto& [name, folder] : folders_)
    if (name.ends_with("/journal") || name == "packs") folder.disk->fail_sync(0, sys_errno);
}

void MachineDisk::heal() {
  space_left_ = test::CrashDisk::kPlenty;
  catalogue_room_.reset();
  for (auto& [name, folder] : folders_) folder.disk->heal();
}

}  // namespace reprise::sim

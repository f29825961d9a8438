#include "store/store.h"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <map>
#include <mutex>
#include <optional>
#include <thread>

#include "base/check.h"
#include "base/file_lock.h"
#include "store/host_source.h"
#include "store/identity.h"
#include "store/pack.h"
#include "store/snapshot_files.h"

namespace reprise::store {
namespace {

constexpr const char* kCatalogueFile = "catalogue.lmdb";
constexpr size_t kMapBytes = size_t{64} << 20;  // of the catalogue, to begin with

std::string encode_holder(const LockHolder& holder) {
  return fmt::format("{}\n{}", holder.pid, holder.command);
}

// Content that is no holder's (one that is being written) gives pid 0.
LockHolder decode_holder(std::string_view text) {
  LockHolder holder;
  auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), holder.pid);
  if (error != std::errc{}) return {};
  auto used = static_cast<size_t>(end - text.data());
  if (used < text.size()) holder.command = text.substr(used + 1);
  return holder;
}

std::unexpected<Error> busy(std::string_view where, const LockHolder& holder) {
  return fail(Code::kBusy,
              fmt::format("{}: expected no live instance, found one: {}", where, holder.describe()));
}

Result<VolumeId> read_identity(const std::string& path, Directory& store) {
  auto bytes = store.read_file(kIdentityFile, kIdentityLimit);
  auto volume = bytes ? decode_identity(*bytes, path + "/" + kIdentityFile) : std::unexpected(bytes.error());
  if (volume || volume.error().code() != Code::kCorrupt) return volume;
  return fail(Code::kCorrupt,
              fmt::format("{}; `reprise repair {}` makes it anew, as segments and packs name the "
                          "volume, too",
                          volume.error().message(), path));
}

Error with_advice(const Error& error, const std::string& path) {
  if (error.code() != Code::kCorrupt) return error;
  return Error(error.code(),
               fmt::format("{}; `reprise repair {}` makes the catalogue anew from the packs and "
                           "journals",
                           error.message(), path));
}

// A store that is being made has no catalogue yet; one that has blobs or a history has lost it.
Status check_not_lost(const std::string& path, Directory& store) {
  if (TRY(store.exists(kCatalogueFile)) && TRY(TRY(store.open(kCatalogueFile, OpenMode::kRead))->size()) > 0)
    return {};
  for (const char* folder : {"packs", "branches"}) {
    if (!TRY(store.exists(folder)) || TRY(TRY(store.open_directory(folder))->list()).empty()) continue;
    return std::unexpected(
        with_advice(Error(Code::kCorrupt, fmt::format("{}/{}: expected the catalogue of a store that has {}, "
                                                      "found none",
                                                      path, kCatalogueFile, folder)),
                    path));
  }
  return {};
}

Status remove_with_all_below(Directory& directory, std::string_view name) {
  auto removed = directory.unlink(name);
  if (removed || removed.error().sys_errno() == ENOENT) return {};
  if (removed.error().sys_errno() != ENOTEMPTY) return removed;
  auto below = TRY(directory.open_directory(name));
  for (const std::string& entry : TRY(below->list())) TRY(remove_with_all_below(*below, entry));
  return directory.unlink(name);
}

class DiskStore final : public Store {
 public:
  static Result<std::unique_ptr<Store>> open(const std::string& path, std::unique_ptr<Directory> directory,
                                             Access access) {
    std::optional<DirectoryLock> in_use;
    if (access == Access::kWrite) in_use.emplace(TRY(DirectoryLock::share(path)));
    VolumeId volume = TRY(read_identity(path, *directory));
    if (access == Access::kWrite) {
      TRY(directory->make_directory("packs"));
      TRY(directory->make_directory("branches"));
      TRY(directory->make_directory("snapshots"));
    }
    TRY(check_not_lost(path, *directory));
    std::unique_ptr<SnapshotFiles> copies;
    if (access == Access::kWrite)
      copies = std::make_unique<SnapshotFiles>(TRY(directory->open_directory("snapshots")));
    auto catalogue = open_catalogue(path + "/" + kCatalogueFile, access, kMapBytes, std::move(copies));
    if (!catalogue) return std::unexpected(with_advice(catalogue.error(), path));
    std::unique_ptr<BlobStore> blobs;
    if (TRY(directory->exists("packs"))) {
      blobs = open_packs(TRY(directory->open_directory("packs")), volume, **catalogue);
    } else {
      blobs = blobs_in_memory();  // opened to read, what a crash left of a store that was being made
    }
    std::unique_ptr<DiskStore> store(
        new DiskStore(path, volume, access, std::move(directory), std::move(*catalogue), std::move(blobs)));
    if (in_use) store->in_use_.emplace(std::move(*in_use));
    return store;
  }

  VolumeId volume() const override { return volume_; }
  const std::string& path() const override { return path_; }
  Catalogue& catalogue() override { return *catalogue_; }
  BlobStore& blobs() override { return *blobs_; }

  Result<std::optional<BaseDirectory>> base_directory() override { return read_base(*directory_); }
  Status set_base_directory(const BaseDirectory& base) override { return write_base(*directory_, base); }
  Result<std::shared_ptr<HostSource>> source() override {
    std::lock_guard lock(source_mutex_);
    if (source_ != nullptr) return source_;
    auto base = TRY(base_directory());
    if (base) source_ = std::make_shared<HostSource>(base->path);
    return source_;
  }

  Result<std::unique_ptr<Directory>> branch_directory(std::string_view branch) override {
    return directory_in_branch(branch, "");
  }
  Result<std::unique_ptr<Directory>> journal_directory(std::string_view branch) override {
    return directory_in_branch(branch, "/journal");
  }
  Result<std::vector<std::string>> branch_names() override {
    auto exists = directory_->exists("branches");
    if (!TRY(std::move(exists))) return std::vector<std::string>{};
    std::vector<std::string> names = TRY(TRY(directory_->open_directory("branches"))->list());
    std::erase_if(names, [](const std::string& name) { return !check_name("branch", name); });
    return names;
  }
  Status clear_branch_directory(std::string_view branch) override {
    auto folder = TRY(branch_directory(branch));
    for (const std::string& name : TRY(folder->list()))
      if (name != "lock") TRY(remove_with_all_below(*folder, name));
    return folder->sync();
  }
  Status remove_branch_directory(std::string_view branch) override {
    TRY(check_name("branch", branch));
    auto branches = TRY(directory_->open_directory("branches"));
    TRY(remove_with_all_below(*branches, branch));
    return branches->sync();
  }
  Result<std::unique_ptr<BranchLock>> lock_branch(std::string_view branch,
                                                  const LockHolder& holder) override {
    TRY(branch_directory(branch));
    std::string path = lock_path(branch);
    auto lock = FileLock::acquire(path, encode_holder(holder));
    if (lock) return std::make_unique<Lock>(std::move(*lock));
    if (lock.error().code() != Code::kBusy) return std::unexpected(lock.error());
    return busy(path, TRY(lock_holder(branch)).value_or(LockHolder{}));
  }
  Result<std::optional<LockHolder>> lock_holder(std::string_view branch) override {
    TRY(check_name("branch", branch));
    auto content = TRY(FileLock::holder(lock_path(branch)));
    if (!content) return std::nullopt;
    return decode_holder(*content);
  }
  std::string control_socket_path(std::string_view branch) const override {
    return fmt::format("{}/branches/{}/control", path_, branch);
  }
  Result<StoreFindings> check_files() override {
    StoreFindings found;
    auto base = base_directory();
    if (!base && base.error().code() != Code::kCorrupt) return std::unexpected(base.error());
    if (!base) found.damage.push_back(base.error());
    if (TRY(directory_->exists("packs")))
      for (NoPack& other : TRY(list_no_packs(*TRY(directory_->open_directory("packs")))))
        found.damage.push_back(std::move(other.why));
    auto records = TRY(catalogue_->snapshots());
    auto directory = directory_->open_directory("snapshots");
    const bool missing = !directory && directory.error().code() == Code::kNotFound;
    if (missing && records.empty()) return found;
    if (missing) {
      found.damage.push_back(directory.error());
      return found;
    }
    SnapshotFiles files(TRY(std::move(directory)));
    for (Error& wrong : TRY(files.check(records))) found.damage.push_back(std::move(wrong));
    for (const SnapshotCopy& copy : TRY(files.behind(TRY(catalogue_->last_snapshot()), found.damage)))
      found.not_taken_in.push_back(fmt::format("{}: snapshot {} ({}@{})", files.path_of(copy.record.id),
                                               copy.record.id, copy.record.branch, copy.record.log_index));
    return found;
  }
  Result<StoreUsage> usage() override {
    StoreUsage usage;
    usage.packs = TRY(blobs_->bytes_on_disk());
    usage.catalogue = TRY(bytes_of(*directory_, kCatalogueFile));
    if (!TRY(directory_->exists("branches"))) return usage;
    auto branches = TRY(directory_->open_directory("branches"));
    for (const std::string& branch : TRY(branches->list())) {
      if (!TRY(branches->exists(branch + "/journal"))) continue;
      auto journal = TRY(branches->open_directory(branch + "/journal"));
      for (const std::string& segment : TRY(journal->list()))
        usage.journals += TRY(bytes_of(*journal, segment));
    }
    return usage;
  }

 private:
  // 0 of one that has gone meanwhile.
  static Result<uint64_t> bytes_of(Directory& directory, std::string_view name) {
    auto file = directory.open(name, OpenMode::kRead);
    if (!file && file.error().code() == Code::kNotFound) return 0;
    if (!file) return std::unexpected(file.error());
    return (*file)->size();
  }

  struct Lock final : BranchLock {
    explicit Lock(std::unique_ptr<FileLock> lock) : file(std::move(lock)) {}
    std::unique_ptr<FileLock> file;
  };

  DiskStore(const std::string& path, VolumeId volume, Access access, std::unique_ptr<Directory> directory,
            std::unique_ptr<Catalogue> catalogue, std::unique_ptr<BlobStore> blobs)
      : path_(path),
        volume_(volume),
        access_(access),
        directory_(std::move(directory)),
        catalogue_(std::move(catalogue)),
        blobs_(std::move(blobs)) {}

  std::string lock_path(std::string_view branch) const {
    return fmt::format("{}/branches/{}/lock", path_, branch);
  }

  Result<std::unique_ptr<Directory>> directory_in_branch(std::string_view branch, std::string_view below) {
    TRY(check_name("branch", branch));
    std::string name = fmt::format("branches/{}{}", branch, below);
    if (access_ == Access::kWrite) TRY(directory_->make_directory(name));
    auto directory = directory_->open_directory(name);
    if (directory || directory.error().code() != Code::kNotFound) return directory;
    return fail(Code::kNotFound,
                fmt::format("{}/{}: expected what branch {} has recorded, found no such folder: nothing was "
                            "recorded there yet, or it is lost",
                            path_, name, branch));
  }

  const std::string path_;
  const VolumeId volume_;
  const Access access_;
  std::unique_ptr<Directory> directory_;
  std::unique_ptr<Catalogue> catalogue_;
  std::unique_ptr<BlobStore> blobs_;  // after the catalogue, which it uses
  std::optional<DirectoryLock> in_use_;
  std::mutex source_mutex_;
  std::shared_ptr<HostSource> source_;  // once it has been asked for
};

class MemoryStore final : public Store {
 public:
  explicit MemoryStore(VolumeId volume) : volume_(volume) {}

  VolumeId volume() const override { return volume_; }
  const std::string& path() const override { return path_; }
  Catalogue& catalogue() override { return *catalogue_; }
  BlobStore& blobs() override { return *blobs_; }
  Result<std::optional<BaseDirectory>> base_directory() override { return std::nullopt; }
  Status set_base_directory(const BaseDirectory&) override {
    return fail(Code::kUnsupported, "a store in memory rests on no directory");
  }
  Result<std::shared_ptr<HostSource>> source() override { return std::shared_ptr<HostSource>(); }
  Result<std::unique_ptr<Directory>> branch_directory(std::string_view branch) override {
    TRY(check_name("branch", branch));
    return nullptr;
  }
  Result<std::unique_ptr<Directory>> journal_directory(std::string_view branch) override {
    return branch_directory(branch);
  }
  std::shared_ptr<const KeptBranch> kept_branch(std::string_view branch) override {
    std::lock_guard lock(kept_mutex_);
    auto it = kept_.find(branch);
    return it == kept_.end() ? nullptr : it->second;
  }
  void keep_branch(std::string_view branch, std::shared_ptr<const KeptBranch> kept) override {
    std::lock_guard lock(kept_mutex_);
    kept_[std::string(branch)].swap(kept);  // what was there may be large: it goes after the lock has
  }
  Result<std::vector<std::string>> branch_names() override {
    std::lock_guard lock(kept_mutex_);
    std::vector<std::string> names;
    for (const auto& [name, kept] : kept_) names.push_back(name);
    return names;
  }
  Status clear_branch_directory(std::string_view branch) override {
    keep_branch(branch, nullptr);
    return {};
  }
  Status remove_branch_directory(std::string_view branch) override {
    std::shared_ptr<const KeptBranch> kept;  // goes after the lock has
    std::lock_guard lock(kept_mutex_);
    if (auto it = kept_.find(branch); it != kept_.end()) kept.swap(it->second), kept_.erase(it);
    return {};
  }
  Result<std::unique_ptr<BranchLock>> lock_branch(std::string_view branch,
                                                  const LockHolder& holder) override {
    TRY(check_name("branch", branch));
    std::lock_guard lock(holders_->mutex);
    auto [it, is_new] = holders_->by_branch.try_emplace(std::string(branch), holder);
    if (!is_new) return busy(fmt::format("branch {}", branch), it->second);
    auto held = std::make_unique<Lock>(holders_, std::string(branch));
    std::lock_guard kept_lock(kept_mutex_);
    kept_.try_emplace(std::string(branch));  // as a folder is made on a disk
    return held;
  }
  Result<std::optional<LockHolder>> lock_holder(std::string_view branch) override {
    TRY(check_name("branch", branch));
    std::lock_guard lock(holders_->mutex);
    auto it = holders_->by_branch.find(std::string(branch));
    if (it == holders_->by_branch.end()) return std::nullopt;
    return it->second;
  }
  std::string control_socket_path(std::string_view) const override { return ""; }
  Result<StoreFindings> check_files() override { return StoreFindings{}; }
  Result<StoreUsage> usage() override { return StoreUsage{}; }

 private:
  struct Holders {
    std::mutex mutex;
    std::map<std::string, LockHolder> by_branch;
  };
  struct Lock final : BranchLock {
    Lock(std::shared_ptr<Holders> in, std::string name) : holders(std::move(in)), branch(std::move(name)) {}
    ~Lock() override {
      std::lock_guard lock(holders->mutex);
      holders->by_branch.erase(branch);
    }
    std::shared_ptr<Holders> holders;
    std::string branch;
  };

  const VolumeId volume_;
  const std::string path_;
  std::unique_ptr<Catalogue> catalogue_ = catalogue_in_memory();
  std::unique_ptr<BlobStore> blobs_ = blobs_in_memory();
  std::shared_ptr<Holders> holders_ = std::make_shared<Holders>();
  std::mutex kept_mutex_;
  std::map<std::string, std::shared_ptr<const KeptBranch>, std::less<>> kept_;
};

}  // namespace

std::string LockHolder::describe() const {
  constexpr size_t kShown = 200;
  std::string_view shown = command.empty() ? "starting" : std::string_view(command).substr(0, kShown);
  return fmt::format("process {} ({}{})", pid, printable(shown), shown.size() < command.size() ? " …" : "");
}

namespace {

Result<std::unique_ptr<Directory>> open_folder(const std::string& path) {
  auto directory = open_host_directory(path);
  if (!directory) {
    int code = directory.error().sys_errno();
    if (code == ENOENT) return fail(Code::kNotFound, path + ": expected a store, found nothing there");
    if (code == ENOTDIR)
      return fail(Code::kNotFound, path + ": expected a store (a directory), found a file");
    return std::unexpected(directory.error());
  }
  if (!TRY((*directory)->exists(kIdentityFile))) {
    bool empty = TRY((*directory)->list()).empty();
    return fail(Code::kNotFound,
                fmt::format("{}: expected a store, found {}", path,
                            empty ? "an empty directory" : "a directory without a file reprise.store"));
  }
  return directory;
}

}  // namespace

Result<std::unique_ptr<Store>> Store::open(const std::string& path, Access access) {
  return DiskStore::open(path, TRY(open_folder(path)), access);
}

Result<VolumeId> Store::identify(const std::string& path) {
  auto directory = TRY(open_folder(path));
  return read_identity(path, *directory);
}

Status Store::check_new(const std::string& path) {
  auto occupied = [&](std::string_view found) {
    return fail(Code::kAlreadyExists,
                fmt::format("{}: expected a new path or an empty directory, found {}", path, found));
  };
  auto directory = open_host_directory(path);
  if (!directory) {
    int code = directory.error().sys_errno();
    if (code == ENOENT) return {};
    if (code == ENOTDIR) return occupied("a file");
    return std::unexpected(directory.error());
  }
  if (TRY((*directory)->exists(kIdentityFile))) return occupied("a store");
  for (const std::string& name : TRY((*directory)->list())) {
    // .new: a creation that was interrupted. mnt: where the instance will be mounted, made before the volume
    // was known.
    if (name != std::string(kIdentityFile) + ".new" && name != "mnt") return occupied("other files");
  }
  return {};
}

namespace {

Result<DirectoryLock> own_to_create(const std::string& path) {
  for (;;) {
    auto alone = DirectoryLock::own(path);
    if (alone || alone.error().code() != Code::kBusy) return alone;
    // Somebody else makes a store here, or has made it and uses it.
    TRY(Store::check_new(path));
    std::this_thread::yield();
  }
}

}  // namespace

Result<std::unique_ptr<Store>> Store::create(const std::string& path, VolumeId volume) {
  TRY(check_new(path));
  auto directory = TRY(open_host_directory(path, true));
  {
    auto alone = TRY(own_to_create(path));
    TRY(check_new(path));
    // The identity is the first thing there is: whatever else is missing is made when the store is opened.
    TRY(directory->replace_file(kIdentityFile, encode_identity(volume)));
  }
  auto store = TRY(DiskStore::open(path, std::move(directory), Access::kWrite));
  auto parent = TRY(open_host_directory(path + "/.."));
  TRY(parent->sync());
  return store;
}

Status Store::remove_unused(const std::string& path) {
  auto alone = TRY(DirectoryLock::own(path));
  auto directory = TRY(open_host_directory(path));
  // Without its identity it is no store any more, whatever is left of it.
  TRY(directory->unlink(kIdentityFile));
  for (const char* name :
       {"catalogue.lmdb", "catalogue.lmdb-lock", "packs", "branches", "snapshots", kBaseFile}) {
    TRY(remove_with_all_below(*directory, name));
  }
  return {};
}

bool Store::looks_like_store(const std::string& path) {
  auto directory = open_host_directory(path);
  if (!directory) return false;
  return (*directory)->exists(kIdentityFile).value_or(false);
}

std::unique_ptr<Store> Store::in_memory(VolumeId volume) {
  return std::make_unique<MemoryStore>(volume);
}

std::shared_ptr<const KeptBranch> Store::kept_branch(std::string_view) {
  return nullptr;
}
void Store::keep_branch(std::string_view, std::shared_ptr<const KeptBranch>) {
  CHECK(!"what is on disk has folders");
}

Status Store::check_name(std::string_view what, std::string_view name) {
  auto letter = [](char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_'; };
  auto inner = [&](char c) { return letter(c) || (c >= '0' && c <= '9') || c == '.' || c == '-'; };
  bool good = !name.empty() && name.size() <= 64 && letter(name[0]) && std::ranges::all_of(name, inner) &&
              name != "head";
  if (good) return {};
  return fail(
      Code::kInvalidArgument,
      fmt::format(
          "expected a {} name of letters, digits, '_', '.' and '-', beginning with a letter or '_', at "
          "most 64 bytes and not \"head\", found \"{}\"",
          what, printable(name)));
}

}  // namespace reprise::store

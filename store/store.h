// Store: a directory on disk that holds the history of one volume: journal, blobs, catalogue.
//
//   STORE/reprise.store              identity: magic, version, volume id, checksum
//   STORE/catalogue.lmdb             LMDB
//   STORE/packs/00000001.pack …      blobs
//   STORE/branches/NAME/lock         held by the one live instance of the branch; names its holder
//   STORE/branches/NAME/control      socket of the live instance
//   STORE/branches/NAME/journal/     segments
//   STORE/base                       of a store that rests on a directory: which
//
// A store in memory has the same interface and no directory. Threads: any, unless said otherwise.
#pragma once

#include <atomic>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/disk.h"
#include "base/error.h"
#include "base/ids.h"
#include "store/base_directory.h"
#include "store/blob.h"
#include "store/catalogue.h"
#include "store/collect.h"

namespace reprise::store {

class HostSource;

// Blobs in packs: append-only files of zstd frames, indexed by the catalogue.
//
// What a snapshot needs is put between begin() and the snapshot's record in the catalogue, by one at a time
// (capture_mutex). A sweep in between, by whichever process, makes sync() or the record kBusy; then abandon()
// and begin again: what the sweep took is put once more.
class BlobStore : public BlobSink, public BlobSource {
 public:
  // Taken by who puts, from before begin() on.
  virtual std::mutex& capture_mutex() = 0;
  // Taken by who collects. Who captures and who collects may make each other begin again, and so each takes
  // the other's as well where that happens too often; capture_mutex first.
  virtual std::mutex& collect_mutex() = 0;
  // What is put from now on rests on what is there now: the number of sweeps to give to add_snapshot.
  virtual Result<uint64_t> begin() = 0;
  // Everything put so far is on the disk and in the index when it returns; kBusy after a sweep, see above.
  virtual Status sync() = 0;
  // What was put and not synced is given up, and its space on the disk with it.
  virtual void abandon() = 0;
  // Closes what was opened to be read: packs that are collected meanwhile then take no space any more.
  virtual void close_readers() = 0;
  // Drops the blobs that `needed` says no to: see collect_packs. kUnsupported in memory.
  virtual Result<Collected> collect(const std::vector<uint64_t>& snapshots,
                                    const std::function<bool(BlobId)>& needed, double dead_share) = 0;
  // Packs are about so large at most from now on, so that copying one takes little room. In memory: nothing.
  virtual void bound_packs(uint64_t bytes) = 0;
  // Bytes of all packs.
  virtual Result<uint64_t> bytes_on_disk() = 0;
  // Bytes that puts have added to the packs since this object was made.
  virtual uint64_t stored_bytes() const = 0;
};

// Held while an instance of the branch is live.
class BranchLock {
 public:
  virtual ~BranchLock() = default;
};

// What a branch of a store in memory has instead of a folder; whoever is above says what that is.
class KeptBranch {
 public:
  virtual ~KeptBranch() = default;
};

struct LockHolder {
  int pid = 0;
  std::string command;           // for a person: "reprise run --store site -- php -S …"
  std::string describe() const;  // "process 12 (reprise run …)", one line that is not too long
};

// Bytes on the disk.
struct StoreUsage {
  uint64_t journals = 0, packs = 0, catalogue = 0;
  uint64_t all() const { return journals + packs + catalogue; }
};

// What is wrong in a store's folders, besides what its records and blobs say.
struct StoreFindings {
  // The copies of snapshots' records, which the catalogue is made anew from if it is lost; and what lies
  // under the name of a pack and is no file.
  std::vector<Error> damage;
  // Copies of snapshots that the catalogue does not know yet, and takes in when it is opened to write.
  std::vector<std::string> not_taken_in;
};

class Store {
 public:
  // kNotFound if there is no store at path, whether nothing is there or something else, with what was
  // expected and found; kUnsupported for another version; kCorrupt. To read, it need not be writable.
  static Result<std::unique_ptr<Store>> open(const std::string& path, Access access = Access::kWrite);
  // In a path that does not exist or is an empty directory; otherwise kAlreadyExists. Of several that try at
  // once, in whatever processes, one succeeds.
  static Result<std::unique_ptr<Store>> create(const std::string& path, VolumeId volume);
  // Could create() be called with it? An interrupted creation, and an empty folder `mnt`, do not count.
  // Otherwise kAlreadyExists says what was found.
  static Status check_new(const std::string& path);
  // Takes a store away, with all that it holds, but not its folder: one that was made for nothing, or is to
  // be forgotten. kBusy while anybody has it open for writing.
  static Status remove_unused(const std::string& path);
  // The volume of a store, from its identity alone; errors as open's.
  static Result<VolumeId> identify(const std::string& path);
  // Is there a store at path (of whatever version, damaged or not)?
  static bool looks_like_store(const std::string& path);
  static std::unique_ptr<Store> in_memory(VolumeId volume);
  virtual ~Store() = default;

  virtual VolumeId volume() const = 0;
  virtual const std::string& path() const = 0;  // "" in memory
  virtual Catalogue& catalogue() = 0;
  virtual BlobStore& blobs() = 0;

  // The directory that it rests on; nullopt if it has all bytes itself, as every other store.
  virtual Result<std::optional<BaseDirectory>> base_directory() = 0;
  virtual Status set_base_directory(const BaseDirectory& base) = 0;
  // What its trees read there, the same for all who have this object; null if it rests on nothing.
  virtual Result<std::shared_ptr<HostSource>> source() = 0;

  // [A-Za-z_][A-Za-z0-9_.-]*, at most 64 bytes, not "head": what a branch or a mark may be called.
  static Status check_name(std::string_view what, std::string_view name);

  // The branch's folder, made if missing; of a store opened to read kNotFound. Null in memory.
  virtual Result<std::unique_ptr<Directory>> branch_directory(std::string_view branch) = 0;
  virtual Result<std::unique_ptr<Directory>> journal_directory(std::string_view branch) = 0;
  // What was kept under the name in memory, null if nothing was; null on disk.
  virtual std::shared_ptr<const KeptBranch> kept_branch(std::string_view branch);
  // In memory only (CHECK), by who holds the branch's lock. clear_ and remove_branch_directory end it.
  virtual void keep_branch(std::string_view branch, std::shared_ptr<const KeptBranch> kept);
  // Of those that have a folder, or are kept in memory, sorted.
  virtual Result<std::vector<std::string>> branch_names() = 0;
  // Takes away what is in the branch's folder, but for the lock, which the caller holds; or the folder as
  // well.
  virtual Status clear_branch_directory(std::string_view branch) = 0;
  virtual Status remove_branch_directory(std::string_view branch) = 0;
  // kBusy names the holder.
  virtual Result<std::unique_ptr<BranchLock>> lock_branch(std::string_view branch,
                                                          const LockHolder& holder) = 0;
  virtual Result<StoreFindings> check_files() = 0;
  // What its files take, all branches together; zeros in memory.
  virtual Result<StoreUsage> usage() = 0;
  // Who holds it now; nullopt if nobody.
  virtual Result<std::optional<LockHolder>> lock_holder(std::string_view branch) = 0;
  virtual std::string control_socket_path(std::string_view branch) const = 0;

  // True for the first who asks: what a crash has left in the packs is found by reading all of the catalogue,
  // which each instance that is opened on this object, a fork of a moment among them, need not do again.
  bool first_to_look_for_leftovers() { return !looked_for_leftovers_.exchange(true); }

 private:
  std::atomic<bool> looked_for_leftovers_{false};
};

}  // namespace reprise::store

// Catalogue: the small facts of a store, in LMDB: snapshots, marks, branches, and where each blob lies.
//
// Opened to read (store/lmdb.h, Access), nothing is written; what would write is kReadOnly.
// Trusted and local, but every record is checked when it is read. Opened once per process; several processes
// may have it open at once, and see each other's commits. No read transaction is held across a call. Threads:
// any. Strings are bounded: a branch or mark is named as Store::check_name says, a label has at most
// kCatalogueTextLimit bytes.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/bytes.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/ids.h"

namespace reprise::store {

enum class Access {
  kRead,   // nothing of the store is changed; what would change it is kReadOnly
  kWrite,  // makes what is missing
};

inline constexpr size_t kCatalogueTextLimit = 4096;      // bytes in a label
inline constexpr size_t kCatalogueTokenLimit = 2 << 20;  // bytes in a token: a vector and a digest, printable
inline constexpr size_t kCatalogueVectorLimit = 1 << 20;  // bytes in an encoded vector

struct SnapshotRecord {
  uint64_t id = 0;  // counted up from 1 in this store
  std::string branch;
  std::string label;        // "" if none
  bool checkpoint = false;  // made by a clean close or to bound reopening; replaced by the next one
  Timestamp time;
  BlobId root;             // of the tree (snapshot/)
  LogIndex log_index = 0;  // state after this batch of its branch
  Bytes vector;            // journal::Vector::encode
  Digest128 digest;        // state digest
  uint64_t lamport = 0;
  uint64_t inodes = 0, bytes = 0;  // of the tree
  uint64_t stored_bytes = 0;       // added to the packs for it, compressed

  bool operator==(const SnapshotRecord&) const = default;
};

struct MarkRecord {
  std::string name;
  std::string branch;
  LogIndex log_index = 0;
  std::string token;  // journal::Position::to_token
  Timestamp time;

  bool operator==(const MarkRecord&) const = default;
};

struct BlobPlace {
  uint32_t pack = 0;
  uint64_t offset = 0;
  uint32_t stored_bytes = 0;    // after the blob's header
  bool refers_to_none = false;  // to no other blob

  bool operator==(const BlobPlace&) const = default;
};

inline constexpr size_t kBranchWritersMax = 64;  // the newest are kept
// A blob whose bytes now lie elsewhere, too.
struct BlobMove {
  BlobId id;
  BlobPlace from, to;
};

// Of one branch.
struct BranchRecord {
  std::string name;
  LogIndex durable_hint = 0;  // the journal was on the disk at least up to here
  // Trimming has taken at most what lies before this batch: a journal that begins later has lost something.
  // 0: nothing is known, in a store of an earlier version.
  LogIndex journal_begins = 1;
  // Origins minted for the branch whose writer was not seen to close, oldest first: peers may have more of
  // their streams than the journal.
  std::vector<OriginId> writers;

  bool operator==(const BranchRecord&) const = default;
};

class Catalogue {
 public:
  virtual ~Catalogue() = default;
  // Returns the id given to it. `marks` are put with it, all or none; durable on return.
  // With `sweeps` kBusy if there have been more than those: blobs that the snapshot needs may have gone.
  virtual Result<uint64_t> add_snapshot(SnapshotRecord record, const std::vector<MarkRecord>& marks,
                                        std::optional<uint64_t> sweeps) = 0;
  Result<uint64_t> add_snapshot(SnapshotRecord record, const std::vector<MarkRecord>& marks = {}) {
    return add_snapshot(std::move(record), marks, std::nullopt);
  }
  virtual Result<std::vector<SnapshotRecord>> snapshots() = 0;        // by id
  virtual Result<uint64_t> last_snapshot() = 0;                       // the last id that was given
  virtual Status remove_snapshot(uint64_t id) = 0;                    // kNotFound
  virtual Status replace_snapshot(const SnapshotRecord& record) = 0;  // of that id; kNotFound
  // Replaces one of that name and branch. With it the branch's durable hint rises to `durable`, if it is
  // less.
  virtual Status put_mark(const MarkRecord& mark, LogIndex durable) = 0;
  Status put_mark(const MarkRecord& mark) { return put_mark(mark, 0); }
  virtual Status remove_mark(std::string_view branch, std::string_view name) = 0;  // kNotFound
  virtual Result<std::optional<MarkRecord>> mark(std::string_view branch, std::string_view name) = 0;
  virtual Result<std::vector<MarkRecord>> marks() = 0;
  virtual Status put_branch(const BranchRecord& branch) = 0;
  // Lets `change` have the branch's record as it is, or a new one, and puts what it makes of it, if that is
  // another; one transaction. The name stays.
  virtual Status update_branch(std::string_view name, const std::function<void(BranchRecord&)>& change) = 0;
  // Makes the branch's durable hint `durable`, if it is less.
  virtual Status raise_durable_hint(std::string_view branch, LogIndex durable) = 0;
  virtual Status remove_branch(std::string_view name) = 0;  // if there is one
  virtual Result<std::optional<BranchRecord>> branch(std::string_view name) = 0;
  virtual Result<std::vector<BranchRecord>> branches() = 0;

  // --- blobs. If one is in the catalogue, so are all that it refers to.
  virtual Result<std::optional<BlobPlace>> blob(BlobId id) = 0;
  using BlobPlaces = std::vector<std::pair<BlobId, BlobPlace>>;
  // One transaction. With `sweeps` kBusy if there have been more than those.
  virtual Status put_blobs(const BlobPlaces& places, std::optional<uint64_t> sweeps) = 0;
  Status put_blobs(const BlobPlaces& places) { return put_blobs(places, std::nullopt); }
  // As they are at one moment. The catalogue is not to be used by `visit`.
  virtual Status for_each_blob(const std::function<void(BlobId, const BlobPlace&)>& visit) = 0;
  // How often blobs have been taken out.
  virtual Result<uint64_t> sweeps() = 0;
  // Takes out all blobs that `needed` says no to, in one transaction; how many. kBusy if the snapshots there
  // are, are not those of these ids: then `needed` may not know what another one needs. Counts as a sweep if
  // any go.
  virtual Result<uint64_t> sweep(const std::vector<uint64_t>& snapshots,
                                 const std::function<bool(BlobId)>& needed) = 0;
  // Those that still lie where they were; one transaction.
  virtual Status move_blobs(const std::vector<BlobMove>& moves) = 0;
  // What the snapshots that were removed since the last sweep had added to the packs.
  virtual Result<uint64_t> removed_bytes() = 0;

  // Of an empty one: what another had, numbers and all.
  struct Content {
    std::vector<SnapshotRecord> snapshots;
    std::vector<MarkRecord> marks;
    std::vector<BranchRecord> branches;
  };
  virtual Status fill(const Content& content) = 0;
};

class SnapshotFiles;

// The catalogue in the file `path`. If it is missing it is begun, or, opened to read, found empty. kBusy if
// this process has it open already; kCorrupt if it cannot be one. The map is grown from map_bytes as needed.
// Of each snapshot a copy goes to `copies`, if there are any (null: none).
Result<std::unique_ptr<Catalogue>> open_catalogue(const std::string& path, Access access = Access::kWrite,
                                                  size_t map_bytes = size_t{64} << 20);
Result<std::unique_ptr<Catalogue>> open_catalogue(const std::string& path, Access access, size_t map_bytes,
                                                  std::unique_ptr<SnapshotFiles> copies);
std::unique_ptr<Catalogue> catalogue_in_memory();

}  // namespace reprise::store

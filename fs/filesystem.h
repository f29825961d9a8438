// Filesystem: the POSIX-shaped facade of one instance, by inode. The one way in for guests.
//
// A call checks and resolves what a guest asks for, turns it into Operations, applies them through
// Head::apply and hands them to the OperationSink. Failed calls never reach the sink. Every adapter (FUSE,
// the Guest of fs/guest.h) sits on this class; the replayer changes the tree through replay().
//
// Threads: every function may be called from any thread. Lock order: mutex_ (one writer or many readers),
// then pins_ shards, then whatever the sink takes. No lock is held when a call returns. Of a tree that was
// opened lazily (fs/lazy_node.h) a call loads what it touches under the lock that it holds: readers go on
// meanwhile, a writer waits.
//
// Permissions: a Caller with credentials gets the full check; a trusted one (FUSE with default_permissions,
// where the kernel has checked) none. What goes through an open descriptor (read, write, allocate,
// copy_range) was checked when it was opened and is not checked again.
//
// What handles do: a handle is an InodeId and a pin. After an overwrite it follows its id in the new tree; if
// the id is gone, calls answer ESTALE.
#pragma once

#include <array>
#include <atomic>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <shared_mutex>
#include <span>
#include <string>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "base/clock.h"
#include "fs/locks.h"
#include "fs/reservations.h"
#include "fs/sourced_file.h"
#include "fs/tree.h"
#include "fs/tree_lock.h"

namespace reprise::fs {

// Who calls.
struct Caller {
  uint32_t uid = 0, gid = 0;
  std::span<const uint32_t> groups;  // supplementary
  bool trusted = true;               // skip permission checks
  std::string_view label;            // recorded with the operations; valid during the call
  uint32_t umask = 0;                // permission bits that what it makes does not get
};

// Where successful operations go, in order. record and end_call are called with the filesystem's write lock
// held, the others without it; none may call back into it.
class OperationSink {
 public:
  virtual ~OperationSink() = default;
  // Before anything is applied: may a call that will record about this many bytes go ahead? EROFS, ENOSPC,
  // EIO if not. May wait (back-pressure).
  virtual Outcome<void> reserve(size_t bytes) = 0;
  // After it was applied. A Write carries at most kRecordedWriteMax bytes.
  virtual void record(const Operation& operation, std::string_view label) = 0;
  // The facade call is over: a batch may close here. Follows every call that recorded something. EIO, ENOSPC
  // or EROFS if what was recorded is lost: the call answers that.
  virtual Outcome<void> end_call() = 0;
  // After end_call: waits as long as the call must not return, for a disk that has been promised. Likewise.
  virtual Outcome<void> commit() { return {}; }
};

// Where new inode ids come from (an origin's claimed prefixes). Called with the write lock held.
class InodeIdSource {
 public:
  virtual ~InodeIdSource() = default;
  virtual InodeId next() = 0;
};
// Ids counted up from 2 under prefix 0: for trees that are never shared (tests, offline replay of recorded
// ids).
std::unique_ptr<InodeIdSource> local_inode_ids();

struct SetAttributesRequest {
  enum class TimeChange : uint8_t { kOmit, kNow, kSet };
  std::optional<uint32_t> mode;  // permission bits
  std::optional<uint32_t> uid, gid;
  std::optional<uint64_t> size;
  bool changes_owner = false;       // chown: set-user-id and set-group-id go, even if it keeps both ids
  bool opened_for_writing = false;  // ftruncate: a descriptor vouches for the right to set the size
  TimeChange atime_change = TimeChange::kOmit, mtime_change = TimeChange::kOmit;
  Timestamp atime, mtime;
};

struct StatFs {
  uint64_t blocks_total, blocks_free;  // of kBlockSize
  uint64_t inodes_total, inodes_free;
};

enum class RenameMode { kReplace, kNoReplace, kExchange };
enum class XattrMode { kAny, kCreate, kReplace, kBoth };  // the flags of setxattr(2); both never succeed
// Whether a call that finds or makes an inode also pins it for the caller, before anyone can remove it.
enum class Hold : bool { kNo, kPin };

// Bytes in one recorded Write; a longer one is recorded in parts, in one call.
inline constexpr size_t kRecordedWriteMax = 1 << 20;
// Bytes that one call changes at most (one batch must hold them); a longer write is short, as write(2) may
// be.
inline constexpr size_t kCallDataMax = 32 << 20;

class Filesystem {
 public:
  // clock and ids must outlive it; sink may be null (nothing is recorded) and be set later.
  Filesystem(Head head, Clock& clock, InodeIdSource& ids, OperationSink* sink = nullptr);

  // Calls under way may still use the sink there was.
  void set_sink(OperationSink* sink);
  // While set, every changing call answers EROFS: a follower, or an instance whose disk failed. A call that
  // already holds the lock finishes; the sink may call this.
  void set_read_only(bool read_only);
  bool read_only() const { return read_only_.load(std::memory_order_relaxed); }

  // --- names. `name` is one part, never with '/'; "." and ".." are understood by lookup alone.
  Outcome<Attributes> lookup(const Caller& caller, InodeId parent, std::string_view name,
                             Hold hold = Hold::kNo);
  Outcome<Attributes> get_attributes(InodeId inode);  // ESTALE when it is gone
  // A file, FIFO, socket or device as mode's S_IFMT says.
  Outcome<Attributes> make_node(const Caller& caller, InodeId parent, std::string_view name, uint32_t mode,
                                uint64_t rdev, Hold hold = Hold::kNo);
  // Of mode the bits 01777 are taken; set-group-id is inherited.
  Outcome<Attributes> make_directory(const Caller& caller, InodeId parent, std::string_view name,
                                     uint32_t mode, Hold hold = Hold::kNo);
  Outcome<Attributes> make_symlink(const Caller& caller, InodeId parent, std::string_view name,
                                   std::string_view target, Hold hold = Hold::kNo);
  // A regular file that no name leads to (O_TMPFILE), always pinned for the caller. It may be linked once,
  // with all it then holds, if `linkable`.
  Outcome<Attributes> make_unlinked(const Caller& caller, InodeId parent, uint32_t mode,
                                    bool linkable = true);
  // ENOENT for an inode that has lost its last name.
  Outcome<Attributes> link(const Caller& caller, InodeId inode, InodeId new_parent, std::string_view new_name,
                           Hold hold = Hold::kNo);
  Outcome<void> unlink(const Caller& caller, InodeId parent, std::string_view name);
  Outcome<void> remove_directory(const Caller& caller, InodeId parent, std::string_view name);
  Outcome<void> rename(const Caller& caller, InodeId old_parent, std::string_view old_name,
                       InodeId new_parent, std::string_view new_name, RenameMode mode = RenameMode::kReplace);
  Outcome<std::string> read_link(InodeId inode);
  // Calls visit for ".", ".." and the entries after cookie, under the read lock, until it says false. Cookies
  // 1 and 2 are "." and "..". `attributes` is filled when with_attributes. visit must not call back into this
  // object.
  Outcome<void> read_directory(const Caller& caller, InodeId directory, uint64_t cookie, bool with_attributes,
                               const std::function<bool(const Dentry&, const Attributes*)>& visit);

  // --- inodes
  // A request that sets nothing changes nothing.
  Outcome<Attributes> set_attributes(const Caller& caller, InodeId inode,
                                     const SetAttributesRequest& request);
  Outcome<size_t> read(InodeId inode, uint64_t offset, ByteSpan into);
  // Returns the offset after the last byte written: short of all only past kCallDataMax, at the largest size
  // a file may have, or where the volume is full. With `append` offset is ignored and the end of the file
  // taken; `began` is set to where the first byte went.
  Outcome<uint64_t> write(const Caller& caller, InodeId inode, uint64_t offset, ByteView data,
                          bool append = false, uint64_t* began = nullptr);
  Outcome<void> allocate(const Caller& caller, InodeId inode, RangeChange change, bool keep_size,
                         uint64_t offset, uint64_t length);
  Outcome<uint64_t> copy_range(const Caller& caller, InodeId from, uint64_t from_offset, InodeId to,
                               uint64_t to_offset, uint64_t length);
  // Has the tree hold all of a file that rests on a source, as if it had been written; its times stay.
  // Nothing to do for any other inode. EIO, EACCES; ESTALE.
  Outcome<void> hold(const Caller& caller, InodeId inode);
  Outcome<uint64_t> seek_data(InodeId inode, uint64_t offset);
  Outcome<uint64_t> seek_hole(InodeId inode, uint64_t offset);
  Outcome<Bytes> get_xattr(const Caller& caller, InodeId inode, std::string_view name);
  Outcome<std::string> list_xattrs(const Caller& caller, InodeId inode);  // names, each ended by NUL
  Outcome<void> set_xattr(const Caller& caller, InodeId inode, std::string_view name, ByteView value,
                          XattrMode mode);
  Outcome<void> remove_xattr(const Caller& caller, InodeId inode, std::string_view name);
  StatFs stat_fs();
  // May the caller read (R_OK), write (W_OK), execute or search (X_OK) it? EACCES; EROFS.
  Outcome<void> access(const Caller& caller, InodeId inode, int wanted);

  // A pinned inode stays when its last name goes, until as many unpins. Opens, and a kernel's lookups, are
  // pins.
  void pin(InodeId inode, uint64_t count = 1);
  void unpin(InodeId inode, uint64_t count = 1);

  // Advisory locks: among who asks here, by inode; no part of the tree.
  Locks& locks() { return locks_; }

  // A barrier in the stream, or with a name a mark (is_mark), else EINVAL.
  Outcome<void> barrier(std::string_view name, std::string_view label);

  // The volume's limits, 0 for none: whoever may set them (EROFS otherwise) makes them everybody's. Where one
  // is exceeded a call answers ENOSPC (bytes, inodes), EFBIG (file size) or EDQUOT (depth, names per
  // directory). What is past them already stays, and may shrink.
  Outcome<void> set_limits(const SetLimits& limits, std::string_view label = {});
  SetLimits limits();

  // --- for the replayer and for snapshots
  View view();         // O(1)
  Digest128 digest();  // settles the head first
  Usage usage();
  // Runs `change` on the head under the write lock. What it applies is not handed to the sink. Unlinked
  // inodes that nobody pins are removed afterwards.
  void replay(const std::function<void(Head&)>& change);
  // The same for a change that may be given up: `change` works on a head of its own, which begins as this one
  // and takes its place if the answer is true; readers see the old tree or the new. What it drains of
  // Head::take_unlinked() it adds to the second argument. Returns the old tree, or nullopt if nothing
  // changed.
  std::optional<View> replay_aside(const std::function<bool(Head&, std::vector<InodeId>&)>& change);
  // Overwrite: readers see the old tree or the new, never a mix. Returns the old one. The tree should hold no
  // inodes without links but those pinned here: nobody would ever remove them.
  View install(const View& tree);
  // Head::evict, after which the memory is free.
  uint64_t evict(const View& kept, uint64_t bytes, InodeId& from);

 private:
  class Call;
  friend class PathWalk;  // many names under one lock
  struct Pin {
    uint64_t count = 0;
    bool orphan = false;  // has lost its last name; removed with the last pin
    InodeId above;        // of a directory among those: the one it was in, pinned for it
  };
  struct PinShard {
    std::mutex mutex;
    std::unordered_map<InodeId, Pin> pins;
    decltype(pins)::node_type spare;  // of the last pin that went: what is opened and closed needs no memory
  };

  // An inode and what is there; valid while mutex_ is held and nothing is applied.
  struct Found {
    InodeId id;
    const Inode* inode = nullptr;
    const Inode* operator->() const { return inode; }
    const Inode& operator*() const { return *inode; }
  };
  // With mutex_ held, as all below.
  Outcome<Found> find_handle(InodeId inode) const;  // ESTALE
  Outcome<Attributes> stat_handle(InodeId inode) const;
  Outcome<Found> find_directory(const Caller& caller, InodeId inode, int wanted) const;
  Outcome<Found> find_entry(const Found& directory, std::string_view name) const;
  // The same with "." and "..".
  Outcome<Found> find_part(const Found& directory, std::string_view name) const;
  Outcome<void> check_free(const Caller& caller, const Found& directory, std::string_view name) const;
  bool is_below(InodeId directory, InodeId ancestor) const;
  Outcome<void> check_replaceable(const Caller& caller, const Inode& directory, const Inode& source,
                                  const Inode& target) const;
  Outcome<Attributes> commit_made(Call& call, Outcome<Attributes> made, Hold hold);
  void record_whole_file(Call& call, const Attributes& file, InodeId parent, std::string_view name);
  Outcome<void> truncate(Call& call, const Attributes& file, uint64_t size);
  uint64_t part_that_fits(InodeId inode, uint64_t offset, uint64_t length) const;
  Outcome<void> copy_recorded(Call& call, const CopyRange& range);
  // fs/filesystem_sourced.cc
  struct Fetched;
  template <class Change>
  auto with_fetched(const Change& change) -> decltype(change(std::declval<Fetched&>()));
  static Outcome<void> need(const Inode& file, const sourced::Edges& edges, uint64_t offset, uint64_t length,
                            Fetched& fetched);
  Outcome<uint64_t> write_once(const Caller& caller, InodeId inode, uint64_t offset, ByteView data,
                               bool append, uint64_t* began, Fetched& fetched);
  Outcome<void> allocate_sourced(Call& call, const Inode& file, const Allocate& range, Fetched& fetched);
  Outcome<void> allocate_once(const Caller& caller, const Allocate& wanted, Fetched& fetched);
  PinShard& shard_of(InodeId inode) { return pins_[std::hash<InodeId>{}(inode) >> 58]; }
  bool keep_orphan(InodeId inode);  // true if it is pinned, and marks it
  InodeId unpin_alone(InodeId inode, uint64_t count);
  // fs/filesystem_limits.cc
  Outcome<void> check_room_for_inode() const;
  Outcome<void> check_room_for_name(InodeId id, const Inode& directory) const;
  Outcome<void> check_depth_after_move(InodeId id, const Inode& moved, InodeId new_parent) const;
  uint64_t depth_of(InodeId directory) const;
  bool has_names_below(InodeId directory, uint64_t levels) const;
  uint64_t file_size_max() const;
  // That are neither held nor reserved.
  uint64_t free_blocks() const;
  // How many of the range the tree does not hold, nor are reserved.
  uint64_t missing_blocks(const Found& file, BlockRange range) const;
  void reserve(InodeId inode, BlockRange range);
  // After a change: what the tree holds is not reserved any more.
  void settle_reservations(InodeId inode, BlockRange range);
  void remove_or_keep(InodeId inode);
  void reap_unlinked();

  // Without mutex_.
  Outcome<uint64_t> copy_by_bytes(const Caller& caller, const CopyRange& range);
  bool name_exists(InodeId parent, std::string_view name);
  Outcome<Attributes> create(const Caller& caller, InodeId parent, std::string_view name, uint32_t mode,
                             uint64_t rdev, std::string_view target, Hold hold);
  size_t unrecorded_bytes(InodeId inode);

  mutable TreeLock mutex_;
  Head head_;
  Clock& clock_;
  InodeIdSource& ids_;
  std::atomic<OperationSink*> sink_;
  std::atomic<bool> read_only_{false};
  std::unordered_set<InodeId> linkable_;  // of make_unlinked and not linked yet
  std::array<PinShard, 64> pins_;
  Locks locks_;
  Reservations reservations_;
};

}  // namespace reprise::fs

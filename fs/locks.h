// Locks: the advisory locks of one instance's inodes, as Linux has them on a local filesystem: flock(2),
// POSIX byte ranges (fcntl F_SETLK) and those of open file descriptions (F_OFD_SETLK).
//
// Whole-file locks and ranges do not see each other; POSIX and OFD ranges do. An owner is a process (POSIX)
// or an open file (flock, OFD); its own locks never stand in its way: a new one replaces, splits or merges
// with them. Locks name inodes only: they are no part of the tree, are not journaled, and stay through unlink
// and overwrite until their owner gives them up.
//
// Who waits is served in order of arrival as soon as nothing held is in the way; like the kernel, a newcomer
// that nothing held is in the way of does not queue behind those who wait. A process that would wait for
// itself by way of others' waiting gets EDEADLK.
//
// Not here: descriptors, what they are open for, and whence offsets count (fs/guest.h).
//
// Threads: every function may be called from any thread; the mutex is taken last, and not held while waiting.
// Nobody may wait when this object goes.
//
//   LockOwner owner = locks.new_open_file();
//   TRY(locks.lock_file(inode, owner, LockMode::kExclusive, {.wait = true}));
//   locks.release(inode, owner);
#pragma once

#include <array>
#include <cstdint>
#include <list>
#include <mutex>
#include <optional>
#include <stop_token>
#include <string>
#include <unordered_map>
#include <vector>

#include "base/ids.h"
#include "fs/errno.h"

namespace reprise::fs {

enum class LockMode : uint8_t { kShared, kExclusive };

inline constexpr uint64_t kLockByteMax = INT64_MAX;
// Bytes, both ends included, whether the file has them or not.
struct LockRange {
  uint64_t first = 0, last = kLockByteMax;
  bool operator==(const LockRange&) const = default;
};

// Whose a lock is. Two are the same if their ids are.
struct LockOwner {
  enum class Kind : uint8_t { kProcess, kOpenFile };
  uint64_t id = 0;  // 0: nobody
  Kind kind = Kind::kProcess;
  int32_t pid = 0;  // what others are told; -1 for an open file

  bool operator==(const LockOwner& other) const { return id == other.id; }
};

struct HeldLock {
  LockOwner owner;
  LockMode mode = LockMode::kShared;
  LockRange range;
};

// What to do while another owner is in the way: answer EAGAIN, or wait; then EINTR once `interrupted` asks to
// stop.
struct LockWait {
  bool wait = false;
  std::stop_token interrupted = {};
};

class Locks {
 public:
  // Ranges and whole-file locks held at a time, of all owners; one more is ENOLCK.
  static constexpr size_t kHeldMax = 1 << 20;

  explicit Locks(size_t held_max = kHeldMax) : held_max_(held_max) {}
  Locks(const Locks&) = delete;
  Locks& operator=(const Locks&) = delete;
  ~Locks();

  LockOwner new_process(int32_t pid);
  LockOwner new_open_file();

  // flock(2). A lock in the other mode is given up first, and lost even if the new one is then refused.
  // EAGAIN, EINTR, ENOLCK.
  Outcome<void> lock_file(InodeId inode, const LockOwner& owner, LockMode mode, const LockWait& wait = {});
  void unlock_file(InodeId inode, const LockOwner& owner);

  // fcntl(2), of a process or an open file. What the owner has there already is kept if it is refused.
  // EAGAIN, EINTR, ENOLCK, EDEADLK (only a process).
  Outcome<void> lock_range(InodeId inode, const LockOwner& owner, LockMode mode, LockRange range,
                           const LockWait& wait = {});
  // ENOLCK if what remains would be one range too many.
  Outcome<void> unlock_range(InodeId inode, const LockOwner& owner, LockRange range);
  // Of the range locks in the way of such a one the first: by when their owners came, then by range.
  std::optional<HeldLock> find_conflict(InodeId inode, const LockOwner& owner, LockMode mode,
                                        LockRange range) const;
  // The owner's own first range lock that overlaps.
  std::optional<HeldLock> find_own(InodeId inode, const LockOwner& owner, LockRange range) const;

  // All the owner has on the inode: what a close does.
  void release(InodeId inode, const LockOwner& owner);

  size_t held() const;
  size_t waiting() const;
  // Empty, or what is wrong.
  std::string check_invariants() const;

 private:
  struct Span {
    LockRange range;
    LockMode mode;
  };
  // One owner's locks on one inode: disjoint, ascending, those that touch and have one mode made one.
  struct Holder {
    LockOwner owner;
    std::vector<Span> spans;
  };
  struct Request {
    LockOwner owner;
    LockMode mode;
    LockRange range;
  };
  struct Waiter;
  // The locks of one kind on one inode.
  struct Space {
    std::vector<Holder> holders;  // in order of arrival; none without spans
    std::list<Waiter*> waiters;   // in order of arrival
  };
  using Spaces = std::unordered_map<InodeId, Space>;

  static std::optional<HeldLock> find_conflict(const Space& space, const Request& request);
  static Holder* find_holder(Space& space, const LockOwner& owner);
  static std::vector<Span>::iterator first_reaching(std::vector<Span>& spans, uint64_t byte);

  // All with mutex_ held.
  Outcome<void> acquire(Spaces& spaces, InodeId inode, const Request& request, const LockWait& wait);
  Outcome<bool> try_or_queue(Space& space, Waiter& waiter, bool wait);
  Outcome<void> replace(Space& space, const LockOwner& owner, LockRange range, std::optional<LockMode> mode);
  void drop_all(Spaces& spaces, InodeId inode, const LockOwner& owner);
  void changed(Spaces& spaces, InodeId inode);
  bool grant_some(Space& space);
  static bool still_blocked(const Space& space, const Waiter& waiter);
  void find_new_blockers(Space& space);
  void finish(Space& space, std::list<Waiter*>::iterator waiter, Outcome<void> outcome);
  bool would_deadlock(const LockOwner& caller, const LockOwner& blocker) const;
  void note_blocked(Waiter& waiter, const HeldLock& blocker);
  void forget_blocked(Waiter& waiter);
  std::string check_space(const Space& space, size_t& held, size_t& blocked) const;

  const size_t held_max_;
  mutable std::mutex mutex_;
  uint64_t last_owner_ = 0;
  size_t held_ = 0;
  Spaces files_, ranges_;
  // By owner, who waits for a range that a process holds.
  std::unordered_multimap<uint64_t, Waiter*> blocked_;
};

}  // namespace reprise::fs

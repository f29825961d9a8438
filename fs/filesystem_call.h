// Filesystem::Call: one changing call, from reserving room to reaping what it unlinked. For the facade's own
// sources.
//
//   Call call(*this, caller);
//   TRY(call.begin(bytes));     // room in the journal, then the write lock, which is held until call goes
//   … validate …
//   TRY(call.apply(Write{…}));  // only the first operation of a call may fail: after it the call has
//                               // happened
//   return call.commit();       // the lock goes; waits for the disk if the sink promises that
#pragma once

#include "fs/filesystem.h"

namespace reprise::fs {

class Filesystem::Call {
 public:
  Call(Filesystem& filesystem, const Caller& caller) : filesystem_(filesystem), caller_(caller) {}
  ~Call();
  Call(const Call&) = delete;
  Call& operator=(const Call&) = delete;

  // `bytes` is about what will be recorded besides the operations' fixed parts. EROFS, or what the sink says.
  Outcome<void> begin(size_t bytes);
  Timestamp now() const { return now_; }

  Outcome<void> apply(const Operation& operation);
  // The same for an inode that had so many links before the call: changes to one without are not recorded.
  Outcome<void> apply_to(uint64_t links, const Operation& operation);
  // The same for a change of a file's bytes that takes no new blocks but in the range: ENOSPC if the volume
  // then held or promised more than it may, and it is as if nothing had happened.
  Outcome<void> apply_within_limits(uint64_t links, const Operation& operation, InodeId inode,
                                    BlockRange range);
  // For what has no operation of its own on the tree.
  void record(const Operation& operation);
  // A place where a batch may close, in a call that records more than one can hold.
  void pause();
  // Gives the lock back; nothing has been applied.
  void abandon() { lock_.unlock(); }
  // Ends the call; no lock is held when it returns. Whoever recorded something must ask: an error (EIO,
  // ENOSPC) is the call's, although the tree has changed.
  Outcome<void> commit();

 private:
  Outcome<void> apply_unrecorded(const Operation& operation);

  Filesystem& filesystem_;
  const Caller& caller_;
  LaterFrees later_frees_;  // goes after the lock
  std::unique_lock<TreeLock> lock_;
  OperationSink* sink_ = nullptr;
  Timestamp now_;
  bool changed_ = false, recorded_ = false;
  bool uncommitted_ = false;  // something was recorded, and commit() has not been called
  Outcome<void> ended_;       // the first error of the sink
};

// A name for one entry. ENOENT (empty), ENAMETOOLONG, EINVAL ('/' or NUL in it).
Outcome<void> check_name(std::string_view name);
// What mknod can make. EPERM (a directory), EINVAL.
Outcome<void> check_node_type(uint32_t mode);
// ERANGE.
Outcome<void> check_xattr_name(std::string_view name);
inline bool is_dot(std::string_view name) {
  return name == ".";
}
inline bool is_dot_dot(std::string_view name) {
  return name == "..";
}

}  // namespace reprise::fs

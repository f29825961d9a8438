#include "adapters/fuse/kernel_cache.h"

#include <fmt/format.h>

#include <algorithm>
#include <string>
#include <vector>

#include "fs/diff.h"

namespace reprise::fuse {
namespace {

// How long an inode may stay on its way into or out of the kernel's cache before this counts as a failure.
constexpr uint64_t kInodeSettles_ns = 10'000'000'000;
constexpr uint64_t kFirstPause_ns = 20'000;
constexpr uint64_t kLongestPause_ns = 5'000'000;

// The connection is gone, and with it everything that was cached.
bool connection_ended(int error) {
  return error == ENOTCONN || error == ENODEV || error == EBADF;
}

class Marked {
 public:
  Marked(Marks& marks, const Touched& touched) : marks_(marks) { marks_.set(&touched); }
  ~Marked() { marks_.set(nullptr); }

 private:
  Marks& marks_;
};

// What the kernel may have cached of an inode that differs between two trees.
TouchedInode touched_by(const fs::ChangedInode& change, const fs::View& before, const fs::View& after) {
  TouchedInode touched{change.inode, 0, 0};
  if (change.names || !change.after) touched.end = TouchedInode::kToEnd;
  if (!change.content || touched.end != 0) return touched;
  fs::for_each_changed_range(before, after, change.inode, [&](uint64_t offset, uint64_t end) {
    if (touched.end == 0) touched.offset = offset;
    touched.end = end;
    return true;
  });
  return touched;
}

}  // namespace

void KernelCache::connect(fuse_session* session) {
  std::lock_guard lock(changing_);  // its holder drains nobody: so far there was no session
  session_.store(session);
}

void KernelCache::disconnect() {
  session_.store(nullptr);
  std::lock_guard lock(changing_);
}

Status KernelCache::apply_remotely(std::span<const fs::Operation> operations,
                                   const std::function<Status()>& apply) {
  std::lock_guard lock(changing_);
  if (session_.load() == nullptr) return apply();
  Touched touched = Touched::by(operations);
  Marked marked(marks_, touched);
  Status applied = apply();
  in_flight_.drain();
  Status dropped = drop(touched);
  return applied ? dropped : applied;
}

Status KernelCache::replace_all(const std::function<Result<fs::View>()>& install) {
  std::lock_guard lock(changing_);
  Touched everything = Touched::everything();
  Marked marked(marks_, everything);
  fs::View old_tree = TRY(install());
  if (session_.load() == nullptr) return {};
  in_flight_.drain();
  return drop_what_differs(old_tree);
}

Status KernelCache::drop_attributes(InodeId inode) {
  return drop_inode({inode, 0, 0});
}

Status KernelCache::write_back(InodeId inode, uint64_t offset, uint64_t length) {
  fuse_session* session = session_.load();
  if (session == nullptr) return {};
  // Dropped, what is not written yet is written first.
  int error = -fuse_lowlevel_notify_inval_inode(session, inode.value, static_cast<off_t>(offset),
                                                static_cast<off_t>(length));
  if (error == 0 || error == ENOENT || connection_ended(error)) return {};
  return std::unexpected(
      Error::from_errno(error, fmt::format("having the kernel write back inode {:#x}", inode.value)));
}

Status KernelCache::drop(const Touched& touched) {
  for (const TouchedName& name : touched.names()) TRY(drop_name(name.parent, name.name));
  for (const TouchedInode& inode : touched.inodes()) TRY(drop_inode(inode));
  return {};
}

// The kernel does not tell which names it has, least of all absent ones. But a name in a directory it knows
// can be wrong only if it means something else in the new tree than in the old.
Status KernelCache::drop_what_differs(const fs::View& old_tree) {
  fs::View new_tree = filesystem_.view();
  std::vector<TouchedInode> inodes;
  Status status;
  fs::for_each_changed_inode(old_tree, new_tree, [&](const fs::ChangedInode& change) {
    if (!lookups_.knows(change.inode)) return true;
    inodes.push_back(touched_by(change, old_tree, new_tree));
    if (!change.names) return true;
    fs::for_each_changed_name(old_tree, new_tree, change.inode, [&](const fs::ChangedName& name) {
      status = drop_name(change.inode, name.name);
      return status.has_value();
    });
    return status.has_value();
  });
  TRY(status);
  for (const TouchedInode& inode : inodes) TRY(drop_inode(inode));
  return {};
}

Status KernelCache::drop_name(InodeId parent, std::string_view name) {
  fuse_session* session = session_.load();
  // A directory the kernel does not know it has no names in.
  if (session == nullptr || !lookups_.knows(parent)) return {};
  std::string terminated(name);  // libfuse sends the NUL too
  int error = -fuse_lowlevel_notify_inval_entry(session, parent.value, terminated.c_str(), terminated.size());
  if (error == 0 || error == ENOENT || connection_ended(error)) return {};
  return std::unexpected(Error::from_errno(
      error, fmt::format("dropping the name \"{}\" from the kernel's cache", printable(name))));
}

Status KernelCache::drop_inode(const TouchedInode& touched) {
  // An offset below zero means attributes only; a length of zero, to the end.
  bool bytes = touched.offset != touched.end;
  off_t offset = bytes ? static_cast<off_t>(touched.offset) : -1;
  off_t length =
      bytes && touched.end != TouchedInode::kToEnd ? static_cast<off_t>(touched.end - touched.offset) : 0;

  uint64_t started = clock_.monotonic_ns();
  if (!lookups_.unsettle(touched.inode, started)) return {};
  for (uint64_t pause = kFirstPause_ns;; pause = std::min(pause * 2, kLongestPause_ns)) {
    fuse_session* session = session_.load();
    if (session == nullptr || !lookups_.knows(touched.inode)) return {};
    int error = -fuse_lowlevel_notify_inval_inode(session, touched.inode.value, offset, length);
    if (error == 0 || connection_ended(error)) return {};
    if (error != ENOENT) {
      return std::unexpected(Error::from_errno(
          error, fmt::format("dropping inode {:#x} from the kernel's cache", touched.inode.value)));
    }
    if (clock_.monotonic_ns() - started > kInodeSettles_ns) {
      return fail(Code::kTimeout,
                  fmt::format("the kernel was told of inode {:#x} but neither has nor forgets it",
                              touched.inode.value));
    }
    clock_.sleep_ns(pause);
  }
}

}  // namespace reprise::fuse

#include "adapters/fuse/kernel_cache.h"

#include <fmt/format.h>

#include <algorithm>
#include <string>
#include <unordered_map>

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

using Names = std::unordered_map<std::string, InodeId>;

Result<Names> names_of(const fs::Tree& tree, InodeId directory) {
  Names names;
  auto read = tree.read_directory(directory, 0, [&](const fs::Dentry& dentry) {
    names.emplace(dentry.name, dentry.inode);
    return true;
  });
  // Not in this version of the tree: it has no names there.
  if (!read && read.error() != fs::Errno{ENOENT}) {
    return std::unexpected(Error::from_errno(static_cast<int>(read.error()),
                                             fmt::format("reading directory inode {:#x}", directory.value)));
  }
  return names;
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
  TRY(drop_changed_names(old_tree));
  for (InodeId inode : lookups_.all()) TRY(drop_inode({inode, 0, TouchedInode::kToEnd}));
  return {};
}

Status KernelCache::drop_attributes(InodeId inode) {
  return drop_inode({inode, 0, 0});
}

Status KernelCache::drop(const Touched& touched) {
  for (const TouchedName& name : touched.names()) TRY(drop_name(name.parent, name.name));
  for (const TouchedInode& inode : touched.inodes()) TRY(drop_inode(inode));
  return {};
}

// The kernel does not tell which names it has, least of all absent ones. But a name in a directory it knows
// can be wrong only if it means something else in the new tree than in the old.
Status KernelCache::drop_changed_names(const fs::View& old_tree) {
  fs::View new_tree = filesystem_.view();
  for (InodeId directory : lookups_.directories()) {
    Names before = TRY(names_of(old_tree, directory));
    Names after = TRY(names_of(new_tree, directory));
    for (const auto& [name, inode] : before) {
      auto found = after.find(name);
      if (found == after.end() || found->second != inode) TRY(drop_name(directory, name));
    }
    for (const auto& [name, inode] : after) {
      if (!before.contains(name)) TRY(drop_name(directory, name));
    }
  }
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

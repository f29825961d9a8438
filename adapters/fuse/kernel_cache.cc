#include "adapters/fuse/kernel_cache.h"

#include <fmt/format.h>

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "fs/diff.h"
#include "fs/lazy_node.h"

namespace reprise::fuse {
namespace {

// How long an inode may stay on its way into or out of the kernel's cache before this counts as a failure.
constexpr uint64_t kInodeSettles_ns = 10'000'000'000;
constexpr uint64_t kFirstPause_ns = 20'000;
constexpr uint64_t kLongestPause_ns = 5'000'000;

// How often what programs read while it is dropped is dropped again. Most often nobody reads it, or once.
constexpr int kRounds = 50;

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

// Nothing is answered as long as it is closed.
class Closed {
 public:
  explicit Closed(InFlight& in_flight) : in_flight_(&in_flight) { in_flight.close(); }
  ~Closed() { open(); }
  void open() {
    if (auto* closed = std::exchange(in_flight_, nullptr)) closed->open();
  }

 private:
  InFlight* in_flight_;
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
  fs::take_load_failure();  // what could not be loaded counts as touched
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
  std::vector<Sized> sizes = sizes_of(touched);
  auto name_in = [&](InodeId directory) -> std::optional<std::string> {
    auto name = std::ranges::lower_bound(touched.names(), directory, {}, &TouchedName::parent);
    if (name == touched.names().end() || name->parent != directory) return std::nullopt;
    return std::string(name->name);
  };
  Status applied = drop_and_apply([&] { return drop(touched); }, name_in, apply);
  Status dropped = tell_what_grew(sizes);
  in_flight_.drain();
  if (dropped) dropped = drop(touched);
  return applied ? dropped : applied;
}

Status KernelCache::replace_all(const std::function<Result<fs::View>()>& install, const fs::View* next) {
  std::lock_guard lock(changing_);
  Touched everything = Touched::everything();
  Marked marked(marks_, everything);
  std::optional<fs::View> before;
  auto apply = [&]() -> Status {
    before = TRY(install());
    return {};
  };
  if (next == nullptr || session_.load() == nullptr) {
    TRY(apply());
  } else {
    TRY(drop_and_apply(*next, apply));
  }
  if (session_.load() == nullptr) return {};
  fs::View after = filesystem_.view();
  Status told = tell_what_grew(sizes_of_what_differs(*before, after));
  in_flight_.drain();
  TRY(drop_what_differs(*before, after));
  return told;
}

Status KernelCache::drop_and_apply(const fs::View& next, const std::function<Status()>& apply) {
  fs::View now = filesystem_.view();
  auto name_in = [&](InodeId directory) {
    std::optional<std::string> found;
    fs::for_each_changed_name(now, next, directory, [&](const fs::ChangedName& name) {
      found = name.name;
      return false;
    });
    return found;
  };
  return drop_and_apply([&] { return drop_what_differs(now, next); }, name_in, apply);
}

// While something is dropped, requests must be answered, as the kernel may wait for their answers. What is
// read then may be cached, and is dropped again; of a listing one of its names first, as everywhere. With
// programs that read large files all over, all the time, there is no end to that; they get what they get. So
// they do where something cannot be dropped: the change is applied all the same, as its journal has it by
// then, and the drop that follows it says what is wrong.
Status KernelCache::drop_and_apply(const std::function<Status()>& drop, const NameIn& name_in,
                                   const std::function<Status()>& apply) {
  in_flight_.drain();
  (void)marks_.take_read();  // what was on its way before is waited for
  Status dropped = drop();
  for (int round = 0; dropped && round < kRounds; ++round) {
    Closed closed(in_flight_);
    std::vector<TouchedInode> read = marks_.take_read();
    if (read.empty()) return apply();
    closed.open();
    dropped = drop_again(read, name_in);
  }
  return apply();
}

Status KernelCache::drop_again(std::span<const TouchedInode> read, const NameIn& name_in) {
  for (const TouchedInode& inode : read) {
    if (auto name = name_in(inode.inode)) TRY(drop_name(inode.inode, *name));
    TRY(drop_inode(inode));
  }
  return {};
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

std::vector<KernelCache::Sized> KernelCache::sizes_of(const Touched& touched) {
  std::vector<Sized> sizes;
  for (const TouchedInode& inode : touched.inodes()) {
    if (inode.offset == inode.end || !lookups_.knows(inode.inode)) continue;
    auto file = filesystem_.get_attributes(inode.inode);
    if (file && file->is_regular()) sizes.push_back({inode.inode, file->size});
  }
  return sizes;
}

std::vector<KernelCache::Sized> KernelCache::sizes_of_what_differs(const fs::View& before,
                                                                   const fs::View& after) {
  std::vector<Sized> sizes;
  fs::for_each_changed_inode(before, after, [&](const fs::ChangedInode& change) {
    if (change.content && change.before && change.before->is_regular() && lookups_.knows(change.inode))
      sizes.push_back({change.inode, change.before->size});
    return true;
  });
  return sizes;
}

// A read(2) that finds the attributes dropped asks for them, but does without if they are dropped once more
// before the answer is there: it ends at the size the kernel knew before. So the kernel is given the size of
// what grew before anything is dropped again. It takes that from bytes only: the last one will do.
Status KernelCache::tell_what_grew(std::span<const Sized> sizes) {
  for (const Sized& before : sizes) {
    auto now = filesystem_.get_attributes(before.inode);
    fuse_session* session = session_.load();
    if (session == nullptr || !now || now->size <= before.size) continue;
    std::byte last{};
    auto read = filesystem_.read(before.inode, now->size - 1, {&last, 1});
    if (!read || *read != 1) continue;  // what cannot be read, a program cannot read either
    fuse_bufvec bytes = FUSE_BUFVEC_INIT(1);
    bytes.buf[0].mem = &last;
    int error = -fuse_lowlevel_notify_store(session, before.inode.value, static_cast<off_t>(now->size - 1),
                                            &bytes, static_cast<fuse_buf_copy_flags>(0));
    if (error == 0 || error == ENOENT || connection_ended(error)) continue;
    return std::unexpected(Error::from_errno(
        error,
        fmt::format("telling the kernel that inode {:#x} has {} bytes", before.inode.value, now->size)));
  }
  return {};
}

// The kernel does not tell which names it has, least of all absent ones. But a name in a directory it knows
// can be wrong only if it means something else in the new tree than in the old.
Status KernelCache::drop_what_differs(const fs::View& before, const fs::View& after) {
  std::vector<TouchedInode> inodes;
  Status status;
  fs::for_each_changed_inode(before, after, [&](const fs::ChangedInode& change) {
    if (!lookups_.knows(change.inode)) return true;
    inodes.push_back(touched_by(change, before, after));
    if (!change.names) return true;
    fs::for_each_changed_name(before, after, change.inode, [&](const fs::ChangedName& name) {
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

// The guest's calls by path.
#include <dirent.h>
#include <stdio.h>
#include <time.h>

#include <algorithm>

#include "fs/filesystem_call.h"
#include "fs/guest.h"

namespace reprise::fs {
namespace {

using TimeChange = SetAttributesRequest::TimeChange;

TimeChange time_change(const timespec& time) {
  if (time.tv_nsec == UTIME_NOW) return TimeChange::kNow;
  return time.tv_nsec == UTIME_OMIT ? TimeChange::kOmit : TimeChange::kSet;
}

// Nanoseconds that are none stay what they are: the filesystem refuses them once it has found the inode.
SetAttributesRequest times_request(const timespec* times) {
  if (times == nullptr) return {.atime_change = TimeChange::kNow, .mtime_change = TimeChange::kNow};
  SetAttributesRequest request{.atime_change = time_change(times[0]), .mtime_change = time_change(times[1])};
  request.atime = {times[0].tv_sec, static_cast<uint32_t>(times[0].tv_nsec)};
  request.mtime = {times[1].tv_sec, static_cast<uint32_t>(times[1].tv_nsec)};
  return request;
}

bool omits_both(const timespec* times) {
  return times != nullptr && times[0].tv_nsec == UTIME_OMIT && times[1].tv_nsec == UTIME_OMIT;
}

SetAttributesRequest owner_request(uint32_t uid, uint32_t gid) {
  SetAttributesRequest request{.changes_owner = true};
  if (uid != UINT32_MAX) request.uid = uid;
  if (gid != UINT32_MAX) request.gid = gid;
  return request;
}

Outcome<RenameMode> rename_mode(unsigned flags) {
  switch (flags) {
    case 0:
      return RenameMode::kReplace;
    case RENAME_NOREPLACE:
      return RenameMode::kNoReplace;
    case RENAME_EXCHANGE:
      return RenameMode::kExchange;
    default:
      return errno_of(EINVAL);
  }
}

Outcome<void> check_flags(int flags, int known) {
  return (flags & ~known) == 0 ? Outcome<void>{} : errno_of(EINVAL);
}

// An inode that a path led to and that is gone by now.
template <class T>
Outcome<T> no_longer_there(Outcome<T> outcome) {
  if (!outcome && outcome.error() == Errno{ESTALE}) return errno_of(ENOENT);
  return outcome;
}

}  // namespace

// --- finding

Outcome<InodeId> Guest::start_of(const PathAt& path, bool may_be_empty) const {
  // Before the descriptor is looked at.
  if (path.path.empty() && !may_be_empty) return errno_of(ENOENT);
  if (path.path.size() > kPathMax) return errno_of(ENAMETOOLONG);
  if (path.path.starts_with('/') || path.directory == AT_FDCWD) return working_directory_;
  OpenFile* opened = TRY(file(path.directory));
  if (opened->type != S_IFDIR && !path.path.empty()) return errno_of(ENOTDIR);
  return opened->inode;
}

Outcome<Attributes> Guest::find(PathAt path, int flags) {
  const bool may_be_empty = (flags & AT_EMPTY_PATH) != 0;
  InodeId start = TRY(start_of(path, may_be_empty));
  if (path.path.empty()) return filesystem_.get_attributes(start);
  Caller who = caller();
  PathWalk walk(filesystem_, who, start);
  return walk.find(path.path, (flags & AT_SYMLINK_NOFOLLOW) == 0);
}

Outcome<Attributes> Guest::stat(PathAt path, int flags) {
  TRY(check_flags(flags, AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH | AT_NO_AUTOMOUNT));
  return find(path, flags);
}

Outcome<void> Guest::access(PathAt path, int wanted) {
  if ((wanted & ~(R_OK | W_OK | X_OK)) != 0) return errno_of(EINVAL);
  Attributes found = TRY(find(path, 0));
  if (wanted == F_OK) return {};
  return no_longer_there(filesystem_.access(caller(), found.inode, wanted));
}

Outcome<std::string> Guest::readlink(PathAt path) {
  // By a descriptor alone: of a symlink that was opened with O_PATH and O_NOFOLLOW.
  const bool by_descriptor = path.path.empty() && path.directory != AT_FDCWD;
  Attributes found = TRY(find(path, AT_SYMLINK_NOFOLLOW | (by_descriptor ? AT_EMPTY_PATH : 0)));
  if (by_descriptor && !found.is_symlink()) return errno_of(ENOENT);
  return no_longer_there(filesystem_.read_link(found.inode));
}

// --- making names

// Walks to where a new name goes and hands that to make_at, unless a '/' follows what is not to be a
// directory.
template <class Make>
Outcome<void> Guest::make(const PathAt& path, bool directory, const Make& make_at) {
  InodeId start = TRY(start_of(path));
  Caller who = caller();
  PathWalk walk(filesystem_, who, start);
  Place place = TRY(walk.to_last(path.path));
  if (place.name.empty()) return errno_of(EEXIST);
  if (place.slash && !directory) {
    TRY(walk.look(place));
    return errno_of(EEXIST);
  }
  auto made = walk.settle(place.parent, make_at(who, place));
  if (!made) return std::unexpected(made.error());
  return {};
}

Outcome<void> Guest::mkdir(PathAt path, uint32_t mode) {
  return make(path, true, [&](const Caller& who, const Place& place) {
    return filesystem_.make_directory(who, place.parent, place.name, mode);
  });
}

Outcome<void> Guest::mknod(PathAt path, uint32_t mode, uint64_t rdev) {
  TRY(check_node_type(mode));
  return make(path, false, [&](const Caller& who, const Place& place) {
    return filesystem_.make_node(who, place.parent, place.name, mode, rdev);
  });
}

Outcome<void> Guest::symlink(std::string_view target, PathAt path) {
  if (target.empty()) return errno_of(ENOENT);
  if (target.size() > kPathMax) return errno_of(ENAMETOOLONG);
  return make(path, false, [&](const Caller& who, const Place& place) {
    return filesystem_.make_symlink(who, place.parent, place.name, target);
  });
}

Outcome<void> Guest::link(PathAt old_path, PathAt new_path, int flags) {
  TRY(check_flags(flags, AT_SYMLINK_FOLLOW | AT_EMPTY_PATH));
  bool follow = (flags & AT_SYMLINK_FOLLOW) != 0;
  Attributes found = TRY(find(old_path, (flags & AT_EMPTY_PATH) | (follow ? 0 : AT_SYMLINK_NOFOLLOW)));
  return make(new_path, false, [&](const Caller& who, const Place& place) {
    return filesystem_.link(who, found.inode, place.parent, place.name);
  });
}

// --- removing and renaming names

Outcome<void> Guest::unlink(PathAt path, int flags) {
  if ((flags & ~AT_REMOVEDIR) != 0) return errno_of(EINVAL);
  InodeId start = TRY(start_of(path));
  Caller who = caller();
  PathWalk walk(filesystem_, who, start);
  Place place = TRY(walk.to_last(path.path));
  if ((flags & AT_REMOVEDIR) != 0) {
    if (place.name.empty()) return errno_of(EBUSY);
    return walk.settle(place.parent, filesystem_.remove_directory(who, place.parent, place.name));
  }
  if (place.name.empty()) return errno_of(EISDIR);
  if (place.slash && place.name != "." && place.name != "..") {
    Attributes found = TRY(walk.look(place));
    return errno_of(found.is_directory() ? EISDIR : ENOTDIR);
  }
  return walk.settle(place.parent, filesystem_.unlink(who, place.parent, place.name));
}

// A '/' after a name asks for a directory; after the new name, for what will be there.
Outcome<void> Guest::check_rename_slashes(PathWalk& old_walk, const Place& from, PathWalk& new_walk,
                                          const Place& to, RenameMode mode) {
  const bool exchange = mode == RenameMode::kExchange;
  Attributes source = TRY(old_walk.look(from));
  auto target = new_walk.look(to);
  Attributes new_parent = TRY(filesystem_.get_attributes(to.parent));
  bool may_be_made = !exchange && new_parent.nlink > 0;
  if (!target && (target.error() != Errno{ENOENT} || !may_be_made)) return std::unexpected(target.error());
  if (target && mode == RenameMode::kNoReplace) return errno_of(EEXIST);
  if (exchange && to.slash && !target->is_directory()) return errno_of(ENOTDIR);
  if (!source.is_directory() && (from.slash || (to.slash && !exchange))) return errno_of(ENOTDIR);
  return {};
}

Outcome<void> Guest::rename(PathAt old_path, PathAt new_path, unsigned flags) {
  RenameMode mode = TRY(rename_mode(flags));
  Caller who = caller();
  InodeId old_start = TRY(start_of(old_path));
  PathWalk old_walk(filesystem_, who, old_start);
  Place from = TRY(old_walk.to_last(old_path.path));
  InodeId new_start = TRY(start_of(new_path));
  PathWalk new_walk(filesystem_, who, new_start);
  Place to = TRY(new_walk.to_last(new_path.path));
  if (from.name.empty() || from.name == "." || from.name == "..") return errno_of(EBUSY);
  if (to.name.empty()) return errno_of(mode == RenameMode::kNoReplace ? EEXIST : EBUSY);
  bool ordinary = to.name != "." && to.name != "..";
  if ((from.slash || to.slash) && ordinary) TRY(check_rename_slashes(old_walk, from, new_walk, to, mode));
  return no_longer_there(filesystem_.rename(who, from.parent, from.name, to.parent, to.name, mode));
}

// --- attributes

Outcome<void> Guest::set(PathAt path, int flags, const SetAttributesRequest& request) {
  Attributes found = TRY(find(path, flags));
  TRY(no_longer_there(filesystem_.set_attributes(caller(), found.inode, request)));
  return {};
}

Outcome<void> Guest::truncate(PathAt path, int64_t size) {
  if (size < 0) return errno_of(EINVAL);
  return set(path, 0, {.size = static_cast<uint64_t>(size)});
}

Outcome<void> Guest::chmod(PathAt path, uint32_t mode) {
  return set(path, 0, {.mode = mode});
}

Outcome<void> Guest::chown(PathAt path, uint32_t uid, uint32_t gid, int flags) {
  TRY(check_flags(flags, AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH));
  return set(path, flags, owner_request(uid, gid));
}

Outcome<void> Guest::fchown(int fd, uint32_t uid, uint32_t gid) {
  return set(fd, owner_request(uid, gid));
}

Outcome<void> Guest::utimens(PathAt path, const timespec* times, int flags) {
  if (omits_both(times)) return {};  // not even the path is looked at
  TRY(check_flags(flags, AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH));
  return set(path, flags, times_request(times));
}

Outcome<void> Guest::futimens(int fd, const timespec* times) {
  if (omits_both(times)) return {};
  return set(fd, times_request(times));
}

// By descriptor, it must be more than a place.
Outcome<Attributes> Guest::find_with_xattrs(PathAt path, int flags) {
  if (path.path.empty() && path.directory != AT_FDCWD) {
    OpenFile* opened = TRY(file(path.directory));
    if ((opened->flags & O_PATH) != 0) return errno_of(EBADF);
  }
  return find(path, flags);
}

Outcome<Bytes> Guest::get_xattr(PathAt path, std::string_view name, int flags) {
  TRY(check_xattr_name(name));  // before the path
  Attributes found = TRY(find_with_xattrs(path, flags));
  return no_longer_there(filesystem_.get_xattr(caller(), found.inode, name));
}

Outcome<std::string> Guest::list_xattrs(PathAt path, int flags) {
  Attributes found = TRY(find_with_xattrs(path, flags));
  return no_longer_there(filesystem_.list_xattrs(caller(), found.inode));
}

Outcome<void> Guest::set_xattr(PathAt path, std::string_view name, ByteView value, XattrMode mode,
                               int flags) {
  TRY(check_xattr_name(name));
  if (value.size() > kXattrValueMax) return errno_of(E2BIG);
  Attributes found = TRY(find_with_xattrs(path, flags));
  return no_longer_there(filesystem_.set_xattr(caller(), found.inode, name, value, mode));
}

Outcome<void> Guest::remove_xattr(PathAt path, std::string_view name, int flags) {
  TRY(check_xattr_name(name));
  Attributes found = TRY(find_with_xattrs(path, flags));
  return no_longer_there(filesystem_.remove_xattr(caller(), found.inode, name));
}

// --- the working directory

Outcome<void> Guest::chdir(std::string_view path) {
  Caller who = caller();
  PathWalk walk(filesystem_, who, working_directory_);
  Place place = TRY(walk.to_last(path));
  Attributes found = TRY(walk.finish(place, true, Hold::kPin));
  auto entered = found.is_directory() ? filesystem_.access(who, found.inode, X_OK) : errno_of(ENOTDIR);
  filesystem_.unpin(entered ? std::exchange(working_directory_, found.inode) : found.inode);
  return entered;
}

Outcome<void> Guest::fchdir(int fd) {
  OpenFile* opened = TRY(file(fd));
  if (opened->type != S_IFDIR) return errno_of(ENOTDIR);
  TRY(filesystem_.access(caller(), opened->inode, X_OK));
  filesystem_.pin(opened->inode);
  filesystem_.unpin(std::exchange(working_directory_, opened->inode));
  return {};
}

Outcome<std::string> Guest::working_directory() {
  Caller trusted;
  std::string path;
  for (InodeId at = working_directory_; at != kRootInode;) {
    Attributes self = TRY(filesystem_.get_attributes(at));
    if (self.nlink == 0) return errno_of(ENOENT);
    Attributes above = TRY(filesystem_.lookup(trusted, at, ".."));
    std::string name;
    TRY(filesystem_.read_directory(trusted, above.inode, 2, false,
                                   [&](const Dentry& dentry, const Attributes*) {
                                     if (dentry.inode == at) name = dentry.name;
                                     return name.empty();
                                   }));
    if (name.empty()) return errno_of(ENOENT);  // moved away meanwhile
    path.insert(0, "/" + name);
    at = above.inode;
  }
  return path.empty() ? "/" : path;
}

}  // namespace reprise::fs

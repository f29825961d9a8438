// open(2): finding, creating, checking.
#include "fs/guest.h"

namespace reprise::fs {
namespace {

constexpr int kTmpFile = O_TMPFILE & ~O_DIRECTORY;

bool opens_for_writing(int flags) {
  return (flags & O_ACCMODE) != O_RDONLY || (flags & O_TRUNC) != 0;
}

Outcome<void> check_flags(int flags) {
  if ((flags & (O_CREAT | O_DIRECTORY)) == (O_CREAT | O_DIRECTORY)) return errno_of(EINVAL);
  bool unlinked = (flags & kTmpFile) != 0;
  if (unlinked && ((flags & O_DIRECTORY) == 0 || (flags & O_ACCMODE) == O_RDONLY)) return errno_of(EINVAL);
  return {};
}

}  // namespace

Outcome<int> Guest::open(PathAt path, int flags, uint32_t mode) {
  // Of O_PATH's companions Linux heeds these alone.
  if ((flags & O_PATH) != 0) flags &= O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC;
  TRY(check_flags(flags));
  if ((flags & kTmpFile) != 0) return open_unlinked(path, flags, mode);
  bool created = false;
  Attributes found = TRY(find_to_open(path, flags, mode, created));
  auto opened =
      std::make_shared<OpenFile>(filesystem_, found, flags & ~(O_CREAT | O_EXCL | O_TRUNC | O_CLOEXEC));
  TRY(check_open(found, flags, created));
  int fd = TRY(add(std::move(opened)));
  if ((flags & O_TRUNC) == 0 || created || !found.is_regular()) return fd;
  auto emptied = filesystem_.set_attributes(caller(), found.inode, {.size = 0, .opened_for_writing = true});
  if (emptied) return fd;
  TRY(close(fd));
  return std::unexpected(emptied.error());
}

// The inode to open, pinned.
Outcome<Attributes> Guest::find_to_open(PathAt path, int flags, uint32_t mode, bool& created) {
  Caller who = caller();
  InodeId start = TRY(start_of(path));
  PathWalk walk(filesystem_, who, start);
  Place place = TRY(walk.to_last(path.path));
  if ((flags & O_CREAT) != 0) return find_or_create(walk, place, flags, mode, created);
  return walk.finish(place, (flags & O_NOFOLLOW) == 0, Hold::kPin);
}

// In a directory like /tmp, O_CREAT opens nothing special that somebody else has put there. EACCES.
Outcome<void> Guest::may_open_in_sticky(const Place& place, const Attributes& found) {
  constexpr uint32_t kLikeTmp = S_ISVTX | S_IWOTH;
  if (options_.trusted || place.name.empty() || found.is_regular() || found.is_directory() ||
      S_ISFIFO(found.mode) || found.uid == options_.uid)
    return {};
  Attributes directory = TRY(filesystem_.get_attributes(place.parent));
  bool guarded = (directory.mode & kLikeTmp) == kLikeTmp && directory.uid != found.uid;
  return guarded ? errno_of(EACCES) : Outcome<void>{};
}

Outcome<Attributes> Guest::find_or_create(PathWalk& walk, Place place, int flags, uint32_t mode,
                                          bool& created) {
  Caller who = caller();
  const bool exclusive = (flags & O_EXCL) != 0;
  for (;;) {
    bool ordinary = !place.name.empty() && place.name != "." && place.name != "..";
    if (place.slash && ordinary) return errno_of(EISDIR);
    auto make = [&] {
      auto made = walk.settle(place.parent, filesystem_.make_node(who, place.parent, place.name,
                                                                  S_IFREG | (mode & 07777), 0, Hold::kPin));
      created = made.has_value();
      return made;
    };
    if (exclusive && ordinary) return make();  // whatever is there is in the way
    auto found = walk.look(place, Hold::kPin);
    if (found) {
      bool ends_here = !found->is_symlink() || (flags & O_NOFOLLOW) != 0;
      auto allowed = exclusive   ? errno_of(EEXIST)
                     : ends_here ? may_open_in_sticky(place, *found)
                                 : Outcome<void>{};
      if (allowed && !found->is_symlink()) return found;
      filesystem_.unpin(found->inode);
      TRY(allowed);
      if (ends_here) return errno_of(ELOOP);
      place = TRY(walk.through_link(place, found->inode));
      continue;
    }
    if (found.error() != Errno{ENOENT}) return found;
    auto made = make();
    // Somebody else may have been quicker.
    if (made || exclusive || made.error() != Errno{EEXIST}) return made;
  }
}

Outcome<void> Guest::check_open(const Attributes& found, int flags, bool created) {
  if ((flags & O_DIRECTORY) != 0 && !found.is_directory()) return errno_of(ENOTDIR);
  if ((flags & O_PATH) != 0) return {};
  if (found.is_symlink()) return errno_of(ELOOP);
  if (found.is_directory() && ((flags & O_CREAT) != 0 || opens_for_writing(flags))) return errno_of(EISDIR);
  if (created) return {};
  // As where devices are not to be opened (nodev): a guest has none.
  if (S_ISCHR(found.mode) || S_ISBLK(found.mode)) return errno_of(EACCES);
  int wanted = (flags & O_ACCMODE) == O_WRONLY ? 0 : R_OK;
  if (opens_for_writing(flags)) wanted |= W_OK;
  TRY(filesystem_.access(caller(), found.inode, wanted));
  const bool owns = options_.trusted || options_.uid == 0 || options_.uid == found.uid;
  if ((flags & O_NOATIME) != 0 && !owns) return errno_of(EPERM);
  if (!found.is_directory() && !found.is_regular()) return errno_of(ENXIO);
  return {};
}

Outcome<int> Guest::open_unlinked(PathAt path, int flags, uint32_t mode) {
  Attributes directory = TRY(find(path, (flags & O_NOFOLLOW) != 0 ? AT_SYMLINK_NOFOLLOW : 0));
  Attributes made =
      TRY(filesystem_.make_unlinked(caller(), directory.inode, mode & 07777, (flags & O_EXCL) == 0));
  return add(
      std::make_shared<OpenFile>(filesystem_, made, flags & ~(O_TMPFILE | O_EXCL | O_CLOEXEC | O_TRUNC)));
}

}  // namespace reprise::fs

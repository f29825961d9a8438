// The facade's calls on names. The order of the checks is Linux's, so that of two possible errors guests see
// the same.
#include <dirent.h>

#include "fs/directory.h"
#include "fs/filesystem.h"
#include "fs/filesystem_call.h"
#include "fs/lazy_node.h"
#include "fs/permission.h"

namespace reprise::fs {

Outcome<Attributes> Filesystem::lookup(const Caller& caller, InodeId parent, std::string_view name,
                                       Hold hold) {
  std::shared_lock lock(mutex_);
  Found directory = TRY(find_directory(caller, parent, X_OK));
  Found found = TRY(find_part(directory, name));
  if (hold == Hold::kPin) pin(found.id);
  return head_.stat(found.id);
}

// A removed directory has no names, not even ones that are too long.
Outcome<Filesystem::Found> Filesystem::find_entry(const Found& directory, std::string_view name) const {
  if (directory->nlink == 0) return errno_of(ENOENT);
  TRY(check_name(name));
  auto entry = directory::find(directory->content, name);
  if (!entry) return absent(ENOENT);
  const Inode* inode = head_.find(entry->inode);
  if (inode == nullptr) return absent(EIO);  // it exists, but may not have been loaded
  return Found{entry->inode, inode};
}

Outcome<Filesystem::Found> Filesystem::find_part(const Found& directory, std::string_view name) const {
  if (is_dot(name)) return directory;
  if (!is_dot_dot(name)) return find_entry(directory, name);
  InodeId above = InodeId{directory->rdev_or_parent};
  const Inode* inode = head_.find(above);
  if (inode == nullptr) return absent(ENOENT);
  return Found{above, inode};
}

bool Filesystem::name_exists(InodeId parent, std::string_view name) {
  std::shared_lock lock(mutex_);
  return is_dot(name) || is_dot_dot(name) || head_.lookup(parent, name).has_value();
}

// The name is free and the caller may make it.
Outcome<void> Filesystem::check_free(const Caller& caller, const Found& directory,
                                     std::string_view name) const {
  if (is_dot(name) || is_dot_dot(name)) return errno_of(EEXIST);
  if (directory->nlink == 0) return errno_of(ENOENT);
  TRY(check_name(name));
  TRY(try_loaded(directory->content));
  if (directory::find(directory->content, name)) return errno_of(EEXIST);
  return check_access(caller, *directory, W_OK);
}

// --- making

Outcome<Attributes> Filesystem::create(const Caller& caller, InodeId parent, std::string_view name,
                                       uint32_t mode, uint64_t rdev, std::string_view target, Hold hold) {
  Call call(*this, caller);
  if (auto begun = call.begin(name.size() + target.size()); !begun) {
    // `mkdir -p` relies on EEXIST where nothing can be written.
    if (name_exists(parent, name)) return errno_of(EEXIST);
    return std::unexpected(begun.error());
  }
  Found directory = TRY(find_directory(caller, parent, X_OK));
  TRY(check_free(caller, directory, name));
  bool device = S_ISCHR(mode) || S_ISBLK(mode);
  if (device && !caller.trusted && !privileged(caller)) return errno_of(EPERM);
  TRY(check_room_for_inode());
  TRY(check_room_for_name(parent, *directory));
  Inherited inherited = inherit(caller, *directory, mode);
  InodeId inode = ids_.next();
  TRY(call.apply(Create{.parent = parent,
                        .name = name,
                        .inode = inode,
                        .mode = inherited.mode,
                        .uid = caller.uid,
                        .gid = inherited.gid,
                        .rdev = rdev,
                        .target = target,
                        .time = call.now()}));
  if (hold == Hold::kPin) pin(inode);
  return commit_made(call, head_.stat(inode), hold);
}

// A call that made or found an inode for its caller, who does not get it if the call fails after all.
Outcome<Attributes> Filesystem::commit_made(Call& call, Outcome<Attributes> made, Hold hold) {
  if (auto done = call.commit(); !done) {
    if (hold == Hold::kPin) unpin(made->inode);
    made = std::unexpected(done.error());
  }
  return made;
}

Outcome<void> check_node_type(uint32_t mode) {
  switch (mode & S_IFMT) {
    case 0:
    case S_IFREG:
    case S_IFIFO:
    case S_IFSOCK:
    case S_IFCHR:
    case S_IFBLK:
      return {};
    case S_IFDIR:
      return errno_of(EPERM);
    default:
      return errno_of(EINVAL);
  }
}

Outcome<Attributes> Filesystem::make_node(const Caller& caller, InodeId parent, std::string_view name,
                                          uint32_t mode, uint64_t rdev, Hold hold) {
  TRY(check_node_type(mode));
  uint32_t type = (mode & S_IFMT) == 0 ? S_IFREG : mode & S_IFMT;
  bool device = type == S_IFCHR || type == S_IFBLK;
  return create(caller, parent, name, type | (mode & 07777), device ? rdev : 0, {}, hold);
}

Outcome<Attributes> Filesystem::make_directory(const Caller& caller, InodeId parent, std::string_view name,
                                               uint32_t mode, Hold hold) {
  return create(caller, parent, name, S_IFDIR | (mode & 01777), 0, {}, hold);
}

Outcome<Attributes> Filesystem::make_symlink(const Caller& caller, InodeId parent, std::string_view name,
                                             std::string_view target, Hold hold) {
  if (target.empty()) return errno_of(ENOENT);
  if (target.size() > kPathMax) return errno_of(ENAMETOOLONG);
  return create(caller, parent, name, S_IFLNK | 0777, 0, target, hold);
}

Outcome<Attributes> Filesystem::make_unlinked(const Caller& caller, InodeId parent, uint32_t mode,
                                              bool linkable) {
  Call call(*this, caller);
  TRY(call.begin(0));
  Found directory = TRY(find_directory(caller, parent, W_OK | X_OK));
  TRY(check_room_for_inode());
  Inherited inherited = inherit(caller, *directory, S_IFREG | (mode & 07777));
  InodeId inode = ids_.next();
  TRY(head_.add_unlinked(Create{
      .inode = inode, .mode = inherited.mode, .uid = caller.uid, .gid = inherited.gid, .time = call.now()}));
  pin(inode);
  keep_orphan(inode);
  if (linkable) linkable_.insert(inode);
  return head_.stat(inode);
}

// --- linking

Outcome<Attributes> Filesystem::link(const Caller& caller, InodeId inode, InodeId new_parent,
                                     std::string_view new_name, Hold hold) {
  Call call(*this, caller);
  if (auto begun = call.begin(new_name.size() + unrecorded_bytes(inode)); !begun) {
    if (name_exists(new_parent, new_name)) return errno_of(EEXIST);  // as where names are made
    return std::unexpected(begun.error());
  }
  Found file = TRY(find_handle(inode));
  Found directory = TRY(find_directory(caller, new_parent, X_OK));
  TRY(check_free(caller, directory, new_name));
  const uint32_t links = file->nlink;
  if (S_ISDIR(file->mode)) return errno_of(EPERM);
  if (links == 0 && !linkable_.contains(inode)) return errno_of(ENOENT);
  if (links >= kLinkMax) return errno_of(EMLINK);
  TRY(check_room_for_name(new_parent, *directory));
  TRY(call.apply_to(links, Link{.parent = new_parent, .name = new_name, .inode = inode, .time = call.now()}));
  Attributes linked = TRY(head_.stat(inode));
  if (links == 0) {
    linkable_.erase(inode);
    record_whole_file(call, linked, new_parent, new_name);
  }
  if (hold == Hold::kPin) pin(inode);
  return commit_made(call, linked, hold);
}

size_t Filesystem::unrecorded_bytes(InodeId inode) {
  std::shared_lock lock(mutex_);
  auto file = head_.stat(inode);
  return file && file->nlink == 0 ? file->blocks * kBlockSize : 0;
}

// What happened to the file before it had a name is not in the journal: its state goes there now. More than
// one batch can hold goes into several, so that a peer may see such a file grow.
void Filesystem::record_whole_file(Call& call, const Attributes& file, InodeId parent,
                                   std::string_view name) {
  InodeId inode = file.inode;
  call.record(Create{.parent = parent,
                     .name = name,
                     .inode = inode,
                     .mode = file.mode,
                     .uid = file.uid,
                     .gid = file.gid,
                     .time = call.now()});
  Bytes buffer(std::min<uint64_t>(file.size, kRecordedWriteMax));
  uint64_t position = 0;
  size_t unpaused = 0;
  while (auto data = head_.seek_data(inode, position)) {
    uint64_t end = *head_.seek_hole(inode, *data);
    for (position = *data; position < end;) {
      ByteSpan part = ByteSpan(buffer).first(std::min<uint64_t>(buffer.size(), end - position));
      CHECK(*head_.read(inode, position, part) == part.size());
      call.record(Write{.inode = inode, .offset = position, .data = part, .time = call.now()});
      position += part.size();
      unpaused += part.size();
      if (unpaused >= kCallDataMax) call.pause(), unpaused = 0;
    }
  }
  if (position < file.size) call.record(Truncate{.inode = inode, .size = file.size, .time = call.now()});
  auto listed = head_.list_xattrs(inode, [&](std::string_view xattr, ByteView value) {
    call.record(SetXattr{.inode = inode, .name = xattr, .value = value, .time = call.now()});
  });
  CHECK(listed);
  call.record(SetAttributes{.inode = inode,
                            .mask = SetAttributes::kAtime | SetAttributes::kMtime | SetAttributes::kCtime,
                            .atime = file.atime,
                            .mtime = file.mtime,
                            .ctime = file.ctime});
}

// --- removing

Outcome<void> Filesystem::unlink(const Caller& caller, InodeId parent, std::string_view name) {
  Call call(*this, caller);
  TRY(call.begin(name.size()));
  Found directory = TRY(find_directory(caller, parent, X_OK));
  if (is_dot(name) || is_dot_dot(name)) return errno_of(EISDIR);
  Found victim = TRY(find_entry(directory, name));
  TRY(check_access(caller, *directory, W_OK));
  TRY(check_sticky(caller, *directory, *victim));
  if (S_ISDIR(victim->mode)) return errno_of(EISDIR);
  TRY(call.apply(Unlink{.parent = parent, .name = name, .inode = victim.id, .time = call.now()}));
  return call.commit();
}

Outcome<void> Filesystem::remove_directory(const Caller& caller, InodeId parent, std::string_view name) {
  Call call(*this, caller);
  TRY(call.begin(name.size()));
  Found directory = TRY(find_directory(caller, parent, X_OK));
  if (is_dot(name)) return errno_of(EINVAL);
  if (is_dot_dot(name)) return errno_of(ENOTEMPTY);
  Found victim = TRY(find_entry(directory, name));
  TRY(check_access(caller, *directory, W_OK));
  TRY(check_sticky(caller, *directory, *victim));
  if (!S_ISDIR(victim->mode)) return errno_of(ENOTDIR);
  if (victim->size > 0) return errno_of(ENOTEMPTY);
  TRY(call.apply(Rmdir{.parent = parent, .name = name, .inode = victim.id, .time = call.now()}));
  return call.commit();
}

// --- renaming

// Is `directory` the ancestor itself, or somewhere below it?
bool Filesystem::is_below(InodeId directory, InodeId ancestor) const {
  for (InodeId at = directory; at != ancestor;) {
    auto above = head_.parent_of(at);
    if (at == kRootInode || !above) return false;  // a removed directory is below nothing
    at = *above;
  }
  return true;
}

// May `target`, in `directory`, give its name to `source`?
Outcome<void> Filesystem::check_replaceable(const Caller& caller, const Inode& directory, const Inode& source,
                                            const Inode& target) const {
  TRY(check_access(caller, directory, W_OK));
  TRY(check_sticky(caller, directory, target));
  if (S_ISDIR(source.mode) && !S_ISDIR(target.mode)) return errno_of(ENOTDIR);
  if (!S_ISDIR(source.mode) && S_ISDIR(target.mode)) return errno_of(EISDIR);
  return {};
}

Outcome<void> Filesystem::rename(const Caller& caller, InodeId old_parent, std::string_view old_name,
                                 InodeId new_parent, std::string_view new_name, RenameMode mode) {
  const bool exchange = mode == RenameMode::kExchange, same_parent = old_parent == new_parent;
  Call call(*this, caller);
  TRY(call.begin(old_name.size() + new_name.size()));
  Found from = TRY(find_directory(caller, old_parent, X_OK));
  Found to = same_parent ? from : TRY(find_directory(caller, new_parent, X_OK));
  if (is_dot(old_name) || is_dot_dot(old_name)) return errno_of(EBUSY);
  if (is_dot(new_name) || is_dot_dot(new_name))
    return errno_of(mode == RenameMode::kNoReplace ? EEXIST : EBUSY);
  Found source = TRY(find_entry(from, old_name));
  auto target = find_entry(to, new_name);
  if (!target && (to->nlink == 0 || new_name.empty() || target.error() != Errno{ENOENT}))
    return std::unexpected(target.error());

  if (target && mode == RenameMode::kNoReplace) return errno_of(EEXIST);
  if (!target && exchange) return errno_of(ENOENT);
  const bool moves_directory = !same_parent && S_ISDIR(source->mode);
  const bool target_is_directory = target && S_ISDIR((*target)->mode);
  if (moves_directory && is_below(new_parent, source.id)) return errno_of(EINVAL);
  if (!same_parent && target_is_directory && is_below(old_parent, target->id))
    return errno_of(exchange ? EINVAL : ENOTEMPTY);
  if (target && target->id == source.id) return {};

  TRY(check_access(caller, *from, W_OK));
  TRY(check_sticky(caller, *from, *source));
  if (!target) {
    TRY(check_access(caller, *to, W_OK));
  } else {
    TRY(check_replaceable(caller, *to, exchange ? **target : *source, **target));
  }
  // A directory that changes parents has its ".." rewritten.
  if (moves_directory) TRY(check_access(caller, *source, W_OK));
  if (!same_parent && exchange && target_is_directory) TRY(check_access(caller, **target, W_OK));
  if (!exchange && target_is_directory && (*target)->size > 0) return errno_of(ENOTEMPTY);
  if (!target && !same_parent) TRY(check_room_for_name(new_parent, *to));
  if (!same_parent) TRY(check_depth_after_move(source.id, *source, new_parent));
  if (!same_parent && exchange) TRY(check_depth_after_move(target->id, **target, old_parent));
  TRY(call.apply(Rename{.old_parent = old_parent,
                        .old_name = old_name,
                        .new_parent = new_parent,
                        .new_name = new_name,
                        .inode = source.id,
                        .replaced = target ? target->id : InodeId{},
                        .exchange = exchange,
                        .time = call.now()}));
  return call.commit();
}

// --- reading

Outcome<std::string> Filesystem::read_link(InodeId inode) {
  std::shared_lock lock(mutex_);
  TRY(stat_handle(inode));
  return std::string(TRY(head_.read_link(inode)));
}

Outcome<void> Filesystem::read_directory(const Caller& caller, InodeId directory, uint64_t cookie,
                                         bool with_attributes,
                                         const std::function<bool(const Dentry&, const Attributes*)>& visit) {
  std::shared_lock lock(mutex_);
  Found self = TRY(find_directory(caller, directory, R_OK));
  if (self->nlink == 0) return errno_of(ENOENT);
  auto show = [&](const Dentry& dentry) {
    if (!with_attributes) return visit(dentry, nullptr);
    auto attributes = head_.stat(dentry.inode);
    CHECK(attributes);  // an entry's inode exists
    return visit(dentry, &*attributes);
  };
  constexpr uint64_t kDot = 1, kDotDot = 2;
  if (cookie < kDot && !show({.name = ".", .inode = directory, .type = DT_DIR, .cookie = kDot})) return {};
  if (cookie < kDotDot) {
    InodeId parent = TRY(head_.parent_of(directory));
    if (!show({.name = "..", .inode = parent, .type = DT_DIR, .cookie = kDotDot})) return {};
  }
  return head_.read_directory(directory, cookie <= kDotDot ? 0 : cookie, show);
}

}  // namespace reprise::fs

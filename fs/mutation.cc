#include "fs/mutation.h"

#include "fs/directory.h"
#include "fs/file_content.h"
#include "fs/lazy_node.h"
#include "fs/sourced_file.h"
#include "fs/table.h"
#include "fs/xattrs.h"

namespace reprise::fs {
namespace {

constexpr uint32_t kPermissionBits = 07777;

Outcome<void> check_time(Timestamp time) {
  if (time.nsec >= 1'000'000'000) return errno_of(EINVAL);
  return {};
}

Outcome<void> check_name(std::string_view name) {
  if (name.size() > kNameMax) return errno_of(ENAMETOOLONG);
  if (name.empty() || name == "." || name == "..") return errno_of(EINVAL);
  if (name.find('/') != std::string_view::npos || name.find('\0') != std::string_view::npos)
    return errno_of(EINVAL);
  return {};
}

bool known_type(uint32_t mode) {
  switch (mode & S_IFMT) {
    case S_IFREG:
    case S_IFDIR:
    case S_IFLNK:
    case S_IFIFO:
    case S_IFSOCK:
    case S_IFCHR:
    case S_IFBLK:
      return (mode & ~(S_IFMT | kPermissionBits)) == 0;
    default:
      return false;
  }
}

void touch(Inode& inode, Timestamp time) {
  inode.set_mtime(time);
  inode.set_ctime(time);
}

Outcome<void> check_range(uint64_t offset, uint64_t length) {
  if (offset > kFileSizeMax || length > kFileSizeMax - offset) return errno_of(EFBIG);
  return {};
}

// What a change leaves of the blocks at its ends must be held: a replay reads no source.
Outcome<void> check_edges(const Inode& file, uint64_t offset, uint64_t length,
                          sourced::Edges (*edges)(const SourcedFile&, uint64_t, uint64_t)) {
  if (is_sourced(file.content) && length > 0 && !edges(as_sourced(file.content), offset, length).none())
    return errno_of(EINVAL);
  return {};
}

}  // namespace

Outcome<void> Mutation::apply(const Operation& operation) {
  return std::visit([this](const auto& op) { return (*this)(op); }, operation);
}

// --- loading before looking

Outcome<void> Mutation::load_inode(InodeId id) const {
  take_load_failure();
  if (table::find(head_.root_, id) != nullptr) return {};
  if (auto failure = take_load_failure()) return std::unexpected(*failure);
  return {};  // the operation may be about to make it, or is wrong
}

Outcome<void> Mutation::load_names(InodeId id) const {
  TRY(load_inode(id));
  if (const Inode* inode = table::find(head_.root_, id)) TRY(try_loaded(inode->content));
  return {};
}

Outcome<void> Mutation::load_bytes(InodeId id, uint64_t offset, uint64_t length) const {
  TRY(load_inode(id));
  if (table::find(head_.root_, id) != nullptr) TRY(head_.load_bytes(id, offset, length));
  return {};
}

Outcome<void> Mutation::load_for(const Operation& operation) const {
  struct Loader {
    const Mutation& on;
    Outcome<void> all(std::initializer_list<InodeId> directories,
                      std::initializer_list<InodeId> inodes) const {
      for (InodeId id : directories) TRY(on.load_names(id));
      for (InodeId id : inodes) TRY(on.load_inode(id));
      return {};
    }
    Outcome<void> operator()(const Create& op) const { return all({op.parent}, {op.inode}); }
    Outcome<void> operator()(const Link& op) const { return all({op.parent}, {op.inode}); }
    Outcome<void> operator()(const Unlink& op) const { return all({op.parent}, {op.inode}); }
    Outcome<void> operator()(const Rmdir& op) const { return all({op.parent}, {op.inode}); }
    Outcome<void> operator()(const Rename& op) const {
      return all({op.old_parent, op.new_parent}, {op.inode, op.replaced});
    }
    Outcome<void> operator()(const Write& op) const {
      return on.load_bytes(op.inode, op.offset, op.data.size());
    }
    Outcome<void> operator()(const Truncate& op) const { return on.load_bytes(op.inode, op.size, 1); }
    Outcome<void> operator()(const Allocate& op) const {
      const bool shifts = op.change == RangeChange::kCollapse || op.change == RangeChange::kInsert;
      if (shifts) return on.load_bytes(op.inode, 0, kFileSizeMax);
      // What lies between goes, or stays, as it is.
      TRY(on.load_bytes(op.inode, op.offset, 1));
      return op.length == 0 ? Outcome<void>{} : on.load_bytes(op.inode, op.offset + op.length - 1, 1);
    }
    Outcome<void> operator()(const CopyRange& op) const {
      TRY(on.load_bytes(op.from, op.from_offset, op.length));
      return on.load_bytes(op.to, op.to_offset, op.length);
    }
    Outcome<void> operator()(const SetAttributes& op) const { return all({}, {op.inode}); }
    Outcome<void> operator()(const SetXattr& op) const { return all({}, {op.inode}); }
    Outcome<void> operator()(const RemoveXattr& op) const { return all({}, {op.inode}); }
    Outcome<void> operator()(const Barrier&) const { return {}; }
    Outcome<void> operator()(const ClaimPrefix&) const { return {}; }
    Outcome<void> operator()(const SetLimits&) const { return {}; }
  };
  return std::visit(Loader{*this}, operation);
}

// --- looking before changing

Outcome<const Inode*> Mutation::find(InodeId id) const {
  const Inode* inode = table::find(head_.root_, id);
  if (inode == nullptr) return absent(ENOENT);
  return inode;
}

Outcome<const Inode*> Mutation::find_file(InodeId id) const {
  const Inode* inode = TRY(find(id));
  if (S_ISDIR(inode->mode)) return errno_of(EISDIR);
  if (!S_ISREG(inode->mode)) return errno_of(EINVAL);
  return inode;
}

Outcome<const Inode*> Mutation::find_directory(InodeId id) const {
  const Inode* inode = TRY(find(id));
  if (!S_ISDIR(inode->mode)) return errno_of(ENOTDIR);
  if (inode->nlink == 0) return errno_of(ENOENT);
  return inode;
}

Outcome<void> Mutation::check_absent(InodeId id, std::string_view name) const {
  if (names_ == Names::kResolved) return {};
  const Inode* directory = TRY(find_directory(id));
  TRY(check_name(name));
  if (directory::find(directory->content, name)) return errno_of(EEXIST);
  return {};
}

Outcome<void> Mutation::check_present(InodeId id, std::string_view name, InodeId inode) const {
  if (names_ == Names::kResolved) return {};
  const Inode* directory = TRY(find_directory(id));
  TRY(check_name(name));
  auto entry = directory::find(directory->content, name);
  if (!entry) return absent(ENOENT);
  if (entry->inode != inode) return errno_of(ESTALE);
  return {};
}

Outcome<bool> Mutation::lies_below(InodeId directory, InodeId ancestor) const {
  for (InodeId at = directory; at != kRootInode;) {
    if (at == ancestor) return true;
    const Inode* inode = table::find(head_.root_, at);
    if (inode == nullptr)
      if (auto failure = take_load_failure()) return std::unexpected(*failure);
    if (inode == nullptr || inode->nlink == 0) return false;
    at = InodeId{inode->rdev_or_parent};
  }
  return ancestor == kRootInode;
}

// --- changing

Inode& Mutation::own(InodeId id) {
  return table::own(head_.root_, id);
}

Inode& Mutation::own_changed(InodeId id, Timestamp time) {
  Inode& inode = own(id);
  touch(inode, time);
  return inode;
}

void Mutation::fill_inode(const Create& op, uint32_t nlink) {
  Inode& inode = *table::insert(head_.root_, op.inode);
  inode.mode = op.mode;
  inode.uid = op.uid;
  inode.gid = op.gid;
  inode.nlink = nlink;
  inode.set_atime(op.time);
  inode.set_mtime(op.time);
  inode.set_ctime(op.time);
  if (S_ISDIR(op.mode)) inode.rdev_or_parent = op.parent.value;
  if (S_ISCHR(op.mode) || S_ISBLK(op.mode)) inode.rdev_or_parent = op.rdev;
  if (S_ISLNK(op.mode)) file_content::set_target(inode, op.target);
  head_.usage_.inodes++;
}

bool Mutation::add_entry(Inode& directory, std::string_view name, InodeId inode, uint32_t mode) {
  uint8_t type = type_of_mode(mode);
  bring_in(directory.content);
  if (!directory::insert(directory.content, name, inode, type)) return false;
  directory.sum += dentry_hash(name, type, inode);
  directory.size++;
  return true;
}

void Mutation::remove_entry(Inode& directory, std::string_view name, InodeId inode, uint32_t mode) {
  directory.sum -= dentry_hash(name, type_of_mode(mode), inode);
  directory.size--;
  bring_in(directory.content);
  directory::erase(directory.content, name);
}

void Mutation::drop_link(InodeId id, Timestamp time) {
  Inode& inode = own(id);
  inode.set_ctime(time);
  if (S_ISDIR(inode.mode)) {
    inode.nlink = 0;
  } else {
    inode.nlink--;
  }
  if (inode.nlink == 0) head_.unlinked_.push_back(id);
}

// --- the operations

Outcome<void> Mutation::check_new_inode(const Create& op) const {
  TRY(check_time(op.time));
  if (!op.inode || !known_type(op.mode)) return errno_of(EINVAL);
  if (S_ISLNK(op.mode) ? op.target.empty() || op.target.find('\0') != std::string_view::npos
                       : !op.target.empty()) {
    return errno_of(EINVAL);
  }
  if (op.target.size() > kPathMax) return errno_of(ENAMETOOLONG);
  if (table::find(head_.root_, op.inode) != nullptr) return errno_of(EEXIST);
  return {};
}

Outcome<void> Mutation::operator()(const Create& op) {
  TRY(check_absent(op.parent, op.name));
  TRY(check_new_inode(op));

  Inode& parent = own(op.parent);
  if (!add_entry(parent, op.name, op.inode, op.mode)) return errno_of(ENOSPC);
  touch(parent, op.time);
  if (S_ISDIR(op.mode)) parent.nlink++;
  fill_inode(op, S_ISDIR(op.mode) ? 2 : 1);
  return {};
}

Outcome<void> Mutation::add_unlinked(const Create& op) {
  TRY(check_new_inode(op));
  if (!S_ISREG(op.mode)) return errno_of(EINVAL);

  fill_inode(op, 0);
  return {};
}

Outcome<void> Mutation::operator()(const Link& op) {
  TRY(check_absent(op.parent, op.name));
  TRY(check_time(op.time));
  const Inode* found = TRY(find(op.inode));
  if (S_ISDIR(found->mode)) return errno_of(EPERM);
  if (found->nlink >= kLinkMax) return errno_of(EMLINK);
  uint32_t mode =
      found->mode;  // owning the parent may copy the page that `found` points into, and free the old one

  Inode& parent = own(op.parent);
  if (!add_entry(parent, op.name, op.inode, mode)) return errno_of(ENOSPC);
  touch(parent, op.time);
  Inode& inode = own(op.inode);
  inode.nlink++;
  inode.set_ctime(op.time);
  return {};
}

Outcome<void> Mutation::operator()(const Unlink& op) {
  TRY(check_present(op.parent, op.name, op.inode));
  TRY(check_time(op.time));
  const Inode* inode = TRY(find(op.inode));
  if (S_ISDIR(inode->mode)) return errno_of(EISDIR);
  uint32_t mode = inode->mode;

  remove_entry(own_changed(op.parent, op.time), op.name, op.inode, mode);
  drop_link(op.inode, op.time);
  return {};
}

Outcome<void> Mutation::operator()(const Rmdir& op) {
  TRY(check_present(op.parent, op.name, op.inode));
  TRY(check_time(op.time));
  const Inode* inode = TRY(find_directory(op.inode));
  if (inode->size > 0) return errno_of(ENOTEMPTY);
  uint32_t mode = inode->mode;

  Inode& parent = own_changed(op.parent, op.time);
  remove_entry(parent, op.name, op.inode, mode);
  parent.nlink--;
  drop_link(op.inode, op.time);
  return {};
}

Outcome<void> Mutation::check_rename(const Rename& op, const Inode& moved, const Inode* replaced) const {
  if (op.exchange && replaced == nullptr) return errno_of(ENOENT);
  if (replaced != nullptr && op.replaced == op.inode) return errno_of(EINVAL);
  if (S_ISDIR(moved.mode) && TRY(lies_below(op.new_parent, op.inode))) return errno_of(ELOOP);
  if (op.exchange) {
    if (S_ISDIR(replaced->mode) && TRY(lies_below(op.old_parent, op.replaced))) return errno_of(ELOOP);
  } else if (replaced != nullptr) {
    if (S_ISDIR(moved.mode) && !S_ISDIR(replaced->mode)) return errno_of(ENOTDIR);
    if (!S_ISDIR(moved.mode) && S_ISDIR(replaced->mode)) return errno_of(EISDIR);
    if (S_ISDIR(replaced->mode) && replaced->size > 0) return errno_of(ENOTEMPTY);
  }
  return {};
}

void Mutation::set_parent(InodeId id, Inode& inode, InodeId old_parent, InodeId new_parent) {
  if (!S_ISDIR(inode.mode) || old_parent == new_parent) return;
  own(old_parent).nlink--;
  own(new_parent).nlink++;
  own(id).rdev_or_parent = new_parent.value;
}

Outcome<void> Mutation::operator()(const Rename& op) {
  TRY(check_present(op.old_parent, op.old_name, op.inode));
  TRY(check_time(op.time));
  if (op.replaced) {
    TRY(check_present(op.new_parent, op.new_name, op.replaced));
  } else {
    TRY(check_absent(op.new_parent, op.new_name));
  }
  const Inode* moved = TRY(find(op.inode));
  const Inode* replaced = op.replaced ? TRY(find(op.replaced)) : nullptr;
  TRY(check_rename(op, *moved, replaced));

  uint32_t moved_mode = moved->mode, replaced_mode = replaced != nullptr ? replaced->mode : 0;
  Inode& from = own(op.old_parent);
  Inode& to = op.new_parent == op.old_parent ? from : own(op.new_parent);
  if (op.replaced) {
    bring_in(to.content);
    directory::replace(to.content, op.new_name, op.inode, type_of_mode(moved_mode));
    to.sum -= dentry_hash(op.new_name, type_of_mode(replaced_mode), op.replaced);
    to.sum += dentry_hash(op.new_name, type_of_mode(moved_mode), op.inode);
  } else if (!add_entry(to, op.new_name, op.inode, moved_mode)) {
    return errno_of(ENOSPC);
  }
  touch(from, op.time);
  touch(to, op.time);
  if (op.exchange) {
    bring_in(from.content);
    directory::replace(from.content, op.old_name, op.replaced, type_of_mode(replaced_mode));
    from.sum -= dentry_hash(op.old_name, type_of_mode(moved_mode), op.inode);
    from.sum += dentry_hash(op.old_name, type_of_mode(replaced_mode), op.replaced);
    Inode& other = own(op.replaced);
    other.set_ctime(op.time);
    set_parent(op.replaced, other, op.new_parent, op.old_parent);
  } else {
    remove_entry(from, op.old_name, op.inode, moved_mode);
    if (op.replaced) {
      if (S_ISDIR(replaced_mode)) to.nlink--;
      drop_link(op.replaced, op.time);
    }
  }
  Inode& inode = own(op.inode);
  inode.set_ctime(op.time);
  set_parent(op.inode, inode, op.old_parent, op.new_parent);
  return {};
}

template <class Change>
void Mutation::change_content(InodeId id, Timestamp time, const Change& change) {
  Inode& inode = own_changed(id, time);
  bring_in(inode.content);
  head_.usage_.blocks -= inode.blocks;
  change(inode);
  head_.usage_.blocks += inode.blocks;
}

Outcome<void> Mutation::operator()(const Write& op) {
  const Inode* found = TRY(find_file(op.inode));
  TRY(check_time(op.time));
  TRY(check_range(op.offset, op.data.size()));
  TRY(check_edges(*found, op.offset, op.data.size(), sourced::edges_of));

  change_content(op.inode, op.time, [&](Inode& inode) { file_content::write(inode, op.offset, op.data); });
  return {};
}

Outcome<void> Mutation::operator()(const Truncate& op) {
  TRY(find_file(op.inode));
  TRY(check_time(op.time));
  TRY(check_range(0, op.size));

  change_content(op.inode, op.time, [&](Inode& inode) { file_content::resize(inode, op.size); });
  return {};
}

Outcome<void> Mutation::operator()(const Allocate& op) {
  const Inode* found = TRY(find_file(op.inode));
  TRY(check_time(op.time));
  TRY(check_range(op.offset, op.length));
  uint64_t end = op.offset + op.length;
  bool shifts = op.change == RangeChange::kCollapse || op.change == RangeChange::kInsert;
  if (op.length == 0 || (shifts && (op.offset % kBlockSize != 0 || op.length % kBlockSize != 0)))
    return errno_of(EINVAL);
  if (op.change == RangeChange::kCollapse && end >= found->size) return errno_of(EINVAL);
  if (op.change == RangeChange::kInsert) {
    if (op.offset >= found->size) return errno_of(EINVAL);
    TRY(check_range(found->size, op.length));
  }
  if (op.change > RangeChange::kInsert) return errno_of(EINVAL);
  if (shifts && is_sourced(found->content)) return errno_of(EINVAL);
  bool clears = op.change == RangeChange::kPunch || op.change == RangeChange::kZero;
  if (clears) TRY(check_edges(*found, op.offset, op.length, sourced::edges_to_clear));

  change_content(op.inode, op.time, [&](Inode& inode) {
    switch (op.change) {
      case RangeChange::kReserve:
        break;
      case RangeChange::kPunch:
      case RangeChange::kZero:
        file_content::punch(inode, op.offset, op.length);
        break;
      case RangeChange::kCollapse:
        file_content::collapse(inode, op.offset, op.length);
        break;
      case RangeChange::kInsert:
        file_content::insert(inode, op.offset, op.length);
        break;
    }
    bool may_grow = op.change == RangeChange::kReserve || op.change == RangeChange::kZero;
    if (may_grow && !op.keep_size && end > inode.size) inode.size = end;
  });
  return {};
}

Outcome<void> Mutation::operator()(const CopyRange& op) {
  const Inode* found = TRY(find_file(op.from));
  const Inode* target = TRY(find_file(op.to));
  if (is_sourced(found->content) || is_sourced(target->content)) return errno_of(EINVAL);
  TRY(check_time(op.time));
  TRY(check_range(op.from_offset, op.length));
  TRY(check_range(op.to_offset, op.length));
  if (op.from_offset + op.length > found->size) return errno_of(EINVAL);
  bool overlap = op.from == op.to && op.from_offset < op.to_offset + op.length &&
                 op.to_offset < op.from_offset + op.length;
  if (overlap) return errno_of(EINVAL);

  change_content(op.to, op.time, [&](Inode& to) {
    // Found again: owning the target may have copied the page that the source is in.
    const Inode* from = table::find(head_.root_, op.from);
    file_content::copy(*from, op.from_offset, to, op.to_offset, op.length);
  });
  return {};
}

Outcome<void> Mutation::operator()(const SetAttributes& op) {
  TRY(find(op.inode));
  TRY(check_time(op.atime));
  TRY(check_time(op.mtime));
  TRY(check_time(op.ctime));
  if ((op.mode & ~kPermissionBits) != 0) return errno_of(EINVAL);

  Inode& inode = own(op.inode);
  if ((op.mask & SetAttributes::kMode) != 0) inode.mode = (inode.mode & S_IFMT) | op.mode;
  if ((op.mask & SetAttributes::kUid) != 0) inode.uid = op.uid;
  if ((op.mask & SetAttributes::kGid) != 0) inode.gid = op.gid;
  if ((op.mask & SetAttributes::kAtime) != 0) inode.set_atime(op.atime);
  if ((op.mask & SetAttributes::kMtime) != 0) inode.set_mtime(op.mtime);
  if ((op.mask & SetAttributes::kCtime) != 0) inode.set_ctime(op.ctime);
  return {};
}

Outcome<void> Mutation::operator()(const SetXattr& op) {
  const Inode* found = TRY(find(op.inode));
  TRY(check_time(op.time));
  if (op.name.empty() || op.name.find('\0') != std::string_view::npos) return errno_of(EINVAL);
  if (op.name.size() > kXattrNameMax) return errno_of(ERANGE);
  if (op.value.size() > kXattrValueMax) return errno_of(E2BIG);
  auto old = xattrs::find(found->xattrs, op.name);
  size_t others = xattrs::total_bytes(found->xattrs) - (old ? op.name.size() + old->size() : 0);
  if (others + op.name.size() + op.value.size() > kXattrsMax) return errno_of(ENOSPC);

  Inode& inode = own(op.inode);
  Xattrs* changed = xattrs::with(inode.xattrs, op.name, op.value);
  release(inode.xattrs);
  inode.xattrs = changed;
  inode.set_ctime(op.time);
  return {};
}

Outcome<void> Mutation::operator()(const RemoveXattr& op) {
  const Inode* found = TRY(find(op.inode));
  TRY(check_time(op.time));
  if (!xattrs::find(found->xattrs, op.name)) return errno_of(ENODATA);

  Inode& inode = own(op.inode);
  Xattrs* changed = xattrs::without(inode.xattrs, op.name);
  release(inode.xattrs);
  inode.xattrs = changed;
  inode.set_ctime(op.time);
  return {};
}

Outcome<void> Mutation::operator()(const Barrier&) {
  return {};
}
Outcome<void> Mutation::operator()(const ClaimPrefix&) {
  return {};
}
Outcome<void> Mutation::operator()(const SetLimits& op) {
  head_.limits_ = op;
  return {};
}

}  // namespace reprise::fs

#include "fs/transition.h"

#include <fmt/format.h>
#include <sys/stat.h>

#include <algorithm>

#include "base/check.h"

namespace reprise::fs {
namespace {

constexpr size_t kPieceBytes = 256 << 10;
constexpr uint64_t kOperationBytes = 128;  // about what one takes without its bytes
constexpr uint64_t kTooMany = ~uint64_t{0};
constexpr Timestamp kAnyTime{};  // what an inode's times become is set at the end

bool is_linked(const Outcome<Attributes>& inode) {
  return inode && inode->nlink > 0;
}

// In something that can be set; a link or a held block more shows elsewhere, or is of no meaning.
bool differ(const Attributes& a, const Attributes& b) {
  return a.mode != b.mode || a.uid != b.uid || a.gid != b.gid || a.atime != b.atime || a.mtime != b.mtime ||
         a.ctime != b.ctime;
}

}  // namespace

SetAttributes setting_all(InodeId inode, const Attributes& from) {
  using Set = SetAttributes;
  return {.inode = inode,
          .mask = Set::kMode | Set::kUid | Set::kGid | Set::kAtime | Set::kMtime | Set::kCtime,
          .mode = from.mode & 07777,
          .uid = from.uid,
          .gid = from.gid,
          .atime = from.atime,
          .mtime = from.mtime,
          .ctime = from.ctime};
}

TreeChanges all_changes(const Tree& have, const Tree& wanted) {
  TreeChanges all;
  for_each_changed_inode(have, wanted, [&](const ChangedInode& changed) {
    bool before = changed.before && changed.before->nlink > 0;
    bool after = changed.after && changed.after->nlink > 0;
    if (before && after && (changed.content || changed.xattrs || differ(*changed.before, *changed.after)))
      all.inodes.push_back({changed.inode, changed.content, changed.xattrs, *changed.after});
    if (!changed.names || (!before && !after)) return true;
    for_each_changed_name(have, wanted, changed.inode, [&](const ChangedName& name) {
      all.names.push_back({changed.inode, std::string(name.name), name.before.value_or(InodeId{}),
                           name.after.value_or(InodeId{})});
      return true;
    });
    return true;
  });
  return all;
}

Transition::Transition(const Tree& have, const Tree& wanted, const TreeChanges& changes)
    : have_(have), wanted_(wanted), changes_(changes) {
  for (const NameToChange& name : changes.names) {
    if (name.before) links_[name.before].removed++;
    if (name.after) links_[name.after].added++;
    names_in_[name.directory].push_back(&name);
  }
}

// Not the same thing in both: an inode keeps for ever what it was created as.
bool Transition::is_new(InodeId inode) const {
  auto here = have_.stat(inode), there = wanted_.stat(inode);
  if (!is_linked(here)) return true;
  if (!there) return false;
  if ((here->mode & S_IFMT) != (there->mode & S_IFMT) || here->rdev != there->rdev) return true;
  return S_ISLNK(here->mode) && *have_.read_link(inode) != *wanted_.read_link(inode);
}

// Does it get another place?
bool Transition::is_staged(InodeId inode) const {
  return links_.at(inode).added > 0 && !is_new(inode);
}

InodeId Transition::real(InodeId inode) const {
  auto made = made_.find(inode);
  return made != made_.end() ? made->second : inode;
}

uint64_t Transition::bytes() const {
  uint64_t total = (changes_.names.size() * 2 + changes_.inodes.size()) * kOperationBytes;
  // Holes count, too: of sparse files the sum may be more than there is.
  auto add = [&](uint64_t bytes) {
    bytes += kOperationBytes;
    total = bytes > kTooMany - total ? kTooMany : total + bytes;
  };
  auto add_xattrs = [&](InodeId inode) {
    CHECK(wanted_.list_xattrs(
        inode, [&](std::string_view name, ByteView value) { add(name.size() + value.size()); }));
  };
  for (const NameToChange& name : changes_.names) {
    add(name.name.size());
    if (!name.after || !is_new(name.after)) continue;
    add(wanted_.stat(name.after)->size);
    add_xattrs(name.after);
  }
  for (const InodeToChange& inode : changes_.inodes) {
    if (inode.xattrs) add_xattrs(inode.inode);
    if (!inode.content) continue;
    for_each_changed_range(have_, wanted_, inode.inode, [&](uint64_t offset, uint64_t end) {
      add(end - offset);
      return true;
    });
  }
  return total;
}

Outcome<void> Transition::make(TransitionTarget& target) {
  target_ = &target;
  for (const NameToChange& name : changes_.names)
    if (name.before) take_away(name);
  remove_directories();
  place_all();
  if (staging_) apply(Rmdir{kRootInode, staging_name_, staging_, kAnyTime});
  for (InodeId inode : made_in_order_) TRY(fill(inode, true));
  for (const InodeToChange& inode : changes_.inodes) {
    bool fresh = made_.contains(inode.inode);
    if (fresh) continue;
    if (inode.content && S_ISREG(inode.attributes.mode)) TRY(fill(inode.inode, false));
    if (inode.xattrs) set_xattrs(inode.inode, false);
  }
  set_attributes();
  return {};
}

void Transition::apply(const Operation& operation) {
  target_->apply(operation);
}

void Transition::open_staging() {
  if (staging_) return;
  staging_ = target_->new_inode({});
  // Guests may call theirs what they like.
  auto is_taken = [&](const Tree& tree) { return tree.lookup(kRootInode, staging_name_).has_value(); };
  uint64_t number = staging_.value;
  do {
    staging_name_ = fmt::format(".reprise-{:x}", number++);
  } while (is_taken(have_) || is_taken(wanted_));
  apply(Create{.parent = kRootInode,
               .name = staging_name_,
               .inode = staging_,
               .mode = S_IFDIR | 0700,
               .target = {},
               .time = kAnyTime});
  touch(kRootInode);
}

void Transition::take_away(const NameToChange& name) {
  touch(name.directory);
  touch(name.before);
  Links& links = links_.at(name.before);
  // A file that gets fewer names than it loses needs no more of them meanwhile.
  if (is_staged(name.before) && links.staged.size() < links.added) {
    open_staging();
    links.staged.push_back(std::to_string(staged_++));
    apply(Rename{.old_parent = name.directory,
                 .old_name = name.name,
                 .new_parent = staging_,
                 .new_name = links.staged.back(),
                 .inode = name.before,
                 .replaced = {},
                 .time = kAnyTime});
  } else if (have_.stat(name.before)->is_directory()) {
    directories_gone_.push_back(&name);  // once it is empty
  } else {
    apply(Unlink{name.directory, name.name, name.before, kAnyTime});
  }
}

// The deepest first.
void Transition::remove_directories() {
  std::unordered_map<InodeId, const NameToChange*> gone;
  for (const NameToChange* name : directories_gone_) gone.emplace(name->before, name);
  std::vector<const NameToChange*> top_down;
  for (const NameToChange* name : directories_gone_)
    if (!gone.contains(name->directory)) top_down.push_back(name);
  for (size_t i = 0; i < top_down.size(); i++) {
    auto inside = names_in_.find(top_down[i]->before);
    if (inside == names_in_.end()) continue;
    for (const NameToChange* name : inside->second) {
      auto below = gone.find(name->before);
      if (below != gone.end() && below->second == name) top_down.push_back(name);
    }
  }
  for (size_t i = top_down.size(); i-- > 0;)
    apply(Rmdir{top_down[i]->directory, top_down[i]->name, top_down[i]->before, kAnyTime});
}

// Whatever moves lies in the hidden directory by now, or where it will be, so no directory is put below
// itself. New directories are there before what is in them.
void Transition::place_all() {
  std::vector<const NameToChange*> todo;
  for (const NameToChange& name : changes_.names)
    if (name.after && !is_new(name.directory)) todo.push_back(&name);
  for (size_t i = 0; i < todo.size(); i++) {
    InodeId inode = todo[i]->after;
    bool known = made_.contains(inode);
    place(*todo[i]);
    if (known || !made_.contains(inode)) continue;
    auto inside = names_in_.find(inode);
    if (inside == names_in_.end()) continue;
    for (const NameToChange* name : inside->second)
      if (name->after) todo.push_back(name);
  }
}

void Transition::place(const NameToChange& name) {
  InodeId directory = real(name.directory);
  if (!is_new(name.directory)) touch(name.directory);
  if (is_new(name.after)) {
    if (made_.contains(name.after)) return apply(Link{directory, name.name, real(name.after), kAnyTime});
    return create(directory, name);
  }
  touch(name.after);
  std::vector<std::string>& staged = links_.at(name.after).staged;
  if (staged.empty()) return apply(Link{directory, name.name, name.after, kAnyTime});
  apply(Rename{.old_parent = staging_,
               .old_name = staged.back(),
               .new_parent = directory,
               .new_name = name.name,
               .inode = name.after,
               .replaced = {},
               .time = kAnyTime});
  staged.pop_back();
}

void Transition::create(InodeId directory, const NameToChange& name) {
  Attributes attributes = *wanted_.stat(name.after);
  InodeId made = target_->new_inode(name.after);
  made_.emplace(name.after, made);
  made_in_order_.push_back(name.after);
  apply(Create{.parent = directory,
               .name = name.name,
               .inode = made,
               .mode = attributes.mode,
               .uid = attributes.uid,
               .gid = attributes.gid,
               .rdev = attributes.is_directory() ? 0 : attributes.rdev,
               .target = attributes.is_symlink() ? *wanted_.read_link(name.after) : std::string_view(),
               .time = kAnyTime});
}

// Bytes and xattrs.
Outcome<void> Transition::fill(InodeId inode, bool fresh) {
  if (fresh) set_xattrs(inode, true);
  Attributes attributes = *wanted_.stat(inode);
  if (!attributes.is_regular()) return {};
  uint64_t size = fresh ? 0 : have_.stat(inode)->size;
  if (size != attributes.size) apply(Truncate{real(inode), attributes.size, kAnyTime});
  if (fresh) return write(inode, 0, attributes.size);
  Outcome<void> done;
  for_each_changed_range(have_, wanted_, inode, [&](uint64_t offset, uint64_t end) {
    done = write(inode, offset, std::min(end, attributes.size));
    return done.has_value();
  });
  return done;
}

Outcome<void> Transition::write(InodeId inode, uint64_t offset, uint64_t end) {
  bool fresh = made_.contains(inode);
  while (offset < end) {
    auto found = wanted_.seek_data(inode, offset);
    if (!found && found.error() != Errno{ENXIO}) return std::unexpected(found.error());
    uint64_t data = found ? std::min(*found, end) : end;
    if (data > offset && !fresh)
      apply(Allocate{inode, RangeChange::kPunch, true, offset, data - offset, kAnyTime});
    offset = data;
    if (offset >= end) break;
    uint64_t hole = std::min(TRY(wanted_.seek_hole(inode, offset)), end);
    while (offset < hole) {
      piece_.resize(std::min<uint64_t>(kPieceBytes, hole - offset));
      if (TRY(wanted_.read(inode, offset, piece_)) != piece_.size()) return std::unexpected(Errno{EIO});
      apply(Write{real(inode), offset, piece_, kAnyTime});
      offset += piece_.size();
    }
  }
  return {};
}

void Transition::set_xattrs(InodeId inode, bool fresh) {
  auto is_as_wanted = [&](std::string_view name, ByteView value) {
    auto other = wanted_.get_xattr(inode, name);
    return other && std::ranges::equal(*other, value);
  };
  // First away with what is to be another: together they have a limit.
  std::vector<std::string> gone;
  if (!fresh) {
    CHECK(have_.list_xattrs(inode, [&](std::string_view name, ByteView value) {
      if (!is_as_wanted(name, value)) gone.emplace_back(name);
    }));
  }
  for (const std::string& name : gone) apply(RemoveXattr{inode, name, kAnyTime});
  CHECK(wanted_.list_xattrs(inode, [&](std::string_view name, ByteView value) {
    Outcome<ByteView> had = errno_of(ENODATA);
    if (!fresh) had = have_.get_xattr(inode, name);
    if (!had || !std::ranges::equal(*had, value)) apply(SetXattr{real(inode), name, value, kAnyTime});
  }));
}

// Last, as everything before has changed times.
void Transition::set_attributes() {
  for (InodeId inode : made_in_order_) apply(setting_all(real(inode), *wanted_.stat(inode)));
  for (const InodeToChange& inode : changes_.inodes) {
    touched_.erase(inode.inode);
    if (!made_.contains(inode.inode)) apply(setting_all(inode.inode, inode.attributes));
  }
  std::vector<InodeId> left(touched_.begin(), touched_.end());
  std::ranges::sort(left);
  for (InodeId inode : left) {
    auto links = links_.find(inode);
    Attributes had = *have_.stat(inode);
    bool goes = links != links_.end() && links->second.removed > 0 && !is_staged(inode) &&
                (had.is_directory() || links->second.removed >= had.nlink);
    if (!goes) apply(setting_all(inode, had));
  }
}

}  // namespace reprise::fs

// The limits of the volume: where an operation is made they bind, where it is replayed they do not.
#include <algorithm>
#include <vector>

#include "base/check.h"
#include "fs/file_content.h"
#include "fs/filesystem.h"
#include "fs/filesystem_call.h"

namespace reprise::fs {
// --- bytes

uint64_t Filesystem::free_blocks() const {
  const uint64_t limit = head_.limits().bytes == 0 ? kFileBlocksMax : head_.limits().bytes / kBlockSize;
  const uint64_t used = head_.usage().blocks + reservations_.total();
  return used < limit ? limit - used : 0;
}

uint64_t Filesystem::file_size_max() const {
  const uint64_t limit = head_.limits().file_size;
  return limit == 0 ? kFileSizeMax : std::min(limit, kFileSizeMax);
}

// How many blocks a change takes depends on which are there. Near the limit it is done and looked at, and
// undone if it was too much: exact by construction, and the price of a view is paid only there.
Outcome<void> Filesystem::Call::apply_within_limits(uint64_t links, const Operation& operation, InodeId inode,
                                                    BlockRange range) {
  const uint64_t available = filesystem_.free_blocks() + filesystem_.reservations_.count(inode, range);
  if (available >= range.end - range.first) {
    TRY(apply_to(links, operation));
  } else {
    Head& head = filesystem_.head_;
    View before = head.view();
    const uint64_t had = head.usage().blocks;
    TRY(head.apply(operation));
    if (head.usage().blocks > had + available) {
      head = Head(before);  // nothing has lost a name in this call
      return errno_of(ENOSPC);
    }
    changed_ = true;
    if (links > 0) record(operation);
  }
  filesystem_.settle_reservations(inode, range);
  return {};
}

namespace {

// The parts of the range whose blocks the file has; those that a source has too. What cannot be loaded ends
// it: then the change that asks cannot be made either.
void for_each_held(const Inode& file, BlockRange range, const std::function<void(BlockRange)>& visit) {
  const Node* content = file.content;
  if (content == nullptr) return;
  if (content->kind == NodeKind::kSmallFile) {  // counts as the first block, wherever the file ends
    if (range.first == 0) visit({.first = 0, .end = 1});
    return;
  }
  const uint64_t end = std::min(range.end, (file.size + kBlockSize - 1) / kBlockSize);
  for (uint64_t at = range.first; at < end;) {
    const auto found = file_content::next_data(file, at * kBlockSize);
    if (!found || *found >= file.size || *found / kBlockSize >= end) break;
    const uint64_t data = *found / kBlockSize;
    const auto hole = file_content::next_hole(file, data * kBlockSize);
    if (!hole) break;
    at = std::min(end, (*hole + kBlockSize - 1) / kBlockSize);
    visit({.first = data, .end = at});
  }
}

}  // namespace

uint64_t Filesystem::missing_blocks(const Found& file, BlockRange range) const {
  uint64_t missing = range.end - range.first - reservations_.count(file.id, range);
  for_each_held(*file, range, [&](BlockRange held) { missing -= held.end - held.first; });
  return missing;
}

void Filesystem::reserve(InodeId inode, BlockRange range) {
  reservations_.add(inode, range);
  settle_reservations(inode, range);
}

void Filesystem::settle_reservations(InodeId inode, BlockRange range) {
  if (reservations_.empty()) return;
  for_each_held(*head_.find(inode), range, [&](BlockRange held) { reservations_.remove(inode, held); });
}

// --- inodes and names

Outcome<void> Filesystem::check_room_for_inode() const {
  const uint64_t limit = head_.limits().inodes;
  if (limit != 0 && head_.usage().inodes >= limit) return errno_of(ENOSPC);
  return {};
}

Outcome<void> Filesystem::check_room_for_name(InodeId id, const Inode& directory) const {
  const SetLimits& limits = head_.limits();
  if (limits.names_per_directory != 0 && directory.size >= limits.names_per_directory)
    return errno_of(EDQUOT);
  if (limits.depth != 0 && depth_of(id) >= limits.depth) return errno_of(EDQUOT);
  return {};
}

// What lies in a directory is at its depth plus one; the root is at 0.
uint64_t Filesystem::depth_of(InodeId directory) const {
  uint64_t depth = 0;
  for (InodeId at = directory; at != kRootInode; ++depth) {
    auto above = head_.parent_of(at);
    if (!above) return depth;  // below a directory that is gone
    at = *above;
  }
  return depth;
}

Outcome<void> Filesystem::check_depth_after_move(InodeId id, const Inode& moved, InodeId new_parent) const {
  const uint64_t limit = head_.limits().depth;
  if (limit == 0) return {};
  const uint64_t depth = depth_of(new_parent) + 1;
  if (depth > limit || (S_ISDIR(moved.mode) && has_names_below(id, limit - depth))) return errno_of(EDQUOT);
  return {};
}

// Is there a path of more than `levels` names below the directory?
bool Filesystem::has_names_below(InodeId directory, uint64_t levels) const {
  struct Level {
    InodeId inode;
    uint64_t depth;  // of its entries
  };
  std::vector<Level> rest{{directory, 1}};
  bool found = false;
  while (!rest.empty() && !found) {
    const Level at = rest.back();
    rest.pop_back();
    auto listed = head_.read_directory(at.inode, 0, [&](const Dentry& entry) {
      found = at.depth > levels;
      if (entry.type == type_of_mode(S_IFDIR)) rest.push_back({entry.inode, at.depth + 1});
      return !found;
    });
    CHECK(listed);
  }
  return found;
}

}  // namespace reprise::fs

// Operation: one successful, resolved, deterministic change of a volume. docs/data-model.md says what each
// kind means and which errors it can no longer have; journal/journal.capnp is the same list as it lies on
// disk.
//
// Everything an operation needs is in it: inode ids are assigned, offsets resolved, times filled in. Applying
// it reads nothing from the environment, so equal histories give equal trees.
//
// An Operation is a view: its strings and bytes belong to whoever made it and are valid during the call it is
// passed to.
#pragma once

#include <cstdint>
#include <string_view>
#include <variant>

#include "base/bytes.h"
#include "base/clock.h"
#include "base/ids.h"

namespace reprise::fs {

// A new inode under a new name: file, directory, symlink, FIFO, socket or device, as mode's S_IFMT says.
// The parent's mtime and ctime and all times of the new inode become `time`.
struct Create {
  InodeId parent;
  std::string_view name;
  InodeId inode;
  uint32_t mode = 0;
  uint32_t uid = 0, gid = 0;
  uint64_t rdev = 0;
  std::string_view target;  // of a symlink, otherwise empty
  Timestamp time;
};

// Another name for an inode that is not a directory.
struct Link {
  InodeId parent;
  std::string_view name;
  InodeId inode;
  Timestamp time;
};

// Removes a name; the inode goes when no name and no handle is left.
struct Unlink {
  InodeId parent;
  std::string_view name;
  InodeId inode;
  Timestamp time;
};

// Removes an empty directory.
struct Rmdir {
  InodeId parent;
  std::string_view name;
  InodeId inode;
  Timestamp time;
};

// Moves a name. `replaced` is the inode that new_name meant before, if any: it loses that name, or with
// `exchange` gets the old one.
struct Rename {
  InodeId old_parent;
  std::string_view old_name;
  InodeId new_parent;
  std::string_view new_name;
  InodeId inode;
  InodeId replaced;
  bool exchange = false;
  Timestamp time;
};

// Puts data at offset; the size grows to cover it. mtime and ctime become `time`.
struct Write {
  InodeId inode;
  uint64_t offset = 0;
  ByteView data;
  Timestamp time;
};

// Sets the size; bytes past it are gone, bytes gained are zero.
struct Truncate {
  InodeId inode;
  uint64_t size = 0;
  Timestamp time;
};

// fallocate(2): what happens to [offset, offset + length).
enum class RangeChange : uint8_t {
  kReserve,   // space is promised; the size grows unless keep_size
  kPunch,     // bytes become zero and their space is given back; the size stays
  kZero,      // bytes become zero; the size grows unless keep_size
  kCollapse,  // the range is cut out, what follows moves down
  kInsert,    // a hole is put in, what followed moves up
};
struct Allocate {
  InodeId inode;
  RangeChange change = RangeChange::kReserve;
  bool keep_size = false;
  uint64_t offset = 0, length = 0;
  Timestamp time;
};

// Copies bytes between files or within one, sharing blocks where both sides are aligned.
struct CopyRange {
  InodeId from;
  uint64_t from_offset = 0;
  InodeId to;
  uint64_t to_offset = 0;
  uint64_t length = 0;
  Timestamp time;
};

// Sets those attributes whose bit is in mask. mode is permission bits only (07777).
struct SetAttributes {
  enum : uint32_t { kMode = 1, kUid = 2, kGid = 4, kAtime = 8, kMtime = 16, kCtime = 32 };
  InodeId inode;
  uint32_t mask = 0;
  uint32_t mode = 0;
  uint32_t uid = 0, gid = 0;
  Timestamp atime, mtime, ctime;
};

// Sets or replaces one extended attribute.
struct SetXattr {
  InodeId inode;
  std::string_view name;
  ByteView value;
  Timestamp time;
};

struct RemoveXattr {
  InodeId inode;
  std::string_view name;
  Timestamp time;
};

// No effect; a place in history. A non-empty name is a mark (is_mark).
struct Barrier {
  std::string_view name;
  Timestamp time;
};

// The origin will mint inode ids with this 40-bit prefix. No effect on the tree.
struct ClaimPrefix {
  uint64_t prefix = 0;
};

// The volume's limits from here on; 0 means none. No effect on what is there already: only who makes an
// operation looks at them, replay may exceed them.
struct SetLimits {
  uint64_t bytes = 0;      // in blocks that hold files' bytes (Usage::blocks)
  uint64_t inodes = 0;     // the root among them
  uint64_t file_size = 0;  // bytes
  uint32_t depth = 0;      // names in a path from the root
  uint64_t names_per_directory = 0;
  bool operator==(const SetLimits&) const = default;
};

using Operation = std::variant<Create, Link, Unlink, Rmdir, Rename, Write, Truncate, Allocate, CopyRange,
                               SetAttributes, SetXattr, RemoveXattr, Barrier, ClaimPrefix, SetLimits>;

// [A-Za-z_][A-Za-z0-9_.-]*, not "head", of at most kMarkMax bytes.
inline constexpr size_t kMarkMax = 255;
bool is_mark(std::string_view name);

// "create", "link", … as `reprise log` shows it.
std::string_view operation_name(const Operation& operation);

}  // namespace reprise::fs

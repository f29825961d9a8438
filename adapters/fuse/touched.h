// Touched: the names and inodes whose cached state a change makes wrong. Marks: what is being changed this
// moment, and which bytes of it have been read meanwhile.
#pragma once

#include <atomic>
#include <cstdint>
#include <mutex>
#include <shared_mutex>
#include <span>
#include <string_view>
#include <utility>
#include <vector>

#include "fs/operation.h"

namespace reprise::fuse {

struct TouchedName {
  InodeId parent;
  std::string_view name;  // belongs to the operation
  auto operator<=>(const TouchedName&) const = default;
};

// Attributes of an inode, and bytes [offset, end) of its content (of a directory: its listing).
struct TouchedInode {
  static constexpr uint64_t kToEnd = ~uint64_t{0};
  InodeId inode;
  uint64_t offset = 0, end = 0;  // equal: no bytes
  auto operator<=>(const TouchedInode&) const = default;
};

// A value; its names are valid as long as the operations it was made from.
class Touched {
 public:
  static Touched by(std::span<const fs::Operation> operations);
  static Touched everything();

  // Sorted, each name once; ranges of one inode do not overlap.
  const std::vector<TouchedName>& names() const { return names_; }
  const std::vector<TouchedInode>& inodes() const { return inodes_; }

  bool name(InodeId parent, std::string_view name) const;
  bool inode(InodeId inode) const;
  bool is_everything() const { return everything_; }
  // The ranges of it, in order; empty for everything().
  std::span<const TouchedInode> of(InodeId inode) const;

 private:
  void add(const fs::Operation& operation);
  void settle();

  bool everything_ = false;
  std::vector<TouchedName> names_;
  std::vector<TouchedInode> inodes_;
};

// Replies about what is marked carry zero timeouts: the kernel uses them once and asks again. Bytes and
// listings have no timeouts, it keeps them; so they are noted. Threads: any; one set of marks at a time.
class Marks {
 public:
  void set(const Touched* touched) {
    std::lock_guard lock(mutex_);
    touched_ = touched;
    read_.clear();
    active_.store(touched != nullptr);
  }
  // These bytes, or this listing, are about to be read for the kernel.
  void note_listed(InodeId directory) { note_read(directory, 0, TouchedInode::kToEnd); }
  void note_read(InodeId inode, uint64_t offset, uint64_t length) {
    if (!active_.load()) return;
    std::lock_guard lock(mutex_);
    if (touched_ != nullptr) note(inode, offset, length);
  }
  // What has been read of what is marked, since this was last asked.
  std::vector<TouchedInode> take_read() {
    std::lock_guard lock(mutex_);
    return std::exchange(read_, {});
  }
  bool name(InodeId parent, std::string_view name) const {
    if (!active_.load()) return false;
    std::shared_lock lock(mutex_);
    return touched_ != nullptr && touched_->name(parent, name);
  }
  bool inode(InodeId inode) const {
    if (!active_.load()) return false;
    std::shared_lock lock(mutex_);
    return touched_ != nullptr && touched_->inode(inode);
  }

 private:
  void note(InodeId inode, uint64_t offset, uint64_t length);

  mutable std::shared_mutex mutex_;
  const Touched* touched_ = nullptr;
  std::vector<TouchedInode> read_;  // at most one for each range of touched_, or each inode
  std::atomic<bool> active_{false};
};

}  // namespace reprise::fuse

// Random operations on a small tree, and short ways to write some: what tests of the tree share.
#pragma once

#include <random>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "fs/operation.h"
#include "fs/tree.h"

namespace reprise::fs {

inline Timestamp at(int64_t second) {
  return {second, 7};
}

inline Create make_file(InodeId parent, std::string_view name, InodeId inode, int64_t second = 1) {
  return {.parent = parent, .name = name, .inode = inode, .mode = S_IFREG | 0644, .time = at(second)};
}
inline Create make_directory(InodeId parent, std::string_view name, InodeId inode, int64_t second = 1) {
  return {.parent = parent, .name = name, .inode = inode, .mode = S_IFDIR | 0755, .time = at(second)};
}
// Random operations that may or may not apply; owns the strings that an operation points to.
class Chance {
 public:
  explicit Chance(uint32_t seed) : random_(seed) {}

  Operation next() {
    name_ = name();
    other_name_ = name();
    Timestamp time = at(++second_);
    switch (pick(13)) {
      case 0:
      case 1:
        return make_file(inode(), name_, InodeId{2 + pick(80)}, second_);
      case 2:
        return make_directory(inode(), name_, InodeId{2 + pick(80)}, second_);
      case 3:
        return Create{inode(), name_, InodeId{2 + pick(80)}, S_IFLNK | 0777, 1, 2, 0, other_name_, time};
      case 4:
        return Link{inode(), name_, inode(), time};
      case 5:
        return Unlink{inode(), name_, inode(), time};
      case 6:
        return Rmdir{inode(), name_, inode(), time};
      case 7:
        return Rename{inode(),      name_, inode(), other_name_, inode(), pick(2) == 0 ? inode() : InodeId{},
                      pick(3) == 0, time};
      case 8:
        return SetAttributes{
            inode(), static_cast<uint32_t>(pick(64)), static_cast<uint32_t>(pick(07777)), 3, 4, time, time,
            time};
      case 9:
        return Truncate{inode(), offset(), time};
      case 10:
        return Allocate{
            inode(), static_cast<RangeChange>(pick(5)), pick(2) == 0, block_offset(), block_offset() + 4096,
            time};
      case 11:
        return CopyRange{inode(), block_offset(), inode(), block_offset(), offset(), time};
      default:
        data_.resize(pick(3) == 0 ? 1 + pick(30000) : 1 + pick(64));
        for (std::byte& b : data_) b = static_cast<std::byte>(pick(4) == 0 ? 0 : pick(256));
        return Write{inode(), offset(), data_, time};
    }
  }
  // A random operation that names what is really there, so that it mostly applies.
  Operation likely(const Tree& tree) {
    Operation operation = next();
    std::vector<std::pair<InodeId, Dentry>> entries;
    std::vector<InodeId> files, directories;
    tree.for_each_inode([&](const Attributes& a) {
      (a.is_directory() ? directories : files).push_back(a.inode);
      if (!a.is_directory()) return;
      (void)tree.read_directory(a.inode, 0, [&](const Dentry& d) {
        entries.emplace_back(a.inode, d);
        return true;
      });
    });
    auto& dirs = directories;
    if (auto* op = std::get_if<Create>(&operation)) op->parent = dirs[pick(dirs.size())];
    if (auto* op = std::get_if<Link>(&operation)) op->parent = dirs[pick(dirs.size())];
    if (!files.empty()) {
      if (auto* op = std::get_if<Truncate>(&operation)) op->inode = files[pick(files.size())];
      if (auto* op = std::get_if<Allocate>(&operation)) op->inode = files[pick(files.size())];
      if (auto* op = std::get_if<Link>(&operation)) op->inode = files[pick(files.size())];
      if (auto* op = std::get_if<Write>(&operation)) op->inode = files[pick(files.size())];
      if (auto* op = std::get_if<CopyRange>(&operation))
        op->to = files[pick(files.size())], op->from = files[pick(files.size())];
    }
    if (!entries.empty()) {
      auto& [parent, dentry] = entries[pick(entries.size())];
      name_ = dentry.name;
      if (auto* op = std::get_if<Unlink>(&operation)) *op = {parent, name_, dentry.inode, op->time};
      if (auto* op = std::get_if<Rmdir>(&operation)) *op = {parent, name_, dentry.inode, op->time};
      if (auto* op = std::get_if<Rename>(&operation)) {
        auto& [to, target] = entries[pick(entries.size())];
        op->old_parent = parent, op->old_name = name_, op->inode = dentry.inode;
        op->new_parent = op->replaced ? to : dirs[pick(dirs.size())];
        if (op->replaced) other_name_ = target.name, op->new_name = other_name_, op->replaced = target.inode;
      }
    }
    return operation;
  }
  uint64_t pick(uint64_t n) { return random_() % n; }

 private:
  std::string name() { return std::string(1, static_cast<char>('a' + pick(14))); }
  InodeId inode() { return InodeId{1 + pick(40)}; }
  uint64_t offset() { return pick(4) == 0 ? pick(400000) : pick(6000); }
  uint64_t block_offset() { return pick(10) * 4096; }

  std::mt19937_64 random_;
  int64_t second_ = 0;
  std::string name_, other_name_;
  Bytes data_;
};

// A history that goes on; every inode has an id of its own. With a clock that `stands` nothing but what was
// done shows that it was.
inline void live_on(Head& head, Chance& chance, int operations, uint64_t& next_inode, bool stands) {
  for (int i = 0; i < operations; i++) {
    Operation operation = chance.likely(head);
    if (auto* create = std::get_if<Create>(&operation)) create->inode = InodeId{next_inode++};
    auto stop = [](auto& any) {
      if constexpr (requires { any.time; }) any.time = at(1);
    };
    if (stands) std::visit(stop, operation);
    static_cast<void>(head.apply(operation));
    for (InodeId inode : head.take_unlinked()) head.remove_unlinked(inode);
  }
}

}  // namespace reprise::fs

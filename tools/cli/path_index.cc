#include "tools/cli/path_index.h"

#include <fmt/format.h>

namespace reprise::cli {

PathIndex::PathIndex(const fs::Tree& tree) {
  tree.for_each_inode([&](const fs::Attributes& attributes) {
    if (!attributes.is_directory()) return;
    auto read = tree.read_directory(attributes.inode, 0, [&](const fs::Dentry& dentry) {
      places_[dentry.inode] = {attributes.inode, std::string(dentry.name)};
      return true;
    });
    CHECK(read.has_value());
  });
}

void PathIndex::drop(InodeId inode, InodeId parent, std::string_view name) {
  auto place = places_.find(inode);
  if (place != places_.end() && place->second.parent == parent && place->second.name == name)
    places_.erase(place);
}

void PathIndex::follow(const fs::Operation& operation) {
  if (auto* op = std::get_if<fs::Create>(&operation))
    places_[op->inode] = {op->parent, std::string(op->name)};
  if (auto* op = std::get_if<fs::Link>(&operation)) places_[op->inode] = {op->parent, std::string(op->name)};
  if (auto* op = std::get_if<fs::Unlink>(&operation)) drop(op->inode, op->parent, op->name);
  if (auto* op = std::get_if<fs::Rmdir>(&operation)) drop(op->inode, op->parent, op->name);
  if (auto* op = std::get_if<fs::Rename>(&operation)) {
    if (op->exchange) {
      places_[op->replaced] = {op->old_parent, std::string(op->old_name)};
    } else if (op->replaced) {
      drop(op->replaced, op->new_parent, op->new_name);
    }
    places_[op->inode] = {op->new_parent, std::string(op->new_name)};
  }
}

void PathIndex::undo(const fs::Operation& operation) {
  if (auto* op = std::get_if<fs::Create>(&operation)) drop(op->inode, op->parent, op->name);
  if (auto* op = std::get_if<fs::Link>(&operation)) drop(op->inode, op->parent, op->name);
  if (auto* op = std::get_if<fs::Unlink>(&operation))
    places_[op->inode] = {op->parent, std::string(op->name)};
  if (auto* op = std::get_if<fs::Rmdir>(&operation)) places_[op->inode] = {op->parent, std::string(op->name)};
  if (auto* op = std::get_if<fs::Rename>(&operation)) {
    places_[op->inode] = {op->old_parent, std::string(op->old_name)};
    if (op->replaced) places_[op->replaced] = {op->new_parent, std::string(op->new_name)};
  }
}

std::string PathIndex::path_of(InodeId inode) const {
  if (inode == kRootInode) return "/";
  std::string path;
  // Bounded, in case a journal of unknown origin says that directories lie in each other.
  for (int depth = 0; depth < 4096; depth++) {
    auto place = places_.find(inode);
    if (place == places_.end()) return fmt::format("#{}{}", inode.value, path);
    path.insert(0, "/" + printable(place->second.name));
    inode = place->second.parent;
    if (inode == kRootInode) return path;
  }
  return "#…" + path;
}

std::string PathIndex::path_of(InodeId parent, std::string_view name) const {
  std::string directory = path_of(parent);
  return directory == "/" ? "/" + printable(name) : directory + "/" + printable(name);
}

}  // namespace reprise::cli

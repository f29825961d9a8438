#include "instance/path_index.h"

#include <fmt/format.h>

namespace reprise::instance {
namespace {

constexpr int kDepthMax = 4096;

}  // namespace

PathIndex::PathIndex(const fs::Tree& tree) {
  tree.for_each_inode([&](const fs::Attributes& attributes) {
    if (!attributes.is_directory()) return;
    auto read = tree.read_directory(attributes.inode, 0, [&](const fs::Dentry& dentry) {
      put(dentry.inode, attributes.inode, dentry.name);
      return true;
    });
    CHECK(read.has_value());
  });
}

void PathIndex::put(InodeId inode, InodeId parent, std::string_view name) {
  auto [place, is_new] = places_.try_emplace(inode);
  if (!is_new) others_.emplace(inode, std::move(place->second));
  place->second = {parent, std::string(name)};
}

void PathIndex::drop(InodeId inode, InodeId parent, std::string_view name) {
  auto is_it = [&](const Place& place) { return place.parent == parent && place.name == name; };
  auto place = places_.find(inode);
  if (place == places_.end()) return;
  auto [other, end] = others_.equal_range(inode);
  if (!is_it(place->second)) {
    while (other != end && !is_it(other->second)) ++other;
    if (other != end) others_.erase(other);
  } else if (other != end) {
    place->second = std::move(other->second);
    others_.erase(other);
  } else {
    places_.erase(place);
  }
}

void PathIndex::follow(const fs::Operation& operation) {
  if (auto* op = std::get_if<fs::Create>(&operation)) put(op->inode, op->parent, op->name);
  if (auto* op = std::get_if<fs::Link>(&operation)) put(op->inode, op->parent, op->name);
  if (auto* op = std::get_if<fs::Unlink>(&operation)) drop(op->inode, op->parent, op->name);
  if (auto* op = std::get_if<fs::Rmdir>(&operation)) drop(op->inode, op->parent, op->name);
  if (auto* op = std::get_if<fs::Rename>(&operation)) {
    if (op->replaced) drop(op->replaced, op->new_parent, op->new_name);
    drop(op->inode, op->old_parent, op->old_name);
    put(op->inode, op->new_parent, op->new_name);
    if (op->exchange) put(op->replaced, op->old_parent, op->old_name);
  }
}

void PathIndex::undo(const fs::Operation& operation) {
  if (auto* op = std::get_if<fs::Create>(&operation)) drop(op->inode, op->parent, op->name);
  if (auto* op = std::get_if<fs::Link>(&operation)) drop(op->inode, op->parent, op->name);
  if (auto* op = std::get_if<fs::Unlink>(&operation)) put(op->inode, op->parent, op->name);
  if (auto* op = std::get_if<fs::Rmdir>(&operation)) put(op->inode, op->parent, op->name);
  if (auto* op = std::get_if<fs::Rename>(&operation)) {
    if (op->exchange) drop(op->replaced, op->old_parent, op->old_name);
    drop(op->inode, op->new_parent, op->new_name);
    put(op->inode, op->old_parent, op->old_name);
    if (op->replaced) put(op->replaced, op->new_parent, op->new_name);
  }
}

std::string PathIndex::path_of(InodeId inode) const {
  if (inode == kRootInode) return "/";
  std::string path;
  // Bounded, in case a journal of unknown origin says that directories lie in each other.
  for (int depth = 0; depth < kDepthMax; depth++) {
    auto place = places_.find(inode);
    if (place == places_.end()) return fmt::format("#{}{}", inode.value, path);
    path.insert(0, "/" + printable(place->second.name));
    inode = place->second.parent;
    if (inode == kRootInode) return path;
  }
  return "#…" + path;
}

std::optional<std::string> PathIndex::find_path(InodeId inode) const {
  std::string path;
  for (int depth = 0; depth < kDepthMax; depth++) {
    if (inode == kRootInode) return path.empty() ? "/" : path;
    auto place = places_.find(inode);
    if (place == places_.end()) return std::nullopt;
    path.insert(0, "/" + place->second.name);
    inode = place->second.parent;
  }
  return std::nullopt;
}

std::optional<std::string> PathIndex::find_path(InodeId parent, std::string_view name) const {
  auto directory = find_path(parent);
  if (!directory) return std::nullopt;
  return (*directory == "/" ? "/" : *directory + "/") + std::string(name);
}

std::string PathIndex::path_of(InodeId parent, std::string_view name) const {
  std::string directory = path_of(parent);
  return directory == "/" ? "/" + printable(name) : directory + "/" + printable(name);
}

}  // namespace reprise::instance

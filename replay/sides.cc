#include "replay/sides.h"

#include <dirent.h>
#include <sys/stat.h>

#include <vector>

namespace reprise::replay {

bool is_gone(const fs::ChangedInode& changed) {
  return !changed.after || changed.after->nlink == 0;
}

bool is_directory(const fs::ChangedInode& changed) {
  return S_ISDIR((changed.before ? changed.before : changed.after)->mode);
}

bool changed_itself(const fs::ChangedInode& changed) {
  if (!changed.before || !changed.after) return true;
  const fs::Attributes &before = *changed.before, &after = *changed.after;
  return changed.xattrs || before.mode != after.mode || before.uid != after.uid || before.gid != after.gid;
}

bool exclude_each_other(const fs::ChangedInode& one, const fs::ChangedInode& other) {
  bool only_entries = is_directory(one) && !is_gone(one) && !is_gone(other) &&
                      !(changed_itself(one) && changed_itself(other));
  return !only_entries;
}

void Side::note_renamed(const fs::Tree& base, std::optional<InodeId> inode) {
  if (!inode || inodes.contains(*inode)) return;
  auto stat = [&](const fs::Tree& in) {
    auto found = in.stat(*inode);
    return found ? std::optional(*found) : std::nullopt;
  };
  inodes.emplace(*inode, fs::ChangedInode{.inode = *inode, .before = stat(base), .after = stat(tree)});
}

Side side_of(const fs::Tree& base, const fs::Tree& tree) {
  Side side{.tree = tree, .inodes = {}, .names = {}, .moved_directories = {}};
  fs::for_each_changed_inode(base, tree, [&](const fs::ChangedInode& changed) {
    side.inodes.emplace(changed.inode, changed);
    return true;
  });
  std::vector<InodeId> directories;
  for (const auto& [inode, changed] : side.inodes)
    if (changed.names) directories.push_back(inode);
  for (InodeId inode : directories) {
    fs::for_each_changed_name(base, tree, inode, [&](const fs::ChangedName& name) {
      side.names.emplace(NameIn(inode, name.name),
                         MeaningOfName{name.before.value_or(InodeId{}), name.after.value_or(InodeId{})});
      if (name.after && name.type_after == DT_DIR && base.stat(*name.after))
        side.moved_directories.insert(*name.after);
      side.note_renamed(base, name.before);
      side.note_renamed(base, name.after);
      return true;
    });
  }
  return side;
}

// Depth first with a stack of its own: trees may be deeper than this thread's stack.
void Paths::add(const fs::Tree& tree, std::set<InodeId>& wanted) {
  std::vector<std::pair<InodeId, std::string>> todo{{kRootInode, ""}};
  while (!todo.empty() && !wanted.empty()) {
    auto [directory, at] = std::move(todo.back());
    todo.pop_back();
    if (wanted.erase(directory) > 0) paths_.try_emplace(directory, at.empty() ? "/" : at);
    auto listed = tree.read_directory(directory, 0, [&](const fs::Dentry& entry) {
      std::string below = at + "/" + std::string(entry.name);
      if (entry.type == DT_DIR) {
        todo.emplace_back(entry.inode, std::move(below));
      } else if (wanted.erase(entry.inode) > 0) {
        paths_.try_emplace(entry.inode, std::move(below));
      }
      return true;
    });
    static_cast<void>(listed);  // a directory that a name leads to is one
  }
}

std::string Paths::of(InodeId inode) const {
  auto found = paths_.find(inode);
  return found != paths_.end() ? found->second : "(an inode without a name)";
}

std::string Paths::of(InodeId directory, const std::string& name) const {
  std::string path = of(directory);
  return (path == "/" ? "" : path) + "/" + name;
}

}  // namespace reprise::replay

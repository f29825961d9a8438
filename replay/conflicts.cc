#include "replay/conflicts.h"

#include <dirent.h>
#include <sys/stat.h>

#include <algorithm>
#include <map>
#include <set>
#include <unordered_map>
#include <utility>

#include "fs/diff.h"

namespace reprise::replay {
namespace {

using Changes = std::unordered_map<InodeId, fs::ChangedInode>;
using NameIn = std::pair<InodeId, std::string>;

struct Side {
  const fs::Tree& tree;
  Changes inodes;
  std::set<NameIn> names;
  std::set<InodeId> moved_directories;  // that `base` has elsewhere
};

bool is_gone(const fs::ChangedInode& changed) {
  return !changed.after || changed.after->nlink == 0;
}

bool is_directory(const fs::ChangedInode& changed) {
  return S_ISDIR((changed.before ? changed.before : changed.after)->mode);
}

// More than what its entries coming and going do to a directory.
bool changed_itself(const fs::ChangedInode& changed) {
  if (!changed.before || !changed.after) return true;
  const fs::Attributes &before = *changed.before, &after = *changed.after;
  return changed.xattrs || before.mode != after.mode || before.uid != after.uid || before.gid != after.gid;
}

Side side_of(const fs::Tree& base, const fs::Tree& tree) {
  Side side{.tree = tree, .inodes = {}, .names = {}, .moved_directories = {}};
  fs::for_each_changed_inode(base, tree, [&](const fs::ChangedInode& changed) {
    side.inodes.emplace(changed.inode, changed);
    return true;
  });
  for (const auto& [inode, changed] : side.inodes) {
    if (!changed.names) continue;
    fs::for_each_changed_name(base, tree, inode, [&](const fs::ChangedName& name) {
      side.names.emplace(inode, name.name);
      if (name.after && name.type_after == DT_DIR && base.stat(*name.after))
        side.moved_directories.insert(*name.after);
      return true;
    });
  }
  return side;
}

// Paths of inodes and of names in directories, found in one walk.
class Paths {
 public:
  void add(const fs::Tree& tree, std::set<InodeId> wanted) { walk(tree, kRootInode, "", wanted); }
  std::string of(InodeId inode) const {
    auto found = paths_.find(inode);
    return found != paths_.end() ? found->second : "(an inode without a name)";
  }

 private:
  // Depth first with a stack of its own: trees may be deeper than this thread's stack.
  void walk(const fs::Tree& tree, InodeId top, const std::string& path, std::set<InodeId>& wanted) {
    std::vector<std::pair<InodeId, std::string>> todo{{top, path}};
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

  std::unordered_map<InodeId, std::string> paths_;
};

struct Found {
  InodeId inode;
  std::string name;  // in that directory; "" if the inode itself is meant
  std::string what;
};

const char* what_of(const fs::ChangedInode& ours, const fs::ChangedInode& theirs) {
  if (is_gone(ours) && is_gone(theirs)) return "both removed it";
  if (is_gone(ours)) return "removed here, changed in the branch";
  if (is_gone(theirs)) return "changed here, removed in the branch";
  return "both changed it";
}

void compare_inodes(const Side& ours, const Side& theirs, std::vector<Found>& found) {
  for (const auto& [inode, there] : theirs.inodes) {
    auto here = ours.inodes.find(inode);
    if (here == ours.inodes.end()) continue;
    const fs::ChangedInode& mine = here->second;
    bool only_entries = is_directory(mine) && !is_gone(mine) && !is_gone(there) &&
                        !(changed_itself(mine) && changed_itself(there));
    if (!only_entries) found.push_back({inode, "", what_of(mine, there)});
  }
}

void compare_names(const Side& ours, const Side& theirs, std::vector<Found>& found) {
  for (const NameIn& name : theirs.names) {
    if (ours.names.contains(name)) found.push_back({name.first, name.second, "both changed what it names"});
  }
}

// Of two moves each may be possible alone and both together make a circle.
void compare_moves(const Side& ours, const Side& theirs, std::vector<Found>& found) {
  if (ours.moved_directories.empty() || theirs.moved_directories.empty()) return;
  for (InodeId inode : ours.moved_directories)
    found.push_back({inode, "", "moved here, while the branch moved a directory, too"});
  for (InodeId inode : theirs.moved_directories)
    found.push_back({inode, "", "moved in the branch, while a directory was moved here, too"});
}

}  // namespace

std::vector<Conflict> find_conflicts(const fs::Tree& base, const fs::Tree& ours, const fs::Tree& theirs) {
  Side here = side_of(base, ours), there = side_of(base, theirs);
  std::vector<Found> found;
  compare_inodes(here, there, found);
  compare_names(here, there, found);
  compare_moves(here, there, found);
  if (found.empty()) return {};
  std::set<InodeId> wanted;
  for (const Found& one : found) wanted.insert(one.inode);
  Paths paths;
  paths.add(ours, wanted);
  paths.add(base, wanted);
  std::vector<Conflict> conflicts;
  for (const Found& one : found) {
    std::string path = paths.of(one.inode);
    if (!one.name.empty()) path += (path == "/" ? "" : "/") + one.name;
    conflicts.push_back({std::move(path), one.what});
  }
  std::ranges::sort(conflicts);
  auto repeated = std::ranges::unique(conflicts);
  conflicts.erase(repeated.begin(), repeated.end());
  return conflicts;
}

}  // namespace reprise::replay

#include "replay/conflicts.h"

#include <algorithm>
#include <set>

#include "replay/sides.h"

namespace reprise::replay {
namespace {

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
    if (exclude_each_other(mine, there)) found.push_back({inode, "", what_of(mine, there)});
  }
}

void compare_names(const Side& ours, const Side& theirs, std::vector<Found>& found) {
  for (const auto& [name, meaning] : theirs.names) {
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
    std::string path = one.name.empty() ? paths.of(one.inode) : paths.of(one.inode, one.name);
    conflicts.push_back({std::move(path), one.what});
  }
  std::ranges::sort(conflicts);
  auto repeated = std::ranges::unique(conflicts);
  conflicts.erase(repeated.begin(), repeated.end());
  return conflicts;
}

}  // namespace reprise::replay

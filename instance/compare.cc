#include "instance/compare.h"

#include <algorithm>
#include <map>
#include <unordered_map>
#include <unordered_set>

#include "base/check.h"
#include "fs/diff.h"
#include "fs/lazy_node.h"
#include "instance/snapshots.h"

namespace reprise::instance {
namespace {

struct Entry {
  std::string path;
  InodeId inode;
};
using Names = std::map<std::string, InodeId, std::less<>>;

std::string join(const std::string& directory, std::string_view name) {
  return directory.empty() ? std::string(name) : directory + "/" + std::string(name);
}
std::string_view directory_of(std::string_view path) {
  size_t slash = path.rfind('/');
  return slash == std::string_view::npos ? std::string_view{} : path.substr(0, slash);
}
std::string_view name_of(std::string_view path) {
  return path.substr(path.rfind('/') + 1);
}

class Comparison {
 public:
  Comparison(const fs::Tree& before, const fs::Tree& after, const CompareOptions& options)
      : before_(before), after_(after), options_(options) {}

  std::vector<PathDifference> run() {
    rest_.push_back({"", kRootInode, kRootInode});
    while (!rest_.empty()) {
      Pair pair = std::move(rest_.back());
      rest_.pop_back();
      compare_names(pair);
    }
    find_renames();
    find_replaced();
    for (const Entry& entry : deleted_) {
      changes_.push_back(
          {.path = entry.path, .old_path = {}, .before = *before_.stat(entry.inode), .after = {}});
    }
    for (const Entry& entry : added_) {
      changes_.push_back(
          {.path = entry.path, .old_path = {}, .before = {}, .after = *after_.stat(entry.inode)});
    }
    std::ranges::sort(changes_, [](const PathDifference& a, const PathDifference& b) {
      return a.path != b.path ? a.path < b.path : a.deleted() && !b.deleted();
    });
    return std::move(changes_);
  }

 private:
  struct Pair {
    std::string path;
    InodeId before, after;
  };

  static Names names_in(const fs::Tree& tree, InodeId directory) {
    Names names;
    auto read = tree.read_directory(directory, 0, [&](const fs::Dentry& entry) {
      names.emplace(entry.name, entry.inode);
      return true;
    });
    CHECK(read);
    return names;
  }

  void compare_names(const Pair& directory) {
    Names before = names_in(before_, directory.before), after = names_in(after_, directory.after);
    for (const auto& [name, inode] : before) {
      auto now = after.find(name);
      std::string path = join(directory.path, name);
      if (now == after.end() || (options_.one_volume && now->second != inode)) {
        list(before_, {path, inode}, deleted_);
      } else {
        compare_entry(path, {}, inode, now->second);
        bool directories = before_.stat(inode)->is_directory() && after_.stat(now->second)->is_directory();
        if (directories) rest_.push_back({path, inode, now->second});
      }
    }
    for (const auto& [name, inode] : after) {
      auto then = before.find(name);
      if (then == before.end() || (options_.one_volume && then->second != inode))
        list(after_, {join(directory.path, name), inode}, added_);
    }
  }

  // An entry and all that is below it, parents first.
  static void list(const fs::Tree& tree, Entry top, std::vector<Entry>& into) {
    size_t next = into.size();
    into.push_back(std::move(top));
    for (; next < into.size(); next++) {
      Entry entry = into[next];
      if (!tree.stat(entry.inode)->is_directory()) continue;
      for (const auto& [name, inode] : names_in(tree, entry.inode))
        into.push_back({join(entry.path, name), inode});
    }
  }

  // A name that both have, but not what is below it; `old_path` if it was moved.
  void compare_entry(const std::string& path, const std::string& old_path, InodeId before, InodeId after) {
    PathDifference change{
        .path = path, .old_path = old_path, .before = *before_.stat(before), .after = *after_.stat(after)};
    const fs::Attributes &a = *change.before, &b = *change.after;
    bool same_type = !change.type_changed();
    change.content = !same_type || (!a.is_directory() && !same_content(a, b));
    change.attributes = (a.mode & 07777) != (b.mode & 07777) || (options_.one_volume && more_differs(a, b));
    if (change.content || change.attributes || change.renamed() || !same_type)
      changes_.push_back(std::move(change));
  }

  bool same_content(const fs::Attributes& a, const fs::Attributes& b) const {
    if (a.is_symlink()) return *before_.read_link(a.inode) == *after_.read_link(b.inode);
    if (S_ISCHR(a.mode) || S_ISBLK(a.mode)) return a.rdev == b.rdev;
    bool same = true;
    fs::for_each_changed_range(before_, a.inode, after_, b.inode,
                               [&](uint64_t, uint64_t) { return same = false; });
    return same;
  }

  // Times follow from what was done to bytes and names; told apart only where nothing else was done.
  bool more_differs(const fs::Attributes& a, const fs::Attributes& b) const {
    if (a.uid != b.uid || a.gid != b.gid || xattrs_of(before_, a.inode) != xattrs_of(after_, b.inode))
      return true;
    return !a.is_directory() && a.mtime != b.mtime && same_content(a, b);
  }
  static std::map<std::string, std::string> xattrs_of(const fs::Tree& tree, InodeId inode) {
    std::map<std::string, std::string> xattrs;
    (void)tree.list_xattrs(
        inode, [&](std::string_view name, ByteView value) { xattrs.emplace(name, as_text(value)); });
    return xattrs;
  }

  // A name that went and one that came and mean the same inode are one that moved. What lies below a
  // directory that moved has come along, unless it is called otherwise there.
  void find_renames() {
    if (!options_.one_volume) return;
    std::unordered_multimap<InodeId, size_t> gone;
    for (size_t i = deleted_.size(); i-- > 0;) gone.emplace(deleted_[i].inode, i);
    std::vector<bool> matched(deleted_.size());
    std::unordered_map<std::string, std::string> moved;  // directories: old path → new path
    std::vector<Entry> still_added;
    for (const Entry& entry : added_) {
      auto found = gone.find(entry.inode);
      if (found == gone.end()) {
        still_added.push_back(entry);
        continue;
      }
      const std::string& old_path = deleted_[found->second].path;
      matched[found->second] = true;
      gone.erase(found);
      if (after_.stat(entry.inode)->is_directory()) moved.emplace(old_path, entry.path);
      auto above = moved.find(std::string(directory_of(old_path)));
      bool came_along = above != moved.end() && join(above->second, name_of(old_path)) == entry.path;
      compare_entry(entry.path, came_along && !options_.list_moved ? std::string{} : old_path, entry.inode,
                    entry.inode);
    }
    std::vector<Entry> still_deleted;
    for (size_t i = 0; i < deleted_.size(); i++) {
      if (!matched[i]) still_deleted.push_back(deleted_[i]);
    }
    added_ = std::move(still_added);
    deleted_ = std::move(still_deleted);
  }

  // A name under which there is something else now, as editors replace files, is a change of that name.
  void find_replaced() {
    std::unordered_map<std::string, InodeId> gone;
    for (const Entry& entry : deleted_) gone.emplace(entry.path, entry.inode);
    std::unordered_set<std::string> replaced;
    for (const Entry& entry : added_) {
      auto found = gone.find(entry.path);
      if (found == gone.end()) continue;
      compare_entry(entry.path, {}, found->second, entry.inode);
      replaced.insert(entry.path);
    }
    auto is_replaced = [&](const Entry& entry) { return replaced.contains(entry.path); };
    std::erase_if(deleted_, is_replaced);
    std::erase_if(added_, is_replaced);
  }

  const fs::Tree& before_;
  const fs::Tree& after_;
  const CompareOptions& options_;
  std::vector<Pair> rest_;
  std::vector<Entry> deleted_, added_;
  std::vector<PathDifference> changes_;
};

}  // namespace

Result<std::vector<PathDifference>> compare(const fs::Tree& before, const fs::Tree& after,
                                            const CompareOptions& options) {
  for (const fs::Tree* tree : {&before, &after}) TRY(load_names(*tree));
  fs::take_load_failure();
  std::vector<PathDifference> changes = Comparison(before, after, options).run();
  if (fs::take_load_failure()) return cannot_be_loaded();
  return changes;
}

}  // namespace reprise::instance

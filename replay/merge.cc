#include "replay/merge.h"

#include <algorithm>
#include <set>
#include <unordered_map>
#include <unordered_set>

#include "base/check.h"
#include "fs/transition.h"
#include "replay/sides.h"

namespace reprise::replay {
namespace {

using Name = std::pair<const NameIn, MeaningOfName>;

bool is_there(const fs::Tree& tree, InodeId inode) {
  auto found = tree.stat(inode);
  return found && found->nlink > 0;
}
bool is_directory(const fs::Tree& tree, InodeId inode) {
  auto found = tree.stat(inode);
  return found && found->is_directory();
}

// Of what the one that yields has done to names: which of it can be done to the tree of the other. What
// happens to the names of one inode is done together, or not at all; a new inode may do without some.
class Choice {
 public:
  Choice(const fs::Tree& base, const Side& kept, const Side& yields)
      : base_(base), kept_(kept), yields_(yields) {
    for (const Name& name : yields_.names) {
      if (name.second.before) of_[name.second.before].removed.insert(&name);
      if (name.second.after) of_[name.second.after].added.insert(&name);
    }
    for (const auto& [inode, names] : of_)
      if (is_excluded(inode)) drop(inode);
    while (drop_what_has_no_place()) {
    }
  }

  bool takes_away(const Name& name) const {
    return name.second.before && of_.at(name.second.before).removed.contains(&name);
  }
  bool puts(const Name& name) const {
    return name.second.after && of_.at(name.second.after).added.contains(&name);
  }

 private:
  struct Names {
    std::set<const Name*> removed, added;
  };

  bool is_known(InodeId inode) const { return is_there(base_, inode); }
  bool is_moved_directory(InodeId inode) const { return yields_.moved_directories.contains(inode); }

  // By what the other has done to the inode itself.
  bool is_excluded(InodeId inode) const {
    if (!is_known(inode)) return false;
    if (is_moved_directory(inode) && !kept_.moved_directories.empty())
      return true;  // a circle might come of it
    auto here = kept_.inodes.find(inode);
    if (here == kept_.inodes.end()) return false;
    if (!is_directory(base_, inode)) return true;
    bool moved = kept_.moved_directories.contains(inode) || is_gone(here->second);
    return moved || of_.at(inode).added.empty();
  }

  void drop(InodeId inode) {
    Names& names = of_.at(inode);
    bool one_of_several_moves = is_known(inode) && is_moved_directory(inode) && !names.added.empty();
    names = {};
    if (!one_of_several_moves) return;
    // Some moves without others might make a circle.
    for (InodeId other : yields_.moved_directories)
      if (auto found = of_.find(other); found != of_.end()) found->second = {};
  }

  bool drop_what_has_no_place() {
    bool dropped = false;
    for (auto& [inode, names] : of_) {
      if (names.added.empty() && names.removed.empty()) continue;
      std::vector<const Name*> without_place;
      for (const Name* name : names.added)
        if (!has_place(*name)) without_place.push_back(name);
      bool blocked = !names.removed.empty() && names.added.empty() && !may_go(inode, names.removed);
      if (without_place.empty() && !blocked) continue;
      dropped = true;
      if (names.removed.empty()) {
        for (const Name* name : without_place) names.added.erase(name);
      } else {
        drop(inode);
      }
    }
    return dropped;
  }

  // Is there the directory, and is the name in it free by then?
  bool has_place(const Name& name) const {
    const auto& [directory, text] = name.first;
    if (kept_.names.contains(name.first)) return false;
    if (is_known(directory) || is_there(kept_.tree, directory)) {
      if (!is_there(kept_.tree, directory) || goes(directory)) return false;
    } else if (of_.at(directory).added.empty()) {
      return false;
    }
    auto occupant = kept_.tree.lookup(directory, text);
    return !occupant || (name.second.before == occupant->inode && takes_away(name));
  }

  // What was replaced does not go without what came in its place.
  bool may_go(InodeId inode, const std::set<const Name*>& removed) const {
    auto is_left_open = [&](const Name* name) { return name->second.after && !puts(*name); };
    if (std::ranges::any_of(removed, is_left_open)) return false;
    return !is_directory(base_, inode) || will_be_empty(inode);
  }

  bool goes(InodeId directory) const {
    auto found = of_.find(directory);
    return found != of_.end() && !found->second.removed.empty() && found->second.added.empty();
  }

  bool will_be_empty(InodeId directory) const {
    bool empty = true;
    auto listed = kept_.tree.read_directory(directory, 0, [&](const fs::Dentry& entry) {
      auto name = yields_.names.find(NameIn(directory, entry.name));
      empty = name != yields_.names.end() && name->second.before == entry.inode && takes_away(*name);
      return empty;
    });
    return listed && empty;
  }

  const fs::Tree& base_;
  const Side &kept_, &yields_;
  std::unordered_map<InodeId, Names> of_;
};

// Puts what is taken over into a tree, under the ids that it has.
class OntoHead final : public fs::TransitionTarget {
 public:
  explicit OntoHead(fs::Head& head) : head_(head) {}
  InodeId new_inode(InodeId wanted) override { return wanted ? wanted : InodeId{~uint64_t{0}}; }
  void apply(const fs::Operation& operation) override {
    CHECK(head_.apply(operation));
    for (InodeId inode : head_.take_unlinked()) head_.remove_unlinked(inode);
  }

 private:
  fs::Head& head_;
};

// Or when it was changed or read: more than what links coming and going do to a file.
bool changed_bytes(const fs::ChangedInode& changed) {
  return changed.content || changed.before->mtime != changed.after->mtime ||
         changed.before->atime != changed.after->atime;
}

// A directory whose entries both have changed is as young as the younger.
fs::Attributes attributes_of(const fs::Attributes& kept, const fs::ChangedInode& yields, bool taken) {
  fs::Attributes merged = taken ? *yields.after : kept;
  if (!kept.is_directory()) return merged;
  auto younger = [](Timestamp a, Timestamp b) {
    return std::pair(a.sec, a.nsec) < std::pair(b.sec, b.nsec) ? b : a;
  };
  merged.mtime = younger(kept.mtime, yields.after->mtime);
  merged.ctime = younger(kept.ctime, yields.after->ctime);
  return merged;
}

class Merging {
 public:
  Merging(const fs::Tree& base, const fs::View& kept, const fs::View& yields)
      : kept_view_(kept),
        kept_(side_of(base, kept)),
        yields_(side_of(base, yields)),
        choice_(base, kept_, yields_) {}

  fs::Outcome<Merged> run() {
    choose_names();
    choose_inodes();
    fs::Head head(kept_view_);
    OntoHead target(head);
    TRY(fs::Transition(kept_view_, yields_.tree, changes_).make(target));
    head.settle();
    return Merged{std::move(head), list()};
  }

 private:
  void leave_out(InodeId directory, std::string name, std::string what) {
    left_out_.push_back({directory, std::move(name), std::move(what)});
  }

  void choose_names() {
    for (const Name& name : yields_.names) {
      const auto& [directory, text] = name.first;
      bool takes_away = choice_.takes_away(name), puts = choice_.puts(name);
      if (takes_away || puts) {
        changes_.names.push_back({directory, text, takes_away ? name.second.before : InodeId{},
                                  puts ? name.second.after : InodeId{}});
      }
      if (name.second.after && !puts) leave_out(directory, text, "made, or renamed to this, there");
      bool is_still_there = !takes_away && kept_.tree.lookup(directory, text);
      if (name.second.before && !name.second.after && is_still_there)
        leave_out(directory, text, "removed, or renamed, there");
    }
  }

  // Of what both still have.
  void choose_inodes() {
    for (const auto& [inode, changed] : yields_.inodes) {
      if (!changed.before || is_gone(changed)) continue;
      auto here = kept_.inodes.find(inode);
      bool also_here = here != kept_.inodes.end();
      bool taken = !also_here || !exclude_each_other(here->second, changed);
      if (changed.before->is_directory() && also_here) taken = taken && !changed_itself(here->second);
      bool says_more = changed_itself(changed) || (!changed.before->is_directory() && changed_bytes(changed));
      if (!taken && says_more && exclude_each_other(here->second, changed))
        leave_out(inode, "", "changed there");
      if (!is_there(kept_.tree, inode)) continue;
      bool only_times = changed.before->is_directory() && !is_gone(changed);
      if (!taken && !only_times) continue;
      changes_.inodes.push_back({inode, taken && changed.content && !changed.before->is_directory(),
                                 taken && changed.xattrs,
                                 attributes_of(*kept_.tree.stat(inode), changed, taken)});
    }
  }

  std::vector<Merged::LeftOut> list() const {
    std::set<InodeId> wanted;
    for (const LeftOut& one : left_out_) wanted.insert(one.inode);
    Paths paths;
    paths.add(yields_.tree, wanted);
    paths.add(kept_.tree, wanted);
    std::vector<Merged::LeftOut> all;
    all.reserve(left_out_.size());
    for (const LeftOut& one : left_out_)
      all.push_back({one.name.empty() ? paths.of(one.inode) : paths.of(one.inode, one.name), one.what});
    std::ranges::sort(all);
    return all;
  }

  struct LeftOut {
    InodeId inode;  // a directory, if there is a name
    std::string name, what;
  };
  const fs::View& kept_view_;
  const Side kept_, yields_;
  const Choice choice_;
  fs::TreeChanges changes_;
  std::vector<LeftOut> left_out_;
};

}  // namespace

fs::Outcome<Merged> merge(const fs::Tree& base, const fs::View& ours, const fs::View& theirs, Winner winner) {
  return winner == Winner::kOurs ? Merging(base, ours, theirs).run() : Merging(base, theirs, ours).run();
}

}  // namespace reprise::replay

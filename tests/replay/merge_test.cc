// Two lines of history put together where both changed the same: who counts is there whole, and of the other
// what does not touch that.
#include "replay/merge.h"

#include <gtest/gtest.h>

#include "fs/diff.h"
#include "replay/conflicts.h"
#include "replay/sides.h"
#include "tests/fs/random_operations.h"

namespace reprise::replay {
namespace {

using namespace fs;

// Of what changed from `base` to `kept` nothing is otherwise in the merged tree.
void expect_all_of(const Head& base, const Head& kept, const Tree& merged) {
  for_each_changed_inode(base, kept, [&](const ChangedInode& changed) {
    InodeId inode = changed.inode;
    auto now = merged.stat(inode);
    bool gone = !changed.after || changed.after->nlink == 0;
    EXPECT_EQ(gone, !now || now->nlink == 0) << inode.value;
    if (gone || !now) return true;
    if (!changed.after->is_directory()) {
      EXPECT_EQ(now->mode, changed.after->mode);
      EXPECT_EQ(now->mtime, changed.after->mtime);
      EXPECT_EQ(now->nlink, changed.after->nlink);
      for_each_changed_range(kept, merged, inode, [&](uint64_t offset, uint64_t) {
        ADD_FAILURE() << "bytes of " << inode.value << " at " << offset;
        return true;
      });
    }
    for_each_changed_name(base, kept, inode, [&](const ChangedName& name) {
      auto found = merged.lookup(inode, name.name);
      EXPECT_EQ(found ? found->inode : InodeId{}, name.after.value_or(InodeId{})) << name.name;
      return true;
    });
    return true;
  });
}

bool same_bytes(const Tree& a, const Tree& b, InodeId inode) {
  bool same = true;
  for_each_changed_range(a, b, inode, [&](uint64_t, uint64_t) { return same = false; });
  return same;
}

bool is_linked(const Tree& tree, InodeId inode) {
  auto found = tree.stat(inode);
  return found && found->nlink > 0;
}

// Whatever the one that yields has done is in the merged tree, or said not to be, by its path.
class WhatYields {
 public:
  WhatYields(const Head& base, const Head& kept, const Head& yields, const Merged& merged)
      : base_(base), kept_(kept), yields_(yields), merged_(merged.tree) {
    for (const Merged::LeftOut& one : merged.left_out) said_.insert(one.path);
    std::set<InodeId> all;
    for (const Tree* tree : {static_cast<const Tree*>(&yields), static_cast<const Tree*>(&kept)}) {
      tree->for_each_inode([&](const Attributes& a) { all.insert(a.inode); });
      paths_.add(*tree, all);
    }
  }
  void expect_taken_or_said() {
    for_each_changed_inode(base_, yields_, [&](const ChangedInode& changed) {
      if (changed.after && changed.after->nlink > 0 && changed.before && !changed.after->is_directory())
        expect_file(changed);
      if (changed.after && changed.after->nlink > 0 && changed.before && changed.after->is_directory())
        expect_directory(changed);
      for_each_changed_name(base_, yields_, changed.inode, [&](const ChangedName& name) {
        expect_name(changed.inode, name);
        return true;
      });
      return true;
    });
  }
  // What both have is there, whatever it is called.
  void expect_nothing_lost() {
    kept_.for_each_inode([&](const Attributes& a) {
      bool both_have_it = a.nlink > 0 && is_linked(yields_, a.inode);
      EXPECT_TRUE(!both_have_it || is_linked(merged_, a.inode)) << a.inode.value;
    });
    merged_.for_each_inode([&](const Attributes& a) {
      EXPECT_TRUE(is_linked(kept_, a.inode) || is_linked(yields_, a.inode)) << a.inode.value;
    });
  }

 private:
  void expect_said(const std::string& path) { EXPECT_TRUE(said_.contains(path)) << path; }
  void expect_file(const ChangedInode& changed) {
    auto now = merged_.stat(changed.inode);
    bool taken = now && now->mode == changed.after->mode && now->uid == changed.after->uid &&
                 now->mtime == changed.after->mtime && same_bytes(yields_, merged_, changed.inode);
    // Names that come and go are a matter of their own.
    bool only_links = !changed.content && !changed_itself(changed) &&
                      changed.before->mtime == changed.after->mtime &&
                      changed.before->atime == changed.after->atime;
    if (!taken && !only_links) expect_said(paths_.of(changed.inode));
  }
  void expect_directory(const ChangedInode& changed) {
    auto now = merged_.stat(changed.inode);
    bool taken = now && now->mode == changed.after->mode && now->uid == changed.after->uid;
    if (changed_itself(changed) && !taken) expect_said(paths_.of(changed.inode));
  }
  void expect_name(InodeId directory, const ChangedName& name) {
    auto found = merged_.lookup(directory, name.name), here = kept_.lookup(directory, name.name);
    InodeId now = found ? found->inode : InodeId{}, kept = here ? here->inode : InodeId{};
    InodeId wanted = name.after.value_or(InodeId{});
    if (now == wanted) return;
    expect_said(paths_.of(directory, std::string(name.name)));
    // What is not as the one has it is as the other has it, or went where the one has it.
    EXPECT_TRUE(now == kept || (!now && is_linked(merged_, kept))) << name.name;
  }

  const Head &base_, &kept_, &yields_;
  const Tree& merged_;
  std::set<std::string> said_;
  Paths paths_;
};

class MergeOf : public testing::TestWithParam<uint32_t> {};

TEST_P(MergeOf, RandomLinesIsATreeWithAllOfWhoCounts) {
  Chance chance(GetParam());
  const bool stands = GetParam() % 2 == 0;
  Head base = Head::create(at(0));
  uint64_t next_inode = 2;
  live_on(base, chance, 120, next_inode, stands);
  for (int length : {1, 4, 20, 120}) {
    Head ours(base.view()), theirs(base.view());
    live_on(ours, chance, length, next_inode, stands);
    live_on(theirs, chance, length, next_inode, stands);
    for (Winner winner : {Winner::kOurs, Winner::kTheirs}) {
      SCOPED_TRACE(testing::Message() << length << (winner == Winner::kOurs ? " ours" : " theirs"));
      auto merged = merge(base, ours.view(), theirs.view(), winner);
      ASSERT_TRUE(merged);
      ASSERT_EQ(merged->tree.check_invariants(), "");
      const Head& kept = winner == Winner::kOurs ? ours : theirs;
      const Head& yields = winner == Winner::kOurs ? theirs : ours;
      expect_all_of(base, kept, merged->tree);
      WhatYields yielding(base, kept, yields, *merged);
      yielding.expect_taken_or_said();
      yielding.expect_nothing_lost();
      // Who is called what decides nothing but who counts.
      auto swapped =
          merge(base, theirs.view(), ours.view(), winner == Winner::kOurs ? Winner::kTheirs : Winner::kOurs);
      ASSERT_TRUE(swapped);
      EXPECT_EQ(swapped->tree.digest(), merged->tree.digest());
      EXPECT_EQ(swapped->left_out, merged->left_out);
      EXPECT_EQ(merged->tree.recompute_digest(), merged->tree.digest());
      if (!find_conflicts(base, ours, theirs).empty()) continue;
      EXPECT_TRUE(merged->left_out.empty());
      expect_all_of(base, yields, merged->tree);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Seeds, MergeOf, testing::Range(1u, 201u));

}  // namespace
}  // namespace reprise::replay

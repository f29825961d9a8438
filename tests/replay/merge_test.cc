// Two lines of history put together where both changed the same: who counts is there whole, and of the other
// what does not touch that.
#include "replay/merge.h"

#include <gtest/gtest.h>

#include "fs/diff.h"
#include "replay/conflicts.h"
#include "tests/fs/random_operations.h"

namespace reprise::replay {
namespace {

using namespace fs;

void live_on(Head& head, Chance& chance, int operations, uint64_t& next_inode) {
  for (int i = 0; i < operations; i++) {
    Operation operation = chance.likely(head);
    if (auto* create = std::get_if<Create>(&operation)) create->inode = InodeId{next_inode++};
    static_cast<void>(head.apply(operation));
    for (InodeId inode : head.take_unlinked()) head.remove_unlinked(inode);
  }
}

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

class MergeOf : public testing::TestWithParam<uint32_t> {};

TEST_P(MergeOf, RandomLinesIsATreeWithAllOfWhoCounts) {
  Chance chance(GetParam());
  Head base = Head::create(at(0));
  uint64_t next_inode = 2;
  live_on(base, chance, 120, next_inode);
  for (int length : {1, 4, 20, 120}) {
    Head ours(base.view()), theirs(base.view());
    live_on(ours, chance, length, next_inode);
    live_on(theirs, chance, length, next_inode);
    for (Winner winner : {Winner::kOurs, Winner::kTheirs}) {
      SCOPED_TRACE(testing::Message() << length << (winner == Winner::kOurs ? " ours" : " theirs"));
      auto merged = merge(base, ours.view(), theirs.view(), winner);
      ASSERT_TRUE(merged);
      ASSERT_EQ(merged->tree.check_invariants(), "");
      const Head& kept = winner == Winner::kOurs ? ours : theirs;
      const Head& yields = winner == Winner::kOurs ? theirs : ours;
      expect_all_of(base, kept, merged->tree);
      if (!find_conflicts(base, ours, theirs).empty()) continue;
      EXPECT_TRUE(merged->left_out.empty());
      expect_all_of(base, yields, merged->tree);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Seeds, MergeOf, testing::Range(1u, 201u));

}  // namespace
}  // namespace reprise::replay

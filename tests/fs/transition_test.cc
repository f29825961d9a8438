// The operations that lead from one tree to another: do they, whatever the two are?
#include "fs/transition.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "tests/fs/random_operations.h"

namespace reprise::fs {
namespace {

// Applies them to a head, under the ids that they have in the tree that is wanted, or under new ones.
class OntoHead final : public TransitionTarget {
 public:
  OntoHead(Head& head, bool keeps_ids) : head_(head), keeps_ids_(keeps_ids) {}
  InodeId new_inode(InodeId wanted) override {
    return keeps_ids_ && wanted ? wanted : InodeId::make(77, ++minted_);
  }
  void apply(const Operation& operation) override {
    auto done = head_.apply(operation);
    ASSERT_TRUE(done) << operation_name(operation) << ": " << errno_text(done.error());
    for (InodeId inode : head_.take_unlinked()) head_.remove_unlinked(inode);
    count_++;
  }
  uint64_t count() const { return count_; }

 private:
  Head& head_;
  const bool keeps_ids_;
  uint32_t minted_ = 0;
  uint64_t count_ = 0;
};

uint64_t lead(Head& from, const Tree& to, bool keeps_ids) {
  View have = from.view();
  TreeChanges changes = all_changes(have, to);
  OntoHead target(from, keeps_ids);
  Transition transition(have, to, changes);
  EXPECT_TRUE(transition.make(target));
  EXPECT_EQ(from.check_invariants(), "");
  return target.count();
}

class TransitionOf : public testing::TestWithParam<uint32_t> {};

TEST_P(TransitionOf, TwoRandomTreesOfOneVolumeLeadsToTheDigest) {
  Chance chance(GetParam());
  const bool stands = GetParam() % 2 == 0;
  Head base = Head::create(at(0));
  uint64_t next_inode = 2;
  live_on(base, chance, 150, next_inode, stands);
  for (int length : {1, 5, 40, 300}) {
    Head here(base.view()), there(base.view());
    live_on(here, chance, length, next_inode, stands);
    live_on(there, chance, length, next_inode, stands);
    Head led(here.view());
    uint64_t count = lead(led, there, true);
    EXPECT_EQ(led.digest(), there.digest()) << length;
    EXPECT_EQ(led.recompute_digest(), there.digest()) << length;
    EXPECT_EQ(lead(led, there, true), 0u) << "of " << count;
    Head renamed(here.view());
    lead(renamed, there, false);
    EXPECT_EQ(content_digest(renamed), content_digest(there)) << length;
  }
}

INSTANTIATE_TEST_SUITE_P(Seeds, TransitionOf, testing::Range(1u, 101u));

TEST(Transition, OfDirectoriesThatChangePlaces) {
  Head here = Head::create(at(0));
  auto apply = [](Head& head, const Operation& operation) { ASSERT_TRUE(head.apply(operation)); };
  const InodeId a{2}, b{3};
  apply(here, make_directory(kRootInode, "a", a));
  apply(here, make_directory(a, "b", b));
  Head there = Head(here.view());
  apply(there, Rename{.old_parent = a,
                      .old_name = "b",
                      .new_parent = kRootInode,
                      .new_name = "b",
                      .inode = b,
                      .replaced = {},
                      .time = at(5)});
  apply(there, Rename{.old_parent = kRootInode,
                      .old_name = "a",
                      .new_parent = b,
                      .new_name = "a",
                      .inode = a,
                      .replaced = {},
                      .time = at(6)});
  lead(here, there, false);
  EXPECT_EQ(here.digest(), there.digest());
}

TEST(Transition, GivesNoIdTwice) {
  Head there = Head::create(at(0));
  ASSERT_TRUE(there.apply(make_file(kRootInode, "f", InodeId{2})));
  ASSERT_TRUE(there.apply(Link{kRootInode, "g", InodeId{2}, at(3)}));
  Head here(there.view());
  ASSERT_TRUE(here.apply(Unlink{kRootInode, "f", InodeId{2}, at(4)}));
  ASSERT_TRUE(here.apply(Unlink{kRootInode, "g", InodeId{2}, at(4)}));
  // Still open somewhere: it is not taken for the one that is wanted.
  ASSERT_EQ(here.stat(InodeId{2})->nlink, 0u);
  View have = here.view();
  TreeChanges changes = all_changes(have, there);
  OntoHead target(here, false);
  ASSERT_TRUE(Transition(have, there, changes).make(target));
  auto f = here.lookup(kRootInode, "f"), g = here.lookup(kRootInode, "g");
  ASSERT_TRUE(f && g);
  EXPECT_EQ(f->inode, g->inode);
  EXPECT_NE(f->inode, InodeId{2});
  EXPECT_EQ(here.stat(f->inode)->nlink, 2u);
  EXPECT_EQ(here.stat(f->inode)->ctime, there.stat(InodeId{2})->ctime);
}

}  // namespace
}  // namespace reprise::fs

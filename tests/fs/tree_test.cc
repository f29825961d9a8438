// Head and View under random operations: every step keeps the invariants, old views never change, equal
// histories give equal trees.
#include "fs/tree.h"

#include <gtest/gtest.h>

#include <map>
#include <random>
#include <set>
#include <thread>

#include "fs/directory.h"
#include "tests/fs/random_operations.h"

namespace reprise::fs {
namespace {

int error_of(const Outcome<void>& outcome) {
  return outcome ? 0 : static_cast<int>(outcome.error());
}
std::string text_of(const Tree& tree, InodeId inode) {
  std::string text(tree.stat(inode)->size, '\0');
  CHECK(tree.read(inode, 0, {reinterpret_cast<std::byte*>(text.data()), text.size()}) == text.size());
  return text;
}

TEST(Tree, RandomOperationsKeepTheInvariantsAndOldViews) {
  size_t applied = 0;
  for (uint32_t seed = 0; seed < 60; seed++) {
    Chance chance(seed);
    Head head = Head::create(at(0));
    std::vector<std::pair<View, Digest128>> views;
    for (int step = 0; step < 300; step++) {
      Digest128 before = head.digest();
      bool done = head.apply(step % 4 != 0 ? chance.likely(head) : chance.next()).has_value();
      applied += done;
      if (!done) {
        ASSERT_EQ(head.digest(), before) << "a refused operation changed the tree, seed " << seed;
      }
      if (chance.pick(8) == 0) head.settle();
      if (chance.pick(10) == 0) {
        for (InodeId inode : head.take_unlinked()) head.remove_unlinked(inode);
      }
      if (chance.pick(20) == 0) {
        views.emplace_back(head.view(), head.digest());
        if (views.size() > 5) views.erase(views.begin() + static_cast<long>(chance.pick(views.size())));
      }
      ASSERT_EQ(head.check_invariants(), "") << "seed " << seed << " step " << step;
    }
    for (auto& [view, digest] : views) {
      ASSERT_EQ(view.digest(), digest) << "seed " << seed;
      ASSERT_EQ(view.check_invariants(), "") << "seed " << seed;
    }
  }
  EXPECT_GT(applied, 3000u);
}

TEST(Tree, EqualHistoriesGiveEqualDigestsWhetherForkedSettledOrNot) {
  for (uint32_t seed = 100; seed < 130; seed++) {
    Chance chance(seed);
    Head plain = Head::create(at(0));
    Head other = Head::create(at(0));
    for (int step = 0; step < 200; step++) {
      Operation operation = chance.likely(plain);
      ASSERT_EQ(plain.apply(operation).has_value(), other.apply(operation).has_value());
      if (chance.pick(5) == 0) other.settle();
      if (chance.pick(5) == 0) other = Head(other.view());
    }
    ASSERT_EQ(plain.digest(), other.digest()) << "seed " << seed;
    other.settle();
    ASSERT_EQ(plain.digest(), other.digest()) << "seed " << seed;
  }
}

TEST(Tree, DigestDoesNotDependOnTheWayToTheTree) {
  Head one = Head::create(at(0)), two = Head::create(at(0));
  std::string zeros(10000, '\0');
  ASSERT_TRUE(one.apply(make_file(kRootInode, "a", InodeId{2}, 1)));
  ASSERT_TRUE(one.apply(make_file(kRootInode, "b", InodeId{3}, 1)));
  ASSERT_TRUE(one.apply(Truncate{InodeId{2}, 10000, at(2)}));
  ASSERT_TRUE(two.apply(make_file(kRootInode, "b", InodeId{3}, 1)));
  ASSERT_TRUE(two.apply(make_file(kRootInode, "a", InodeId{2}, 1)));
  ASSERT_TRUE(two.apply(Write{InodeId{2}, 0, as_bytes(zeros), at(2)}));
  EXPECT_EQ(one.digest(), two.digest());
  ASSERT_TRUE(two.apply(Write{InodeId{2}, 9999, as_bytes("x"), at(2)}));
  EXPECT_NE(one.digest(), two.digest());
}

TEST(Tree, LargeDirectoriesGrowAndShrinkInAnyOrder) {
  for (size_t longest : {8u, 255u}) {
    Head head = Head::create(at(0));
    std::mt19937 random(5);
    std::map<std::string, InodeId> names;
    for (uint64_t i = 0; i < 3000; i++) {
      std::string name = std::to_string(i);
      name.resize(std::max(name.size(), 1 + random() % longest), 'x');
      names.emplace(name, InodeId{2 + i});
      ASSERT_TRUE(head.apply(make_file(kRootInode, name, InodeId{2 + i})));
    }
    ASSERT_EQ(head.check_invariants(), "");
    std::set<std::string> seen;
    ASSERT_TRUE(
        head.read_directory(kRootInode, 0, [&](const Dentry& d) { return seen.emplace(d.name).second; }));
    EXPECT_EQ(seen.size(), names.size());
    std::vector<std::pair<std::string, InodeId>> order(names.begin(), names.end());
    std::shuffle(order.begin(), order.end(), random);
    int step = 0;
    for (auto& [name, inode] : order) {
      ASSERT_EQ(head.lookup(kRootInode, name)->inode, inode);
      ASSERT_TRUE(head.apply(Unlink{kRootInode, name, inode, at(2)}));
      for (InodeId gone : head.take_unlinked()) head.remove_unlinked(gone);
      ASSERT_FALSE(head.lookup(kRootInode, name));
      if (++step % 100 == 0) {
        ASSERT_EQ(head.check_invariants(), "");
      }
    }
    EXPECT_EQ(head.stat(kRootInode)->size, 0u);
    EXPECT_EQ(head.usage().inodes, 1u);
  }
}

TEST(Tree, CookiesStayWhileEntriesComeAndGo) {
  Head head = Head::create(at(0));
  for (uint64_t i = 0; i < 500; i++)
    ASSERT_TRUE(head.apply(make_file(kRootInode, "f" + std::to_string(i), InodeId{2 + i})));
  std::map<std::string, uint64_t> cookies;
  ASSERT_TRUE(head.read_directory(kRootInode, 0,
                                  [&](const Dentry& d) { return cookies.emplace(d.name, d.cookie).second; }));
  for (uint64_t i = 0; i < 500; i += 2) {
    ASSERT_TRUE(head.apply(Unlink{kRootInode, "f" + std::to_string(i), InodeId{2 + i}, at(2)}));
    ASSERT_TRUE(head.apply(make_file(kRootInode, "g" + std::to_string(i), InodeId{1000 + i})));
  }
  ASSERT_TRUE(head.read_directory(kRootInode, 0, [&](const Dentry& d) {
    auto old = cookies.find(std::string(d.name));
    EXPECT_TRUE(old == cookies.end() || old->second == d.cookie) << d.name;
    return true;
  }));
}

TEST(Tree, SparseFilesSpanTheirWholeRange) {
  Head head = Head::create(at(0));
  InodeId file{2};
  ASSERT_TRUE(head.apply(make_file(kRootInode, "sparse", file)));
  ASSERT_TRUE(head.apply(Write{file, kFileSizeMax - 4, as_bytes("tail"), at(1)}));
  EXPECT_EQ(head.stat(file)->size, kFileSizeMax);
  EXPECT_EQ(head.stat(file)->blocks, 1u);
  EXPECT_EQ(*head.seek_data(file, 0), kFileSizeMax - 4096);
  EXPECT_EQ(*head.seek_hole(file, 0), 0u);
  EXPECT_EQ(error_of(head.apply(Write{file, kFileSizeMax, as_bytes("x"), at(1)})), EFBIG);
  ASSERT_TRUE(head.apply(Truncate{file, 5, at(1)}));
  EXPECT_EQ(text_of(head, file), std::string(5, '\0'));
  EXPECT_EQ(head.stat(file)->blocks, 0u);
  EXPECT_EQ(head.check_invariants(), "");
}

TEST(Tree, RefusesWhatAnOperationWronglyClaims) {
  Head head = Head::create(at(0));
  InodeId dir{2}, sub{3}, file{4};
  ASSERT_TRUE(head.apply(make_directory(kRootInode, "d", dir)));
  ASSERT_TRUE(head.apply(make_directory(dir, "s", sub)));
  ASSERT_TRUE(head.apply(make_file(dir, "f", file)));
  struct Case {
    Operation operation;
    int error;
  };
  std::string long_name(256, 'x');
  std::vector<Case> cases = {
      {make_file(InodeId{99}, "x", InodeId{9}), ENOENT},
      {make_file(file, "x", InodeId{9}), ENOTDIR},
      {make_file(dir, "f", InodeId{9}), EEXIST},
      {make_file(dir, "x", file), EEXIST},
      {make_file(dir, "a/b", InodeId{9}), EINVAL},
      {make_file(dir, "..", InodeId{9}), EINVAL},
      {make_file(dir, long_name, InodeId{9}), ENAMETOOLONG},
      {Link{dir, "l", sub, at(1)}, EPERM},
      {Unlink{dir, "f", sub, at(1)}, ESTALE},
      {Unlink{dir, "s", sub, at(1)}, EISDIR},
      {Rmdir{kRootInode, "d", dir, at(1)}, ENOTEMPTY},
      {Rmdir{dir, "f", file, at(1)}, ENOTDIR},
      {Rename{kRootInode, "d", sub, "x", dir, {}, false, at(1)}, ELOOP},
      {Rename{kRootInode, "d", dir, "f", dir, file, false, at(1)}, ELOOP},
      {Rename{dir, "s", dir, "f", sub, file, false, at(1)}, ENOTDIR},
      {Rename{dir, "f", dir, "s", file, sub, false, at(1)}, EISDIR},
      {Rename{dir, "f", dir, "s", file, {}, false, at(1)}, EEXIST},
      {Write{dir, 0, as_bytes("x"), at(1)}, EISDIR},
      {Write{InodeId{77}, 0, as_bytes("x"), at(1)}, ENOENT},
      {Write{file, 0, as_bytes("x"), Timestamp{1, 1'000'000'000}}, EINVAL},
      {Allocate{file, RangeChange::kCollapse, false, 0, 4096, at(1)}, EINVAL},
      {RemoveXattr{file, "user.none", at(1)}, ENODATA},
  };
  Digest128 before = head.digest();
  for (size_t i = 0; i < cases.size(); i++)
    EXPECT_EQ(error_of(head.apply(cases[i].operation)), cases[i].error) << "case " << i;
  EXPECT_EQ(head.digest(), before);
  EXPECT_EQ(head.check_invariants(), "");
}

TEST(Tree, AHeadWorksOnWhileViewsAreReadAndDroppedElsewhere) {
  Head head = Head::create(at(0));
  for (uint64_t i = 0; i < 200; i++)
    ASSERT_TRUE(head.apply(make_file(kRootInode, "f" + std::to_string(i), InodeId{2 + i})));
  std::vector<std::thread> readers;
  for (int round = 0; round < 50; round++) {
    readers.emplace_back(
        [view = head.view(), digest = head.digest()] { EXPECT_EQ(view.recompute_digest(), digest); });
    for (uint64_t i = 0; i < 200; i++) {
      ASSERT_TRUE(head.apply(
          Write{InodeId{2 + i}, static_cast<uint64_t>(round) * 5000, as_bytes("round"), at(round)}));
    }
    if (round % 10 == 9) head.settle();
  }
  for (std::thread& reader : readers) reader.join();
  EXPECT_EQ(head.check_invariants(), "");
}

TEST(Tree, DeepTreesAndLongFilesGoWithoutRecursion) {
  Head head = Head::create(at(0));
  InodeId parent = kRootInode;
  for (uint64_t i = 0; i < 100000; i++) {
    ASSERT_TRUE(head.apply(make_directory(parent, "d", InodeId{2 + i})));
    parent = InodeId{2 + i};
  }
  EXPECT_EQ(head.check_invariants(), "");
}

}  // namespace
}  // namespace reprise::fs

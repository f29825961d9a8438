// Names whose 48-bit hashes are equal: found by search, they live side by side like any others.
#include <gtest/gtest.h>

#include <map>
#include <set>

#include "fs/diff.h"
#include "fs/node.h"
#include "tests/fs/random_operations.h"

namespace reprise::fs {
namespace {

const std::vector<std::pair<std::string, std::string>> kPairs = {
    {"61020991", "74498292"}, {"30747812", "76961582"}, {"57525961", "58931215"}, {"34961468", "39266463"},
    {"23703739", "82113723"}, {"23073879", "78914947"}, {"46267009", "69935765"}, {"27235999", "83148989"},
    {"52088314", "90560889"}, {"35310742", "74300756"}, {"59652912", "76423343"}, {"45759070", "98554917"},
    {"12240101", "38252134"}, {"15990327", "17747188"}, {"627498", "49110806"},   {"41039214", "97844518"},
    {"357473", "33491749"},   {"70369745", "92882863"}, {"85307251", "88850463"}};

InodeId first_of(size_t pair) {
  return {2 + 2 * pair};
}
InodeId second_of(size_t pair) {
  return {3 + 2 * pair};
}

// Both names of every pair, in this or the other order, among enough others to have leaves split.
Head with_pairs(bool second_first) {
  Head head = Head::create(at(0));
  auto add = [&](const std::string& name, InodeId inode) {
    EXPECT_TRUE(head.apply(make_file(kRootInode, name, inode)));
  };
  for (size_t i = 0; i < kPairs.size(); i++) {
    if (second_first) add(kPairs[i].second, second_of(i));
    add(kPairs[i].first, first_of(i));
    if (!second_first) add(kPairs[i].second, second_of(i));
  }
  for (uint64_t i = 0; i < 300; i++) add("other" + std::to_string(i), InodeId{1000 + i});
  EXPECT_EQ(head.check_invariants(), "");
  return head;
}

std::vector<std::pair<std::string, uint64_t>> listing(const Tree& tree) {
  std::vector<std::pair<std::string, uint64_t>> entries;
  EXPECT_TRUE(tree.read_directory(kRootInode, 0, [&](const Dentry& entry) {
    entries.emplace_back(entry.name, entry.cookie);
    return true;
  }));
  return entries;
}

TEST(CollidingNames, Collide) {
  for (const auto& [first, second] : kPairs) EXPECT_EQ(dir_hash(first), dir_hash(second)) << first;
}

TEST(CollidingNames, AreFoundListedReplacedAndRemovedEachByItself) {
  for (bool second_first : {false, true}) {
    Head head = with_pairs(second_first);
    std::set<uint64_t> cookies;
    for (const auto& [name, cookie] : listing(head)) EXPECT_TRUE(cookies.insert(cookie).second) << name;
    EXPECT_EQ(cookies.size(), 300 + 2 * kPairs.size());
    for (size_t i = 0; i < kPairs.size(); i++) {
      const auto& [first, second] = kPairs[i];
      EXPECT_EQ(head.lookup(kRootInode, first)->inode, first_of(i));
      EXPECT_EQ(head.lookup(kRootInode, second)->inode, second_of(i));
      EXPECT_EQ(head.apply(make_file(kRootInode, second, InodeId{5000})).error(), Errno{EEXIST});
      ASSERT_TRUE(head.apply(Unlink{kRootInode, first, first_of(i), at(1)}));
      EXPECT_FALSE(head.lookup(kRootInode, first));
      EXPECT_EQ(head.lookup(kRootInode, second)->inode, second_of(i));
      ASSERT_TRUE(head.apply(make_file(kRootInode, first, InodeId{6000 + i})));
      EXPECT_EQ(head.lookup(kRootInode, first)->inode, InodeId{6000 + i});
      ASSERT_TRUE(head.apply(Rename{.old_parent = kRootInode,
                                    .old_name = first,
                                    .new_parent = kRootInode,
                                    .new_name = second,
                                    .inode = InodeId{6000 + i},
                                    .replaced = second_of(i),
                                    .time = at(2)}));
      EXPECT_FALSE(head.lookup(kRootInode, first));
      EXPECT_EQ(head.lookup(kRootInode, second)->inode, InodeId{6000 + i});
      ASSERT_EQ(head.check_invariants(), "");
    }
  }
}

TEST(CollidingNames, KeepTheirCookiesAndAListingGoesOnBehindAnyOfThem) {
  Head head = with_pairs(false);
  auto before = listing(head);
  for (size_t i = 0; i < kPairs.size(); i++)
    ASSERT_TRUE(head.apply(Unlink{kRootInode, kPairs[i].first, first_of(i), at(1)}));
  std::map<std::string, uint64_t> after;
  for (const auto& [name, cookie] : listing(head)) after.emplace(name, cookie);
  for (const auto& [name, cookie] : before) {
    if (auto found = after.find(name); found != after.end()) {
      EXPECT_EQ(found->second, cookie) << name;
    }
    // What is listed behind a cookie is what came behind it before, also if its own entry has gone.
    std::vector<std::string> rest;
    ASSERT_TRUE(head.read_directory(kRootInode, cookie, [&](const Dentry& entry) {
      rest.emplace_back(entry.name);
      return true;
    }));
    std::vector<std::string> expected;
    for (const auto& [other, other_cookie] : before) {
      if (other_cookie > cookie && after.contains(other)) expected.push_back(other);
    }
    EXPECT_EQ(rest, expected) << name;
  }
}

TEST(CollidingNames, TheOrderInWhichTheyCameIsNotInTheDigest) {
  Head one = with_pairs(false), other = with_pairs(true);
  EXPECT_EQ(one.digest(), other.digest());
  EXPECT_NE(listing(one), listing(other)) << "or the ordinals would not have been put to the test";
  for_each_changed_name(one, other, kRootInode, [](const ChangedName& change) {
    ADD_FAILURE() << change.name;
    return true;
  });
}

TEST(CollidingNames, DifferencesAreFoundByName) {
  Head one = with_pairs(false), other = with_pairs(true);
  for (size_t i = 0; i < kPairs.size(); i++)
    ASSERT_TRUE(other.apply(Unlink{kRootInode, kPairs[i].first, first_of(i), at(1)}));
  std::set<std::string> gone;
  for_each_changed_name(one, other, kRootInode, [&](const ChangedName& change) {
    EXPECT_FALSE(change.after);
    return gone.insert(std::string(change.name)).second;
  });
  std::set<std::string> expected;
  for (const auto& [first, second] : kPairs) expected.insert(first);
  EXPECT_EQ(gone, expected);
}

}  // namespace
}  // namespace reprise::fs

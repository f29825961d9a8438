// What for_each_changed_… say against a comparison of everything with everything.
#include "fs/diff.h"

#include <gtest/gtest.h>

#include <map>
#include <string>

#include "tests/fs/random_operations.h"

namespace reprise::fs {
namespace {

struct Entry {
  InodeId inode;
  uint8_t type;
  bool operator==(const Entry&) const = default;
};
using Names = std::map<std::string, Entry, std::less<>>;

struct Whole {
  Attributes attributes;
  std::string bytes;
  Names names;
  std::map<std::string, std::string> xattrs;
};

Names names_in(const Tree& tree, InodeId directory) {
  Names names;
  (void)tree.read_directory(
      directory, 0, [&](const Dentry& d) { return names.emplace(d.name, Entry{d.inode, d.type}).second; });
  return names;
}

std::map<InodeId, Whole> everything(const Tree& tree) {
  std::map<InodeId, Whole> all;
  tree.for_each_inode([&](const Attributes& a) {
    Whole whole{.attributes = a, .bytes = {}, .names = names_in(tree, a.inode), .xattrs = {}};
    if (a.is_regular()) {
      whole.bytes.resize(a.size);
      CHECK(tree.read(a.inode, 0, {reinterpret_cast<std::byte*>(whole.bytes.data()), a.size}) == a.size);
    } else if (a.is_symlink()) {
      whole.bytes = *tree.read_link(a.inode);
    }
    (void)tree.list_xattrs(
        a.inode, [&](std::string_view name, ByteView value) { whole.xattrs.emplace(name, as_text(value)); });
    all.emplace(a.inode, std::move(whole));
  });
  return all;
}

bool same_attributes(const Attributes& a, const Attributes& b) {
  return a.mode == b.mode && a.uid == b.uid && a.gid == b.gid && a.nlink == b.nlink && a.size == b.size &&
         a.blocks == b.blocks && a.rdev == b.rdev && a.atime == b.atime && a.mtime == b.mtime &&
         a.ctime == b.ctime;
}

void check_names(const Tree& before, const Tree& after, InodeId directory, const Names& old_names,
                 const Names& new_names) {
  Names patched = old_names;
  for_each_changed_name(before, after, directory, [&](const ChangedName& change) {
    EXPECT_FALSE(change.before == change.after && change.type_before == change.type_after);
    auto found = patched.find(change.name);
    EXPECT_EQ(found != patched.end(), change.before.has_value()) << change.name;
    if (found != patched.end()) {
      EXPECT_EQ(found->second, (Entry{*change.before, change.type_before})) << change.name;
      patched.erase(found);
    }
    if (change.after) patched.emplace(change.name, Entry{*change.after, change.type_after});
    return true;
  });
  EXPECT_EQ(patched, new_names);
}

// Outside the ranges the files are equal, and each range holds a difference.
void check_ranges(const Tree& before, const Tree& after, InodeId file, const std::string& a,
                  const std::string& b) {
  size_t longer = std::max(a.size(), b.size());
  uint64_t checked = 0;
  auto part = [](const std::string& bytes, uint64_t from, uint64_t to) {
    from = std::min<uint64_t>(from, bytes.size());
    return bytes.substr(from, std::min<uint64_t>(to, bytes.size()) - from);
  };
  for_each_changed_range(before, after, file, [&](uint64_t offset, uint64_t end) {
    EXPECT_LT(offset, end);
    EXPECT_TRUE(checked == 0 || offset > checked) << "ranges that touch are one";
    EXPECT_EQ(part(a, checked, offset), part(b, checked, offset));
    EXPECT_NE(part(a, offset, end), part(b, offset, end));
    checked = end;
    return true;
  });
  EXPECT_LE(checked, longer);
  EXPECT_EQ(part(a, checked, longer), part(b, checked, longer));
}

void check_diff(const Tree& before, const Tree& after) {
  auto old_inodes = everything(before), new_inodes = everything(after);
  std::map<InodeId, ChangedInode> changes;
  InodeId last{0};
  for_each_changed_inode(before, after, [&](const ChangedInode& change) {
    EXPECT_LT(last.value, change.inode.value);
    last = change.inode;
    return changes.emplace(change.inode, change).second;
  });
  std::map<InodeId, Whole> all = old_inodes;
  all.insert(new_inodes.begin(), new_inodes.end());
  for (const auto& [inode, ignored] : all) {
    auto a = old_inodes.find(inode), b = new_inodes.find(inode);
    Whole none;
    const Whole& x = a == old_inodes.end() ? none : a->second;
    const Whole& y = b == new_inodes.end() ? none : b->second;
    bool differ = a == old_inodes.end() || b == new_inodes.end() ||
                  !same_attributes(x.attributes, y.attributes) || x.bytes != y.bytes || x.names != y.names ||
                  x.xattrs != y.xattrs;
    ASSERT_EQ(changes.contains(inode), differ) << inode.value;
    check_names(before, after, inode, x.names, y.names);
    check_ranges(before, after, inode, x.bytes, y.bytes);
    if (!differ) continue;
    const ChangedInode& change = changes.at(inode);
    EXPECT_EQ(change.before.has_value(), a != old_inodes.end());
    EXPECT_EQ(change.after.has_value(), b != new_inodes.end());
    EXPECT_EQ(change.content, x.bytes != y.bytes) << inode.value;
    EXPECT_EQ(change.names, x.names != y.names) << inode.value;
    EXPECT_EQ(change.xattrs, x.xattrs != y.xattrs) << inode.value;
    if (change.before) {
      EXPECT_TRUE(same_attributes(*change.before, x.attributes));
    }
    if (change.after) {
      EXPECT_TRUE(same_attributes(*change.after, y.attributes));
    }
  }
}

TEST(Diff, FindsAllThatDiffersAfterRandomOperationsAndNothingElse) {
  for (uint32_t seed = 500; seed < 540; seed++) {
    Chance chance(seed);
    Head head = Head::create(at(0));
    View before = head.view();
    for (int step = 0; step < 160; step++) {
      (void)head.apply(chance.likely(head));
      if (chance.pick(9) == 0) head.settle();
      if (chance.pick(9) == 0) {
        for (InodeId inode : head.take_unlinked()) head.remove_unlinked(inode);
      }
      if (chance.pick(12) != 0) continue;
      check_diff(before, head);
      check_diff(head, before);
      if (HasFatalFailure() || HasNonfatalFailure()) FAIL() << "seed " << seed << " step " << step;
      if (chance.pick(2) == 0) before = head.view();
    }
  }
}

TEST(Diff, TreesThatShareNothingAreComparedInFull) {
  Chance chance(1);
  Head one = Head::create(at(0)), two = Head::create(at(0));
  for (int step = 0; step < 300; step++) {
    Operation operation = chance.likely(one);
    (void)one.apply(operation);
    (void)two.apply(operation);
  }
  for_each_changed_inode(one, two, [](const ChangedInode&) {
    ADD_FAILURE() << "equal histories";
    return true;
  });
  check_diff(one, Head::create(at(7)));
}

TEST(Diff, LargeDirectoriesAndManyInodesWhoseLeavesSplitAndGo) {
  Head head = Head::create(at(0));
  auto name_of = [](uint64_t i) { return "name-" + std::to_string(i); };
  for (uint64_t i = 0; i < 5000; i++)
    ASSERT_TRUE(head.apply(make_file(kRootInode, name_of(i), InodeId{2 + i * 37})));
  for (uint64_t stride : {1, 7, 501, 4999}) {
    View before = head.view();
    Head other(before);
    for (uint64_t i = 0; i < 5000; i += stride) {
      if (i % 2 == 0) {
        ASSERT_TRUE(other.apply(Unlink{kRootInode, name_of(i), InodeId{2 + i * 37}, at(2)}));
      } else {
        ASSERT_TRUE(other.apply(make_file(kRootInode, name_of(i) + "b", InodeId{300'000 + i})));
      }
    }
    for (InodeId inode : other.take_unlinked()) other.remove_unlinked(inode);
    check_diff(before, other);
    check_diff(other, before);
  }
}

TEST(Diff, StopsWhenTold) {
  Head head = Head::create(at(0));
  View before = head.view();
  for (uint64_t i = 0; i < 100; i++)
    ASSERT_TRUE(head.apply(make_file(kRootInode, std::to_string(i), InodeId{2 + i})));
  ASSERT_TRUE(head.apply(Write{InodeId{2}, 0, as_bytes("x"), at(1)}));
  ASSERT_TRUE(head.apply(Write{InodeId{2}, 1 << 20, as_bytes("x"), at(1)}));
  View middle = head.view();
  ASSERT_TRUE(head.apply(Write{InodeId{2}, 0, as_bytes("y"), at(1)}));
  ASSERT_TRUE(head.apply(Write{InodeId{2}, 1 << 20, as_bytes("y"), at(1)}));
  int inodes = 0, names = 0, ranges = 0;
  for_each_changed_inode(before, head, [&](const ChangedInode&) { return ++inodes < 3; });
  for_each_changed_name(before, head, kRootInode, [&](const ChangedName&) { return ++names < 3; });
  for_each_changed_range(middle, head, InodeId{2}, [&](uint64_t, uint64_t) { return ++ranges < 1; });
  EXPECT_EQ(inodes, 3);
  EXPECT_EQ(names, 3);
  EXPECT_EQ(ranges, 1);
}

}  // namespace
}  // namespace reprise::fs

// What an import leaves in the history of a store, whether it fits one batch or not.
#include "instance/record_tree.h"

#include <fmt/format.h>
#include <gmock/gmock.h>

#include "../snapshot/sample_tree.h"
#include "instance/history.h"
#include "instance_fixture.h"

namespace reprise::instance {
namespace {

using snapshot::TreeMaker;

class RecordTree : public InstanceTest, public testing::WithParamInterface<bool> {
 protected:
  // Large enough for all of it, or for next to nothing.
  static RecordLimits limits() {
    return GetParam() ? RecordLimits{} : RecordLimits{.bytes = 20'000, .inodes = 10};
  }
  static std::string content(const fs::Tree& tree) { return fs::content_digest(tree)->to_string(); }
};

INSTANTIATE_TEST_SUITE_P(InOneBatchOrInMany, RecordTree, testing::Bool(),
                         [](const auto& parameter) { return parameter.param ? "one" : "many"; });

TEST_P(RecordTree, AWholeTreeBecomesHistory) {
  auto instance = open(create_store("s"));
  fs::View before = instance->filesystem().view();
  TreeMaker tree;
  snapshot::make_everything(tree);
  auto done = record_tree(*instance, before, tree.head, "import x", {1'700'000'000, 1}, limits());
  ASSERT_TRUE(done) << done.error().message();
  fs::View after = instance->filesystem().view();
  EXPECT_EQ(content(after), content(tree.head));
  EXPECT_EQ(after.check_invariants(), "");
  // Times, owners and attributes, too; ids are the origin's own.
  for (const char* name : {"dir", "empty", "hard"}) {
    fs::Attributes was = *tree.head.stat(tree.head.lookup(kRootInode, name)->inode);
    fs::Attributes is = *after.stat(after.lookup(kRootInode, name)->inode);
    EXPECT_EQ(is.mtime, was.mtime) << name;
    EXPECT_EQ(is.uid, was.uid) << name;
    EXPECT_EQ(is.nlink, was.nlink) << name;
    EXPECT_NE(is.inode.prefix(), 0u);
  }
  InodeId small = after.lookup(after.lookup(kRootInode, "dir")->inode, "small")->inode;
  EXPECT_EQ(as_text(*after.get_xattr(small, "user.short")), "value");
  // Replayed from the journal it is the same.
  Digest128 digest = instance->filesystem().digest();
  ASSERT_TRUE(instance->sync());
  auto state = state_at(*instance->store(), "main", std::nullopt);
  ASSERT_TRUE(state) << state.error().message();
  EXPECT_EQ(state->head.digest(), digest);
}

// What takes the place of as much is no less to be recorded.
TEST_P(RecordTree, NoCallRecordsMoreThanItMay) {
  auto instance = open(create_store("s"));
  const auto tree_of = [](TreeMaker& tree, uint64_t seed) {
    for (uint64_t i = 0; i < 8; i++)
      tree.file(kRootInode, fmt::format("f{}", i), snapshot::random_bytes(25'000, seed + i));
  };
  TreeMaker first, again;
  tree_of(first, 0);
  ASSERT_TRUE(
      record_tree(*instance, instance->filesystem().view(), first.head, "import x", {1, 1}, limits()));
  const fs::View before = instance->filesystem().view();
  again.head = fs::Head(before);
  again.ids_from(InodeId{2});
  for (int i = 0; i < 8; i++) {
    const std::string name = fmt::format("f{}", i);
    const InodeId id = again.head.lookup(kRootInode, name)->inode;
    again.apply(fs::Unlink{.parent = kRootInode, .name = name, .inode = id, .time = again.tick()});
    again.head.remove_unlinked(id);
  }
  tree_of(again, 100);
  ASSERT_TRUE(instance->sync());
  const LogIndex last = instance->journal().last();
  ASSERT_TRUE(record_tree(*instance, before, again.head, "import x", {2, 2}, limits()));
  ASSERT_TRUE(instance->sync());
  EXPECT_EQ(content(instance->filesystem().view()), content(again.head));
  bool staged = false;
  for (LogIndex at = last + 1; at <= instance->journal().last(); at++) {
    auto state = state_at(*instance->store(), "main", at);
    ASSERT_TRUE(state) << state.error().message();
    ASSERT_TRUE(state->head.read_directory(kRootInode, 0, [&](const fs::Dentry& entry) {
      staged |= entry.name.starts_with(".reprise-import-");
      return true;
    }));
  }
  EXPECT_EQ(staged, !GetParam());
}

// An import of what is there already, but for some of it: what is as it was keeps its inode.
TEST_P(RecordTree, WhatIsAsItWasIsPassedOver) {
  auto instance = open(create_store("s"));
  struct Case {
    const char* name;
    bool stays;
    std::function<void(TreeMaker&, InodeId)> change;
  };
  const Case cases[] = {
      {"same", true, [](TreeMaker&, InodeId) {}},
      {"large", true, [](TreeMaker&, InodeId) {}},
      {"bytes", false, [](TreeMaker& tree, InodeId id) { tree.write(id, 1, "x"); }},
      {"longer", false, [](TreeMaker& tree, InodeId id) { tree.write(id, 3, "more"); }},
      {"mode", false, [](TreeMaker& tree, InodeId id) { tree.chmod(id, 0600); }},
      {"value", false, [](TreeMaker& tree, InodeId id) { tree.xattr(id, "user.a", "b"); }},
      {"attribute", false, [](TreeMaker& tree, InodeId id) { tree.xattr(id, "user.b", "a"); }},
      {"linked", false,
       [](TreeMaker& tree, InodeId id) {
         tree.apply(fs::Link{.parent = kRootInode, .name = "link", .inode = id, .time = tree.tick()});
       }},
  };
  const auto settle = [](TreeMaker& tree, InodeId id, int64_t second) {
    tree.apply(fs::SetAttributes{.inode = id,
                                 .mask = fs::SetAttributes::kMtime | fs::SetAttributes::kAtime,
                                 .atime = {second, 0},
                                 .mtime = {1'600'000'000, 7}});
  };
  const auto make = [&](TreeMaker& tree, const Case& of) {
    const std::string bytes =
        of.name == std::string_view("large") ? snapshot::random_bytes(300'000, 1) : std::string("abc");
    const InodeId id = tree.file(kRootInode, of.name, bytes);
    tree.xattr(id, "user.a", "a");
    return id;
  };
  TreeMaker first;
  for (const Case& of : cases) settle(first, make(first, of), 1);
  settle(first, first.create(kRootInode, "symlink", S_IFLNK | 0777, "there"), 1);
  settle(first, first.create(kRootInode, "other", S_IFLNK | 0777, "there"), 1);
  settle(first, first.create(kRootInode, "fifo", S_IFIFO | 0644), 1);
  ASSERT_TRUE(
      record_tree(*instance, instance->filesystem().view(), first.head, "import x", {1, 1}, limits()));
  const fs::View before = instance->filesystem().view();

  TreeMaker again;
  again.head = fs::Head(before);
  again.ids_from(InodeId{2});
  const auto drop = [&](const std::string& name) {
    const InodeId id = again.head.lookup(kRootInode, name)->inode;
    again.apply(fs::Unlink{.parent = kRootInode, .name = name, .inode = id, .time = again.tick()});
    again.head.remove_unlinked(id);
  };
  for (const Case& of : cases) {
    drop(of.name);
    const InodeId id = make(again, of);
    of.change(again, id);
    settle(again, id, 2);
  }
  for (const char* name : {"symlink", "other", "fifo"}) {
    drop(name);
    const bool fifo = name == std::string_view("fifo"), symlink = name == std::string_view("symlink");
    const char* target = fifo ? "" : symlink ? "there" : "where";
    settle(again, again.create(kRootInode, name, fifo ? S_IFIFO | 0644 : S_IFLNK | 0777, target), 2);
  }
  const auto passed_over = record_tree(*instance, before, again.head, "import x", {2, 2}, limits());
  ASSERT_TRUE(passed_over) << passed_over.error().message();
  EXPECT_EQ(*passed_over, 4u);
  const fs::View after = instance->filesystem().view();
  EXPECT_EQ(content(after), content(again.head));
  EXPECT_EQ(after.check_invariants(), "");
  const auto stays = [&](const std::string& name) {
    return after.lookup(kRootInode, name)->inode == before.lookup(kRootInode, name)->inode;
  };
  for (const Case& of : cases) EXPECT_EQ(stays(of.name), of.stays) << of.name;
  EXPECT_TRUE(stays("symlink"));
  EXPECT_FALSE(stays("other"));
  EXPECT_TRUE(stays("fifo"));
  EXPECT_EQ(as_text(*after.get_xattr(after.lookup(kRootInode, "value")->inode, "user.a")), "b");
}

// Every state of the history has none of the import or all of it, but for what is hidden.
TEST_P(RecordTree, NobodySeesAPartOfIt) {
  auto instance = open(create_store("s"));
  write(*instance, "/old", "old");
  fs::View before = instance->filesystem().view();
  fs::Head wanted(before);
  TreeMaker tree;
  tree.head = std::move(wanted);
  tree.ids_from(InodeId{2});
  InodeId old = tree.head.lookup(kRootInode, "old")->inode;
  tree.apply(fs::Unlink{.parent = kRootInode, .name = "old", .inode = old, .time = tree.tick()});
  tree.head.remove_unlinked(old);
  tree.file(kRootInode, "old", "new");
  InodeId dir = tree.directory(kRootInode, "d");
  for (int i = 0; i < 60; i++) tree.file(dir, "f" + std::to_string(i), std::string(2000, 'x'));
  auto done = record_tree(*instance, before, tree.head, "import x", {1'700'000'000, 1}, limits());
  ASSERT_TRUE(done) << done.error().message();
  ASSERT_TRUE(instance->sync());
  std::string was = content(before), is = content(tree.head);
  uint64_t batches = instance->journal().last(), hidden = 0;
  for (LogIndex at = 2; at <= batches; at++) {
    auto state = state_at(*instance->store(), "main", at);
    ASSERT_TRUE(state) << state.error().message();
    bool has_hidden = false;
    ASSERT_TRUE(state->head.read_directory(kRootInode, 0, [&](const fs::Dentry& entry) {
      has_hidden |= entry.name.starts_with(".reprise-import-");
      return true;
    }));
    hidden += has_hidden;
    if (has_hidden) {
      EXPECT_FALSE(state->head.lookup(kRootInode, "d"));
      Bytes bytes(10);
      InodeId id = state->head.lookup(kRootInode, "old")->inode;
      EXPECT_EQ(as_text(ByteView(bytes).first(*state->head.read(id, 0, bytes))), "old");
    } else if (state->head.lookup(kRootInode, "old")) {
      EXPECT_THAT(content(state->head), testing::AnyOf(was, is)) << at;
    }
  }
  EXPECT_EQ(hidden > 0, !GetParam());
  EXPECT_EQ(content(instance->filesystem().view()), is);
}

TEST_P(RecordTree, WhatAnInterruptedOneHasLeftCanBeRemoved) {
  auto instance = open(create_store("s"));
  write(*instance, "/kept", "x");
  write(*instance, "/.reprise-import-2f", "somebody's own");
  std::string was = content(instance->filesystem().view());
  std::string left;
  ASSERT_TRUE(instance->change("import", 4096, [&](Changes& changes) -> Status {
    InodeId id = changes.new_inode();
    left = fmt::format("/.reprise-import-{:x}", id.value);
    changes.apply(fs::Create{.parent = kRootInode,
                             .name = left.substr(1),
                             .inode = id,
                             .mode = S_IFDIR | 0700,
                             .target = {},
                             .time = {}});
    return {};
  }));
  {
    fs::Guest guest(instance->filesystem());
    ASSERT_TRUE(guest.mkdir(left + "/0"));
    ASSERT_TRUE(guest.mkdir(left + "/0/d"));
    for (int i = 0; i < 50; i++) ASSERT_TRUE(guest.write_file(left + "/0/d/" + std::to_string(i), "x"));
    ASSERT_TRUE(guest.link(left + "/0/d/1", left + "/1"));
    ASSERT_TRUE(guest.symlink("/kept", left + "/2"));
  }
  auto removed = remove_left_imports(*instance, "left", {1'700'000'000, 1}, limits());
  ASSERT_TRUE(removed) << removed.error().message();
  EXPECT_EQ(*removed, 1u);
  EXPECT_EQ(content(instance->filesystem().view()), was);
  EXPECT_EQ(instance->filesystem().view().usage().inodes, 3u);
  EXPECT_EQ(*remove_left_imports(*instance, "left", {}, limits()), 0u);
  ASSERT_TRUE(instance->sync());
  auto again = state_at(*instance->store(), "main", std::nullopt);
  ASSERT_TRUE(again) << again.error().message();
  EXPECT_EQ(content(again->head), was);
}

TEST_P(RecordTree, ATreeThatHasChangedMeanwhileIsLeftAlone) {
  auto instance = open(create_store("s"));
  fs::View before = instance->filesystem().view();
  TreeMaker tree;
  tree.file(kRootInode, "f", "x");
  write(*instance, "/meanwhile", "x");
  auto done = record_tree(*instance, before, tree.head, "import x", {}, limits());
  ASSERT_FALSE(done);
  EXPECT_EQ(done.error().code(), Code::kBusy);
  EXPECT_FALSE(instance->filesystem().view().lookup(kRootInode, "f"));
}

TEST_F(InstanceTest, AnImportBeyondTheVolumesLimitsIsRefused) {
  auto instance = open(create_store("s"));
  ASSERT_TRUE(instance->filesystem().set_limits({.inodes = 3}));
  fs::View before = instance->filesystem().view();
  TreeMaker tree;
  for (const char* name : {"a", "b", "c"}) tree.file(kRootInode, name, "x");
  auto done = record_tree(*instance, before, tree.head, "import x", {});
  ASSERT_FALSE(done);
  EXPECT_EQ(done.error().code(), Code::kNoSpace);
}

}  // namespace
}  // namespace reprise::instance

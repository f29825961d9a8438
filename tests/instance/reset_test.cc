// Reset: the tree becomes what it was, by a change that leaves all of the history there.
#include <fcntl.h>
#include <fmt/format.h>

#include <atomic>
#include <thread>

#include "instance/branches.h"
#include "instance/compare.h"
#include "instance/history.h"
#include "tests/instance/branches_fixture.h"

namespace reprise::instance {
namespace {

class ResetTest : public BranchesTest {
 protected:
  void SetUp() override {
    InstanceTest::SetUp();
    begin();
    fs::Guest guest(main_->filesystem());
    for (const char* directory : {"/d", "/d/sub", "/e"}) ASSERT_TRUE(guest.mkdir(directory));
    for (const char* file : {"/d/a", "/d/sub/x", "/e/c", "/stays"}) write(*main_, file, "as it was");
    ASSERT_TRUE(guest.link("/d/a", "/e/linked"));
    ASSERT_TRUE(guest.symlink("d/a", "/pointer"));
    ASSERT_TRUE(guest.chmod("/e/c", 0600));
    ASSERT_TRUE(main_->mark("then", "test"));
  }
  void change_everything() {
    fs::Guest guest(main_->filesystem());
    ASSERT_TRUE(guest.rename("/d", "/moved"));
    ASSERT_TRUE(guest.unlink("/moved/sub/x"));
    ASSERT_TRUE(guest.rmdir("/moved/sub"));
    ASSERT_TRUE(guest.mkdir("/moved/sub"));
    ASSERT_TRUE(guest.unlink("/e/linked"));
    ASSERT_TRUE(guest.unlink("/pointer"));
    ASSERT_TRUE(guest.chmod("/e/c", 0644));
    write(*main_, "/moved/a", "changed, and longer");
    write(*main_, "/new", "1");
  }
  // No path differs, nor any attribute; inodes may.
  void expect_as(std::string_view position) {
    auto until = resolve_position(*store_, "main", position, system_clock());
    ASSERT_TRUE(until) << until.error().message();
    auto then = state_at(*store_, "main", *until);
    ASSERT_TRUE(then) << then.error().message();
    fs::View now = main_->filesystem().view();
    EXPECT_EQ(now.check_invariants(), "");
    EXPECT_EQ(content_digest(now), content_digest(then->head));
    const auto differences = compare(then->head, now, {.one_volume = true});
    ASSERT_TRUE(differences) << differences.error().message();
    for (const PathDifference& one : *differences)
      EXPECT_TRUE(one.before && one.after && !one.content) << one.path;
    auto digests = main_->digests();
    EXPECT_EQ(digests->kept, digests->recomputed);
  }
  std::vector<std::string> branch_names() { return *store_->branch_names(); }
};

TEST_F(ResetTest, WhatItWasIsThereAgainAndSoIsWhatItLeft) {
  change_everything();
  Digest128 left = main_->digests()->recomputed;
  auto reset = main_->reset("main", "then");
  ASSERT_TRUE(reset) << reset.error().message();
  EXPECT_GT(reset->operations, 0u);
  expect_as("then");
  {
    fs::Guest guest(main_->filesystem());
    EXPECT_EQ(guest.lstat("/d/a")->inode, guest.lstat("/e/linked")->inode);
    EXPECT_EQ(guest.lstat("/e/c")->mode & 07777, 0600u);
  }
  EXPECT_EQ(branch_names(), std::vector<std::string>{"main"});

  ASSERT_TRUE(main_->close());
  main_ = open(store_);
  expect_as("then");
  // And back.
  ASSERT_TRUE(main_->reset("main", fmt::format("{}", reset->before)));
  expect_as(fmt::format("{}", reset->before));
  auto then = state_at(*store_, "main", reset->before);
  ASSERT_TRUE(then);
  EXPECT_EQ(then->head.digest(), left);
}

TEST_F(ResetTest, ToWhatItIsChangesNothing) {
  LogIndex last = main_->journal().last();
  auto reset = main_->reset("main", "then");
  ASSERT_TRUE(reset);
  EXPECT_EQ(reset->operations, 0u);
  EXPECT_EQ(main_->journal().last(), last);
}

TEST_F(ResetTest, WhatThereWasMayBeKeptAsABranch) {
  change_everything();
  Digest128 left = main_->digests()->recomputed;
  EXPECT_EQ(main_->reset("main", "then", "main").error().code(), Code::kAlreadyExists);
  EXPECT_EQ(main_->digests()->recomputed, left);
  ASSERT_TRUE(main_->reset("main", "then", "kept"));
  expect_as("then");
  EXPECT_EQ(branch_names(), (std::vector<std::string>{"kept", "main"}));
  EXPECT_EQ(state_at(*store_, "kept", std::nullopt)->head.digest(), left);
}

TEST_F(ResetTest, AForkBecomesWhatItsParentIs) {
  ASSERT_TRUE(main_->fork("try"));
  change_everything();
  ASSERT_TRUE(main_->sync());
  auto branch = open_branch("try");
  ASSERT_TRUE(branch);
  write(*branch, "/d/own", "of the branch");
  ASSERT_TRUE(branch->reset("main", ""));
  EXPECT_EQ(content_digest(branch->filesystem().view()), content_digest(main_->filesystem().view()));
  ASSERT_TRUE(branch->close());
}

TEST_F(ResetTest, MoreThanOneCallHolds) {
  std::string large = random_bytes(9 << 20);
  write(*main_, "/d/large", large);
  ASSERT_TRUE(main_->mark("large", "test"));
  fs::Guest guest(main_->filesystem());
  ASSERT_TRUE(guest.unlink("/d/large"));
  ASSERT_TRUE(main_->reset("main", "large"));
  EXPECT_EQ(read(*main_, "/d/large"), large);
  expect_as("large");
}

TEST_F(ResetTest, WhoFollowsGetsTheSameTree) {
  change_everything();
  ASSERT_TRUE(main_->reset("main", "then"));
  auto follower = Instance::open_new_follower(path("f"), options(true));
  ASSERT_TRUE(follower);
  ASSERT_TRUE((*follower)->adopt_volume(store_->volume()));
  ASSERT_TRUE((*follower)->apply(batches(*main_)));
  EXPECT_EQ((*follower)->digests()->recomputed, main_->digests()->recomputed);
  EXPECT_EQ((*follower)->reset("main", "then").error().code(), Code::kReadOnly);
}

TEST_F(ResetTest, AnOpenFileStaysReadable) {
  write(*main_, "/later", "held open");
  fs::Guest guest(main_->filesystem());
  auto fd = guest.open("/later", O_RDWR);
  ASSERT_TRUE(fd);
  ASSERT_TRUE(main_->reset("main", "then"));
  EXPECT_FALSE(guest.lstat("/later"));
  Bytes text(9);
  EXPECT_EQ(guest.pread(*fd, text, 0), 9u);
  EXPECT_EQ(as_text(text), "held open");
  // The name comes back, and another inode with it: nobody's file changes under his hands.
  ASSERT_TRUE(main_->reset("main", fmt::format("{}", main_->journal().last() - 2)));
  ASSERT_TRUE(guest.close(*fd));
  EXPECT_EQ(main_->filesystem().view().check_invariants(), "");
}

TEST_F(ResetTest, WhereGuestsGoOnItIsAllOfItOrRefused) {
  change_everything();
  std::atomic<bool> stop = false;
  std::thread writer([&] {
    for (int i = 0; !stop; i++) write(*main_, "/busy", std::to_string(i));
  });
  auto reset = main_->reset("main", "then", "kept");
  stop = true;
  writer.join();
  std::vector<std::string> expected{"main"};
  if (reset) {
    expected.insert(expected.begin(), "kept");
    EXPECT_EQ(read(*main_, "/d/a"), "as it was");
  } else {
    EXPECT_EQ(reset.error().code(), Code::kBusy);
    EXPECT_EQ(read(*main_, "/moved/a"), "changed, and longer");
  }
  EXPECT_EQ(branch_names(), expected);
}

TEST_F(ResetTest, WhatIsNotKnownIsRefused) {
  EXPECT_EQ(main_->reset("main", "never").error().code(), Code::kNotFound);
  EXPECT_EQ(main_->reset("main", "999999").error().code(), Code::kNotFound);
  EXPECT_EQ(branch_names(), std::vector<std::string>{"main"});
}

}  // namespace
}  // namespace reprise::instance

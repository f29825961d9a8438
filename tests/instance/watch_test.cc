// What is told of changes: by path, several as one, and that some were missed.
#include "instance/watch.h"

#include <fmt/format.h>

#include <set>
#include <thread>

#include "instance/path_index.h"
#include "tests/instance/instance_fixture.h"

namespace reprise::instance {
namespace {

std::string shown(const Watched& seen) {
  std::string out = seen.overrun ? "overrun\n" : "";
  for (const PathChange& change : seen.changes) {
    out +=
        fmt::format("{} {}{}{}{}\n", kind_name(change.kind), change.from.empty() ? "" : change.from + " -> ",
                    change.path, change.content ? " content" : "", change.attributes ? " attributes" : "");
  }
  return out;
}

class WatchTest : public InstanceTest {
 protected:
  void SetUp() override {
    InstanceTest::SetUp();
    instance_ = open(create_store("a"));
    guest_ = std::make_unique<fs::Guest>(instance_->filesystem());
    put("old", "text");
    CHECK(guest_->mkdir("dir"));
    put("dir/one", "1");
    begin();
  }
  void begin(WatchOptions options = {}) { watch_ = *Watch::begin(*instance_, options); }
  void put(const std::string& path, std::string_view text) { CHECK(guest_->write_file(path, text)); }
  // What has come by now.
  std::string seen() { return shown(*watch_->next(0)); }

  std::unique_ptr<Instance> instance_;
  std::unique_ptr<fs::Guest> guest_;
  std::unique_ptr<Watch> watch_;
};

TEST_F(WatchTest, TellsWhatHappensByPath) {
  EXPECT_EQ(seen(), "");
  put("new", "x");
  EXPECT_EQ(seen(), "created /new\n");
  put("old", "longer text");
  EXPECT_EQ(seen(), "changed /old content\n");
  CHECK(guest_->chmod("old", 0600));
  EXPECT_EQ(seen(), "changed /old attributes\n");
  CHECK(guest_->rename("new", "dir/newer"));
  EXPECT_EQ(seen(), "renamed /new -> /dir/newer\n");
  CHECK(guest_->rename("dir", "folder"));
  put("folder/one", "2");
  EXPECT_EQ(seen(), "renamed /dir -> /folder\nchanged /folder/one content\n");
  CHECK(guest_->unlink("folder/newer"));
  EXPECT_EQ(seen(), "removed /folder/newer\n");
  EXPECT_EQ(seen(), "");
}

TEST_F(WatchTest, ManyChangesOfAPathAreOne) {
  for (int n = 0; n < 100; ++n) put("old", std::string(n, 'x'));
  CHECK(guest_->chmod("old", 0600));
  EXPECT_EQ(seen(), "changed /old content attributes\n");
  put("new", "x");
  put("new", "y");
  CHECK(guest_->chmod("new", 0600));
  EXPECT_EQ(seen(), "created /new\n");
  put("brief", "x");
  CHECK(guest_->unlink("brief"));
  EXPECT_EQ(seen(), "");
  put("old", "x");
  CHECK(guest_->unlink("old"));
  EXPECT_EQ(seen(), "removed /old\n");
  CHECK(guest_->unlink("new"));
  put("new", "another");
  EXPECT_EQ(seen(), "changed /new content attributes\n");
}

TEST_F(WatchTest, WhatGetsItsNameLastIsNewThere) {
  put("old.tmp", "x");
  CHECK(guest_->rename("old.tmp", "old"));
  EXPECT_EQ(seen(), "changed /old content attributes\n");
  put("new.tmp", "x");
  CHECK(guest_->rename("new.tmp", "new"));
  EXPECT_EQ(seen(), "created /new\n");
  // With what lies in it already told, a directory is renamed.
  CHECK(guest_->mkdir("fresh"));
  put("fresh/file", "x");
  CHECK(guest_->rename("fresh", "kept"));
  EXPECT_EQ(seen(), "created /fresh\ncreated /fresh/file\nrenamed /fresh -> /kept\n");
}

// One after the other they lead from the names of before to those of now.
TEST_F(WatchTest, NamesAreThoseOfTheMomentAndInOrder) {
  put("dir/one", "2");
  CHECK(guest_->rename("dir", "moved"));
  CHECK(guest_->mkdir("dir"));
  put("dir/one", "another");
  put("moved/one", "3");
  EXPECT_EQ(seen(),
            "changed /dir/one content\nrenamed /dir -> /moved\ncreated /dir\ncreated /dir/one\n"
            "changed /moved/one content\n");
  CHECK(guest_->rename("old", "older"));
  put("old", "another");
  CHECK(guest_->unlink("older"));
  EXPECT_EQ(seen(), "renamed /old -> /older\ncreated /old\nremoved /older\n");
  // What is told of a name before its directory went away says nothing of it once it is back.
  put("moved/one", "4");
  CHECK(guest_->rename("moved", "away"));
  CHECK(guest_->rename("away", "moved"));
  CHECK(guest_->chmod("moved/one", 0600));
  EXPECT_EQ(seen(),
            "changed /moved/one content\nrenamed /moved -> /away\nrenamed /away -> /moved\n"
            "changed /moved/one attributes\n");
}

TEST_F(WatchTest, AFileIsToldByANameThatItHas) {
  CHECK(guest_->link("old", "dir/link"));
  EXPECT_EQ(seen(), "created /dir/link\n");
  put("old", "x");
  EXPECT_EQ(seen(), "changed /dir/link content\n");
  CHECK(guest_->unlink("dir/link"));
  put("old", "y");
  EXPECT_EQ(seen(), "removed /dir/link\nchanged /old content\n");
}

TEST_F(WatchTest, WaitsForTheFirstChangeAndNoLonger) {
  auto begin = std::chrono::steady_clock::now();
  EXPECT_EQ(shown(*watch_->next(50)), "");
  EXPECT_GE(std::chrono::steady_clock::now() - begin, std::chrono::milliseconds(45));
  std::thread writer([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
    put("new", "x");
  });
  Watched seen = *watch_->next(20'000);
  writer.join();
  EXPECT_EQ(shown(seen).substr(0, 12), "created /new");
  EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(10));
}

TEST_F(WatchTest, MoreThanFitsComesWithTheNextCalls) {
  begin({.paths_max = 10});
  for (int n = 0; n < 35; ++n) {
    put(fmt::format("file{}", n), "x");
    CHECK(instance_->settle());  // a batch of its own
  }
  std::set<std::string>
      told;  // one that was written later than made, as the machine may have it, is told twice
  size_t calls = 0;
  for (; told.size() < 35 && calls < 10; ++calls) {
    Watched part = *watch_->next(0);
    EXPECT_LE(part.changes.size(), 12u);
    EXPECT_FALSE(part.overrun);
    for (const PathChange& change : part.changes) told.insert(change.path);
  }
  EXPECT_EQ(told.size(), 35u);
  EXPECT_GE(calls, 3u);
}

TEST_F(WatchTest, WhoIsTooFarBehindIsToldSoAndGoesOnFromNow) {
  begin({.behind_max = 20});
  for (int n = 0; n < 30; ++n) {
    put(fmt::format("file{}", n), "x");
    CHECK(instance_->settle());
  }
  EXPECT_EQ(seen(), "overrun\n");
  put("file3", "y");  // whose name it knows, although it was not told
  EXPECT_EQ(seen(), "changed /file3 content\n");
}

TEST_F(WatchTest, WhereTheJournalWasTrimmedIsAnOverrun) {
  put("gone", "x");
  CHECK(instance_->sync());
  CHECK(instance_->snapshot(""));
  CHECK(instance_->trim());
  EXPECT_EQ(seen(), "overrun\n");
  put("gone", "y");
  EXPECT_EQ(seen(), "changed /gone content\n");
}

TEST_F(WatchTest, AFollowersWatcherSeesWhatItsLeaderDoesAndAnOverwriteIsAnOverrun) {
  auto following = Instance::open_new_follower(path("b"), options(true));
  ASSERT_TRUE(following);
  Instance& follower = **following;
  ASSERT_TRUE(follower.adopt_volume(instance_->volume()));
  ASSERT_TRUE(follower.apply(batches(*instance_)));
  auto watching = *Watch::begin(follower);
  LogIndex before = instance_->journal().last();
  put("new", "x");
  CHECK(instance_->settle());
  ASSERT_TRUE(follower.apply(batches(*instance_, before + 1)));
  EXPECT_EQ(shown(*watching->next(0)), "created /new\n");
  put("other", "x");
  auto pinned = instance_->pin();
  ASSERT_TRUE(follower.install(pinned->view, pinned->moment.position, pinned->moment.lamport, {}));
  EXPECT_EQ(shown(*watching->next(0)), "overrun\n");
}

// A writer neither waits for one who never asks, nor keeps anything for him.
TEST_F(WatchTest, WhoNeverAsksHoldsUpNobody) {
  std::vector<std::unique_ptr<Watch>> idle;
  for (int n = 0; n < 10; ++n) idle.push_back(*Watch::begin(*instance_));
  for (int n = 0; n < 200; ++n) put(fmt::format("file{}", n % 7), std::string(50'000, 'x'));
  CHECK(instance_->sync());
  EXPECT_EQ(idle[3]->next(0)->changes.size(), 7u);
}

TEST(PathIndex, KnowsEachNameOfAFileWhileItHasIt) {
  PathIndex names;
  const InodeId file{5};
  names.follow(fs::Create{.parent = kRootInode, .name = "a", .inode = file, .mode = S_IFREG | 0644});
  const fs::Operation link = fs::Link{kRootInode, "b", file, {}};
  const fs::Operation rename = fs::Rename{
      .old_parent = kRootInode, .old_name = "a", .new_parent = kRootInode, .new_name = "c", .inode = file};
  const fs::Operation unlink = fs::Unlink{kRootInode, "c", file, {}};
  names.follow(link);
  EXPECT_EQ(names.path_of(file), "/b");
  names.follow(rename);
  EXPECT_EQ(names.path_of(file), "/c");
  names.follow(unlink);
  EXPECT_EQ(names.find_path(file), "/b");
  names.follow(fs::Unlink{kRootInode, "b", file, {}});
  EXPECT_EQ(names.find_path(file), std::nullopt);
  // And back.
  names.undo(fs::Unlink{kRootInode, "b", file, {}});
  names.undo(unlink);
  names.undo(rename);
  names.undo(link);
  EXPECT_EQ(names.find_path(file), "/a");
}

}  // namespace
}  // namespace reprise::instance

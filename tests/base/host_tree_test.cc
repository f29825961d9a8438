#include "base/host_tree.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <map>

#include "../store/temp_directory.h"
#include "base/file_lock.h"

namespace reprise {
namespace {

class HostTreeTest : public testing::Test {
 protected:
  HostTreeTest() {
    std::filesystem::create_directories(directory_ / "tree/d");
    std::filesystem::create_directory(directory_ / "outside");
    std::ofstream(directory_ / "outside/secret") << "secret";
    std::filesystem::create_symlink(directory_ / "outside", directory_ / "tree/way out");
    std::filesystem::create_symlink(directory_ / "outside/secret", directory_ / "tree/secret");
    std::filesystem::create_symlink("d", directory_ / "tree/inside");
    tree_ = *HostTree::open(directory_ / "tree");
  }
  TempDirectory directory_;
  std::unique_ptr<HostTree> tree_;
};

TEST_F(HostTreeTest, NothingGoesThroughASymlinkOrOutOfTheTree) {
  for (const char* path :
       {"way out/secret", "secret", "../outside/secret", "inside/x", "d/../../outside/secret"}) {
    EXPECT_FALSE(tree_->open_file(path)) << path;
  }
  for (const char* path : {"way out/new", "inside/new", "../new", "d/../../new"}) {
    EXPECT_FALSE(tree_->create_file(path)) << path;
    EXPECT_FALSE(tree_->make_directory(path)) << path;
    EXPECT_FALSE(tree_->make_symlink(path, "x")) << path;
    EXPECT_FALSE(tree_->make_node(path, S_IFIFO | 0600, 0)) << path;
    EXPECT_FALSE(tree_->list(path)) << path;
  }
  EXPECT_FALSE(tree_->link("way out/secret", "stolen"));
  EXPECT_FALSE(tree_->set_mode("way out/secret", 0777));
  EXPECT_FALSE(tree_->set_mode("secret", 0777)) << "a link has no mode, and what it points to is not meant";
  EXPECT_FALSE(tree_->set_times("way out/secret", {}, {}));
  EXPECT_FALSE(tree_->create_file("secret")) << "a name that is taken by a link";
  auto outside = std::filesystem::directory_iterator(directory_ / "outside");
  EXPECT_EQ(std::distance(begin(outside), end(outside)), 1);
}

TEST_F(HostTreeTest, ALinkItselfCanBeSeen) {
  auto entry = tree_->stat("secret");
  ASSERT_TRUE(entry) << entry.error().message();
  EXPECT_TRUE(S_ISLNK(entry->mode));
  EXPECT_EQ(tree_->read_link("inside"), "d");
  EXPECT_TRUE(tree_->set_times("secret", {1, 0}, {2, 3}));
  EXPECT_EQ(tree_->stat("secret")->mtime, (Timestamp{2, 3}));
}

TEST_F(HostTreeTest, AFifoIsNotOpenedAsAFile) {
  ASSERT_TRUE(tree_->make_node("d/fifo", S_IFIFO | 0600, 0));
  auto file = tree_->open_file("d/fifo");
  ASSERT_FALSE(file);
  EXPECT_EQ(file.error().code(), Code::kInvalidArgument);
}

TEST_F(HostTreeTest, AStagedTreeThatIsNotPublishedGoesWithEverythingInIt) {
  {
    auto staged = StagedHostTree::begin(directory_ / "new", system_random());
    ASSERT_TRUE(staged) << staged.error().message();
    ASSERT_TRUE((*staged)->tree().make_directory("a"));
    ASSERT_TRUE((*staged)->tree().create_file("a/f"));
    ASSERT_TRUE((*staged)->tree().make_symlink("a/l", directory_ / "outside"));
    EXPECT_FALSE(std::filesystem::exists(directory_ / "new"));
  }
  auto left = std::filesystem::directory_iterator(directory_.path());
  EXPECT_EQ(std::distance(begin(left), end(left)), 2) << "tree and outside";
  EXPECT_TRUE(std::filesystem::exists(directory_ / "outside/secret"));
}

TEST_F(HostTreeTest, ANameThatIsTakenMeanwhileIsNotReplaced) {
  auto staged = StagedHostTree::begin(directory_ / "new", system_random());
  ASSERT_TRUE(staged);
  std::filesystem::create_directory(directory_ / "new");
  std::ofstream(directory_ / "new/mine") << "mine";
  EXPECT_EQ((*staged)->publish().error().code(), Code::kAlreadyExists);
  EXPECT_TRUE(std::filesystem::exists(directory_ / "new/mine"));
}

TEST_F(HostTreeTest, CanonicalPaths) {
  std::string real = std::filesystem::canonical(directory_.path());
  EXPECT_EQ(canonical_host_path(directory_ / "tree/inside/../d"), real + "/tree/d");
  EXPECT_EQ(canonical_host_path(directory_ / "tree/way out/missing/x"), real + "/outside/missing/x");
}

TEST(FileLock, IsHeldOnceAndSaysByWhom) {
  TempDirectory directory;
  std::string path = directory / "lock";
  EXPECT_EQ(FileLock::holder(path)->has_value(), false);
  {
    auto lock = FileLock::acquire(path, "somebody");
    ASSERT_TRUE(lock) << lock.error().message();
    EXPECT_EQ(FileLock::holder(path)->value(), "somebody");
    EXPECT_EQ(FileLock::acquire(path, "another").error().code(), Code::kBusy);
    EXPECT_EQ(FileLock::holder(path)->value(), "somebody");
  }
  EXPECT_EQ(FileLock::holder(path)->has_value(), false);
  ASSERT_TRUE(FileLock::acquire(path, "me"));
}

TEST_F(HostTreeTest, ScanSaysOfEachNameWhatItIsAndFollowsNone) {
  std::ofstream(directory_ / "tree/file") << "12345";
  auto found = tree_->scan("");
  ASSERT_TRUE(found) << found.error().message();
  std::map<std::string, HostName> names;
  for (HostName& name : *found) names.emplace(name.name, name);
  std::vector<std::string> expected = *tree_->list("");
  ASSERT_EQ(names.size(), expected.size());
  EXPECT_TRUE(S_ISDIR(names.at("d").entry.mode));
  EXPECT_EQ(names.at("file").entry.size, 5);
  const HostEntry stat = *tree_->stat("file");
  EXPECT_EQ(names.at("file").entry.inode, stat.inode);
  EXPECT_EQ(names.at("file").entry.ctime, stat.ctime);
  EXPECT_TRUE(S_ISLNK(names.at("way out").entry.mode));
  EXPECT_EQ(names.at("way out").target, directory_ / "outside");
  EXPECT_FALSE(tree_->scan("way out"));
  EXPECT_FALSE(tree_->scan("../outside"));
}

TEST_F(HostTreeTest, RemovesOneNameAndNothingBehindALink) {
  std::ofstream(directory_ / "tree/d/file") << "x";
  EXPECT_FALSE(tree_->remove_directory("d")) << "it has something in it";
  EXPECT_FALSE(tree_->remove_file("d")) << "it is a directory";
  EXPECT_FALSE(tree_->remove_file("way out/secret"));
  EXPECT_TRUE(tree_->remove_file("secret")) << "the link itself";
  EXPECT_TRUE(tree_->remove_file("d/file"));
  EXPECT_TRUE(tree_->remove_directory("d"));
  EXPECT_TRUE(std::filesystem::exists(directory_ / "outside/secret"));
}

TEST_F(HostTreeTest, ReadingAFileLeavesItsTimeOfAccess) {
  std::ofstream(directory_ / "tree/file") << "12345";
  ASSERT_TRUE(tree_->set_times("file", {1'000, 0}, {2'000'000'000, 0}));
  auto file = tree_->open_file("file");
  ASSERT_TRUE(file) << file.error().message();
  Bytes bytes(5);
  ASSERT_EQ((*file)->pread(bytes, 0).value_or(0), 5);
  EXPECT_EQ(tree_->stat("file")->atime, (Timestamp{1'000, 0}));
}

}  // namespace
}  // namespace reprise

#include "snapshot/export.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "../store/temp_directory.h"
#include "sample_tree.h"

namespace reprise::snapshot {
namespace {

struct stat stat_of(const std::string& path) {
  struct stat st = {};
  EXPECT_EQ(::lstat(path.c_str(), &st), 0) << path;
  return st;
}
std::string content_of(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}
Result<Exported> export_to(const fs::Tree& tree, const std::string& path, const ExportOptions& options = {}) {
  return export_directory(tree, kRootInode, path, options, system_random());
}
std::vector<std::string> names_in(const std::string& path) {
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(path))
    names.push_back(entry.path().filename());
  std::sort(names.begin(), names.end());
  return names;
}

// Everything but what export leaves out, so that the content digests agree.
void make_exportable(TreeMaker& tree) {
  make_everything(tree);
  InodeId dir{2};
  for (const char* name : {"null", "large"}) {
    InodeId id = tree.head.lookup(dir, name)->inode;
    tree.apply(fs::Unlink{.parent = dir, .name = name, .inode = id, .time = tree.tick()});
  }
}

TEST(Export, TheDirectoryHasTheContentOfTheTree) {
  TempDirectory out;
  TreeMaker tree;
  make_exportable(tree);
  auto exported = export_to(tree.head, out / "dir");
  ASSERT_TRUE(exported) << exported.error().message();
  EXPECT_EQ(exported->hard_links, 1u);
  EXPECT_EQ(exported->skipped_sockets, 1u);
  EXPECT_EQ(exported->skipped_devices, 0u);
  auto digest = content_digest_of_directory(out / "dir");
  ASSERT_TRUE(digest) << digest.error().message();
  EXPECT_EQ(*digest, *fs::content_digest(tree.head));
  EXPECT_EQ(names_in(out.path()), std::vector<std::string>{"dir"}) << "nothing is left beside it";

  std::string dir = out / "dir/dir/";
  EXPECT_EQ(content_of(dir + "small"), "hello");
  EXPECT_EQ(content_of(dir + "medium"), random_bytes(100'000, 1));
  EXPECT_EQ(std::filesystem::read_symlink(dir + "link"), "../somewhere/else");
  EXPECT_TRUE(S_ISFIFO(stat_of(dir + "fifo").st_mode));
  EXPECT_EQ(stat_of(dir + "medium").st_ino, stat_of(out / "dir/hard").st_ino);
  EXPECT_EQ(stat_of(dir + "big").st_mode & 07777, 0500u);
  struct stat sparse = stat_of(dir + "sparse");
  EXPECT_EQ(sparse.st_size, int64_t{6} << 30);
  EXPECT_LT(sparse.st_blocks * 512, 1 << 20);
  EXPECT_EQ(stat_of(dir + "hole").st_size, 1 << 20);
  char value[16];
  EXPECT_EQ(::getxattr((dir + "small").c_str(), "user.short", value, sizeof value), 5);
}

TEST(Export, TimesAreThoseOfTheTreeOnDirectoriesToo) {
  TempDirectory out;
  TreeMaker tree;
  make_exportable(tree);
  ASSERT_TRUE(export_to(tree.head, out / "dir"));
  int checked = 0;
  std::vector<std::pair<InodeId, std::string>> rest = {{kRootInode, out / "dir"}};
  while (!rest.empty()) {
    auto [id, path] = rest.back();
    rest.pop_back();
    fs::Attributes attributes = *tree.head.stat(id);
    if (S_ISSOCK(attributes.mode)) continue;
    struct stat st = stat_of(path);
    EXPECT_EQ(st.st_mtim.tv_sec, attributes.mtime.sec) << path;
    EXPECT_EQ(st.st_mtim.tv_nsec, attributes.mtime.nsec) << path;
    checked++;
    if (!attributes.is_directory()) continue;
    ASSERT_TRUE(tree.head.read_directory(id, 0, [&, path = path](const fs::Dentry& entry) {
      rest.emplace_back(entry.inode, path + "/" + std::string(entry.name));
      return true;
    }));
  }
  EXPECT_GT(checked, 600);
}

TEST(Export, GoesOnlyWhereNothingIs) {
  TempDirectory out;
  TreeMaker tree;
  tree.file(kRootInode, "f", "x");
  std::filesystem::create_directory(out / "empty");
  EXPECT_TRUE(export_to(tree.head, out / "empty"));
  EXPECT_EQ(content_of(out / "empty/f"), "x");

  std::filesystem::create_directory(out / "full");
  std::ofstream(out / "full/mine") << "mine";
  std::ofstream(out / "file") << "mine";
  for (const char* name : {"full", "file", "empty"}) {
    auto exported = export_to(tree.head, out / name);
    ASSERT_FALSE(exported) << name;
    EXPECT_EQ(exported.error().code(), Code::kAlreadyExists);
    EXPECT_THAT(exported.error().message(), testing::HasSubstr(out / name));
  }
  EXPECT_EQ(export_to(tree.head, out / "missing/dir").error().code(), Code::kNotFound);
  EXPECT_EQ(content_of(out / "full/mine"), "mine");
  EXPECT_EQ(names_in(out.path()), (std::vector<std::string>{"empty", "file", "full"}));
}

TEST(Export, AFailureLeavesNothingBehind) {
  TempDirectory out;
  TreeMaker tree;
  make_exportable(tree);
  // Deeper than the host can name.
  InodeId parent = kRootInode;
  for (int i = 0; i < 20; i++) parent = tree.directory(parent, std::string(250, 'd'));
  auto exported = export_to(tree.head, out / "dir");
  ASSERT_FALSE(exported);
  EXPECT_EQ(exported.error().sys_errno(), ENAMETOOLONG);
  EXPECT_THAT(exported.error().message(), testing::HasSubstr("dddd"));
  EXPECT_EQ(names_in(out.path()), std::vector<std::string>{});
}

TEST(Export, DangerousThingsAreLeftOutUnlessAskedFor) {
  TempDirectory out;
  TreeMaker tree;
  InodeId setuid = tree.file(kRootInode, "setuid", "x");
  tree.chmod(setuid, 06755);
  tree.create(kRootInode, "null", S_IFCHR | 0666, "", makedev(1, 3));
  tree.apply(fs::Link{.parent = kRootInode,
                      .name = "null again",
                      .inode = tree.head.lookup(kRootInode, "null")->inode,
                      .time = tree.tick()});
  tree.xattr(setuid, "trusted.t", "x");
  auto exported = export_to(tree.head, out / "tame");
  ASSERT_TRUE(exported) << exported.error().message();
  EXPECT_EQ(exported->skipped_devices, 1u);
  EXPECT_EQ(exported->skipped_set_ids, 1u);
  EXPECT_EQ(exported->skipped_xattrs, 1u);
  EXPECT_EQ(names_in(out / "tame"), std::vector<std::string>{"setuid"});
  EXPECT_EQ(stat_of(out / "tame/setuid").st_mode & 07777, 0755u);
  EXPECT_EQ(stat_of(out / "tame/setuid").st_uid, ::geteuid());

  exported = export_to(tree.head, out / "set_ids", {.set_ids = true});
  ASSERT_TRUE(exported) << exported.error().message();
  EXPECT_EQ(stat_of(out / "set_ids/setuid").st_mode & 07777, 06755u);
}

TEST(Export, OwnersAndDevicesAreForRoot) {
  TempDirectory out;
  TreeMaker tree;
  make_everything(tree);
  auto exported = export_to(tree.head, out / "dir", {.owners = true, .set_ids = true, .devices = true});
  if (!exported) {  // not root, or root without the capabilities
    EXPECT_EQ(exported.error().code(), Code::kPermission) << exported.error().message();
    EXPECT_EQ(names_in(out.path()), std::vector<std::string>{});
    return;
  }
  EXPECT_EQ(stat_of(out / "dir/dir/small").st_uid, 1000u);
  EXPECT_EQ(stat_of(out / "dir/dir/link").st_gid, 100u);
  EXPECT_EQ(stat_of(out / "dir/dir/null").st_rdev, makedev(1, 3));
  EXPECT_EQ(stat_of(out / "dir/dir/large").st_mode & 07777, 06755u);
  EXPECT_EQ(*content_digest_of_directory(out / "dir"), *fs::content_digest(tree.head));
}

TEST(ContentDigest, SeesEveryDifferenceThatCounts) {
  TempDirectory out;
  auto digest_with = [&](const std::function<void(TreeMaker&)>& change) {
    TreeMaker tree;
    InodeId dir = tree.directory(kRootInode, "d");
    tree.file(dir, "f", std::string(10'000, 'x'));
    tree.create(dir, "l", S_IFLNK | 0777, "target");
    change(tree);
    return *fs::content_digest(tree.head);
  };
  Digest128 plain = digest_with([](TreeMaker&) {});
  auto differs = [&](const std::function<void(TreeMaker&)>& change) { return digest_with(change) != plain; };
  EXPECT_TRUE(differs([](TreeMaker& t) { t.chmod(InodeId{3}, 0600); }));
  EXPECT_TRUE(differs([](TreeMaker& t) { t.chmod(InodeId{2}, 0700); }));
  EXPECT_TRUE(differs([](TreeMaker& t) { t.write(InodeId{3}, 9'999, "y"); }));
  EXPECT_TRUE(differs([](TreeMaker& t) { t.write(InodeId{3}, 10'000, std::string(1, '\0')); }));
  EXPECT_TRUE(differs([](TreeMaker& t) { t.file(InodeId{2}, "g", ""); }));
  EXPECT_TRUE(differs([](TreeMaker& t) {
    t.apply(fs::Rename{.old_parent = {2},
                       .old_name = "f",
                       .new_parent = {2},
                       .new_name = "g",
                       .inode = {3},
                       .time = t.tick()});
  }));
  EXPECT_FALSE(differs([](TreeMaker& t) { t.xattr(InodeId{3}, "user.x", "y"); }));
  EXPECT_FALSE(differs([](TreeMaker& t) { t.chmod(InodeId{1}, 0700); })) << "the top is no entry";
  EXPECT_FALSE(differs([](TreeMaker& t) { t.create(kRootInode, "s", S_IFSOCK | 0644); }));
}

TEST(ContentDigest, OfADirectoryDoesNotFollowLinks) {
  TempDirectory out;
  std::filesystem::create_directory(out / "a");
  std::filesystem::create_symlink("/etc", out / "a/link");
  TreeMaker tree;
  tree.create(kRootInode, "link", S_IFLNK | 0777, "/etc");
  EXPECT_EQ(*content_digest_of_directory(out / "a"), *fs::content_digest(tree.head));
  EXPECT_EQ(content_digest_of_directory(out / "nothing").error().code(), Code::kNotFound);
}

// Files larger than what is read at once, with data and holes in all places.
TEST(ContentDigest, IsTheSameForHolesAndZeros) {
  TempDirectory out;
  std::filesystem::create_directory(out / "a");
  {
    std::ofstream file(out / "a/f", std::ios::binary);
    file << random_bytes(3'000'000, 1) << std::string(5'000'000, '\0') << "end";
  }
  ASSERT_EQ(::chmod((out / "a/f").c_str(), 0644), 0);
  TreeMaker tree;
  InodeId id = tree.file(kRootInode, "f", random_bytes(3'000'000, 1));
  tree.write(id, 8'000'000, "end");
  EXPECT_EQ(*content_digest_of_directory(out / "a"), *fs::content_digest(tree.head));
}

}  // namespace
}  // namespace reprise::snapshot

// What goes out as a directory, a ZIP or a tar comes back as it was, and other programs read and write the
// same.
#include <dirent.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>
#include <sys/stat.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "../store/temp_directory.h"
#include "crafted.h"
#include "sample_tree.h"
#include "snapshot/export.h"

namespace reprise::snapshot {
namespace {

const ExportOptions kEverything{
    .owners = false, .set_ids = true, .devices = true, .all_xattrs = true, .filter = {}};

std::string tar_bytes(const fs::Tree& tree, const ExportOptions& options = kEverything,
                      Exported* exported = nullptr, InodeId top = kRootInode) {
  MemorySink sink;
  auto done = export_tar(tree, top, sink, options);
  EXPECT_TRUE(done) << done.error().message();
  if (exported != nullptr && done) *exported = *done;
  return sink.bytes();
}
std::string zip_bytes(const fs::Tree& tree, const ExportOptions& options = kEverything,
                      Exported* exported = nullptr, InodeId top = kRootInode) {
  MemoryFile file;
  auto done = export_zip(tree, top, file, options);
  EXPECT_TRUE(done) << done.error().message();
  if (exported != nullptr && done) *exported = *done;
  return file.bytes();
}
fs::Head tree_of(const std::string& bytes) {
  fs::Head head = fs::Head::create({});
  auto imported = import_stream(head, std::make_unique<MemorySource>(bytes), ImportOptions::everything());
  EXPECT_TRUE(imported) << imported.error().message();
  EXPECT_EQ(head.check_invariants(), "");
  return head;
}
std::string content(const fs::Tree& tree) {
  auto digest = fs::content_digest(tree);
  return digest ? digest->to_string() : "none";
}
InodeId find(const fs::Tree& tree, const std::string& path) {
  InodeId at = kRootInode;
  for (const auto& part : std::filesystem::path(path)) {
    auto found = tree.lookup(at, part.string());
    EXPECT_TRUE(found) << path;
    if (!found) return {};
    at = found->inode;
  }
  return at;
}
void put_file(const std::string& path, const std::string& bytes) {
  std::ofstream(path, std::ios::binary) << bytes;
}
std::string file_at(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}
void run(const std::string& command) {
  ASSERT_EQ(std::system(command.c_str()), 0) << command;  // NOLINT(concurrency-mt-unsafe): one thread
}

// A ZIP has no devices, FIFOs or sockets.
void remove(TreeMaker& tree, const std::string& name) {
  InodeId dir{2};
  tree.apply(fs::Unlink{
      .parent = dir, .name = name, .inode = tree.head.lookup(dir, name)->inode, .time = tree.tick()});
}
void make_everything_in_a_zip(TreeMaker& tree) {
  make_everything(tree);
  for (const char* name : {"null", "fifo"}) remove(tree, name);
}

TEST(Archive, ATarHoldsEverythingButSockets) {
  TreeMaker tree;
  make_everything(tree);
  Exported exported;
  std::string bytes = tar_bytes(tree.head, kEverything, &exported);
  EXPECT_EQ(exported.skipped_sockets, 1u);
  EXPECT_EQ(exported.hard_links, 1u);
  EXPECT_LT(bytes.size(), size_t{16} << 20) << "holes take no room";
  fs::Head back = tree_of(bytes);
  EXPECT_EQ(content(back), content(tree.head));
  // What the content digest does not see.
  for (const char* path :
       {"dir", "dir/small", "dir/big", "dir/link", "dir/fifo", "dir/null", "hard", "dir/sparse"}) {
    fs::Attributes was = *tree.head.stat(find(tree.head, path)), is = *back.stat(find(back, path));
    EXPECT_EQ(is.mtime, was.mtime) << path;
    EXPECT_EQ(is.uid, was.uid) << path;
    EXPECT_EQ(is.gid, was.gid) << path;
    EXPECT_TRUE(was.is_directory() || is.nlink == was.nlink) << path;
  }
  EXPECT_EQ(find(back, "hard"), find(back, "dir/medium"));
  EXPECT_LE(back.stat(find(back, "dir/sparse"))->blocks, 1u);
  EXPECT_EQ(as_text(*back.get_xattr(find(back, "dir/small"), "user.short")), "value");
  EXPECT_EQ(as_text(*back.get_xattr(find(back, "dir/large"), "user.long")), std::string(3000, 'v'));
}

TEST(Archive, AZipHoldsFilesDirectoriesAndSymlinks) {
  TreeMaker tree;
  make_everything_in_a_zip(tree);
  Exported exported;
  // The largest hole takes libzip a while: a smaller one will do here.
  tree.apply(fs::Truncate{.inode = find(tree.head, "dir/sparse"), .size = 64 << 20, .time = tree.tick()});
  std::string bytes = zip_bytes(tree.head, kEverything, &exported);
  EXPECT_EQ(exported.copied_hard_links, 1u);
  EXPECT_EQ(exported.skipped_xattrs, 3u);
  fs::Head back = tree_of(bytes);
  EXPECT_EQ(content(back), content(tree.head));
  for (const char* path : {"dir", "dir/small", "dir/link", "hard"}) {
    fs::Attributes was = *tree.head.stat(find(tree.head, path)), is = *back.stat(find(back, path));
    EXPECT_EQ(is.mtime.sec, was.mtime.sec) << path;
    EXPECT_EQ(is.mtime.nsec, was.mtime.nsec / 100 * 100) << path;
    EXPECT_EQ(is.uid, was.uid) << path;
    EXPECT_EQ(is.gid, was.gid) << path;
  }
  EXPECT_EQ(back.stat(find(back, "dir/sparse"))->blocks, 0u) << "zeros become holes";
}

TEST(Archive, AnEmptyTreeIsAnArchive) {
  fs::Head empty = fs::Head::create({});
  EXPECT_EQ(content(tree_of(zip_bytes(empty))), content(empty));
  EXPECT_EQ(content(tree_of(tar_bytes(empty))), content(empty));
}

TEST(Archive, TimesFarAwayComeBack) {
  TreeMaker tree;
  std::vector<Timestamp> times = {{-1, 999'999'999},  {-1'000'000'000, 250'000'000}, {0, 0},
                                  {4'000'000'000, 7}, {253'402'300'799, 100},        {1'700'000'001, 0},
                                  {315'532'800, 1}};
  for (size_t i = 0; i < times.size(); i++) {
    InodeId id = tree.file(kRootInode, "f" + std::to_string(i), "x");
    tree.apply(fs::SetAttributes{.inode = id, .mask = fs::SetAttributes::kMtime, .mtime = times[i]});
  }
  fs::Head from_tar = tree_of(tar_bytes(tree.head)), from_zip = tree_of(zip_bytes(tree.head));
  for (size_t i = 0; i < times.size(); i++) {
    std::string path = "f" + std::to_string(i);
    EXPECT_EQ(from_tar.stat(find(from_tar, path))->mtime, times[i]) << i;
    Timestamp rounded{times[i].sec, times[i].nsec / 100 * 100};
    EXPECT_EQ(from_zip.stat(find(from_zip, path))->mtime, rounded) << i;
  }
}

// The same tree, made in another order, with other inodes, and zeros in the place of holes.
TEST(Archive, EqualTreesGiveEqualBytes) {
  TreeMaker one, other;
  for (const char* name : {"a", "b", "c"})
    one.file(one.directory(kRootInode, std::string("d") + name), name, name);
  InodeId sparse = one.create(kRootInode, "sparse", S_IFREG | 0644);
  one.write(sparse, 200'000, "end");
  one.xattr(sparse, "user.a", "1");
  one.xattr(sparse, "user.b", "2");

  other.skip_ids(1000);
  for (const char* name : {"c", "a", "b"})
    other.file(other.directory(kRootInode, std::string("d") + name), name, name);
  other.file(kRootInode, "gone", "x");
  InodeId gone = find(other.head, "gone");
  other.apply(fs::Unlink{.parent = kRootInode, .name = "gone", .inode = gone, .time = other.tick()});
  InodeId zeros = other.file(kRootInode, "sparse", std::string(200'000, '\0') + "end");
  other.xattr(zeros, "user.b", "2");
  other.xattr(zeros, "user.a", "1");
  auto same_times = [](TreeMaker& tree) {
    tree.head.for_each_inode(
        [&](const fs::Attributes& attributes) { tree.files.push_back(attributes.inode); });
    for (InodeId id : tree.files) {
      if (tree.head.stat(id))
        tree.apply(
            fs::SetAttributes{.inode = id, .mask = fs::SetAttributes::kMtime, .mtime = {1'600'000'000, 5}});
    }
  };
  same_times(one);
  same_times(other);
  EXPECT_TRUE(tar_bytes(one.head) == tar_bytes(other.head));
  EXPECT_TRUE(zip_bytes(one.head) == zip_bytes(other.head));
  ASSERT_EQ(::setenv("TZ", "America/New_York", 1), 0);  // NOLINT(concurrency-mt-unsafe): one thread
  ::tzset();
  std::string elsewhere = zip_bytes(one.head);
  ::unsetenv("TZ");  // NOLINT(concurrency-mt-unsafe): one thread
  ::tzset();
  EXPECT_TRUE(elsewhere == zip_bytes(one.head)) << "whatever the time zone";
}

RC_GTEST_PROP(Archive, WhatGoesOutComesBack, ()) {
  std::mt19937_64 random(*rc::gen::arbitrary<uint64_t>());
  TreeMaker tree;
  change_at_random(tree, random, *rc::gen::inRange(1, 150));
  RC_ASSERT(content(tree_of(tar_bytes(tree.head))) == content(tree.head));
  RC_ASSERT(content(tree_of(zip_bytes(tree.head))) == content(tree.head));
  TempDirectory out;
  // Without extended attributes, of which some hosts keep only a few.
  auto exported =
      export_directory(tree_of(zip_bytes(tree.head)), kRootInode, out / "d", kEverything, system_random());
  RC_ASSERT(exported.has_value());
  auto back = import_directory(out / "d");
  RC_ASSERT(back.has_value());
  RC_ASSERT(content(*back) == content(tree.head));
  // And a second time it is the same, byte by byte.
  RC_ASSERT(tar_bytes(tree_of(tar_bytes(tree.head))) == tar_bytes(tree.head));
}

// --- other programs

TEST(Archive, GnuTarPythonAndUnzipReadWhatIsWritten) {
  TempDirectory out;
  TreeMaker tree;
  make_everything_in_a_zip(tree);
  remove(tree, "socket");
  tree.apply(fs::Truncate{.inode = find(tree.head, "dir/sparse"), .size = 64 << 20, .time = tree.tick()});
  put_file(out / "t.tar", tar_bytes(tree.head));
  put_file(out / "t.zip", zip_bytes(tree.head));
  std::string wanted = content(tree.head);
  auto digest_of = [&](const std::string& path) {
    auto digest = content_digest_of_directory(path);
    return digest ? digest->to_string() : digest.error().message();
  };
  for (const char* name : {"tar", "python", "unzip", "pyzip"}) std::filesystem::create_directory(out / name);
  run("tar --xattrs -C " + out / "tar" + " -xpf " + out / "t.tar");
  EXPECT_EQ(digest_of(out / "tar"), wanted);
  struct stat st = {};
  ASSERT_EQ(::stat((out / "tar/dir/medium").c_str(), &st), 0);
  EXPECT_EQ(st.st_nlink, 2u);
  EXPECT_EQ(st.st_mtim.tv_nsec, 123'456'789);
  run("python3 -c \"import tarfile; a = {'filter': 'fully_trusted'} if hasattr(tarfile, 'data_filter') else "
      "{}; "
      "tarfile.open('" +
      out / "t.tar" + "').extractall('" + out / "python" + "', **a)\"");
  EXPECT_EQ(digest_of(out / "python"), wanted);
  // unzip looks a name up in the locale, and takes a newline for something else.
  TreeMaker plain;
  InodeId dir = plain.directory(kRootInode, "d\xc3\xa9");
  InodeId file = plain.file(dir, "f", random_bytes(100'000, 1));
  plain.chmod(file, 0741);
  plain.create(dir, "link", S_IFLNK | 0777, "f");
  plain.create(dir, "empty", S_IFREG | 0600);
  put_file(out / "plain.zip", zip_bytes(plain.head));
  run("LC_ALL=C.UTF-8 unzip -q " + out / "plain.zip" + " -d " + out / "unzip");
  EXPECT_EQ(digest_of(out / "unzip"), content(plain.head));
  run("python3 -c \"import zipfile; z = zipfile.ZipFile('" + out / "t.zip" +
      "'); assert z.testzip() is None; z.extractall('" + out / "pyzip" + "')\"");
  EXPECT_EQ(file_at(out / "pyzip/dir/large"), random_bytes(3'000'000, 2));
}

TEST(Archive, WhatGnuTarPythonAndZipWriteIsRead) {
  TempDirectory out;
  TreeMaker tree;
  make_everything_in_a_zip(tree);
  remove(tree, "socket");
  remove(tree, "copy");
  tree.apply(fs::Truncate{.inode = find(tree.head, "dir/sparse"), .size = 64 << 20, .time = tree.tick()});
  tree.write(find(tree.head, "dir/sparse"), 32 << 20, "middle");
  ASSERT_TRUE(export_directory(tree.head, kRootInode, out / "d", kEverything, system_random()));
  std::string wanted = content(tree.head);
  auto imported = [&](const std::string& path) {
    fs::Head head = fs::Head::create({});
    auto done = import_archive(head, path, ImportOptions::everything());
    return done ? content(head) : done.error().message();
  };
  for (const char* format : {"gnu", "pax", "gnu -S", "pax -S", "pax -S --sparse-version=0.0",
                             "pax -S --sparse-version=0.1", "gnu -z", "pax -J", "pax --zstd", "pax -j"}) {
    run("cd " + out / "d" + " && tar --format=" + format + " -cf ../t.tar .");
    EXPECT_EQ(imported(out / "t.tar"), wanted) << format;
  }
  for (const char* format : {"GNU", "PAX"}) {
    run("cd " + out / "d" +
        " && python3 -c \"import tarfile; t = tarfile.open('../t.tar', 'w', format=tarfile." + format +
        "_FORMAT); t.add('.'); t.close()\"");
    EXPECT_EQ(imported(out / "t.tar"), wanted) << format;
  }
  // ustar has no long names and no large times.
  run("mkdir " + out / "u" + " && cd " + out / "u" +
      " && mkdir -p a/$(printf '%060d' 0) && (cd a/0* && echo x > $(printf '%060d' 1)) && tar --format=ustar "
      "-cf ../t.tar .");
  EXPECT_EQ(imported(out / "t.tar"), content_digest_of_directory(out / "u")->to_string());
  // Without a symlink, which some versions of zip cannot write into a pipe.
  run("cd " + out / "u" + " && chmod 600 a/0*/0* && zip -qr - . | cat > ../stream.zip");
  EXPECT_EQ(imported(out / "stream.zip"), content_digest_of_directory(out / "u")->to_string());
  run("cd " + out / "u" + " && ln -s f a/link && zip -qry ../t.zip .");
  EXPECT_EQ(imported(out / "t.zip"), content_digest_of_directory(out / "u")->to_string());
  run("cd " + out / "u" +
      " && rm a/link && python3 -c \"import zipfile, os; z = zipfile.ZipFile('../p.zip', 'w', "
      "zipfile.ZIP_BZIP2); "
      "[z.write(os.path.join(d, n)) for d, s, f in os.walk('a') for n in s + f]; z.write('a')\"");
  EXPECT_EQ(imported(out / "p.zip"), content_digest_of_directory(out / "u")->to_string());
}

TEST(Archive, FilesOver4GiBAreHeld) {
  TreeMaker tree;
  InodeId large = tree.create(kRootInode, "large", S_IFREG | 0644);
  tree.write(large, (uint64_t{4} << 30) + 5, "end");
  tree.write(large, 4096, "begin");
  fs::Head from_tar = tree_of(tar_bytes(tree.head)), from_zip = tree_of(zip_bytes(tree.head));
  EXPECT_EQ(content(from_tar), content(tree.head));
  EXPECT_EQ(content(from_zip), content(tree.head));
  EXPECT_EQ(from_zip.usage().blocks, tree.head.usage().blocks);
}

// --- parts and layers

TEST(Archive, PatternsChooseWhatIsExported) {
  TreeMaker tree;
  InodeId src = tree.directory(kRootInode, "src");
  InodeId deep = tree.directory(src, "deep");
  tree.file(src, "a.cc", "1");
  tree.file(src, "a.o", "2");
  tree.file(deep, "b.cc", "3");
  tree.file(tree.directory(kRootInode, "doc"), "c.md", "4");
  auto names = [&](std::vector<std::string> include, std::vector<std::string> exclude) {
    ExportOptions options;
    options.filter = {std::move(include), std::move(exclude)};
    fs::Head part = tree_of(tar_bytes(tree.head, options));
    std::vector<std::string> found;
    std::vector<std::pair<std::string, InodeId>> rest = {{"", kRootInode}};
    while (!rest.empty()) {
      auto [path, id] = rest.back();
      rest.pop_back();
      EXPECT_TRUE(part.read_directory(id, 0, [&, path = path](const fs::Dentry& entry) {
        found.push_back(path + std::string(entry.name));
        if (entry.type == DT_DIR) rest.emplace_back(found.back() + "/", entry.inode);
        return true;
      }));
    }
    std::sort(found.begin(), found.end());
    return testing::PrintToString(found);
  };
  using List = std::vector<std::string>;
  EXPECT_EQ(names({"*.cc"}, {}),
            testing::PrintToString(List{"src", "src/a.cc", "src/deep", "src/deep/b.cc"}));
  EXPECT_EQ(names({"src/*.cc"}, {}), testing::PrintToString(List{"src", "src/a.cc"}));
  EXPECT_EQ(names({"src/"}, {"deep"}), testing::PrintToString(List{"src", "src/a.cc", "src/a.o"}));
  EXPECT_EQ(names({}, {"*.o", "/doc"}),
            testing::PrintToString(List{"src", "src/a.cc", "src/deep", "src/deep/b.cc"}));
  EXPECT_EQ(names({"nothing"}, {}), testing::PrintToString(List{}));
  EXPECT_EQ(content(tree_of(tar_bytes(tree.head, {}, nullptr, src))),
            content(tree_of(zip_bytes(tree.head, {}, nullptr, src))));
}

TEST(Archive, AnImportIsLaidOverWhatIsThere) {
  TreeMaker tree;
  InodeId dir = tree.directory(kRootInode, "d");
  tree.file(dir, "old", "old");
  tree.file(dir, "same", "before");
  tree.apply(fs::Link{
      .parent = kRootInode, .name = "also same", .inode = find(tree.head, "d/same"), .time = tree.tick()});
  auto lay = [&](const std::string& bytes, const std::string& into = "") {
    ImportOptions options;
    options.into = into;
    return import_stream(tree.head, std::make_unique<MemorySource>(bytes), options);
  };
  auto done = lay(tar_of({tar_entry("d/same", '0', "after"), tar_entry("d/new", '0', "new")}));
  ASSERT_TRUE(done) << done.error().message();
  EXPECT_EQ(done->replaced, 1u);
  EXPECT_EQ(tree.head.check_invariants(), "");
  auto read = [&](const std::string& path) {
    Bytes bytes(100);
    return std::string(as_text(ByteView(bytes).first(*tree.head.read(find(tree.head, path), 0, bytes))));
  };
  EXPECT_EQ(read("d/same"), "after");
  EXPECT_EQ(read("also same"), "before") << "another name of a file that was replaced";
  EXPECT_EQ(read("d/old"), "old");
  ASSERT_TRUE(lay(tar_of({tar_entry("f", '0', "x")}), "/d/sub/sub"));
  EXPECT_EQ(read("d/sub/sub/f"), "x");
  EXPECT_FALSE(lay(tar_of({tar_entry("d", '0', "x")})));
  EXPECT_FALSE(lay(tar_of({tar_entry("d/old", '5')})));
}

TEST(Archive, AnExportIsLaidOverADirectory) {
  TempDirectory out;
  std::filesystem::create_directories(out / "t/d/keep");
  put_file(out / "t/d/old", "old");
  put_file(out / "t/d/same", "before");
  TreeMaker tree;
  InodeId dir = tree.directory(kRootInode, "d");
  tree.file(dir, "same", "after");
  tree.file(tree.directory(dir, "new"), "f", "x");
  tree.chmod(dir, 0700);
  auto over = [&] { return export_over_directory(tree.head, kRootInode, out / "t", {}, system_random()); };
  auto done = over();
  ASSERT_TRUE(done) << done.error().message();
  EXPECT_EQ(file_at(out / "t/d/same"), "after");
  EXPECT_EQ(file_at(out / "t/d/old"), "old");
  EXPECT_EQ(file_at(out / "t/d/new/f"), "x");
  struct stat st = {};
  ASSERT_EQ(::stat((out / "t/d").c_str(), &st), 0);
  EXPECT_EQ(st.st_mode & 07777, 0700u);
  EXPECT_EQ(st.st_mtim.tv_sec, tree.head.stat(dir)->mtime.sec);
  auto names = [&](const std::string& path) {
    return std::distance(std::filesystem::directory_iterator(path), std::filesystem::directory_iterator());
  };
  EXPECT_EQ(names(out / "t"), 1) << "nothing is left beside it";

  // Where a directory is a symlink, or a file a directory, nothing happens at all.
  tree.write(find(tree.head, "d/same"), 0, "AFTER");
  std::filesystem::create_directory(out / "elsewhere");
  std::filesystem::remove_all(out / "t/d/new");
  std::filesystem::create_symlink(out / "elsewhere", out / "t/d/new");
  auto refused = over();
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code(), Code::kAlreadyExists);
  EXPECT_THAT(refused.error().message(),
              testing::HasSubstr("d/new: expected a directory or nothing, found a symlink"));
  EXPECT_EQ(file_at(out / "t/d/same"), "after");
  EXPECT_TRUE(std::filesystem::is_empty(out / "elsewhere"));
  EXPECT_EQ(names(out / "t"), 1);
}

TEST(Archive, ASymlinkInTheTargetIsNotFollowed) {
  TempDirectory out;
  std::filesystem::create_directory(out / "elsewhere");
  std::filesystem::create_directory(out / "t");
  std::filesystem::create_symlink(out / "elsewhere", out / "t/d");
  TreeMaker tree;
  tree.file(tree.directory(kRootInode, "d"), "f", "x");
  EXPECT_FALSE(export_over_directory(tree.head, kRootInode, out / "t", {}, system_random()));
  EXPECT_TRUE(std::filesystem::is_empty(out / "elsewhere"));
}

TEST(StagedFile, IsThereWholeOrNotAtAll) {
  TempDirectory out;
  put_file(out / "f", "old");
  {
    auto staged = StagedFile::begin(out / "f", system_random());
    ASSERT_TRUE(staged) << staged.error().message();
    ASSERT_TRUE((*staged)->write(as_bytes("new")));
    EXPECT_EQ(file_at(out / "f"), "old");
  }
  EXPECT_EQ(file_at(out / "f"), "old");
  EXPECT_EQ(
      std::distance(std::filesystem::directory_iterator(out.path()), std::filesystem::directory_iterator()),
      1);
  auto staged = StagedFile::begin(out / "f", system_random());
  ASSERT_TRUE((*staged)->write(as_bytes("new")));
  ASSERT_TRUE((*staged)->publish());
  EXPECT_EQ(file_at(out / "f"), "new");
  std::filesystem::create_symlink("f", out / "link");
  EXPECT_EQ(StagedFile::begin(out / "link", system_random()).error().code(), Code::kAlreadyExists);
  EXPECT_EQ(StagedFile::begin(out.path(), system_random()).error().code(), Code::kAlreadyExists);
}

}  // namespace
}  // namespace reprise::snapshot

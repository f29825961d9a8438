// Trees that rest on a directory: what is read when, what a snapshot keeps, and what is refused.
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "base/hash.h"
#include "snapshot/node_format.h"
#include "snapshot/rest_on_directory.h"
#include "snapshot/snapshot.h"
#include "snapshot/stream.h"
#include "store/store.h"

namespace reprise::snapshot {
namespace {

namespace stdfs = std::filesystem;

class Resting : public testing::Test {
 protected:
  void SetUp() override {
    char name[] = "/tmp/reprise-resting-XXXXXX";
    ASSERT_NE(mkdtemp(name), nullptr);
    folder_ = name;
    put("a", "first\n");
    put("sub/b", std::string(200'000, 'b'));
    put("empty", "");
    stdfs::create_symlink("a", folder_ + "/link");
    stdfs::create_hard_link(folder_ + "/a", folder_ + "/also");
    source_ = std::make_shared<store::HostSource>(folder_);
  }
  void TearDown() override { stdfs::remove_all(folder_); }

  void put(const std::string& path, const std::string& text) const {
    stdfs::create_directories(stdfs::path(folder_ + "/" + path).parent_path());
    std::ofstream(folder_ + "/" + path) << text;
  }
  fs::Head rest() {
    auto rested = rest_on_directory(source_, system_clock());
    EXPECT_TRUE(rested) << rested.error().message();
    return std::move(rested->head);
  }
  static InodeId find(const fs::Tree& tree, std::string_view path) {
    InodeId at = kRootInode;
    while (!path.empty()) {
      size_t slash = std::min(path.find('/'), path.size());
      at = tree.lookup(at, path.substr(0, slash))->inode;
      path.remove_prefix(std::min(slash + 1, path.size()));
    }
    return at;
  }
  // The bytes, or the errno.
  static std::string read(const fs::Tree& tree, std::string_view path) {
    InodeId inode = find(tree, path);
    Bytes bytes(tree.stat(inode)->size);
    auto got = tree.read(inode, 0, bytes);
    return got ? std::string(as_text(bytes)) : fs::errno_text(got.error());
  }

  std::string folder_;
  std::shared_ptr<store::HostSource> source_;
};

TEST_F(Resting, NamesAndAttributesAreThereAndNoByteWasRead) {
  fs::Head head = rest();
  EXPECT_EQ(source_->bytes_read(), 0);
  EXPECT_EQ(head.check_invariants(), "");
  struct stat st;
  ASSERT_EQ(::stat((folder_ + "/sub/b").c_str(), &st), 0);
  fs::Attributes b = *head.stat(find(head, "sub/b"));
  EXPECT_EQ(b.size, 200'000);
  EXPECT_EQ(b.mode, st.st_mode);
  EXPECT_EQ(b.uid, st.st_uid);
  EXPECT_EQ(b.mtime, (Timestamp{st.st_mtim.tv_sec, static_cast<uint32_t>(st.st_mtim.tv_nsec)}));
  EXPECT_EQ(b.ctime, (Timestamp{st.st_ctim.tv_sec, static_cast<uint32_t>(st.st_ctim.tv_nsec)}));
  EXPECT_EQ(*head.read_link(find(head, "link")), "a");
  EXPECT_EQ(find(head, "a"), find(head, "also"));
  EXPECT_EQ(head.stat(find(head, "also"))->ctime.sec, head.stat(find(head, "a"))->ctime.sec);
  EXPECT_EQ(read(head, "also"), "first\n");
  EXPECT_EQ(read(head, "empty"), "");
  EXPECT_EQ(read(head, "sub/b"), std::string(200'000, 'b'));
  EXPECT_EQ(source_->bytes_read(), 200'006);
  EXPECT_TRUE(source_->failures().empty());
}

TEST_F(Resting, EveryKindOfChangeUnderneathIsAnErrorThatIsNamed) {
  struct Case {
    const char* name;
    std::function<void(const std::string& path)> change;
  };
  const Case cases[] = {
      {"rewritten in place to the same size",
       [](const std::string& path) { std::fstream(path, std::ios::in | std::ios::out) << "FIRST\n"; }},
      {"longer", [](const std::string& path) { std::ofstream(path, std::ios::app) << "more"; }},
      {"shorter", [](const std::string& path) { stdfs::resize_file(path, 3); }},
      {"replaced by one of the same bytes",
       [](const std::string& path) {
         std::ofstream(path + ".new") << "first\n";
         stdfs::rename(path + ".new", path);
       }},
      {"removed", [](const std::string& path) { stdfs::remove(path); }},
      {"now a directory",
       [](const std::string& path) {
         stdfs::remove(path);
         stdfs::create_directory(path);
       }},
      {"now a symlink that leads out",
       [](const std::string& path) {
         stdfs::remove(path);
         stdfs::create_symlink("/etc/passwd", path);
       }},
      {"now a FIFO",
       [](const std::string& path) {
         stdfs::remove(path);
         ASSERT_EQ(::mkfifo(path.c_str(), 0600), 0);
       }},
  };
  for (bool opened_before : {false, true}) {
    for (const Case& one : cases) {
      SCOPED_TRACE(one.name);
      SCOPED_TRACE(opened_before);
      stdfs::remove_all(folder_ + "/c");
      put("c", "first\n");
      source_ = std::make_shared<store::HostSource>(folder_);
      fs::Head head = rest();
      if (opened_before) {
        ASSERT_EQ(read(head, "c"), "first\n");
      }
      one.change(folder_ + "/c");
      const std::string now = read(head, "c");
      // An open file that lost its name alone is still the one that was recorded, but for its time of change.
      EXPECT_EQ(now, "Input/output error (EIO)");
      ASSERT_EQ(source_->failures().size(), 1);
      EXPECT_EQ(source_->failures()[0].path, "c");
      EXPECT_EQ(read(head, "a"), "first\n");
    }
  }
}

TEST_F(Resting, ADirectoryInTheWayThatBecameASymlinkIsNotFollowed) {
  fs::Head head = rest();
  stdfs::rename(folder_ + "/sub", folder_ + "/elsewhere");
  stdfs::create_symlink("elsewhere", folder_ + "/sub");
  EXPECT_EQ(read(head, "sub/b"), "Input/output error (EIO)");
}

TEST_F(Resting, ASnapshotKeepsWhatIsHeldAndWhereTheRestIs) {
  fs::Head head = rest();
  const InodeId b = find(head, "sub/b");
  Bytes block(fs::kBlockSize, std::byte{'x'});
  ASSERT_TRUE(head.apply(fs::Write{b, 5 * fs::kBlockSize, block, {9, 0}}));
  ASSERT_TRUE(head.apply(fs::Truncate{b, 150'000, {9, 0}}));
  auto store = store::Store::in_memory(system_random().next_id<VolumeId>());
  auto captured = capture(head, store->blobs());
  ASSERT_TRUE(captured) << captured.error().message();
  ASSERT_TRUE(store->blobs().sync());
  EXPECT_LT(captured->bytes, 20'000);
  EXPECT_EQ(source_->bytes_read(), 0);

  auto again = load(captured->root, store->blobs(), Remember::kYes, {}, source_);
  ASSERT_TRUE(again) << again.error().message();
  EXPECT_EQ(again->check_invariants(), "");
  EXPECT_EQ(again->digest(), head.digest());
  std::string expected =
      std::string(200'000, 'b').replace(5 * fs::kBlockSize, fs::kBlockSize, fs::kBlockSize, 'x');
  EXPECT_EQ(read(*again, "sub/b"), expected.substr(0, 150'000));

  auto without = load(captured->root, store->blobs());
  ASSERT_FALSE(without);
  EXPECT_EQ(without.error().code(), Code::kUnsupported);
}

TEST_F(Resting, IsNotSentToAPeer) {
  fs::Head head = rest();
  auto sent = send_tree(head, kPieceBytes, [](ByteView) { return Status{}; });
  ASSERT_FALSE(sent);
  EXPECT_EQ(sent.error().code(), Code::kUnsupported);
}

// A page with one file that says it rests on a source.
Bytes page_of(uint64_t size, uint64_t limit, std::string_view key) {
  fs::Inode file;
  file.mode = S_IFREG | 0644;
  file.nlink = 1;
  file.size = size;
  auto* content = fs::SourcedFile::create(nullptr, limit, as_bytes(key));
  file.content = content;
  PageEncoder page(0);
  page.add(2, file, {}, {});
  fs::release(content);
  return page.finish();
}

TEST_F(Resting, APageIsReadAsItWasWrittenAndAnythingElseIsRefused) {
  const Bytes page = page_of(100, 90, "key");
  uint64_t base = 1;
  int seen = 0;
  ASSERT_TRUE(parse_page(page, base, [&](const PageEntry& entry) {
    seen++;
    EXPECT_EQ(entry.source_limit, 90);
    EXPECT_EQ(as_text(entry.source_key), "key");
    EXPECT_FALSE(entry.content);
    return true;
  }));
  EXPECT_EQ(seen, 1);
  for (size_t cut = 0; cut < page.size(); cut++)
    EXPECT_FALSE(parse_page(ByteView(page).first(cut), base, [](const PageEntry&) { return true; })) << cut;

  auto load_page = [&](const Bytes& blob) {
    TreeBuilder builder({}, Remember::kNo, source_);
    return builder.add(hash128(blob), blob);
  };
  EXPECT_TRUE(load_page(page));
  auto more = load_page(page_of(100, 101, "key"));
  ASSERT_FALSE(more);
  EXPECT_EQ(more.error().code(), Code::kCorrupt);
  Bytes damaged = page;
  for (size_t at = 0; at < damaged.size(); at++) {
    for (int bit = 0; bit < 8; bit++) {
      damaged[at] ^= std::byte(1u << bit);
      (void)load_page(damaged);  // must neither crash nor hang
      damaged[at] ^= std::byte(1u << bit);
    }
  }
}

}  // namespace
}  // namespace reprise::snapshot

#include "snapshot/snapshot.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>

#include "base/hash.h"
#include "sample_tree.h"
#include "snapshot/node_format.h"
#include "store/pack.h"

namespace reprise::snapshot {
namespace {

// Blobs in a map, so that tests can look at them and spoil them.
class BlobMap final : public store::BlobSink, public store::BlobSource {
 public:
  Result<BlobId> put(ByteView bytes) override {
    if (puts_until_full == 0) return fail(Code::kNoSpace, "full");
    if (puts_until_full > 0) puts_until_full--;
    BlobId id = hash128(bytes);
    blobs[id] = Bytes(bytes.begin(), bytes.end());
    return id;
  }
  Result<Bytes> get(BlobId id) override {
    auto it = blobs.find(id);
    if (it == blobs.end()) return fail(Code::kNotFound, "no blob " + id.to_string());
    return it->second;
  }
  std::map<BlobId, Bytes> blobs;
  int puts_until_full = -1;
};

void expect_equal_trees(const fs::Tree& tree, const fs::Tree& loaded) {
  EXPECT_EQ(loaded.check_invariants(), "");
  EXPECT_EQ(loaded.digest(), tree.digest());
  EXPECT_EQ(loaded.recompute_digest(), tree.recompute_digest());
  EXPECT_EQ(fs::content_digest(loaded), fs::content_digest(tree));
  EXPECT_EQ(loaded.usage().inodes, tree.usage().inodes);
  EXPECT_EQ(loaded.usage().blocks, tree.usage().blocks);
}

fs::View load_or_fail(BlobId root, store::BlobSource& source, Remember remember = Remember::kYes) {
  auto loaded = load(root, source, remember);
  EXPECT_TRUE(loaded) << loaded.error().message();
  return loaded ? std::move(*loaded) : fs::View();
}

TEST(Snapshot, LoadOfCaptureIsTheTree) {
  TreeMaker tree;
  make_everything(tree);
  BlobMap blobs;
  auto captured = capture(tree.head.view(), blobs);
  ASSERT_TRUE(captured) << captured.error().message();
  fs::View loaded = load_or_fail(captured->root, blobs);
  expect_equal_trees(tree.head, loaded);

  // Attributes that the digest leaves out.
  tree.head.for_each_inode([&](const fs::Attributes& a) {
    auto b = loaded.stat(a.inode);
    ASSERT_TRUE(b);
    EXPECT_EQ(b->atime, a.atime);
    EXPECT_EQ(b->blocks, a.blocks);
  });
  // The order and the cookies of entries.
  std::vector<std::pair<std::string, uint64_t>> before, after;
  auto collect = [](const fs::Tree& of, auto& into) {
    ASSERT_TRUE(of.read_directory(InodeId{4}, 0, [&](const fs::Dentry& e) {
      into.emplace_back(e.name, e.cookie);
      return true;
    }));
  };
  collect(tree.head, before);
  collect(loaded, after);
  EXPECT_EQ(before.size(), 600u);
  EXPECT_EQ(before, after);
}

TEST(Snapshot, AFreshTreeIsAVolumeAndAPage) {
  TreeMaker tree;
  BlobMap blobs;
  auto captured = capture(tree.head, blobs);
  ASSERT_TRUE(captured);
  EXPECT_EQ(captured->blobs, 2u);
  expect_equal_trees(tree.head, load_or_fail(captured->root, blobs));
}

const fs::SetLimits kLimits{
    .bytes = 1 << 30, .inodes = 1000, .file_size = 1 << 20, .depth = 20, .names_per_directory = 300};

TEST(Snapshot, TheLimitsOfTheVolumeArePartOfIt) {
  TreeMaker tree;
  make_everything(tree);
  BlobMap blobs;
  BlobId without = capture(tree.head, blobs)->root;
  ASSERT_TRUE(tree.head.apply(kLimits));
  auto captured = capture(tree.head, blobs);
  ASSERT_TRUE(captured) << captured.error().message();
  EXPECT_NE(captured->root, without);
  fs::View loaded = load_or_fail(captured->root, blobs);
  expect_equal_trees(tree.head, loaded);
  EXPECT_EQ(loaded.limits(), kLimits);
  EXPECT_EQ(load_or_fail(without, blobs).limits(), fs::SetLimits{});
  EXPECT_EQ(fs::Head(loaded).limits(), kLimits);
  // Not under anything, not twice, and nothing below it but a table.
  Bytes& blob = blobs.blobs[captured->root];
  for (BlobId below : {captured->root, BlobId{1, 2}}) {
    Bytes wrong = encode_volume({below, kLimits});
    blob = wrong;
    EXPECT_FALSE(load(captured->root, blobs));
  }
}

TEST(Snapshot, EqualTreesHaveEqualRoots) {
  TreeMaker a, b;
  make_everything(a);
  make_everything(b);
  a.head.settle();
  BlobMap blobs;
  EXPECT_EQ(capture(a.head, blobs)->root, capture(b.head, blobs, Remember::kNo)->root);
}

TEST(Snapshot, ALoadedTreeCanBeChangedLikeAnyOther) {
  TreeMaker tree;
  make_everything(tree);
  BlobMap blobs;
  auto captured = capture(tree.head, blobs);
  ASSERT_TRUE(captured);
  fs::View loaded = load_or_fail(captured->root, blobs);
  Digest128 before = loaded.digest();

  TreeMaker changed;
  changed.head = fs::Head(loaded);
  changed.ids_from(InodeId::make(9, 0));
  changed.directories = tree.directories;
  changed.files = tree.files;
  std::mt19937_64 random_a(7), random_b(7);
  tree.ids_from(InodeId::make(9, 0));
  changed.head.settle();
  // The same changes on both; times differ, so they are compared by content.
  change_at_random(tree, random_a, 300);
  change_at_random(changed, random_b, 300);
  changed.head.settle();
  EXPECT_EQ(changed.head.check_invariants(), "");
  EXPECT_EQ(fs::content_digest(changed.head), fs::content_digest(tree.head));
  EXPECT_EQ(loaded.digest(), before);
  EXPECT_EQ(loaded.recompute_digest(), before);
}

TEST(Snapshot, TheSecondCaptureCostsWhatChanged) {
  TreeMaker tree;
  for (int d = 0; d < 30; d++) {
    InodeId directory = tree.directory(kRootInode, "d" + std::to_string(d));
    for (int f = 0; f < 100; f++)
      tree.file(directory, "f" + std::to_string(f), random_bytes(20'000, static_cast<uint64_t>(d) * 100 + f));
  }
  BlobMap blobs;
  auto first = capture(tree.head.view(), blobs);
  ASSERT_TRUE(first);
  EXPECT_GT(first->blobs, 3000u);
  auto nothing = capture(tree.head.view(), blobs);
  ASSERT_TRUE(nothing);
  EXPECT_EQ(nothing->blobs, 1u) << "the volume's";
  EXPECT_EQ(nothing->root, first->root);

  tree.head.settle();  // hashing changes nothing
  EXPECT_EQ(capture(tree.head.view(), blobs)->blobs, 1u);

  tree.write(tree.files[1234], 5000, "changed");
  fs::View view = tree.head.view();
  auto second = capture(view, blobs);
  ASSERT_TRUE(second);
  EXPECT_LE(second->blobs, 6u);  // its leaf, its page, the table above and the volume
  EXPECT_NE(second->root, first->root);
  expect_equal_trees(view, load_or_fail(second->root, blobs));
  EXPECT_EQ(capture(fs::Head(view).view(), blobs)->blobs, 1u) << "a fork has the marks too";
}

TEST(Snapshot, MarksAreNeverTrustedAcrossChanges) {
  std::mt19937_64 random(11);
  TreeMaker tree;
  store::BlobStore& blobs = *store::blobs_in_memory().release();
  std::unique_ptr<store::BlobStore> owner(&blobs);
  std::vector<std::pair<fs::View, BlobId>> history;
  for (int round = 0; round < 30; round++) {
    change_at_random(tree, random, 40);
    if (round % 3 == 0) tree.head.settle();
    fs::View view = tree.head.view();
    auto captured = capture(view, blobs);
    ASSERT_TRUE(captured) << captured.error().message();
    BlobMap from_scratch;
    EXPECT_EQ(capture(view, from_scratch, Remember::kNo)->root, captured->root) << "round " << round;
    history.emplace_back(std::move(view), captured->root);
    if (round % 5 == 4) tree.head = fs::Head(load_or_fail(captured->root, blobs));  // go on from a loaded one
  }
  for (auto& [view, root] : history) expect_equal_trees(view, load_or_fail(root, blobs));
}

TEST(Snapshot, CapturesForPeersLeaveAndReadNoMarks) {
  TreeMaker tree;
  make_everything(tree);
  BlobMap peer, own;
  auto to_peer = capture(tree.head, peer, Remember::kNo);
  ASSERT_TRUE(to_peer);
  auto to_store = capture(tree.head, own);
  ASSERT_TRUE(to_store);
  EXPECT_EQ(own.blobs.size(), peer.blobs.size());
  BlobMap second_peer;
  ASSERT_TRUE(capture(tree.head, second_peer, Remember::kNo));
  EXPECT_EQ(second_peer.blobs.size(), peer.blobs.size());
  fs::View loaded = load_or_fail(to_peer->root, peer, Remember::kNo);
  BlobMap new_store;
  ASSERT_TRUE(capture(loaded, new_store));
  EXPECT_EQ(new_store.blobs.size(), peer.blobs.size());
}

TEST(Snapshot, InodesWithoutLinksStayOut) {
  TreeMaker tree;
  InodeId kept = tree.file(kRootInode, "kept", "kept");
  tree.skip_ids(100);
  InodeId gone = tree.file(kRootInode, "gone", random_bytes(50'000, 1));  // in a page of its own
  tree.apply(fs::Unlink{.parent = kRootInode, .name = "gone", .inode = gone, .time = tree.tick()});
  BlobMap blobs;
  auto captured = capture(tree.head, blobs);
  ASSERT_TRUE(captured);
  fs::View loaded = load_or_fail(captured->root, blobs);
  EXPECT_EQ(loaded.check_invariants(), "");
  EXPECT_EQ(loaded.digest(), tree.head.digest());
  EXPECT_TRUE(loaded.stat(kept));
  EXPECT_FALSE(loaded.stat(gone));
  // Linked again, it is in the next one.
  tree.apply(fs::Link{.parent = kRootInode, .name = "back", .inode = gone, .time = tree.tick()});
  captured = capture(tree.head, blobs);
  ASSERT_TRUE(captured);
  loaded = load_or_fail(captured->root, blobs);
  expect_equal_trees(tree.head, loaded);
}

TEST(Snapshot, AFailedPutEndsTheCapture) {
  TreeMaker tree;
  make_everything(tree);
  BlobMap blobs;
  blobs.puts_until_full = 20;
  auto captured = capture(tree.head, blobs);
  ASSERT_FALSE(captured);
  EXPECT_EQ(captured.error().code(), Code::kNoSpace);
}

TEST(Snapshot, FilesThatShareBlobsShareNodesWhenLoaded) {
  TreeMaker tree;
  std::string bytes = random_bytes(1 << 20, 1);
  for (int i = 0; i < 40; i++) tree.file(kRootInode, std::to_string(i), bytes);
  BlobMap blobs;
  auto captured = capture(tree.head, blobs);
  ASSERT_TRUE(captured);
  size_t before = fs::BlockPool::in_use();
  fs::View loaded = load_or_fail(captured->root, blobs);
  EXPECT_EQ(fs::BlockPool::in_use() - before, 256u);
  expect_equal_trees(tree.head, loaded);
  // And come apart when one is changed.
  fs::Head head(loaded);
  ASSERT_TRUE(
      head.apply(fs::Write{.inode = tree.files[3], .offset = 0, .data = as_bytes("x"), .time = {1, 0}}));
  EXPECT_EQ(head.check_invariants(), "");
  EXPECT_EQ(loaded.check_invariants(), "");
}

// --- blobs that nobody vouches for

class SpoiledSnapshot : public testing::Test {
 protected:
  void SetUp() override {
    make_everything(tree_);
    auto captured = capture(tree_.head, blobs_, Remember::kNo);
    ASSERT_TRUE(captured);
    root_ = captured->root;
  }
  // Loads, and expects an error or a tree that is in order.
  void load_anything(const BlobMap& blobs) {
    BlobMap copy = blobs;
    auto loaded = load(root_, copy, Remember::kNo, {.memory_bytes = 1 << 28});
    if (loaded) {
      EXPECT_EQ(loaded->check_invariants(), "");
    } else {
      EXPECT_THAT(loaded.error().code(), testing::AnyOf(Code::kCorrupt, Code::kNotFound, Code::kNoSpace));
    }
  }
  TreeMaker tree_;
  BlobMap blobs_;
  BlobId root_;
};

TEST_F(SpoiledSnapshot, AMissingBlobIsNamed) {
  for (const auto& [id, bytes] : blobs_.blobs) {
    BlobMap copy = blobs_;
    copy.blobs.erase(id);
    auto loaded = load(root_, copy, Remember::kNo);
    ASSERT_FALSE(loaded);
    EXPECT_EQ(loaded.error().code(), Code::kNotFound);
    EXPECT_THAT(loaded.error().message(), testing::HasSubstr(id.to_string()));
  }
}

TEST_F(SpoiledSnapshot, FlippedCutAndForeignBytesNeverCrash) {
  std::mt19937_64 random(3);
  std::vector<BlobId> ids;
  for (const auto& [id, bytes] : blobs_.blobs) ids.push_back(id);
  for (int round = 0; round < 600; round++) {
    BlobId id = ids[random() % ids.size()];
    Bytes original = blobs_.blobs[id];
    Bytes& blob = blobs_.blobs[id];
    switch (random() % 4) {
      case 0:
        blob[random() % std::min<size_t>(blob.size(), 200)] ^= static_cast<std::byte>(1 + random() % 255);
        break;
      case 1:
        blob.resize(random() % blob.size());
        break;
      case 2:
        blob = blobs_.blobs[ids[random() % ids.size()]];
        break;
      case 3:
        for (int i = 0; i < 5; i++) blob[random() % blob.size()] = static_cast<std::byte>(random());
        break;
    }
    load_anything(blobs_);
    blobs_.blobs[id] = original;
  }
  expect_equal_trees(tree_.head, load_or_fail(root_, blobs_));
}

TEST_F(SpoiledSnapshot, ARingOfBlobsEnds) {
  // Only a source that does not check hashes can give one.
  InnerNode inner{.kind = fs::NodeKind::kFileInner, .level = 2, .mask = 1};
  inner.child[0] = {7, 7};
  blobs_.blobs[{7, 7}] = encode_inner(inner);
  auto loaded = load({7, 7}, blobs_);
  ASSERT_FALSE(loaded);
  EXPECT_EQ(loaded.error().code(), Code::kCorrupt);
}

// A page with one file whose content is this blob.
BlobId put_file_tree(BlobMap& blobs, BlobId content, uint64_t size, int files) {
  PageEncoder page(0);
  fs::Inode root;
  root.mode = S_IFDIR | 0755;
  root.nlink = 2;
  root.rdev_or_parent = 1;
  root.size = static_cast<uint64_t>(files);
  TreeMaker names;
  for (int i = 0; i < files; i++) names.create(kRootInode, "f" + std::to_string(i), S_IFREG | 0644);
  BlobMap own;
  auto captured = capture(names.head, own, Remember::kNo);
  EXPECT_TRUE(captured);
  uint64_t base;
  std::vector<fs::Node*> nodes;
  const BlobId first_page = parse_volume(own.blobs[captured->root])->table;
  EXPECT_TRUE(parse_page(own.blobs[first_page], base, [&](const PageEntry& entry) {
    fs::Inode inode = entry.inode;
    if (S_ISDIR(inode.mode)) {
      inode.content = make_dir_leaf(entry.inline_directory);
    } else {
      inode.size = size;
      inode.content = new fs::FileInner;
    }
    nodes.push_back(inode.content);
    page.add(entry.slot, inode, content, {});
    return true;
  }));
  for (fs::Node* node : nodes) fs::release(node);
  return *blobs.put(page.finish());
}

// A few hundred bytes of blobs that stand for 16^9 leaves.
TEST(Snapshot, ABombOfSharedBlobsIsRefused) {
  BlobMap blobs;
  fs::FileLeaf* leaf = new fs::FileLeaf;
  leaf->block[0] = fs::BlockPool::allocate();
  std::memset(leaf->block[0], 1, fs::kBlockSize);
  std::array<std::byte, kLeafHeaderBytes> header;
  std::vector<ByteView> parts;
  encode_file_leaf(*leaf, header, parts);
  BlobId below = *blobs.put_parts(parts, store::Refers::kMaybe);
  fs::release(leaf);
  for (uint8_t level = 1; level <= 7; level++) {
    InnerNode inner{.kind = fs::NodeKind::kFileInner, .level = level, .mask = 0xffff};
    inner.child.fill(below);
    below = *blobs.put(encode_inner(inner));
  }
  BlobId root = put_file_tree(blobs, below, fs::kFileSizeMax, 1);
  auto loaded = load(root, blobs, Remember::kNo, {.memory_bytes = 1 << 30});
  ASSERT_FALSE(loaded);
  EXPECT_EQ(loaded.error().code(), Code::kNoSpace);
}

TEST(Snapshot, ATreeBeyondTheLimitIsRefused) {
  TreeMaker tree;
  tree.file(kRootInode, "f", random_bytes(3 << 20, 1));
  BlobMap blobs;
  auto captured = capture(tree.head, blobs);
  ASSERT_TRUE(captured);
  EXPECT_EQ(load(captured->root, blobs, Remember::kNo, {.memory_bytes = 2 << 20}).error().code(),
            Code::kNoSpace);
  EXPECT_TRUE(load(captured->root, blobs, Remember::kNo, {.memory_bytes = 4 << 20}));
}

TEST(Snapshot, AContentOfTheWrongKindIsRefused) {
  BlobMap blobs;
  TreeMaker tree;
  for (int i = 0; i < 200; i++) tree.create(kRootInode, "f" + std::to_string(i), S_IFREG | 0644);
  ASSERT_TRUE(capture(tree.head, blobs));
  for (const auto& [id, bytes] : std::map<BlobId, Bytes>(blobs.blobs)) {
    BlobId root = put_file_tree(blobs, id, 4096, 1);
    EXPECT_EQ(load(root, blobs).error().code(), Code::kCorrupt);
  }
}

TEST(NodeFormat, AnotherVersionIsNoNode) {
  TreeMaker tree;
  BlobMap blobs;
  auto captured = capture(tree.head, blobs);
  ASSERT_TRUE(captured);
  const BlobId page = parse_volume(blobs.blobs[captured->root])->table;
  for (BlobId id : {captured->root, page}) {
    Bytes& blob = blobs.blobs[id];
    const std::byte version = std::exchange(blob[1], std::byte{2});
    EXPECT_EQ(kind_of(blob), std::nullopt);
    EXPECT_EQ(parse_volume(blob), std::nullopt);
    EXPECT_EQ(load(captured->root, blobs).error().code(), Code::kCorrupt);
    blob[1] = version;
  }
}

TEST(NodeFormat, AVolumeIsReadAsItWasWrittenAndNothingElseIs) {
  VolumeNode node{{7, 9}, kLimits};
  Bytes blob = encode_volume(node);
  EXPECT_EQ(to_hex(blob),
            "090007000000000000000900000000000000"
            "0000004000000000e80300000000000000001000000000002c0100000000000014000000");
  auto parsed = parse_volume(blob);
  ASSERT_TRUE(parsed);
  EXPECT_EQ(parsed->table, node.table);
  EXPECT_EQ(parsed->limits, kLimits);
  EXPECT_EQ(children_of(blob), std::vector{node.table});
  EXPECT_EQ(kind_of(blob), std::nullopt);
  for (size_t length = 0; length < blob.size(); length++)
    EXPECT_FALSE(parse_volume(ByteView(blob).first(length)));
  blob.push_back(std::byte{0});
  EXPECT_FALSE(parse_volume(blob));
  EXPECT_FALSE(parse_volume(encode_volume({{7, 9}, {}}))) << "without limits there is no such node";
}

// The bytes of docs/snapshot-format.md's example.
TEST(NodeFormat, TheDocumentedExample) {
  fs::Head head = fs::Head::create({1'700'000'000, 5});
  ASSERT_TRUE(head.apply(fs::Create{
      .parent = kRootInode, .name = "a", .inode = {2}, .mode = S_IFREG | 0644, .time = {1'700'000'001, 0}}));
  ASSERT_TRUE(
      head.apply(fs::Write{.inode = {2}, .offset = 0, .data = as_bytes("hi\n"), .time = {1'700'000'002, 0}}));
  BlobMap blobs;
  auto captured = capture(head, blobs);
  ASSERT_TRUE(captured);
  const Bytes& volume = blobs.blobs[captured->root];
  const BlobId table = parse_volume(volume)->table;
  EXPECT_EQ(to_hex(volume),
            "0901"
            "339f294b25983665cbfd1e92b76ef2e5"
            "000000000000000000000000000000000000000000000000000000000000000000000000"
            "02000000000000000100000000000000"
            "ba500a15e5cd904db7eef3bc95827fee");
  EXPECT_EQ(to_hex(blobs.blobs[table]),
            "0201060000000000000000"
            "00ed41000000000000000000000200000001000000000000000100000000000000"
            "00f153650000000001f153650000000001f15365000000000500000000000000000000000200"
            "00000f00010000000200000000000000080161"
            "a4810000000000000000000001000000030000000000000000000000000000000"
            "1f153650000000002f153650000000002f153650000000000000000000000000000000001000000"
            "030068690a");
}

}  // namespace
}  // namespace reprise::snapshot

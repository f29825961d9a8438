// Trees of which only what is touched is loaded: docs/lazy.md.
#include <gtest/gtest.h>

#include <map>
#include <thread>

#include "fs/diff.h"
#include "snapshot/node_format.h"
#include "tests/snapshot/lazy_fixture.h"
#include "tests/snapshot/sample_tree.h"

namespace reprise::snapshot {
namespace {

// 100 directories of 100 files each, with blocks of their own.
void make_many(TreeMaker& tree) {
  for (int d = 0; d < 100; d++) {
    InodeId directory = tree.directory(kRootInode, "d" + std::to_string(d));
    for (int f = 0; f < 100; f++)
      tree.file(directory, "f" + std::to_string(f), random_bytes(3000, static_cast<uint64_t>(d) * 100 + f));
  }
}

TEST_F(Lazy, TheFirstReadLoadsTheWayThereAndNothingElse) {
  TreeMaker tree;
  make_many(tree);
  tree.head.settle();
  capture_of(tree);
  ASSERT_GT(blobs_->blobs.size(), 10'000u);
  fs::View view = open();
  EXPECT_TRUE(view.partial());
  EXPECT_EQ(view.digest(), tree.head.digest());
  EXPECT_EQ(view.usage().inodes, tree.head.usage().inodes);
  EXPECT_EQ(view.usage().blocks, tree.head.usage().blocks);
  auto directory = view.lookup(kRootInode, "d42");
  ASSERT_TRUE(directory);
  auto file = view.lookup(directory->inode, "f77");
  ASSERT_TRUE(file);
  EXPECT_EQ(view.stat(file->inode)->size, 3000u);
  EXPECT_EQ(read_all(view, file->inode, 5000), random_bytes(3000, 4277));
  EXPECT_LE(blobs_->gets, 40) << "volume, table, two directories, a file";
  const int gets = blobs_->gets;
  EXPECT_EQ(read_all(view, file->inode, 5000), random_bytes(3000, 4277));
  EXPECT_EQ(blobs_->gets, gets) << "once loaded it stays";
}

TEST_F(Lazy, ItIsTheSameTree) {
  TreeMaker tree;
  make_everything(tree);
  capture_of(tree);
  fs::View view = open();
  EXPECT_EQ(view.digest(), tree.head.digest());
  EXPECT_EQ(fs::content_digest(view), fs::content_digest(tree.head));
  EXPECT_EQ(view.check_invariants(), "");
  EXPECT_EQ(view.recompute_digest(), tree.head.digest());
  EXPECT_TRUE(damage_.empty());
}

TEST_F(Lazy, AllOfItCanBeLoadedAtOnce) {
  TreeMaker tree;
  make_everything(tree);
  capture_of(tree);
  fs::View view = open();
  ASSERT_TRUE(view.load_all());
  blobs_->blobs.clear();
  EXPECT_EQ(view.check_invariants(), "");
}

// The same operations on a tree that is there and on one that is not.
TEST_F(Lazy, ItIsChangedAsAnyOther) {
  TreeMaker tree;
  make_everything(tree);
  capture_of(tree);
  for (uint64_t seed = 1; seed <= 20; seed++) {
    TreeMaker whole, lazy;
    whole.head = fs::Head(load_whole());
    lazy.head = fs::Head(open());
    for (TreeMaker* of : {&whole, &lazy}) {
      of->directories = tree.directories;
      of->files = tree.files;
      of->ids_from(InodeId::make(0xabc, 1));
      std::mt19937_64 random(seed);
      change_at_random(*of, random, 40);
    }
    fs::View before = lazy.head.view();
    ASSERT_EQ(lazy.head.digest(), whole.head.digest()) << "seed " << seed;
    for (TreeMaker* of : {&whole, &lazy}) {
      std::mt19937_64 random(seed + 1000);
      for (int i = 0; i < 40; i++) {
        // Names of the original tree go, and come again elsewhere.
        InodeId big = tree.directories[3];
        std::string name = "file number " + std::to_string(random() % 600);
        if (auto entry = of->head.lookup(big, name)) {
          InodeId inode = entry->inode;
          if (random() % 2 == 0) {
            of->apply(fs::Unlink{.parent = big, .name = name, .inode = inode, .time = of->tick()});
            for (InodeId gone : of->head.take_unlinked()) of->head.remove_unlinked(gone);
          } else {
            of->apply(fs::Rename{.old_parent = big,
                                 .old_name = name,
                                 .new_parent = kRootInode,
                                 .new_name = name,
                                 .inode = inode,
                                 .time = of->tick()});
          }
        }
      }
    }
    lazy.head.settle();
    ASSERT_EQ(lazy.head.digest(), whole.head.digest()) << "seed " << seed;
    ASSERT_EQ(before.recompute_digest(), before.digest());
    ASSERT_EQ(lazy.head.check_invariants(), "");
  }
}

TEST_F(Lazy, ASecondCapturePutsWhatChangedAndLoadsNothingElse) {
  TreeMaker tree;
  make_many(tree);
  capture_of(tree);
  fs::Head head(open());
  InodeId directory = head.lookup(kRootInode, "d7")->inode;
  ASSERT_TRUE(head.apply(fs::Create{.parent = directory,
                                    .name = "new",
                                    .inode = InodeId::make(9, 1),
                                    .mode = S_IFREG | 0644,
                                    .time = tree.tick()}));
  const int gets = blobs_->gets;
  blobs_->puts = 0;
  auto captured = capture(head.view(), *blobs_);
  ASSERT_TRUE(captured) << captured.error().message();
  EXPECT_EQ(blobs_->gets, gets);
  EXPECT_LE(blobs_->puts, 30);
  root_ = captured->root;
  EXPECT_EQ(load_whole().digest(), head.digest());
  EXPECT_EQ(open().digest(), head.digest());
}

TEST_F(Lazy, AnotherStoreGetsAllOfIt) {
  TreeMaker tree;
  make_everything(tree);
  capture_of(tree);
  CountingBlobs other;
  auto captured = capture(open(), other, Remember::kNo);
  ASSERT_TRUE(captured) << captured.error().message();
  EXPECT_EQ(captured->root, root_);
  auto again = load(captured->root, other);
  ASSERT_TRUE(again) << again.error().message();
  EXPECT_EQ(again->digest(), tree.head.digest());
}

TEST_F(Lazy, ADiffLoadsWhatDiffersOnly) {
  TreeMaker tree;
  make_many(tree);
  capture_of(tree);
  fs::View before = open();
  fs::Head head(open());  // shares nothing with the other one
  InodeId directory = head.lookup(kRootInode, "d7")->inode;
  InodeId file = head.lookup(directory, "f9")->inode;
  ASSERT_TRUE(head.apply(fs::Write{.inode = file, .offset = 5, .data = as_bytes("x"), .time = tree.tick()}));
  blobs_->gets = 0;
  std::vector<InodeId> changed;
  fs::for_each_changed_inode(before, head, [&](const fs::ChangedInode& change) {
    changed.push_back(change.inode);
    EXPECT_TRUE(change.content);
    return true;
  });
  EXPECT_EQ(changed, std::vector{file});
  EXPECT_LE(blobs_->gets, 30);
}

// Every blob by turns: gone, or another node that has taken its place.
TEST_F(Lazy, DamageIsAnErrorWhereItIsTouchedAndNowhereElse) {
  TreeMaker tree;
  make_everything(tree);
  capture_of(tree);
  std::map<InodeId, fs::Attributes> all;
  tree.head.for_each_inode([&](const fs::Attributes& a) { all[a.inode] = a; });
  const fs::View whole = load_whole();
  std::vector<BlobId> ids;
  for (const auto& [id, blob] : blobs_->blobs)
    if (id != root_ && id != parse_volume(blobs_->blobs[root_])->table) ids.push_back(id);
  int unreadable = 0;
  for (size_t i = 0; i < ids.size(); i++) {
    Bytes& blob = blobs_->blobs[ids[i]];
    const Bytes good = blob;
    blob = i % 2 == 0 ? Bytes{} : blobs_->blobs[ids[(i + 1) % ids.size()]];
    damage_.clear();
    auto opened = open_lazily(root_, blobs_, [&](const Error& error) { damage_.push_back(error.message()); });
    if (!opened) {  // the way to the root directory
      EXPECT_EQ(opened.error().code(), Code::kCorrupt);
    } else {
      bool any = false;
      for (const auto& [id, attributes] : all) {
        auto found = opened->stat(id);
        if (!found) {
          EXPECT_EQ(found.error(), fs::Errno{EIO});
          fs::Head head(*opened);
          auto made = head.add_unlinked({.inode = id, .mode = S_IFREG | 0644});
          EXPECT_TRUE(!made && made.error() == fs::Errno{EIO});
        }
        any |= !found;
        if (!found || !attributes.is_regular()) continue;
        Bytes now(attributes.size < (1 << 22) ? attributes.size : 4096), then(now.size());
        auto got = opened->read(id, 0, now);
        any |= !got;
        if (!got) {
          EXPECT_EQ(got.error(), fs::Errno{EIO});
          continue;
        }
        ASSERT_TRUE(whole.read(id, 0, then));
        EXPECT_EQ(now, then) << "never other bytes";
      }
      const bool names = !fs::content_digest(*opened);
      EXPECT_EQ(any || names, !damage_.empty());
      EXPECT_EQ(opened->load_all().has_value(), damage_.empty());
      EXPECT_EQ(opened->check_invariants().empty(), damage_.empty());
      unreadable += any;
    }
    blob = good;
  }
  EXPECT_GT(unreadable, 20);
}

TEST_F(Lazy, WhatCannotBeLoadedIsNotChanged) {
  TreeMaker tree;
  make_everything(tree);
  capture_of(tree);
  fs::Head head(open());
  const InodeId dir = head.lookup(kRootInode, "dir")->inode;
  const InodeId big = head.lookup(dir, "big")->inode, large = head.lookup(dir, "large")->inode;
  ASSERT_TRUE(head.stat(big));
  blobs_->blobs.clear();
  const Digest128 digest = head.digest();
  const fs::Operation operations[] = {
      fs::Create{.parent = big, .name = "n", .inode = InodeId::make(9, 1), .mode = S_IFREG | 0644},
      fs::Write{.inode = large, .offset = 0, .data = as_bytes("x")},
      fs::Truncate{.inode = large, .size = 0},
      fs::Unlink{.parent = big, .name = "file number 1", .inode = {1000}},
      fs::Link{.parent = big, .name = "l", .inode = large},
      fs::Rename{
          .old_parent = kRootInode, .old_name = "dir", .new_parent = big, .new_name = "n", .inode = dir},
  };
  for (const fs::Operation& operation : operations) {
    auto done = head.apply(operation);
    ASSERT_FALSE(done) << fs::operation_name(operation);
    EXPECT_EQ(done.error(), fs::Errno{EIO}) << fs::operation_name(operation);
    EXPECT_EQ(head.digest(), digest);
  }
  EXPECT_FALSE(damage_.empty());
  EXPECT_NE(damage_[0].find("on which the names of inode"), std::string::npos) << damage_[0];
  const size_t reports = damage_.size();
  EXPECT_FALSE(head.lookup(big, "file number 1"));
  EXPECT_EQ(damage_.size(), reports) << "each once";
}

// Blobs that are whole but say what is not so.
TEST_F(Lazy, WhatDoesNotFitIsDamage) {
  TreeMaker tree;
  make_many(tree);
  capture_of(tree);
  VolumeNode volume = *parse_volume(blobs_->blobs[root_]);
  auto refused = [&](const VolumeNode& as) {
    auto id = blobs_->put(encode_volume(as));
    auto opened = open_lazily(*id, blobs_, [](const Error&) {});
    return !opened && opened.error().code() == Code::kCorrupt;
  };
  EXPECT_FALSE(refused(volume));
  VolumeNode other = volume;
  other.totals.digest.lo++;
  EXPECT_TRUE(refused(other));
  InnerNode inner = *parse_inner(blobs_->blobs[volume.table]);
  ASSERT_TRUE(inner.summed);
  std::swap(inner.child[0], inner.child[1]);  // pages where they do not belong
  std::swap(inner.sum[0], inner.sum[1]);
  other = volume;
  other.table = *blobs_->put(encode_inner(inner));
  EXPECT_TRUE(refused(other));
}

TEST_F(Lazy, AnOldViewStaysWhatItWas) {
  TreeMaker tree;
  make_many(tree);
  capture_of(tree);
  fs::Head head(open());
  const fs::View before = head.view();
  for (int d = 0; d < 100; d += 7) {
    InodeId directory = head.lookup(kRootInode, "d" + std::to_string(d))->inode;
    InodeId file = head.lookup(directory, "f3")->inode;
    ASSERT_TRUE(
        head.apply(fs::Write{.inode = file, .offset = 0, .data = as_bytes("new"), .time = tree.tick()}));
  }
  EXPECT_EQ(before.recompute_digest(), tree.head.digest());
  EXPECT_NE(head.digest(), before.digest());
  EXPECT_EQ(head.check_invariants(), "");
}

TEST_F(Lazy, ManyReadersLoadOneTree) {
  TreeMaker tree;
  make_many(tree);
  capture_of(tree);
  const fs::View view = open();
  std::atomic<int> wrong = 0;
  std::vector<std::thread> readers;
  for (int t = 0; t < 4; t++) {
    readers.emplace_back([&] {
      for (int d = 0; d < 100; d++) {
        auto directory = view.lookup(kRootInode, "d" + std::to_string(d));
        auto file = directory ? view.lookup(directory->inode, "f11") : directory;
        bool right = file && read_all(view, file->inode, 3000) ==
                                 random_bytes(3000, static_cast<uint64_t>(d) * 100 + 11);
        if (!right) wrong++;
      }
    });
  }
  for (std::thread& reader : readers) reader.join();
  EXPECT_EQ(wrong, 0);
}

// Inodes without links are in no snapshot, but in the marks and counts of the tree that is captured.
TEST_F(Lazy, InodesWithoutLinksAreNotCounted) {
  TreeMaker tree;
  make_many(tree);
  const fs::Usage with_all = tree.head.usage();
  ASSERT_TRUE(tree.head.add_unlinked(fs::Create{.inode = {50'000}, .mode = S_IFREG | 0600}));
  tree.write({50'000}, 0, random_bytes(10'000, 1));
  for (int round = 0; round < 2; round++) {  // the second time pages are marked as stored
    capture_of(tree);
    EXPECT_EQ(open().usage().inodes, with_all.inodes);
    EXPECT_EQ(open().usage().blocks, with_all.blocks);
    EXPECT_EQ(load_whole().digest(), tree.head.digest());
  }
}

TEST_F(Lazy, OnlyWhatTheKeptTreeHasAndNobodyElseNeedsIsEvicted) {
  TreeMaker tree;
  make_many(tree);
  tree.head.settle();
  capture_of(tree);
  const fs::View kept = open();
  ASSERT_TRUE(kept.load_table());
  auto evict = [&] {
    std::vector<fs::Node*> dropped;
    InodeId from;
    const uint64_t freed = tree.head.evict(kept, uint64_t{1} << 40, from, dropped);
    for (fs::Node* node : dropped) fs::release(node);
    return freed;
  };
  {
    const fs::View shares = tree.head.view();
    EXPECT_EQ(evict(), 0u);
  }
  tree.write(tree.files[1234], 0, "changed since");
  tree.head.settle();
  ASSERT_TRUE(capture(tree.head.view(), *blobs_));  // stored now, but not in the kept tree
  const Digest128 digest = tree.head.digest();
  EXPECT_GT(evict(), uint64_t{25} << 20) << "of 30 MB";
  EXPECT_EQ(evict(), 0u);
  EXPECT_EQ(tree.head.digest(), digest);
  blobs_->gets = 0;
  EXPECT_EQ(read_all(tree.head, tree.files[1234], 13), "changed since");
  EXPECT_EQ(blobs_->gets, 0) << "that has stayed";
  EXPECT_EQ(read_all(tree.head, tree.files[4321], 3000), random_bytes(3000, 4321));
  EXPECT_GT(blobs_->gets, 0);
  EXPECT_EQ(tree.head.check_invariants(), "");
  EXPECT_EQ(tree.head.recompute_digest(), digest);
}

// Changes, captures and evictions in turn, beside a tree from which nothing is evicted.
TEST_F(Lazy, EvictionChangesNothing) {
  TreeMaker whole, small;
  for (TreeMaker* of : {&whole, &small}) {
    make_many(*of);
    of->head.settle();
  }
  uint64_t freed = 0;
  size_t pages = 0;
  InodeId from;
  for (uint64_t round = 0; round < 12; round++) {
    capture_of(small);
    {
      fs::View kept = open();
      ASSERT_TRUE(kept.load_table());
      // What is changed after the capture has to stay, and what a view shares stays for that view.
      for (TreeMaker* of : {&whole, &small}) {
        std::mt19937_64 random(round);
        of->ids_from(InodeId::make(100 + round, 1));
        change_at_random(*of, random, 30);
      }
      std::vector<fs::Node*> dropped;
      freed += small.head.evict(kept, round % 3 == 0 ? uint64_t{1} << 40 : 3 << 20, from, dropped);
      pages += dropped.size();
      for (fs::Node* node : dropped) fs::release(node);
    }
    const fs::View old = round % 4 == 1 ? small.head.view() : fs::Head::create({}).view();
    ASSERT_EQ(small.head.digest(), whole.head.digest()) << "round " << round;
    const InodeId file = whole.files[round * 777 % 10'000];
    EXPECT_EQ(read_all(small.head, file, 300'000), read_all(whole.head, file, 300'000));
    small.head.settle();
    whole.head.settle();
    if (round % 4 == 3) {
      ASSERT_EQ(small.head.check_invariants(), "");
    }
  }
  EXPECT_GT(freed, uint64_t{30} << 20);
  EXPECT_GT(pages, 1000u);
  capture_of(small);
  EXPECT_EQ(load_whole().digest(), whole.head.digest());
}

// As version 0 wrote a blob: without sums.
Bytes former(const Bytes& blob, const std::map<BlobId, BlobId>& ids) {
  auto renamed = [&](BlobId id) { return ids.contains(id) ? ids.at(id) : id; };
  Bytes out = blob;
  if (auto inner = parse_inner(blob)) {
    inner->summed = false;
    for (BlobId& child : inner->child) child = renamed(child);
    return encode_inner(*inner);
  }
  uint64_t base;
  parse_page(blob, base, [&](const PageEntry& entry) {
    if (!entry.summed) return true;
    Bytes id;
    append_value(id, entry.content);
    auto at = std::search(out.begin(), out.end(), id.begin(), id.end());
    EXPECT_EQ(at[-4], std::byte{5});
    at[-4] = std::byte{3};
    out.erase(at + 16, at + 36);
    Bytes now;
    append_value(now, renamed(entry.content));
    std::ranges::copy(now, at);
    return true;
  });
  if (kind_of(blob) == fs::NodeKind::kTablePage) out[1] = std::byte{0};
  return out;
}

TEST_F(Lazy, ASnapshotOfTheFormerVersionIsLoadedWholeAndWrittenAnew) {
  TreeMaker tree;
  make_everything(tree);
  capture_of(tree);
  CountingBlobs old;
  std::map<BlobId, BlobId> ids;
  std::function<void(BlobId)> copy = [&](BlobId id) {
    if (ids.contains(id)) return;
    const Bytes blob = blobs_->blobs[id];
    const std::vector<BlobId> children = *children_of(blob);
    for (BlobId child : children) copy(child);
    ids[id] = *old.put(former(blob, ids));
  };
  copy(parse_volume(blobs_->blobs[root_])->table);
  root_ = ids[parse_volume(blobs_->blobs[root_])->table];
  blobs_->blobs = old.blobs;
  fs::View view = load_whole();
  EXPECT_EQ(view.digest(), tree.head.digest());
  EXPECT_EQ(open_lazily(root_, blobs_, [](const Error&) {}).error().code(), Code::kUnsupported);
  auto captured = capture(view, *blobs_);
  ASSERT_TRUE(captured) << captured.error().message();
  root_ = captured->root;
  EXPECT_EQ(open().check_invariants(), "");
}

}  // namespace
}  // namespace reprise::snapshot

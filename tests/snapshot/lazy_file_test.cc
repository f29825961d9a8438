// Large files of which only the parts that are touched are loaded: docs/lazy.md.
#include <gtest/gtest.h>

#include <algorithm>

#include "fs/diff.h"
#include "fs/lazy_node.h"
#include "snapshot/node_format.h"
#include "tests/snapshot/lazy_fixture.h"

namespace reprise::snapshot {
namespace {

constexpr uint64_t kPart = 16 * fs::kBlockSize;  // of the smallest part there is

class LazyFile : public Lazy {
 protected:
  // "f", of 16 MiB: 256 parts below 16 nodes below one.
  void SetUp() override {
    file_ = tree_.file(kRootInode, "f", bytes_);
    capture_of(tree_);
  }
  int gets_of(const std::function<void()>& what) {
    const int before = blobs_->gets;
    what();
    return blobs_->gets - before;
  }
  Timestamp now() { return tree_.tick(); }
  // The blob of the part that begins at `offset`.
  BlobId part_at(uint64_t offset) {
    for (const auto& [id, blob] : blobs_->blobs) {
      if (kind_of(blob) != fs::NodeKind::kFileLeaf || blob.size() < kLeafHeaderBytes + kPart) continue;
      if (std::memcmp(blob.data() + kLeafHeaderBytes, bytes_.data() + offset, kPart) == 0) return id;
    }
    ADD_FAILURE() << "no part at " << offset;
    return {};
  }

  const std::string bytes_ = random_bytes(16 << 20, 7);
  TreeMaker tree_;
  InodeId file_;
};

TEST_F(LazyFile, AReadLoadsTheWayToItsBytes) {
  fs::View view = open();
  ASSERT_EQ(view.stat(file_)->size, bytes_.size());
  std::string got(100, '?');
  EXPECT_LE(gets_of([&] {
              ASSERT_EQ(view.read(file_, 9'000'000, {reinterpret_cast<std::byte*>(got.data()), 100}), 100u);
            }),
            3)
      << "two inner nodes, one part";
  EXPECT_EQ(got, bytes_.substr(9'000'000, 100));
  EXPECT_LE(gets_of([&] {
              ASSERT_EQ(view.read(file_, 9'000'000 + kPart, {reinterpret_cast<std::byte*>(got.data()), 100}),
                        100u);
            }),
            2);
  EXPECT_EQ(got, bytes_.substr(9'000'000 + kPart, 100));
  EXPECT_EQ(read_all(view, file_, bytes_.size()), bytes_);
  EXPECT_EQ(view.check_invariants(), "");
}

TEST_F(LazyFile, WhatIsNotTouchedIsNotLoadedByAChange) {
  TreeMaker whole;
  whole.head = fs::Head(load_whole());
  const fs::Operation operations[] = {
      fs::Write{.inode = file_, .offset = 5'000'000, .data = as_bytes("some bytes"), .time = now()},
      fs::Truncate{.inode = file_, .size = 9'000'001, .time = now()},
      fs::Allocate{file_, fs::RangeChange::kPunch, true, 100'000, 3'000'000, now()},
      fs::Allocate{file_, fs::RangeChange::kZero, false, 8'999'000, 5'000'000, now()},
      fs::Write{.inode = file_, .offset = 15'000'000, .data = as_bytes("behind the end"), .time = now()},
      fs::Truncate{.inode = file_, .size = 3, .time = now()},
  };
  for (const fs::Operation& operation : operations) {
    TreeMaker lazy;
    lazy.head = fs::Head(open());
    ASSERT_TRUE(lazy.head.stat(file_));
    whole.head = fs::Head(load_whole());
    EXPECT_LE(gets_of([&] { lazy.apply(operation); }), 8) << fs::operation_name(operation);
    whole.apply(operation);
    EXPECT_EQ(lazy.head.digest(), whole.head.digest()) << fs::operation_name(operation);
    EXPECT_EQ(lazy.head.usage().blocks, whole.head.usage().blocks);
    lazy.head.settle();
    EXPECT_EQ(lazy.head.digest(), whole.head.digest());
    EXPECT_EQ(lazy.head.check_invariants(), "");
    EXPECT_EQ(lazy.head.recompute_digest(), whole.head.digest());
  }
}

// Every kind of change, one after another, with snapshots and openings in between.
TEST_F(LazyFile, ItIsTheSameFileWhateverIsDoneToIt) {
  for (uint64_t seed = 1; seed <= 12; seed++) {
    const InodeId other = tree_.file(kRootInode, "g" + std::to_string(seed), "short");
    capture_of(tree_);
    TreeMaker whole, lazy;
    whole.head = fs::Head(load_whole());
    lazy.head = fs::Head(open());
    std::mt19937_64 random(seed);
    auto both = [&](const fs::Operation& operation) {
      auto a = whole.head.apply(operation), b = lazy.head.apply(operation);
      ASSERT_EQ(a.has_value(), b.has_value()) << fs::operation_name(operation);
    };
    std::vector<fs::View> views;
    for (int i = 0; i < 40; i++) {
      const uint64_t size = whole.head.stat(file_)->size;
      const uint64_t at = random() % (size + kPart),
                     length = 1 + random() % (random() % 2 ? 9'000 : 3'000'000);
      const uint64_t block = at / fs::kBlockSize * fs::kBlockSize;
      const uint64_t blocks = (length / fs::kBlockSize + 1) * fs::kBlockSize;
      switch (random() % 8) {
        case 0:
          both(fs::Truncate{.inode = file_, .size = at, .time = now()});
          break;
        case 1:
          both(fs::Allocate{file_, fs::RangeChange::kPunch, true, at, length, now()});
          break;
        case 2:
          both(fs::Allocate{file_, fs::RangeChange::kCollapse, false, block, blocks, now()});
          break;
        case 3:
          both(fs::Allocate{file_, fs::RangeChange::kInsert, false, block, blocks, now()});
          break;
        case 4:
          both(fs::CopyRange{.from = file_,
                             .from_offset = block,
                             .to = other,
                             .to_offset = random() % 4 * fs::kBlockSize + random() % 2,
                             .length = length,
                             .time = now()});
          break;
        case 5:
          views.push_back(lazy.head.view());
          lazy.head.settle();
          break;
        default: {
          const std::string data = random_bytes(std::min<uint64_t>(length, 200'000), random());
          both(fs::Write{.inode = file_, .offset = at, .data = as_bytes(data), .time = now()});
        }
      }
      ASSERT_EQ(lazy.head.digest(), whole.head.digest()) << "seed " << seed << ", change " << i;
      ASSERT_EQ(lazy.head.usage().blocks, whole.head.usage().blocks);
      const uint64_t from = random() % (size + 1);
      ASSERT_EQ(lazy.head.seek_data(file_, from), whole.head.seek_data(file_, from));
      ASSERT_EQ(lazy.head.seek_hole(file_, from), whole.head.seek_hole(file_, from));
    }
    ASSERT_EQ(lazy.head.recompute_digest(), whole.head.digest());
    ASSERT_EQ(lazy.head.check_invariants(), "");
    for (const fs::View& view : views) ASSERT_EQ(view.recompute_digest(), view.digest());
    auto again = capture(lazy.head.view(), *blobs_);
    ASSERT_TRUE(again) << again.error().message();
    EXPECT_EQ(load(again->root, *blobs_)->digest(), whole.head.digest());
    root_ = again->root;
    EXPECT_EQ(open().recompute_digest(), whole.head.digest());
  }
}

TEST_F(LazyFile, HolesAreFoundWithoutLoadingWhatIsFull) {
  fs::View view = open();
  ASSERT_TRUE(view.stat(file_));
  EXPECT_LE(gets_of([&] {
              EXPECT_EQ(view.seek_hole(file_, 0), bytes_.size());
              EXPECT_EQ(view.seek_data(file_, 7'000'000), 7'000'000u);
            }),
            1);
}

TEST_F(LazyFile, ASecondCapturePutsTheWayToWhatChanged) {
  fs::Head head(open());
  ASSERT_TRUE(
      head.apply(fs::Write{.inode = file_, .offset = 5'000'000, .data = as_bytes("x"), .time = now()}));
  blobs_->puts = 0;
  const int gets = gets_of([&] {
    auto captured = capture(head.view(), *blobs_);
    ASSERT_TRUE(captured) << captured.error().message();
    root_ = captured->root;
  });
  EXPECT_EQ(gets, 0);
  EXPECT_LE(blobs_->puts, 6);
  EXPECT_EQ(load_whole().digest(), head.digest());
}

TEST_F(LazyFile, ADiffLoadsThePartsThatDiffer) {
  fs::View before = open();
  fs::Head head(open());
  ASSERT_TRUE(
      head.apply(fs::Write{.inode = file_, .offset = 5'000'000, .data = as_bytes("x"), .time = now()}));
  std::vector<std::pair<uint64_t, uint64_t>> ranges;
  EXPECT_LE(gets_of([&] {
              fs::for_each_changed_range(before, head, file_, [&](uint64_t begin, uint64_t end) {
                ranges.emplace_back(begin, end);
                return true;
              });
            }),
            12);
  const uint64_t block = 5'000'000 / fs::kBlockSize * fs::kBlockSize;
  EXPECT_EQ(ranges, (std::vector<std::pair<uint64_t, uint64_t>>{{block, block + fs::kBlockSize}}));
}

TEST_F(LazyFile, DamageOfAPartIsThatPartsAlone) {
  const BlobId damaged = part_at(80 * kPart);
  blobs_->blobs.erase(damaged);
  fs::Head head(open());
  std::string got(kPart, '?');
  auto read = [&](uint64_t offset) {
    return head.read(file_, offset, {reinterpret_cast<std::byte*>(got.data()), kPart});
  };
  EXPECT_EQ(read(80 * kPart), std::unexpected(fs::Errno{EIO}));
  EXPECT_EQ(read(80 * kPart - 1), std::unexpected(fs::Errno{EIO}));
  ASSERT_EQ(damage_.size(), 1u);
  EXPECT_NE(damage_[0].find("bytes 5242880 to 5308416 of inode"), std::string::npos) << damage_[0];
  ASSERT_TRUE(read(79 * kPart));
  EXPECT_EQ(got, bytes_.substr(79 * kPart, kPart));
  ASSERT_TRUE(read(81 * kPart));
  EXPECT_EQ(got, bytes_.substr(81 * kPart, kPart));
  EXPECT_EQ(head.seek_hole(file_, 0), bytes_.size()) << "known without its bytes";

  const Digest128 digest = head.digest();
  for (const fs::Operation& refused : {
           fs::Operation(
               fs::Write{.inode = file_, .offset = 80 * kPart + 5, .data = as_bytes("x"), .time = now()}),
           fs::Operation(fs::Truncate{.inode = file_, .size = 80 * kPart + 5, .time = now()}),
           fs::Operation(fs::Allocate{file_, fs::RangeChange::kInsert, false, 0, kPart, now()}),
       }) {
    EXPECT_EQ(head.apply(refused), std::unexpected(fs::Errno{EIO})) << fs::operation_name(refused);
    EXPECT_EQ(head.digest(), digest);
  }
  for (const fs::Operation& done : {
           fs::Operation(
               fs::Write{.inode = file_, .offset = 82 * kPart, .data = as_bytes("x"), .time = now()}),
           fs::Operation(fs::Allocate{file_, fs::RangeChange::kPunch, true, 79 * kPart, 3 * kPart, now()}),
       })
    EXPECT_TRUE(head.apply(done)) << fs::operation_name(done);
  ASSERT_TRUE(read(80 * kPart));
  EXPECT_EQ(got, std::string(kPart, '\0')) << "what was damaged is a hole now";
  EXPECT_EQ(head.check_invariants(), "");
}

// A node that says of what is below it what is not so, though every blob is what its name says.
TEST_F(LazyFile, SumsAndCountsThatAreNotThoseOfTheBytesAreFound) {
  for (const bool sum : {true, false}) {
    std::map<BlobId, BlobId> instead;
    const std::map<BlobId, Bytes> good = blobs_->blobs;
    // From the leaves up: a file's lowest inner node lies, and every blob above is made anew.
    BlobId root = root_;
    auto names_of_others = [&](const Bytes& blob) {
      Bytes copy = blob;
      for (const auto& [from, to] : instead)
        for (auto at = copy.begin();; ++at) {
          at = std::search(at, copy.end(), reinterpret_cast<const std::byte*>(&from),
                           reinterpret_cast<const std::byte*>(&from + 1));
          if (at == copy.end()) break;
          std::memcpy(&*at, &to, sizeof to);
        }
      return copy;
    };
    bool lied = false;
    for (const auto& [id, blob] : good) {
      auto inner = parse_inner(blob);
      if (lied || !inner || inner->kind != fs::NodeKind::kFileInner || inner->level != 1) continue;
      ASSERT_TRUE(inner->summed);
      if (sum) {  // the total stays as it is
        inner->sum[3].lo += 1;
        inner->sum[4].lo -= 1;
      } else {
        inner->blocks[3]--;
        inner->blocks[4]++;
      }
      instead[id] = *blobs_->put(encode_inner(*inner));
      lied = true;
    }
    ASSERT_TRUE(lied);
    for (int height = 0; height < 5; height++)
      for (const auto& [id, blob] : good) {
        Bytes copy = names_of_others(blob);
        if (copy == blob || instead.contains(id)) continue;
        instead[id] = *blobs_->put(copy);
        if (id == root_) root = instead[id];
      }
    ASSERT_NE(root, root_);
    auto whole = load(root, *blobs_);
    ASSERT_FALSE(whole) << "sum " << sum;
    EXPECT_EQ(whole.error().code(), Code::kCorrupt);
    damage_.clear();
    std::swap(root, root_);
    fs::View view = open();
    EXPECT_EQ(read_all(view, file_, bytes_.size()), "cannot be read");
    EXPECT_EQ(damage_.size(), 1u);
    std::swap(root, root_);
  }
}

// As files were stored before their nodes said what is below them.
TEST_F(LazyFile, AFormerFileIsLoadedWhole) {
  std::map<BlobId, BlobId> instead;
  const std::map<BlobId, Bytes> good = blobs_->blobs;
  for (const int level : {1, 2})
    for (const auto& [id, blob] : good) {
      auto inner = parse_inner(blob);
      if (!inner || inner->kind != fs::NodeKind::kFileInner || inner->level != level) continue;
      inner->summed = false;
      for (BlobId& child : inner->child)
        if (auto it = instead.find(child); it != instead.end()) child = it->second;
      instead[id] = *blobs_->put(encode_inner(*inner));
      blobs_->blobs.erase(id);
    }
  ASSERT_EQ(instead.size(), 17u);
  // The page, the volume.
  for (int height = 0; height < 3; height++)
    for (const auto& [id, blob] : good) {
      Bytes copy = blob;
      for (const auto& [from, to] : instead) {
        auto at = std::search(copy.begin(), copy.end(), reinterpret_cast<const std::byte*>(&from),
                              reinterpret_cast<const std::byte*>(&from + 1));
        if (at != copy.end()) std::memcpy(&*at, &to, sizeof to);
      }
      if (copy == blob || instead.contains(id)) continue;
      instead[id] = *blobs_->put(copy);
      if (id == root_) root_ = instead[id];
    }
  EXPECT_EQ(load_whole().digest(), tree_.head.digest());
  fs::View view = open();
  EXPECT_EQ(view.digest(), tree_.head.digest());
  EXPECT_EQ(read_all(view, file_, bytes_.size()), bytes_);
  EXPECT_EQ(view.check_invariants(), "");
  // The next snapshot that has to store its nodes stores them as they are now.
  fs::Head head(view);
  ASSERT_TRUE(head.apply(fs::Write{.inode = file_, .offset = 0, .data = as_bytes("x"), .time = now()}));
  auto captured = capture(head.view(), *blobs_);
  ASSERT_TRUE(captured);
  root_ = captured->root;
  fs::View again = open();
  EXPECT_EQ(again.digest(), head.digest());
  EXPECT_LE(gets_of([&] { EXPECT_EQ(read_all(again, file_, 1), "x"); }), 6);
}

}  // namespace
}  // namespace reprise::snapshot

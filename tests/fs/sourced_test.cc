// Files that rest on a source: what they read, what a change makes the tree hold, and what goes to the
// journal.
#include <gtest/gtest.h>

#include <map>
#include <random>

#include "fs/diff.h"
#include "fs/sourced_file.h"
#include "tests/fs/recording.h"

namespace reprise::fs {
namespace {

constexpr InodeId kFile{2}, kOther{3};

Bytes pattern(size_t size, uint32_t seed) {
  std::mt19937 random(seed);
  Bytes bytes(size);
  for (std::byte& byte : bytes) byte = static_cast<std::byte>(random() % 255 + 1);
  return bytes;
}

class MemorySource final : public Source {
 public:
  Outcome<void> read(ByteView key, uint64_t offset, ByteSpan into) override {
    reads++;
    if (before_read) std::exchange(before_read, nullptr)();
    if (broken) return errno_of(EIO);
    const Bytes& bytes = files.at(std::string(as_text(key)));
    EXPECT_LE(offset + into.size(), bytes.size()) << "asked for more than the source ever had";
    std::copy_n(bytes.begin() + static_cast<ptrdiff_t>(offset), into.size(), into.begin());
    return {};
  }
  std::map<std::string, Bytes> files;
  std::function<void()> before_read;
  int reads = 0;
  bool broken = false;
};

// A file "file" and a file "other", resting on a source or written.
Head make_tree(const std::shared_ptr<MemorySource>& source, bool rests) {
  Head head = Head::create({1, 0});
  for (const auto& [name, bytes] : source->files) {
    InodeId inode = name == "file" ? kFile : kOther;
    CHECK(head.apply(Create{.parent = kRootInode,
                            .name = name,
                            .inode = inode,
                            .mode = S_IFREG | 0644,
                            .target = {},
                            .time = {1, 0}}));
    if (rests)
      CHECK(head.rest_on(inode, source, bytes.size(), as_bytes(name)));
    else
      CHECK(head.apply(Write{inode, 0, bytes, {1, 0}}));
  }
  return head;
}

struct Live {
  Live(const std::shared_ptr<MemorySource>& source, bool rests)
      : base(make_tree(source, rests).view()), filesystem(Head(base), clock, *ids, &sink) {}
  View base;
  TickingClock clock;
  std::unique_ptr<InodeIdSource> ids = local_inode_ids();
  RecordingSink sink;
  Filesystem filesystem;
};

std::shared_ptr<MemorySource> source_of(size_t file_bytes, size_t other_bytes = 1) {
  auto source = std::make_shared<MemorySource>();
  source->files["file"] = pattern(file_bytes, 1);
  source->files["other"] = pattern(other_bytes, 2);
  return source;
}

Bytes read_all(Filesystem& filesystem, InodeId inode) {
  Bytes bytes(filesystem.get_attributes(inode)->size, std::byte{0xee});
  auto got = filesystem.read(inode, 0, bytes);
  EXPECT_EQ(error_of(got), 0);
  EXPECT_EQ(got.value_or(0), bytes.size());
  return bytes;
}

// What a replay that has no source makes of the operations.
Digest128 digest_of_replay(Live& live, MemorySource& source) {
  source.broken = true;
  Head head(live.base);
  for (const Operation& operation : live.sink.operations) {
    EXPECT_EQ(error_of(head.apply(operation)), 0) << operation_name(operation);
    for (InodeId unlinked : head.take_unlinked()) head.remove_unlinked(unlinked);
  }
  source.broken = false;
  EXPECT_EQ(head.check_invariants(), "");
  return head.digest();
}

TEST(SourcedFile, IsReadFromItsSourceWhenItIsTouchedAndNotBefore) {
  auto source = source_of(10'000);
  Live live(source, true);
  EXPECT_EQ(live.filesystem.get_attributes(kFile)->size, 10'000);
  EXPECT_EQ(live.filesystem.get_attributes(kFile)->blocks, 3);
  (void)live.filesystem.digest();
  EXPECT_EQ(source->reads, 0);
  EXPECT_EQ(read_all(live.filesystem, kFile), source->files["file"]);
  EXPECT_EQ(source->reads, 1);
  Bytes some(5);
  ASSERT_EQ(live.filesystem.read(kFile, 9'998, some).value_or(0), 2);
  EXPECT_EQ(some[1], source->files["file"].back());
  EXPECT_EQ(live.filesystem.read(kFile, 10'000, some).value_or(1), 0);
}

TEST(SourcedFile, ThatCannotBeReadIsAnErrorAndChangesNothing) {
  auto source = source_of(10'000);
  Live live(source, true);
  Digest128 before = live.filesystem.digest();
  source->broken = true;
  Bytes some(10);
  EXPECT_EQ(error_of(live.filesystem.read(kFile, 0, some)), EIO);
  EXPECT_EQ(error_of(live.filesystem.write({}, kFile, 1, some)), EIO);
  EXPECT_EQ(error_of(live.filesystem.allocate({}, kFile, RangeChange::kPunch, true, 1, 10)), EIO);
  EXPECT_EQ(error_of(live.filesystem.copy_range({}, kFile, 0, kOther, 0, 10)), EIO);
  EXPECT_EQ(live.filesystem.digest(), before);
  EXPECT_TRUE(live.sink.operations.empty());
}

TEST(SourcedFile, WritesOfWholeBlocksNeedNoSource) {
  auto source = source_of(3 * kBlockSize + 100);
  Live live(source, true);
  source->broken = true;
  EXPECT_EQ(error_of(live.filesystem.write({}, kFile, kBlockSize, Bytes(kBlockSize))), 0);
  // To the source's end counts as whole.
  EXPECT_EQ(error_of(live.filesystem.write({}, kFile, 3 * kBlockSize, Bytes(100))), 0);
  SetAttributesRequest cut;
  cut.size = 777;
  EXPECT_EQ(error_of(live.filesystem.set_attributes({}, kFile, cut)), 0);
  EXPECT_EQ(source->reads, 0);
  EXPECT_EQ(live.filesystem.view().check_invariants(), "");
}

TEST(SourcedFile, WrittenAllOverRestsOnNothing) {
  auto source = source_of(2 * kBlockSize + 5);
  Live live(source, true);
  ASSERT_EQ(error_of(live.filesystem.write({}, kFile, 0, pattern(2 * kBlockSize + 5, 9))), 0);
  EXPECT_FALSE(is_sourced(live.filesystem.view().find(kFile)->content));
  EXPECT_EQ(read_all(live.filesystem, kFile), pattern(2 * kBlockSize + 5, 9));
  EXPECT_EQ(live.filesystem.view().check_invariants(), "");
}

TEST(SourcedFile, OneByteWrittenRecordsItsBlockAlone) {
  auto source = source_of(1 << 20);
  Live live(source, true);
  std::byte one{7};
  ASSERT_EQ(live.filesystem.write({}, kFile, 500'000, {&one, 1}).value_or(0), 500'001);
  ASSERT_EQ(live.sink.operations.size(), 1);
  const auto& write = std::get<Write>(live.sink.operations[0]);
  EXPECT_EQ(write.offset % kBlockSize, 0);
  EXPECT_EQ(write.data.size(), kBlockSize);
  Bytes expected = source->files["file"];
  expected[500'000] = one;
  EXPECT_EQ(read_all(live.filesystem, kFile), expected);
  EXPECT_EQ(live.filesystem.digest(), digest_of_replay(live, *source));
}

TEST(SourcedFile, ChangedWhileItsSourceIsReadIsReadAgain) {
  auto source = source_of(kBlockSize * 2);
  Live live(source, true);
  // Another guest fills the block while the first one waits for its source.
  source->before_read = [&] {
    ASSERT_EQ(error_of(live.filesystem.write({}, kFile, 0, Bytes(kBlockSize, std::byte{1}))), 0);
  };
  std::byte one{7};
  ASSERT_EQ(error_of(live.filesystem.write({}, kFile, 10, {&one, 1})), 0);
  Bytes bytes = read_all(live.filesystem, kFile);
  EXPECT_EQ(bytes[9], std::byte{1});
  EXPECT_EQ(bytes[10], one);
  EXPECT_EQ(bytes[11], std::byte{1});
  EXPECT_EQ(live.filesystem.digest(), digest_of_replay(live, *source));
}

TEST(SourcedFile, AnOperationThatWouldNeedTheSourceIsRefused) {
  auto source = source_of(kBlockSize * 4, kBlockSize);
  Head head = make_tree(source, true);
  Digest128 before = head.digest();
  std::byte one{7};
  EXPECT_EQ(error_of(head.apply(Write{kFile, 5, {&one, 1}, {2, 0}})), EINVAL);
  EXPECT_EQ(error_of(head.apply(Allocate{kFile, RangeChange::kPunch, true, 5, 10, {2, 0}})), EINVAL);
  EXPECT_EQ(error_of(head.apply(Allocate{kFile, RangeChange::kCollapse, false, 0, kBlockSize, {2, 0}})),
            EINVAL);
  EXPECT_EQ(error_of(head.apply(CopyRange{kFile, 0, kOther, 0, 1, {2, 0}})), EINVAL);
  EXPECT_EQ(head.digest(), before);
}

TEST(SourcedFile, DigestTellsWhichBlocksAreHeld) {
  auto source = source_of(kBlockSize * 4);
  auto punched = [&](uint64_t block) {
    Head head = make_tree(source, true);
    CHECK(head.apply(Allocate{kFile, RangeChange::kPunch, true, block * kBlockSize, kBlockSize, {2, 0}}));
    return head.digest();
  };
  EXPECT_NE(punched(0), punched(1));
  EXPECT_EQ(punched(1), punched(1));
}

TEST(SourcedFile, DiffFindsWhatWasWrittenAndReadsNothingElse) {
  auto source = source_of(kBlockSize * 100);
  Live live(source, true);
  ASSERT_EQ(error_of(live.filesystem.write({}, kFile, kBlockSize * 50, Bytes(kBlockSize))), 0);
  View after = live.filesystem.view();
  source->reads = 0;
  std::vector<std::pair<uint64_t, uint64_t>> ranges;
  for_each_changed_range(live.base, after, kFile, [&](uint64_t offset, uint64_t end) {
    ranges.emplace_back(offset, end);
    return true;
  });
  std::vector<std::pair<uint64_t, uint64_t>> expected = {{kBlockSize * 50, kBlockSize * 51}};
  EXPECT_EQ(ranges, expected);
  EXPECT_LE(source->reads, 1);
}

TEST(SourcedFile, WrittenWithWhatItHasIsNoDifference) {
  auto source = source_of(kBlockSize * 3 + 77);
  Live live(source, true);
  ASSERT_EQ(error_of(live.filesystem.write({}, kFile, 0, source->files["file"])), 0);
  bool any = false;
  for_each_changed_range(live.base, live.filesystem.view(), kFile,
                         [&](uint64_t, uint64_t) { return any = true; });
  EXPECT_FALSE(any);
}

TEST(SourcedFile, HeldRestsOnNothingAndKeepsItsTime) {
  auto source = source_of(3'000'000);
  Live live(source, true);
  ASSERT_EQ(error_of(live.filesystem.write({}, kFile, 1'500'000, Bytes(9, std::byte{1}))), 0);
  const Bytes expected = read_all(live.filesystem, kFile);
  const Timestamp mtime = live.filesystem.get_attributes(kFile)->mtime;
  ASSERT_EQ(error_of(live.filesystem.hold({}, kFile)), 0);
  source->broken = true;
  EXPECT_EQ(read_all(live.filesystem, kFile), expected);
  EXPECT_EQ(live.filesystem.get_attributes(kFile)->mtime, mtime);
  const size_t recorded = live.sink.operations.size();
  EXPECT_EQ(error_of(live.filesystem.hold({}, kFile)), 0);
  EXPECT_EQ(live.sink.operations.size(), recorded);
  EXPECT_EQ(live.filesystem.digest(), digest_of_replay(live, *source));
}

// One call on both, with the same answer.
class Twin {
 public:
  Twin(Live& a, Live& b, uint32_t seed) : a_(a), b_(b), random_(seed) {}

  void step() {
    const InodeId inode = pick(2) == 0 ? kFile : kOther, other = pick(2) == 0 ? kFile : kOther;
    const uint64_t offset = place(), length = 1 + place() / 2;
    switch (pick(8)) {
      case 0:
      case 1:
      case 2: {
        Bytes data = pattern(length, static_cast<uint32_t>(random_()));
        expect_same(a_.filesystem.write({}, inode, offset, data),
                    b_.filesystem.write({}, inode, offset, data));
        break;
      }
      case 3: {
        SetAttributesRequest request;
        request.size = offset;
        expect_same(void_of(a_.filesystem.set_attributes({}, inode, request)),
                    void_of(b_.filesystem.set_attributes({}, inode, request)));
        break;
      }
      case 4:
      case 5: {
        auto change = std::array{RangeChange::kPunch, RangeChange::kZero, RangeChange::kReserve}[pick(3)];
        bool keep = change == RangeChange::kPunch || pick(2) == 0;
        expect_same(a_.filesystem.allocate({}, inode, change, keep, offset, length),
                    b_.filesystem.allocate({}, inode, change, keep, offset, length));
        break;
      }
      case 6: {
        auto copied = a_.filesystem.copy_range({}, inode, offset, other, place(), length);
        (void)copied;
        synchronise();
        break;
      }
      default:
        expect_same_bytes(inode, offset, length);
    }
  }

  void expect_same_bytes(InodeId inode, uint64_t offset, uint64_t length) {
    Bytes a(length, std::byte{0xee}), b(length);
    auto got = a_.filesystem.read(inode, offset, a);
    expect_same(got, b_.filesystem.read(inode, offset, b));
    if (!got) return;
    ASSERT_TRUE(std::equal(a.begin(), a.begin() + static_cast<ptrdiff_t>(*got), b.begin()));
  }

 private:
  size_t pick(size_t n) { return random_() % n; }
  // Often at a block's edge, seldom far behind the end.
  uint64_t place() {
    uint64_t at = pick(pick(8) == 0 ? 200'000 : 60'000);
    return pick(2) == 0 ? at / kBlockSize * kBlockSize : at;
  }
  static Outcome<void> void_of(const Outcome<Attributes>& outcome) {
    return outcome ? Outcome<void>{} : Outcome<void>(std::unexpected(outcome.error()));
  }
  template <class T>
  void expect_same(const Outcome<T>& a, const Outcome<T>& b) {
    ASSERT_EQ(error_of(a), error_of(b));
    if constexpr (!std::is_void_v<T>) {
      ASSERT_EQ(a.value_or(T{}), b.value_or(T{}));
    }
  }
  // A copy may be short, and differently so: the second tree gets what the first one has.
  void synchronise() {
    for (InodeId inode : {kFile, kOther}) {
      SetAttributesRequest cut;
      cut.size = 0;
      CHECK(b_.filesystem.set_attributes({}, inode, cut));
      Bytes bytes = read_all(a_.filesystem, inode);
      if (!bytes.empty()) CHECK(b_.filesystem.write({}, inode, 0, bytes));
    }
  }

  Live &a_, &b_;
  std::mt19937 random_;
};

TEST(SourcedFile, AnswersEveryCallAsAWrittenOneDoes) {
  for (uint32_t seed = 0; seed < 60; seed++) {
    SCOPED_TRACE(seed);
    auto source = source_of(1 + seed * 997, 50'000);
    Live rests(source, true), written(source, false);
    Twin twin(rests, written, seed);
    std::vector<std::tuple<View, Digest128, Bytes>> views;
    for (int i = 0; i < 60; i++) {
      twin.step();
      if (testing::Test::HasFatalFailure()) return;
      ASSERT_EQ(rests.filesystem.view().check_invariants(), "");
      if (i % 16 == 0) {
        View view = rests.filesystem.view();
        Bytes bytes(view.stat(kFile)->size);
        ASSERT_EQ(view.read(kFile, 0, bytes).value_or(0), bytes.size());
        Digest128 digest = view.digest();
        views.emplace_back(std::move(view), digest, std::move(bytes));
      }
    }
    for (InodeId inode : {kFile, kOther}) twin.expect_same_bytes(inode, 0, 300'000);
    for (auto& [view, digest, bytes] : views) {
      Bytes now(bytes.size());
      ASSERT_EQ(view.read(kFile, 0, now).value_or(0), bytes.size());
      ASSERT_EQ(now, bytes) << "an old view has changed";
      ASSERT_EQ(view.digest(), digest);
    }
    Digest128 digest = rests.filesystem.digest();
    ASSERT_EQ(digest, rests.filesystem.view().recompute_digest());
    ASSERT_EQ(digest, digest_of_replay(rests, *source));
  }
}

}  // namespace
}  // namespace reprise::fs

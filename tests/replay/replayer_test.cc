// The replayer: exactly once, in order, whole or not at all.
#include "replay/replayer.h"

#include <gtest/gtest.h>

#include <map>

#include "base/hash.h"
#include "memory_member.h"
#include "snapshot/snapshot.h"

namespace reprise::replay {
namespace {

constexpr OriginId kOrigin{.hi = 1, .lo = 1};
constexpr OriginId kOther{.hi = 2, .lo = 2};

fs::Create file(std::string_view name, uint64_t inode) {
  return {.parent = kRootInode, .name = name, .inode = {inode}, .mode = S_IFREG | 0644, .time = {1, 0}};
}

journal::Batch batch_of(const std::vector<fs::Operation>& operations, Lsn lsn, OriginId origin = kOrigin,
                        std::vector<journal::Vector::Entry> dependencies = {}, uint64_t lamport = 0) {
  journal::BatchBuilder builder;
  for (const fs::Operation& operation : operations) builder.add(operation);
  return builder.finish({.kind = lsn == 1 ? journal::BatchKind::kOriginStart : journal::BatchKind::kOrdinary,
                         .origin = origin,
                         .lsn = lsn,
                         .lamport = lamport != 0 ? lamport : lsn,
                         .dependencies = std::move(dependencies)});
}

Code code_of(const Status& status) {
  CHECK(!status);
  return status.error().code();
}

struct Bench {
  fs::Head head = fs::Head::create(Timestamp{});
  Replayer replayer;

  Status apply(const std::vector<journal::Batch>& group) { return replayer.apply(head, group); }
};

TEST(Replayer, AppliesInOrderAndOnlyOnce) {
  Bench bench;
  std::vector<journal::Batch> group{batch_of({file("a", 2)}, 1), batch_of({file("b", 3)}, 2)};
  ASSERT_TRUE(bench.apply(group));
  Digest128 digest = bench.head.digest();
  ASSERT_TRUE(bench.apply(group));
  EXPECT_EQ(bench.head.digest(), digest);
  EXPECT_EQ(bench.replayer.batches(), 2u);
  EXPECT_EQ(bench.replayer.skipped(), 2u);
  EXPECT_EQ(bench.replayer.applied().get(kOrigin), 2u);
}

TEST(Replayer, NamesTheBatchesThatAreMissing) {
  Bench bench;
  Status done = bench.apply({batch_of({file("a", 2)}, 1), batch_of({file("b", 3)}, 4)});
  EXPECT_EQ(code_of(done), Code::kGap);
  EXPECT_NE(done.error().message().find("2 to 3 are missing"), std::string::npos) << done.error().message();
  EXPECT_TRUE(bench.head.lookup(kRootInode, "a"));
}

TEST(Replayer, WaitsForDependencies) {
  Bench bench;
  journal::Batch dependent = batch_of({file("b", 3)}, 1, kOther, {{kOrigin, 1}});
  EXPECT_EQ(code_of(bench.apply({dependent})), Code::kGap);
  ASSERT_TRUE(bench.apply({batch_of({file("a", 2)}, 1), dependent}));
}

// Has everything, until it has lost it.
class LosingBlobs final : public store::BlobSink, public store::BlobSource {
 public:
  Result<BlobId> put(ByteView bytes) override {
    BlobId id = hash128(bytes);
    blobs[id] = Bytes(bytes.begin(), bytes.end());
    return id;
  }
  Result<Bytes> get(BlobId id) override {
    auto it = blobs.find(id);
    if (it == blobs.end()) return fail(Code::kNotFound, "lost");
    return it->second;
  }
  std::map<BlobId, Bytes> blobs;
};

TEST(Replayer, WhatCannotBeLoadedIsNoDifferenceOfTrees) {
  auto blobs = std::make_shared<LosingBlobs>();
  Bench origin;
  const Bytes large(100'000);
  ASSERT_TRUE(
      origin.apply({batch_of({file("a", 2), fs::Write{.inode = {2}, .data = large, .time = {2, 0}}}, 1)}));
  auto captured = snapshot::capture(origin.head.view(), *blobs);
  ASSERT_TRUE(captured);
  auto opened = snapshot::open_lazily(captured->root, blobs, [](const Error&) {});
  ASSERT_TRUE(opened) << opened.error().message();
  fs::Head head(*opened);
  ASSERT_TRUE(head.stat({2}));
  blobs->blobs.clear();
  const Digest128 before = head.digest();
  Status done = origin.replayer.apply(
      head, std::vector{batch_of({fs::Truncate{.inode = {2}, .size = 1, .time = {3, 0}}}, 2)});
  EXPECT_EQ(code_of(done), Code::kIo) << done.error().message();
  EXPECT_EQ(head.digest(), before);
}

TEST(Replayer, AnOperationThatFailsUndoesItsBatchAlone) {
  Bench bench, expected;
  journal::Batch good =
      batch_of({file("a", 2), fs::Write{.inode = {2}, .data = as_bytes("kept"), .time = {2, 0}}}, 1);
  journal::Batch second = batch_of({fs::Truncate{.inode = {2}, .size = 1, .time = {3, 0}}}, 2);
  ASSERT_TRUE(expected.apply({good, second}));

  journal::Batch bad = batch_of({file("c", 4), file("c", 5)}, 3);
  Status done = bench.apply({good, second, bad});
  EXPECT_EQ(code_of(done), Code::kDivergence);
  EXPECT_NE(done.error().message().find("batch 3"), std::string::npos) << done.error().message();
  EXPECT_NE(done.error().message().find("operation 2 of 2 (create)"), std::string::npos)
      << done.error().message();
  EXPECT_NE(done.error().message().find("EEXIST"), std::string::npos) << done.error().message();
  EXPECT_EQ(bench.replayer.applied().get(kOrigin), 2u);
  EXPECT_EQ(bench.head.recompute_digest(), expected.head.recompute_digest());
  EXPECT_EQ(bench.head.check_invariants(), "");
}

// The first batch of a stream that begins after `previous`, and claims a prefix.
journal::Batch claim(uint64_t prefix, OriginId origin, OriginId previous = {},
                     std::vector<journal::Vector::Entry> dependencies = {}) {
  journal::BatchBuilder builder;
  builder.add(fs::ClaimPrefix{prefix});
  return builder.finish({.kind = journal::BatchKind::kOriginStart,
                         .origin = origin,
                         .lsn = 1,
                         .lamport = 1,
                         .dependencies = std::move(dependencies),
                         .previous_origin = previous});
}

constexpr OriginId kThird{.hi = 3, .lo = 3};

TEST(Replayer, RefusesAPrefixThatIsClaimedByTwoWhoDoNotKnowEachOther) {
  Bench bench;
  ASSERT_TRUE(bench.apply({claim(5, kOrigin), claim(6, kOther, kOrigin, {{kOrigin, 1}})}));
  // A third that began as the second did, beside it.
  Status done = bench.apply({claim(6, kThird, kOrigin, {{kOrigin, 1}})});
  EXPECT_EQ(code_of(done), Code::kCorrupt);
  EXPECT_NE(done.error().message().find(kOther.to_short_string()), std::string::npos)
      << done.error().message();
  EXPECT_NE(done.error().message().find("batch 1 of origin " + kThird.to_short_string()), std::string::npos);
  EXPECT_EQ(bench.replayer.applied().get(kThird), 0u);
  // Another prefix it may have; and what was refused stays so.
  EXPECT_EQ(code_of(bench.apply({claim(5, kThird)})), Code::kCorrupt);
  EXPECT_TRUE(bench.apply({claim(7, kThird, kOrigin, {{kOrigin, 1}})}));
  EXPECT_EQ(code_of(bench.apply({batch_of({fs::ClaimPrefix{6}}, 2, kThird)})), Code::kCorrupt);
}

TEST(Replayer, WhoKnewOfAClaimMayRepeatIt) {
  Bench bench;
  ASSERT_TRUE(bench.apply({claim(5, kOrigin), batch_of({fs::ClaimPrefix{5}}, 2)}));
  ASSERT_TRUE(bench.apply({claim(6, kOther, kOrigin, {{kOrigin, 2}})}));
  // Of one who knew one who knew of it.
  EXPECT_TRUE(bench.apply({claim(5, kThird, kOther, {{kOther, 1}})}));
  // Who begins behind a snapshot lists all there was.
  EXPECT_TRUE(bench.apply({claim(6, {.hi = 4, .lo = 4}, {}, {{kOrigin, 2}, {kOther, 1}})}));
}

TEST(Replayer, AClaimOfABatchThatFailedIsNone) {
  Bench bench;
  EXPECT_EQ(code_of(bench.apply({batch_of({fs::ClaimPrefix{5}, file("a", 2), file("a", 3)}, 1)})),
            Code::kDivergence);
  EXPECT_TRUE(bench.apply({claim(5, kOther)}));
}

TEST(Claims, AreBoundedAndACircleOfStreamsEnds) {
  Claims claims;
  claims.begin_stream({.origin = kOrigin, .previous_origin = kOther});
  claims.begin_stream({.origin = kOther, .previous_origin = kOrigin});
  claims.note(1, kThird);
  EXPECT_EQ(claims.refused(1, {.origin = kOrigin}), kThird);
  for (uint64_t prefix = 2; prefix <= Claims::kRememberedMax; ++prefix) claims.note(prefix, kThird);
  claims.note(Claims::kRememberedMax + 1, kThird);
  EXPECT_TRUE(claims.refused(Claims::kRememberedMax, {.origin = kOrigin}));
  EXPECT_FALSE(claims.refused(Claims::kRememberedMax + 1, {.origin = kOrigin}));
}

TEST(Replayer, RefusesALamportJump) {
  Bench bench;
  EXPECT_EQ(code_of(bench.apply({batch_of({file("a", 2)}, 1, kOrigin, {}, Replayer::kLamportJumpMax + 1)})),
            Code::kCorrupt);
  EXPECT_TRUE(bench.apply({batch_of({file("a", 2)}, 1, kOrigin, {}, Replayer::kLamportJumpMax)}));
}

TEST(Replayer, ReplaysAJournalToTheOriginsDigest) {
  MemoryMember writer({.hi = 1, .lo = 1});
  for (int i = 0; i < 1000; ++i) writer.write_file("file" + std::to_string(i), std::string(i, 'x'));
  for (uint64_t i = 0; i < 500; ++i) {
    std::string name = "file" + std::to_string(i);
    writer.write({fs::Unlink{.parent = kRootInode, .name = name, .inode = {2 + i}, .time = {9, 0}}});
  }
  fs::Head head = fs::Head::create(Timestamp{});
  Replayer replayer;
  auto cursor = writer.journal().read(1);
  uint64_t calls = 0;
  Result<ReplayProgress> done =
      replayer.replay(*cursor, head, Replayer::kToEnd, [&](const ReplayProgress&) { return ++calls > 0; });
  ASSERT_TRUE(done) << done.error().message();
  EXPECT_EQ(done->batches, 1500u);
  EXPECT_EQ(done->operations, 2500u);
  EXPECT_GT(calls, 1u);
  EXPECT_EQ(head.recompute_digest(), writer.recomputed_digest());
  EXPECT_EQ(head.usage().inodes, 501u);
  EXPECT_EQ(replayer.applied(), writer.vector());
}

TEST(Replayer, StopsWhereItIsTold) {
  MemoryMember writer({.hi = 1, .lo = 1});
  for (int i = 0; i < 600; ++i) writer.write_file("file" + std::to_string(i), "x");
  fs::Head head = fs::Head::create(Timestamp{});
  Replayer replayer;
  auto cursor = writer.journal().read(1);
  ASSERT_TRUE(replayer.replay(*cursor, head, 300));
  EXPECT_TRUE(head.lookup(kRootInode, "file299"));
  EXPECT_FALSE(head.lookup(kRootInode, "file300"));
  auto again = writer.journal().read(301);
  Result<ReplayProgress> cancelled =
      replayer.replay(*again, head, Replayer::kToEnd, [](const ReplayProgress&) { return false; });
  ASSERT_FALSE(cancelled);
  EXPECT_EQ(cancelled.error().code(), Code::kCancelled);
  auto past = writer.journal().read(1);
  Result<ReplayProgress> beyond = Replayer().replay(*past, head = fs::Head::create(Timestamp{}), 601);
  ASSERT_TRUE(beyond) << "the end comes first, and it says so";
  EXPECT_EQ(beyond->log_index, 600u);
}

TEST(Replayer, KeepsUnlinkedInodesThatAreInUse) {
  MemoryMember writer({.hi = 1, .lo = 1});
  writer.write_file("open", "still read");
  writer.write_file("closed", "gone");
  writer.write({fs::Unlink{.parent = kRootInode, .name = "open", .inode = {2}, .time = {9, 0}},
                fs::Unlink{.parent = kRootInode, .name = "closed", .inode = {3}, .time = {9, 0}}});
  fs::Head head = fs::Head::create(Timestamp{});
  Replayer replayer;
  auto cursor = writer.journal().read(1);
  ASSERT_TRUE(replayer.replay(*cursor, head, Replayer::kToEnd, nullptr,
                              [](InodeId inode) { return inode.value == 2; }));
  EXPECT_TRUE(head.stat({2}));
  EXPECT_FALSE(head.stat({3}));
}

}  // namespace
}  // namespace reprise::replay

// A leader that says what is not so, or what it may not: whatever it is, the follower's tree and journal are
// what they were, and it says why it does not believe it. What a damaged frame does is in wire_test.
#include <gtest/gtest.h>

#include "replay/difference.h"
#include "replay/follower_link.h"
#include "snapshot/stream.h"
#include "tests/replay/frames.h"
#include "tests/replay/memory_member.h"

namespace reprise::replay {
namespace {

constexpr VolumeId kVolume{.hi = 0xaaaa, .lo = 1};
constexpr uint64_t kTreeLimitBytes = 1 << 20;

// A follower that was in step, and what somebody who calls himself its leader says to it.
class LyingLeader : public testing::Test {
 protected:
  LyingLeader() {
    before_.write_file("a", "what the follower has");
    auto cursor = before_.journal().read(1);
    auto logged = cursor->next();
    CHECK(logged && *logged && follower.apply(std::span(&(*logged)->batch, 1)));
    begin();
  }
  void begin() {
    link_ = FollowerLink::begin(follower, clock_, {}, budget_, unfinished_, kTreeLimitBytes).value();
    frames_ = Frames();
    link_->take_output();
    was_ = *follower.settle();
    batches_ = follower.journal().last();
  }

  Hello greeting() {
    return {.volume = kVolume, .branch = "main", .role = Role::kLeader, .position = was_.position};
  }
  void say(const Control& control) { link_->receive(frames_.of(control)); }
  void say(const journal::Batch& batch) { link_->receive(frames_.of(batch)); }
  void say_tree(ByteView piece) { link_->receive(frames_.of_tree(piece)); }
  void greet_and_decide(Tier tier) {
    say(greeting());
    say(CatchUp{.decision = {.tier = tier, .suffix_bytes = 1, .difference_bytes = 1, .reason = "why"},
                .target = was_.position.vector});
  }

  static journal::Batch batch(OriginId origin, Lsn lsn, uint64_t lamport,
                              const std::vector<fs::Operation>& operations) {
    journal::BatchBuilder builder;
    for (const fs::Operation& operation : operations) builder.add(operation);
    auto kind = lsn == 1 ? journal::BatchKind::kOriginStart : journal::BatchKind::kOrdinary;
    return builder.finish({.kind = kind, .origin = origin, .lsn = lsn, .lamport = lamport});
  }
  journal::Batch next(const std::vector<fs::Operation>& operations) {
    return batch(before_.origin(), 2, 9, operations);
  }
  static fs::Operation made(std::string_view name, uint64_t inode) {
    return fs::Create{.parent = kRootInode, .name = name, .inode = {inode}, .mode = S_IFREG | 0644};
  }

  void expect_unharmed() {
    EXPECT_EQ(follower.recomputed_digest(), was_.position.digest);
    EXPECT_EQ(follower.vector(), was_.position.vector);
    EXPECT_EQ(follower.journal().last(), batches_);
    EXPECT_EQ(follower.read_file("a"), "what the follower has");
  }
  // It listens no longer.
  void expect_closed(std::string_view why) {
    ASSERT_TRUE(link_->session().closed());
    EXPECT_NE(link_->session().closed()->message().find(why), std::string::npos)
        << link_->session().closed()->message();
    expect_unharmed();
  }
  // It asks for a snapshot, and takes nothing until then.
  void expect_resync(std::string_view why) {
    ASSERT_FALSE(link_->session().closed()) << link_->session().closed()->message();
    ASSERT_TRUE(link_->session().last_resync());
    EXPECT_NE(link_->session().last_resync()->message().find(why), std::string::npos)
        << link_->session().last_resync()->message();
    EXPECT_FALSE(link_->session().caught_up());
    say(next({made("after it", 77)}));
    expect_unharmed();
  }

  MemoryMember before_{kVolume}, follower{kVolume, 2};
  ManualClock clock_;
  ResyncBudget budget_{3};
  std::unique_ptr<FollowerLink> link_;
  Frames frames_;
  UnfinishedTree unfinished_;
  Moment was_;
  LogIndex batches_ = 0;
};

TEST_F(LyingLeader, WhatComesWhenItMayNot) {
  const SnapshotBegin snapshot{.position = was_.position, .lamport = 1, .marks = {}};
  const std::vector<std::pair<std::function<void()>, std::string>> cases = {
      {[&] { say(next({made("b", 7)})); }, "a batch came"},
      {[&] { say_tree(as_bytes("bytes")); }, "a piece of a tree came"},
      {[&] { say(Checkpoint{.position = was_.position}); }, "before the leader's greeting"},
      {[&] { say(greeting()), say(greeting()); }, "a second greeting"},
      {[&] { say(greeting()), say(next({made("b", 7)})); }, "a batch came"},
      {[&] { greet_and_decide(Tier::kSuffix), say(snapshot); }, "the beginning of a snapshot came"},
      {[&] { greet_and_decide(Tier::kSuffix), say(DifferenceBegin{snapshot}); },
       "the beginning of a difference came"},
      {[&] { greet_and_decide(Tier::kSnapshot), say(DifferenceBegin{snapshot}); },
       "the beginning of a difference came"},
      {[&] { greet_and_decide(Tier::kSnapshot), say(next({made("b", 7)})); }, "a batch came"},
      {[&] { greet_and_decide(Tier::kSnapshot), say(snapshot), say(Checkpoint{}); }, "a checkpoint came"},
      {[&] { greet_and_decide(Tier::kSnapshot), say(snapshot), say(SnapshotEnd{.root = {}, .bytes = 5}); },
       "the end of a snapshot came"},
      {[&] { greet_and_decide(Tier::kDifference), say(DifferenceEnd{}); }, "the end of a difference came"},
      {[&] {
         greet_and_decide(Tier::kDifference), say(DifferenceBegin{snapshot});
         say(next({made("b", 7)})), say(DifferenceEnd{.batches = 2});
       },
       "the end of a difference came"},
      {[&] { greet_and_decide(Tier::kDifference), say(DifferenceBegin{snapshot}), say(Checkpoint{}); },
       "a checkpoint came"},
      {[&] { greet_and_decide(Tier::kSuffix), say(Fetch{}); }, "a request to send back came"},
      {[&] { greet_and_decide(Tier::kSuffix), say(Ack{}); }, "only a follower may send"},
      {[&] { say(Challenge{}); }, "before the leader's greeting"},
  };
  for (const auto& [lie, why] : cases) {
    SCOPED_TRACE(why);
    begin();
    lie();
    expect_closed(why);
  }
}

TEST_F(LyingLeader, WhoIsNoLeaderOfThisVolume) {
  Hello other = greeting();
  other.volume = {.hi = 1, .lo = 1};
  say(other);
  expect_closed("the leader's is");
  EXPECT_TRUE(link_->session().hopeless());
  begin();
  other = greeting();
  other.role = Role::kFollower;
  say(other);
  expect_closed("a greeting of no leader");
}

TEST_F(LyingLeader, AWayToCatchUpThatNobodyKnows) {
  for (auto tier : {static_cast<Tier>(5), static_cast<Tier>(255)}) {
    begin();
    greet_and_decide(tier);
    expect_closed("which this version does not know");
  }
}

TEST_F(LyingLeader, BatchesThatDoNotFollow) {
  const OriginId ours = before_.origin(), foreign{.hi = 66, .lo = 6};
  journal::BatchBuilder builder;
  builder.add(made("b", 7));
  journal::Batch depends = builder.finish({.kind = journal::BatchKind::kOriginStart,
                                           .origin = foreign,
                                           .lsn = 1,
                                           .lamport = 9,
                                           .dependencies = {{ours, 50}}});
  const std::vector<std::pair<journal::Batch, std::string>> cases = {
      {batch(ours, 3, 9, {made("b", 7)}), "2 to 2 are missing"},
      {batch(foreign, 40, 9, {made("b", 7)}), "1 to 39 are missing"},
      {depends, "depends on LSN 50"},
      {batch(ours, 2, uint64_t{1} << 40, {made("b", 7)}), "more than 2^32 after"},
      // An inode, and a name, that are there; what is not there.
      {next({made("b", 2)}), "cannot be applied to this tree"},
      {next({made("a", 7)}), "cannot be applied to this tree"},
      {next({made("b", 7), fs::Unlink{.parent = kRootInode, .name = "c", .inode = {8}}}), "operation 2 of 2"},
      {next({fs::Rename{
           .old_parent = kRootInode, .old_name = "a", .new_parent = {2}, .new_name = "b", .inode = {2}}}),
       "cannot be applied to this tree"},
  };
  for (const auto& [lie, why] : cases) {
    SCOPED_TRACE(why);
    budget_ = ResyncBudget(3);
    begin();
    greet_and_decide(Tier::kSuffix);
    say(lie);
    expect_resync(why);
  }
}

TEST_F(LyingLeader, APrefixThatAnotherWriterHas) {
  greet_and_decide(Tier::kSuffix);
  say(next({fs::ClaimPrefix{9}}));
  was_ = *follower.settle();
  batches_ = follower.journal().last();
  ASSERT_FALSE(link_->session().last_resync());
  say(batch({.hi = 66, .lo = 6}, 1, 10, {fs::ClaimPrefix{9}, made("b", uint64_t{9} << 24)}));
  expect_resync("claims inode ids that origin");
}

TEST_F(LyingLeader, OneBatchOverAndOverIsTakenOnce) {
  greet_and_decide(Tier::kSuffix);
  auto first = before_.journal().read(1)->next();
  for (int i = 0; i < 100; ++i) say((*first)->batch);
  EXPECT_FALSE(link_->session().closed());
  expect_unharmed();
}

TEST_F(LyingLeader, PositionsThatAreNotSo) {
  journal::Position further = was_.position, back = was_.position, other = was_.position;
  further.vector.set(before_.origin(), 9);
  back.vector = {};
  other.digest.lo ^= 1;
  for (const auto& [position, why] :
       {std::pair<journal::Position, std::string>{further, "after the same batches"},
        {back, "after the same batches"},
        {other, "divergence: at equal vectors"}}) {
    SCOPED_TRACE(why);
    budget_ = ResyncBudget(3);
    begin();
    greet_and_decide(Tier::kNothing);
    say(Checkpoint{.position = position});
    expect_resync(why);
  }
}

// Every later message counts as a part of it.
TEST_F(LyingLeader, AFrameThatNeverEnds) {
  greet_and_decide(Tier::kNothing);
  Bytes heartbeat = Frames().of(Heartbeat{.vector = was_.position.vector});
  Bytes announced(kFrameHeaderBytes);
  std::copy_n(heartbeat.begin(), kFrameHeaderBytes, announced.begin());
  announced[4] = std::byte{2};  // a batch
  store_value(announced.data() + 8, uint32_t{16 << 20});
  store_value(announced.data() + 12, uint32_t{8});
  link_->receive(frames_.numbered(announced));
  for (int second = 0; second < 119; ++second) {
    clock_.advance_ms(1000);
    link_->receive(heartbeat);
    link_->tick();
  }
  EXPECT_FALSE(link_->session().closed());
  clock_.advance_ms(2000);
  link_->receive(heartbeat);
  link_->tick();
  expect_closed("silent");
  EXPECT_FALSE(link_->session().hopeless());
}

TEST_F(LyingLeader, WhoNeverAgreesIsLeftInTheEnd) {
  say(greeting());
  journal::Position other = was_.position;
  other.digest.lo ^= 1;
  for (int i = 0; i < 4; ++i) {
    EXPECT_FALSE(link_->session().closed()) << i;
    say(CatchUp{.decision = {.tier = Tier::kNothing, .reason = "why"}, .target = was_.position.vector});
    say(Checkpoint{.position = other});
  }
  expect_closed("more than 3 times in a minute");
  EXPECT_TRUE(link_->session().hopeless());
}

TEST_F(LyingLeader, SnapshotsThatAreNotWhatTheySay) {
  fs::Head head = fs::Head::create(Timestamp{});
  ASSERT_TRUE(head.apply(made("of the snapshot", 5)));
  Bytes tree;
  auto sent = snapshot::send_tree(head, snapshot::kPieceBytes, [&](ByteView piece) -> Status {
    append_bytes(tree, piece);
    return {};
  });
  ASSERT_TRUE(sent);
  SnapshotBegin says{.position = was_.position, .lamport = 3, .marks = {}};
  says.position.digest = head.digest();

  // Another digest; another root; bytes missing, or changed; whether what the follower has is left out or
  // not.
  for (int lie = 0; lie < 8; ++lie) {
    SCOPED_TRACE(lie);
    budget_ = ResyncBudget(3);
    begin();
    greet_and_decide(lie < 4 ? Tier::kSnapshot : Tier::kMissingBlobs);
    SnapshotBegin begins = says;
    if (lie % 4 == 0) begins.position.digest.lo ^= 1;
    say(begins);
    Bytes bytes = tree;
    if (lie % 4 == 2) bytes.resize(bytes.size() / 2);
    if (lie % 4 == 3) bytes[bytes.size() / 3] ^= std::byte{1};
    say_tree(bytes);
    BlobId root = sent->root;
    if (lie % 4 == 1) root.lo ^= 1;
    say(SnapshotEnd{.root = root, .bytes = bytes.size()});
    expect_resync("");
    EXPECT_EQ(follower.installs(), 0u);
  }
}

TEST_F(LyingLeader, WhatIsLargerThanATreeMayBe) {
  const std::string much(400'000, 'x');
  greet_and_decide(Tier::kDifference);
  say(DifferenceBegin{{.position = was_.position, .lamport = 3, .marks = {}}});
  for (uint64_t i = 0; i < 10 && !link_->session().closed(); ++i)
    say(next({fs::Write{.inode = {2}, .offset = i * 400'000, .data = as_bytes(much)}}));
  expect_closed("larger than a tree may be");

  begin();
  greet_and_decide(Tier::kSnapshot);
  say(SnapshotBegin{.position = was_.position, .lamport = 3, .marks = {}});
  fs::Head head = fs::Head::create(Timestamp{});
  ASSERT_TRUE(head.apply(made("large", 5)));
  for (uint64_t i = 0; i < 40; ++i) {
    std::string block(100'000, static_cast<char>('a' + i % 26));
    block[0] = static_cast<char>(i);
    ASSERT_TRUE(head.apply(fs::Write{.inode = {5}, .offset = i * 100'000, .data = as_bytes(block)}));
  }
  (void)snapshot::send_tree(head, snapshot::kPieceBytes, [&](ByteView piece) -> Status {
    say_tree(piece);
    return {};
  });
  ASSERT_TRUE(link_->session().closed());
  EXPECT_TRUE(link_->session().hopeless());
  expect_unharmed();
}

TEST_F(LyingLeader, ADifferenceThatDoesNotFit) {
  for (bool other_digest : {false, true}) {
    budget_ = ResyncBudget(3);
    begin();
    greet_and_decide(Tier::kDifference);
    say(DifferenceBegin{{.position = was_.position, .lamport = 3, .marks = {}}});
    say(next({made(other_digest ? "b" : "a", 7)}));
    if (other_digest) say(DifferenceEnd{.batches = 1});
    expect_resync(other_digest ? "with the leader's difference the digest is" : "does not fit this tree");
    EXPECT_EQ(follower.installs(), 0u);
  }
}

}  // namespace
}  // namespace reprise::replay

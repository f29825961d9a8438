// Catching up by what differs from a tree that was kept.
#include "replay/difference.h"

#include <gtest/gtest.h>

#include "link_pair.h"

namespace reprise::replay {
namespace {

constexpr VolumeId kVolume{.hi = 0xaaaa, .lo = 1};
constexpr InodeId kFile{1000};

void expect_same(MemoryMember& a, MemoryMember& b) {
  EXPECT_EQ(a.vector(), b.vector());
  EXPECT_EQ(a.recomputed_digest(), b.recomputed_digest());
}

// A leader and a follower that were in step, and a file that is written to again and again.
class Difference : public testing::Test {
 protected:
  Difference() {
    for (int i = 0; i < 200; ++i) leader.write_file("f" + std::to_string(i), std::string(20'000, 'x'));
    leader.write(
        {fs::Create{.parent = kRootInode, .name = "written", .inode = kFile, .mode = S_IFREG | 0644}});
    leave();
  }
  // Follows until it is in step, and then the connection is lost.
  void leave() {
    LinkPair pair(leader, follower, {}, {}, &kept);
    pair.run();
    expect_same(leader, follower);
    pair.lose();
  }
  void write_much() {
    const std::string block(4096, 'a');
    for (uint64_t i = 0; i < 400; ++i)
      leader.write({fs::Write{.inode = kFile,
                              .offset = i % 10 * 4096,
                              .data = as_bytes(block),
                              .time = {static_cast<int64_t>(i), 0}}});
  }

  KeptTrees kept;
  MemoryMember leader{kVolume}, follower{kVolume, 2};
};

TEST_F(Difference, OfWhatWasWrittenAgainAndAgainIsSentOnce) {
  write_much();
  // Made and removed; then what stays.
  for (uint64_t i = 0; i < 300; ++i) {
    InodeId inode{2000 + i};
    leader.write({fs::Create{.parent = kRootInode, .name = "passing", .inode = inode, .mode = S_IFREG | 0644},
                  fs::Write{.inode = inode, .data = as_bytes("bytes")},
                  fs::Unlink{.parent = kRootInode, .name = "passing", .inode = inode}});
  }
  leader.write({fs::Create{.parent = kRootInode, .name = "d", .inode = {5000}, .mode = S_IFDIR | 0755},
                fs::Create{.parent = {5000}, .name = "new", .inode = {5001}, .mode = S_IFREG | 0600},
                fs::Write{.inode = {5001}, .data = as_bytes("new bytes")},
                fs::SetXattr{.inode = {5001}, .name = "user.a", .value = as_bytes("b")},
                fs::SetLimits{.bytes = 1 << 20}});
  leader.add_mark({"passed", journal::Position{.vector = leader.vector(), .digest = {}}.to_token()});
  size_t installs = follower.installs();

  LinkPair again(leader, follower, {}, {}, &kept);
  again.run();
  EXPECT_EQ(again.tier(), Tier::kDifference) << again.session().decision()->reason;
  EXPECT_TRUE(again.session().caught_up());
  EXPECT_LT(again.session().catch_up_bytes(), 60'000u);
  EXPECT_GT(*again.session().decision()->suffix_bytes, 1'600'000u);
  EXPECT_EQ(follower.installs(), installs + 1);
  EXPECT_EQ(again.leader_link().status().acked, leader.vector());
  ASSERT_EQ(follower.marks()->size(), 1u);
  EXPECT_EQ(follower.marks()->front().name, "passed");
  EXPECT_EQ(follower.pin()->view.limits().bytes, uint64_t{1} << 20);
  expect_same(leader, follower);

  // Inodes are what they are with the leader: its journal goes on.
  leader.write({fs::Write{.inode = {5001}, .offset = 4, .data = as_bytes("words")},
                fs::Rename{.old_parent = {5000},
                           .old_name = "new",
                           .new_parent = kRootInode,
                           .new_name = "moved",
                           .inode = {5001}}});
  again.run();
  EXPECT_EQ(follower.read_file("moved"), "new words");
  EXPECT_GT(again.session().checkpoints(), 0u);
  expect_same(leader, follower);
}

TEST_F(Difference, BeginsWithWhatWasOnItsWayWhenTheConnectionWasLost) {
  LinkPair pair(leader, follower, {}, {}, &kept);
  pair.run();
  leader.write_file("sent", "and never received");
  pair.step_leader();
  leader.write_file("not sent", "when it was lost");
  pair.lose();
  write_much();

  LinkPair again(leader, follower, {}, {}, &kept);
  again.run();
  EXPECT_EQ(again.tier(), Tier::kDifference) << again.session().decision()->reason;
  EXPECT_LE(again.follower_link().batches(), 2u);
  EXPECT_EQ(follower.read_file("sent"), "and never received");
  EXPECT_EQ(follower.read_file("not sent"), "when it was lost");
  expect_same(leader, follower);
}

TEST_F(Difference, IsThereAlsoIfTheLossWasNoticedByAWrite) {
  KeptTrees others;
  LinkPair pair(leader, follower, {}, {}, &others);
  pair.run();
  leader.write_file("more", "x");
  auto did = pair.leader_link().step(
      [](std::span<const ByteView>) { return Status(fail(Code::kUnreachable, "nobody there")); });
  ASSERT_FALSE(did);
  EXPECT_EQ(did.error().code(), Code::kUnreachable);
  EXPECT_EQ(others.after(leader.vector(), 0).size(), 1u);
}

TEST_F(Difference, ServesWhereTheJournalIsGone) {
  write_much();
  leader.trim_all();
  LinkPair again(leader, follower, {}, {}, &kept);
  again.run();
  EXPECT_EQ(again.tier(), Tier::kDifference) << again.session().decision()->reason;
  EXPECT_NE(again.session().decision()->reason.find("is not all there"), std::string::npos);
  expect_same(leader, follower);
}

TEST_F(Difference, IsNotSentWhereItIsMoreThanTheRest) {
  for (int i = 0; i < 40; ++i) leader.write_file("g" + std::to_string(i), std::string(20'000, 'y'));
  LinkPair again(leader, follower, {}, {}, &kept);
  again.run();
  EXPECT_EQ(again.tier(), Tier::kSuffix) << again.session().decision()->reason;
  EXPECT_EQ(again.session().decision()->difference_bytes, std::nullopt);
  expect_same(leader, follower);
}

TEST_F(Difference, ThatDoesNotFitIsMendedByASnapshot) {
  write_much();
  follower.corrupt_silently();
  LinkPair again(leader, follower, {}, {}, &kept);
  again.run();
  EXPECT_EQ(again.tier(), Tier::kSnapshot);
  EXPECT_NE(again.session().last_resync()->message().find("with the leader's difference the digest is"),
            std::string::npos)
      << again.session().last_resync()->message();
  expect_same(leader, follower);
}

TEST_F(Difference, CutOffAnywhereLeavesTheTreeAsItWas) {
  write_much();
  const Digest128 before = follower.recomputed_digest();
  const journal::Vector vector = follower.vector();
  std::mt19937 random(1);
  constexpr size_t kCuts = 40;
  for (size_t cut = 0; cut < kCuts; ++cut) {
    LinkPair pair(leader, follower, {}, {}, &kept);
    pair.deliver_to_leader(random, 1 << 20);
    pair.step_leader();
    ASSERT_GT(pair.to_follower().size(), 40'000u);
    // The last frames come after it.
    pair.to_follower().resize((pair.to_follower().size() - 2000) * cut / kCuts);
    pair.deliver_to_follower(random, 1 << 20);
    ASSERT_EQ(follower.recomputed_digest(), before) << cut;
    ASSERT_EQ(follower.vector(), vector);
  }
}

TEST_F(Difference, TreesAreKeptForAWhileAndAFewOfThem) {
  journal::Vector at = leader.vector();
  EXPECT_EQ(kept.after(at, 1000).size(), 1u);
  leave();
  EXPECT_EQ(kept.after(at, 1000).size(), 1u) << "the same again";
  for (int i = 0; i < 10; ++i) {
    leader.write_file("h" + std::to_string(i), "x");
    leave();
  }
  EXPECT_EQ(kept.after(at, 1000).size(), KeptTrees::kMax);
  EXPECT_EQ(kept.after(leader.vector(), 1000).size(), 1u) << "the others are before it";
  EXPECT_TRUE(kept.after(at, 10'000'000).empty());
}

TEST(DifferenceReceiver, TakesNoMoreThanItMayAndNothingThatDoesNotFit) {
  fs::Head head = fs::Head::create(Timestamp{});
  journal::BatchBuilder builder;
  const std::string bytes(6000, 'x');
  builder.add(fs::Create{.parent = kRootInode, .name = "a", .inode = {2}, .mode = S_IFREG | 0644});
  builder.add(fs::Write{.inode = {2}, .data = as_bytes(bytes)});
  journal::Batch batch =
      builder.finish({.kind = journal::BatchKind::kOriginStart, .origin = {1, 1}, .lsn = 1, .lamport = 1});
  for (auto [limit, code] : {std::pair{10'000, Code::kNoSpace}, {100'000, Code::kDivergence}}) {
    DifferenceReceiver receiver(head.view(), static_cast<uint64_t>(limit));
    ASSERT_TRUE(receiver.add(batch));
    auto refused = receiver.add(batch);
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().code(), code) << refused.error().message();
  }
}

}  // namespace
}  // namespace reprise::replay

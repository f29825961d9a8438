// Overwriting a peer that has some of the tree already: because it was cut off in the middle of being sent
// one, or because its own is much the same.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include "frames.h"
#include "link_pair.h"

namespace reprise::replay {
namespace {

constexpr VolumeId kVolume{.hi = 0xaaaa, .lo = 1};
constexpr int kFiles = 60;
constexpr size_t kFileBytes = 100'000;

void expect_same(MemoryMember& a, MemoryMember& b) {
  EXPECT_EQ(a.vector(), b.vector());
  EXPECT_EQ(a.recomputed_digest(), b.recomputed_digest());
}

std::string text_of(int file) {
  std::string text(kFileBytes, static_cast<char>('a' + file % 26));
  for (size_t at = 0; at < text.size(); at += 4096) text.replace(at, 2, std::to_string(10 + file));
  return text;
}

class MissingBlobs : public testing::Test {
 protected:
  MissingBlobs() {
    for (int i = 0; i < kFiles; ++i) leader.write_file("f" + std::to_string(i), text_of(i));
  }
  // The follower has what the leader had, and the leader has no journal that leads on from there.
  void leave_behind() {
    LinkPair(leader, follower).run();
    leader.write_file("new", text_of(1000));
    leader.trim_all();
    leader.write_file("later", "bytes");
  }
  // Sends a new follower about half of the tree, and loses the connection.
  void send_half() {
    LinkPair pair(leader, follower, {}, {}, nullptr, &unfinished);
    std::mt19937 random(1);
    pair.deliver_to_leader(random, 1 << 20);
    pair.step_leader();
    EXPECT_EQ(pair.leader_link().status().tier, Tier::kSnapshot);
    ByteView said(pair.to_follower());
    pair.follower_link().receive(said.first(said.size() / 2));
    EXPECT_FALSE(pair.session().closed());
    pair.to_follower().clear();
    EXPECT_EQ(follower.installs(), 0u);
  }

  MemoryMember leader{kVolume}, follower{VolumeId{}, 2};
  UnfinishedTree unfinished;
};

TEST_F(MissingBlobs, WhoHasMostIsSentTheRest) {
  leave_behind();
  LinkPair pair(leader, follower);
  pair.run();
  EXPECT_EQ(pair.tier(), Tier::kMissingBlobs);
  EXPECT_NE(pair.session().decision()->reason.find("what is missing of a snapshot"), std::string::npos)
      << pair.session().decision()->reason;
  EXPECT_EQ(follower.installs(), 1u);
  // The new file, and the nodes above what has changed.
  EXPECT_LT(pair.session().catch_up_bytes(), kFileBytes * 2);
  expect_same(leader, follower);
  leader.write_file("live", "bytes");
  pair.run();
  expect_same(leader, follower);
}

// What is done while a tree is sent goes with it, up to a bound; what the journal drops meanwhile is not
// missed.
TEST_F(MissingBlobs, BatchesAreSentBetweenThePiecesOfATree) {
  for (size_t batch_bytes : {size_t{1000}, size_t{1} << 20}) {
    SCOPED_TRACE(batch_bytes);
    MemoryMember peer(VolumeId{}, 3);
    leader.trim_all();
    LinkPair pair(leader, peer);
    std::mt19937 random(1);
    pair.deliver_to_leader(random, 1 << 20);
    int pieces = 0;
    auto did = pair.leader_link().step([&](std::span<const ByteView> written) -> Status {
      for (ByteView piece : written) append_bytes(pair.to_follower(), piece);
      ++pieces;
      const bool all_small_ones = batch_bytes == 1000 && written.front()[4] == std::byte{2};
      if (all_small_ones) leader.trim_all();  // there are no others
      if (pieces < 50)                        // within what a journal in memory keeps
        leader.write_file(fmt::format("m{}-{}", batch_bytes, pieces), std::string(batch_bytes, 'm'));
      return {};
    });
    ASSERT_TRUE(did) << did.error().message();
    ASSERT_GT(pieces, 20);
    uint64_t batches = 0, pieces_after = 0;
    for_frames(pair.to_follower(), [&](ByteView frame) {
      const auto kind = static_cast<uint8_t>(frame[4]);
      if (kind == 2) batches += frame.size();
      if (kind == 3 && batches > 0) ++pieces_after;
    });
    EXPECT_GT(batches, 10 * batch_bytes);
    EXPECT_LT(batches, kMeanwhileBytes + (4 << 20));
    EXPECT_GT(pieces_after, 10u);
    pair.run();
    EXPECT_EQ(peer.installs(), 1u);
    EXPECT_TRUE(pair.session().caught_up());
    expect_same(leader, peer);
  }
}

TEST_F(MissingBlobs, WhoDoesNotSayWhatHeHasIsSentEverything) {
  leave_behind();
  SessionOptions options;
  options.offers_tree = false;
  LinkPair pair(leader, follower, {}, options);
  pair.run();
  EXPECT_EQ(pair.tier(), Tier::kSnapshot);
  EXPECT_GT(pair.session().catch_up_bytes(), kFiles * kFileBytes);
  expect_same(leader, follower);
}

TEST_F(MissingBlobs, ATransferThatBrokeOffIsGoneOnWith) {
  leader.trim_all();
  send_half();
  // Meanwhile the leader goes on.
  leader.rewrite_file("f0", text_of(500));
  leader.rewrite_file("f1", "short");
  leader.trim_all();
  LinkPair pair(leader, follower, {}, {}, nullptr, &unfinished);
  pair.run();
  EXPECT_EQ(pair.tier(), Tier::kMissingBlobs);
  EXPECT_EQ(follower.installs(), 1u);
  EXPECT_LT(pair.session().catch_up_bytes(), kFiles * kFileBytes * 6 / 10);
  EXPECT_FALSE(unfinished.tree);
  expect_same(leader, follower);
}

TEST_F(MissingBlobs, WhatCameIsForgottenOnceTheJournalServes) {
  leader.trim_all();
  send_half();
  EXPECT_TRUE(unfinished.tree);
  // Another leader of the volume, whose journal begins at the beginning.
  MemoryMember other(kVolume);
  other.write_file("a", "a");
  LinkPair pair(other, follower, {}, {}, nullptr, &unfinished);
  pair.run();
  EXPECT_EQ(pair.tier(), Tier::kSuffix);
  EXPECT_FALSE(unfinished.tree);
  expect_same(other, follower);
}

TEST_F(MissingBlobs, WhoIsOutOfStepIsSentEverything) {
  LinkPair pair(leader, follower);
  pair.run();
  follower.corrupt_silently();
  leader.write_file("more", "bytes");
  pair.run();
  EXPECT_EQ(pair.tier(), Tier::kSnapshot);
  EXPECT_GT(pair.session().catch_up_bytes(), kFiles * kFileBytes);
  expect_same(leader, follower);
}

TEST_F(MissingBlobs, WhereBothTogetherWouldBeTooMuchAllIsSent) {
  leave_behind();
  for (int i = 0; i < kFiles; ++i) leader.rewrite_file("f" + std::to_string(i), text_of(200 + i));
  leader.trim_all();
  LinkPair pair(leader, follower, {}, {}, nullptr, nullptr, kFiles * kFileBytes * 3 / 2);
  pair.run();
  EXPECT_EQ(pair.tier(), Tier::kSnapshot);
  EXPECT_TRUE(pair.session().last_resync());
  EXPECT_FALSE(pair.session().hopeless());
  expect_same(leader, follower);
}

TEST_F(MissingBlobs, APeerThatNamesTooManyIsCutOff) {
  ManualClock clock;
  LeaderLink link(leader, clock, {});
  auto write = [](std::span<const ByteView>) { return Status(); };
  Frames frames;
  leader.trim_all();
  link.receive(frames.of(Hello{.branch = "main", .is_new = true, .holds = 1 << 20}));
  ASSERT_TRUE(link.step(write));
  EXPECT_EQ(link.status().tier, Tier::kMissingBlobs);
  Held held{.blobs = std::vector<uint64_t>(kHeldPerMessage, 7)};
  for (size_t named = 0; named < kHeldMax; named += kHeldPerMessage) link.receive(frames.of(held));
  EXPECT_FALSE(link.closed());
  link.receive(frames.of(held));
  ASSERT_TRUE(link.closed());
  EXPECT_NE(link.closed()->message().find("names more than"), std::string::npos);
}

// It says that it has everything: so it is sent nothing, finds that out, and is sent everything.
TEST_F(MissingBlobs, APeerThatNamesWhatItHasNotHarmsNobodyElse) {
  leader.trim_all();
  ManualClock clock;
  LeaderLink link(leader, clock, {});
  uint64_t bytes = 0;
  auto write = [&](std::span<const ByteView> pieces) {
    for (ByteView piece : pieces) bytes += piece.size();
    return Status();
  };
  snapshot::TreeReceiver all({});
  ASSERT_TRUE(all.add_all_of(leader.pin()->view));
  Held held{.last = true};
  for (BlobId id : all.has(kHeldMax)) held.blobs.push_back(id.lo);
  Frames frames;
  link.receive(frames.of(Hello{.branch = "main", .is_new = true, .holds = 1 << 20}));
  ASSERT_TRUE(link.step(write));
  link.receive(frames.of(held));
  ASSERT_TRUE(link.step(write));
  EXPECT_LT(bytes, 5'000u);
  link.receive(frames.of(held));  // once more: ignored
  ASSERT_TRUE(link.step(write));
  EXPECT_EQ(link.status().overwrites, 1u);
  link.receive(frames.of(Resync{.code = Code::kCorrupt, .reason = "blobs are missing"}));
  ASSERT_TRUE(link.step(write));
  EXPECT_EQ(link.status().tier, Tier::kSnapshot);
  EXPECT_GT(bytes, kFiles * kFileBytes);
}

}  // namespace
}  // namespace reprise::replay

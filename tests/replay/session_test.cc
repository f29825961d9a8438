// The protocol, driven without sockets or threads.
#include "replay/session.h"

#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include "frames.h"
#include "link_pair.h"

namespace reprise::replay {
namespace {

constexpr VolumeId kVolume{.hi = 0xaaaa, .lo = 1};
constexpr VolumeId kOtherVolume{.hi = 0xbbbb, .lo = 2};

void expect_same(MemoryMember& a, MemoryMember& b) {
  EXPECT_EQ(a.vector(), b.vector());
  EXPECT_EQ(a.recomputed_digest(), b.recomputed_digest());
}
bool mentions(const std::optional<Error>& error, std::string_view text) {
  return error && error->message().find(text) != std::string::npos;
}
std::string shown(const std::optional<Error>& error) {
  return error ? error->message() : "no error";
}

TEST(Session, ANewFollowerAdoptsTheVolumeAndReplaysFromTheBeginning) {
  MemoryMember leader(kVolume), follower(VolumeId{});
  leader.write_file("hello", "hi");
  LinkPair pair(leader, follower);
  pair.run();
  EXPECT_EQ(follower.volume(), kVolume);
  EXPECT_EQ(pair.tier(), Tier::kSuffix);
  EXPECT_TRUE(pair.session().caught_up());
  EXPECT_EQ(follower.read_file("hello"), "hi");
  EXPECT_EQ(pair.leader_link().status().acked, leader.vector());
  EXPECT_EQ(pair.session().checkpoints(), 1u);
  expect_same(leader, follower);
}

TEST(Session, SendsWhatIsWrittenLater) {
  MemoryMember leader(kVolume), follower(VolumeId{});
  LinkPair pair(leader, follower);
  pair.run();
  EXPECT_EQ(pair.tier(), Tier::kNothing);
  for (int i = 0; i < 300; ++i) {
    leader.write_file("f" + std::to_string(i), "x");
    if (i % 7 == 0) pair.run();
  }
  pair.run();
  EXPECT_GT(pair.session().checkpoints(), 10u);
  expect_same(leader, follower);
}

TEST(Session, CatchesUpByTheSuffixAloneAfterAnAbsence) {
  MemoryMember leader(kVolume), follower(VolumeId{});
  for (int i = 0; i < 100; ++i) leader.write_file("before" + std::to_string(i), std::string(1000, 'b'));
  LinkPair(leader, follower).run();
  for (int i = 0; i < 5; ++i) leader.write_file("after" + std::to_string(i), "a");
  LinkPair again(leader, follower);
  again.run();
  EXPECT_EQ(again.tier(), Tier::kSuffix);
  EXPECT_EQ(again.session().catch_up_bytes(), again.session().decision()->estimated_bytes);
  EXPECT_LT(again.session().catch_up_bytes(), 2000u);
  EXPECT_EQ(again.session().catch_up_operations(), 10u);  // five files made, and written
  EXPECT_EQ(again.follower_link().batches(), 5u);
  expect_same(leader, follower);
}

TEST(Session, SaysNothingNeedsToBeDoneWhenNothingDoes) {
  MemoryMember leader(kVolume), follower(VolumeId{});
  leader.write_file("a", "a");
  LinkPair(leader, follower).run();
  LinkPair again(leader, follower);
  again.run();
  EXPECT_EQ(again.tier(), Tier::kNothing);
  EXPECT_TRUE(again.session().caught_up());
  EXPECT_EQ(again.session().catch_up_bytes(), 0u);
}

TEST(Session, PutsWhatWasSentOnTheFollowersDiskWhenAsked) {
  MemoryMember leader(kVolume), follower(VolumeId{});
  leader.write_file("a", "a");
  LinkPair pair(leader, follower);
  pair.run();
  EXPECT_TRUE(pair.leader_link().status().synced.empty());
  leader.write_file("b", "b");
  pair.leader_link().want_synced(leader.vector());
  pair.leader_link().want_synced(leader.vector());  // is the same question
  pair.run();
  EXPECT_EQ(pair.leader_link().status().synced, leader.vector());
  EXPECT_EQ(follower.syncs(), 1u);
  pair.leader_link().want_synced(leader.vector());
  pair.run();
  EXPECT_EQ(follower.syncs(), 1u);
  leader.write_file("c", "c");
  journal::Vector later = leader.vector();
  pair.leader_link().want_synced(later);
  pair.run();
  EXPECT_EQ(pair.leader_link().status().synced, later);
  EXPECT_EQ(follower.syncs(), 2u);
}

TEST(Session, AFollowerWhoseDiskFailsAtThatLeavesForGood) {
  MemoryMember leader(kVolume), follower(VolumeId{});
  leader.write_file("a", "a");
  LinkPair pair(leader, follower);
  pair.run();
  follower.fail_syncs(Error(Code::kIo, "the disk is on fire"));
  pair.leader_link().want_synced(leader.vector());
  pair.run();
  EXPECT_TRUE(pair.session().hopeless());
  EXPECT_TRUE(mentions(pair.leader_link().closed(), "on fire")) << shown(pair.leader_link().closed());
  EXPECT_TRUE(pair.leader_link().status().detached);
  EXPECT_TRUE(pair.leader_link().status().synced.empty());
}

// Who waits for peers must be able to believe them as far as this.
TEST(Session, APeerThatClaimsWhatItWasNotSentIsCutOff) {
  for (bool on_disk : {false, true}) {
    MemoryMember leader(kVolume);
    leader.write_file("a", "a");
    ManualClock clock;
    LeaderLink link(leader, clock, {});
    auto write = [](std::span<const ByteView>) { return Status(); };
    Frames frames;
    link.receive(frames.of(Hello{.branch = "main", .is_new = true}));
    for (int n = 0; n < 3; ++n) ASSERT_TRUE(link.step(write));
    link.receive(frames.of(Ack{.vector = leader.vector()}));
    ASSERT_FALSE(link.closed());
    journal::Vector more = leader.vector();
    more.set(leader.origin(), more.get(leader.origin()) + 1);
    link.receive(on_disk ? frames.of(Synced{.vector = more}) : frames.of(Ack{.vector = more}));
    EXPECT_TRUE(mentions(link.closed(), "not sent")) << shown(link.closed());
  }
}

TEST(Session, SaysHowFarAPeerIsBehindAndWhatItIsCalled) {
  MemoryMember leader(kVolume), follower(VolumeId{});
  leader.write_file("a", "a");
  SessionOptions named;
  named.name = "copy-1";
  LinkPair pair(leader, follower, {}, named);
  pair.run();
  PeerStatus status = pair.leader_link().status(true);
  EXPECT_EQ(status.name, "copy-1");
  EXPECT_EQ(status.lag.batches, 0u);
  EXPECT_EQ(status.lag.us, 0u);
  EXPECT_EQ(status.checkpoints, pair.session().checkpoints());
  EXPECT_EQ(status.sent_bytes, pair.session().received_bytes());
  EXPECT_EQ(status.received_bytes, pair.session().sent_bytes());
  for (int n = 0; n < 10; ++n) leader.write_file("f" + std::to_string(n), std::string(1000, 'x'));
  pair.step_leader();  // sent; the follower does not read
  pair.clock().advance_ms(250);
  leader.write_file("later", "x");  // not even sent
  status = pair.leader_link().status(true);
  EXPECT_EQ(status.lag.batches, 11u);
  EXPECT_EQ(status.lag.operations, 22u);
  EXPECT_GT(status.lag.bytes, 10'000u);
  EXPECT_FALSE(status.lag.at_least);
  EXPECT_EQ(status.lag.us, 250'000u);
  pair.run();
  EXPECT_EQ(pair.leader_link().status(true).lag.batches, 0u);
}

TEST(UnackedSince, KnowsTheOldestHoweverMuchWasSent) {
  UnackedSince unacked;
  auto at = [](Lsn lsn) {
    journal::Vector vector;
    vector.set({.hi = 1, .lo = 1}, lsn);
    return vector;
  };
  EXPECT_FALSE(unacked.oldest_ns());
  for (Lsn lsn = 1; lsn <= 10'000; ++lsn) unacked.sent(at(lsn), lsn * 10);
  EXPECT_EQ(unacked.oldest_ns(), 10u);
  unacked.acked(at(5'000));
  // Some are forgotten: never before what is still there, and not for ever after it.
  ASSERT_TRUE(unacked.oldest_ns());
  EXPECT_GT(*unacked.oldest_ns(), 50'000u);
  EXPECT_LE(*unacked.oldest_ns(), 100'000u);
  unacked.acked(at(10'000));
  EXPECT_FALSE(unacked.oldest_ns());
}

// --- a leader that lost its tail

TEST(TakeBack, ALeaderTakesItsLostTailBackFromAFollowerAndOverwritesNobody) {
  MemoryMember before(kVolume), follower(VolumeId{});
  for (int i = 0; i < 300; ++i) before.write_file("f" + std::to_string(i), std::string(2000, 'x'));
  LinkPair(before, follower).run();
  MemoryMember leader(kVolume, 2);
  leader.begin_as_remains_of(before, 100);
  for (uint32_t seed : {1, 2}) {  // the second finds nothing to do
    LinkPair pair(leader, follower);
    pair.run(seed, 700);
    EXPECT_EQ(pair.tier(), Tier::kNothing) << pair.session().decision()->reason;
    EXPECT_EQ(pair.leader_link().status().taken_back, seed == 1 ? 200u : 0u);
    EXPECT_EQ(pair.leader_link().status().overwrites, 0u);
    EXPECT_TRUE(pair.session().caught_up());
  }
  EXPECT_TRUE(leader.took_back_completely());
  EXPECT_EQ(leader.read_file("f299"), std::string(2000, 'x'));
  EXPECT_EQ(follower.installs(), 0u);
  expect_same(leader, follower);
  // And goes on from there.
  LinkPair pair(leader, follower);
  pair.run();
  leader.write_file("new", "n");
  pair.run();
  EXPECT_EQ(follower.read_file("new"), "n");
  expect_same(leader, follower);
}

TEST(TakeBack, OfSeveralFollowersTheOneWithTheMostIsWhatIsTaken) {
  MemoryMember before(kVolume), shorter(VolumeId{}), longer(VolumeId{});
  for (int i = 0; i < 50; ++i) before.write_file("f" + std::to_string(i), "x");
  LinkPair(before, shorter).run();
  for (int i = 50; i < 80; ++i) before.write_file("f" + std::to_string(i), "x");
  LinkPair(before, longer).run();
  MemoryMember leader(kVolume, 2);
  leader.begin_as_remains_of(before, 10);
  LinkPair first(leader, shorter);
  first.run();
  EXPECT_EQ(first.leader_link().status().taken_back, 40u);
  LinkPair second(leader, longer);
  second.run();
  EXPECT_EQ(second.leader_link().status().taken_back, 30u);
  first.run();  // the shorter one is sent what came
  EXPECT_EQ(shorter.installs() + longer.installs(), 0u);
  expect_same(leader, longer);
  expect_same(leader, shorter);
}

TEST(TakeBack, WhoHasWrittenSinceOverwritesTheFollowerAsBefore) {
  MemoryMember before(kVolume), follower(VolumeId{});
  for (int i = 0; i < 20; ++i) before.write_file("f" + std::to_string(i), "x");
  LinkPair(before, follower).run();
  MemoryMember leader(kVolume, 2);
  leader.begin_as_remains_of(before, 10);
  leader.write_file("since", "s");
  LinkPair pair(leader, follower);
  pair.run();
  EXPECT_EQ(pair.tier(), Tier::kSnapshot);
  EXPECT_EQ(pair.leader_link().status().taken_back, 0u);
  EXPECT_EQ(follower.read_file("f19"), std::nullopt);
  expect_same(leader, follower);
}

TEST(TakeBack, AWriteThatComesBetweenEndsIt) {
  MemoryMember before(kVolume), follower(VolumeId{});
  for (int i = 0; i < 400; ++i) before.write_file("f" + std::to_string(i), std::string(3000, 'x'));
  LinkPair(before, follower).run();
  MemoryMember leader(kVolume, 2);
  leader.begin_as_remains_of(before, 10);
  LinkPair pair(leader, follower);
  std::mt19937 random(1);
  pair.deliver_to_leader(random, 1 << 20);  // the greeting
  pair.step_leader();
  pair.deliver_to_follower(random, 1 << 20);  // it is asked
  pair.deliver_to_leader(random, 1 << 20);    // the first of it
  Lsn some = leader.vector().get(before.origin());
  EXPECT_GT(some, 10u);
  EXPECT_LT(some, 400u);
  leader.write_file("since", "s");
  pair.run();
  EXPECT_EQ(pair.tier(), Tier::kMissingBlobs);
  EXPECT_NE(pair.session().decision()->reason.find("has written since"), std::string::npos)
      << pair.session().decision()->reason;
  EXPECT_EQ(leader.vector().get(before.origin()), some);
  expect_same(leader, follower);
}

TEST(TakeBack, AFollowerWhoseJournalDoesNotReachBackIsOverwritten) {
  MemoryMember before(kVolume), follower(VolumeId{});
  for (int i = 0; i < 20; ++i) before.write_file("f" + std::to_string(i), "x");
  LinkPair(before, follower).run();
  follower.trim_all();
  MemoryMember leader(kVolume, 2);
  leader.begin_as_remains_of(before, 10);
  LinkPair pair(leader, follower);
  pair.run();
  EXPECT_EQ(pair.tier(), Tier::kSnapshot);
  EXPECT_NE(pair.session().decision()->reason.find("could not be taken back"), std::string::npos)
      << pair.session().decision()->reason;
  expect_same(leader, follower);
}

TEST(TakeBack, AFollowerWhoseTreeDivergedMeanwhileIsOverwrittenAfterItGaveWhatItHad) {
  MemoryMember before(kVolume), follower(VolumeId{});
  for (int i = 0; i < 20; ++i) before.write_file("f" + std::to_string(i), "x");
  LinkPair(before, follower).run();
  follower.corrupt_silently();
  MemoryMember leader(kVolume, 2);
  leader.begin_as_remains_of(before, 10);
  LinkPair pair(leader, follower);
  pair.run();
  EXPECT_EQ(pair.leader_link().status().taken_back, 10u);
  EXPECT_EQ(pair.tier(), Tier::kSnapshot);
  EXPECT_EQ(leader.recomputed_digest(), before.recomputed_digest());
  expect_same(leader, follower);
}

TEST(TakeBack, BatchesThatNobodyAskedForEndTheSession) {
  MemoryMember leader(kVolume), other(kVolume, 2);
  leader.write_file("a", "a");
  other.write_file("b", "b");
  LinkPair pair(leader, other);
  pair.record();
  std::mt19937 random(1);
  pair.deliver_to_leader(random, 1 << 20);
  pair.step_leader();
  auto logged = other.journal().read(1)->next();
  ASSERT_TRUE(logged && *logged);
  pair.leader_link().receive(Frames(count_frames(pair.said_to_leader())).of((*logged)->batch));
  EXPECT_TRUE(mentions(pair.leader_link().closed(), "may only receive"))
      << shown(pair.leader_link().closed());
  EXPECT_EQ(leader.vector().entries().size(), 1u);
}

TEST(Session, OverwritesWhenTheJournalWasTrimmed) {
  MemoryMember leader(kVolume), follower(VolumeId{});
  leader.write_file("a", "first");
  LinkPair(leader, follower).run();
  leader.write_file("b", "second");
  leader.trim_all();
  leader.write_file("c", "third");
  LinkPair again(leader, follower);
  again.run();
  EXPECT_EQ(again.tier(), Tier::kSnapshot);
  EXPECT_NE(again.session().decision()->reason.find("trimmed"), std::string::npos)
      << again.session().decision()->reason;
  EXPECT_EQ(follower.installs(), 1u);
  EXPECT_GT(again.session().catch_up_bytes(), 0u);
  expect_same(leader, follower);
  leader.write_file("d", "and on it goes");
  again.run();
  EXPECT_EQ(follower.installs(), 1u);
  expect_same(leader, follower);
}

TEST(Session, OverwritesWhenThatIsCheaper) {
  MemoryMember leader(kVolume), follower(VolumeId{});
  leader.write_file("often", "");
  for (int i = 0; i < 500; ++i)
    leader.write({fs::Write{
        .inode = {2}, .offset = 0, .data = as_bytes(std::string(3000, 'a' + i % 26)), .time = {i, 0}}});
  LinkPair pair(leader, follower);
  pair.run();
  EXPECT_EQ(pair.tier(), Tier::kSnapshot);
  EXPECT_LT(pair.session().catch_up_bytes(), 100'000u);
  expect_same(leader, follower);
}

TEST(Session, OverwritesATreeWithoutHistory) {
  MemoryMember leader(kVolume), follower(VolumeId{});
  leader.write_file("a", "a");
  follower.corrupt_silently();
  follower.set_new(false);
  LinkPair pair(leader, follower);
  pair.run();
  EXPECT_EQ(pair.tier(), Tier::kSnapshot);
  expect_same(leader, follower);
}

TEST(Session, OverwritesAPeerThatIsAheadAndSaysSo) {
  MemoryMember leader(kVolume), follower(kVolume, 9);
  leader.write_file("a", "a");
  follower.write_file("mine", "lost");
  LinkPair pair(leader, follower);
  pair.run();
  EXPECT_EQ(pair.tier(), Tier::kSnapshot);
  EXPECT_NE(pair.session().decision()->reason.find("the leader lacks"), std::string::npos)
      << pair.session().decision()->reason;
  expect_same(leader, follower);
}

TEST(Session, RefusesAnotherVolumeNamingBoth) {
  MemoryMember leader(kVolume), follower(kOtherVolume);
  leader.write_file("a", "a");
  LinkPair pair(leader, follower);
  pair.run();
  ASSERT_TRUE(pair.session().closed());
  EXPECT_EQ(pair.session().closed()->code(), Code::kWrongVolume);
  EXPECT_TRUE(pair.session().hopeless());
  for (const std::optional<Error>& end : {pair.session().closed(), pair.leader_link().closed()}) {
    EXPECT_TRUE(mentions(end, kVolume.to_string())) << shown(end);
    EXPECT_TRUE(mentions(end, kOtherVolume.to_string())) << shown(end);
  }
  EXPECT_TRUE(follower.vector().empty());
}

TEST(Session, RefusesAProtocolItDoesNotSpeakNamingBoth) {
  MemoryMember leader(kVolume), follower(VolumeId{});
  SessionOptions newer, older;
  newer.min_version = 3, newer.max_version = 5;
  older.min_version = 1, older.max_version = 2;
  LinkPair pair(leader, follower, newer, older);
  pair.run();
  EXPECT_TRUE(pair.session().hopeless());
  EXPECT_TRUE(mentions(pair.session().closed(), "versions 3 to 5")) << shown(pair.session().closed());
  EXPECT_TRUE(mentions(pair.session().closed(), "1 to 2")) << shown(pair.session().closed());
  EXPECT_EQ(pair.leader_link().closed()->code(), Code::kUnsupported);
  EXPECT_FALSE(follower.volume());
}

TEST(Session, FindsDivergenceAndMendsItWithOneSnapshot) {
  MemoryMember leader(kVolume), follower(VolumeId{});
  leader.write_file("a", "a");
  LinkPair pair(leader, follower);
  pair.run();
  follower.corrupt_silently();
  leader.write_file("b", "b");
  pair.run();
  ASSERT_TRUE(pair.session().last_resync());
  EXPECT_EQ(pair.session().last_resync()->code(), Code::kDivergence);
  EXPECT_EQ(follower.installs(), 1u);
  EXPECT_FALSE(pair.session().closed());
  EXPECT_TRUE(pair.session().caught_up());
  EXPECT_NE(pair.leader_link().status().reason.find("divergence"), std::string::npos)
      << pair.leader_link().status().reason;
  expect_same(leader, follower);
}

TEST(Session, FindsDivergenceAtTheGreeting) {
  MemoryMember leader(kVolume), follower(VolumeId{});
  leader.write_file("a", "a");
  LinkPair(leader, follower).run();
  follower.corrupt_silently();
  LinkPair again(leader, follower);
  again.run();
  EXPECT_EQ(again.tier(), Tier::kSnapshot);
  EXPECT_FALSE(again.session().last_resync());
  expect_same(leader, follower);
}

TEST(Session, ABatchThatDoesNotFitTheTreeAsksForASnapshot) {
  MemoryMember leader(kVolume), follower(VolumeId{});
  LinkPair pair(leader, follower);
  pair.run();
  follower.fail_applies(Error(Code::kDivergence, "operation 1 of 2 (create) cannot be applied"));
  leader.write_file("a", "a");
  pair.run();
  EXPECT_EQ(follower.installs(), 1u);
  EXPECT_TRUE(mentions(pair.session().last_resync(), "operation 1 of 2"))
      << shown(pair.session().last_resync());
  expect_same(leader, follower);
}

TEST(Session, AFollowerThatNeverFitsIsDetachedNotResyncedForEver) {
  MemoryMember leader(kVolume), follower(VolumeId{});
  LinkPair pair(leader, follower);
  pair.run();
  follower.diverge_always(true);
  for (int i = 0; i < 20; ++i) {
    leader.write_file("f" + std::to_string(i), "x");
    pair.run();
  }
  ASSERT_TRUE(pair.session().closed());
  EXPECT_EQ(pair.session().closed()->code(), Code::kDetached);
  EXPECT_TRUE(pair.session().hopeless());
  EXPECT_EQ(follower.installs(), SessionOptions().resyncs_per_minute);
}

TEST(Session, TheBudgetOfResyncsComesBackWithTime) {
  ResyncBudget budget(2);
  EXPECT_TRUE(budget.take(0));
  EXPECT_TRUE(budget.take(30'000));
  EXPECT_FALSE(budget.take(59'999));
  EXPECT_TRUE(budget.take(60'000));
  EXPECT_FALSE(budget.take(60'001));
}

TEST(Session, AMemberInTroubleDetachesWithItsReason) {
  MemoryMember leader(kVolume), follower(VolumeId{});
  LinkPair pair(leader, follower);
  pair.run();
  follower.fail_applies(Error(Code::kNoSpace, "journal/00000001: cannot write: no space left"));
  leader.write_file("a", "a");
  pair.run();
  EXPECT_TRUE(pair.session().hopeless());
  EXPECT_TRUE(mentions(pair.leader_link().closed(), "no space left")) << shown(pair.leader_link().closed());
  EXPECT_EQ(follower.installs(), 0u);
}

TEST(Session, APeerThatFallsBehindTheTrimmedHeadIsOverwritten) {
  MemoryMember leader(kVolume), follower(VolumeId{});
  LinkPair pair(leader, follower);
  pair.run();
  for (int i = 0; i < 100; ++i) leader.write_file("f" + std::to_string(i), "x");
  pair.step_leader();  // some of them are on the way
  for (int i = 100; i < 200; ++i) leader.write_file("f" + std::to_string(i), "x");
  leader.trim_all();
  pair.run();
  EXPECT_EQ(pair.tier(), Tier::kSnapshot);
  EXPECT_EQ(follower.installs(), 1u);
  expect_same(leader, follower);
}

TEST(Session, SilenceEndsItOnBothSidesAndHeartbeatsPreventThat) {
  MemoryMember leader(kVolume), follower(VolumeId{});
  LinkPair pair(leader, follower);
  pair.run();
  for (int i = 0; i < 100; ++i) {
    pair.clock().advance_ms(1'500);
    pair.run();
  }
  EXPECT_FALSE(pair.session().closed());
  pair.clock().advance_ms(SessionOptions().silence_limit_ms);
  pair.follower_link().tick();
  ASSERT_TRUE(pair.session().closed());
  EXPECT_EQ(pair.session().closed()->code(), Code::kTimeout);
}

TEST(Session, AGreetingThatNeverComesEndsIt) {
  MemoryMember leader(kVolume);
  ManualClock clock;
  LeaderLink link(leader, clock, {});
  clock.advance_ms(SessionOptions().handshake_timeout_ms);
  Result<LeaderLink::Activity> did = link.step([](std::span<const ByteView>) { return Status(); });
  ASSERT_FALSE(did);
  EXPECT_EQ(did.error().code(), Code::kTimeout);
}

// Of a session of some seconds loses the message of that number, in whichever direction: how many were sent
// by then, and whether it has ended ten seconds later.
std::pair<size_t, bool> session_that_loses(size_t lost) {
  MemoryMember leader(kVolume), follower(VolumeId{});
  leader.write_file("a", "a");
  LinkPair pair(leader, follower);
  size_t number = 0;
  auto deliver = [&](ByteView bytes, auto& link) {
    for_frames(bytes, [&](ByteView frame) {
      if (number++ != lost) link.receive(frame);
    });
  };
  auto go_on_for = [&](int seconds) {
    for (int second = 0; second < seconds; ++second) {
      pair.step_leader();
      deliver(std::exchange(pair.to_follower(), {}), pair.follower_link());
      pair.clock().advance_ms(1100);
      pair.follower_link().tick();
      Bytes back;
      for (const Outgoing& out : pair.follower_link().take_output()) append_bytes(back, out.bytes);
      deliver(back, pair.leader_link());
    }
  };
  go_on_for(3);
  size_t sent = number;
  go_on_for(10);
  return {sent, pair.session().closed() || pair.leader_link().closed()};
}

// The next one ends the session, if only a heartbeat; the first has ten seconds to come.
TEST(Session, NobodyWaitsForAMessageThatIsLost) {
  auto [sent, ended] = session_that_loses(SIZE_MAX);
  EXPECT_FALSE(ended);
  ASSERT_GT(sent, 5u);
  for (size_t lost = 0; lost < sent; ++lost)
    EXPECT_TRUE(session_that_loses(lost).second) << "message " << lost << " of " << sent;
}

TEST(Session, StrangersAreRefusedAtTheFirstBytes) {
  MemoryMember leader(kVolume);
  ManualClock clock;
  LeaderLink link(leader, clock, {});
  link.receive(as_bytes("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"));
  ASSERT_TRUE(link.closed());
  EXPECT_EQ(link.closed()->code(), Code::kCorrupt);
  EXPECT_TRUE(mentions(link.closed(), "RPS1")) << shown(link.closed());
}

TEST(Session, AFollowerMaySendNoBatches) {
  MemoryMember leader(kVolume), follower(VolumeId{}), source(kVolume);
  source.write_file("x", "x");
  auto cursor = source.journal().read(1);
  journal::Batch batch = (**cursor->next()).batch;
  LinkPair pair(leader, follower);
  pair.record();
  pair.run();
  pair.leader_link().receive(Frames(count_frames(pair.said_to_leader())).of(batch));
  EXPECT_TRUE(mentions(pair.leader_link().closed(), "may only receive"))
      << shown(pair.leader_link().closed());
  EXPECT_TRUE(leader.vector().empty());
}

// However the bytes are cut, the result is the same.
RC_GTEST_PROP(SessionProperty, AnyChunkingGivesEqualTrees, ()) {
  uint32_t seed = *rc::gen::arbitrary<uint32_t>();
  size_t piece_max = *rc::gen::element<size_t>(1, 7, 24, 25, 1000, 70'000);
  int files = *rc::gen::inRange(0, 40);
  bool trimmed = *rc::gen::arbitrary<bool>();
  MemoryMember leader(kVolume), follower(VolumeId{});
  for (int i = 0; i < files; ++i) leader.write_file("f" + std::to_string(i), std::string(i * 37, 'x'));
  if (trimmed) leader.trim_all();
  LinkPair pair(leader, follower);
  pair.run(seed, piece_max);
  leader.write_file("late", "and late");
  pair.run(seed + 1, piece_max);
  RC_ASSERT(!pair.session().closed());
  RC_ASSERT(pair.session().caught_up());
  RC_ASSERT(leader.vector() == follower.vector());
  RC_ASSERT(leader.recomputed_digest() == follower.recomputed_digest());
  RC_ASSERT(pair.session().checkpoints() > 0u);
}

}  // namespace
}  // namespace reprise::replay

// The decision how a peer is brought up to date, on both sides of every line.
#include "replay/tier.h"

#include <gtest/gtest.h>

namespace reprise::replay {
namespace {

CatchUpFacts behind(std::optional<uint64_t> suffix_bytes, uint64_t snapshot_bytes) {
  return {.suffix_bytes = suffix_bytes,
          .suffix_missing = "log index 3 has been trimmed",
          .snapshot_bytes = snapshot_bytes};
}

TEST(Tier, ShipsFewerBytes) {
  EXPECT_EQ(choose_tier(behind(999, 1000)).tier, Tier::kSuffix);
  EXPECT_EQ(choose_tier(behind(1001, 1000)).tier, Tier::kSnapshot);
}

TEST(Tier, TakesTheSuffixAtATie) {
  CatchUpDecision decision = choose_tier(behind(1000, 1000));
  EXPECT_EQ(decision.tier, Tier::kSuffix);
  EXPECT_EQ(decision.estimated_bytes, 1000u);
}

TEST(Tier, SaysBothEstimatesAndWhy) {
  CatchUpDecision decision = choose_tier(behind(12'000, 60'000'000));
  EXPECT_EQ(decision.suffix_bytes, 12'000u);
  EXPECT_EQ(decision.snapshot_bytes, 60'000'000u);
  EXPECT_EQ(decision.reason, "journal suffix of 12.0 kB, a snapshot would be about 60.0 MB");
}

TEST(Tier, ATrimmedJournalLeavesTheSnapshot) {
  CatchUpDecision decision = choose_tier(behind(std::nullopt, 1'000'000));
  EXPECT_EQ(decision.tier, Tier::kSnapshot);
  EXPECT_NE(decision.reason.find("log index 3 has been trimmed"), std::string::npos) << decision.reason;
}

TEST(Tier, TheDifferenceWhereItIsLessThanBoth) {
  CatchUpFacts facts = behind(1000, 2000);
  facts.difference_bytes = 500;
  CatchUpDecision decision = choose_tier(facts);
  EXPECT_EQ(decision.tier, Tier::kDifference);
  EXPECT_EQ(decision.estimated_bytes, 500u);
  EXPECT_EQ(
      decision.reason,
      "difference of about 500 B, the journal suffix would be 1.00 kB, a snapshot would be about 2.00 kB");
  facts.difference_bytes = 501;
  EXPECT_EQ(choose_tier(facts).tier, Tier::kSuffix);
  facts = behind(std::nullopt, 2000);
  facts.difference_bytes = 1000;
  EXPECT_EQ(choose_tier(facts).tier, Tier::kDifference);
  facts.difference_bytes = 1001;
  EXPECT_EQ(choose_tier(facts).tier, Tier::kSnapshot);
}

TEST(Tier, ADifferenceIsLookedForWhereItCouldServe) {
  EXPECT_EQ(difference_limit(behind(1'000'000, 2'000'000), 200'000), 500'000u);
  EXPECT_EQ(difference_limit(behind(std::nullopt, 2'000'000), 200'000), 1'000'000u);
  EXPECT_EQ(difference_limit(behind(100'000, 2'000'000), 200'000), std::nullopt) << "it is there before";
  for (auto spoil : {+[](CatchUpFacts& facts) { facts.peer_is_ahead = "it has more"; },
                     +[](CatchUpFacts& facts) { facts.asked_for_snapshot = "its tree diverged"; },
                     +[](CatchUpFacts& facts) { facts.equal = true; },
                     +[](CatchUpFacts& facts) { facts.peer_is_empty = true; }}) {
    CatchUpFacts facts = behind(1'000'000, 2'000'000);
    spoil(facts);
    EXPECT_EQ(difference_limit(facts, 200'000), std::nullopt);
  }
}

TEST(Tier, NothingWhenEqual) {
  CatchUpFacts facts = behind(0, 100);
  facts.equal = true;
  EXPECT_EQ(choose_tier(facts).tier, Tier::kNothing);
  facts.digests_differ = true;
  EXPECT_EQ(choose_tier(facts).tier, Tier::kSnapshot);
}

TEST(Tier, ATreeWithoutHistoryIsOverwritten) {
  CatchUpFacts facts = behind(10, 100);
  facts.peer_is_empty = true;
  EXPECT_EQ(choose_tier(facts).tier, Tier::kSnapshot);
  facts.peer_is_new = true;
  EXPECT_EQ(choose_tier(facts).tier, Tier::kSuffix);
}

TEST(Tier, APeerThatIsAheadOrAsksIsOverwritten) {
  CatchUpFacts facts = behind(10, 100);
  facts.peer_is_ahead = "it has more";
  EXPECT_EQ(choose_tier(facts).tier, Tier::kSnapshot);
  facts = behind(10, 100);
  facts.asked_for_snapshot = "its tree diverged";
  CatchUpDecision decision = choose_tier(facts);
  EXPECT_EQ(decision.tier, Tier::kSnapshot);
  EXPECT_NE(decision.reason.find("its tree diverged"), std::string::npos) << decision.reason;
}

}  // namespace
}  // namespace reprise::replay

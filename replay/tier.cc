#include "replay/tier.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/bytes.h"

namespace reprise::replay {
namespace {

CatchUpDecision decide(const CatchUpFacts& facts, Tier tier, std::string reason) {
  CatchUpDecision out{.tier = tier,
                      .suffix_bytes = facts.suffix_bytes,
                      .difference_bytes = facts.difference_bytes,
                      .snapshot_bytes = facts.snapshot_bytes};
  if (tier == Tier::kSuffix) out.estimated_bytes = *facts.suffix_bytes;
  if (tier == Tier::kDifference) out.estimated_bytes = *facts.difference_bytes;
  if (tier == Tier::kSnapshot) out.estimated_bytes = facts.snapshot_bytes;
  if (tier == Tier::kMissingBlobs)
    out.estimated_bytes = facts.snapshot_bytes - std::min(facts.snapshot_bytes, facts.peer_holds);
  out.reason = std::move(reason);
  return out;
}

// The whole tree, or what the peer lacks of it.
CatchUpDecision decide_tree(const CatchUpFacts& facts, const std::string& why) {
  std::string snapshot = "snapshot of about " + format_bytes(facts.snapshot_bytes);
  if (facts.peer_holds == 0) return decide(facts, Tier::kSnapshot, fmt::format("{}: {}", snapshot, why));
  return decide(facts, Tier::kMissingBlobs,
                fmt::format("what is missing of a {}, where the peer has {} to begin with: {}", snapshot,
                            format_bytes(facts.peer_holds), why));
}

// Half of the others: the suffix keeps the history, and of a difference a byte takes longer than of a
// snapshot.
uint64_t most_of_difference(const CatchUpFacts& facts) {
  return std::min(facts.suffix_bytes.value_or(facts.snapshot_bytes), facts.snapshot_bytes) / 2;
}

}  // namespace

std::string_view tier_name(Tier tier) {
  switch (tier) {
    case Tier::kNothing:
      return "nothing";
    case Tier::kSuffix:
      return "journal suffix";
    case Tier::kDifference:
      return "difference";
    case Tier::kMissingBlobs:
      return "missing blobs";
    case Tier::kSnapshot:
      return "snapshot";
  }
  return "unknown";
}

CatchUpDecision choose_tier(const CatchUpFacts& facts) {
  std::string snapshot = "snapshot of about " + format_bytes(facts.snapshot_bytes);
  // First what leaves no choice: no suffix can mend these.
  if (facts.asked_for_snapshot)
    return decide(facts, Tier::kSnapshot, snapshot + ": " + *facts.asked_for_snapshot);
  if (facts.peer_is_ahead) return decide_tree(facts, *facts.peer_is_ahead);
  if (facts.equal && facts.digests_differ)
    return decide(facts, Tier::kSnapshot,
                  snapshot + ": divergence, the vectors are equal and the digests differ");
  if (facts.equal && (!facts.peer_is_empty || facts.peer_is_new))
    return decide(facts, Tier::kNothing, "the peer has everything");
  if (facts.peer_is_empty && !facts.peer_is_new)
    return decide_tree(facts, "the peer's tree has no position in this volume's history");
  if (facts.difference_bytes && *facts.difference_bytes <= most_of_difference(facts))
    return decide(
        facts, Tier::kDifference,
        fmt::format("difference of about {}, the journal suffix {}, a snapshot would be about {}",
                    format_bytes(*facts.difference_bytes),
                    facts.suffix_bytes ? "would be " + format_bytes(*facts.suffix_bytes) : "is not all there",
                    format_bytes(facts.snapshot_bytes)));
  if (!facts.suffix_bytes) return decide_tree(facts, facts.suffix_missing);

  std::string suffix = "journal suffix of " + format_bytes(*facts.suffix_bytes);
  if (*facts.suffix_bytes <= facts.snapshot_bytes)
    return decide(
        facts, Tier::kSuffix,
        fmt::format("{}, a snapshot would be about {}", suffix, format_bytes(facts.snapshot_bytes)));
  return decide_tree(facts, fmt::format("the {} is longer", suffix));
}

std::optional<uint64_t> difference_limit(const CatchUpFacts& facts, uint64_t worth_looking) {
  bool elsewhere = facts.asked_for_snapshot || facts.peer_is_ahead || facts.equal || facts.peer_is_empty;
  uint64_t others = std::min(facts.suffix_bytes.value_or(facts.snapshot_bytes), facts.snapshot_bytes);
  if (elsewhere || others < worth_looking) return std::nullopt;
  return most_of_difference(facts);
}

}  // namespace reprise::replay

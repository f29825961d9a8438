#include "replay/tier.h"

#include <fmt/format.h>

#include "base/bytes.h"

namespace reprise::replay {
namespace {

CatchUpDecision decide(const CatchUpFacts& facts, Tier tier, std::string reason) {
  CatchUpDecision out{
      .tier = tier, .suffix_bytes = facts.suffix_bytes, .snapshot_bytes = facts.snapshot_bytes};
  if (tier == Tier::kSuffix) out.estimated_bytes = *facts.suffix_bytes;
  if (tier == Tier::kSnapshot) out.estimated_bytes = facts.snapshot_bytes;
  out.reason = std::move(reason);
  return out;
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
  if (facts.peer_is_ahead) return decide(facts, Tier::kSnapshot, snapshot + ": " + *facts.peer_is_ahead);
  if (facts.equal && facts.digests_differ)
    return decide(facts, Tier::kSnapshot,
                  snapshot + ": divergence, the vectors are equal and the digests differ");
  if (facts.equal && (!facts.peer_is_empty || facts.peer_is_new))
    return decide(facts, Tier::kNothing, "the peer has everything");
  if (facts.peer_is_empty && !facts.peer_is_new)
    return decide(facts, Tier::kSnapshot,
                  snapshot + ": the peer's tree has no position in this volume's history");
  if (!facts.suffix_bytes) return decide(facts, Tier::kSnapshot, snapshot + ": " + facts.suffix_missing);

  std::string suffix = "journal suffix of " + format_bytes(*facts.suffix_bytes);
  if (*facts.suffix_bytes <= facts.snapshot_bytes)
    return decide(
        facts, Tier::kSuffix,
        fmt::format("{}, a snapshot would be about {}", suffix, format_bytes(facts.snapshot_bytes)));
  return decide(facts, Tier::kSnapshot, fmt::format("{}, the {} is longer", snapshot, suffix));
}

}  // namespace reprise::replay

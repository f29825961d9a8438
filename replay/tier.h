// How a peer is brought up to date: one pure function from what is known to what is done and why.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace reprise::replay {

// From the cheapest to the dearest. The numbers are those of the wire.
enum class Tier : uint8_t {
  kNothing = 0,       // the peer has everything
  kSuffix = 1,        // the journal from the peer's position on
  kDifference = 2,    // what differs between a tree the peer has, or comes to by a suffix, and ours
  kMissingBlobs = 3,  // the whole tree, but for blobs that the peer has already
  kSnapshot = 4,      // the whole tree
};
// "nothing", "journal suffix", …
std::string_view tier_name(Tier tier);

// What the leader knows about a peer that is to be brought up to date.
struct CatchUpFacts {
  bool equal = false;           // the vectors are
  bool digests_differ = false;  // and yet the trees are not
  bool peer_is_new = false;     // its tree is the one every volume begins with
  bool peer_is_empty = false;   // its vector is
  // Set when the peer has applied what we have not: how it is ahead, in words.
  std::optional<std::string> peer_is_ahead;
  // Set when the peer asked to be overwritten: why.
  std::optional<std::string> asked_for_snapshot;
  // Bytes of the journal's batches from the peer's position on; nothing if they are not all there, and then
  // why.
  std::optional<uint64_t> suffix_bytes;
  std::string suffix_missing;
  // Bytes to a tree that was kept, and about those of the difference from it to ours; nothing if none was
  // kept, or it would be more than half of the others.
  std::optional<uint64_t> difference_bytes;
  uint64_t snapshot_bytes = 0;  // estimated
  uint64_t peer_holds = 0;      // bytes of blobs that the peer can name and need not be sent; 0: none
};

struct CatchUpDecision {
  Tier tier = Tier::kNothing;
  uint64_t estimated_bytes = 0;  // of the tier chosen
  std::optional<uint64_t> suffix_bytes, difference_bytes;
  uint64_t snapshot_bytes = 0;
  std::string reason;  // for a person: "journal suffix of 12 kB, a snapshot would be 60.1 MB"
};

// The sufficient tier that ships fewest bytes; at a tie the suffix, which keeps history, and a difference
// only if it is no more than half of the others.
CatchUpDecision choose_tier(const CatchUpFacts& facts);

// May a difference be looked for: is the peer somewhere in our history, behind us, and would it be worth
// while? What that must not exceed, in bytes.
// Less than `worth_looking` is there before two trees have been compared.
std::optional<uint64_t> difference_limit(const CatchUpFacts& facts, uint64_t worth_looking);

}  // namespace reprise::replay

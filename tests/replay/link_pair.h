// A leader's link and a follower's, back to back in one thread: what one writes the other is given, in pieces
// of any size.
#pragma once

#include <algorithm>
#include <memory>
#include <random>

#include "replay/follower_link.h"
#include "replay/leader_link.h"
#include "tests/replay/memory_member.h"

namespace reprise::replay {

class LinkPair {
 public:
  LinkPair(MemoryMember& leader, MemoryMember& follower, const SessionOptions& options = {},
           std::optional<SessionOptions> follower_options = std::nullopt, KeptTrees* kept = nullptr,
           UnfinishedTree* unfinished = nullptr, uint64_t tree_limit_bytes = uint64_t{1} << 30)
      : budget_(options.resyncs_per_minute),
        leader_link_(leader, clock_, options, kept),
        follower_link_(*FollowerLink::begin(follower, clock_, follower_options.value_or(options), budget_,
                                            unfinished != nullptr ? *unfinished : unfinished_,
                                            tree_limit_bytes)) {}

  // Lets both work until neither has anything to say. Pieces are 1 to piece_max bytes.
  void run(uint32_t seed = 1, size_t piece_max = 1 << 20) {
    std::mt19937 random(seed);
    for (int quiet = 0; quiet < 3;) {
      bool moved = step_leader();
      moved |= deliver_to_follower(random, piece_max);
      moved |= deliver_to_leader(random, piece_max);
      quiet = moved ? 0 : quiet + 1;
      if (!moved) clock_.advance_ms(60);  // let a checkpoint become due
    }
  }
  // The leader's next piece of work alone, as when the follower does not read.
  bool step_leader() {
    Result<LeaderLink::Activity> did = leader_link_.step([this](std::span<const ByteView> pieces) -> Status {
      for (ByteView piece : pieces) append_bytes(to_follower_, piece);
      return {};
    });
    return did && *did == LeaderLink::Activity::kSent;
  }
  // The connection is lost, and the leader notices.
  void lose() {
    leader_link_.close(Error(Code::kUnreachable, "the connection is lost"));
    step_leader();
    to_follower_.clear();
  }
  bool deliver_to_follower(std::mt19937& random, size_t piece_max) {
    Bytes bytes = std::exchange(to_follower_, {});
    if (recording_) append_bytes(said_to_follower_, bytes);
    for_pieces(bytes, random, piece_max, [&](ByteView piece) { follower_link_->receive(piece); });
    follower_link_->tick();
    return !bytes.empty();
  }
  bool deliver_to_leader(std::mt19937& random, size_t piece_max) {
    Bytes bytes;
    for (const Outgoing& out : follower_link_->take_output()) {
      std::vector<ByteView> pieces;
      out.append_pieces(pieces);
      for (ByteView piece : pieces) append_bytes(bytes, piece);
    }
    if (recording_) append_bytes(said_to_leader_, bytes);
    for_pieces(bytes, random, piece_max, [&](ByteView piece) { leader_link_.receive(piece); });
    return !bytes.empty();
  }

  // From now on keeps what either is given.
  void record() { recording_ = true; }
  const Bytes& said_to_follower() const { return said_to_follower_; }
  const Bytes& said_to_leader() const { return said_to_leader_; }

  LeaderLink& leader_link() { return leader_link_; }
  FollowerLink& follower_link() { return *follower_link_; }
  const FollowerSession& session() const { return follower_link_->session(); }
  ManualClock& clock() { return clock_; }
  Bytes& to_follower() { return to_follower_; }
  Tier tier() const { return session().decision()->tier; }

 private:
  template <class Deliver>
  static void for_pieces(ByteView bytes, std::mt19937& random, size_t piece_max, const Deliver& deliver) {
    while (!bytes.empty()) {
      size_t n = std::min<size_t>(bytes.size(), 1 + random() % piece_max);
      deliver(bytes.first(n));
      bytes = bytes.subspan(n);
    }
  }

  ManualClock clock_;
  ResyncBudget budget_;
  UnfinishedTree unfinished_;
  LeaderLink leader_link_;
  std::unique_ptr<FollowerLink> follower_link_;
  Bytes to_follower_;
  bool recording_ = false;
  Bytes said_to_follower_, said_to_leader_;
};

}  // namespace reprise::replay

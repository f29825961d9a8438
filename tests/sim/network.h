// The simulated network: connections between links, whose bytes take their time, stand still while two
// machines cannot reach each other, and now and then arrive damaged. Transports are streams, so within a
// connection nothing is lost or changes its place unless damage is asked for; between connections everything
// may.
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <random>
#include <utility>

#include "base/bytes.h"
#include "replay/follower_link.h"
#include "replay/leader_link.h"

namespace reprise::sim {

inline constexpr size_t kPipeBytes = 64 << 10;  // in flight, before who sends must wait

// One direction.
class Pipe {
 public:
  void push(Bytes bytes, uint64_t due_ns) {
    if (bytes.empty()) return;
    in_flight_ += bytes.size();
    pieces_.push_back({due_ns, std::move(bytes)});
  }
  // What has arrived by now.
  std::optional<Bytes> pop(uint64_t now_ns) {
    if (pieces_.empty() || pieces_.front().first > now_ns) return std::nullopt;
    Bytes bytes = std::move(pieces_.front().second);
    pieces_.pop_front();
    in_flight_ -= bytes.size();
    return bytes;
  }
  void end() { ended_ = true; }
  bool at_end() const { return ended_ && pieces_.empty(); }
  bool has_room() const { return in_flight_ < kPipeBytes; }
  // Drops, doubles or swaps pieces, or changes a byte. False if there is nothing to damage.
  bool damage(std::mt19937_64& chance);

 private:
  std::deque<std::pair<uint64_t, Bytes>> pieces_;
  size_t in_flight_ = 0;
  bool ended_ = false;
};

// How two machines reach each other.
struct Path {
  bool cut = false;
  uint64_t delay_ns = 200'000;
};

struct Connection {
  size_t leader_machine = 0, follower_machine = 0;
  uint64_t leader_start = 0;
  std::unique_ptr<replay::LeaderLink> leader;  // null: that end is gone
  std::unique_ptr<replay::FollowerLink> follower;
  Pipe down, up;                                // to the follower; to the leader
  uint64_t down_stuck_ns = 0, up_stuck_ns = 0;  // since when nothing could be sent; 0: it can
  uint64_t overwrites = 0, differences = 0;
  uint64_t number = 0;
};

inline bool Pipe::damage(std::mt19937_64& chance) {
  if (pieces_.empty()) return false;
  size_t at = chance() % pieces_.size();
  switch (chance() % 4) {
    case 0:
      in_flight_ -= pieces_[at].second.size();
      pieces_.erase(pieces_.begin() + static_cast<ptrdiff_t>(at));
      return true;
    case 1: {
      auto twice = pieces_[at];
      in_flight_ += twice.second.size();
      pieces_.insert(pieces_.begin() + static_cast<ptrdiff_t>(at), std::move(twice));
      return true;
    }
    case 2:
      std::swap(pieces_[at].second, pieces_.back().second);
      return true;
    default:
      pieces_[at].second[chance() % pieces_[at].second.size()] ^= std::byte{1};
      return true;
  }
}

}  // namespace reprise::sim

// Difference: what leads from one tree of a volume to another, on its way to a peer that has the first. Not a
// recording: what was made and removed in between, overwritten, or moved about costs nothing.
//
// It travels as operations in batches (fs/transition.h), which nobody journals. Unlike where a transition is
// recorded, inodes keep the ids that they have in the second tree: the peer goes on with that tree's journal.
//
// KeptTrees: trees that peers had when they left, kept by a leader for when they come back.
//
// Threads: one for each call and object; KeptTrees any.
#pragma once

#include <deque>
#include <functional>
#include <mutex>
#include <optional>
#include <vector>

#include "base/error.h"
#include "fs/tree.h"
#include "journal/batch.h"
#include "replay/member.h"

namespace reprise::replay {

// About how many bytes it takes; nothing if they are more than `most`, or one of the trees was opened lazily
// and may not be all there. Cost: what differs, up to `most`.
std::optional<uint64_t> difference_bytes(const fs::Tree& have, const fs::Tree& wanted, uint64_t most);

// Calls `write` with one batch after the other; its first error ends it. How many there were. kIo where
// something of `wanted` cannot be read.
Result<uint64_t> send_difference(const fs::Tree& have, const fs::Tree& wanted,
                                 const std::function<Status(const journal::Batch&)>& write);

class DifferenceReceiver {
 public:
  // For batches of at most limit_bytes together.
  DifferenceReceiver(const fs::View& have, uint64_t limit_bytes) : head_(have), left_bytes_(limit_bytes) {}

  // kDivergence where it does not fit the tree, kNoSpace beyond the limit.
  Status add(const journal::Batch& batch);
  fs::View finish() { return head_.view(); }
  uint64_t batches() const { return batches_; }

 private:
  fs::Head head_;
  uint64_t left_bytes_, batches_ = 0;
};

// A tree that is kept holds what has been overwritten or removed since: at most kMax of them, for kFor_ms.
class KeptTrees {
 public:
  static constexpr size_t kMax = 4;
  static constexpr uint64_t kFor_ms = 3'600'000;

  void keep(Pinned tree, uint64_t now_ms);
  // Those whose moment is at `peer` or after it.
  std::vector<Pinned> after(const journal::Vector& peer, uint64_t now_ms);

 private:
  struct Kept {
    Pinned tree;
    uint64_t since_ms = 0;
  };
  void drop_old(uint64_t now_ms);

  std::mutex mutex_;
  std::deque<Kept> kept_;
};

}  // namespace reprise::replay

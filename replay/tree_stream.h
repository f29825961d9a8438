// TreeStream: a whole tree as pieces of bytes, between a leader that has a view and a follower that builds one aside.
// Only the seam between a session and snapshot/, which knows what a tree looks like as blobs.
//
// Threads: one per object.
#pragma once

#include <functional>
#include <memory>

#include "base/bytes.h"
#include "base/error.h"
#include "base/ids.h"
#include "fs/tree.h"

namespace reprise::replay {

// Hands the tree to `write` in pieces of at most kTreeFrameLimit bytes, valid during the call; returns the root's blob.
Result<BlobId> send_tree(const fs::View& view, const std::function<Status(ByteView)>& write);

class TreeReceiver {
 public:
  // Refuses more than limit_bytes in all, as kNoSpace.
  explicit TreeReceiver(uint64_t limit_bytes);
  ~TreeReceiver();
  // The next piece. kCorrupt when the bytes cannot be a tree's.
  Status add(ByteView piece);
  // All pieces are there: the tree with this root, its digest computed from the bytes. kCorrupt.
  Result<fs::View> finish(BlobId root);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace reprise::replay

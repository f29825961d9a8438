// A whole tree on its way to a peer: blobs as capture() makes them, uncompressed, each once, children first,
// cut into pieces. The receiver builds the nodes as the pieces arrive and holds no blobs, so its memory is
// that of the tree. docs/snapshot-format.md, section 4.
//
// How pieces are framed, and what ends them, is the transport's business. Threads: one for each call and
// object.
//
//   Captured sent = TRY(send_tree(view, kPieceBytes, [&](ByteView piece) { return socket.write(piece); }));
//   …
//   TreeReceiver receiver(limits);
//   while (…) TRY(receiver.add(piece));
//   fs::View tree = TRY(receiver.finish(sent.root));
#pragma once

#include <functional>
#include <vector>

#include "snapshot/snapshot.h"
#include "snapshot/tree_builder.h"

namespace reprise::snapshot {

inline constexpr size_t kPieceBytes = 256 << 10;

// Calls write with pieces of at most piece_bytes (at least kPieceBytes) bytes each, valid during the call.
// The first error of write ends it. Leaves no marks on the tree. Blobs that `has` says yes to are left out.
Result<Captured> send_tree(const fs::Tree& tree, size_t piece_bytes,
                           const std::function<Status(ByteView)>& write,
                           const std::function<bool(BlobId)>& has = nullptr);

class TreeReceiver {
 public:
  explicit TreeReceiver(const LoadLimits& limits) : builder_(limits, Remember::kNo) {}

  // The next piece, as send_tree cut it. kCorrupt when its bytes cannot be a tree's, kNoSpace beyond the
  // limits.
  Status add(ByteView piece);
  // What `tree` has, as if it had come in pieces: the nodes are made anew, and the tree is loaded for it. The
  // errors of add; kUnsupported for a tree that rests on a source. After an error there may be some of it.
  Status add_all_of(const fs::Tree& tree);
  // Blobs that need not be sent any more: some of them, in no order.
  std::vector<BlobId> has(size_t max) const { return builder_.ids(max); }
  // Memory that what is there takes, about.
  uint64_t bytes() const { return builder_.bytes(); }
  // The pieces are all there. kNotFound or kCorrupt when they do not make the tree that has this root.
  Result<fs::View> finish(BlobId root) { return builder_.finish(root); }

 private:
  TreeBuilder builder_;
};

}  // namespace reprise::snapshot

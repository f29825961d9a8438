#include "base/check.h"
#include "base/hash.h"
#include "snapshot/stream.h"
#include "tests/fuzz/memory.h"
#include "tests/fuzz/target.h"

namespace reprise::fuzz {
namespace {

// The id of the last blob of a stream, which is the root of the tree.
BlobId last_blob(ByteView stream) {
  BlobId root;
  ByteReader in(stream);
  while (in.remaining() > 0) {
    ByteView blob = in.take(in.value<uint32_t>());
    if (in.ok()) root = hash128(blob);
  }
  return root;
}

}  // namespace

void fuzz_tree_stream(ByteView input) {
  const snapshot::LoadLimits limits{.memory_bytes = 16 << 20};
  // A tree that came is sent on, and taken once more.
  MemoryLimit limit(small_memory(input.size()) + 2 * limits.memory_bytes);
  snapshot::TreeReceiver receiver(limits);
  if (!receiver.add(input)) return;
  auto tree = receiver.finish(last_blob(input));
  if (!tree) return;
  CHECK(tree->check_invariants().empty());
  // A tree that came can be sent on, and arrives as it was.
  snapshot::TreeReceiver next(snapshot::LoadLimits{});
  auto sent =
      snapshot::send_tree(*tree, snapshot::kPieceBytes, [&](ByteView piece) { return next.add(piece); });
  CHECK(sent);
  auto arrived = next.finish(sent->root);
  CHECK(arrived);
  CHECK(arrived->digest() == tree->digest());
}

}  // namespace reprise::fuzz

REPRISE_FUZZ_TARGET(reprise::fuzz::fuzz_tree_stream)

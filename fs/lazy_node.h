// LazyNode: stands in a tree for a node that has not been loaded, and for all below it. docs/lazy.md has the
// picture.
//
// It says which blob the node is in and what the node adds to the sums above it, so that a tree of which
// little is in memory has a digest and can be changed, captured and compared. It stands in three kinds of
// places: under an inner node of the inode table, as the content of an inode, and under an inner node of a
// file, for a part of its blocks.
//
// Who meets one calls loaded(), which gives the node, and loads it first where nobody has. Threads: as the
// tree it is in. A reader under a shared lock, or of a View, may load: the LazyNode itself never changes but
// for `node`, which is set once, by whoever is first; it owns what it stands for, so that nothing a reader
// has in hand goes away. Who owns the slot that points to one (fs/own.h) puts the node in its place instead.
//
// For fs/ itself, and for snapshot/, which makes them and loads what they stand for; take_load_failure() also
// for who has asked functions that have no errors.
#pragma once

#include <memory>
#include <optional>
#include <utility>

#include "fs/errno.h"
#include "fs/node.h"

namespace reprise::fs {

struct LazyNode;

class NodeSource {
 public:
  virtual ~NodeSource() = default;
  // A new node, the caller's, out of the blob `stored`: of the inode table or of a file, with LazyNodes for
  // what is below and may be large; or a directory with all below it. The caller checks that it fits. May
  // wait for a disk, with the lock of a filesystem held. EIO where a blob is damaged or missing.
  virtual Outcome<Node*> load(const LazyNode& lazy) = 0;
  // What was loaded does not fit: why, for a person.
  virtual void refuse(const LazyNode& lazy, std::string_view why) = 0;
};

struct LazyNode : Node {
  enum class For : uint8_t { kTable, kContent, kPart };

  const std::shared_ptr<NodeSource> source;
  const Digest128 sum;   // of what it stands for
  const uint64_t base;   // ids below are those with these bits above the lowest `bits`; or the one inode
  const For stands_for;  // a part of a file has the `level` of its node
  const uint8_t bits = 0;
  const uint32_t mode = 0;                   // of the inode
  const uint32_t blocks = 0;                 // of the content, or the part of it
  const uint64_t size = 0;                   // of the inode as it was stored
  const uint64_t first_block = 0;            // that the part covers
  mutable std::atomic<Node*> node{nullptr};  // owned

  // For a node of the table; for the content of an inode of which mode, size, sum and blocks are known.
  LazyNode(std::shared_ptr<NodeSource> from, BlobId blob, const Digest128& adds, uint64_t table_base,
           int table_bits);
  LazyNode(std::shared_ptr<NodeSource> from, BlobId blob, InodeId id, const Inode& inode);
  // For child `index` of the FileInner of level `above` that `parent`, a content or a part, stands for.
  LazyNode(const LazyNode& parent, int above, int index, BlobId blob, const Digest128& adds,
           uint32_t has_blocks);
  bool of_table() const { return stands_for == For::kTable; }
};

inline bool is_lazy(const Node* node) {
  return node != nullptr && node->kind == NodeKind::kLazy;
}

// What it stands for. Null where that cannot be had; why, is noted for this thread.
const Node* load(const LazyNode& lazy);
// The node itself (null stays null) or what it stands for.
inline const Node* loaded(const Node* node) {
  return is_lazy(node) ? load(static_cast<const LazyNode&>(*node)) : node;
}
// The same for an owned slot, of which the caller knows that it can be loaded.
void bring_in_lazy(Node*& slot);
// Puts in place what the LazyNode in an owned slot has loaded.
void put_in_place(Node*& slot, Node* node);
inline void bring_in(Node*& slot) {
  if (is_lazy(slot)) bring_in_lazy(slot);
}

// Why something could not be loaded since this was last asked by this thread.
std::optional<Errno> take_load_failure();
// What to answer where something was not found: `code`, or why it is not known.
inline std::unexpected<Errno> absent(int code) {
  auto failure = take_load_failure();
  return failure ? std::unexpected(*failure) : errno_of(code);
}
// As loaded(), where null means that there is nothing.
inline Outcome<const Node*> try_loaded(const Node* node) {
  const Node* found = loaded(node);
  if (found == nullptr && node != nullptr) return absent(EIO);
  return found;
}

// How many blocks a clean node of a file, or what stands for one, has.
uint32_t blocks_of(const Node& node);

// Are they the same node, or nodes with the same bytes? Says no where it does not know.
inline bool surely_same(const Node* a, const Node* b) {
  if (a == b) return true;
  if (a == nullptr || b == nullptr) return false;
  const BlobId id = stored_of(*a);
  return id && id == stored_of(*b);
}

}  // namespace reprise::fs

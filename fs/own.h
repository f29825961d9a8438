// Copy on write: own(slot) makes the node that a slot points to changeable through that slot. Inside fs/
// only.
#pragma once

#include <type_traits>

#include "fs/lazy_node.h"
#include "fs/node.h"

namespace reprise::fs {

TableInner* clone(const TableInner& node);
TablePage* clone(const TablePage& node);
DirInner* clone(const DirInner& node);
DirLeaf* clone(const DirLeaf& node);
FileInner* clone(const FileInner& node);
FileLeaf* clone(const FileLeaf& node);

// The slot itself must be owned already (a root, or inside an owned node). A node with one owner is returned
// as it is; otherwise the slot gets a copy. Either way the caller is about to change it, so it is no longer
// `stored`.
template <class T>
T* own(Node*& slot) {
  bring_in(slot);
  T* node = static_cast<T*>(slot);
  if (node->refs.load(std::memory_order_acquire) != 1) {
    T* copy = clone(*node);
    slot = copy;
    release(node);
    return copy;
  }
  node->stored = {};
  return node;
}

// The same, for bookkeeping that leaves what the node says unchanged.
template <class T>
T* own_keeping_stored(Node*& slot) {
  BlobId stored = stored_of(*slot);
  T* node = own<T>(slot);
  node->stored = stored;
  return node;
}

// The sum of a table or file node.
inline Digest128& sum_of(Node& node) {
  switch (node.kind) {
    case NodeKind::kTableInner:
      return static_cast<TableInner&>(node).sum;
    case NodeKind::kTablePage:
      return static_cast<TablePage&>(node).sum;
    case NodeKind::kFileInner:
      return static_cast<FileInner&>(node).sum;
    case NodeKind::kLazy:
      CHECK(!"the sum of what is not loaded, to be changed");
    default:
      CHECK(node.kind == NodeKind::kFileLeaf);
      return static_cast<FileLeaf&>(node).sum;
  }
}

// A clean child is about to become dirty: takes it out of its parent's sum.
template <class Inner>
void mark_child_dirty(Inner& parent, int index) {
  auto bit = static_cast<uint16_t>(1u << index);
  if ((parent.dirty & bit) != 0) return;
  if (Node* child = parent.child[index]) {
    parent.sum -= is_lazy(child) ? static_cast<LazyNode*>(child)->sum : sum_of(*child);
    if constexpr (std::is_same_v<Inner, FileInner>) parent.blocks -= blocks_of(*child);
  }
  parent.dirty |= bit;
}

}  // namespace reprise::fs

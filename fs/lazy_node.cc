#include "fs/lazy_node.h"

#include "fs/invariants.h"

namespace reprise::fs {
namespace {

thread_local std::optional<Errno> load_failure;

}  // namespace

LazyNode::LazyNode(std::shared_ptr<NodeSource> from, BlobId blob, const Digest128& adds, uint64_t table_base,
                   int table_bits)
    : Node(NodeKind::kLazy), source(std::move(from)), sum(adds), base(table_base), bits(table_bits) {
  stored = blob;
}

LazyNode::LazyNode(std::shared_ptr<NodeSource> from, BlobId blob, InodeId id, const Inode& inode)
    : Node(NodeKind::kLazy),
      source(std::move(from)),
      sum(inode.sum),
      base(id.value),
      bits(0),
      mode(inode.mode),
      blocks(inode.blocks),
      size(inode.size) {
  stored = blob;
}

const Node* load(const LazyNode& lazy) {
  if (Node* there = lazy.node.load(std::memory_order_acquire)) return there;
  auto found = lazy.source->load(lazy);
  if (!found) {
    load_failure = found.error();
    return nullptr;
  }
  if (std::string problem = misfit(lazy, **found); !problem.empty()) {
    release(*found);
    lazy.source->refuse(lazy, problem);
    load_failure = Errno{EIO};
    return nullptr;
  }
  Node* first = nullptr;
  if (lazy.node.compare_exchange_strong(first, *found, std::memory_order_acq_rel)) return *found;
  release(*found);  // another reader was first
  return first;
}

void bring_in_lazy(Node*& slot) {
  auto* lazy = static_cast<LazyNode*>(slot);
  const Node* node = load(*lazy);
  CHECK(node != nullptr);  // loaded before the change began: Mutation::load_for
  put_in_place(slot, const_cast<Node*>(node));
}

void put_in_place(Node*& slot, Node* node) {
  auto* lazy = static_cast<LazyNode*>(slot);
  // Where nobody else has the LazyNode, nobody else has the node: who changes it need not copy it.
  if (lazy->refs.load(std::memory_order_acquire) == 1) {
    lazy->node.store(nullptr, std::memory_order_relaxed);
    slot = node;
  } else {
    slot = retain(node);
  }
  release(lazy);
}

std::optional<Errno> take_load_failure() {
  return std::exchange(load_failure, std::nullopt);
}

}  // namespace reprise::fs

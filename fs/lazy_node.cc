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
  CHECK(node != nullptr);  // loaded before the change began: Head::prepare
  slot = retain(const_cast<Node*>(node));
  release(lazy);
}

std::optional<Errno> take_load_failure() {
  return std::exchange(load_failure, std::nullopt);
}

}  // namespace reprise::fs

#include "fs/lazy_node.h"

#include <algorithm>

#include "fs/invariants.h"

namespace reprise::fs {
namespace {

thread_local std::optional<Errno> load_failure;

}  // namespace

LazyNode::LazyNode(std::shared_ptr<NodeSource> from, BlobId blob, const Digest128& adds, uint64_t table_base,
                   int table_bits)
    : Node(NodeKind::kLazy),
      source(std::move(from)),
      sum(adds),
      base(table_base),
      stands_for(For::kTable),
      bits(static_cast<uint8_t>(table_bits)) {
  stored = blob;
}

LazyNode::LazyNode(std::shared_ptr<NodeSource> from, BlobId blob, InodeId id, const Inode& inode)
    : Node(NodeKind::kLazy),
      source(std::move(from)),
      sum(inode.sum),
      base(id.value),
      stands_for(For::kContent),
      mode(inode.mode),
      blocks(inode.blocks),
      size(inode.size) {
  stored = blob;
}

LazyNode::LazyNode(const LazyNode& parent, int above, int index, BlobId blob, const Digest128& adds,
                   uint32_t has_blocks)
    : Node(NodeKind::kLazy),
      source(parent.source),
      sum(adds),
      base(parent.base),
      stands_for(For::kPart),
      mode(parent.mode),
      blocks(has_blocks),
      size(parent.size),
      first_block(parent.first_block + (static_cast<uint64_t>(index) << (kFanoutBits * above))) {
  level = static_cast<uint8_t>(above - 1);
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

uint32_t blocks_of(const Node& node) {
  if (is_lazy(&node)) return static_cast<const LazyNode&>(node).blocks;
  if (node.kind == NodeKind::kFileInner) return static_cast<const FileInner&>(node).blocks;
  CHECK(node.kind == NodeKind::kFileLeaf);
  auto& blocks = static_cast<const FileLeaf&>(node).block;
  return static_cast<uint32_t>(kFanout - std::ranges::count(blocks, nullptr));
}

std::optional<Errno> take_load_failure() {
  return std::exchange(load_failure, std::nullopt);
}

}  // namespace reprise::fs

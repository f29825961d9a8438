// Head::evict: LazyNodes in the place of pages that a kept tree has.
#include <algorithm>

#include "fs/file_content.h"
#include "fs/lazy_node.h"
#include "fs/tree.h"

namespace reprise::fs {
namespace {

// About what a page takes with all that belongs to it.
uint64_t bytes_of(const TablePage& page) {
  constexpr uint64_t kEntry = 40;  // of a directory, name and all
  uint64_t bytes = sizeof page;
  for (const Inode& inode : page.inode) {
    if (inode.content == nullptr) continue;
    const bool loaded =
        !is_lazy(inode.content) ||
        static_cast<const LazyNode*>(inode.content)->node.load(std::memory_order_acquire) != nullptr;
    if (!loaded) continue;
    if (S_ISDIR(inode.mode)) {
      bytes += inode.size * kEntry;
    } else {
      const uint64_t blocks = file_content::loaded_blocks(inode.content);
      bytes += blocks > 0 ? blocks * kBlockSize : std::min<uint64_t>(inode.size, SmallFile::kMax);
    }
  }
  return bytes;
}

// The LazyNode of the page that begins at `base` in a tree of which nothing but the inner nodes of the table
// is loaded; null if there is no such page.
const LazyNode* kept_page(const Tree& tree, uint64_t base) {
  const Node* node = tree.root();
  const LazyNode* stands_for = nullptr;
  while (node != nullptr) {
    if (is_lazy(node)) {
      stands_for = static_cast<const LazyNode*>(node);
      node = stands_for->node.load(std::memory_order_acquire);
    } else if (node->kind == NodeKind::kTableInner) {
      auto* inner = static_cast<const TableInner*>(node);
      node = inner->child[base >> inner->shift & (kFanout - 1)];
      stands_for = nullptr;
    } else {
      break;
    }
  }
  return stands_for;
}

class Eviction {
 public:
  Eviction(const Tree& kept, uint64_t bytes, std::vector<Node*>& dropped)
      : kept_(kept), wanted_(bytes), dropped_(dropped) {}

  // Of the pages below an inner node that nobody else has, those with ids in [first, last], in order. When
  // there is enough the walk goes on, so that older kept trees are needed no more.
  void walk(TableInner& inner, uint64_t first, uint64_t last) {
    for (int i = 0; i < kFanout; i++) {
      const uint64_t base = inner.base | static_cast<uint64_t>(i) << inner.shift;
      const uint64_t end = base + ((uint64_t{1} << inner.shift) - 1);
      if (inner.child[i] == nullptr || end < first || base > last) continue;
      const bool dirty = (inner.dirty >> i & 1) != 0;
      if (is_lazy(inner.child[i]) && !renew(inner.child[i])) continue;
      Node* child = inner.child[i];
      if (child->refs.load(std::memory_order_acquire) != 1) continue;  // a View needs it as it is
      if (child->kind == NodeKind::kTableInner) {
        walk(static_cast<TableInner&>(*child), first, last);
      } else if (child->kind == NodeKind::kTablePage && !dirty && !done()) {
        drop(inner.child[i]);
        next_ = end;
      }
    }
  }

  uint64_t freed() const { return freed_; }
  uint64_t next() const { return next_; }

 private:
  bool done() const { return freed_ >= wanted_; }

  static LazyNode* copy_of(const LazyNode& of) {
    return new LazyNode(of.source, of.stored, of.sum, of.base, of.bits);
  }

  // A node that has been loaded takes the place of what stands for it; true then. What has not, is loaded
  // from the kept tree from now on, if that has it.
  bool renew(Node*& slot) {
    auto* lazy = static_cast<LazyNode*>(slot);
    Node* there = lazy->node.load(std::memory_order_acquire);
    const LazyNode* kept = there == nullptr ? kept_page(kept_, lazy->base) : nullptr;
    if (there != nullptr) {
      put_in_place(slot, there);
      return true;
    }
    if (kept != nullptr && kept->stored == lazy->stored && kept->source != lazy->source) {
      slot = copy_of(*kept);
      release(lazy);
    }
    return false;
  }

  void drop(Node*& slot) {
    auto* page = static_cast<TablePage*>(slot);
    // The kept tree has this very page, and so all that belongs to it.
    const LazyNode* kept = kept_page(kept_, page->base);
    const BlobId stored = stored_of(*page);
    if (!stored || kept == nullptr || kept->stored != stored || page->dirty != 0 || page->sum != kept->sum)
      return;
    freed_ += bytes_of(*page);
    slot = copy_of(*kept);
    dropped_.push_back(page);
  }

  const Tree& kept_;
  const uint64_t wanted_;
  std::vector<Node*>& dropped_;
  uint64_t freed_ = 0, next_ = 0;
};

}  // namespace

uint64_t Head::evict(const View& kept, uint64_t bytes, InodeId& from, std::vector<Node*>& dropped) {
  if (root_->kind != NodeKind::kTableInner || root_->refs.load(std::memory_order_acquire) != 1) return 0;
  partial_ = true;
  auto& root = static_cast<TableInner&>(*root_);
  Eviction eviction(kept, bytes, dropped);
  constexpr uint64_t kLast = ~uint64_t{0};
  eviction.walk(root, from.value, kLast);
  if (from.value > 0) eviction.walk(root, 0, from.value - 1);
  from = InodeId{eviction.next() == kLast ? 0 : eviction.next() + 1};
  return eviction.freed();
}

std::weak_ptr<NodeSource> Tree::lazy_source() const {
  const Node* node = root_;
  while (node != nullptr && node->kind == NodeKind::kTableInner) {
    auto& children = static_cast<const TableInner*>(node)->child;
    node = *std::ranges::find_if(children, [](const Node* child) { return child != nullptr; });
  }
  if (!is_lazy(node)) return {};
  return static_cast<const LazyNode*>(node)->source;
}

Outcome<void> Tree::load_table() const {
  constexpr int kPageBits = kFanoutBits;
  std::vector<const Node*> open{root_};
  while (!open.empty()) {
    const Node* node = open.back();
    open.pop_back();
    if (is_lazy(node) && static_cast<const LazyNode*>(node)->bits == kPageBits) continue;
    node = TRY(try_loaded(node));
    if (node == nullptr || node->kind != NodeKind::kTableInner) continue;
    for (const Node* child : static_cast<const TableInner*>(node)->child)
      if (child != nullptr) open.push_back(child);
  }
  return {};
}

}  // namespace reprise::fs

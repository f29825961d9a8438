#include "fs/table.h"

#include <bit>

#include "fs/file_content.h"
#include "fs/own.h"

namespace reprise::fs::table {
namespace {

uint64_t page_base(InodeId id) {
  return id.value & ~uint64_t{kFanout - 1};
}
int slot_in_page(InodeId id) {
  return static_cast<int>(id.value & (kFanout - 1));
}

// The bits of an id above those that choose among the node's children.
uint64_t bits_above(uint64_t id, int shift) {
  return shift + kFanoutBits >= 64 ? 0 : id >> (shift + kFanoutBits) << (shift + kFanoutBits);
}
bool covers(const TableInner& inner, uint64_t id) {
  return bits_above(id, inner.shift) == inner.base;
}
int child_index(uint64_t id, int shift) {
  return static_cast<int>(id >> shift & (kFanout - 1));
}

uint64_t base_of(const Node& node) {
  return node.kind == NodeKind::kTablePage ? static_cast<const TablePage&>(node).base
                                           : static_cast<const TableInner&>(node).base;
}

TablePage* new_page(InodeId id) {
  auto* page = new TablePage;
  page->base = page_base(id);
  return page;
}

void mark_dirty(TablePage& page, int slot) {
  auto bit = static_cast<uint16_t>(1u << slot);
  if ((page.dirty & bit) != 0) return;
  const Inode& inode = page.inode[slot];
  if (inode.nlink > 0) page.sum -= inode_hash({page.base + static_cast<uint64_t>(slot)}, inode);
  page.dirty |= bit;
}

// Puts `node` and a new page for `id`, whose bases differ, under a new inner node; returns the page's slot.
Node** branch_off(Node*& slot, InodeId id) {
  Node* node = slot;
  uint64_t other = base_of(*node);
  int highest_difference = 63 - std::countl_zero(other ^ page_base(id));
  auto* inner = new TableInner;
  inner->shift = static_cast<uint8_t>(highest_difference / kFanoutBits * kFanoutBits);
  inner->base = bits_above(id.value, inner->shift);
  int node_index = child_index(other, inner->shift);
  int page_index = child_index(id.value, inner->shift);
  inner->child[node_index] = node;
  inner->child[page_index] = new_page(id);
  inner->dirty = static_cast<uint16_t>(1u << node_index | 1u << page_index);
  slot = inner;
  return &inner->child[page_index];
}

// The way to a page, every node owned.
struct Way {
  Node** slot[64 / kFanoutBits + 1];  // slot[0] is the root's; slot[i + 1] lies in the inner node *slot[i]
  int depth = 0;                      // *slot[depth] is the page
};

Inode& own_way(Way& way, Node*& root, InodeId id) {
  way.slot[0] = &root;
  bring_in(root);
  while ((*way.slot[way.depth])->kind == NodeKind::kTableInner) {
    auto* inner = fs::own<TableInner>(*way.slot[way.depth]);
    int index = child_index(id.value, inner->shift);
    mark_child_dirty(*inner, index);
    way.slot[++way.depth] = &inner->child[index];
    CHECK(*way.slot[way.depth] != nullptr);
    bring_in(*way.slot[way.depth]);
  }
  auto* page = fs::own<TablePage>(*way.slot[way.depth]);
  Inode& inode = page->inode[slot_in_page(id)];
  CHECK(page->base == page_base(id) && inode.mode != 0);
  mark_dirty(*page, slot_in_page(id));
  return inode;
}

// Has the page no inode any more? Neighbours of the one that has just gone are the likeliest to be there.
bool is_empty(const TablePage& page, int gone) {
  for (int i = 1; i < kFanout; i++) {
    if (page.inode[(gone + i) % kFanout].mode != 0) return false;
  }
  return true;
}

}  // namespace

const Inode* find(const Node* root, InodeId id) {
  // The bits that were left out are compared at the end, all at once.
  const Node* node = loaded(root);
  while (node != nullptr && node->kind == NodeKind::kTableInner) {
    auto* inner = static_cast<const TableInner*>(node);
    node = loaded(inner->child[child_index(id.value, inner->shift)]);
  }
  auto* page = static_cast<const TablePage*>(node);
  if (page == nullptr || page->base != page_base(id)) return nullptr;
  const Inode& inode = page->inode[slot_in_page(id)];
  return inode.mode != 0 ? &inode : nullptr;
}

Inode& own(Node*& root, InodeId id) {
  Way way;
  return own_way(way, root, id);
}

Inode* insert(Node*& root, InodeId id) {
  Node** slot = &root;
  while (*slot != nullptr) {
    bring_in(*slot);
    if ((*slot)->kind == NodeKind::kTablePage) {
      if (base_of(**slot) != page_base(id)) slot = branch_off(*slot, id);
      break;
    }
    if (!covers(static_cast<TableInner&>(**slot), id.value)) {
      slot = branch_off(*slot, id);
      break;
    }
    auto* inner = fs::own<TableInner>(*slot);
    int index = child_index(id.value, inner->shift);
    mark_child_dirty(*inner, index);
    slot = &inner->child[index];
  }
  if (*slot == nullptr) *slot = new_page(id);
  auto* page = fs::own<TablePage>(*slot);
  Inode* inode = &page->inode[slot_in_page(id)];
  CHECK(inode->mode == 0);
  mark_dirty(*page, slot_in_page(id));
  return inode;
}

void erase(Node*& root, InodeId id) {
  Way way;
  Inode& inode = own_way(way, root, id);
  release(inode.content);
  release(inode.xattrs);
  inode = Inode{};

  // Give back what is empty, from the page up.
  Node*& page = *way.slot[way.depth];
  if (!is_empty(static_cast<TablePage&>(*page), slot_in_page(id))) return;
  release(page);
  page = nullptr;
  if (way.depth == 0) return;

  Node*& above = *way.slot[way.depth - 1];
  auto* inner = static_cast<TableInner*>(above);
  Node* only = nullptr;
  for (Node* child : inner->child) {
    if (child == nullptr) continue;
    if (only != nullptr) return;
    only = child;
  }
  // An inner node has two children at least, so one is left. Its parent's bit for this place is set already;
  // if the child has no dirty member its sum is simply its total.
  CHECK(only != nullptr);
  above = retain(only);
  release(inner);
}

void for_each(const Node* root, const std::function<bool(InodeId, const Inode&)>& visit) {
  std::vector<const Node*> rest;
  if (root != nullptr) rest.push_back(root);
  while (!rest.empty()) {
    const Node* node = loaded(rest.back());
    rest.pop_back();
    if (node == nullptr) return;  // why, is noted
    if (node->kind == NodeKind::kTableInner) {
      auto* inner = static_cast<const TableInner*>(node);
      for (int i = kFanout - 1; i >= 0; i--) {
        if (inner->child[i] != nullptr) rest.push_back(inner->child[i]);
      }
      continue;
    }
    auto* page = static_cast<const TablePage*>(node);
    for (int i = 0; i < kFanout; i++) {
      if (page->inode[i].mode != 0 && !visit({page->base + static_cast<uint64_t>(i)}, page->inode[i])) return;
    }
  }
}

Digest128 total(const Node* node) {
  if (node == nullptr) return {};
  if (is_lazy(node)) return static_cast<const LazyNode*>(node)->sum;
  if (node->kind == NodeKind::kTableInner) {
    auto* inner = static_cast<const TableInner*>(node);
    Digest128 sum = inner->sum;
    for (uint16_t rest = inner->dirty; rest != 0; rest &= static_cast<uint16_t>(rest - 1)) {
      sum += total(inner->child[std::countr_zero(rest)]);
    }
    return sum;
  }
  auto* page = static_cast<const TablePage*>(node);
  Digest128 sum = page->sum;
  for (uint16_t rest = page->dirty; rest != 0; rest &= static_cast<uint16_t>(rest - 1)) {
    int slot = std::countr_zero(rest);
    if (page->inode[slot].nlink == 0) continue;
    Inode inode = page->inode[slot];
    inode.sum = file_content::sum_of_inode(inode);
    sum += inode_hash({page->base + static_cast<uint64_t>(slot)}, inode);
  }
  return sum;
}

Digest128 settle(Node*& slot) {
  if (slot == nullptr) return {};
  if (is_lazy(slot)) return static_cast<LazyNode*>(slot)->sum;
  if (slot->kind == NodeKind::kTableInner) {
    if (static_cast<TableInner*>(slot)->dirty == 0) return static_cast<TableInner*>(slot)->sum;
    auto* inner = own_keeping_stored<TableInner>(slot);
    for (; inner->dirty != 0; inner->dirty &= static_cast<uint16_t>(inner->dirty - 1)) {
      inner->sum += settle(inner->child[std::countr_zero(inner->dirty)]);
    }
    return inner->sum;
  }
  if (static_cast<TablePage*>(slot)->dirty == 0) return static_cast<TablePage*>(slot)->sum;
  auto* page = own_keeping_stored<TablePage>(slot);
  for (; page->dirty != 0; page->dirty &= static_cast<uint16_t>(page->dirty - 1)) {
    int i = std::countr_zero(page->dirty);
    Inode& inode = page->inode[i];
    if (inode.nlink == 0) continue;
    inode.sum = file_content::settle_inode(inode);
    page->sum += inode_hash({page->base + static_cast<uint64_t>(i)}, inode);
  }
  return page->sum;
}

}  // namespace reprise::fs::table

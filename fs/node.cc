#include "fs/node.h"

#include <cstdlib>
#include <new>
#include <utility>

#include "fs/lazy_node.h"
#include "fs/node_pool.h"
#include "fs/sourced_file.h"

namespace reprise::fs {
namespace {

template <class T>
T* allocate_with_tail(size_t tail_bytes) {
  return static_cast<T*>(::operator new(sizeof(T) + tail_bytes));
}

// Gives up this node's own references; what nobody owns any more goes to `dead`.
void drop(Node* node, std::vector<Node*>& dead) {
  if (node != nullptr && node->refs.fetch_sub(1, std::memory_order_acq_rel) == 1) dead.push_back(node);
}

void destroy(Node* node, std::vector<Node*>& dead) {
  switch (node->kind) {
    case NodeKind::kTableInner: {
      auto* inner = static_cast<TableInner*>(node);
      for (Node* child : inner->child) drop(child, dead);
      delete inner;
      break;
    }
    case NodeKind::kTablePage: {
      auto* page = static_cast<TablePage*>(node);
      for (Inode& inode : page->inode) {
        drop(inode.content, dead);
        drop(inode.xattrs, dead);
      }
      delete page;
      break;
    }
    case NodeKind::kDirInner: {
      auto* inner = static_cast<DirInner*>(node);
      for (int i = 0; i < inner->count; i++) drop(inner->child[i], dead);
      delete inner;
      break;
    }
    case NodeKind::kFileInner: {
      auto* inner = static_cast<FileInner*>(node);
      for (Node* child : inner->child) drop(child, dead);
      delete inner;
      break;
    }
    case NodeKind::kFileLeaf: {
      auto* leaf = static_cast<FileLeaf*>(node);
      for (std::byte* block : leaf->block) {
        if (block != nullptr) BlockPool::release(block);
      }
      delete leaf;
      break;
    }
    case NodeKind::kDirLeaf:
      DirLeaf::destroy(static_cast<DirLeaf*>(node));
      break;
    case NodeKind::kSourced: {
      auto* file = static_cast<SourcedFile*>(node);
      drop(file->held, dead);
      SourcedFile::destroy(file);
      break;
    }
    case NodeKind::kLazy: {
      auto* lazy = static_cast<LazyNode*>(node);
      drop(lazy->node.load(std::memory_order_acquire), dead);
      delete lazy;
      break;
    }
    case NodeKind::kSmallFile:
    case NodeKind::kXattrs:
      ::operator delete(node);  // made by allocate_with_tail; trivially destructible
      break;
  }
}

void destroy_all(std::vector<Node*>& dead) {
  while (!dead.empty()) {
    Node* next = dead.back();
    dead.pop_back();
    destroy(next, dead);
  }
}

// What is below a node of another kind is soon freed.
bool has_children(const Node& node) {
  return node.kind == NodeKind::kTableInner || node.kind == NodeKind::kDirInner ||
         node.kind == NodeKind::kFileInner || node.kind == NodeKind::kSourced || node.kind == NodeKind::kLazy;
}

thread_local LaterFrees* later_frees = nullptr;

}  // namespace

// The address sanitizer is to see each node by itself.
#ifdef __SANITIZE_ADDRESS__
void* allocate_node(size_t bytes) {
  return ::operator new(bytes);
}
void free_node(void* node, size_t) {
  ::operator delete(node);
}
#else
void* allocate_node(size_t bytes) {
  return node_pool(bytes).allocate();
}
void free_node(void* node, size_t bytes) {
  node_pool(bytes).free(node);
}
#endif

void release(Node* node) {
  if (node == nullptr || node->refs.fetch_sub(1, std::memory_order_acq_rel) != 1) return;
  if (later_frees != nullptr && has_children(*node)) {
    later_frees->nodes_.push_back(node);
    return;
  }
  std::vector<Node*> dead{node};
  destroy_all(dead);
}

LaterFrees::LaterFrees() : outer_(std::exchange(later_frees, this)) {}

LaterFrees::~LaterFrees() {
  later_frees = outer_;
  destroy_all(nodes_);
}

DirLeaf* DirLeaf::create(uint16_t capacity) {
  return new (allocate_node(sizeof(DirLeaf) + capacity)) DirLeaf(capacity);
}

void DirLeaf::destroy(DirLeaf* leaf) {
  free_node(leaf, sizeof(DirLeaf) + leaf->capacity);
}

DirLeaf* DirLeaf::clone(uint16_t new_capacity) const {
  CHECK(used() <= new_capacity);
  DirLeaf* copy = create(new_capacity);
  copy->count = count;
  size_t names = capacity - names_begin;
  copy->names_begin = static_cast<uint16_t>(new_capacity - names);
  std::memcpy(copy->bytes() + copy->names_begin, bytes() + names_begin, names);
  std::memcpy(copy->bytes(), bytes(), count * sizeof(Slot));
  auto shift = static_cast<uint16_t>(new_capacity - capacity);
  for (int i = 0; i < count; i++) copy->slots()[i].name_offset += shift;
  return copy;
}

FileLeaf::FileLeaf(const FileLeaf& other) : Node(other), sum(other.sum), dirty(other.dirty) {
  other.shared.store(0xffff, std::memory_order_relaxed);
  shared.store(0xffff, std::memory_order_relaxed);
  std::memcpy(block, other.block, sizeof block);
  std::memcpy(static_cast<void*>(hash), other.hash, sizeof hash);
  for (std::byte* b : block) {
    if (b != nullptr) BlockPool::retain(b);
  }
}

SmallFile* SmallFile::create(uint32_t capacity) {
  return new (allocate_with_tail<SmallFile>(capacity)) SmallFile(capacity);
}

Xattrs* Xattrs::create(uint32_t length) {
  return new (allocate_with_tail<Xattrs>(length)) Xattrs(length);
}

}  // namespace reprise::fs

#include "fs/own.h"

namespace reprise::fs {

TableInner* clone(const TableInner& node) {
  auto* copy = new TableInner(node);
  for (Node* child : copy->child) retain(child);
  return copy;
}

TablePage* clone(const TablePage& node) {
  auto* copy = new TablePage(node);
  for (Inode& inode : copy->inode) {
    retain(inode.content);
    retain(inode.xattrs);
  }
  return copy;
}

DirInner* clone(const DirInner& node) {
  auto* copy = new DirInner(node);
  for (int i = 0; i < copy->count; i++) retain(copy->child[i]);
  return copy;
}

DirLeaf* clone(const DirLeaf& node) {
  return node.clone(node.capacity);
}

FileInner* clone(const FileInner& node) {
  auto* copy = new FileInner(node);
  for (Node* child : copy->child) retain(child);
  return copy;
}

FileLeaf* clone(const FileLeaf& node) {
  return new FileLeaf(node);
}

}  // namespace reprise::fs

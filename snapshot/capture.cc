#include <fmt/format.h>

#include <array>

#include "fs/file_content.h"
#include "fs/lazy_node.h"
#include "snapshot/node_format.h"
#include "snapshot/snapshot.h"

namespace reprise::snapshot {
namespace {

using fs::NodeKind;

// Recursion here is as deep as the nodes lie: at most 16 in the table, then 24 in a directory or 11 in a
// file.
class Capture {
 public:
  Capture(store::BlobSink& sink, Remember remember) : sink_(sink), remember_(remember == Remember::kYes) {}

  // A node of the inode table.
  struct Table {
    BlobId blob;  // zero if no inode in it has a link
    Digest128 sum;
    bool whole = true;  // the blob says all that the node does: every inode has a link
  };
  Result<Table> table(const fs::Node& any_node) {
    if (BlobId known = TRY(known_blob(any_node))) return Table{known, fs::settled_sum(any_node)};
    const fs::Node& node = *TRY(loaded(any_node));
    if (node.kind == NodeKind::kTablePage) return page(static_cast<const fs::TablePage&>(node));
    auto& inner = static_cast<const fs::TableInner&>(node);
    InnerNode out{.kind = NodeKind::kTableInner, .shift = inner.shift, .base = inner.base, .summed = true};
    int children = 0;
    Table all, only;
    for (int i = 0; i < fs::kFanout; i++) {
      if (inner.child[i] == nullptr) continue;
      Table child = TRY(table(*inner.child[i]));
      all.whole &= child.whole;
      if (!child.blob) continue;
      out.child[i] = child.blob;
      out.sum[i] = child.sum;
      all.sum += child.sum;
      out.mask |= static_cast<uint16_t>(1u << i);
      children++;
      only = child;
    }
    // With one child left it is no node of its own: a table has no runs of single children.
    if (children < 2) return Table{only.blob, only.sum, false};
    all.blob = TRY(put(node, encode_inner(out), all.whole));
    return all;
  }

  // Puts the volume's own node on top of the table.
  Status volume(const fs::Tree& tree, const Digest128& digest) {
    const fs::Usage held = tree.usage();
    Bytes blob = encode_volume(
        {result.root, tree.limits(),
         VolumeNode::Totals{held.inodes - unlinked_.inodes, held.blocks - unlinked_.blocks, digest}});
    result.root = TRY(sink_.put(blob));
    result.blobs++;
    result.bytes += blob.size();
    return {};
  }

  Captured result;

 private:
  // Zero if the node and all below it have to be put.
  Result<BlobId> known_blob(const fs::Node& node) const {
    BlobId id = remember_ ? fs::stored_of(node) : BlobId{};
    if (!id || TRY(sink_.keeps(id))) return id;
    return BlobId{};
  }

  // What is loaded of a lazy tree on the way to somebody else's store, stays loaded.
  Result<const fs::Node*> loaded(const fs::Node& node) {
    const fs::Node* found = fs::loaded(&node);
    if (found != nullptr) return found;
    fs::take_load_failure();
    return fail(Code::kCorrupt,
                fmt::format("blob {}, of which the tree is made: expected a node that can be loaded",
                            fs::stored_of(node).to_string()));
  }

  Result<BlobId> put(const fs::Node& node, const Bytes& blob, bool is_whole = true) {
    ByteView whole = blob;
    return put_parts(node, {&whole, 1}, is_whole);
  }
  static store::Refers refers(const fs::Node& node) {
    bool leaf =
        node.kind == NodeKind::kFileLeaf || node.kind == NodeKind::kDirLeaf || node.kind == NodeKind::kXattrs;
    return leaf ? store::Refers::kToNone : store::Refers::kMaybe;
  }
  Result<BlobId> put_parts(const fs::Node& node, std::span<const ByteView> parts, bool is_whole = true) {
    BlobId id = TRY(sink_.put_parts(parts, refers(node)));
    result.blobs++;
    for (ByteView part : parts) result.bytes += part.size();
    if (remember_ && is_whole) fs::mark_stored(node, id);
    return id;
  }

  Result<Table> page(const fs::TablePage& page) {
    PageEncoder out(page.base);
    Table all{.blob = {}, .sum = fs::settled_sum(page)};
    for (int i = 0; i < fs::kFanout; i++) {
      if (page.inode[i].mode == 0) continue;
      if (page.inode[i].nlink == 0) {
        unlinked_.inodes++;
        unlinked_.blocks += page.inode[i].blocks;
        all.whole = false;
        continue;
      }
      fs::Inode inode = page.inode[i];
      inode.sum = fs::settled_sum(inode);
      BlobId content, xattrs;
      if (fs::is_sourced(inode.content) && !remember_) {
        return fail(Code::kUnsupported,
                    "the tree rests on a directory of the host: expected one that has all bytes itself");
      }
      const fs::Node* below = content_below(inode);
      if (below != nullptr && !is_inline(*below)) content = TRY(content_node(*below));
      if (inode.xattrs != nullptr && !is_inline(*inode.xattrs)) xattrs = TRY(content_node(*inode.xattrs));
      out.add(i, inode, content, xattrs);
    }
    if (!out.empty()) all.blob = TRY(put(page, out.finish(), all.whole));
    return all;
  }

  Result<BlobId> content_node(const fs::Node& any_node) {
    if (BlobId known = TRY(known_blob(any_node))) return known;
    const fs::Node& node = *TRY(loaded(any_node));
    switch (node.kind) {
      case NodeKind::kFileLeaf:
      case NodeKind::kFileInner:
        return TRY(file_node(node, 0)).blob;
      case NodeKind::kDirInner:
        return dir_inner(static_cast<const fs::DirInner&>(node));
      case NodeKind::kDirLeaf:
        return put(node, encode_dir_leaf(static_cast<const fs::DirLeaf&>(node)));
      case NodeKind::kXattrs:
        return put(node, encode_xattrs(static_cast<const fs::Xattrs&>(node)));
      default:
        break;
    }
    CHECK(!"a small file or a table node where content lies in a blob of its own");
  }

  struct FilePart {
    BlobId blob;
    fs::file_content::Part says;
  };
  Result<FilePart> file_node(const fs::Node& any_node, uint64_t first_block) {
    if (BlobId known = TRY(known_blob(any_node)))
      return FilePart{known, fs::file_content::part_of(any_node, first_block)};
    const fs::Node& node = *TRY(loaded(any_node));
    if (node.kind == NodeKind::kFileLeaf) {
      encode_file_leaf(static_cast<const fs::FileLeaf&>(node), leaf_header_, leaf_parts_);
      const BlobId blob = TRY(put_parts(node, leaf_parts_));
      return FilePart{blob, fs::file_content::part_of(node, first_block)};
    }
    auto& inner = static_cast<const fs::FileInner&>(node);
    InnerNode out{.kind = NodeKind::kFileInner, .level = inner.level, .summed = true};
    FilePart all;
    for (int i = 0; i < fs::kFanout; i++) {
      if (inner.child[i] == nullptr) continue;
      out.mask |= static_cast<uint16_t>(1u << i);
      const FilePart child = TRY(file_node(
          *inner.child[i], first_block + (static_cast<uint64_t>(i) << (fs::kFanoutBits * inner.level))));
      out.child[i] = child.blob;
      out.sum[i] = child.says.sum;
      out.blocks[i] = child.says.blocks;
      all.says.sum += child.says.sum;
      all.says.blocks += child.says.blocks;
    }
    all.blob = TRY(put(inner, encode_inner(out)));
    return all;
  }

  Result<BlobId> dir_inner(const fs::DirInner& inner) {
    InnerNode out{.kind = NodeKind::kDirInner, .level = inner.level};
    for (int i = 0; i < inner.count; i++) {
      out.mask |= static_cast<uint16_t>(1u << i);
      out.key[i] = inner.key[i];
      out.child[i] = TRY(content_node(*inner.child[i]));
    }
    return put(inner, encode_inner(out));
  }

  store::BlobSink& sink_;
  const bool remember_;
  fs::Usage unlinked_;  // inodes without links, which stay behind
  std::array<std::byte, kLeafHeaderBytes> leaf_header_;
  std::vector<ByteView> leaf_parts_;
};

}  // namespace

Result<Captured> capture(const fs::Tree& tree, store::BlobSink& sink, Remember remember) {
  CHECK(tree.root() != nullptr);
  Capture capture(sink, remember);
  const auto table = TRY(capture.table(*tree.root()));
  capture.result.root = table.blob;
  CHECK(capture.result.root);  // the root directory always has links
  TRY(capture.volume(tree, table.sum));
  return capture.result;
}

}  // namespace reprise::snapshot

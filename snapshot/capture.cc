#include <array>

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

  // The blob of an inode table node; zero if no inode in it has a link.
  Result<BlobId> table(const fs::Node& node) {
    if (BlobId known = TRY(known_blob(node))) return known;
    if (node.kind == NodeKind::kTablePage) return page(static_cast<const fs::TablePage&>(node));
    auto& inner = static_cast<const fs::TableInner&>(node);
    InnerNode out{.kind = NodeKind::kTableInner, .shift = inner.shift, .base = inner.base};
    int children = 0;
    BlobId only;
    for (int i = 0; i < fs::kFanout; i++) {
      if (inner.child[i] == nullptr) continue;
      out.child[i] = TRY(table(*inner.child[i]));
      if (!out.child[i]) continue;
      out.mask |= static_cast<uint16_t>(1u << i);
      children++;
      only = out.child[i];
    }
    // With one child left it is no node of its own: a table has no runs of single children.
    if (children < 2) return only;
    return put(node, encode_inner(out));
  }

  // Puts the volume's own node on top of the table.
  Status volume(const fs::SetLimits& limits) {
    Bytes blob = encode_volume({result.root, limits});
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

  Result<BlobId> put(const fs::Node& node, const Bytes& blob) {
    ByteView whole = blob;
    return put_parts(node, {&whole, 1});
  }
  static store::Refers refers(const fs::Node& node) {
    bool leaf =
        node.kind == NodeKind::kFileLeaf || node.kind == NodeKind::kDirLeaf || node.kind == NodeKind::kXattrs;
    return leaf ? store::Refers::kToNone : store::Refers::kMaybe;
  }
  Result<BlobId> put_parts(const fs::Node& node, std::span<const ByteView> parts) {
    BlobId id = TRY(sink_.put_parts(parts, refers(node)));
    result.blobs++;
    for (ByteView part : parts) result.bytes += part.size();
    if (remember_) fs::mark_stored(node, id);
    return id;
  }

  Result<BlobId> page(const fs::TablePage& page) {
    PageEncoder out(page.base);
    for (int i = 0; i < fs::kFanout; i++) {
      const fs::Inode& inode = page.inode[i];
      if (inode.mode == 0 || inode.nlink == 0) continue;
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
    if (out.empty()) return BlobId{};
    return put(page, out.finish());
  }

  Result<BlobId> content_node(const fs::Node& node) {
    if (BlobId known = TRY(known_blob(node))) return known;
    switch (node.kind) {
      case NodeKind::kFileLeaf: {
        encode_file_leaf(static_cast<const fs::FileLeaf&>(node), leaf_header_, leaf_parts_);
        return put_parts(node, leaf_parts_);
      }
      case NodeKind::kFileInner:
        return file_inner(static_cast<const fs::FileInner&>(node));
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

  Result<BlobId> file_inner(const fs::FileInner& inner) {
    InnerNode out{.kind = NodeKind::kFileInner, .level = inner.level};
    for (int i = 0; i < fs::kFanout; i++) {
      if (inner.child[i] == nullptr) continue;
      out.mask |= static_cast<uint16_t>(1u << i);
      out.child[i] = TRY(content_node(*inner.child[i]));
    }
    return put(inner, encode_inner(out));
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
  std::array<std::byte, kLeafHeaderBytes> leaf_header_;
  std::vector<ByteView> leaf_parts_;
};

}  // namespace

Result<Captured> capture(const fs::Tree& tree, store::BlobSink& sink, Remember remember) {
  CHECK(tree.root() != nullptr);
  Capture capture(sink, remember);
  capture.result.root = TRY(capture.table(*tree.root()));
  CHECK(capture.result.root);  // the root directory always has links
  if (tree.limits() != fs::SetLimits{}) TRY(capture.volume(tree.limits()));
  return capture.result;
}

}  // namespace reprise::snapshot

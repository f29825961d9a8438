// TreeBuilder: makes a tree out of blobs that come children first, from whomever. What a blob refers to must
// have come before it, so there are no cycles, and nothing is held but the nodes themselves.
//
// Hashes and sums are computed from the bytes. A content node that several inodes refer to at the same place
// is one node; its bytes are charged once, and walking it again is charged too, so that a few blobs cannot
// stand for more work than the limit allows. Threads: one.
#pragma once

#include <memory>
#include <unordered_map>

#include "base/error.h"
#include "fs/lazy_node.h"
#include "fs/tree.h"
#include "snapshot/node_format.h"
#include "snapshot/snapshot.h"

namespace reprise::snapshot {

class TreeBuilder {
 public:
  // Files that rest on a source rest on `rests_on`; where that is null there must be none: kUnsupported.
  // With `lazy` that is where nodes are loaded from which have not been added: below inner nodes of the inode
  // table, and contents of inodes that lie in blobs. A content that is built is built whole.
  TreeBuilder(const LoadLimits& limits, Remember remember, std::shared_ptr<fs::Source> rests_on = nullptr,
              std::shared_ptr<fs::NodeSource> lazy = nullptr);
  ~TreeBuilder();
  TreeBuilder(const TreeBuilder&) = delete;
  TreeBuilder& operator=(const TreeBuilder&) = delete;

  // One blob, whose hash is `id` (the caller vouches for that). A second time it is ignored.
  Status add(BlobId id, ByteView blob);
  bool has(BlobId id) const { return built_.contains(id) || volumes_.contains(id); }
  // Some of what has been added, in no order.
  std::vector<BlobId> ids(size_t max) const;
  uint64_t bytes() const { return charged_; }  // that it counts as
  // The tree under this blob. The builder is empty afterwards.
  Result<fs::View> finish(BlobId root);
  // The node of this blob, the caller's: of the inode table, or the content of an inode. The builder is empty
  // afterwards.
  Result<fs::Node*> take_node(BlobId id);

 private:
  struct Built {
    fs::Node* node = nullptr;  // owned
    uint64_t visits = 1;       // nodes on a walk through it
    uint64_t entries = 0;      // of a directory
    Digest128 entries_sum;     // likewise
    uint32_t blocks = 0;       // of a file
    bool current = true;       // capture would write the same blob
  };

  Status charge(uint64_t bytes);
  void clear();
  Result<const Built*> child(BlobId id, std::string_view expected) const;
  Result<Built> build(ByteView blob);
  Result<Built> build_table_inner(const InnerNode& in);
  Result<Built> build_dir_inner(const InnerNode& in);
  Result<Built> build_file_inner(const InnerNode& in);
  Result<Built> build_page(ByteView blob);
  Status attach_content(InodeId id, fs::Inode& inode, const PageEntry& entry);
  Status attach_directory(fs::Inode& inode, const PageEntry& entry);
  Status attach_file(fs::Inode& inode, const PageEntry& entry);
  Status attach_sourced(fs::Inode& inode, const PageEntry& entry);
  static Status check_summed(const fs::Inode& inode, const PageEntry& entry);
  Status attach_xattrs(fs::Inode& inode, const PageEntry& entry);
  // An owned reference to this file node with its hashes for blocks from `base` on: itself or a copy.
  Result<fs::Node*> place(fs::Node* node, uint64_t base);

  const LoadLimits limits_;
  const bool remember_;
  const std::shared_ptr<fs::Source> rests_on_;
  const std::shared_ptr<fs::NodeSource> lazy_;
  uint64_t charged_ = 0;
  std::unordered_map<BlobId, Built> built_;
  std::unordered_map<BlobId, VolumeNode> volumes_;
  std::unordered_map<const fs::Node*, uint64_t>
      placed_;  // file nodes with their hashes made, and for which base
  std::unordered_map<const fs::Node*, std::array<Digest128, fs::kFanout>>
      said_;  // of file nodes, the sums of what is below them
};

}  // namespace reprise::snapshot

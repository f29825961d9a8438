// How nodes of a tree look as blobs: docs/snapshot-format.md, section 3. Encoding, and parsing of bytes that
// nobody vouches for; no I/O, no trees.
//
// Parsers give nullopt (or false) for bytes that are no such node and touch nothing outside them; what they
// accept is well formed by itself, which says nothing about the blobs it refers to.
#pragma once

#include <array>
#include <functional>
#include <optional>
#include <span>
#include <vector>

#include "base/bytes.h"
#include "base/ids.h"
#include "fs/node.h"
#include "fs/operation.h"
#include "fs/sourced_file.h"

namespace reprise::snapshot {

inline constexpr uint8_t kNodeVersion = 0;
// Of volumes, inner nodes of the inode table and of files, and pages, that say what is below them
// (docs/snapshot-format.md).
inline constexpr uint8_t kSummedVersion = 1;
inline constexpr size_t kNodeHeaderBytes = 2;  // kind, version
inline constexpr size_t kLeafHeaderBytes = 8;
inline constexpr size_t kInlineXattrsMax = 512;    // bytes of extended attributes that lie in the page
inline constexpr size_t kNodeBlobMax = 160 << 10;  // no node's blob is larger

// The kind of the node in a blob; nullopt if it is none of this version, or a volume, which is no node of a
// tree.
std::optional<fs::NodeKind> kind_of(ByteView blob);

// --- the volume, above the inode table

struct VolumeNode {
  // What the tree holds in all, and its digest. Of version 1; in version 0 there are zeros, and there is only
  // a volume where there are limits.
  struct Totals {
    uint64_t inodes = 0, blocks = 0;
    Digest128 digest;
  };
  BlobId table;
  fs::SetLimits limits;
  Totals totals = {};
  bool has_totals() const { return totals.inodes != 0; }
};
Bytes encode_volume(const VolumeNode& node);
std::optional<VolumeNode> parse_volume(ByteView blob);

// --- inner nodes, of inode table, directories and files

struct InnerNode {
  fs::NodeKind kind;
  uint8_t level = 0;  // of files and directories
  uint8_t shift = 0;  // of the table
  uint64_t base = 0;  // of the table
  uint16_t mask = 0;  // children there are; of a directory the lowest `count` bits
  std::array<BlobId, fs::kFanout> child = {};
  std::array<fs::DirKey, fs::kFanout> key = {};   // of directories
  bool summed = false;                            // of the table and of files, version 1: there are
  std::array<Digest128, fs::kFanout> sum = {};    // the children's sums; of files for the place they are in
  std::array<uint32_t, fs::kFanout> blocks = {};  // of files: how many the children have
};
Bytes encode_inner(const InnerNode& node);
std::optional<InnerNode> parse_inner(ByteView blob);

// --- leaves

Bytes encode_dir_leaf(const fs::DirLeaf& leaf);
// A new node of the caller's, or null.
fs::DirLeaf* parse_dir_leaf(ByteView blob);

// The blob in pieces: the header, which is put into `header`, and the blocks as they lie in memory.
void encode_file_leaf(const fs::FileLeaf& leaf, std::array<std::byte, kLeafHeaderBytes>& header,
                      std::vector<ByteView>& parts);
// A new node of the caller's, all of its blocks dirty, or null.
fs::FileLeaf* parse_file_leaf(ByteView blob);

Bytes encode_xattrs(const fs::Xattrs& xattrs);
fs::Xattrs* parse_xattrs(ByteView blob);

// --- pages of inodes

class PageEncoder {
 public:
  explicit PageEncoder(uint64_t base);
  // content: the blob of what content_below() gives, zero if it is null or lies inline (see is_inline). The
  // inode's sum is up to date.
  // Likewise xattrs.
  void add(int slot, const fs::Inode& inode, BlobId content, BlobId xattrs);
  bool empty() const { return mask_ == 0; }
  Bytes finish();

 private:
  Bytes out_;
  uint16_t mask_ = 0;
};
bool is_inline(const fs::Node& content_or_xattrs);
// What has a blob or a place in the page of its own: the content, or what a file that rests on a source
// holds.
const fs::Node* content_below(const fs::Inode& inode);

struct PageEntry {
  int slot = 0;
  fs::Inode inode;                                         // without content and xattrs
  ByteView inline_small, inline_directory, inline_xattrs;  // empty: not inline
  uint16_t xattr_count = 0;                                // of inline ones
  BlobId content, xattrs;                                  // zero: not in a blob
  bool summed = false;        // content lies in a blob, and inode.sum and inode.blocks are given
  uint64_t source_limit = 0;  // 0: rests on no source, else content is what is held
  ByteView source_key;
};
// Calls visit for every inode in order; false if the bytes are no page, or if visit said false.
bool parse_page(ByteView blob, uint64_t& base, const std::function<bool(const PageEntry&)>& visit);
fs::SmallFile* make_small(ByteView bytes);
fs::DirLeaf* make_dir_leaf(ByteView inline_directory);
fs::Xattrs* make_xattrs(uint16_t count, ByteView bytes);

// The blobs that a node's blob refers to, in order, with repetitions; nullopt if it is no node.
std::optional<std::vector<BlobId>> children_of(ByteView blob);
// Those of them without which a node of a lazy tree cannot be built.
std::optional<std::vector<BlobId>> children_needed(ByteView blob);

}  // namespace reprise::snapshot

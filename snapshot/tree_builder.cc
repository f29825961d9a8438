#include "snapshot/tree_builder.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "fs/file_content.h"

namespace reprise::snapshot {
namespace {

using fs::NodeKind;

constexpr int kFileLevelMax = 10;
constexpr uint64_t kInTheMap = 96;                  // bytes that being found by its id costs a blob
constexpr uint64_t kVisitCharge = 64;               // bytes that walking over one node counts as
constexpr uint64_t kVisitsMax = uint64_t{1} << 40;  // far beyond any limit; keeps sums from wrapping

// Releases a node unless it was handed on.
class Owned {
 public:
  explicit Owned(fs::Node* node) : node_(node) {}
  ~Owned() { fs::release(node_); }
  Owned(const Owned&) = delete;
  Owned& operator=(const Owned&) = delete;
  fs::Node* get() const { return node_; }
  fs::Node* take() { return std::exchange(node_, nullptr); }

 private:
  fs::Node* node_;
};

std::unexpected<Error> corrupt(std::string message) {
  return fail(Code::kCorrupt, std::move(message));
}

bool is_table(NodeKind kind) {
  return kind == NodeKind::kTableInner || kind == NodeKind::kTablePage;
}
bool is_directory(NodeKind kind) {
  return kind == NodeKind::kDirInner || kind == NodeKind::kDirLeaf;
}
bool is_file(NodeKind kind) {
  return kind == NodeKind::kFileInner || kind == NodeKind::kFileLeaf;
}

Digest128 sum_of_table_node(const fs::Node& node) {
  return node.kind == NodeKind::kTablePage ? static_cast<const fs::TablePage&>(node).sum
                                           : static_cast<const fs::TableInner&>(node).sum;
}

uint64_t size_of(const fs::Node& node) {
  switch (node.kind) {
    case NodeKind::kTableInner:
      return sizeof(fs::TableInner) + kInTheMap;
    case NodeKind::kTablePage:
      return sizeof(fs::TablePage) + kInTheMap;
    case NodeKind::kDirInner:
      return sizeof(fs::DirInner) + kInTheMap;
    case NodeKind::kDirLeaf:
      return sizeof(fs::DirLeaf) + static_cast<const fs::DirLeaf&>(node).capacity + kInTheMap;
    case NodeKind::kFileInner:
      return sizeof(fs::FileInner) + kInTheMap;
    case NodeKind::kFileLeaf: {
      auto& blocks = static_cast<const fs::FileLeaf&>(node).block;
      auto held = fs::kFanout - std::count(std::begin(blocks), std::end(blocks), nullptr);
      return sizeof(fs::FileLeaf) + static_cast<uint64_t>(held) * fs::kBlockSize + kInTheMap;
    }
    case NodeKind::kSmallFile:
      return sizeof(fs::SmallFile) + static_cast<const fs::SmallFile&>(node).capacity;
    case NodeKind::kXattrs:
      return sizeof(fs::Xattrs) + static_cast<const fs::Xattrs&>(node).length + kInTheMap;
    case NodeKind::kLazy:
      return sizeof(fs::LazyNode);
    case NodeKind::kSourced:
      return sizeof(fs::SourcedFile) + static_cast<const fs::SourcedFile&>(node).key_length;
  }
  return 0;
}

Digest128 sum_of_entries(const fs::DirLeaf& leaf) {
  Digest128 sum;
  for (int i = 0; i < leaf.count; i++) {
    const auto& slot = leaf.slots()[i];
    sum += fs::dentry_hash(leaf.name(slot), slot.type, InodeId{slot.inode});
  }
  return sum;
}

fs::FileInner* copy_of(const fs::FileInner& inner) {
  auto* copy = new fs::FileInner(inner);
  for (fs::Node* child : copy->child) fs::retain(child);
  return copy;
}

Digest128 sum_of_file_node(const fs::Node& node) {
  return node.kind == NodeKind::kFileLeaf ? static_cast<const fs::FileLeaf&>(node).sum
                                          : static_cast<const fs::FileInner&>(node).sum;
}

}  // namespace

TreeBuilder::TreeBuilder(const LoadLimits& limits, Remember remember, std::shared_ptr<fs::Source> rests_on,
                         std::shared_ptr<fs::NodeSource> lazy)
    : limits_(limits),
      remember_(remember == Remember::kYes),
      rests_on_(std::move(rests_on)),
      lazy_(std::move(lazy)) {}

TreeBuilder::~TreeBuilder() {
  clear();
}

void TreeBuilder::clear() {
  for (auto& [id, built] : built_) fs::release(built.node);
  built_.clear();
  volumes_.clear();
  placed_.clear();
  said_.clear();
}

Status TreeBuilder::charge(uint64_t bytes) {
  charged_ += bytes;
  if (charged_ <= limits_.memory_bytes) return {};
  return fail(Code::kNoSpace, fmt::format("expected a tree of at most {}, found a larger one",
                                          format_bytes(limits_.memory_bytes)));
}

Status TreeBuilder::add(BlobId id, ByteView blob) {
  if (has(id)) return {};
  if (auto volume = parse_volume(blob)) {
    volumes_.emplace(id, *volume);
    return charge(sizeof *volume + kInTheMap);
  }
  auto built = build(blob);
  if (!built) return std::unexpected(built.error().with_context(fmt::format("blob {}", id.to_string())));
  if (remember_ && built->current) fs::mark_stored(*built->node, id);
  built_.emplace(id, *built);
  return charge(size_of(*built->node));
}

std::vector<BlobId> TreeBuilder::ids(size_t max) const {
  std::vector<BlobId> out;
  out.reserve(std::min(max, built_.size() + volumes_.size()));
  auto take = [&](const auto& blobs) {
    for (auto at = blobs.begin(); at != blobs.end() && out.size() < max; ++at) out.push_back(at->first);
  };
  take(volumes_);
  take(built_);
  return out;
}

Result<fs::View> TreeBuilder::finish(BlobId root) {
  VolumeNode volume{.table = root, .limits = {}};
  if (auto found = volumes_.find(root); found != volumes_.end()) volume = found->second;
  const BlobId table = volume.table;
  const Built* top = TRY(child(table, "the root of a tree"));
  if (!is_table(top->node->kind))
    return corrupt(fmt::format("blob {}: expected the root of a tree, found another node", root.to_string()));
  fs::Node* node = fs::retain(top->node);
  clear();
  auto view = fs::View::adopt(node);
  if (!view) return corrupt(fmt::format("tree {}: {}", root.to_string(), view.error()));
  if (volume.has_totals()) {
    const VolumeNode::Totals& said = volume.totals;
    const fs::Usage held = view->usage();
    if (said.inodes != held.inodes || said.blocks != held.blocks || said.digest != view->digest())
      return corrupt(fmt::format("tree {}: expected what its volume says it holds, found another tree",
                                 root.to_string()));
  }
  if (volume.limits == fs::SetLimits{}) return std::move(*view);
  fs::Head head(*view);
  CHECK(head.apply(volume.limits));
  return head.view();
}

Result<fs::Node*> TreeBuilder::take_node(BlobId id) {
  const Built* built = TRY(child(id, "a node of a tree"));
  fs::Node* node = nullptr;
  if (is_file(built->node->kind)) {
    TRY(charge(built->visits * kVisitCharge));
    node = TRY(place(built->node, 0));
  } else {
    node = fs::retain(built->node);
  }
  clear();
  return node;
}

Result<const TreeBuilder::Built*> TreeBuilder::child(BlobId id, std::string_view expected) const {
  auto it = built_.find(id);
  if (it != built_.end()) return &it->second;
  if (volumes_.contains(id))
    return corrupt(fmt::format("blob {}: expected a node ({}), found a volume", id.to_string(), expected));
  return fail(Code::kNotFound, fmt::format("expected blob {} ({}), found none", id.to_string(), expected));
}

Result<TreeBuilder::Built> TreeBuilder::build(ByteView blob) {
  auto kind = kind_of(blob);
  if (!kind) return corrupt("expected a node of a tree, found other bytes");
  Built built;
  switch (*kind) {
    case NodeKind::kTablePage:
      return build_page(blob);
    case NodeKind::kTableInner:
    case NodeKind::kDirInner:
    case NodeKind::kFileInner: {
      auto inner = parse_inner(blob);
      if (!inner) return corrupt("expected an inner node, found other bytes");
      if (*kind == NodeKind::kTableInner) return build_table_inner(*inner);
      return *kind == NodeKind::kDirInner ? build_dir_inner(*inner) : build_file_inner(*inner);
    }
    case NodeKind::kDirLeaf: {
      auto* leaf = parse_dir_leaf(blob);
      if (leaf == nullptr) return corrupt("expected the leaf of a directory, found other bytes");
      built.entries = leaf->count;
      built.entries_sum = sum_of_entries(*leaf);
      built.node = leaf;
      return built;
    }
    case NodeKind::kFileLeaf: {
      auto* leaf = parse_file_leaf(blob);
      if (leaf == nullptr) return corrupt("expected blocks of a file, found other bytes");
      for (std::byte* block : leaf->block) built.blocks += block != nullptr;
      built.node = leaf;
      return built;
    }
    case NodeKind::kXattrs:
      built.node = parse_xattrs(blob);
      if (built.node == nullptr) return corrupt("expected extended attributes, found other bytes");
      return built;
    case NodeKind::kSmallFile:
    case NodeKind::kSourced:
    case NodeKind::kLazy:
      break;
  }
  return corrupt("expected a node that has a blob of its own, found another");
}

Result<TreeBuilder::Built> TreeBuilder::build_table_inner(const InnerNode& in) {
  auto* inner = new fs::TableInner;
  Owned owned(inner);
  inner->shift = in.shift;
  inner->base = in.base;
  if (lazy_ != nullptr && !in.summed) return corrupt("inode table without sums in a tree that has them");
  for (int i = 0; i < fs::kFanout; i++) {
    if ((in.mask >> i & 1) == 0) continue;
    if (lazy_ != nullptr) {
      inner->child[i] = new fs::LazyNode(lazy_, in.child[i], in.sum[i],
                                         in.base | static_cast<uint64_t>(i) << in.shift, in.shift);
      inner->sum += in.sum[i];
      continue;
    }
    const Built* below = TRY(child(in.child[i], "of the inode table"));
    if (!is_table(below->node->kind)) return corrupt("inode table that refers to another kind of node");
    // Strictly downwards, so that nothing that walks the table goes deeper than an id has bits.
    bool lower = below->node->kind == NodeKind::kTablePage ||
                 static_cast<fs::TableInner*>(below->node)->shift < in.shift;
    if (!lower) return corrupt("inode table node above one that is as high");
    inner->child[i] = fs::retain(below->node);
    inner->sum += sum_of_table_node(*below->node);
    if (in.summed && in.sum[i] != sum_of_table_node(*below->node))
      return corrupt("inode table node with another sum than the one above it says");
  }
  owned.take();
  return Built{.node = inner, .current = in.summed};
}

Result<TreeBuilder::Built> TreeBuilder::build_dir_inner(const InnerNode& in) {
  auto* inner = new fs::DirInner;
  Owned owned(inner);
  inner->level = in.level;
  Built built{.node = inner};
  for (int i = 0; i < fs::kFanout && (in.mask >> i & 1) != 0; i++) {
    const Built* below = TRY(child(in.child[i], "of a directory"));
    int level = below->node->kind == NodeKind::kDirInner ? below->node->level : 0;
    if (!is_directory(below->node->kind) || level != in.level - 1) {
      return corrupt("directory node that refers to another kind or level of node");
    }
    inner->key[i] = in.key[i];
    inner->child[i] = fs::retain(below->node);
    inner->count++;
    built.visits = std::min(kVisitsMax, built.visits + below->visits);
    built.entries += below->entries;
    built.entries_sum += below->entries_sum;
  }
  owned.take();
  return built;
}

Result<TreeBuilder::Built> TreeBuilder::build_file_inner(const InnerNode& in) {
  if (in.level > kFileLevelMax) return corrupt(fmt::format("file node of level {}", in.level));
  auto* inner = new fs::FileInner;
  Owned owned(inner);
  inner->level = in.level;
  inner->dirty = in.mask;
  Built built{.node = inner};
  for (int i = 0; i < fs::kFanout; i++) {
    if ((in.mask >> i & 1) == 0) continue;
    const Built* below = TRY(child(in.child[i], "of a file"));
    if (!is_file(below->node->kind) || below->node->level != in.level - 1) {
      return corrupt("file node that refers to another kind or level of node");
    }
    inner->child[i] = fs::retain(below->node);
    built.visits = std::min(kVisitsMax, built.visits + below->visits);
    if (__builtin_add_overflow(built.blocks, below->blocks, &built.blocks))
      return corrupt("file of too many blocks");
    if (in.summed && in.blocks[i] != below->blocks)
      return corrupt("file node with another count of blocks than the one above it says");
  }
  built.current = in.summed;
  if (in.summed) {
    TRY(charge(sizeof in.sum));
    said_.emplace(inner, in.sum);
  }
  owned.take();
  return built;
}

Result<TreeBuilder::Built> TreeBuilder::build_page(ByteView blob) {
  auto* page = new fs::TablePage;
  Owned owned(page);
  Status attached;
  bool current = true;  // nothing in it is as former versions wrote it
  bool whole = parse_page(blob, page->base, [&](const PageEntry& entry) {
    current &= !entry.content || entry.summed || entry.source_limit != 0;
    fs::Inode& inode = page->inode[entry.slot];
    inode = entry.inode;
    attached = attach_content({page->base + static_cast<uint64_t>(entry.slot)}, inode, entry);
    if (attached) attached = attach_xattrs(inode, entry);
    return attached.has_value();
  });
  if (!attached) return std::unexpected(attached.error());
  if (!whole) return corrupt("expected a page of inodes, found other bytes");
  for (int i = 0; i < fs::kFanout; i++) {
    if (page->inode[i].mode == 0) continue;
    page->sum += fs::inode_hash({page->base + static_cast<uint64_t>(i)}, page->inode[i]);
  }
  owned.take();
  return Built{.node = page, .current = current};
}

Status TreeBuilder::attach_content(InodeId id, fs::Inode& inode, const PageEntry& entry) {
  if (lazy_ != nullptr && entry.summed) {
    inode.content = new fs::LazyNode(lazy_, entry.content, id, inode);
    return charge(sizeof(fs::LazyNode));
  }
  if (S_ISDIR(inode.mode)) return attach_directory(inode, entry);
  if (!entry.inline_directory.empty()) return corrupt("inode that is no directory with entries");
  if (!entry.inline_small.empty()) {
    if (!S_ISREG(inode.mode) && !S_ISLNK(inode.mode)) return corrupt("special inode with content");
    if (S_ISREG(inode.mode) && entry.inline_small.size() > fs::SmallFile::kMax)
      return corrupt("small file of too many bytes");
    inode.content = make_small(entry.inline_small);
    inode.sum = fs::block_hash(0, entry.inline_small);
    inode.blocks = S_ISREG(inode.mode) ? 1 : 0;
    return charge(size_of(*inode.content));
  }
  if (entry.source_limit != 0) return attach_sourced(inode, entry);
  return entry.content ? attach_file(inode, entry) : Status{};
}

Status TreeBuilder::attach_sourced(fs::Inode& inode, const PageEntry& entry) {
  if (!S_ISREG(inode.mode)) return corrupt("inode that is no file, resting on a source");
  if (entry.source_limit > inode.size || inode.size > fs::kFileSizeMax)
    return corrupt("file that rests on more of a source than it has");
  if (rests_on_ == nullptr)
    return fail(Code::kUnsupported,
                "expected a tree that has all bytes itself, found a file that rests on a "
                "directory which is not known here");
  auto* file = fs::SourcedFile::create(rests_on_, entry.source_limit, entry.source_key);
  inode.content = file;
  TRY(charge(size_of(*file)));
  if (entry.content) {
    const Built* built = TRY(child(entry.content, "what a file holds"));
    if (!is_file(built->node->kind)) return corrupt("file that holds another kind of node");
    TRY(charge(built->visits * kVisitCharge));
    file->held = TRY(place(built->node, 0));
    fs::sourced::count_held(*file);
  }
  inode.sum = fs::sourced::sum(*file, file->held != nullptr ? sum_of_file_node(*file->held) : Digest128{});
  inode.blocks = static_cast<uint32_t>(file->blocks());
  return {};
}

Status TreeBuilder::attach_directory(fs::Inode& inode, const PageEntry& entry) {
  if (!entry.inline_small.empty() || entry.source_limit != 0)
    return corrupt("directory with the content of a file");
  if (!entry.inline_directory.empty()) {
    fs::DirLeaf* leaf = make_dir_leaf(entry.inline_directory);
    if (leaf == nullptr) return corrupt("expected the entries of a directory, found other bytes");
    inode.content = leaf;
    inode.sum = sum_of_entries(*leaf);
    return charge(size_of(*leaf));
  }
  if (!entry.content) return {};
  const Built* built = TRY(child(entry.content, "a directory"));
  if (!is_directory(built->node->kind)) return corrupt("directory whose content is another kind of node");
  // Its entries are inodes of this tree, each with a hash-table place in the checks to come.
  TRY(charge(built->visits * kVisitCharge + built->entries * kVisitCharge));
  inode.content = fs::retain(built->node);
  inode.sum = built->entries_sum;
  if (inode.blocks != 0) return corrupt("directory with blocks");
  return check_summed(inode, entry);
}

Status TreeBuilder::attach_file(fs::Inode& inode, const PageEntry& entry) {
  if (!S_ISREG(inode.mode)) return corrupt("inode that is no file with blocks");
  const Built* built = TRY(child(entry.content, "a file's bytes"));
  if (!is_file(built->node->kind)) return corrupt("file whose content is another kind of node");
  TRY(charge(built->visits * kVisitCharge));
  inode.content = TRY(place(built->node, 0));
  inode.sum = sum_of_file_node(*inode.content);
  inode.blocks = built->blocks;
  return check_summed(inode, entry);
}

Status TreeBuilder::check_summed(const fs::Inode& inode, const PageEntry& entry) {
  if (!entry.summed || (inode.sum == entry.inode.sum && inode.blocks == entry.inode.blocks)) return {};
  return corrupt("inode whose content has another sum than it says");
}

Status TreeBuilder::attach_xattrs(fs::Inode& inode, const PageEntry& entry) {
  if (!entry.inline_xattrs.empty()) {
    inode.xattrs = make_xattrs(entry.xattr_count, entry.inline_xattrs);
    if (inode.xattrs == nullptr) return corrupt("expected extended attributes, found other bytes");
    return charge(size_of(*inode.xattrs));
  }
  if (!entry.xattrs) return {};
  const Built* built = TRY(child(entry.xattrs, "extended attributes"));
  if (built->node->kind != NodeKind::kXattrs)
    return corrupt("extended attributes that are another kind of node");
  TRY(charge(static_cast<const fs::Xattrs*>(built->node)->length));  // hashed again for every inode
  inode.xattrs = static_cast<fs::Xattrs*>(fs::retain(built->node));
  return {};
}

// The way down is at most kFileLevelMax long. A node not yet placed is the builder's alone and is finished
// where it lies; one that is placed elsewhere is shared and stays as it is.
Result<fs::Node*> TreeBuilder::place(fs::Node* node, uint64_t base) {
  auto [it, first] = placed_.try_emplace(node, base);
  if (!first && it->second == base) return fs::retain(node);
  bool is_leaf = node->kind == NodeKind::kFileLeaf;
  Owned owned(first     ? fs::retain(node)
              : is_leaf ? static_cast<fs::Node*>(new fs::FileLeaf(static_cast<fs::FileLeaf&>(*node)))
                        : copy_of(static_cast<fs::FileInner&>(*node)));
  fs::Node* mine = owned.get();
  if (!first) {
    TRY(charge(sizeof(fs::FileLeaf)));
    if (remember_) fs::mark_stored(*mine, fs::stored_of(*node));
  }
  if (is_leaf) {
    fs::file_content::hash_blocks(static_cast<fs::FileLeaf&>(*mine), base);
    return owned.take();
  }
  auto& inner = static_cast<fs::FileInner&>(*mine);
  const auto said = said_.find(node);
  inner.sum = {};
  inner.blocks = 0;
  for (int i = 0; i < fs::kFanout; i++) {
    if (inner.child[i] == nullptr) continue;
    uint64_t below = base + (static_cast<uint64_t>(i) << (fs::kFanoutBits * inner.level));
    fs::Node* placed = TRY(place(inner.child[i], below));
    fs::release(std::exchange(inner.child[i], placed));
    inner.sum += sum_of_file_node(*placed);
    inner.blocks += fs::blocks_of(*placed);
    if (said != said_.end() && said->second[static_cast<size_t>(i)] != sum_of_file_node(*placed))
      return corrupt("file node with another sum than the one above it says");
  }
  inner.dirty = 0;
  return owned.take();
}

}  // namespace reprise::snapshot

#include "fs/invariants.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <unordered_map>

#include "base/bytes.h"
#include "fs/directory.h"
#include "fs/file_content.h"
#include "fs/lazy_node.h"
#include "fs/sourced_file.h"
#include "fs/table.h"
#include "fs/xattrs.h"

namespace reprise::fs {
namespace {

constexpr int kFileLevelMax = 10;  // 16^11 blocks: beyond any file
constexpr int kTableDepthMax = 17;
constexpr int kDirDepthMax = 24;

// Of the node itself.
std::string table_node_problem(const Node* node, uint64_t base, int bits) {
  if (node->kind == NodeKind::kTablePage) {
    auto* page = static_cast<const TablePage*>(node);
    if (page->base % kFanout != 0 || (bits < 64 && page->base >> bits != base >> bits)) {
      return fmt::format("inode page {:#x} lies where its ids do not belong", page->base);
    }
    bool empty = std::all_of(std::begin(page->inode), std::end(page->inode),
                             [](const Inode& i) { return i.mode == 0; });
    return empty ? fmt::format("inode page {:#x} is empty", page->base) : "";
  }
  if (node->kind != NodeKind::kTableInner) return "inode table holds a node of another kind";
  auto* inner = static_cast<const TableInner*>(node);
  if (inner->shift % kFanoutBits != 0 || inner->shift < kFanoutBits || inner->shift >= bits) {
    return fmt::format("inode table node at {:#x} has shift {}", inner->base, inner->shift);
  }
  if (bits < 64 && inner->base >> bits != base >> bits)
    return "inode table node lies where its ids do not belong";
  int above = inner->shift + kFanoutBits;
  if (above < 64 && (inner->base & ((uint64_t{1} << above) - 1)) != 0)
    return "inode table node has bits of its children";
  auto children = kFanout - std::count(std::begin(inner->child), std::end(inner->child), nullptr);
  return children >= 2 ? "" : "inode table node with fewer than two children";
}

std::string table_problem(const Node* node, uint64_t base, int bits, int depth) {
  if (depth > kTableDepthMax) return "inode table deeper than the bits of an id";
  node = loaded(node);
  if (node == nullptr) return "inode table with a node that cannot be loaded";
  std::string problem = table_node_problem(node, base, bits);
  if (!problem.empty() || node->kind == NodeKind::kTablePage) return problem;
  auto* inner = static_cast<const TableInner*>(node);
  for (uint64_t i = 0; i < kFanout; i++) {
    if (inner->child[i] == nullptr) continue;
    problem = table_problem(inner->child[i], inner->base | i << inner->shift, inner->shift, depth + 1);
    if (!problem.empty()) return problem;
  }
  return "";
}

// Sets `last` to the greatest key seen; every key must lie in [low, high].
std::string leaf_problem(const DirLeaf& leaf, DirKey low, DirKey high) {
  if (leaf.capacity > DirLeaf::kMaxCapacity || leaf.names_begin > leaf.capacity || leaf.count == 0 ||
      leaf.count * sizeof(DirLeaf::Slot) > leaf.names_begin) {
    return "directory leaf overfull or empty";
  }
  size_t names = 0;
  for (int i = 0; i < leaf.count; i++) {
    const DirLeaf::Slot& slot = leaf.slots()[i];
    if (slot.name_offset < leaf.names_begin || slot.name_offset + slot.name_length > leaf.capacity) {
      return "directory entry with its name outside the leaf";
    }
    std::string_view name = leaf.name(slot);
    if (name.empty() || name == "." || name == ".." || name.find('/') != name.npos ||
        name.find('\0') != name.npos) {
      return fmt::format("directory entry with the name \"{}\"", printable(name));
    }
    DirKey key = slot.key, ordinals = (DirKey{1} << kDirOrdinalBits) - 1;
    if ((key & ~ordinals) != dir_hash(name))
      return fmt::format("\"{}\" lies under another hash", printable(name));
    if (key < low || key > high || (i > 0 && key <= leaf.slots()[i - 1].key)) {
      return fmt::format("\"{}\" is out of order", printable(name));
    }
    names += slot.name_length;
  }
  return names == static_cast<size_t>(leaf.capacity - leaf.names_begin)
             ? ""
             : "directory leaf with bytes of no name";
}

std::string directory_problem(const Node* node, int level, DirKey low, DirKey high) {
  if (node->kind == NodeKind::kDirLeaf) {
    return level <= 0 ? leaf_problem(static_cast<const DirLeaf&>(*node), low, high)
                      : "directory leaf too high in its tree";
  }
  if (node->kind != NodeKind::kDirInner || level == 0)
    return "directory holds a node of another kind or level";
  auto* inner = static_cast<const DirInner*>(node);
  if (level < 0) level = inner->level;  // the root says how high it is
  if (inner->level != level || level > kDirDepthMax || inner->count < 1 || inner->count > kFanout) {
    return "directory node with a wrong level or count";
  }
  for (int i = 0; i < inner->count; i++) {
    DirKey child_low = i == 0 ? low : inner->key[i];
    DirKey child_high = i + 1 < inner->count ? inner->key[i + 1] - 1 : high;
    if (child_low < low || child_high > high || child_low > child_high || inner->child[i] == nullptr) {
      return "directory node with keys out of order";
    }
    std::string problem = directory_problem(inner->child[i], level - 1, child_low, child_high);
    if (!problem.empty()) return problem;
  }
  return "";
}

// What has not been loaded below it, is loaded, or taken as it says of itself.
enum class Unloaded : bool { kIsLoaded, kIsBelieved };

std::string blocks_problem(const Node* node, int level, Unloaded unloaded, uint32_t& blocks) {
  if (node->level != level) return "file node with a wrong level";
  if (is_lazy(node)) {
    if (unloaded == Unloaded::kIsBelieved) {
      blocks += blocks_of(*node);
      return "";
    }
    node = loaded(node);
    if (node == nullptr) return "file of which a part cannot be loaded";
  }
  if (level == 0) {
    if (node->kind != NodeKind::kFileLeaf) return "file holds a node of another kind";
    for (std::byte* block : static_cast<const FileLeaf*>(node)->block) blocks += block != nullptr;
    return "";
  }
  if (node->kind != NodeKind::kFileInner) return "file holds a node of another kind";
  auto* inner = static_cast<const FileInner*>(node);
  uint32_t of_clean = 0;
  for (int i = 0; i < kFanout; i++) {
    if (inner->child[i] == nullptr) continue;
    uint32_t below = 0;
    std::string problem = blocks_problem(inner->child[i], level - 1, unloaded, below);
    if (!problem.empty()) return problem;
    blocks += below;
    if ((inner->dirty >> i & 1) == 0) of_clean += below;
  }
  return inner->blocks == of_clean ? "" : "file node with a wrong count of blocks";
}

bool all_zero(ByteView bytes) {
  return std::all_of(bytes.begin(), bytes.end(), [](std::byte b) { return b == std::byte{0}; });
}

// Of a node of a file of `size` bytes, whose first block is `base`: bytes that lie past the end are zero.
// What has not been loaded is passed over.
std::string past_the_end_problem(const Node* node, uint64_t base, uint64_t size) {
  if (is_lazy(node)) node = static_cast<const LazyNode*>(node)->node.load(std::memory_order_acquire);
  if (node == nullptr) return "";
  for (int i = 0; i < kFanout; i++) {
    const uint64_t first = base + (static_cast<uint64_t>(i) << (kFanoutBits * node->level));
    const uint64_t end = first + (uint64_t{1} << (kFanoutBits * node->level));
    if (end <= size / kBlockSize) continue;
    if (node->level > 0) {
      std::string problem = past_the_end_problem(static_cast<const FileInner*>(node)->child[i], first, size);
      if (!problem.empty()) return problem;
      continue;
    }
    const std::byte* block = static_cast<const FileLeaf*>(node)->block[i];
    const uint64_t inside = std::min<uint64_t>(kBlockSize, size - std::min(size, first * kBlockSize));
    if (block != nullptr && !all_zero(ByteView{block, kBlockSize}.subspan(inside)))
      return "file with bytes past its end";
  }
  return "";
}

std::string sourced_problem(const Inode& inode) {
  const SourcedFile& file = as_sourced(inode.content);
  if (file.limit == 0 || file.limit > inode.size) return "file that rests on more of a source than it has";
  if (file.key_length == 0 || file.key_length > SourcedFile::kKeyMax) return "file that rests on no source";
  uint32_t blocks = 0;
  if (file.held != nullptr) {
    if (file.held->level > kFileLevelMax) return "file tree too high";
    std::string problem = blocks_problem(file.held, file.held->level, Unloaded::kIsLoaded, blocks);
    if (!problem.empty()) return problem;
  }
  if (blocks != file.held_blocks) return "file that rests on a source with a wrong count of what it holds";
  uint64_t covered = 0;
  Digest128 sum;
  file_content::for_each_held_block(file.held, [&](uint64_t index) {
    if (index >= file.covered_blocks()) return;
    covered++;
    sum += sourced::held_index_hash(index);
  });
  if (covered != file.covered_held || sum != file.held_sum || covered >= file.covered_blocks())
    return "file that rests on a source with wrong sums of what it holds";
  if (inode.blocks != file.blocks())
    return fmt::format("file counts {} blocks and has {}", inode.blocks, file.blocks());
  return past_the_end_problem(file.held, 0, inode.size);
}

std::string file_problem(const Inode& inode, Unloaded unloaded) {
  if (inode.size > kFileSizeMax) return "file larger than a file may be";
  if (inode.content == nullptr) return inode.blocks == 0 ? "" : "empty file that counts blocks";
  if (is_sourced(inode.content)) return sourced_problem(inode);
  if (inode.content->kind == NodeKind::kSmallFile) {
    auto* small = static_cast<const SmallFile*>(inode.content);
    bool fits =
        small->length <= small->capacity && small->length <= SmallFile::kMax && small->length <= inode.size;
    return fits && small->length > 0 && inode.blocks == 1 ? "" : "small file with a wrong length";
  }
  if (inode.content->level > kFileLevelMax) return "file tree too high";
  uint32_t blocks = 0;
  std::string problem = blocks_problem(inode.content, inode.content->level, unloaded, blocks);
  if (!problem.empty()) return problem;
  if (blocks != inode.blocks) return fmt::format("file counts {} blocks and has {}", inode.blocks, blocks);
  return past_the_end_problem(inode.content, 0, inode.size);
}

std::string own_problem(const Inode& inode, Unloaded unloaded) {
  for (uint32_t nsec : {inode.atime_nsec, inode.mtime_nsec, inode.ctime_nsec}) {
    if (nsec >= 1'000'000'000) return "inode with a time of more than a second's nanoseconds";
  }
  if (inode.xattrs != nullptr && (inode.xattrs->kind != NodeKind::kXattrs || !xattrs::valid(*inode.xattrs))) {
    return "inode with malformed extended attributes";
  }
  switch (inode.mode & S_IFMT) {
    case S_IFDIR:
      if (inode.content == nullptr) return inode.size == 0 ? "" : "empty directory that counts entries";
      return directory_problem(inode.content, -1, 0, ~DirKey{0} - 1);
    case S_IFREG:
      return file_problem(inode, unloaded);
    case S_IFLNK: {
      auto* target = static_cast<const SmallFile*>(inode.content);
      bool good = target != nullptr && target->kind == NodeKind::kSmallFile && target->length == inode.size &&
                  target->length <= target->capacity && inode.size >= 1 && inode.size <= kPathMax &&
                  inode.blocks == 0;
      return good ? "" : "symlink with a wrong target";
    }
    case S_IFIFO:
    case S_IFSOCK:
    case S_IFCHR:
    case S_IFBLK:
      return inode.content == nullptr && inode.size == 0 && inode.blocks == 0 ? ""
                                                                              : "special inode with content";
    default:
      return fmt::format("inode of unknown type {:o}", inode.mode);
  }
}

// Whatever has not been loaded is loaded.
std::string inode_problem(const Inode& inode) {
  if (!is_lazy(inode.content)) return own_problem(inode, Unloaded::kIsLoaded);
  Inode whole = inode;
  whole.content = const_cast<Node*>(loaded(inode.content));
  return whole.content != nullptr ? own_problem(whole, Unloaded::kIsLoaded)
                                  : "inode whose content cannot be loaded";
}

// Whatever has not been loaded is not looked at.
std::string loaded_problem(const Inode& inode) {
  if (!is_lazy(inode.content)) return own_problem(inode, Unloaded::kIsBelieved);
  if (!S_ISDIR(inode.mode) && !S_ISREG(inode.mode)) return "special inode with content";
  Inode rest = inode;
  rest.content = nullptr;
  rest.blocks = 0;
  if (S_ISDIR(rest.mode)) rest.size = 0;
  return own_problem(rest, Unloaded::kIsBelieved);
}

std::string part_misfit(const LazyNode& lazy, const Node& found) {
  uint32_t blocks = 0;
  std::string problem = blocks_problem(&found, lazy.level, Unloaded::kIsBelieved, blocks);
  if (!problem.empty()) return problem;
  if (blocks != lazy.blocks)
    return fmt::format("part of a file counts {} blocks and has {}", lazy.blocks, blocks);
  if (file_content::part_of(found, lazy.first_block).sum != lazy.sum)
    return "part of a file with another sum than the node above it says";
  return past_the_end_problem(&found, lazy.first_block, lazy.size);
}

std::string content_misfit(const LazyNode& lazy, const Node& found) {
  Inode inode;
  inode.mode = lazy.mode;
  inode.size = lazy.size;
  inode.blocks = lazy.blocks;
  inode.sum = lazy.sum;
  inode.content = const_cast<Node*>(&found);
  std::string problem = own_problem(inode, Unloaded::kIsBelieved);
  if (!problem.empty()) return problem;
  Digest128 sum;
  uint64_t entries = 0;
  if (S_ISDIR(lazy.mode)) {
    directory::for_each(&found, 0, [&](const directory::Entry& entry) {
      sum += dentry_hash(entry.name, entry.type, entry.inode);
      entries++;
      return true;
    });
    if (entries != lazy.size)
      return fmt::format("directory counts {} entries and has {}", lazy.size, entries);
  } else {
    sum = file_content::sum_of_inode(inode);
  }
  return sum == lazy.sum ? "" : "content with another sum than its inode says";
}

// Cross-references, once every inode by itself is in order.
class Links {
 public:
  explicit Links(const Node* root) : root_(root) {}

  std::string problem() {
    table::for_each(root_, [&](InodeId id, const Inode& inode) { return count_entries(id, inode); });
    if (problem_.empty()) {
      table::for_each(root_, [&](InodeId id, const Inode& inode) { return check_links(id, inode); });
    }
    return problem_;
  }

 private:
  bool say(InodeId id, std::string_view text) {
    problem_ = fmt::format("inode {:#x}: {}", id.value, text);
    return false;
  }

  bool count_entries(InodeId id, const Inode& inode) {
    if (!S_ISDIR(inode.mode)) return true;
    uint64_t entries = 0;
    directory::for_each(inode.content, 0, [&](const directory::Entry& entry) {
      entries++;
      const Inode* child = table::find(root_, entry.inode);
      if (child == nullptr) return say(id, fmt::format("\"{}\" leads nowhere", printable(entry.name)));
      if (type_of_mode(child->mode) != entry.type)
        return say(id, fmt::format("\"{}\" has another type", printable(entry.name)));
      names_[entry.inode]++;
      if (S_ISDIR(child->mode)) {
        if (child->rdev_or_parent != id.value)
          return say(id, fmt::format("\"{}\" has another parent", printable(entry.name)));
        subdirectories_[id]++;
      }
      return true;
    });
    if (!problem_.empty()) return false;
    if (entries != inode.size)
      return say(id, fmt::format("counts {} entries and has {}", inode.size, entries));
    if (inode.nlink == 0 && entries > 0) return say(id, "removed directory with entries");
    return true;
  }

  bool check_links(InodeId id, const Inode& inode) {
    uint32_t names = names_.contains(id) ? names_[id] : 0;
    if (!S_ISDIR(inode.mode)) {
      return names == inode.nlink ? true
                                  : say(id, fmt::format("counts {} links and has {}", inode.nlink, names));
    }
    bool is_root = id == kRootInode;
    if (is_root && names > 0) return say(id, "the root directory has a name");
    if (names > 1) return say(id, "directory with two names");
    uint32_t expected = is_root || names == 1 ? 2 + subdirectories_[id] : 0;
    if (inode.nlink != expected)
      return say(id, fmt::format("counts {} links and has {}", inode.nlink, expected));
    return inode.nlink == 0 || hangs_on_root(id) ? true : say(id, "directory that the root does not lead to");
  }

  // Walks up; directories on the way are remembered, so the whole check is linear.
  bool hangs_on_root(InodeId id) {
    std::vector<InodeId> way;
    while (id != kRootInode && !reached_[id]) {
      if (on_way_[id]) return false;  // a circle
      on_way_[id] = true;
      way.push_back(id);
      const Inode* inode = table::find(root_, id);
      if (inode == nullptr) return false;
      id = InodeId{inode->rdev_or_parent};
    }
    for (InodeId on : way) reached_[on] = true;
    return true;
  }

  const Node* root_;
  std::string problem_;
  std::unordered_map<InodeId, uint32_t> names_, subdirectories_;
  std::unordered_map<InodeId, bool> reached_, on_way_;
};

}  // namespace

std::string check_structure(const Node* root, Usage* usage) {
  *usage = {};
  if (root == nullptr) return "no inode table";
  std::string problem = table_problem(root, 0, 64, 0);
  if (!problem.empty()) return problem;
  table::for_each(root, [&](InodeId id, const Inode& inode) {
    usage->inodes++;
    usage->blocks += inode.blocks;
    problem = inode_problem(inode);
    if (!problem.empty()) problem = fmt::format("inode {:#x}: {}", id.value, problem);
    return problem.empty();
  });
  if (!problem.empty()) return problem;
  const Inode* top = table::find(root, kRootInode);
  if (top == nullptr || !S_ISDIR(top->mode) || top->rdev_or_parent != kRootInode.value)
    return "no root directory";
  return Links(root).problem();
}

std::string misfit(const LazyNode& lazy, const Node& found) {
  if (lazy.stands_for == LazyNode::For::kPart) return part_misfit(lazy, found);
  if (lazy.stands_for == LazyNode::For::kContent) return content_misfit(lazy, found);
  std::string problem = table_node_problem(&found, lazy.base, lazy.bits);
  if (!problem.empty()) return problem;
  if (table::total(&found) != lazy.sum) return "inode table node with another sum than the one above it says";
  if (found.kind != NodeKind::kTablePage) return "";
  for (const Inode& inode : static_cast<const TablePage&>(found).inode) {
    if (inode.mode != 0) problem = loaded_problem(inode);
    if (!problem.empty()) return problem;
  }
  return "";
}

std::string Tree::check_invariants() const {
  Usage found;
  std::string problem = check_structure(root_, &found);
  if (problem.empty() && take_load_failure()) problem = "something cannot be loaded";
  if (!problem.empty()) return problem;
  if (found.inodes != usage_.inodes || found.blocks != usage_.blocks) {
    return fmt::format("usage says {} inodes and {} blocks, there are {} and {}", usage_.inodes,
                       usage_.blocks, found.inodes, found.blocks);
  }
  if (digest() != recompute_digest()) return "the digest is not that of the bytes";
  return "";
}

std::expected<View, std::string> View::adopt(Node* root) {
  View view(root, {});
  std::string problem = check_structure(root, &view.usage_);
  if (!problem.empty()) return std::unexpected(std::move(problem));
  return view;
}

}  // namespace reprise::fs

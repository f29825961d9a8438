#include "fs/file_content.h"

#include <algorithm>
#include <bit>
#include <optional>

#include "fs/lazy_node.h"
#include "fs/own.h"
#include "fs/sourced_file.h"

namespace reprise::fs::file_content {
namespace {

constexpr std::byte kZeroBlock[kBlockSize] = {};

// Blocks that a node of this level covers: 16 for a leaf (level 0), 16 times more a level.
uint64_t span_blocks(int level) {
  return uint64_t{1} << (kFanoutBits * (level + 1));
}
int index_at(uint64_t block, int level) {
  return static_cast<int>(block >> (kFanoutBits * level) & (kFanout - 1));
}
uint64_t blocks_for(uint64_t bytes) {
  return (bytes + kBlockSize - 1) / kBlockSize;
}

bool is_small(const Node* content) {
  return content != nullptr && content->kind == NodeKind::kSmallFile;
}

// Null where there is none.
Outcome<const FileLeaf*> leaf_at(const Node* node, uint64_t block) {
  node = TRY(try_loaded(node));
  if (node == nullptr || block >= span_blocks(node->level)) return nullptr;
  while (node != nullptr && node->level > 0) {
    node = static_cast<const FileInner*>(node)->child[index_at(block, node->level)];
    if (is_lazy(node)) node = TRY(try_loaded(node));
  }
  return static_cast<const FileLeaf*>(node);
}
// The same where all of the way has been loaded.
const FileLeaf* find_leaf(const Node* node, uint64_t block) {
  auto leaf = leaf_at(node, block);
  CHECK(leaf.has_value());
  return *leaf;
}

// The leaf that covers block, owned, made if missing, the way to it marked dirty.
FileLeaf* own_leaf(Node*& root, uint64_t block) {
  if (root == nullptr) {
    // Start no higher than needed.
    int level = 0;
    while (block >= span_blocks(level)) level++;
    root = level == 0 ? static_cast<Node*>(new FileLeaf) : new FileInner;
    root->level = static_cast<uint8_t>(level);
  }
  while (block >= span_blocks(root->level)) {
    auto* above = new FileInner;
    above->level = static_cast<uint8_t>(root->level + 1);
    above->child[0] = root;
    above->dirty = 1;
    root = above;
  }
  Node** slot = &root;
  while ((*slot)->level > 0) {
    auto* inner = own<FileInner>(*slot);
    int index = index_at(block, inner->level);
    mark_child_dirty(*inner, index);
    slot = &inner->child[index];
    if (*slot == nullptr) {
      *slot = inner->level == 1 ? static_cast<Node*>(new FileLeaf) : new FileInner;
      (*slot)->level = static_cast<uint8_t>(inner->level - 1);
    }
  }
  return own<FileLeaf>(*slot);
}

void mark_block_dirty(FileLeaf& leaf, int i) {
  auto bit = static_cast<uint16_t>(1u << i);
  if ((leaf.dirty & bit) != 0) return;
  if (leaf.block[i] != nullptr) leaf.sum -= leaf.hash[i];
  leaf.dirty |= bit;
}

// A block of an owned leaf for writing, with its old bytes, or with any bytes if all of it will be
// overwritten.
std::byte* own_block(Inode& inode, FileLeaf& leaf, int i, bool whole) {
  mark_block_dirty(leaf, i);
  auto bit = static_cast<uint16_t>(1u << i);
  uint16_t shared = leaf.shared.load(std::memory_order_relaxed);
  std::byte* old = leaf.block[i];
  if (old == nullptr) {
    leaf.block[i] = BlockPool::allocate();
    if (!whole) std::memset(leaf.block[i], 0, kBlockSize);
    inode.blocks++;
  } else if ((shared & bit) != 0 && !BlockPool::unshared(old)) {
    leaf.block[i] = BlockPool::allocate();
    if (!whole) std::memcpy(leaf.block[i], old, kBlockSize);
    BlockPool::release(old);
  }
  leaf.shared.store(static_cast<uint16_t>(shared & ~bit), std::memory_order_relaxed);
  return leaf.block[i];
}

void drop_block(Inode& inode, FileLeaf& leaf, int i) {
  if (leaf.block[i] == nullptr) return;
  mark_block_dirty(leaf, i);
  BlockPool::release(leaf.block[i]);
  leaf.block[i] = nullptr;
  inode.blocks--;
}

}  // namespace

void share_block(Inode& inode, uint64_t index, std::byte* block) {
  FileLeaf* leaf = own_leaf(inode.content, index);
  int i = index_at(index, 0);
  drop_block(inode, *leaf, i);
  mark_block_dirty(*leaf, i);
  BlockPool::retain(block);
  leaf->block[i] = block;
  leaf->shared.fetch_or(static_cast<uint16_t>(1u << i), std::memory_order_relaxed);
  inode.blocks++;
}

void write_blocks(Inode& inode, uint64_t offset, ByteView data) {
  while (!data.empty()) {
    uint64_t block = offset / kBlockSize;
    FileLeaf* leaf = own_leaf(inode.content, block);
    std::byte* to = nullptr;  // where the first `run` bytes of data go: blocks side by side are one copy
    size_t run = 0;
    auto copy_run = [&] {
      if (run > 0) std::memcpy(to, data.data(), run);
      data = data.subspan(run);
      run = 0;
    };
    for (int i = index_at(block, 0); i < kFanout && run < data.size(); i++) {
      size_t within = offset % kBlockSize;
      size_t n = std::min<size_t>(kBlockSize - within, data.size() - run);
      std::byte* at = own_block(inode, *leaf, i, n == kBlockSize) + within;
      if (run > 0 && at != to + run) copy_run();
      if (run == 0) to = at;
      run += n;
      offset += n;
    }
    copy_run();
  }
}

namespace {

// Turns a small file into blocks. `content` was a SmallFile.
void grow_out_of_small(Inode& inode) {
  Node* small = inode.content;
  inode.content = nullptr;
  inode.blocks = 0;
  write_blocks(inode, 0, static_cast<SmallFile*>(small)->view());
  release(small);
}

// A small file of the inode's own with room for `length` bytes.
SmallFile* own_small(Inode& inode, size_t length) {
  auto* small = static_cast<SmallFile*>(inode.content);
  if (small != nullptr && small->capacity >= length && small->refs.load(std::memory_order_acquire) == 1) {
    small->stored = {};
    return small;
  }
  size_t keep = small != nullptr ? small->length : 0;
  auto capacity = static_cast<uint32_t>(
      std::min<size_t>(std::bit_ceil(std::max<size_t>({length, keep, 32})), SmallFile::kMax));
  SmallFile* copy = SmallFile::create(capacity);
  if (keep > 0) std::memcpy(copy->bytes(), small->bytes(), keep);
  copy->length = static_cast<uint32_t>(keep);
  release(small);
  inode.content = copy;
  return copy;
}

void write_small(Inode& inode, uint64_t offset, ByteView data) {
  size_t end = offset + data.size();
  SmallFile* small = own_small(inode, end);
  if (small->length < offset) std::memset(small->bytes() + small->length, 0, offset - small->length);
  std::memcpy(small->bytes() + offset, data.data(), data.size());
  small->length = std::max(small->length, static_cast<uint32_t>(end));
  inode.blocks = 1;
}

uint32_t count_blocks(const Node* node) {
  if (node == nullptr) return 0;
  uint32_t count = blocks_of(*node);
  if (node->kind != NodeKind::kFileInner) return count;
  auto* inner = static_cast<const FileInner*>(node);
  for (uint16_t rest = inner->dirty; rest != 0; rest &= static_cast<uint16_t>(rest - 1))
    count += count_blocks(inner->child[std::countr_zero(rest)]);
  return count;
}

bool is_empty(const Node* node) {
  if (node->level == 0) {
    auto& blocks = static_cast<const FileLeaf*>(node)->block;
    return std::all_of(std::begin(blocks), std::end(blocks), [](std::byte* b) { return b == nullptr; });
  }
  auto& children = static_cast<const FileInner*>(node)->child;
  return std::all_of(std::begin(children), std::end(children), [](Node* c) { return c == nullptr; });
}

// Drops the blocks [first, last) of the subtree in slot, whose first block is `base`. The slot's parent has
// marked it dirty. A subtree that is left empty goes.
void drop_blocks(Inode& inode, Node*& slot, uint64_t base, uint64_t first, uint64_t last) {
  if (slot == nullptr || first >= base + span_blocks(slot->level) || last <= base) return;
  int level = slot->level;
  if (first <= base && last >= base + span_blocks(level)) {
    inode.blocks -= count_blocks(slot);
    release(slot);
    slot = nullptr;
    return;
  }
  bring_in(slot);
  if (level == 0) {
    auto* leaf = own<FileLeaf>(slot);
    for (int i = 0; i < kFanout; i++) {
      if (base + static_cast<uint64_t>(i) >= first && base + static_cast<uint64_t>(i) < last)
        drop_block(inode, *leaf, i);
    }
  } else {
    auto* inner = own<FileInner>(slot);
    uint64_t step = span_blocks(level - 1);
    for (int i = 0; i < kFanout; i++) {
      uint64_t child_base = base + static_cast<uint64_t>(i) * step;
      if (inner->child[i] == nullptr || child_base >= last || child_base + step <= first) continue;
      mark_child_dirty(*inner, i);
      drop_blocks(inode, inner->child[i], child_base, first, last);
    }
  }
  if (is_empty(slot)) {
    release(slot);
    slot = nullptr;
  }
}

// Zeroes part of one block, if it is there.
void zero_within_block(Inode& inode, uint64_t offset, uint64_t length) {
  uint64_t block = offset / kBlockSize;
  const FileLeaf* found = find_leaf(inode.content, block);
  if (found == nullptr || found->block[index_at(block, 0)] == nullptr) return;
  FileLeaf* leaf = own_leaf(inode.content, block);
  std::memset(own_block(inode, *leaf, index_at(block, 0), false) + offset % kBlockSize, 0, length);
}

// Builds the content anew with every block at or after `from` moved to where `move` says; nullopt drops it.
void move_blocks(Inode& inode, const std::function<std::optional<uint64_t>(uint64_t)>& move) {
  if (is_small(inode.content)) grow_out_of_small(inode);
  Inode old;
  std::swap(old.content, inode.content);
  inode.blocks = 0;
  for_each_block(old, [&](uint64_t index, ByteView block) {
    if (auto to = move(index)) share_block(inode, *to, const_cast<std::byte*>(block.data()));
    return true;
  });
  release(old.content);
}

void copy_bytes(const Inode& from, uint64_t from_offset, Inode& to, uint64_t to_offset, uint64_t length) {
  std::byte buffer[16 * kBlockSize];
  while (length > 0) {
    size_t n = std::min<uint64_t>(length, sizeof buffer);
    CHECK(read_held(from, from_offset, {buffer, n}) == n);
    write(to, to_offset, {buffer, n});
    from_offset += n;
    to_offset += n;
    length -= n;
  }
}

Digest128 total(const Node* node, uint64_t base) {
  if (node == nullptr) return {};
  if (is_lazy(node)) return static_cast<const LazyNode*>(node)->sum;
  Digest128 sum;
  if (node->level == 0) {
    auto* leaf = static_cast<const FileLeaf*>(node);
    sum = leaf->sum;
    for (uint16_t rest = leaf->dirty; rest != 0; rest &= static_cast<uint16_t>(rest - 1)) {
      int i = std::countr_zero(rest);
      if (leaf->block[i] != nullptr)
        sum += block_hash(base + static_cast<uint64_t>(i), {leaf->block[i], kBlockSize});
    }
    return sum;
  }
  auto* inner = static_cast<const FileInner*>(node);
  sum = inner->sum;
  for (uint16_t rest = inner->dirty; rest != 0; rest &= static_cast<uint16_t>(rest - 1)) {
    int i = std::countr_zero(rest);
    sum += total(inner->child[i], base + static_cast<uint64_t>(i) * span_blocks(inner->level - 1));
  }
  return sum;
}

Digest128 settle(Node*& slot, uint64_t base) {
  if (slot == nullptr) return {};
  if (slot->level == 0) {
    if (static_cast<FileLeaf*>(slot)->dirty == 0) return static_cast<FileLeaf*>(slot)->sum;
    auto* leaf = own_keeping_stored<FileLeaf>(slot);
    for (; leaf->dirty != 0; leaf->dirty &= static_cast<uint16_t>(leaf->dirty - 1)) {
      int i = std::countr_zero(leaf->dirty);
      leaf->hash[i] = {};
      if (leaf->block[i] == nullptr) continue;
      leaf->hash[i] = block_hash(base + static_cast<uint64_t>(i), {leaf->block[i], kBlockSize});
      leaf->sum += leaf->hash[i];
    }
    return leaf->sum;
  }
  if (static_cast<FileInner*>(slot)->dirty == 0) return static_cast<FileInner*>(slot)->sum;
  auto* inner = own_keeping_stored<FileInner>(slot);
  for (; inner->dirty != 0; inner->dirty &= static_cast<uint16_t>(inner->dirty - 1)) {
    int i = std::countr_zero(inner->dirty);
    inner->sum += settle(inner->child[i], base + static_cast<uint64_t>(i) * span_blocks(inner->level - 1));
    if (inner->child[i] != nullptr) inner->blocks += blocks_of(*inner->child[i]);
  }
  return inner->sum;
}

// Until visit says false, or something cannot be loaded; returns whether neither was the case.
bool visit_blocks(const Node* any_node, uint64_t base, const std::function<bool(uint64_t, ByteView)>& visit) {
  const Node* node = loaded(any_node);
  if (node == nullptr) return any_node == nullptr;
  for (int i = 0; i < kFanout; i++) {
    if (node->level == 0) {
      std::byte* block = static_cast<const FileLeaf*>(node)->block[i];
      if (block != nullptr && !visit(base + static_cast<uint64_t>(i), {block, kBlockSize})) return false;
    } else {
      uint64_t child_base = base + static_cast<uint64_t>(i) * span_blocks(node->level - 1);
      if (!visit_blocks(static_cast<const FileInner*>(node)->child[i], child_base, visit)) return false;
    }
  }
  return true;
}

// Is every block of it there, as far as is known without loading it?
bool is_full(const Node& node) {
  return is_lazy(&node) && static_cast<const LazyNode&>(node).blocks == span_blocks(node.level);
}

// The first block at or after `from` that is there; nullopt if none is. EIO.
Outcome<std::optional<uint64_t>> first_block(const Node* node, uint64_t base, uint64_t from) {
  if (node == nullptr || from >= base + span_blocks(node->level)) return std::nullopt;
  if (is_full(*node)) return std::max(base, from);
  node = TRY(try_loaded(node));
  uint64_t step = node->level == 0 ? 1 : span_blocks(node->level - 1);
  for (uint64_t i = from > base ? (from - base) / step : 0; i < kFanout; i++) {
    if (node->level == 0) {
      if (static_cast<const FileLeaf*>(node)->block[i] != nullptr) return base + i;
    } else if (auto found =
                   TRY(first_block(static_cast<const FileInner*>(node)->child[i], base + i * step, from))) {
      return found;
    }
  }
  return std::nullopt;
}

// The first block at or after `from` that is not there. EIO.
Outcome<uint64_t> first_missing(const Node* node, uint64_t base, uint64_t from) {
  const uint64_t end = node == nullptr ? base : base + span_blocks(node->level);
  if (from >= end) return from;
  if (is_full(*node)) return end;
  node = TRY(try_loaded(node));
  const uint64_t step = node->level == 0 ? 1 : span_blocks(node->level - 1);
  for (uint64_t at = std::max(from, base); at < end;) {
    const uint64_t i = (at - base) / step;
    if (node->level == 0) {
      if (static_cast<const FileLeaf*>(node)->block[i] == nullptr) return at;
      at++;
      continue;
    }
    const uint64_t missing =
        TRY(first_missing(static_cast<const FileInner*>(node)->child[i], base + i * step, at));
    if (missing < base + (i + 1) * step) return missing;
    at = missing;
  }
  return end;
}

// Of the part of a file that begins at block `base`.
Outcome<void> load_below(const Node* any_node, uint64_t base, uint64_t first, uint64_t end) {
  const Node* node = TRY(try_loaded(any_node));
  if (node == nullptr || node->kind != NodeKind::kFileInner) return {};
  const uint64_t step = span_blocks(node->level - 1);
  for (int i = 0; i < kFanout; i++) {
    const Node* child = static_cast<const FileInner*>(node)->child[i];
    const uint64_t begin = base + static_cast<uint64_t>(i) * step;
    if (child != nullptr && begin < end && begin + step > first) TRY(load_below(child, begin, first, end));
  }
  return {};
}

// Blocks that lie side by side are one copy: `from` is where the first `run` bytes still to be had are.
Outcome<void> read_blocks(const Node* content, uint64_t offset, ByteSpan into) {
  const std::byte* from = nullptr;
  size_t run = 0;
  auto copy_run = [&] {
    if (run > 0) std::memcpy(into.data(), from, run);
    into = into.subspan(run);
    run = 0;
  };
  while (run < into.size()) {
    uint64_t block = offset / kBlockSize;
    const FileLeaf* leaf = TRY(leaf_at(content, block));
    for (int i = index_at(block, 0); i < kFanout && run < into.size(); i++) {
      size_t within = offset % kBlockSize;
      size_t n = std::min<size_t>(kBlockSize - within, into.size() - run);
      const std::byte* at =
          (leaf != nullptr && leaf->block[i] != nullptr ? leaf->block[i] : kZeroBlock) + within;
      if (run > 0 && at != from + run) copy_run();
      if (run == 0) from = at;
      run += n;
      offset += n;
    }
  }
  copy_run();
  return {};
}

}  // namespace

size_t readable(uint64_t size, uint64_t offset, size_t wanted) {
  return offset >= size ? 0 : std::min<uint64_t>(wanted, size - offset);
}

Outcome<size_t> read_held(const Inode& inode, uint64_t offset, ByteSpan into) {
  const size_t wanted = readable(inode.size, offset, into.size());
  if (wanted == 0) return 0;
  const Node* content = TRY(try_loaded(inode.content));
  if (content == nullptr || content->kind >= NodeKind::kSmallFile) {
    if (is_sourced(content)) {
      if (!sourced::read_held(as_sourced(content), offset, into.first(wanted))) return errno_of(EREMOTEIO);
      return wanted;
    }
    auto* small = static_cast<const SmallFile*>(content);
    size_t stored =
        small != nullptr && offset < small->length ? std::min<size_t>(wanted, small->length - offset) : 0;
    if (stored > 0) std::memcpy(into.data(), small->bytes() + offset, stored);
    if (wanted > stored) std::memset(into.data() + stored, 0, wanted - stored);
    return wanted;
  }
  TRY(read_blocks(content, offset, into.first(wanted)));
  return wanted;
}

Outcome<size_t> read(const Inode& inode, uint64_t offset, ByteSpan into) {
  if (!is_sourced(inode.content)) return read_held(inode, offset, into);
  const size_t wanted = readable(inode.size, offset, into.size());
  TRY(sourced::read(as_sourced(inode.content), offset, into.first(wanted)));
  return wanted;
}

void write(Inode& inode, uint64_t offset, ByteView data) {
  if (data.empty()) return;
  uint64_t end = offset + data.size();
  bool small = inode.content == nullptr || is_small(inode.content);
  if (small && end <= SmallFile::kMax) {
    write_small(inode, offset, data);
  } else if (is_sourced(inode.content)) {
    sourced::write(inode, offset, data);
  } else {
    if (is_small(inode.content)) grow_out_of_small(inode);
    write_blocks(inode, offset, data);
  }
  inode.size = std::max(inode.size, end);
}

void resize(Inode& inode, uint64_t size) {
  if (is_sourced(inode.content)) {
    if (size < inode.size) sourced::cut(inode, size);
  } else if (size < inode.size) {
    // Blocks may lie past the end too (space kept by a reservation never does, but be sure): cut all there
    // is.
    punch(inode, size, kFileSizeMax - size);
  }
  inode.size = size;
}

void punch(Inode& inode, uint64_t offset, uint64_t length) {
  if (inode.content == nullptr || length == 0) return;
  uint64_t end = offset + length;
  if (is_sourced(inode.content)) {
    sourced::punch(inode, offset, length);
    return;
  }
  if (is_small(inode.content)) {
    auto* current = static_cast<SmallFile*>(inode.content);
    if (offset >= current->length) return;
    SmallFile* small = own_small(inode, current->length);
    if (end >= small->length) {
      small->length = static_cast<uint32_t>(offset);
    } else {
      std::memset(small->bytes() + offset, 0, length);
    }
    if (small->length == 0) {
      release(small);
      inode.content = nullptr;
      inode.blocks = 0;
    }
    return;
  }
  uint64_t first_whole = blocks_for(offset);
  uint64_t last_whole = end / kBlockSize;
  if (first_whole > last_whole) {  // inside one block
    zero_within_block(inode, offset, length);
    return;
  }
  if (offset % kBlockSize != 0) zero_within_block(inode, offset, kBlockSize - offset % kBlockSize);
  if (end % kBlockSize != 0) zero_within_block(inode, end - end % kBlockSize, end % kBlockSize);
  drop_blocks(inode, inode.content, 0, first_whole, last_whole);
}

void collapse(Inode& inode, uint64_t offset, uint64_t length) {
  uint64_t first = offset / kBlockSize, removed = length / kBlockSize;
  move_blocks(inode, [&](uint64_t index) -> std::optional<uint64_t> {
    if (index < first) return index;
    if (index < first + removed) return std::nullopt;
    return index - removed;
  });
  inode.size -= length;
}

void insert(Inode& inode, uint64_t offset, uint64_t length) {
  uint64_t first = offset / kBlockSize, added = length / kBlockSize;
  move_blocks(inode, [&](uint64_t index) -> std::optional<uint64_t> {
    return index < first ? index : index + added;
  });
  inode.size += length;
}

void copy(const Inode& from, uint64_t from_offset, Inode& to, uint64_t to_offset, uint64_t length) {
  uint64_t whole = length / kBlockSize * kBlockSize;
  bool can_share = from_offset % kBlockSize == 0 && to_offset % kBlockSize == 0 && whole > 0 &&
                   from.content != nullptr && !is_small(from.content);
  if (!can_share) {
    copy_bytes(from, from_offset, to, to_offset, length);
    return;
  }
  if (is_small(to.content)) grow_out_of_small(to);
  punch(to, to_offset, whole);
  uint64_t first = from_offset / kBlockSize, shift = to_offset / kBlockSize;
  for (uint64_t i = 0; i < whole / kBlockSize; i++) {
    // Asked each time: where both are one file, what changes the one changes the other.
    const FileLeaf* leaf = find_leaf(from.content, first + i);
    std::byte* block = leaf != nullptr ? leaf->block[index_at(first + i, 0)] : nullptr;
    if (block == nullptr) continue;
    // The source leaf may be the same file's or unshared so far: from now on its block has a second owner.
    leaf->shared.fetch_or(static_cast<uint16_t>(1u << index_at(first + i, 0)), std::memory_order_relaxed);
    share_block(to, shift + i, block);
  }
  to.size = std::max(to.size, to_offset + whole);
  if (length > whole) copy_bytes(from, from_offset + whole, to, to_offset + whole, length - whole);
}

void set_target(Inode& inode, std::string_view target) {
  SmallFile* small = SmallFile::create(static_cast<uint32_t>(target.size()));
  std::memcpy(small->bytes(), target.data(), target.size());
  small->length = static_cast<uint32_t>(target.size());
  inode.content = small;
  inode.size = target.size();
}

Outcome<uint64_t> next_data(const Inode& inode, uint64_t offset) {
  if (inode.content == nullptr) return inode.size;
  const Node* content = inode.content;
  if (is_small(content)) return offset < kBlockSize ? std::min(offset, inode.size) : inode.size;
  if (is_sourced(content)) {
    if (offset < as_sourced(content).limit) return std::min(offset, inode.size);
    content = as_sourced(content).held;
  }
  auto block = TRY(first_block(TRY(try_loaded(content)), 0, offset / kBlockSize));
  return block ? std::min(inode.size, std::max(offset, *block * kBlockSize)) : inode.size;
}

Outcome<uint64_t> next_hole(const Inode& inode, uint64_t offset) {
  if (inode.content == nullptr) return offset;
  const Node* content = inode.content;
  if (is_small(content)) {
    return std::max(offset, std::min<uint64_t>(inode.size, kBlockSize));  // a hole begins at a block boundary
  }
  uint64_t block = offset / kBlockSize;
  if (is_sourced(content)) {
    // What the source may have as a hole counts as data.
    block = std::max(block, as_sourced(content).covered_blocks());
    content = as_sourced(content).held;
  }
  const uint64_t hole = TRY(first_missing(TRY(try_loaded(content)), 0, block)) * kBlockSize;
  return hole < inode.size ? std::max(offset, hole) : inode.size;
}

Outcome<void> load(const Node* content, uint64_t first, uint64_t end) {
  return load_below(content, 0, first, end);
}

void for_each_block(const Inode& inode, const std::function<bool(uint64_t, ByteView)>& visit) {
  if (inode.content == nullptr) return;
  if (is_small(inode.content)) {
    visit(0, static_cast<SmallFile*>(inode.content)->view());
    return;
  }
  visit_blocks(is_sourced(inode.content) ? as_sourced(inode.content).held : inode.content, 0, visit);
}

const std::byte* block_at(const Node* blocks, uint64_t index) {
  const FileLeaf* leaf = find_leaf(blocks, index);
  return leaf != nullptr ? leaf->block[index_at(index, 0)] : nullptr;
}

void for_each_held_block(const Node* blocks, const std::function<void(uint64_t)>& visit) {
  visit_blocks(blocks, 0, [&](uint64_t index, ByteView) {
    visit(index);
    return true;
  });
}

Part part_of(const Node& node, uint64_t base) {
  return {total(&node, base), count_blocks(&node)};
}

void hash_blocks(FileLeaf& leaf, uint64_t base) {
  leaf.sum = {};
  for (int i = 0; i < kFanout; i++) {
    leaf.hash[i] = {};
    if (leaf.block[i] == nullptr) continue;
    leaf.hash[i] = block_hash(base + static_cast<uint64_t>(i), {leaf.block[i], kBlockSize});
    leaf.sum += leaf.hash[i];
  }
  leaf.dirty = 0;
}

uint64_t loaded_blocks(const Node* node) {
  if (is_lazy(node)) node = static_cast<const LazyNode*>(node)->node.load(std::memory_order_acquire);
  if (node == nullptr) return 0;
  if (node->kind == NodeKind::kFileLeaf) return blocks_of(*node);
  if (node->kind != NodeKind::kFileInner) return 0;
  uint64_t count = 0;
  for (const Node* child : static_cast<const FileInner*>(node)->child) count += loaded_blocks(child);
  return count;
}

Digest128 sum_of_inode(const Inode& inode) {
  if (S_ISDIR(inode.mode)) return inode.sum;
  if (is_lazy(inode.content)) return static_cast<const LazyNode*>(inode.content)->sum;
  if (inode.content == nullptr) return {};
  if (is_sourced(inode.content)) {
    const SourcedFile& file = as_sourced(inode.content);
    return sourced::sum(file, total(file.held, 0));
  }
  if (!is_small(inode.content)) return total(inode.content, 0);
  return block_hash(0, static_cast<SmallFile*>(inode.content)->view());
}

Digest128 settle_inode(Inode& inode) {
  if (S_ISDIR(inode.mode) || inode.content == nullptr || is_small(inode.content) || is_lazy(inode.content))
    return sum_of_inode(inode);
  if (is_sourced(inode.content)) {
    auto* file = own_keeping_stored<SourcedFile>(inode.content);
    return sourced::sum(*file, settle(file->held, 0));
  }
  return settle(inode.content, 0);
}

}  // namespace reprise::fs::file_content

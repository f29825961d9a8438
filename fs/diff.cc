#include "fs/diff.h"

#include <algorithm>
#include <vector>

#include "fs/directory.h"
#include "fs/file_content.h"
#include "fs/lazy_node.h"
#include "fs/sourced_file.h"
#include "fs/table.h"
#include "fs/xattrs.h"

namespace reprise::fs {
namespace {

// --- directories

// A place in a directory, from which both the next entry and the next node can be reached.
class Place {
 public:
  explicit Place(const Node* root) {
    if (root != nullptr) way_.push_back({root, 0});
    settle();
  }

  bool at_end() const { return way_.empty(); }
  DirKey key() const { return leaf().slots()[way_.back().index].key; }
  directory::Entry entry() const {
    const DirLeaf::Slot& slot = leaf().slots()[way_.back().index];
    return {leaf().name(slot), InodeId{slot.inode}, slot.type, slot.key};
  }
  void next() {
    way_.back().index++;
    settle();
  }

  // The nodes on the way here, from the root down; those from first_begun() on begin at this very place.
  size_t depth() const { return way_.size(); }
  const Node* node(size_t at) const { return way_[at].node; }
  size_t first_begun() const {
    size_t at = way_.size();
    while (at > 0 && way_[at - 1].index == 0) at--;
    return at;
  }
  // Past all that is below node(at).
  void skip(size_t at) {
    way_.resize(at);
    if (!way_.empty()) way_.back().index++;
    settle();
  }

 private:
  struct Step {
    const Node* node;
    int index;
  };
  const DirLeaf& leaf() const { return *static_cast<const DirLeaf*>(way_.back().node); }

  // Down to an entry, or to the end.
  void settle() {
    while (!way_.empty()) {
      auto [node, index] = way_.back();
      if (index >= node->count) {
        way_.pop_back();
        if (!way_.empty()) way_.back().index++;
      } else if (node->kind == NodeKind::kDirInner) {
        way_.push_back({static_cast<const DirInner*>(node)->child[index], 0});
      } else {
        return;
      }
    }
  }

  std::vector<Step> way_;
};

// Goes past the largest node that begins at both places. False if there is none.
bool skip_shared(Place& a, Place& b) {
  size_t first_b = b.first_begun();
  for (size_t i = a.first_begun(); i < a.depth(); i++) {
    for (size_t j = first_b; j < b.depth(); j++) {
      if (a.node(i) != b.node(j)) continue;
      a.skip(i);
      b.skip(j);
      return true;
    }
  }
  return false;
}

DirKey hash_part(DirKey key) {
  return key >> kDirOrdinalBits;
}

// The entries from here on whose names have this hash.
std::vector<directory::Entry> take(Place& place, DirKey hash) {
  std::vector<directory::Entry> entries;
  for (; !place.at_end() && hash_part(place.key()) == hash; place.next()) entries.push_back(place.entry());
  return entries;
}

using VisitName = std::function<bool(const ChangedName&)>;

bool gone(const directory::Entry& entry, const VisitName& visit) {
  return visit({entry.name, entry.inode, {}, entry.type, 0});
}
bool came(const directory::Entry& entry, const VisitName& visit) {
  return visit({entry.name, {}, entry.inode, 0, entry.type});
}
bool compare(const directory::Entry& before, const directory::Entry& after, const VisitName& visit) {
  if (before.inode == after.inode && before.type == after.type) return true;
  return visit({before.name, before.inode, after.inode, before.type, after.type});
}

// Names of one hash, of which not every one has kept its ordinal.
bool visit_colliding(Place& a, Place& b, const VisitName& visit) {
  DirKey hash = hash_part(a.key());
  std::vector<directory::Entry> before = take(a, hash), after = take(b, hash);
  auto of_name = [](const std::vector<directory::Entry>& entries, std::string_view name) {
    return std::ranges::find(entries, name, &directory::Entry::name);
  };
  for (const directory::Entry& entry : before) {
    auto now = of_name(after, entry.name);
    if (!(now == after.end() ? gone(entry, visit) : compare(entry, *now, visit))) return false;
  }
  for (const directory::Entry& entry : after) {
    if (of_name(before, entry.name) == before.end() && !came(entry, visit)) return false;
  }
  return true;
}

bool visit_names(const Node* before, const Node* after, const VisitName& visit) {
  if (surely_same(before, after)) return true;
  Place a(loaded(before)), b(loaded(after));
  while (!a.at_end() || !b.at_end()) {
    if (b.at_end() || (!a.at_end() && hash_part(a.key()) < hash_part(b.key()))) {
      if (!gone(a.entry(), visit)) return false;
      a.next();
    } else if (a.at_end() || hash_part(b.key()) < hash_part(a.key())) {
      if (!came(b.entry(), visit)) return false;
      b.next();
    } else if (skip_shared(a, b)) {
      continue;
    } else if (a.key() == b.key() && a.entry().name == b.entry().name) {
      if (!compare(a.entry(), b.entry(), visit)) return false;
      a.next();
      b.next();
    } else if (!visit_colliding(a, b, visit)) {
      return false;
    }
  }
  return true;
}

// --- file content

constexpr std::byte kZeros[kBlockSize] = {};

// Equal when the shorter one is filled up with zeros.
bool same_bytes(ByteView a, ByteView b) {
  if (a.size() > b.size()) std::swap(a, b);
  return std::memcmp(a.data(), b.data(), a.size()) == 0 &&
         std::memcmp(b.data() + a.size(), kZeros, b.size() - a.size()) == 0;
}

ByteView block_of(const Node* node, int index) {
  if (node == nullptr) return {kZeros, 0};
  if (node->kind == NodeKind::kSmallFile) {
    return index == 0 ? static_cast<const SmallFile*>(node)->view() : ByteView{kZeros, 0};
  }
  const std::byte* block = static_cast<const FileLeaf*>(node)->block[index];
  return block == nullptr ? ByteView{kZeros, 0} : ByteView{block, kBlockSize};
}

// A file lower than `level` is the first child of what it would be at that height. `node` is loaded, the
// child need not be.
const Node* child_of(const Node* node, int level, int index) {
  if (node == nullptr) return nullptr;
  if (node->kind != NodeKind::kFileInner || node->level < level) return index == 0 ? node : nullptr;
  return static_cast<const FileInner*>(node)->child[index];
}

int level_of(const Node* node) {
  return node == nullptr || node->kind == NodeKind::kSmallFile ? 0 : node->level;
}

// Numbers of the blocks that differ, in order, until visit says false. `level` as high as the higher one; the
// first block of both is `first`.
bool visit_blocks(const Node* a, const Node* b, int level, uint64_t first,
                  const std::function<bool(uint64_t)>& visit) {
  if (surely_same(a, b)) return true;
  a = loaded(a);
  b = loaded(b);
  for (int i = 0; i < kFanout; i++) {
    uint64_t at = first + (static_cast<uint64_t>(i) << (kFanoutBits * level));
    if (level > 0) {
      if (!visit_blocks(child_of(a, level, i), child_of(b, level, i), level - 1, at, visit)) return false;
      continue;
    }
    ByteView before = block_of(a, i), after = block_of(b, i);
    if (before.data() != after.data() && !same_bytes(before, after) && !visit(at)) return false;
  }
  return true;
}

// Puts ranges that touch together before it passes them on, in order, until visit says false.
class Ranges {
 public:
  explicit Ranges(const std::function<bool(uint64_t, uint64_t)>& visit) : visit_(visit) {}

  bool add(uint64_t offset, uint64_t end) {
    if (offset >= end) return !stopped_;
    if (offset <= end_) {
      end_ = std::max(end_, end);
    } else {
      flush();
      offset_ = offset;
      end_ = end;
    }
    return !stopped_;
  }
  void flush() {
    if (!stopped_ && offset_ < end_) stopped_ = !visit_(offset_, end_);
    offset_ = end_;
  }

 private:
  const std::function<bool(uint64_t, uint64_t)>& visit_;
  uint64_t offset_ = 0, end_ = 0;
  bool stopped_ = false;
};

struct Content {
  const Node* root = nullptr;
  uint64_t size = 0;
};

// Where one of them rests on a source. Of two that rest on the same file only what is held in either is
// looked at, and what only one of them covers. What cannot be read differs.
class SourcedRanges {
 public:
  SourcedRanges(Content before, Content after) : before_(before), after_(after) {}

  // Numbers of the blocks below `end` that differ, in order, until visit says false.
  void visit(uint64_t end, const std::function<bool(uint64_t)>& visit) {
    for (uint64_t block : candidates((end + kBlockSize - 1) / kBlockSize)) {
      if (differs(block) && !visit(block)) return;
    }
  }

 private:
  static const SourcedFile* file_of(const Content& content) {
    return is_sourced(content.root) ? &as_sourced(content.root) : nullptr;
  }

  std::vector<uint64_t> candidates(uint64_t blocks) const {
    const SourcedFile *a = file_of(before_), *b = file_of(after_);
    std::vector<uint64_t> found;
    const bool same = a != nullptr && b != nullptr && std::ranges::equal(a->key(), b->key());
    if (same && a->held == b->held && a->limit == b->limit) return found;
    // From here on both have everything themselves.
    uint64_t all_from = same ? std::min(a->limit, b->limit) / kBlockSize : 0;
    for (const SourcedFile* file : {a, b}) {
      if (!same) break;
      file_content::for_each_held_block(file->held, [&](uint64_t index) {
        if (index < all_from) found.push_back(index);
      });
    }
    if (same && a->limit == b->limit) {
      // Behind the limit as well only what is held.
      for (const SourcedFile* file : {a, b}) {
        file_content::for_each_held_block(file->held, [&](uint64_t index) {
          if (index >= all_from) found.push_back(index);
        });
      }
      all_from = blocks;
    }
    for (uint64_t block = all_from; block < blocks; block++) found.push_back(block);
    std::ranges::sort(found);
    const auto twice = std::ranges::unique(found);
    found.erase(twice.begin(), twice.end());
    std::erase_if(found, [&](uint64_t block) { return block >= blocks; });
    return found;
  }

  bool differs(uint64_t block) const {
    std::byte a[kBlockSize], b[kBlockSize];
    return !read(before_, block, a) || !read(after_, block, b) || std::memcmp(a, b, kBlockSize) != 0;
  }
  static bool read(const Content& content, uint64_t block, ByteSpan into) {
    std::ranges::fill(into, std::byte{});
    Inode inode;
    inode.mode = S_IFREG;
    inode.size = content.size;
    inode.content = const_cast<Node*>(content.root);
    return file_content::read(inode, block * kBlockSize, into).has_value();
  }

  const Content before_, after_;
};

void visit_ranges(Content before, Content after, const std::function<bool(uint64_t, uint64_t)>& visit) {
  if (before.size == after.size && surely_same(before.root, after.root)) return;
  before.root = loaded(before.root);
  after.root = loaded(after.root);
  Ranges ranges(visit);
  uint64_t shorter = std::min(before.size, after.size);
  if (is_sourced(before.root) || is_sourced(after.root)) {
    SourcedRanges(before, after).visit(shorter, [&](uint64_t block) {
      uint64_t offset = block * kBlockSize;
      return ranges.add(offset, std::min(offset + kBlockSize, shorter));
    });
    ranges.add(shorter, std::max(before.size, after.size));
    ranges.flush();
    return;
  }
  int level = std::max(level_of(before.root), level_of(after.root));
  // Blocks past the end of the shorter file need not be looked at: they differ, whatever is in them.
  visit_blocks(before.root, after.root, level, 0, [&](uint64_t block) {
    uint64_t offset = block * kBlockSize;
    return offset < shorter && ranges.add(offset, std::min(offset + kBlockSize, shorter));
  });
  ranges.add(shorter, std::max(before.size, after.size));
  ranges.flush();
}

// --- inodes

bool has_bytes(const Inode& inode) {
  return S_ISREG(inode.mode) || S_ISLNK(inode.mode);
}
Content content_of(const Inode* inode) {
  if (inode == nullptr || !has_bytes(*inode)) return {};
  return {inode->content, inode->size};
}
const Node* names_of(const Inode* inode) {
  return inode != nullptr && S_ISDIR(inode->mode) ? inode->content : nullptr;
}

bool content_differs(const Inode* before, const Inode* after) {
  Content a = content_of(before), b = content_of(after);
  if (a.size == b.size && surely_same(a.root, b.root)) return false;
  bool differs = false;
  visit_ranges(a, b, [&](uint64_t, uint64_t) {
    differs = true;
    return false;
  });
  return differs;
}

bool names_differ(const Inode* before, const Inode* after) {
  return !visit_names(names_of(before), names_of(after), [](const ChangedName&) { return false; });
}

bool xattrs_differ(const Inode* before, const Inode* after) {
  const Xattrs* a = before == nullptr ? nullptr : before->xattrs;
  const Xattrs* b = after == nullptr ? nullptr : after->xattrs;
  if (a == b) return false;
  if (a == nullptr || b == nullptr) return true;
  return a->length != b->length || std::memcmp(a->view().data(), b->view().data(), a->length) != 0;
}

bool attributes_differ(const Inode& a, const Inode& b) {
  return a.mode != b.mode || a.uid != b.uid || a.gid != b.gid || a.nlink != b.nlink || a.size != b.size ||
         a.rdev_or_parent != b.rdev_or_parent || a.blocks != b.blocks || a.atime() != b.atime() ||
         a.mtime() != b.mtime() || a.ctime() != b.ctime();
}

class TableDiff {
 public:
  TableDiff(const Tree& before, const Tree& after, const std::function<bool(const ChangedInode&)>& visit)
      : before_(before), after_(after), visit_(visit) {}

  // In order of id; false once visit_ has said so.
  bool walk(const Node* a, const Node* b) {
    if (surely_same(a, b)) return true;
    a = loaded(a);
    b = loaded(b);
    if (a == nullptr || b == nullptr) return a == b || one_side(a, b);
    uint64_t base_a = base_of(*a), base_b = base_of(*b);
    int bits_a = bits_of(*a), bits_b = bits_of(*b);
    if (!same_range(base_a, base_b, std::max(bits_a, bits_b))) {
      return base_a < base_b ? one_side(a, nullptr) && one_side(nullptr, b)
                             : one_side(nullptr, b) && one_side(a, nullptr);
    }
    if (bits_a == kFanoutBits && bits_b == kFanoutBits) {
      return pages(static_cast<const TablePage*>(a), static_cast<const TablePage*>(b));
    }
    // A node that covers fewer ids is a child of what it would be if it covered as many.
    int bits = std::max(bits_a, bits_b);
    for (int i = 0; i < kFanout; i++) {
      if (!walk(child(a, bits, i), child(b, bits, i))) return false;
    }
    return true;
  }

 private:
  // How many low bits of an id vary below a node.
  static int bits_of(const Node& node) {
    return node.kind == NodeKind::kTablePage ? kFanoutBits
                                             : static_cast<const TableInner&>(node).shift + kFanoutBits;
  }
  static uint64_t base_of(const Node& node) {
    return node.kind == NodeKind::kTablePage ? static_cast<const TablePage&>(node).base
                                             : static_cast<const TableInner&>(node).base;
  }
  static bool same_range(uint64_t a, uint64_t b, int bits) { return bits >= 64 || a >> bits == b >> bits; }
  static const Node* child(const Node* node, int bits, int index) {
    if (bits_of(*node) == bits) return static_cast<const TableInner*>(node)->child[index];
    int own_index = static_cast<int>(base_of(*node) >> (bits - kFanoutBits) & (kFanout - 1));
    return index == own_index ? node : nullptr;
  }

  bool one_side(const Node* a, const Node* b) {
    bool more = true;
    table::for_each(a != nullptr ? a : b, [&](InodeId id, const Inode& inode) {
      return more = a != nullptr ? changed(id, &inode, nullptr) : changed(id, nullptr, &inode);
    });
    return more;
  }

  bool pages(const TablePage* a, const TablePage* b) {
    for (int i = 0; i < kFanout; i++) {
      const Inode* before = a->inode[i].mode != 0 ? &a->inode[i] : nullptr;
      const Inode* after = b->inode[i].mode != 0 ? &b->inode[i] : nullptr;
      if (before == nullptr && after == nullptr) continue;
      if (!changed({a->base + static_cast<uint64_t>(i)}, before, after)) return false;
    }
    return true;
  }

  bool changed(InodeId id, const Inode* before, const Inode* after) {
    ChangedInode change{.inode = id,
                        .before = {},
                        .after = {},
                        .content = content_differs(before, after),
                        .names = names_differ(before, after),
                        .xattrs = xattrs_differ(before, after)};
    bool differs = before == nullptr || after == nullptr || attributes_differ(*before, *after);
    if (!differs && !change.content && !change.names && !change.xattrs) return true;
    if (before != nullptr) change.before = *before_.stat(id);
    if (after != nullptr) change.after = *after_.stat(id);
    return visit_(change);
  }

  const Tree& before_;
  const Tree& after_;
  const std::function<bool(const ChangedInode&)>& visit_;
};

}  // namespace

void for_each_changed_inode(const Tree& before, const Tree& after,
                            const std::function<bool(const ChangedInode&)>& visit) {
  TableDiff(before, after, visit).walk(before.root(), after.root());
}

void for_each_changed_name(const Tree& before, const Tree& after, InodeId directory,
                           const std::function<bool(const ChangedName&)>& visit) {
  visit_names(names_of(table::find(before.root(), directory)), names_of(table::find(after.root(), directory)),
              visit);
}

void for_each_changed_range(const Tree& before, const Tree& after, InodeId file,
                            const std::function<bool(uint64_t, uint64_t)>& visit) {
  for_each_changed_range(before, file, after, file, visit);
}

void for_each_changed_range(const Tree& before, InodeId file_before, const Tree& after, InodeId file_after,
                            const std::function<bool(uint64_t, uint64_t)>& visit) {
  visit_ranges(content_of(table::find(before.root(), file_before)),
               content_of(table::find(after.root(), file_after)), visit);
}

}  // namespace reprise::fs

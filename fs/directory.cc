#include "fs/directory.h"

#include <algorithm>

#include "base/hash.h"
#include "fs/own.h"

namespace reprise::fs {

DirKey dir_hash(std::string_view name) {
  uint64_t hash = hash64(as_bytes(name)) >> 16;
  return std::max<uint64_t>(hash, 1) << kDirOrdinalBits;
}

namespace directory {
namespace {

using Slot = DirLeaf::Slot;

constexpr DirKey kOrdinalMask = (DirKey{1} << kDirOrdinalBits) - 1;
constexpr DirKey kNoKey = ~DirKey{0};
constexpr int kDepthMax =
    24;  // 16 children a node, half full at least after splits: far more entries than memory holds

bool same_hash(DirKey a, DirKey b) {
  return (a | kOrdinalMask) == (b | kOrdinalMask);
}

size_t bytes_needed(std::string_view name) {
  return sizeof(Slot) + name.size();
}

// The smallest capacity that holds `used` bytes: few sizes, so that the allocator reuses them.
uint16_t capacity_for(size_t used) {
  size_t capacity = DirLeaf::kMinCapacity;
  while (capacity < used) capacity += 256;
  CHECK(capacity <= DirLeaf::kMaxCapacity);
  return static_cast<uint16_t>(capacity);
}

// Without a branch on what is compared: where a hash lies cannot be predicted. First among every fourth key,
// then among the three behind the one that was found.
int child_index(const DirInner& inner, DirKey key) {
  auto not_after = [&](int i) {
    return static_cast<int>(i < inner.count) & static_cast<int>(inner.key[i] <= key);
  };
  const int group = 4 * (not_after(4) + not_after(8) + not_after(12));
  return group + not_after(group + 1) + not_after(group + 2) + not_after(group + 3);
}
static_assert(kFanout == 16);

// A leaf, and the keys that belong there: low and up, but less than high (kNoKey where nothing is to the
// right).
struct Place {
  const DirLeaf* leaf = nullptr;
  DirKey low = 0, high = kNoKey;

  // One level down. Returns which child.
  int descend(const DirInner& inner, DirKey key) {
    int i = child_index(inner, key);
    if (i > 0) low = inner.key[i];
    if (i + 1 < inner.count) high = inner.key[i + 1];
    if (inner.level == 1) prefetch(inner.child[i]);
    return i;
  }
  // Asks for a leaf's lines at once: its head, slot and name would be waited for one after the other.
  static void prefetch(const Node* leaf) {
    constexpr size_t kLine = 64, kLargestLeaf = sizeof(DirLeaf) + DirLeaf::kMaxCapacity;
    auto* at = reinterpret_cast<const std::byte*>(leaf);
    for (size_t line = 0; line < kLargestLeaf; line += kLine) __builtin_prefetch(at + line);
  }
  // How far into the leaf a key should lie, in 65536ths: hashes are spread evenly.
  uint64_t fraction(DirKey key) const {
    uint64_t range = (std::min(high, kNoKey >> 1) - low) >> kDirOrdinalBits;
    return ((key - low) >> kDirOrdinalBits << 16) / (range + 1);
  }
};

// The leaf that would hold key.
Place find_leaf(const Node* root, DirKey key) {
  Place place;
  const Node* node = root;
  while (node->kind == NodeKind::kDirInner) {
    auto* inner = static_cast<const DirInner*>(node);
    node = inner->child[place.descend(*inner, key)];
  }
  place.leaf = static_cast<const DirLeaf*>(node);
  return place;
}

// The first slot with a key not less than this one, looked for around where it should be.
int lower_bound(const Place& place, DirKey key) {
  constexpr int kWindow = 8;
  const DirLeaf& leaf = *place.leaf;
  const Slot* slots = leaf.slots();
  const int count = leaf.count;
  int guess = static_cast<int>(place.fraction(key) * static_cast<uint64_t>(count) >> 16);
  int first = std::max(0, std::min(guess - kWindow / 2, count - kWindow));
  int last = std::min(count, first + kWindow), at = first;
  for (int i = first; i < last; i++) at += static_cast<int>(slots[i].key < key);
  while (at == last && last < count && slots[last].key < key) at = ++last;
  while (at == first && first > 0 && slots[first - 1].key >= key) at = --first;
  return at;
}

// The slot of this name, whose hash is `hash`, in this leaf; -1 if there is none.
int slot_of(const Place& place, std::string_view name, DirKey hash) {
  const DirLeaf& leaf = *place.leaf;
  for (int i = lower_bound(place, hash); i < leaf.count && same_hash(leaf.slots()[i].key, hash); i++) {
    if (leaf.name(leaf.slots()[i]) == name) return i;
  }
  return -1;
}

Entry entry_of(const DirLeaf& leaf, const Slot& slot) {
  return {leaf.name(slot), InodeId{slot.inode}, slot.type, slot.key};
}

// A way down, every node owned.
struct Path {
  Node** slot[kDepthMax];  // slot[0] is the root's; slot[i + 1] lies in the inner node *slot[i]
  int index[kDepthMax];    // of slot[i + 1] there
  int depth = 0;           // *slot[depth] is the leaf
  Place place;

  DirInner& inner(int level) { return static_cast<DirInner&>(**slot[level]); }
  DirLeaf& leaf() { return static_cast<DirLeaf&>(**slot[depth]); }
};

void own_path(Path& path, Node*& root, DirKey key) {
  path.slot[0] = &root;
  while ((*path.slot[path.depth])->kind == NodeKind::kDirInner) {
    auto* inner = own<DirInner>(*path.slot[path.depth]);
    int i = path.place.descend(*inner, key);
    path.index[path.depth] = i;
    CHECK(path.depth + 1 < kDepthMax);
    path.slot[++path.depth] = &inner->child[i];
  }
  path.place.leaf = own<DirLeaf>(*path.slot[path.depth]);
}

// The way to an entry that is there; returns its slot in the leaf.
int own_path_to(Path& path, Node*& root, std::string_view name) {
  DirKey hash = dir_hash(name);
  own_path(path, root, hash);
  int at = slot_of(path.place, name, hash);
  if (at >= 0) return at;
  // Names of one hash can go on in the next leaf.
  auto entry = find(root, name);
  CHECK(entry.has_value());
  path = {};
  own_path(path, root, entry->key);
  return lower_bound(path.place, entry->key);
}

void put_slot(DirLeaf& leaf, int at, DirKey key, std::string_view name, InodeId inode, uint8_t type) {
  CHECK(leaf.used() + bytes_needed(name) <= leaf.capacity);
  Slot* slots = leaf.slots();
  std::memmove(slots + at + 1, slots + at, (leaf.count - at) * sizeof(Slot));
  leaf.names_begin = static_cast<uint16_t>(leaf.names_begin - name.size());
  std::memcpy(leaf.bytes() + leaf.names_begin, name.data(), name.size());
  slots[at] = {key, inode.value, leaf.names_begin, static_cast<uint8_t>(name.size()), type};
  leaf.count++;
}

void take_slot(DirLeaf& leaf, int at) {
  Slot* slots = leaf.slots();
  Slot gone = slots[at];
  std::byte* names = leaf.bytes() + leaf.names_begin;
  std::memmove(names + gone.name_length, names, gone.name_offset - leaf.names_begin);
  leaf.names_begin = static_cast<uint16_t>(leaf.names_begin + gone.name_length);
  std::memmove(slots + at, slots + at + 1, (leaf.count - at - 1) * sizeof(Slot));
  leaf.count--;
  for (int i = 0; i < leaf.count; i++) {
    if (slots[i].name_offset < gone.name_offset)
      slots[i].name_offset = static_cast<uint16_t>(slots[i].name_offset + gone.name_length);
  }
}

void recapacity(Node*& slot, size_t used) {
  auto* leaf = static_cast<DirLeaf*>(slot);
  slot = leaf->clone(capacity_for(used));
  release(leaf);
}

// Their keys are greater than all in `to`.
void append_slots(DirLeaf& to, const DirLeaf& from, int first, int last) {
  for (int i = first; i < last; i++) {
    const Slot& slot = from.slots()[i];
    put_slot(to, to.count, slot.key, from.name(slot), InodeId{slot.inode}, slot.type);
  }
}

// Puts a child to the right of path.index[level] in the inner node there, splitting upwards where there is no
// room.
void add_child(Path& path, Node*& root, int level, DirKey key, Node* child) {
  if (level < 0) {
    auto* above = new DirInner;
    above->level = static_cast<uint8_t>((root->kind == NodeKind::kDirInner ? root->level : 0) + 1);
    above->count = 2;
    above->child[0] = root;
    above->key[1] = key;
    above->child[1] = child;
    root = above;
    return;
  }
  DirInner* inner = &path.inner(level);
  int at = path.index[level] + 1;
  if (inner->count == kFanout) {
    auto* right = new DirInner;
    right->level = inner->level;
    constexpr int kHalf = kFanout / 2;
    std::copy(inner->key + kHalf, inner->key + kFanout, right->key);
    std::copy(inner->child + kHalf, inner->child + kFanout, right->child);
    std::fill(inner->child + kHalf, inner->child + kFanout, nullptr);
    inner->count = right->count = kHalf;
    add_child(path, root, level - 1, right->key[0], right);
    if (at > kHalf) {
      inner = right;
      at -= kHalf;
    }
  }
  std::copy_backward(inner->key + at, inner->key + inner->count, inner->key + inner->count + 1);
  std::copy_backward(inner->child + at, inner->child + inner->count, inner->child + inner->count + 1);
  inner->key[at] = key;
  inner->child[at] = child;
  inner->count++;
}

// Makes room for a name under key by growing or splitting the leaf; returns the leaf to put it in. `at`, its
// place in the old one, becomes that in the new.
DirLeaf* make_room(Path& path, Node*& root, DirKey key, std::string_view name, int& at) {
  DirLeaf* leaf = &path.leaf();
  size_t wanted = leaf->used() + bytes_needed(name);
  if (wanted <= leaf->capacity) return leaf;
  if (wanted <= DirLeaf::kMaxCapacity) {
    recapacity(*path.slot[path.depth], wanted);
    return &path.leaf();
  }
  // Split by bytes, so that each half has room for any name.
  size_t left_bytes = 0;
  int left_count = 0;
  while (left_count < leaf->count - 1) {
    size_t next = sizeof(Slot) + leaf->slots()[left_count].name_length;
    if (left_count > 0 && left_bytes + next / 2 > leaf->used() / 2) break;
    left_bytes += next;
    left_count++;
  }
  DirKey middle = leaf->slots()[left_count].key;
  size_t room = bytes_needed(name);
  size_t right_bytes = leaf->used() - left_bytes;
  DirLeaf* left = DirLeaf::create(capacity_for(left_bytes + (key < middle ? room : 0)));
  DirLeaf* right = DirLeaf::create(capacity_for(right_bytes + (key < middle ? 0 : room)));
  append_slots(*left, *leaf, 0, left_count);
  append_slots(*right, *leaf, left_count, leaf->count);
  release(leaf);
  *path.slot[path.depth] = left;
  add_child(path, root, path.depth - 1, middle, right);
  if (key < middle) return left;
  at -= left_count;
  return right;
}

void remove_child(DirInner& inner, int at) {
  std::copy(inner.key + at + 1, inner.key + inner.count, inner.key + at);
  std::copy(inner.child + at + 1, inner.child + inner.count, inner.child + at);
  inner.child[--inner.count] = nullptr;
}

// Moves everything of the child to the right of `at` into child `at`, if both fit in one.
bool merge_with_right(DirInner& parent, int at) {
  if (at < 0 || at + 1 >= parent.count) return false;
  Node* right = parent.child[at + 1];
  if (right->kind == NodeKind::kDirLeaf) {
    size_t together = static_cast<DirLeaf*>(parent.child[at])->used() + static_cast<DirLeaf*>(right)->used();
    if (together > DirLeaf::kMaxCapacity * 3 / 4) return false;
    auto* leaf = own<DirLeaf>(parent.child[at]);
    if (together > leaf->capacity) {
      recapacity(parent.child[at], together);
      leaf = static_cast<DirLeaf*>(parent.child[at]);
    }
    append_slots(*leaf, static_cast<DirLeaf&>(*right), 0, right->count);
  } else {
    if (parent.child[at]->count + right->count > kFanout * 3 / 4) return false;
    auto* inner = own<DirInner>(parent.child[at]);
    auto& other = static_cast<DirInner&>(*right);
    for (int i = 0; i < other.count; i++) {
      inner->key[inner->count] = i == 0 ? parent.key[at + 1] : other.key[i];
      inner->child[inner->count++] = retain(other.child[i]);
    }
  }
  remove_child(parent, at + 1);
  release(right);
  return true;
}

// After a removal: empty nodes go, small ones join a neighbour, a root with one child gives way to it.
void tidy(Path& path, Node*& root) {
  for (int level = path.depth; level >= 0; level--) {
    Node* node = *path.slot[level];
    if (node->count == 0) {
      release(node);
      *path.slot[level] = nullptr;
      if (level == 0) return;
      remove_child(path.inner(level - 1), path.index[level - 1]);
      continue;
    }
    bool small = node->kind == NodeKind::kDirLeaf
                     ? static_cast<DirLeaf*>(node)->used() < DirLeaf::kMaxCapacity / 4
                     : node->count <= kFanout / 4;
    if (level == 0 || !small) break;
    DirInner& parent = path.inner(level - 1);
    int at = path.index[level - 1];
    if (!merge_with_right(parent, at) && !merge_with_right(parent, at - 1)) break;
  }
  while (root->kind == NodeKind::kDirInner && root->count == 1) {
    Node* only = retain(static_cast<DirInner*>(root)->child[0]);
    release(root);
    root = only;
  }
}

}  // namespace

std::optional<Entry> find(const Node* root, std::string_view name) {
  root = loaded(root);
  if (root == nullptr) return std::nullopt;
  DirKey hash = dir_hash(name);
  // Names of one hash lie side by side, nearly always in one leaf.
  for (DirKey from = hash;;) {
    Place place = find_leaf(root, from);
    int at = slot_of(place, name, hash);
    if (at >= 0) return entry_of(*place.leaf, place.leaf->slots()[at]);
    if (place.high == kNoKey || !same_hash(place.high, hash)) return std::nullopt;
    from = place.high;
  }
}

bool insert(Node*& root, std::string_view name, InodeId inode, uint8_t type) {
  CHECK(!name.empty() && name.size() <= kNameMax);
  if (root == nullptr) root = DirLeaf::create(DirLeaf::kMinCapacity);
  DirKey key = dir_hash(name);
  Path path;
  own_path(path, root, key);
  int at = lower_bound(path.place, key);
  if (at < path.leaf().count && path.leaf().slots()[at].key == key) {
    // The first ordinal that is free among the names of this hash.
    for_each(root, key - 1, [&](const Entry& entry) {
      if (entry.key != key) return false;
      key++;
      return true;
    });
    if (!same_hash(key, dir_hash(name))) return false;
    path = {};
    own_path(path, root, key);
    at = lower_bound(path.place, key);
  }
  DirLeaf* leaf = make_room(path, root, key, name, at);
  put_slot(*leaf, at, key, name, inode, type);
  return true;
}

void erase(Node*& root, std::string_view name) {
  Path path;
  int at = own_path_to(path, root, name);
  take_slot(path.leaf(), at);
  tidy(path, root);
}

void replace(Node*& root, std::string_view name, InodeId inode, uint8_t type) {
  Path path;
  int at = own_path_to(path, root, name);
  Slot& slot = path.leaf().slots()[at];
  slot.inode = inode.value;
  slot.type = type;
}

void for_each(const Node* root, DirKey after, const std::function<bool(const Entry&)>& visit) {
  root = loaded(root);
  if (root == nullptr || after == kNoKey) return;
  for (DirKey from = after + 1; from != kNoKey;) {
    Place place = find_leaf(root, from);
    for (int i = lower_bound(place, from); i < place.leaf->count; i++) {
      if (!visit(entry_of(*place.leaf, place.leaf->slots()[i]))) return;
    }
    from = place.high;
  }
}

}  // namespace directory
}  // namespace reprise::fs

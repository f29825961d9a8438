// The nodes a tree is made of: inode table, directories, file blocks. docs/filesystem.md has the picture.
//
// For fs/ itself and for snapshot/, which writes nodes out and builds them again; everyone else uses Tree.
//
// Sharing: a node is owned by the pointers to it, counted in `refs`. A node that is reached from one root
// only, every count on the way being 1, may be changed in place by that root's owner; every other node is
// immutable. Hence no node changes under a View.
//
// Sums: `sum` of a table or file node is the sum of the hashes of those members that are clean; a dirty
// member's bit is set in its parent and its hash has been subtracted. Settling hashes the dirty members, adds
// them and clears the bits. The count of blocks below a FileInner is kept in the same way.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <cstring>
#include <string_view>
#include <vector>

#include "base/bytes.h"
#include "base/check.h"
#include "base/ids.h"
#include "fs/block_pool.h"
#include "fs/types.h"

namespace reprise::fs {

enum class NodeKind : uint8_t {
  kTableInner = 1,
  kTablePage = 2,
  kDirInner = 3,
  kDirLeaf = 4,
  kFileInner = 5,
  kFileLeaf = 6,
  kSmallFile = 7,  // also symlink targets
  kXattrs = 8,
  kSourced = 10,  // fs/sourced_file.h; 9 is no node but a blob (snapshot/node_format.h)
  kLazy = 11,     // fs/lazy_node.h; never in a blob
};

void* allocate_node(size_t bytes);
void free_node(void* node, size_t bytes);

struct Node {
  std::atomic<uint32_t> refs{1};
  const NodeKind kind;
  uint8_t level = 0;   // height above the leaves, of inner nodes (1 and up)
  uint16_t count = 0;  // members in use, of directory nodes
  BlobId stored;  // the blob that holds exactly this node in the instance's store; zero once changed. Of a
                  // node that others may reach only through stored_of and mark_stored

  explicit Node(NodeKind k) : kind(k) {}
  // A copy is a new node: nobody refers to it yet, nothing has stored it.
  Node(const Node& other) : kind(other.kind), level(other.level), count(other.count) {}
  Node& operator=(const Node&) = delete;
};

// Nodes of one size, of which a large tree has many (fs/node_pool.h).
template <class T>
struct Pooled : Node {
  using Node::Node;
  static void* operator new(size_t bytes) { return allocate_node(bytes); }
  static void operator delete(void* node) { free_node(node, sizeof(T)); }
};

// Of a node that may be shared: several snapshots may be at work, each under a view of its own. A shared node
// never changes, so whoever marks it writes the same id; only who owns a node alone clears the field. The
// high half is written last: while it is zero the id is not there. (An id whose high half is zero is never
// marked, and stored again each time.)
inline BlobId stored_of(const Node& node) {
  auto& stored = const_cast<Node&>(node).stored;
  uint64_t hi = std::atomic_ref(stored.hi).load(std::memory_order_acquire);
  return hi == 0 ? BlobId{}
                 : BlobId{.lo = std::atomic_ref(stored.lo).load(std::memory_order_relaxed), .hi = hi};
}
inline void mark_stored(const Node& node, BlobId id) {
  auto& stored = const_cast<Node&>(node).stored;
  std::atomic_ref(stored.lo).store(id.lo, std::memory_order_relaxed);
  std::atomic_ref(stored.hi).store(id.hi, std::memory_order_release);
}

// Another owner of node (null stays null).
template <class T>
inline T* retain(T* node) {
  if (node != nullptr)
    const_cast<Node*>(static_cast<const Node*>(node))->refs.fetch_add(1, std::memory_order_relaxed);
  return node;
}
// One owner less. Frees what nobody owns any more, iteratively: no recursion as deep as the data.
void release(Node* node);

// While there is one, what its thread's release() finds to be nobody's and may be large is not freed, but is
// when this goes. For whoever holds a lock: make it before the lock is taken, so that nobody waits for memory
// to be given back. Of several the innermost counts.
class LaterFrees {
 public:
  LaterFrees();
  ~LaterFrees();
  LaterFrees(const LaterFrees&) = delete;
  LaterFrees& operator=(const LaterFrees&) = delete;

 private:
  friend void release(Node* node);

  std::vector<Node*> nodes_;
  LaterFrees* outer_;
};

struct Inode {
  uint32_t mode = 0;  // 0: this slot of the page is free
  uint32_t uid = 0, gid = 0;
  uint32_t nlink = 0;
  uint64_t size = 0;            // bytes; of a directory its entries; of a symlink its target
  uint64_t rdev_or_parent = 0;  // device number; of a directory the id of the one it is in
  Node* content = nullptr;      // DirInner/DirLeaf, FileInner/FileLeaf/SmallFile/SourcedFile, SmallFile of a
                                // symlink, or a LazyNode for one; null: empty or all hole
  struct Xattrs* xattrs = nullptr;
  Digest128 sum;  // of its entries or blocks; of a file valid while the inode is clean in its page
  int64_t atime_sec = 0, mtime_sec = 0, ctime_sec = 0;
  uint32_t atime_nsec = 0, mtime_nsec = 0, ctime_nsec = 0;
  uint32_t blocks = 0;  // of kBlockSize, held by content or covered by its source

  Timestamp atime() const { return {atime_sec, atime_nsec}; }
  Timestamp mtime() const { return {mtime_sec, mtime_nsec}; }
  Timestamp ctime() const { return {ctime_sec, ctime_nsec}; }
  void set_atime(Timestamp t) { atime_sec = t.sec, atime_nsec = t.nsec; }
  void set_mtime(Timestamp t) { mtime_sec = t.sec, mtime_nsec = t.nsec; }
  void set_ctime(Timestamp t) { ctime_sec = t.sec, ctime_nsec = t.nsec; }
};

// As stat(2) shows it. Written in place: a copy of it costs more than finding the inode.
inline void fill_attributes(Attributes& a, InodeId id, const Inode& inode) {
  a.inode = id;
  a.mode = inode.mode;
  a.uid = inode.uid;
  a.gid = inode.gid;
  a.nlink = inode.nlink;
  a.size = inode.size;
  a.blocks = inode.blocks;
  a.rdev = S_ISCHR(inode.mode) || S_ISBLK(inode.mode) ? inode.rdev_or_parent : 0;
  a.atime = inode.atime();
  a.mtime = inode.mtime();
  a.ctime = inode.ctime();
}

inline constexpr int kFanoutBits = 4;
inline constexpr int kFanout = 1 << kFanoutBits;

// Inode table: a radix tree over the 64 bits of an InodeId, four bits a level, with runs of single children
// left out: a node says in `shift` which bits choose among its children, and in `base` the bits above them.
struct TableInner : Pooled<TableInner> {
  Digest128 sum;
  uint64_t base = 0;  // of the ids below; bits under shift + 4 are zero
  uint8_t shift = 0;  // 4, 8, … 60
  uint16_t dirty = 0;
  Node* child[kFanout] = {};

  TableInner() : Pooled(NodeKind::kTableInner) {}
};

// 16 inodes with consecutive ids.
struct TablePage : Pooled<TablePage> {
  Digest128 sum;      // inodes without links count as absent
  uint64_t base = 0;  // id of inode[0]; a multiple of 16
  uint16_t dirty = 0;
  Inode inode[kFanout];

  TablePage() : Pooled(NodeKind::kTablePage) {}
};

// Directory: a B+ tree ordered by DirKey. Inner nodes hold up to 16 children and the smallest key each may
// hold (the first of them is never compared).
using DirKey =
    uint64_t;  // 48-bit hash of the name, then a 15-bit ordinal among names of equal hash; see dir_hash
inline constexpr int kDirOrdinalBits = 15;
DirKey dir_hash(std::string_view name);  // with ordinal 0; never below 2^15, so that small cookies are free

struct DirInner : Pooled<DirInner> {
  DirKey key[kFanout] = {};
  Node* child[kFanout] = {};

  DirInner() : Pooled(NodeKind::kDirInner) {}
};

// Slots are sorted by key and grow from the front of bytes(), names are packed towards its end.
struct DirLeaf : Node {
  struct __attribute__((packed, aligned(4))) Slot {
    DirKey key;
    uint64_t inode;        // InodeId::value
    uint16_t name_offset;  // in bytes()
    uint8_t name_length;
    uint8_t type;  // DT_…
  };
  static constexpr uint16_t kMinCapacity = 224;
  static constexpr uint16_t kMaxCapacity =
      992;  // with the header a KiB; holds three names of the longest kind

  uint16_t capacity;     // of bytes()
  uint16_t names_begin;  // the names lie in [names_begin, capacity), without gaps but in no order

  static DirLeaf* create(uint16_t capacity);
  static void destroy(DirLeaf* leaf);
  DirLeaf* clone(uint16_t new_capacity) const;  // at least what is used

  std::byte* bytes() { return reinterpret_cast<std::byte*>(this + 1); }
  const std::byte* bytes() const { return reinterpret_cast<const std::byte*>(this + 1); }
  Slot* slots() { return reinterpret_cast<Slot*>(bytes()); }
  const Slot* slots() const { return reinterpret_cast<const Slot*>(bytes()); }
  std::string_view name(const Slot& slot) const {
    return {reinterpret_cast<const char*>(bytes()) + slot.name_offset, slot.name_length};
  }
  size_t used() const { return count * sizeof(Slot) + (capacity - names_begin); }

 private:
  explicit DirLeaf(uint16_t bytes) : Node(NodeKind::kDirLeaf), capacity(bytes), names_begin(bytes) {}
};
static_assert(sizeof(DirLeaf::Slot) == 20);

// File: a radix tree of 4 KiB blocks, 16 a leaf; a missing child or block is a hole. Its height is the
// smallest that covers what was written. Bytes past the end of the file are zero in every block.
struct FileInner : Node {
  Digest128 sum;
  uint32_t blocks = 0;
  uint16_t dirty = 0;
  Node* child[kFanout] = {};  // FileInner of level - 1, or FileLeaf when level is 1; or a LazyNode for one

  FileInner() : Node(NodeKind::kFileInner) {}
};

struct FileLeaf : Node {
  Digest128 sum;
  uint16_t dirty = 0;
  // Blocks that another leaf may also point to; a clear bit means the block is this leaf's alone. Kept here
  // so that an overwrite need not touch the block's count. Atomic because two forks may copy one leaf at
  // once.
  mutable std::atomic<uint16_t> shared{0};
  std::byte* block[kFanout] = {};  // from the BlockPool
  Digest128 hash[kFanout] = {};    // of block_hash; valid while clean

  FileLeaf() : Node(NodeKind::kFileLeaf) {}
  FileLeaf(const FileLeaf& other);  // shares the blocks
};

// The bytes of a file of at most kMax bytes, or of a symlink; what the file has beyond `length` is zero.
struct SmallFile : Node {
  static constexpr uint32_t kMax = 2048;
  uint32_t capacity;
  uint32_t length = 0;

  static SmallFile* create(uint32_t capacity);
  std::byte* bytes() { return reinterpret_cast<std::byte*>(this + 1); }
  const std::byte* bytes() const { return reinterpret_cast<const std::byte*>(this + 1); }
  ByteView view() const { return {bytes(), length}; }

 private:
  explicit SmallFile(uint32_t bytes) : Node(NodeKind::kSmallFile), capacity(bytes) {}
};

// All extended attributes of one inode, sorted by name; never changed, only replaced. bytes() is `count`
// times name length:u8, value length:u32, name, value.
struct Xattrs : Node {
  uint32_t length;  // of bytes()

  static Xattrs* create(uint32_t length);
  std::byte* bytes() { return reinterpret_cast<std::byte*>(this + 1); }
  ByteView view() const { return {reinterpret_cast<const std::byte*>(this + 1), length}; }

 private:
  explicit Xattrs(uint32_t bytes) : Node(NodeKind::kXattrs), length(bytes) {}
};

// --- the canonical encoding behind the state digest (docs/data-model.md)

// Of one block of a file: index, and the block without its trailing zero bytes. Zero for a block that is all
// zero.
Digest128 block_hash(uint64_t index, ByteView block);
Digest128 dentry_hash(std::string_view name, uint8_t type, InodeId inode);
Digest128 xattrs_sum(const Xattrs* xattrs);
// Of an inode whose sum is up to date.
Digest128 inode_hash(InodeId id, const Inode& inode);
// The sum of an inode, or of a node of the inode table, that may not be up to date. Changes nothing.
Digest128 settled_sum(const Inode& inode);
Digest128 settled_sum(const Node& table_node);

}  // namespace reprise::fs

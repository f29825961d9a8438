// SourcedFile: the content of a file whose bytes are somewhere else, and which of them have been replaced
// since. docs/lazy.md has the picture.
//
// Bytes [0, limit) are those of the source, but for the blocks that are held; from limit on everything that
// is not held is zero. Held blocks are whole blocks: which ones there are follows from the operations alone,
// so that a replay needs no source. Nothing that is read is kept: holding means to have been written.
//
// For fs/ itself, for store/, which implements sources, and for snapshot/, which makes such files, writes
// them out and builds them again. Threads: as the tree it is in; a Source is read from any.
#pragma once

#include <memory>
#include <utility>

#include "fs/errno.h"
#include "fs/node.h"

namespace reprise::fs {

class Source {
 public:
  virtual ~Source() = default;
  // Fills `into` with the bytes of the file `key` from offset on, all of which it had when it was recorded.
  // Those very bytes or an error (EIO; EACCES where the host refuses): never others. May wait for a disk; no
  // lock of a filesystem is held.
  virtual Outcome<void> read(ByteView key, uint64_t offset, ByteSpan into) = 0;
};

struct SourcedFile : Node {
  static constexpr size_t kKeyMax = 4352;

  const std::shared_ptr<Source> source;
  uint64_t limit = 0;         // bytes; never 0
  uint64_t held_blocks = 0;   // in held
  uint64_t covered_held = 0;  // those of them that begin below limit
  Digest128 held_sum;         // over the indices of those
  Node* held = nullptr;       // FileInner or FileLeaf
  const uint32_t key_length;

  // For the node's owner. The key is the source's business.
  static SourcedFile* create(std::shared_ptr<Source> source, uint64_t limit, ByteView key);
  static void destroy(SourcedFile* file);  // with nothing held any more
  ByteView key() const { return {reinterpret_cast<const std::byte*>(this + 1), key_length}; }
  uint64_t covered_blocks() const { return (limit + kBlockSize - 1) / kBlockSize; }
  // What such a file counts as: all that it covers, whoever has it, and what is held behind that.
  uint64_t blocks() const { return covered_blocks() + held_blocks - covered_held; }
  // Another owner's copy, which shares what is held.
  SourcedFile* clone() const;

 private:
  SourcedFile(std::shared_ptr<Source> from, uint32_t key_bytes)
      : Node(NodeKind::kSourced), source(std::move(from)), key_length(key_bytes) {}
};
inline SourcedFile* clone(const SourcedFile& file) {
  return file.clone();
}

inline bool is_sourced(const Node* content) {
  return content != nullptr && content->kind == NodeKind::kSourced;
}
inline const SourcedFile& as_sourced(const Node* content) {
  return *static_cast<const SourcedFile*>(content);
}

// A reference to a file's content, which stays as it is while this is there: taken under the filesystem's
// lock, read without it.
class PinnedContent {
 public:
  PinnedContent() = default;
  explicit PinnedContent(const Node* content) : content_(retain(const_cast<Node*>(content))) {}
  PinnedContent(PinnedContent&& other) noexcept : content_(std::exchange(other.content_, nullptr)) {}
  PinnedContent& operator=(PinnedContent&& other) noexcept {
    std::swap(content_, other.content_);
    return *this;
  }
  ~PinnedContent() { release(content_); }
  const Node* get() const { return content_; }

 private:
  Node* content_ = nullptr;
};

namespace sourced {

// Reads `into`, all of which lies below the file's size. Waits for the source.
Outcome<void> read(const SourcedFile& file, uint64_t offset, ByteSpan into);
// The same where nothing of it is the source's; false, with any bytes in `into`, where something is.
bool read_held(const SourcedFile& file, uint64_t offset, ByteSpan into);

// The first and the last block of a change may be changed in part; what the source has of these, and the
// change leaves, the tree has to hold first.
struct Edges {
  uint64_t head = 0, tail = 0;  // bytes before the range, and behind it; below limit
  bool none() const { return head == 0 && tail == 0; }
};
Edges edges_of(const SourcedFile& file, uint64_t offset, uint64_t length);
// Of a range that becomes zero: to the limit or past it, that takes nothing to be held.
Edges edges_to_clear(const SourcedFile& file, uint64_t offset, uint64_t length);

// --- changing, of an inode that table::own returned, whose content is sourced; kept right: blocks, and
// whether the content is still a SourcedFile. There are no edges, as above; size is the caller's.
void write(Inode& inode, uint64_t offset, ByteView data);
void punch(Inode& inode, uint64_t offset, uint64_t length);
void cut(Inode& inode, uint64_t size);

// --- digest: of where the bytes come from, and of those that are held
Digest128 sum(const SourcedFile& file, const Digest128& held);
// Of the members of held_sum.
Digest128 held_index_hash(uint64_t index);

// Fills in held_blocks, covered_held and held_sum of a node whose limit and held are set.
void count_held(SourcedFile& file);

}  // namespace sourced
}  // namespace reprise::fs

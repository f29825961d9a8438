// The bytes of files: small ones in one node, others as a radix tree of 4 KiB blocks with holes, or with
// what a source has instead of holes (fs/sourced_file.h). Inside fs/ only.
//
// Changing functions take an inode that table::own returned; they keep size, blocks and the dirty bits right.
// Ranges are the caller's to check: nothing here goes past kFileSizeMax. What is changed has been loaded
// (load) and its content brought in (fs/lazy_node.h); what is read is loaded, and where that cannot be,
// reading says so and what walks blocks ends there (take_load_failure says why).
#pragma once

#include <functional>

#include "fs/errno.h"
#include "fs/node.h"

namespace reprise::fs::file_content {

// EREMOTEIO, with any bytes in `into`, where some of them are a source's. Waits for nobody but for content
// that has not been loaded: EIO where it cannot be.
Outcome<size_t> read_held(const Inode& inode, uint64_t offset, ByteSpan into);
// The same, from the source too: EIO, EACCES.
Outcome<size_t> read(const Inode& inode, uint64_t offset, ByteSpan into);
// How many bytes a read of so many gives.
size_t readable(uint64_t size, uint64_t offset, size_t wanted);

// --- changing. Of a file that rests on a source only what has no edges (sourced::edges_of).
void write(Inode& inode, uint64_t offset, ByteView data);
void resize(Inode& inode, uint64_t size);
// [offset, offset + length) becomes zero, whole blocks become holes; the size stays.
void punch(Inode& inode, uint64_t offset, uint64_t length);
// offset and length are multiples of kBlockSize; the range lies inside the file. Not of a sourced file.
void collapse(Inode& inode, uint64_t offset, uint64_t length);
void insert(Inode& inode, uint64_t offset, uint64_t length);
// The ranges do not overlap when both inodes are one. Neither is sourced.
void copy(const Inode& from, uint64_t from_offset, Inode& to, uint64_t to_offset, uint64_t length);
// The content of a symlink that has none yet.
void set_target(Inode& inode, std::string_view target);

// Start of the first block with bytes, or of the first hole, at or after offset; size when there is none.
// EIO.
Outcome<uint64_t> next_data(const Inode& inode, uint64_t offset);
Outcome<uint64_t> next_hole(const Inode& inode, uint64_t offset);

// Loads what of a content is not loaded yet of the blocks [first, end), and all that does not come in parts.
// EIO.
Outcome<void> load(const Node* content, uint64_t first, uint64_t end);
inline constexpr uint64_t kAllBlocks = ~uint64_t{0};

// In order of index, until visit says false. A small file has block 0, cut off at its stored length; of a
// sourced file those that are held.
void for_each_block(const Inode& inode, const std::function<bool(uint64_t index, ByteView block)>& visit);

// --- a tree of blocks by itself (FileInner, FileLeaf, or null)
const std::byte* block_at(const Node* blocks, uint64_t index);  // null if it is not there
void for_each_held_block(const Node* blocks, const std::function<void(uint64_t index)>& visit);
// As write, of an inode whose content is blocks and stays that.
void write_blocks(Inode& inode, uint64_t offset, ByteView data);
// Gives such an inode a block that somebody else has too.
void share_block(Inode& inode, uint64_t index, std::byte* block);

// What a node of a file adds to the sum and the blocks of what is above it; its first block is `base`.
struct Part {
  Digest128 sum;
  uint32_t blocks = 0;
};
Part part_of(const Node& node, uint64_t base);
// Hashes all blocks of a leaf, which is nobody else's, for this place; none is dirty then.
void hash_blocks(FileLeaf& leaf, uint64_t base);
// How many blocks below it are in memory.
uint64_t loaded_blocks(const Node* node);

// What Inode::sum should be: of a directory as it is, else computed from the content; changes nothing.
Digest128 sum_of_inode(const Inode& inode);
// The same, and no block is dirty afterwards.
Digest128 settle_inode(Inode& inode);

}  // namespace reprise::fs::file_content

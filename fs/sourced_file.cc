#include "fs/sourced_file.h"

#include <algorithm>
#include <new>
#include <utility>

#include "base/hash.h"
#include "fs/file_content.h"
#include "fs/own.h"

namespace reprise::fs {

SourcedFile* SourcedFile::create(std::shared_ptr<Source> source, uint64_t limit, ByteView key) {
  CHECK(limit > 0 && !key.empty() && key.size() <= kKeyMax);
  void* memory = ::operator new(sizeof(SourcedFile) + key.size());
  auto* file = new (memory) SourcedFile(std::move(source), static_cast<uint32_t>(key.size()));
  file->limit = limit;
  std::memcpy(static_cast<void*>(file + 1), key.data(), key.size());
  return file;
}

void SourcedFile::destroy(SourcedFile* file) {
  file->~SourcedFile();
  ::operator delete(file);
}

SourcedFile* SourcedFile::clone() const {
  SourcedFile* copy = create(source, limit, key());
  copy->held_blocks = held_blocks;
  copy->covered_held = covered_held;
  copy->held_sum = held_sum;
  copy->held = retain(held);
  return copy;
}

namespace sourced {
namespace {

// What is held, as the content of an inode by itself, for the functions that change such content. Goes back
// into the file when it is done.
class HeldAsFile {
 public:
  explicit HeldAsFile(SourcedFile& file) : file_(file) {
    inode_.mode = S_IFREG;
    inode_.size = kFileSizeMax;
    inode_.content = std::exchange(file.held, nullptr);
    inode_.blocks = static_cast<uint32_t>(file.held_blocks);
  }
  ~HeldAsFile() {
    file_.held = inode_.content;
    file_.held_blocks = inode_.blocks;
  }
  HeldAsFile(const HeldAsFile&) = delete;
  HeldAsFile& operator=(const HeldAsFile&) = delete;
  Inode& inode() { return inode_; }

 private:
  SourcedFile& file_;
  Inode inode_;
};

bool is_covered(const SourcedFile& file, uint64_t block) {
  return block * kBlockSize < file.limit;
}

// A covered block is about to be held.
void note_held(SourcedFile& file, uint64_t block) {
  if (!is_covered(file, block) || file_content::block_at(file.held, block) != nullptr) return;
  file.covered_held++;
  file.held_sum += held_index_hash(block);
}

// After a change: where nothing is the source's any more, what is held is the file.
void settle_form(Inode& inode) {
  auto& file = static_cast<SourcedFile&>(*inode.content);
  inode.blocks = static_cast<uint32_t>(file.blocks());
  if (file.covered_held < file.covered_blocks()) return;
  inode.content = retain(file.held);
  inode.blocks = static_cast<uint32_t>(file.held_blocks);
  release(&file);
}

}  // namespace

Outcome<void> read(const SourcedFile& file, uint64_t offset, ByteSpan into) {
  while (!into.empty()) {
    uint64_t block = offset / kBlockSize;
    size_t n = std::min<uint64_t>(into.size(), kBlockSize - offset % kBlockSize);
    const std::byte* held = file_content::block_at(file.held, block);
    if (held != nullptr) {
      std::memcpy(into.data(), held + offset % kBlockSize, n);
    } else if (offset >= file.limit) {
      std::memset(into.data(), 0, n);
    } else {
      // As far as it goes without a block that is held.
      while (n < into.size() && offset + n < file.limit &&
             file_content::block_at(file.held, (offset + n) / kBlockSize) == nullptr)
        n = std::min<uint64_t>(into.size(), n + kBlockSize);
      size_t there = std::min<uint64_t>(n, file.limit - offset);
      TRY(file.source->read(file.key(), offset, into.first(there)));
      std::memset(into.data() + there, 0, n - there);
    }
    offset += n;
    into = into.subspan(n);
  }
  return {};
}

bool read_held(const SourcedFile& file, uint64_t offset, ByteSpan into) {
  while (!into.empty()) {
    size_t n = std::min<uint64_t>(into.size(), kBlockSize - offset % kBlockSize);
    const std::byte* held = file_content::block_at(file.held, offset / kBlockSize);
    if (held == nullptr && offset < file.limit) return false;
    if (held != nullptr)
      std::memcpy(into.data(), held + offset % kBlockSize, n);
    else
      std::memset(into.data(), 0, n);
    offset += n;
    into = into.subspan(n);
  }
  return true;
}

Edges edges_of(const SourcedFile& file, uint64_t offset, uint64_t length) {
  Edges edges;
  const uint64_t end = offset + length;
  auto is_lacking = [&](uint64_t block) {
    return is_covered(file, block) && file_content::block_at(file.held, block) == nullptr;
  };
  if (offset % kBlockSize != 0 && is_lacking(offset / kBlockSize)) edges.head = offset % kBlockSize;
  if (end % kBlockSize != 0 && is_lacking(end / kBlockSize)) {
    uint64_t block_end = std::min(end - end % kBlockSize + kBlockSize, file.limit);
    edges.tail = block_end > end ? block_end - end : 0;
  }
  return edges;
}

Edges edges_to_clear(const SourcedFile& file, uint64_t offset, uint64_t length) {
  return offset + length >= file.limit ? Edges{} : edges_of(file, offset, length);
}

void write(Inode& inode, uint64_t offset, ByteView data) {
  auto* file = own<SourcedFile>(inode.content);
  CHECK(edges_of(*file, offset, data.size()).none());
  const uint64_t last = (offset + data.size() - 1) / kBlockSize;
  for (uint64_t block = offset / kBlockSize; block <= last && is_covered(*file, block); block++)
    note_held(*file, block);
  {
    HeldAsFile held(*file);
    file_content::write_blocks(held.inode(), offset, data);
  }
  settle_form(inode);
}

void punch(Inode& inode, uint64_t offset, uint64_t length) {
  auto* file = own<SourcedFile>(inode.content);
  const uint64_t end = offset + length;
  if (offset < file->limit && end >= file->limit) {
    // All of what the source has from here on: behind the limit it is zero by itself.
    {
      HeldAsFile held(*file);
      file_content::punch(held.inode(), offset, length);
    }
    file->limit = offset;
    count_held(*file);
    settle_form(inode);
    return;
  }
  CHECK(edges_to_clear(*file, offset, length).none());
  {
    HeldAsFile held(*file);
    file_content::punch(held.inode(), offset, length);
  }
  // What was held there and what was not: both are zeros that are held, and one block for all.
  std::byte* zeros = nullptr;
  for (uint64_t block = (offset + kBlockSize - 1) / kBlockSize; (block + 1) * kBlockSize <= end; block++) {
    if (!is_covered(*file, block)) break;
    if (zeros == nullptr) {
      zeros = BlockPool::allocate();
      std::memset(zeros, 0, kBlockSize);
    }
    HeldAsFile held(*file);
    file_content::share_block(held.inode(), block, zeros);
  }
  if (zeros != nullptr) BlockPool::release(zeros);
  count_held(*file);
  settle_form(inode);
}

void cut(Inode& inode, uint64_t size) {
  auto* file = own<SourcedFile>(inode.content);
  {
    HeldAsFile held(*file);
    file_content::punch(held.inode(), size, kFileSizeMax - size);
  }
  file->limit = std::min(file->limit, size);
  count_held(*file);
  settle_form(inode);
}

Digest128 sum(const SourcedFile& file, const Digest128& held) {
  Bytes record;
  record.reserve(32 + file.key_length);
  append_value(record, file.limit);
  append_value(record, file.held_sum);
  append_bytes(record, file.key());
  Digest128 sum = hash128(record);
  sum += held;
  return sum;
}

Digest128 held_index_hash(uint64_t index) {
  std::byte record[8];
  store_value(record, index);
  return hash128(record);
}

void count_held(SourcedFile& file) {
  file.held_blocks = file.covered_held = 0;
  file.held_sum = {};
  file_content::for_each_held_block(file.held, [&](uint64_t index) {
    file.held_blocks++;
    if (!is_covered(file, index)) return;
    file.covered_held++;
    file.held_sum += held_index_hash(index);
  });
}

}  // namespace sourced
}  // namespace reprise::fs

#include "fs/content_digest.h"

#include <algorithm>
#include <string>
#include <vector>

#include "base/hash.h"
#include "fs/tree.h"

namespace reprise::fs {

void FileContentHash::add_block(uint64_t index, ByteView block) {
  sum_ += block_hash(index, block);
}

void FileContentHash::add_bytes(uint64_t offset, ByteView bytes) {
  CHECK(offset % kBlockSize == 0);
  for (uint64_t index = offset / kBlockSize; !bytes.empty(); index++) {
    size_t n = std::min<size_t>(bytes.size(), kBlockSize);
    add_block(index, bytes.first(n));
    bytes = bytes.subspan(n);
  }
}

void ContentDigest::add_file(std::string_view path, uint32_t mode, uint64_t size,
                             const FileContentHash& content) {
  add(path, mode, 0, size, content.sum());
}

void ContentDigest::add_symlink(std::string_view path, std::string_view target) {
  add(path, S_IFLNK, 0, target.size(), hash128(as_bytes(target)));
}

void ContentDigest::add_other(std::string_view path, uint32_t mode, uint64_t rdev) {
  if (S_ISSOCK(mode)) return;
  add(path, mode, S_ISCHR(mode) || S_ISBLK(mode) ? rdev : 0, 0, {});
}

void ContentDigest::add(std::string_view path, uint32_t mode, uint64_t rdev, uint64_t size,
                        const Digest128& content) {
  Bytes entry;
  entry.reserve(48 + path.size());
  append_value(entry, static_cast<uint32_t>(mode & S_IFMT));
  append_value(entry, static_cast<uint32_t>(mode & 07777));
  append_value(entry, rdev);
  append_value(entry, size);
  append_value(entry, content.lo);
  append_value(entry, content.hi);
  append_value(entry, uint64_t{0});
  append_bytes(entry, as_bytes(path));
  sum_ += hash128(entry);
}

namespace {

constexpr size_t kChunkBytes = 64 * kBlockSize;

Outcome<FileContentHash> hash_file(const Tree& tree, InodeId file, uint64_t size, Bytes& buffer) {
  FileContentHash hash;
  for (uint64_t offset = 0; offset < size;) {
    auto data = tree.seek_data(file, offset);
    if (!data && data.error() != Errno{ENXIO}) return std::unexpected(data.error());
    if (!data) break;  // nothing but a hole is left
    uint64_t end = TRY(tree.seek_hole(file, *data));
    for (offset = *data / kBlockSize * kBlockSize; offset < end; offset += kChunkBytes) {
      buffer.resize(std::min<uint64_t>(kChunkBytes, end - offset));
      hash.add_bytes(offset, ByteView(buffer).first(TRY(tree.read(file, offset, buffer))));
    }
    offset = end;
  }
  return hash;
}

}  // namespace

Outcome<Digest128> content_digest(const Tree& tree, InodeId top) {
  ContentDigest digest;
  Bytes buffer;
  std::vector<std::pair<std::string, InodeId>> directories = {{"", top}};
  while (!directories.empty()) {
    auto [path, directory] = std::move(directories.back());
    directories.pop_back();
    Outcome<void> walked;
    auto add = [&](const Dentry& entry) -> Outcome<void> {
      std::string entry_path = path.empty() ? std::string(entry.name) : path + "/" + std::string(entry.name);
      Attributes attributes = TRY(tree.stat(entry.inode));
      if (attributes.is_regular()) {
        digest.add_file(entry_path, attributes.mode, attributes.size,
                        TRY(hash_file(tree, entry.inode, attributes.size, buffer)));
      } else if (attributes.is_symlink()) {
        digest.add_symlink(entry_path, TRY(tree.read_link(entry.inode)));
      } else {
        digest.add_other(entry_path, attributes.mode, attributes.rdev);
      }
      if (attributes.is_directory()) directories.emplace_back(std::move(entry_path), entry.inode);
      return {};
    };
    TRY(tree.read_directory(directory, 0, [&](const Dentry& entry) {
      walked = add(entry);
      return walked.has_value();
    }));
    if (!walked) return std::unexpected(walked.error());
  }
  return digest.value();
}

}  // namespace reprise::fs

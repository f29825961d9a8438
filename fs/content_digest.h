// The content digest: what a tree, a directory of the host and an archive can be compared by. Here is its
// encoding; who walks what is the caller's (fs/content_digest.cc walks a Tree).
//
//   digest          = Σ H(entry)     over everything below the top but sockets; wraps at 2^128, so order is
//   of no account entry           = 48 bytes, then the path
//                      0  type        u32     S_IFMT bits of the mode
//                      4  permissions u32     07777 bits; 0 of a symlink
//                      8  rdev        u64     of character and block devices, else 0
//                     16  size        u64     of regular files and symlink targets, else 0
//                     24  content     u128    of a regular file: Σ H_block(b) over its blocks
//                     (docs/data-model.md §5), so that
//                                             holes cost nothing; of a symlink: H(target); else 0
//                     40  zero        u64
//                     48  path        relative to the top, parts parted by '/'
//
// H is XXH3-128. Owners, times, inode numbers, extended attributes and the sizes of directories are left out;
// a file with two names counts as two files.
#pragma once

#include <string_view>

#include "base/bytes.h"
#include "base/ids.h"

namespace reprise::fs {

// Of one regular file, from its bytes.
class FileContentHash {
 public:
  // The block of this index (at most kBlockSize bytes, zeros beyond them). Blocks that are all zero may be
  // left out.
  void add_block(uint64_t index, ByteView block);
  // Bytes from a multiple of kBlockSize on.
  void add_bytes(uint64_t offset, ByteView bytes);
  Digest128 sum() const { return sum_; }

 private:
  Digest128 sum_;
};

class ContentDigest {
 public:
  // Sockets may be given too; they do not count.
  void add_file(std::string_view path, uint32_t mode, uint64_t size, const FileContentHash& content);
  void add_symlink(std::string_view path, std::string_view target);
  void add_other(std::string_view path, uint32_t mode,
                 uint64_t rdev);  // directories, FIFOs, devices, sockets
  Digest128 value() const { return sum_; }

 private:
  void add(std::string_view path, uint32_t mode, uint64_t rdev, uint64_t size, const Digest128& content);
  Digest128 sum_;
};

}  // namespace reprise::fs

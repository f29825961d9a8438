// What a filesystem says about its inodes. Values only.
#pragma once

#include <sys/stat.h>

#include <cstdint>
#include <string_view>

#include "base/clock.h"
#include "base/ids.h"

namespace reprise::fs {

inline constexpr uint32_t kBlockSize = 4096;
inline constexpr size_t kNameMax = 255;   // bytes in one name
inline constexpr size_t kPathMax = 4095;  // bytes in one path, without the final NUL
inline constexpr uint32_t kLinkMax =
    65000;  // names of one file; subdirectories of a directory are not counted
inline constexpr uint64_t kFileSizeMax =
    uint64_t{1} << 44;  // bytes in one file: 16 TiB, also what a volume's limit may be
inline constexpr uint64_t kFileBlocksMax = kFileSizeMax / kBlockSize;
inline constexpr size_t kXattrNameMax = 255;
inline constexpr size_t kXattrValueMax = 65536;  // bytes
inline constexpr size_t kXattrsMax = 131072;     // bytes: names and values of one inode together
inline constexpr int kSymlinksMax = 40;          // followed in one path

// Attributes of one inode at one moment. mode carries the file type (S_IFMT) and the permission bits.
struct Attributes {
  InodeId inode;
  uint32_t mode = 0;
  uint32_t uid = 0, gid = 0;
  uint32_t nlink = 0;
  uint64_t size = 0;    // bytes; for a directory the number of its entries
  uint64_t blocks = 0;  // of kBlockSize held in memory for its bytes
  uint64_t rdev = 0;
  Timestamp atime, mtime, ctime;

  bool is_directory() const { return S_ISDIR(mode); }
  bool is_regular() const { return S_ISREG(mode); }
  bool is_symlink() const { return S_ISLNK(mode); }
};

// The DT_… value of a mode, as readdir shows it; fits in four bits.
inline uint8_t type_of_mode(uint32_t mode) {
  return static_cast<uint8_t>((mode & S_IFMT) >> 12);
}

// One name in a directory.
struct Dentry {
  std::string_view name;  // valid until the tree it was read from changes or goes
  InodeId inode;
  uint8_t type = 0;     // DT_…
  uint64_t cookie = 0;  // resume reading after this entry; stable while other entries come and go
};

}  // namespace reprise::fs

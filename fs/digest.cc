// The canonical encoding behind the state digest; docs/data-model.md specifies it.
#include <bit>

#include "base/hash.h"
#include "fs/file_content.h"
#include "fs/node.h"
#include "fs/table.h"
#include "fs/xattrs.h"

namespace reprise::fs {
namespace {

size_t length_without_trailing_zeros(ByteView block) {
  size_t n = block.size();
  while (n >= 8 && load_value<uint64_t>(block.data() + n - 8) == 0) n -= 8;
  while (n > 0 && block[n - 1] == std::byte{0}) n--;
  return n;
}

}  // namespace

Digest128 block_hash(uint64_t index, ByteView block) {
  size_t n = length_without_trailing_zeros(block);
  if (n == 0) return {};
  Digest128 content = hash128(block.first(n));
  std::byte record[24];
  store_value(record, content.lo);
  store_value(record + 8, content.hi);
  store_value(record + 16, index);
  return hash128(record);
}

Digest128 dentry_hash(std::string_view name, uint8_t type, InodeId inode) {
  std::byte record[9 + kNameMax];
  CHECK(name.size() <= kNameMax);
  store_value(record, inode.value);
  store_value(record + 8, type);
  std::memcpy(record + 9, name.data(), name.size());
  return hash128({record, 9 + name.size()});
}

Digest128 xattrs_sum(const Xattrs* xattrs) {
  Digest128 sum;
  xattrs::for_each(xattrs, [&](std::string_view name, ByteView value) {
    Bytes record;
    append_value(record, static_cast<uint8_t>(name.size()));
    append_bytes(record, as_bytes(name));
    append_bytes(record, value);
    sum += hash128(record);
    return true;
  });
  return sum;
}

Digest128 inode_hash(InodeId id, const Inode& inode) {
  struct Record {
    uint64_t id;
    uint32_t mode, uid, gid, nlink;
    uint64_t size, rdev;
    int64_t mtime_sec, ctime_sec;
    uint32_t mtime_nsec, ctime_nsec;
    Digest128 content, xattrs;
  };
  static_assert(sizeof(Record) == 8 + 16 + 16 + 16 + 8 + 32, "no padding: the record is hashed as it lies");
  uint32_t type = inode.mode & S_IFMT;
  bool device = type == S_IFCHR || type == S_IFBLK;
  Record record{id.value,
                inode.mode,
                inode.uid,
                inode.gid,
                inode.nlink,
                type == S_IFDIR ? 0 : inode.size,
                device ? inode.rdev_or_parent : 0,
                inode.mtime_sec,
                inode.ctime_sec,
                inode.mtime_nsec,
                inode.ctime_nsec,
                inode.sum,
                inode.xattrs != nullptr ? xattrs_sum(inode.xattrs) : Digest128{}};
  return hash128({reinterpret_cast<const std::byte*>(&record), sizeof record});
}

Digest128 settled_sum(const Inode& inode) {
  return file_content::sum_of_inode(inode);
}

Digest128 settled_sum(const Node& table_node) {
  return table::total(&table_node);
}

}  // namespace reprise::fs

// The files in a store's folder of packs: their names, making one, taking a blob out of one. Private to this
// folder: for those who write packs, collect them and mend them. docs/snapshot-format.md, section 2.
//
// A pack belongs to whoever holds its lock: only the owner appends to it, or takes it away. The lock goes
// with its process.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/disk.h"
#include "base/file_lock.h"
#include "store/catalogue.h"
#include "store/pack_format.h"

namespace reprise::store {

std::string pack_name(uint32_t number);
uint32_t pack_number(std::string_view name);  // 0 if it is no pack's name

struct PackFile {
  uint32_t number = 0;
  uint64_t bytes = 0;
};
Result<std::vector<PackFile>> list_packs(Directory& packs);  // by number
// What has the name of a pack and is none, but a directory, a pipe, a symlink to nowhere and so on. It is no
// pack for list_packs().
struct NoPack {
  std::string name;
  Error why;
};
Result<std::vector<NoPack>> list_no_packs(Directory& packs);

// Locks the file at a path, kBusy if somebody else has; FileLock::own, unless the disk is none of the host.
using OwnPack = std::function<Result<std::unique_ptr<FileLock>>(const std::string& path)>;

struct OwnedPack {
  uint32_t number = 0;
  std::shared_ptr<File> file;
  std::unique_ptr<FileLock> lock;
};
// An empty one under the next free number past `above`. Its entry is not on the disk yet.
Result<OwnedPack> create_pack(Directory& packs, const OwnPack& own, uint32_t above);

using BlobHash = BlobId (*)(ByteView);
// The blob in a frame: its header and what is stored. kCorrupt, naming pack and offset, unless it is the one
// expected and has its hash.
Result<Bytes> unpack_blob(const Directory& packs, BlobId id, const BlobPlace& place, ByteView frame,
                          BlobHash hash);
std::unexpected<Error> damaged_blob(const Directory& packs, BlobId id, const BlobPlace& place,
                                    std::string_view found);

}  // namespace reprise::store

// Packs: a BlobStore of append-only files, one blob after another, found through the catalogue.
// docs/snapshot-format.md has the bytes.
//
// A writer has pack files of its own: the next free number, created when it first puts something. So several
// processes write one store without a lock between them. What a crash leaves behind a pack's last synced blob
// is never pointed to, and nobody appends to a pack after its writer has gone: it is its writer's for as long
// as that holds its lock. After a failed write or sync every later put and sync answers the first error: it
// is not known what is on the disk. A write for which there is no space (kNoSpace) is tried again by the next
// call. Threads: any.
#pragma once

#include <memory>

#include "base/disk.h"
#include "base/hash.h"
#include "store/catalogue.h"
#include "store/pack_files.h"
#include "store/store.h"

namespace reprise::store {

struct PackOptions {
  uint64_t pack_bytes = 256 << 20;  // a new pack begins past this
  size_t buffer_bytes = 1 << 20;    // put and not yet written
  size_t compress_from_bytes = 64;  // smaller blobs are kept as they are
  int compression_level = 1;        // zstd's
  BlobHash hash = hash128;          // tests have it collide
  OwnPack own = FileLock::own;
};

// `packs` is the directory of the pack files; the catalogue must outlive the result.
std::unique_ptr<BlobStore> open_packs(std::unique_ptr<Directory> packs, VolumeId volume, Catalogue& catalogue,
                                      const PackOptions& options = {});
// Blobs in memory, gone with the object.
std::unique_ptr<BlobStore> blobs_in_memory();

}  // namespace reprise::store

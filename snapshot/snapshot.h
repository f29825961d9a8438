// Snapshots: a tree as content-addressed blobs, and back. Every node becomes one blob that refers to its
// children by id; small things lie in the page of their inode (docs/snapshot-format.md, section 3).
//
// Not here: which snapshots a store keeps (store/catalogue.h), a tree on its way to a peer
// (snapshot/stream.h), directories of the host (snapshot/export.h). Inodes without links are in no snapshot.
//
//   Captured captured = TRY(capture(view, store.blobs()));
//   TRY(store.blobs().sync());
//   fs::View again = TRY(load(captured.root, store.blobs()));   // again.digest() == view.digest()
#pragma once

#include <functional>
#include <memory>

#include "base/error.h"
#include "base/ids.h"
#include "fs/tree.h"
#include "store/blob.h"

namespace reprise::snapshot {

struct Captured {
  BlobId root;
  uint64_t blobs = 0, bytes = 0;  // handed to the sink; it may have had some of them already
};

// Is the sink the store of the instance that the tree belongs to?
enum class Remember {
  kYes,  // nodes are marked as stored, and those that are marked are skipped with all below: O(changes) from
         // then on
  kNo,   // a peer or another store: every node is put and no mark is read or left; kUnsupported for a tree
         // that rests on a source, which is nobody else's
};

// Children first, the root last. The tree is a View, or a Head that nobody changes meanwhile; captures of
// trees that share nodes may run at the same time. Marks mean "put", not "on the disk": after a failed put or
// sync the store answers that error to everything, so that no later snapshot can rest on what was lost.
Result<Captured> capture(const fs::Tree& tree, store::BlobSink& sink, Remember remember = Remember::kYes);

struct LoadLimits {
  uint64_t memory_bytes = uint64_t{64} << 30;  // that the nodes may take up; kNoSpace beyond it
};

// The whole tree, now, but for bytes that are a source's; kUnsupported where there are such and `rests_on` is
// null. Sums and hashes are computed from the bytes, so that the caller can compare digest()
// with the one that was recorded. kNotFound when a blob is missing, kCorrupt when the blobs are no tree.
Result<fs::View> load(BlobId root, store::BlobSource& source, Remember remember = Remember::kYes,
                      const LoadLimits& limits = {}, std::shared_ptr<fs::Source> rests_on = nullptr);

// The same of which only the root directory is loaded now, and the rest when it is touched
// (docs/lazy.md): what cannot be loaded then is EIO there, and is told to `damaged`, from any thread, for a
// person. `source` must have all blobs of the tree for as long as it, or a version made from it, is there; it
// is not kept, and when it is gone, so is what has not been loaded. kUnsupported where the snapshot is of a
// former version, which can only be loaded whole.
Result<fs::View> open_lazily(BlobId root, const std::shared_ptr<store::BlobSource>& source,
                             std::function<void(const Error&)> damaged,
                             std::shared_ptr<fs::Source> rests_on = nullptr);

}  // namespace reprise::snapshot

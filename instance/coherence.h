// CoherenceHook: how changes that did not come through an adapter are applied under caches the adapter feeds.
//
// A kernel that mounts an instance (adapters/fuse) keeps names, attributes and bytes for long. Whoever
// applies remote batches or overwrites the tree does it inside one of these calls; when the call returns,
// nothing that the cache serves is older than the change. Without an adapter there is no hook and the change
// is simply applied.
//
// Owned by the adapter, which outlives the sessions that use it. Threads: any, one change at a time (the hook
// queues); never a thread that serves the adapter's requests, and never with a lock held that such a request
// may need.
#pragma once

#include <functional>
#include <span>

#include "base/error.h"
#include "fs/operation.h"
#include "fs/tree.h"

namespace reprise::instance {

class CoherenceHook {
 public:
  virtual ~CoherenceHook() = default;

  // Runs `apply`, which applies and publishes `operations` (a batch, or several), and drops what they touched
  // from the cache. What was touched is dropped even if `apply` fails half way; its error comes first.
  virtual Status apply_remotely(std::span<const fs::Operation> operations,
                                const std::function<Status()>& apply) = 0;

  // Runs `install`, which replaces the whole tree and returns the old one (Filesystem::install), and drops
  // everything that differs. A failed install is taken to have changed nothing. `next`, if it is known, is
  // what the tree will be: then nobody sees of the new tree the one and of the old the other.
  virtual Status replace_all(const std::function<Result<fs::View>()>& install, const fs::View* next) = 0;
};

}  // namespace reprise::instance

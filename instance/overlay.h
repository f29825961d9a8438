// Overlays: stores whose history begins with a directory of the host as it is, without a copy of it
// (docs/lazy.md). The directory is read, never written; any number of overlays may rest on one.
//
// Threads: any one.
#pragma once

#include <string>
#include <vector>

#include "base/clock.h"
#include "base/error.h"
#include "fs/tree.h"
#include "snapshot/import.h"
#include "store/store.h"

namespace reprise::instance {

struct OverlayMade {
  uint64_t entries = 0, files = 0, bytes = 0;  // files that are not empty, and what they have
  std::vector<std::string> unreadable;         // directories that may not be listed: empty in the overlay
};

// A new store at `path` whose branch main begins with `directory`, an absolute path, as it is now. On the
// disk when it returns; after an error there is none. kAlreadyExists, kNotFound, kPermission, kIo.
Result<OverlayMade> make_overlay(const std::string& path, const std::string& directory, Clock& clock,
                                 Random& random, const snapshot::ImportProgress& progress = nullptr);

// The directory that a store rests on. kInvalidArgument if it rests on none; kCorrupt if making it was
// interrupted.
Result<store::BaseDirectory> overlay_directory(store::Store& store);
// That directory as it was; kNotFound if the snapshot has been deleted.
Result<fs::Head> overlay_base(store::Store& store);

}  // namespace reprise::instance

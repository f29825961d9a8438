// The walk over a tree that all exports have in common: in which order, what is left out, and which names are
// hard links of each other. What becomes of an entry is its EntrySink's business. Threads: one.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "snapshot/export.h"

namespace reprise::snapshot {

struct ExportEntry {
  std::string path;            // from the top, without a slash at either end
  fs::Attributes attributes;   // as they are to be written
  std::string_view target;     // of a symlink
  std::string_view hard_link;  // if not empty, the path of an earlier entry that is the same file
  std::vector<std::pair<std::string_view, ByteView>> xattrs;  // sorted by name
};

class EntrySink {
 public:
  virtual ~EntrySink() = default;
  // The directory that is exported itself, with the path "", before all others.
  virtual Status add_top(const ExportEntry&, Exported&) { return {}; }
  // A directory comes before what is in it. What cannot be held is left out and counted in `done`; so is what
  // has been written.
  virtual Status add(const ExportEntry& entry, Exported& done) = 0;
  virtual Status finish() { return {}; }
};

Result<Exported> walk_tree(const fs::Tree& tree, InodeId top, EntrySink& sink, const ExportOptions& options,
                           const ExportProgress& progress);

// The bytes of a file that are not holes, in order, in pieces of at most 1 MiB.
Status for_each_piece(const fs::Tree& tree, const ExportEntry& entry, Bytes& buffer,
                      const std::function<Status(uint64_t offset, ByteView bytes)>& take);

// Does the filter leave this path? Of a directory that is not included itself, something below may be.
enum class Filtered : uint8_t { kIn, kOut, kMaybeBelow };
Filtered filter_path(const PathFilter& filter, const std::string& path, bool is_directory,
                     bool included_above);

}  // namespace reprise::snapshot

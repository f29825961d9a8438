// What to say after an export.
#pragma once

#include <fmt/format.h>

#include "snapshot/export.h"

namespace reprise::cli {

inline uint64_t entries_of(const snapshot::Exported& exported) {
  return exported.files + exported.directories + exported.symlinks + exported.others + exported.hard_links;
}

inline void warn_of_skipped(const snapshot::Exported& exported) {
  auto warn = [](uint64_t count, const char* what) {
    if (count > 0) fmt::print(stderr, "reprise: left out {} {}\n", count, what);
  };
  warn(exported.skipped_devices, "device nodes (--devices makes them)");
  warn(exported.skipped_sockets, "sockets");
  warn(exported.skipped_set_ids, "setuid or setgid bits (--owners keeps them)");
  warn(exported.skipped_xattrs, "extended attributes");
}

}  // namespace reprise::cli

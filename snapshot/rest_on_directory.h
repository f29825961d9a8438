// A tree that rests on a directory of the host: names and attributes are read now, bytes when somebody asks
// for them (docs/lazy.md). Threads: one.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "base/clock.h"
#include "snapshot/import.h"
#include "store/host_source.h"

namespace reprise::snapshot {

struct Rested {
  fs::Head head;
  uint64_t entries = 0;
  uint64_t files = 0;  // that rest on the directory: those that are not empty
  uint64_t bytes = 0;  // of these
  // That this user may not list: they are empty in the tree.
  std::vector<std::string> unreadable;
};

// Everything that import_directory would take, with the times, owners and attributes that it has there. A
// file that was changed just now is looked at again a little later, until its time of change tells it from
// any later one. What goes meanwhile is left out.
Result<Rested> rest_on_directory(const std::shared_ptr<store::HostSource>& source, Clock& clock,
                                 const ImportProgress& progress = nullptr);

}  // namespace reprise::snapshot

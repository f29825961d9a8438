// What leads from an instance's tree to another one, made aside from it, becomes its history. For imports.
//
// The other tree has what the instance's has, and more: files and directories that are new or have taken the
// place of other files. What has taken the place of a file with the same bytes, attributes and time of change
// is passed over: the old one stays. Peers and what is left after a crash see none of it or all: what does
// not go into one batch is built in a hidden directory, and takes its places in one batch at the end.
// Threads: any one.
//
//   fs::View before = instance.filesystem().view();
//   fs::Head wanted(before);
//   … change wanted; inodes that are new there get other ids …
//   TRY(record_tree(instance, before, wanted, "import site.zip", now));
#pragma once

#include <string_view>

#include "base/error.h"
#include "instance/instance.h"

namespace reprise::instance {

struct RecordLimits {
  // One call records so much at the most, and all of it if it is no more.
  uint64_t bytes = 8 << 20;
  uint64_t inodes = 20'000;
};

// How many files were passed over. kBusy, with nothing changed, if the instance's tree is not `before` any
// more; kNoSpace beyond the volume's limits; kReadOnly, kIo. `now` becomes the time of the operations. After
// an error in the middle (a full disk, say) the hidden directory may be left.
Result<uint64_t> record_tree(Instance& instance, const fs::View& before, const fs::Tree& wanted,
                             std::string_view label, Timestamp now, const RecordLimits& limits = {});

// Removes the hidden directories that interrupted calls have left; how many there were. Nothing else is taken
// for one: its name holds its own id. kCorrupt if one cannot be read.
Result<uint64_t> remove_left_imports(Instance& instance, std::string_view label, Timestamp now,
                                     const RecordLimits& limits = {});

}  // namespace reprise::instance

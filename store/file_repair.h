// Making the small files anew that say what a store is: its volume, and the directory that it rests on.
// What was there is kept aside. docs/snapshot-format.md, section 8. Threads: one.
#pragma once

#include <optional>
#include <span>
#include <string>

#include "base/disk.h"
#include "base/error.h"
#include "base/ids.h"

namespace reprise::store {

struct FileRepaired {
  std::string name;       // the file, below the store
  std::string found;      // what was wrong
  std::string set_aside;  // what was there, below the store
};

// The file that names the volume: if one byte of it is wrong, that is put right; else it is made anew if all
// packs, and `others` (what the journals say), name the same volume. kCorrupt if that is not so. nullopt if
// nothing is wrong. kBusy while anybody has the store open for writing.
Result<std::optional<FileRepaired>> repair_identity(const std::string& path,
                                                    std::span<const VolumeId> others);

// The file that names the directory a store rests on, if one byte of it is wrong. With more, kCorrupt: no
// other file names that directory.
Result<std::optional<FileRepaired>> repair_base(const std::string& path);

// A name that is free: NAME.damaged, then NAME.damaged-2 and so on.
Result<std::string> free_name(Directory& directory, std::string_view name);

}  // namespace reprise::store

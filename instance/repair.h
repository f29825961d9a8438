// Repairing a store besides its journals: its catalogue, packs and snapshots. What is damaged is set aside,
// not destroyed; what is lost is said. Journals are repaired by journal::repair_journal. Threads: one.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "journal/repair.h"
#include "store/store.h"

namespace reprise::instance {

struct LostSnapshot {
  store::SnapshotRecord record;
  Error why;
};
struct StoreRepaired {
  bool needed = false;                 // else nothing was done, and the rest is empty
  bool catalogue_anew = false;         // besides
  std::vector<std::string> made_anew;  // small files, below the store, that say what it is
  std::vector<std::string> found;      // what was wrong
  std::vector<std::string> set_aside;  // files, below the store
  std::vector<LostSnapshot> lost;
  uint64_t snapshots = 0;  // that are there
};

struct MarksRestored {
  std::vector<std::string> marks;   // found in the journals
  std::vector<std::string> lost;    // named there, at batches of which the state is not known any more
  std::vector<std::string> unread;  // journals in which marks could not be looked for, and why
};

// kBusy while somebody has the store open for writing.
Result<StoreRepaired> repair_store(const std::string& path);
// What a catalogue that was lost had known of marks is looked for in the journals, until all of them could be
// read: in a damaged one, after it was repaired. Nothing otherwise.
Result<MarksRestored> restore_lost_marks(store::Store& store);

// What the snapshots of a branch hold, of those that can be read.
Result<std::vector<journal::RepairBase>> readable_bases(store::Store& store, std::string_view branch);

// A journal that begins at batch `first` needs one of these to begin from: what is wrong if there is none.
std::optional<Error> missing_base(const store::Store& store, std::string_view branch, LogIndex first,
                                  const std::vector<journal::RepairBase>& bases);

}  // namespace reprise::instance

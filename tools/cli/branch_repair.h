// Repairing one branch: its journal, and what the catalogue says of it. The store besides is
// instance/repair.h.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "journal/repair.h"
#include "store/store.h"

namespace reprise::cli {

struct Repaired {
  journal::JournalRepair journal;
  LogIndex durable = 0;            // what was known to be on the disk
  LogIndex began = 1, begins = 0;  // the journal did, and does, if it has lost its beginning
  bool catalogue_is_new = false;   // so that it does not say what was trimmed
  LogIndex reaches = 0;            // the snapshot that reaches furthest and can be read; 0: none
  std::vector<std::string> lost_marks;
  std::optional<Error> no_base;  // it cannot be opened

  LogIndex end() const { return std::max(journal.last, reaches); }
  // The last of the batches that are in no state any more; end() or before: none.
  LogIndex lost_to() const { return std::max(durable, journal.seen); }
  uint64_t lost() const { return lost_to() > end() ? lost_to() - end() : 0; }
  bool nothing() const {
    return journal.problems.empty() && journal.kept.empty() && lost() == 0 && begins == 0 &&
           lost_marks.empty() && !no_base;
  }
};

// The caller holds the branch's lock; `directory` is its journal. What a crash on the way leaves can be
// repaired again.
Result<Repaired> repair_branch(store::Store& store, const std::string& branch, Directory& directory,
                               journal::CorrectionEffort effort = {});

}  // namespace reprise::cli

// Checking a journal to the last byte, and cutting it at the first damage. For a journal that nobody has
// open.
//
// verify_journal changes nothing. repair_journal never destroys: what it cuts off lies beside the segments
// afterwards, under names that end in ".cut-N". Neither knows what the catalogue says of the journal; their
// callers do.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "base/disk.h"
#include "journal/journal.h"

namespace reprise::journal {

// Bytes of segment files looked at, and there are in all.
using JournalProgress = std::function<void(uint64_t done_bytes, uint64_t all_bytes)>;

struct JournalReport {
  uint64_t segments = 0, batches = 0;  // found good, up to the first problem
  uint64_t bytes = 0;                  // of segment files, likewise
  LogIndex first = 1, last = 0;        // of the good batches; last = first - 1 if there are none
  Vector vector;                       // of everything up to there
  bool clean_close = false;
  bool begins_anew = false;      // an overwrite began the log
  std::optional<Error> problem;  // the first one; names file, offset and log index
  bool torn_tail = false;        // the problem is one that opening mends by itself
};

// Every frame, checksum, batch and LSN, and how the segments follow each other. An Error only when it cannot
// tell: the disk fails, another volume, a version or feature it does not know.
Result<JournalReport> verify_journal(Directory& directory, const JournalIdentity& identity,
                                     LogIndex durable_hint, const JournalProgress& progress = nullptr);

struct JournalRepair {
  LogIndex first = 1, last = 0;  // of the batches left: what the catalogue may at most call durable
  uint64_t cut_bytes = 0;
  std::vector<std::string> kept;  // files that hold what was cut, in the journal's directory
  std::optional<Error> problem;   // why
};

// Cuts at the first problem that verify_journal finds. A crash on the way leaves something that can be
// repaired again.
Result<JournalRepair> repair_journal(Directory& directory, const JournalIdentity& identity,
                                     const JournalProgress& progress = nullptr);

// Puts all segments that are left aside, newest first, and says so in `repair`: for a log that ends before
// what a snapshot holds, since the next opening begins it anew.
Status set_aside_segments(Directory& directory, JournalRepair& repair);

}  // namespace reprise::journal

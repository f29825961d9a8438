// Checking a journal to the last byte. For a journal that nobody has open.
//
// It changes nothing (repair.h does), and does not know what the catalogue says of the journal; its caller
// does.
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
  // Where the problem is, for who repairs it.
  std::vector<uint64_t> sequences;  // of the segments looked at, ascending
  size_t damaged = 0;               // index into them; their number if it is behind the last
  uint64_t damaged_offset = 0;      // 0: not even its header belongs here
  uint64_t chain = 0;               // at the end of the segment before it
};

// Every frame, checksum, batch and LSN, and how the segments follow each other. An Error only when it cannot
// tell: the disk fails, another volume, a version or feature it does not know.
Result<JournalReport> verify_journal(Directory& directory, const JournalIdentity& identity,
                                     LogIndex durable_hint, const JournalProgress& progress = nullptr);

// What else is damaged behind the problem that a report names, in the same files, at most so much of it:
// wherever frames are found again. LSNs are not followed there.
Result<std::vector<Error>> further_damage(Directory& directory, const JournalIdentity& identity,
                                          const JournalReport& report, size_t most);

}  // namespace reprise::journal

// What is sound in a damaged journal: not only what lies before the first damage, as verify.h finds, but also
// what lies behind it. Private to this folder.
#pragma once

#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "journal/recovery.h"
#include "journal/verify.h"

namespace reprise::journal {

// Batches that lie behind each other without damage, across segments too. LSNs are not looked at.
struct SoundRun {
  struct Place {
    size_t segment = 0;  // of those surveyed
    LogIndex index = 0;  // of the first batch from there on
  };
  LogIndex first = 0, end = 0;  // its batches: [first, end)
  size_t segment = 0;           // where it begins
  std::optional<Place> whole;   // from here on it has segments from their first frame on
};

struct SurveyReport {
  LogIndex seen = 0;            // the highest log index that any frame speaks of
  std::optional<SoundRun> run;  // that has batch `wanted` in it, or ends right before it
};

// A segment as far as it can be read: from its header on or, where that is damaged, only by looking for
// frames. nullptr if there is nothing to read.
Result<std::unique_ptr<SegmentReader>> open_damaged_segment(Directory& directory, uint64_t sequence,
                                                            const JournalIdentity& identity);

// An Error only when it cannot tell: the disk fails, another volume, a version or feature it does not know.
Result<SurveyReport> survey_segments(Directory& directory, const JournalIdentity& identity,
                                     const std::vector<uint64_t>& sequences, LogIndex wanted);

// Where a segment that has ended did end, if all that verify has found wrong in it is that it goes on:
// nothing that lies there belongs to the log.
Result<std::optional<uint64_t>> find_end_of_segment(Directory& directory, const JournalIdentity& identity,
                                                    const JournalReport& report);

// Goes on behind damage that reader.next() has just met: behind a frame whose header is sound, else at the
// next frame whose header is one or, in a compressed segment, that its index names. The highest log index
// that this speaks of; nullopt if there is nothing.
Result<std::optional<LogIndex>> skip_damage(SegmentReader& reader);

}  // namespace reprise::journal

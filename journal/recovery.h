// What is done when a journal is opened: which files belong to it, whether they fit together, and where the
// log ends.
//
// A torn tail is cut here; anything worse is kCorrupt and nothing is changed (verify.h repairs). The table of
// states is in docs/journal-format.md. Runs before any thread of the journal exists.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/disk.h"
#include "journal/journal.h"
#include "journal/segment_reader.h"

namespace reprise::journal {

inline constexpr uint64_t kReadPointBytes = 256 * 1024;  // of file between two points

// What a live journal knows of one of its segments.
struct Segment {
  static constexpr uint64_t kToTheEnd = UINT64_MAX;

  uint64_t sequence = 0;
  LogIndex first_index = 0;
  Vector covered;                       // before its first batch
  std::vector<ReadPoint> points;        // ascending, the first at its first frame
  uint64_t readable_bytes = kToTheEnd;  // of the file; less than all while it is being written
  bool compressed = false;
  bool stays = false;  // as it is: it cannot be compressed

  void note_point(const ReadPoint& point) {
    if (points.empty() || point.offset >= points.back().offset + kReadPointBytes) points.push_back(point);
  }
};

struct RecoveredLog {
  std::vector<Segment> segments;  // none: the journal is new
  SegmentHeader last_header;
  SegmentState state;          // at the end of the last segment
  std::unique_ptr<File> file;  // the last segment
  bool sealed = false;         // it is: another must be begun
  Vector vector;               // of everything in the log
  uint64_t batch_bytes = 0;    // of all batches
  Recovery recovery;
};

// What is corrupt is said to be a case for `reprise repair`.
Result<RecoveredLog> recover_log(Directory& directory, const JournalIdentity& identity,
                                 LogIndex durable_hint);

// --- shared with verify.cc and segments_cursor.cc

// What is corrupt, and what can be done about it.
Error offer_repair(const Error& error);

// Sequence numbers of the segments there are, ascending.
Result<std::vector<uint64_t>> list_segments(Directory& directory);
// kWrongVolume, or kCorrupt for another branch or a file under another's name.
Result<std::unique_ptr<SegmentReader>> open_own_segment(Directory& directory, uint64_t sequence,
                                                        const JournalIdentity& identity);
// Is `next` what follows a segment whose frames end in this state, sealed? The chain is compared if it is
// known.
Status check_succession(const SegmentReader& next, uint64_t sequence, LogIndex next_index,
                        std::optional<uint64_t> chain);
// LSNs of an origin are dense: adds the frame's to the vector, or kCorrupt.
Status follow(Vector& vector, const Frame& frame, const std::string& path);
// `damage` is what reader.next() answered. A torn tail if nothing says that what would be lost was on the
// disk: else the error to give. Adds why.
std::optional<Error> damage_below_durable(SegmentReader& reader, const Error& damage, LogIndex durable_hint);

}  // namespace reprise::journal

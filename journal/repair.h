// Making a damaged journal one that can be opened again. For a journal that nobody has open.
//
// One byte that was changed is put right (correction.h), and so is what follows from other bytes: a close or
// seal, a header, the index of a compressed segment; what was appended to a segment that has ended is cut. Of
// other damage it never destroys anything: what it takes out lies beside the segments afterwards, under names
// that end in ".cut-N". What is kept is what gives the latest state: everything before the first damage, or,
// if a snapshot reaches behind that, the sound batches from there on. docs/journal-format.md says what is
// done when. It does not know what the catalogue says of the journal; its caller does.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "base/clock.h"
#include "journal/verify.h"

namespace reprise::journal {

// A state that is kept elsewhere, in a snapshot that can be read.
struct RepairBase {
  LogIndex index = 0;  // the last batch in it
  Vector vector;
};

// How it is looked for what a wrong byte had been: up to so many bytes under one checksum each is tried with
// every value; up to so many with every bit flipped, either of which takes some 5 s; beyond, nothing is
// tried.
struct CorrectionEffort {
  size_t every_value = 128 << 10, every_bit = 1 << 20;
  JournalProgress progress = nullptr;  // of the bytes under one checksum
};

struct JournalRepair {
  LogIndex began = 1;                  // with this batch, before anything was done
  LogIndex first = 1, last = 0;        // of the batches left: what the catalogue may at most call durable
  LogIndex seen = 0;                   // up to here there had been batches, as far as it can be told
  uint64_t cut_bytes = 0;              // taken out; less what is still in the journal too
  std::vector<std::string> kept;       // files that hold what was taken out, in the journal's directory
  std::vector<std::string> corrected;  // where bytes were put right: what is there now, what was before
  std::vector<Error> problems;         // why: the first one, and what was found after that was mended
};

// `bases` in any order; none: as if there were no snapshots. `durable_hint` is what the catalogue says. A
// crash on the way leaves something that can be repaired again; so does an error, which names what was set
// aside until then.
Result<JournalRepair> repair_journal(Directory& directory, const JournalIdentity& identity,
                                     LogIndex durable_hint, std::span<const RepairBase> bases, Random& random,
                                     const JournalProgress& progress = nullptr, CorrectionEffort effort = {});

}  // namespace reprise::journal

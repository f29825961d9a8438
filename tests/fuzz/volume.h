// Of which volume and branch the seeds are.
#pragma once

#include "journal/journal.h"

namespace reprise::fuzz {

inline const journal::JournalIdentity kVolumeOfSeeds{.volume = {.hi = 7, .lo = 8}, .branch = "main"};

}  // namespace reprise::fuzz

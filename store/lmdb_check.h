// Is a file an LMDB environment that can be mapped? LMDB believes what it maps: a file that is too short, or
// pages that are something else, would end the process. So every page that is in use is looked at first, read
// as any untrusted file is.
//
// After it, records may still be wrong (store/records.h checks those), but nothing leads outside the file.
// What is written by another process meanwhile is looked at again. Threads: any.
#pragma once

#include "base/disk.h"

namespace reprise::store {

// kCorrupt, with the page and what was expected there.
Status check_lmdb(const File& file);

}  // namespace reprise::store

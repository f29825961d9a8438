// Marks of a branch whose batches are lost, or are not what they were set at. Threads: one, which holds the
// branch's lock or reads a branch that nobody has.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "journal/verify.h"
#include "store/store.h"

namespace reprise::instance {

// Removes the marks of a branch that name batches after `last`, the last there is: the numbers of what was
// lost will be given to other batches, and a mark must not come to mean those. The names of the removed.
Result<std::vector<std::string>> drop_marks_after(store::Store& store, std::string_view branch,
                                                  LogIndex last);

// What is wrong with the marks of a branch: each must name a batch that sets it, unless that was trimmed.
// `journal` is what verify_journal() said of it, without a problem but a torn tail.
Result<std::vector<std::string>> check_marks(store::Store& store, const std::string& branch,
                                             const journal::JournalReport& journal);

}  // namespace reprise::instance

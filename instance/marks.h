// Marks whose batches have been lost. Threads: one, which holds the branch's lock.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "store/store.h"

namespace reprise::instance {

// Removes the marks of a branch that name batches after `last`, the last there is: the numbers of what was
// lost will be given to other batches, and a mark must not come to mean those. The names of the removed.
Result<std::vector<std::string>> drop_marks_after(store::Store& store, std::string_view branch,
                                                  LogIndex last);

}  // namespace reprise::instance

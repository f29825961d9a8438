#include "instance/marks.h"

namespace reprise::instance {

Result<std::vector<std::string>> drop_marks_after(store::Store& store, std::string_view branch,
                                                  LogIndex last) {
  std::vector<std::string> dropped;
  for (const store::MarkRecord& mark : TRY(store.catalogue().marks())) {
    if (mark.branch != branch || mark.log_index <= last) continue;
    TRY(store.catalogue().remove_mark(branch, mark.name));
    dropped.push_back(mark.name);
  }
  return dropped;
}

}  // namespace reprise::instance

#include "instance/marks.h"

#include <fmt/format.h>

#include "journal/segments_cursor.h"

namespace reprise::instance {
namespace {

Result<bool> sets_mark(Directory& directory, const journal::JournalIdentity& identity,
                       const store::MarkRecord& mark) {
  auto cursor = TRY(journal::SegmentsCursor::open(directory, identity, mark.log_index, 0));
  auto logged = TRY(cursor->next());
  bool sets = false;
  if (logged) {
    logged->batch.for_each([&](const fs::Operation& operation) {
      const auto* barrier = std::get_if<fs::Barrier>(&operation);
      sets = sets || (barrier != nullptr && barrier->name == mark.name);
    });
  }
  return sets;
}

}  // namespace

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

Result<std::vector<std::string>> check_marks(store::Store& store, const std::string& branch,
                                             const journal::JournalReport& journal) {
  std::vector<std::string> wrong;
  auto directory = TRY(store.journal_directory(branch));
  for (const store::MarkRecord& mark : TRY(store.catalogue().marks())) {
    if (mark.branch != branch || mark.log_index < journal.first) continue;
    if (mark.log_index <= journal.last && TRY(sets_mark(*directory, {store.volume(), branch}, mark)))
      continue;
    wrong.push_back(fmt::format("{}: expected the mark {} at log index {}, found {}", directory->path(),
                                printable(mark.name), mark.log_index,
                                mark.log_index > journal.last ? "the end before it" : "another batch"));
  }
  return wrong;
}

}  // namespace reprise::instance

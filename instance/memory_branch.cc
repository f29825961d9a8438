#include "instance/memory_branch.h"

namespace reprise::instance {

Result<std::shared_ptr<journal::Journal>> journal_since(const Fork& fork, journal::Journal* so_far,
                                                        const journal::JournalIdentity& identity,
                                                        journal::JournalOptions options) {
  options.in_memory_bytes = UINT64_MAX;
  std::shared_ptr<journal::Journal> journal = journal::Journal::in_memory(identity, options);
  TRY(journal->restart_at(fork.log_index + 1, fork.position.vector));
  if (so_far == nullptr) return journal;
  auto cursor = so_far->read(so_far->first());
  while (auto logged = TRY(cursor->next())) TRY(journal->append(logged->batch));
  return journal;
}

}  // namespace reprise::instance

#include "tools/cli/branch_repair.h"

#include <algorithm>
#include <utility>

#include "instance/history.h"
#include "instance/marks.h"
#include "instance/repair.h"
#include "journal/recovery.h"
#include "tools/cli/branch_check.h"

namespace reprise::cli {
namespace {

// Accepting the loss is what repairing is: the next opening shall not refuse for it again.
Status accept_loss(store::Store& store, const std::string& branch, const Repaired& repaired) {
  return store.catalogue().update_branch(branch, [&](store::BranchRecord& record) {
    record.durable_hint = std::min(record.durable_hint, repaired.journal.last);
    if (repaired.begins != 0) record.journal_begins = repaired.begins;
  });
}

// Segments that were missing at the beginning, or that were taken out there.
void note_lost_beginning(Repaired& repaired, const std::optional<store::BranchRecord>& record,
                         const journal::JournalFiles& left) {
  const journal::JournalRepair& journal = repaired.journal;
  const bool none = left.segments.empty();
  // Nothing is left, and there had been something: the next opening begins behind the snapshot.
  const bool all = none && repaired.reaches != 0 && (!journal.kept.empty() || repaired.durable != 0);
  const LogIndex begins = none ? repaired.reaches + 1 : journal.first;
  const bool were_missing = !none && instance::missing_beginning(record, journal.first, left.begins_anew);
  const bool taken_out = !none && !journal.kept.empty();
  LogIndex began = record ? record->journal_begins : 1;
  if (!were_missing) began = std::max(began, journal.began);
  if (!(all || were_missing || taken_out) || begins <= began) return;
  repaired.began = began;
  repaired.begins = begins;
}

}  // namespace

Result<Repaired> repair_branch(store::Store& store, const std::string& branch, Directory& directory,
                               journal::CorrectionEffort effort) {
  Repaired repaired;
  auto record = TRY(store.catalogue().branch(branch));
  repaired.durable = record ? record->durable_hint : 0;
  auto bases = TRY(instance::readable_bases(store, branch));
  for (const journal::RepairBase& base : bases) repaired.reaches = std::max(repaired.reaches, base.index);
  journal::JournalIdentity identity{store.volume(), branch};
  {
    Progress progress("journal");
    Progress search("looking for a wrong byte");
    effort.progress = shown_on(search);
    repaired.journal = TRY(journal::repair_journal(directory, identity, repaired.durable, bases,
                                                   system_random(), shown_on(progress), std::move(effort)));
  }
  const journal::JournalRepair& journal = repaired.journal;
  journal::JournalFiles left = TRY(journal::journal_files(directory, identity));
  note_lost_beginning(repaired, record, left);
  repaired.no_base = instance::missing_base(store, branch, journal.first, bases);
  TRY(accept_loss(store, branch, repaired));
  // The numbers of what was lost will be given to other batches: no mark may go on naming them.
  repaired.lost_marks = TRY(instance::drop_marks_after(store, branch, repaired.end()));
  return repaired;
}

}  // namespace reprise::cli

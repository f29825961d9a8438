#include "tools/cli/branch_check.h"

#include <fmt/format.h>

#include <algorithm>

#include "instance/history.h"
#include "instance/marks.h"
#include "instance/repair.h"
#include "instance/snapshots.h"
#include "journal/verify.h"

namespace reprise::cli {
namespace {

// Every snapshot of the branch can be loaded and has the digest it was recorded with.
Result<VerifiedSnapshots> verify_snapshots(store::Store& store, std::string_view branch,
                                           std::vector<std::string>& problems) {
  VerifiedSnapshots snapshots;
  for (const store::SnapshotRecord& record : TRY(store.catalogue().snapshots())) {
    if (record.branch != branch) continue;
    snapshots.there++;
    Progress progress(fmt::format("snapshot {}", record.id));
    progress.show(format_bytes(record.bytes));
    auto head = instance::load_snapshot(store, record);
    if (!head) {
      problems.push_back(head.error().message());
    } else if (head->recompute_digest() != record.digest) {
      problems.push_back(
          fmt::format("snapshot {}: the digest counted again from the bytes differs", record.id));
    } else {
      snapshots.good.push_back({record.log_index, TRY(journal::Vector::decode(record.vector))});
    }
  }
  return snapshots;
}

// Where there is no segment, the next opening begins one behind the newest snapshot.
journal::JournalReport behind_snapshots(journal::JournalReport report,
                                        const std::vector<journal::RepairBase>& bases) {
  if (!report.sequences.empty()) return report;
  for (const journal::RepairBase& base : bases) report.last = std::max(report.last, base.index);
  report.first = report.last + 1;
  return report;
}

// The first damage of a journal, and more of it; then how much there is does not matter.
Status add_damage(Directory& directory, const journal::JournalIdentity& identity,
                  const journal::JournalReport& report, std::vector<std::string>& problems) {
  constexpr size_t kFurther = 20;
  problems.push_back(report.problem->message());
  auto further = TRY(journal::further_damage(directory, identity, report, kFurther + 1));
  for (size_t i = 0; i < std::min(further.size(), kFurther); ++i) problems.push_back(further[i].message());
  if (further.size() > kFurther) problems.push_back(fmt::format("{}: and more", directory.path()));
  return {};
}

}  // namespace

journal::JournalProgress shown_on(Progress& progress) {
  return [&progress](uint64_t done_bytes, uint64_t all_bytes) {
    progress.show(fmt::format("{} of {}", format_bytes(done_bytes), format_bytes(all_bytes)));
  };
}

Result<BranchFindings> verify_branch(store::Store& store, const std::string& name) {
  BranchFindings found;
  auto branch = TRY(store.catalogue().branch(name));
  auto directory = TRY(store.journal_directory(name));
  const journal::JournalIdentity identity{store.volume(), name};
  {
    Progress progress("journal");
    found.journal = TRY(
        journal::verify_journal(*directory, identity, branch ? branch->durable_hint : 0, shown_on(progress)));
  }
  const journal::JournalReport& report = found.journal;
  found.journal_damaged = report.problem && !report.torn_tail;
  if (auto lost = instance::missing_beginning(branch, report.first, report.begins_anew))
    found.problems.push_back(lost->message());
  if (found.journal_damaged) TRY(add_damage(*directory, identity, report, found.problems));
  found.snapshots = TRY(verify_snapshots(store, name, found.problems));
  if (!found.journal_damaged) {
    for (std::string& wrong :
         TRY(instance::check_marks(store, name, behind_snapshots(report, found.snapshots.good))))
      found.problems.push_back(std::move(wrong));
  }
  auto no_base = instance::missing_base(store, name, report.first, found.snapshots.good);
  if (no_base) found.problems.push_back(no_base->message());
  return found;
}

}  // namespace reprise::cli

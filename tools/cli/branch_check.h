// What `verify` looks at in one branch: its journal, its snapshots, and what the catalogue says of both.
// Reads only. The caller sees to it that nobody has the branch open.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "journal/repair.h"
#include "store/store.h"
#include "tools/cli/progress.h"

namespace reprise::cli {

// Shown as so many bytes of so many.
journal::JournalProgress shown_on(Progress& progress);

struct VerifiedSnapshots {
  uint64_t there = 0;
  std::vector<journal::RepairBase> good;
};

struct BranchFindings {
  journal::JournalReport journal;
  VerifiedSnapshots snapshots;
  std::vector<std::string> problems;
  bool journal_damaged = false;
};

// An Error only where it cannot tell.
Result<BranchFindings> verify_branch(store::Store& store, const std::string& name);

}  // namespace reprise::cli

// A branch of a store in memory: instead of a folder and blobs, its trees themselves, which cost nothing
// to keep, and its journal.
//
// What the store has is never changed, only replaced, by who holds the branch's lock; who found it may go on
// using what was found. The journal is its Instance's while that is open.
#pragma once

#include <memory>
#include <optional>
#include <string_view>

#include "fs/tree.h"
#include "instance/branches.h"
#include "journal/journal.h"
#include "replay/member.h"
#include "store/store.h"

namespace reprise::instance {

struct MemoryBranch final : store::KeptBranch {
  // `closed_with`: null while it is open.
  MemoryBranch(Fork from, const fs::View& at, std::shared_ptr<journal::Journal> since,
               const replay::Pinned* closed_with)
      : fork(std::move(from)), began(at.share()), journal(std::move(since)) {
    if (closed_with != nullptr) end = replay::Pinned{closed_with->view.share(), closed_with->moment};
  }

  Fork fork;
  fs::View began;                             // where it was forked
  std::shared_ptr<journal::Journal> journal;  // of all that was done since
  std::optional<replay::Pinned> end;          // how it was closed; nullopt: it is open, or was never closed
};

// Null if there is none of that name, as in every store on disk.
inline std::shared_ptr<const MemoryBranch> memory_branch(store::Store& store, std::string_view name) {
  return std::static_pointer_cast<const MemoryBranch>(store.kept_branch(name));
}
// A journal for what is done after the fork, with what was done so far, if anything. It drops nothing, since
// a join needs all of it.
Result<std::shared_ptr<journal::Journal>> journal_since(const Fork& fork, journal::Journal* so_far,
                                                        const journal::JournalIdentity& identity,
                                                        journal::JournalOptions options);

}  // namespace reprise::instance

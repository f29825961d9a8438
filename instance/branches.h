// Branches: the lines of history in a store, besides `main`. A fork begins one at a state of another; a join
// (Instance::join) puts what was done there into the one it came from; a discard takes it away.
//
// A branch is there from the moment on that its file `fork` is (docs/replication.md, "Fork and join"). What
// an interrupted fork or discard left is taken away by the next fork of that name. Threads: any; who makes or
// removes a branch holds its lock meanwhile.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/clock.h"
#include "fs/tree.h"
#include "journal/position.h"
#include "replay/member.h"
#include "store/store.h"

namespace reprise::instance {

// Where a branch began.
struct Fork {
  std::string parent;
  LogIndex log_index = 0;  // of the last batch of the parent that it has; its own are counted on from there
  uint64_t lamport = 0;    // the largest seen by then
  uint64_t snapshot = 0;   // id of the state it began with
  journal::Position position;
  Timestamp time;  // when it was forked
};

struct Branch {
  std::string name;
  std::optional<Fork> fork;      // nullopt: it began by itself, as `main` does
  bool joining = false;          // a join has begun and was not finished: its parent will, when it is opened
  std::optional<Error> damaged;  // where it was forked cannot be read
};

// Begins the branch `name` with the state `pinned` of the branch `parent`, which is durable. kAlreadyExists,
// kBusy.
Result<Fork> fork_branch(store::Store& store, std::string_view name, std::string_view parent,
                         const replay::Pinned& pinned, const store::LockHolder& holder, Clock& clock);
// All there are, by name.
Result<std::vector<Branch>> list_branches(store::Store& store);
// Those whose join into `parent` has begun and was not finished.
Result<std::vector<std::string>> unfinished_joins(store::Store& store, std::string_view parent);
// The last batch of `parent` before such a join began, which is where it ends for who only reads; nullopt if
// there is none.
Result<std::optional<LogIndex>> end_before_joins(store::Store& store, std::string_view parent);
// kNotFound says how to make one; a damaged file is kCorrupt, naming the file.
Result<Branch> find_branch(store::Store& store, std::string_view name);
// kInvalidArgument if a join of it was interrupted: what is done there now would not be looked at any more.
Status check_not_joining(store::Store& store, const Branch& branch);
// kInvalidArgument names those forked from it.
Status check_has_no_forks(store::Store& store, std::string_view name);
// The last batch of its parent before a join of the branch began to change that; nullopt if none has.
Result<std::optional<LogIndex>> end_before_join(store::Store& store, std::string_view name);
// A join of the branch is about to change its parent, whose last batch is `last`: from here on it will be
// finished, not undone.
Status begin_joining(store::Store& store, std::string_view name, LogIndex last);
// Takes away the branch and all that it alone has. The caller holds its lock.
Status remove_branch(store::Store& store, std::string_view name);
// The same for who has no lock: kBusy names who uses it. kInvalidArgument for `main`, for one that others
// were forked from, and for one whose join was interrupted, unless `half_joined` says that its parent may
// keep half of it; kNotFound.
Status discard_branch(store::Store& store, std::string_view name, const store::LockHolder& holder,
                      bool half_joined = false);

}  // namespace reprise::instance

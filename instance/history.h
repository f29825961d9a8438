// Reading a store's history without opening it as an instance: no lock, no new origin, nothing written. For
// `ls`, `cat`, `digest`, `log`, `replay`, beside a live instance or not (journal/segments_cursor.h says what
// of a live one is seen).
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "base/clock.h"
#include "fs/tree.h"
#include "journal/position.h"
#include "journal/segments_cursor.h"
#include "replay/replayer.h"
#include "store/store.h"

namespace reprise::instance {

// A past or present state of one branch.
struct State {
  fs::Head head;
  journal::Position position;
  uint64_t lamport = 0;
  LogIndex log_index = 0;           // the last batch in it
  uint64_t snapshot = 0;            // started from this one; 0: from nothing
  replay::ReplayProgress replayed;  // on top of it
  std::optional<Error> torn_tail;   // the journal ends in bytes that are no batch
};

// What a POSITION of the command line means on this branch: a log index, a mark, a token of `mark` and
// `stat`, "head", or
// "{10m}": what there was that long ago (s, m, h, d). The log index of the last batch it includes; nullopt
// for the head.
Result<std::optional<LogIndex>> resolve_position(store::Store& store, std::string_view branch,
                                                 std::string_view position, Clock& clock);

// The state after batch `until`, or at the end of what there is. kNotFound if `until` is not reached or no
// longer known.
Result<State> state_at(store::Store& store, std::string_view branch, std::optional<LogIndex> until,
                       const std::function<bool(const replay::ReplayProgress&)>& progress = nullptr);

// The same, of which no more is read than is touched (docs/lazy.md), for who looks at a part of it. What
// cannot be had then, because it is damaged or was deleted meanwhile, is EIO, or is missed by what has no
// errors (load_names() before it makes sure); state_at() may still have it, by way of an older snapshot. The
// tree is good for as long as the store is open.
Result<State> open_state_at(const std::shared_ptr<store::Store>& store, std::string_view branch,
                            std::optional<LogIndex> until,
                            const std::function<bool(const replay::ReplayProgress&)>& progress = nullptr);

// How the state's position is shown: by its last batch, if the journal still has that.
Result<std::string> token_of(store::Store& store, std::string_view branch, const State& state);

// What is wrong with a journal whose oldest batch is `first`, if it has been trimmed less than that.
// `begins_anew`: an overwrite began it there.
std::optional<Error> missing_beginning(const std::optional<store::BranchRecord>& branch, LogIndex first,
                                       bool begins_anew);

// A cursor and the directory it reads.
class History {
 public:
  // From batch `from`, or with 0 from the oldest there is. kGap if that has been trimmed, kCorrupt if it is
  // missing.
  static Result<History> open(store::Store& store, std::string_view branch, LogIndex from = 0);
  journal::SegmentsCursor& cursor() { return *cursor_; }

 private:
  std::unique_ptr<Directory> directory_;
  std::unique_ptr<journal::SegmentsCursor> cursor_;
};

}  // namespace reprise::instance

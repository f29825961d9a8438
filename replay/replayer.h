// Replayer: applies batches to a tree, exactly once and in order.
//
// It keeps the vector of what the tree has: a batch is applied if its LSN is the next of its origin and
// everything it depends on is there; one that was applied already is skipped; anything else is a gap. A batch
// is all or nothing, and an operation that cannot be applied means that the tree or the journal is not what
// it claims to be: nothing is guessed.
//
// It does not journal, publish or lock: that is its caller's. Not thread-safe; values only, so it may be
// copied.
#pragma once

#include <functional>
#include <span>

#include "base/error.h"
#include "fs/tree.h"
#include "journal/batch.h"
#include "journal/journal.h"
#include "journal/position.h"
#include "replay/claims.h"

namespace reprise::replay {

// What replay() has done so far.
struct ReplayProgress {
  LogIndex log_index = 0;  // of the last batch read
  uint64_t batches = 0;    // applied
  uint64_t skipped = 0;    // batches that the tree had already
  uint64_t operations = 0;
  uint64_t bytes = 0;  // encoded, of the batches applied
};

class Replayer {
 public:
  // A Lamport time further ahead than this is refused: one broken clock must not use up everybody's.
  static constexpr uint64_t kLamportJumpMax = uint64_t{1} << 32;

  enum class Verdict { kNext, kAlreadyApplied };

  // For a tree at `applied`, which has seen Lamport times up to `lamport`.
  explicit Replayer(journal::Vector applied = {}, uint64_t lamport = 0)
      : applied_(std::move(applied)), lamport_(lamport) {}

  // May this batch be applied now? kGap says what is missing; kCorrupt or kUnsupported what is wrong with it.
  Result<Verdict> judge(const journal::BatchHeader& header) const;

  // Applies the batches of `group` that the tree lacks, in order. On an error the tree is as it was after the
  // batches before the one that failed, and applied() says so. kDivergence names origin, LSN, operation and
  // errno: this tree is not the one the batch was made on; kCorrupt one that claims a prefix of inode ids
  // that another has, of whom its origin did not know. Before the call head.take_unlinked() must have been
  // drained; afterwards it has the group's.
  Status apply(fs::Head& head, std::span<const journal::Batch> group);

  // Reads from the cursor and applies until the batch with log index `until` is done, or there are no more:
  // the answer's log_index says how far it came. Inodes without links go, but for those that `pinned` (may be
  // null) says are in use. `progress` (may be null) is called after each group and may say false to stop:
  // kCancelled.
  static constexpr LogIndex kToEnd = ~LogIndex{0};
  Result<ReplayProgress> replay(journal::Cursor& cursor, fs::Head& head, LogIndex until,
                                const std::function<bool(const ReplayProgress&)>& progress = nullptr,
                                const std::function<bool(InodeId)>& pinned = nullptr);

  const journal::Vector& applied() const { return applied_; }
  uint64_t lamport() const { return lamport_; }
  // Sums over everything apply() did.
  uint64_t batches() const { return batches_; }
  uint64_t skipped() const { return skipped_; }
  uint64_t operations() const { return operations_; }

 private:
  void note(const journal::Batch& batch);

  journal::Vector applied_;
  Claims claims_;
  uint64_t lamport_;
  uint64_t batches_ = 0, skipped_ = 0, operations_ = 0;
};

}  // namespace reprise::replay

// Member: how a session reaches the instance it serves or feeds. Implemented by instance/ (and, smaller, by
// tests).
//
// It names what replay/ needs of an instance and no more: its identity, where it is in history, its journal,
// a pinned tree to copy from, and the two ways to change it: apply batches, install a snapshot.
//
// Threads: a leader calls it from one thread per peer, a follower from one thread; every function must be
// safe from any of them, beside the guests' own calls. No function may call back into the Leader or Follower
// that called it.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/ids.h"
#include "fs/tree.h"
#include "journal/batch.h"
#include "journal/journal.h"
#include "journal/position.h"

namespace reprise::replay {

// One moment of an instance: after exactly the batches of `position.vector`, with no batch open.
struct Moment {
  journal::Position position;
  uint64_t lamport = 0;    // largest seen
  LogIndex log_index = 0;  // of the newest batch in its journal
};

// A mark that was passed.
struct Mark {
  std::string name;
  std::string token;  // journal::Position::to_token
};

// A moment, and the tree at it, pinned.
struct Pinned {
  fs::View view;
  Moment moment;
};

class Member {
 public:
  virtual ~Member() = default;

  // Zero while the instance is new and will adopt the volume of whom it follows.
  virtual VolumeId volume() const = 0;
  virtual std::string branch() const = 0;
  // What is applied now; an open batch is not.
  virtual journal::Vector vector() const = 0;
  // Nothing was ever applied: its tree is the one every volume begins with (fs::Head::create(Timestamp{})),
  // so that a journal may be replayed onto it from the first batch.
  virtual bool is_new() const = 0;

  // Closes the open batch, brings the digest up to date, and says where that is.
  virtual Result<Moment> settle() = 0;
  // The same, and keeps the tree of that moment.
  virtual Result<Pinned> pin() = 0;
  // Marks passed so far, oldest first. A snapshot carries them along: the journal that set them does not
  // reach the peer.
  virtual Result<std::vector<Mark>> marks() = 0;
  // About how many bytes a snapshot of the tree would take on the wire. Cheap.
  virtual uint64_t estimated_snapshot_bytes() const = 0;
  // As long as the member.
  virtual journal::Journal& journal() = 0;

  // --- for a leader alone

  // Would batches be taken back that a peer at `vector` has and this instance lacks? Only those of its own
  // former origins, and only until it has written anything else. The answer may be out of date when it comes.
  virtual bool would_take_back(const journal::Vector&) { return false; }
  // Applies and journals such batches, in order, and skips those it has; after the last of them, which says
  // `complete`, they are on the disk when it returns. The giver is at `giver`: kDetached if it lacks what
  // this instance has by now from another one, for then their histories are two. kReadOnly once this instance
  // has written; kCorrupt for batches of other origins; else as apply(). From any thread.
  virtual Status take_back(const journal::Vector& /*giver*/, std::span<const journal::Batch>,
                           bool /*complete*/) {
    return fail(Code::kUnsupported, "this instance takes nothing back");
  }

  // --- for a follower alone; called by one thread at a time

  // What was applied so far is on the disk when it returns.
  virtual Status sync() = 0;

  // Takes the leader's volume; called once, while volume() is zero, before anything is applied.
  virtual Status adopt_volume(VolumeId volume) = 0;
  // Applies and journals the batches in order, each whole or not at all; skips what is applied already
  // (Replayer). Stops at the first that fails; those before it stay. kGap, kDivergence and kCorrupt as the
  // Replayer says them, which a snapshot can mend; anything else (kIo, kNoSpace, …) is this member's own
  // trouble.
  virtual Status apply(std::span<const journal::Batch> group) = 0;
  // Replaces the whole tree; readers see the old or the new one, never a mix. The journal goes on after
  // `position`. The caller has compared the digest of `tree` with the position's, and has put
  // it into no other store; `marks` are those passed on
  // the way there.
  virtual Status install(const fs::View& tree, const journal::Position& position, uint64_t lamport,
                         std::span<const Mark> marks) = 0;
};

}  // namespace reprise::replay

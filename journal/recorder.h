// Recorder: writes one origin's stream. Sits behind a Filesystem as its OperationSink, gathers operations
// into batches, and appends each closed batch to the journal.
//
// A batch never closes inside a call, unless the call records more than a batch may hold (kBatchBodyLimit):
// only then is it cut. It closes at the end of a call when it has kBatchSoftLimit bytes, when a reader of the
// journal waits, or with durability `always`; before another label; at a barrier and at flush(); and when the
// journal asks for it (journal.h, Gatherer): soon, or at once when much is gathered. Closed batches wait in
// order to be encoded and appended: by the thread that asks, not the guest's, unless a reader waits, or
// nobody has asked by the time kGatherLimit is reached.
//
// The origin begins with its first operation: until then nothing is written. Lamport time and dependencies
// come from `observe`, which the replayer calls for every batch of another origin.
//
// Threads: record, end_call and next under the filesystem's write lock; the rest from any thread, flush with
// that lock or outside of it. reserve, commit and flush may wait. Lock order: appending, gate, mutex.
#pragma once

#include <functional>
#include <memory>

#include "fs/filesystem.h"
#include "journal/allowance.h"
#include "journal/journal.h"

namespace reprise::journal {

// Bytes that wait to be encoded and appended, or are under way to it, besides those of one call.
inline constexpr size_t kGatherLimit = 4 << 20;

class Recorder final : public fs::OperationSink, public fs::InodeIdSource, private Gatherer {
 public:
  // `applied` is what the tree already has, `lamport` the largest seen. `previous_origin` is the one whose
  // batch was the last to be applied, if it is known: it depends on all of `applied` but its own entry, so
  // that this origin need only name that. `claim` (may be null) keeps the origin's id in a safe place: called
  // by reserve(), until it succeeds, so before the stream begins. reserve() takes from `allowance`, if there
  // is one. journal, clock, random and allowance must outlive it.
  using Claim = std::function<Status(OriginId)>;
  static std::unique_ptr<Recorder> create(Journal& journal, Clock& clock, Random& random,
                                          const Vector& applied, uint64_t lamport, OriginId previous_origin,
                                          Claim claim = nullptr, Allowance* allowance = nullptr);
  // Appends what is gathered. Whoever wants to know how that went has called flush().
  ~Recorder() override;

  // The id it has, or will begin with.
  OriginId origin() const;
  // What this instance has applied and the journal has, own batches included. What is gathered is in it
  // after flush().
  Vector vector() const;
  uint64_t lamport() const;
  // Has the stream its first operation? With the filesystem's lock.
  bool begun() const;
  // A batch of another origin was applied and appended: later own batches depend on it. With the filesystem's
  // lock.
  void observe(const BatchHeader& header);
  // Closes the open batch, if any, after the call that is being recorded. Returns the log index of the newest
  // own batch, 0 if there is none.
  Result<LogIndex> flush();

  // OperationSink
  // EROFS or ENOSPC once the journal has failed, or if the origin could not be claimed. Waits for who writes
  // the journal, and for who makes room (allowance.h): never with a lock held that either needs.
  fs::Outcome<void> reserve(size_t bytes) override;
  void record(const fs::Operation& operation, std::string_view label) override;
  fs::Outcome<void> end_call() override;  // EIO or ENOSPC: the journal does not have it
  fs::Outcome<void> commit() override;    // durability `always`: waits until the disk has it; likewise
  // InodeIdSource: claims a further prefix when 2^24 ids are used up.
  InodeId next() override;

 private:
  struct State;
  explicit Recorder(std::unique_ptr<State> state);
  void hand_over() override;
  std::unique_ptr<State> state_;
};

}  // namespace reprise::journal

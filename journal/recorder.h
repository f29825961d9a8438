// Recorder: writes one origin's stream. Sits behind a Filesystem as its OperationSink, collects operations
// into batches, and appends each closed batch to the journal.
//
// A batch closes at the end of a facade call, when the label changes, at a barrier and at flush(). One call
// is one batch, unless it records more than a batch may hold (kBatchBodyLimit): only then is it cut into
// several. Lamport time and dependencies come from `observe`, which the replayer calls for every batch of
// another origin. Threads: record/end_call/reserve under the filesystem's write lock; the rest from any
// thread.
#pragma once

#include <memory>

#include "fs/filesystem.h"
#include "journal/journal.h"

namespace reprise::journal {

class Recorder final : public fs::OperationSink, public fs::InodeIdSource {
 public:
  // Begins a new origin: mints its id and first prefix, appends the originStart batch. `applied` is what the
  // tree already has, `lamport` the largest seen. journal and clock must outlive it.
  static Result<std::unique_ptr<Recorder>> begin(Journal& journal, Clock& clock, Random& random,
                                                 const Vector& applied, uint64_t lamport,
                                                 OriginId previous_origin);
  ~Recorder() override;

  OriginId origin() const;
  // What this instance has applied, own batches included.
  Vector vector() const;
  uint64_t lamport() const;
  // A batch of another origin was applied and appended: later own batches depend on it.
  void observe(const BatchHeader& header);
  // Closes the open batch, if any. Returns the log index of the newest own batch.
  Result<LogIndex> flush();

  // OperationSink
  fs::Outcome<void> reserve(size_t bytes) override;  // EROFS or ENOSPC once the journal has failed
  void record(const fs::Operation& operation, std::string_view label) override;
  void end_call() override;
  // InodeIdSource: claims a further prefix when 2^24 ids are used up.
  InodeId next() override;

 private:
  struct State;
  explicit Recorder(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace reprise::journal

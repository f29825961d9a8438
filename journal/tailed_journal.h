// TailedJournal: what a journal in memory and one in files have in common: the tail, the order of LSNs, and
// cursors. Private to this folder.
#pragma once

#include <atomic>
#include <condition_variable>
#include <memory>
#include <mutex>

#include "journal/journal.h"
#include "journal/tail.h"

namespace reprise::journal {

// About what a batch in memory takes besides its bytes.
inline constexpr uint64_t kHeldAroundABatch = 512;

// Reads batches that are in the tail no more. One thread's object.
class StoredReader {
 public:
  virtual ~StoredReader() = default;
  virtual Result<Batch> read(LogIndex index) = 0;  // fast when it goes forward; kGap, kCorrupt
};

class TailedJournal : public Journal {
 public:
  TailedJournal(const JournalIdentity& identity, Tail tail);

  LogIndex first() const override;
  LogIndex last() const override;
  std::unique_ptr<Cursor> read(LogIndex from) override;
  void set_gatherer(Gatherer* gatherer) override;
  bool reader_waits() const override { return waiting_.load(std::memory_order_relaxed) > 0; }

 protected:
  friend class TailCursor;
  virtual std::unique_ptr<StoredReader> stored_reader() = 0;  // null if the tail is all there is

  // With mutex_ held:
  Status check_next(const Batch& batch) const;  // kInvalidArgument: closed, empty, or an LSN out of order
  LogIndex push(const Batch& batch);
  std::unexpected<Error> gap(LogIndex index) const;

  void ask_gatherer();  // without it

  const JournalIdentity identity_;
  mutable std::mutex mutex_;
  std::condition_variable arrived_;  // for waiting cursors: a batch, or the end
  Tail tail_;
  LogIndex first_;  // of the whole log
  bool closed_ = false;

 private:
  std::mutex gatherer_mutex_;  // held while it is asked; before mutex_
  Gatherer* gatherer_ = nullptr;
  std::atomic<int> waiting_{0};  // cursors in wait(), so that nobody is notified in vain
};

}  // namespace reprise::journal

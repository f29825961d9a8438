// FileJournal: the journal in segment files, with a thread that writes and syncs, and another, begun when
// there is something for it, that compresses segments that have ended; or with neither, when asked to do
// without (JournalOptions::threads): then who waits does a round of the writer's. Private to this folder.
//
// Locks: mutex_ guards all members but writer_ and written_vector_, which belong to the writer thread while
// writing_ is set, and to whoever holds mutex_ otherwise. No file is touched under mutex_ except where a
// caller waits for it anyway: trim (its rotation) and restart_at. Between two rounds of the writer thread
// writer_ stands where written_ says, also after a round that failed for want of space. While replacing_ is
// set the compressing thread puts a copy in the place of a segment, which nobody drops meanwhile.
#pragma once

#include <atomic>
#include <deque>
#include <thread>
#include <utility>
#include <vector>

#include "journal/recovery.h"
#include "journal/segment_writer.h"
#include "journal/tailed_journal.h"

namespace reprise::journal {

class FileJournal final : public TailedJournal {
 public:
  static Result<std::unique_ptr<Journal>> open(std::unique_ptr<Directory> directory,
                                               const JournalIdentity& identity, const JournalOptions& options,
                                               Random& random, LogIndex durable_hint, Recovery* recovery);
  ~FileJournal() override;

  Status reserve(uint64_t bytes) override;
  bool expect(bool now) override;
  Result<LogIndex> append(const Batch& batch) override;
  Status sync(LogIndex through) override;
  LogIndex durable() const override;
  std::optional<Error> failure() const override;
  Durability durability() const override { return options_.durability; }
  Result<JournalFiles> files() const override;
  Result<uint64_t> bytes_from(LogIndex from) const override;
  Result<LogIndex> position_of(const Vector& vector) override;
  Result<LogIndex> trim(LogIndex index) override;
  Status end_segment() override;
  Status restart_at(LogIndex next, const Vector& covered) override;
  void work() override;
  void give_up(const Error& why) override;
  Status close() override;

 protected:
  std::unique_ptr<StoredReader> stored_reader() override;

 private:
  friend class StoredFrames;
  using Lock = std::unique_lock<std::mutex>;
  // What the writer does with the lock released.
  struct Round {
    std::vector<Batch> batches;
    size_t written = 0;    // of them
    LogIndex durable = 0;  // then: what it becomes, if synced
    bool sync = false;
    std::vector<Segment> begun;                          // by rotation
    std::vector<std::pair<uint64_t, ReadPoint>> points;  // sequence of the segment, and a place in it
    uint64_t left_readable = 0;                          // bytes of the segment it began in
  };

  FileJournal(std::unique_ptr<Directory> directory, const JournalIdentity& identity,
              const JournalOptions& options, Random& random, RecoveredLog log);

  // The writer thread.
  void run();
  void do_round(Lock& lock);
  // On settled_; without threads, by doing what is waited for.
  template <class Done>
  void wait_settled(Lock& lock, const Done& done) {
    while (!done()) {
      if (options_.threads || writing_) {
        settled_.wait(lock);
      } else {
        do_round(lock);
      }
    }
  }
  bool wait_for_work(Lock& lock);  // false when it is time to end
  void ask_for_expected(Lock& lock);
  bool urgent() const;
  Round plan();
  Status write(Round& round);
  Status write_some(Round& round);
  bool segment_is_full() const;
  Status rotate(Round& round);
  void publish(Round&& round);
  void forget_read_batches();

  Status begin_segment(SegmentHeader header);  // makes writer_ write to it; on failure writer_ is as before
  SegmentHeader next_header() const;
  Status seal_and_begin();  // with mutex_ held and the writer idle
  Status rotate_if_all_before(LogIndex index);
  Status drop_files();

  // The compressing thread.
  void wake_compressor();  // with mutex_ held: there may be something for it
  void run_compressor();
  bool compress_one(Lock& lock, uint64_t sequence);  // false: it is to be tried again later
  Segment* find_segment(uint64_t sequence);
  Segment* next_to_compress();
  Status compress(Lock& lock, uint64_t sequence);
  void note_compression(uint64_t sequence, const Error& failure);
  void wait_until_idle(Lock& lock);
  void fail_with(const Error& error);
  void note_outcome(const Status& status);      // of a round
  const std::optional<Error>& refusal() const;  // why nothing more is taken
  uint64_t soon_bytes() const;
  bool has_room_for(uint64_t bytes) const;

  const std::unique_ptr<Directory> directory_;
  const JournalOptions options_;
  Random& random_;

  std::condition_variable work_;     // for the writer
  std::condition_variable settled_;  // for everybody who waits for the writer
  std::mutex trim_mutex_;            // one trim or restart at a time; before mutex_
  std::deque<uint64_t> to_drop_;     // files that are no part of the log any more; guarded by trim_mutex_
  std::vector<Segment> segments_;    // ascending, the last is being written
  LogIndex written_ = 0, durable_ = 0, sync_wanted_ = 0;
  std::atomic<uint64_t> pending_bytes_{0};  // appended, not written; changed with mutex_ held
  int waiting_for_room_ = 0;                // in reserve()
  bool writing_ = false, stopping_ = false;
  bool expected_ = false, expected_now_ = false;  // the gatherer has something; it has much
  bool ends_with_close_ = false;
  std::optional<Error> failure_;      // for good
  std::optional<Error> full_;         // no space; what waits to be written is tried again
  std::atomic<bool> refuses_{false};  // one of the two is set

  std::unique_ptr<SegmentWriter> writer_;
  SegmentHeader header_;  // of the segment that writer_ writes
  Vector written_vector_;
  uint64_t written_batch_bytes_ = 0;  // of the whole journal
  std::thread thread_;
  bool opened_ = false;

  std::condition_variable ended_;  // for the compressing thread: a segment has, or the journal
  bool replacing_ = false;
  bool compresses_ = true;                    // it has not failed for good
  std::atomic<bool> compressor_ends_{false};  // changed with mutex_ held
  std::optional<Error> compression_failure_;
  std::thread compressor_;
};

}  // namespace reprise::journal

// SegmentsCursor: reads a branch's segment files forward without opening the journal: nothing is repaired,
// written or locked, so it works beside a live writer and on a store that crashed. For those who only ask.
//
// It sees what is on the disk when it looks: whoever wants what a live instance has not written yet asks it
// to sync first. A tail that does not verify is taken for the end of the log in the last segment, unless what
// it holds is known to have been durable; that is corruption, as it is in any other segment. One thread's
// object; the directory must outlive it.
#pragma once

#include <deque>
#include <memory>

#include "journal/journal.h"
#include "journal/segment_reader.h"

namespace reprise::journal {

class SegmentsCursor final : public Cursor {
 public:
  // At batch `from` or, with 0, at the oldest there is. `durable_hint`: up to here the journal is known to be
  // on the disk. kGap if `from` has been trimmed; kWrongVolume, kCorrupt.
  static Result<std::unique_ptr<SegmentsCursor>> open(Directory& directory, const JournalIdentity& identity,
                                                      LogIndex from, LogIndex durable_hint);

  // kCorrupt also where the log ends before what was durable does.
  Result<std::optional<Logged>> next() override;
  bool wait(uint32_t) override { return false; }
  // The oldest batch there is.
  LogIndex first() const { return first_; }
  // Nothing was ever before it: an overwrite began the log there.
  bool begins_anew() const { return begins_anew_; }
  // Why the log ended before the last file did; nullopt if it did not.
  const std::optional<Error>& torn_tail() const { return torn_tail_; }

 private:
  SegmentsCursor(Directory& directory, JournalIdentity identity, LogIndex durable_hint)
      : directory_(directory), identity_(std::move(identity)), durable_hint_(durable_hint) {}
  Status open_next_segment();
  Status end_at(const Error& damage);

  Directory& directory_;
  JournalIdentity identity_;
  const LogIndex durable_hint_;
  std::deque<uint64_t> rest_;  // segments not opened yet
  std::unique_ptr<SegmentReader> reader_;
  bool sealed_ = false;  // by the last frame read
  LogIndex first_ = 0;
  bool begins_anew_ = false;
  LogIndex from_ = 0;
  std::optional<Error> torn_tail_;
};

}  // namespace reprise::journal

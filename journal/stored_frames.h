// StoredFrames: reads a live FileJournal's segments behind its tail, while the journal goes on writing and
// trimming. Private to this folder. One thread's object; the journal outlives it.
#pragma once

#include "journal/file_journal.h"

namespace reprise::journal {

class StoredFrames final : public StoredReader {
 public:
  explicit StoredFrames(const FileJournal& journal) : journal_(journal) {}

  Result<Batch> read(LogIndex index) override;
  // The frame of a batch that is written; its payload is not looked at.
  Result<Frame> at(LogIndex index);
  // Encoded bytes of all batches of the journal before index.
  Result<uint64_t> bytes_before(LogIndex index);

 private:
  Result<Frame> advance_to(LogIndex index, bool with_payload);
  Result<ReadPoint> locate(LogIndex index);

  const FileJournal& journal_;
  std::unique_ptr<SegmentReader> reader_;
};

}  // namespace reprise::journal

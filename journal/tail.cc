#include "journal/tail.h"

#include "base/check.h"

namespace reprise::journal {

Tail::Tail(LogIndex next, Vector covered, uint64_t bytes_before)
    : first_(next), covered_(std::move(covered)), vector_(covered_), bytes_end_(bytes_before) {}

void Tail::push(const Batch& batch) {
  entries_.push_back({batch, bytes_end_});
  bytes_end_ += batch.encoded_bytes();
  vector_.set(batch.header().origin, batch.header().lsn);
}

void Tail::pop_front() {
  CHECK(!entries_.empty());
  const BatchHeader& header = entries_.front().batch.header();
  covered_.set(header.origin, header.lsn);
  entries_.pop_front();
  ++first_;
}

uint64_t Tail::bytes_before(LogIndex index) const {
  CHECK(index >= first_ && index <= end());
  return index == end() ? bytes_end_ : entries_[index - first_].bytes_before;
}

LogIndex Tail::first_not_covered(LogIndex from, const Vector& vector) const {
  for (LogIndex index = from; index < end(); ++index) {
    const BatchHeader& header = at(index).header();
    if (vector.get(header.origin) < header.lsn) return index;
  }
  return end();
}

}  // namespace reprise::journal

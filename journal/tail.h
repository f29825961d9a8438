// Tail: the newest batches of a log, in memory. A journal in memory is a tail and nothing else; a journal in
// files keeps what is not written yet and what readers at the head are about to read.
//
// Not thread-safe: its journal's mutex guards it.
#pragma once

#include <deque>

#include "journal/batch.h"
#include "journal/position.h"

namespace reprise::journal {

class Tail {
 public:
  // Begins empty at `next`, after batches that add up to `covered` and to so many encoded bytes.
  Tail(LogIndex next, Vector covered, uint64_t bytes_before);

  void push(const Batch& batch);
  void pop_front();
  LogIndex first() const { return first_; }                  // end() if there are none
  LogIndex end() const { return first_ + entries_.size(); }  // one past the newest
  const Batch& at(LogIndex index) const { return entries_[index - first_].batch; }
  const Vector& covered() const { return covered_; }  // by everything before first()
  const Vector& vector() const { return vector_; }    // by everything before end()
  // Encoded bytes of all batches of the journal before index, which is in [first(), end()].
  uint64_t bytes_before(LogIndex index) const;
  // The first index in [from, end()) whose batch the vector does not cover, or end().
  LogIndex first_not_covered(LogIndex from, const Vector& vector) const;

 private:
  struct Entry {
    Batch batch;
    uint64_t bytes_before;
  };
  LogIndex first_;
  Vector covered_, vector_;
  uint64_t bytes_end_;
  std::deque<Entry> entries_;
};

}  // namespace reprise::journal

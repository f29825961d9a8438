// Vector: the LSN applied, per origin. Position: a vector, with the state digest at it.
//
// Values. A Vector is sorted by origin and never holds an LSN of 0. Equal vectors mean equal trees.
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/bytes.h"
#include "base/error.h"
#include "base/ids.h"

namespace reprise::journal {

class Vector {
 public:
  using Entry = std::pair<OriginId, Lsn>;

  Lsn get(OriginId origin) const;  // 0 if there is nothing of it
  void set(OriginId origin, Lsn lsn);
  // Everything `other` has applied, this has too.
  bool covers(const Vector& other) const;
  void merge(const Vector& other);  // the larger LSN of each origin
  // The entries of this that differ from `previous`, which this must cover.
  std::vector<Entry> difference_from(const Vector& previous) const;

  const std::vector<Entry>& entries() const { return entries_; }
  bool empty() const { return entries_.empty(); }
  bool operator==(const Vector&) const = default;

  // Fixed binary form, for the catalogue and the wire: count:u32, then origin.hi, origin.lo, lsn: u64 each.
  Bytes encode() const;
  static Result<Vector> decode(ByteView bytes);

 private:
  std::vector<Entry> entries_;
};

struct Position {
  Vector vector;
  Digest128 digest;

  bool operator==(const Position&) const = default;
  // The same position by its last batch alone. With one writer at a time that depends on all that was applied
  // before it: who has it has the vector. As it is if the vector does not end with that batch.
  Position by_last_batch(OriginId origin, Lsn lsn) const;
  // A printable token of the vector and the digest, letters, digits, '-', '_' and '.' only, that starts with
  // "r0.".
  std::string to_token() const;
  static Result<Position> parse_token(std::string_view token);
};

}  // namespace reprise::journal

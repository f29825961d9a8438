// Small damage put right, where what was there before can be found out. Private to this folder.
//
// Every byte of a segment lies under a checksum of 64 bits, so one byte that was changed is found by trying:
// each byte with each other value and, where that would take too long, each bit. And what a close or seal
// says is known from the frames before it, however much of it is damaged.
#pragma once

#include <algorithm>
#include <map>
#include <optional>
#include <set>

#include "base/one_wrong_byte.h"
#include "journal/repair.h"
#include "journal/segment_format.h"

namespace reprise::journal {

struct Correction {
  uint64_t offset = 0;  // in the segment's file
  Bytes bytes;          // that belong there
};

// Where damage was met that is more than can be put right: by segment, offsets in the file.
using GivenUp = std::map<uint64_t, std::set<uint64_t>>;

// The first damage in a segment that can be put right, wherever it lies behind other damage, but for what was
// given up before; more of that is noted. `next`: of the segment that follows, if
// its header can be read. An Error only when the disk fails, or it is another volume's or version's.
Result<std::optional<Correction>> find_correction(Directory& directory, const JournalIdentity& identity,
                                                  uint64_t sequence, const SegmentHeader* next,
                                                  const CorrectionEffort& effort, GivenUp& given_up);

// Of a segment whose header is damaged in more than one byte, but not in the segment's id: all that it says
// follows from what is before it, which `report` has found sound. Only if a checksum says that it is so: its
// own, or one that rests on it.
Result<std::optional<Correction>> make_header_anew(Directory& directory, const JournalIdentity& identity,
                                                   const JournalReport& report);

// The index and the end of a compressed segment, and where they belong, if they cannot be read, or are all
// that is wrong in it: `segment` of those in `report`. Other damage can then be looked for.
Result<std::optional<Correction>> make_index_anew(Directory& directory, const JournalIdentity& identity,
                                                  const JournalReport& report, size_t segment);

// The one byte of `bytes` that has to be another one, as base/one_wrong_byte.h says; of more than are tried
// none. For headers: each try reads all of one.
template <class Fits>
std::optional<size_t> correct_byte(ByteSpan bytes, const CorrectionEffort& effort, const Fits& fits) {
  constexpr size_t kEveryValue = 4 << 10;
  if (bytes.size() > effort.every_bit) return std::nullopt;
  return reprise::correct_byte(bytes, bytes.size() <= std::min(effort.every_value, kEveryValue), fits);
}

// The same of bytes that lie at `offset` of a file.
template <class Fits>
std::optional<Correction> correct(Bytes bytes, uint64_t offset, const CorrectionEffort& effort,
                                  const Fits& fits) {
  auto at = correct_byte(bytes, effort, fits);
  if (!at) return std::nullopt;
  return Correction{offset + *at, {bytes[*at]}};
}

// The same of bytes whose hash64 is `checksum`.
std::optional<Correction> correct_hashed(Bytes bytes, uint64_t offset, const CorrectionEffort& effort,
                                         uint64_t checksum);

}  // namespace reprise::journal

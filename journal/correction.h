// Small damage put right, where what was there before can be found out. Private to this folder.
//
// Every byte of a segment lies under a checksum of 64 bits, so one byte that was changed is found by trying:
// each byte with each other value and, where that would take too long, each bit. And what a close or seal
// says is known from the frames before it, however much of it is damaged.
#pragma once

#include <map>
#include <optional>
#include <set>

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
                                                  CorrectionLimits limits, GivenUp& given_up);

// The one byte of `bytes` that has to be another one for `fits(bytes)` to be true; `bytes` has it then.
// nullopt, and nothing changed, if there is none. `fits` is false of the bytes as they are.
template <class Fits>
std::optional<size_t> correct_byte(ByteSpan bytes, CorrectionLimits limits, const Fits& fits) {
  if (bytes.size() > limits.every_bit) return std::nullopt;
  const bool every_value = bytes.size() <= limits.every_value;
  for (size_t at = 0; at < bytes.size(); ++at) {
    const std::byte found = bytes[at];
    for (unsigned n = 1; n < 256; n = every_value ? n + 1 : n * 2) {
      bytes[at] = found ^ static_cast<std::byte>(n);
      if (fits(bytes)) return at;
    }
    bytes[at] = found;
  }
  return std::nullopt;
}

// The same of bytes that lie at `offset` of a file.
template <class Fits>
std::optional<Correction> correct(Bytes bytes, uint64_t offset, CorrectionLimits limits, const Fits& fits) {
  auto at = correct_byte(bytes, limits, fits);
  if (!at) return std::nullopt;
  return Correction{offset + *at, {bytes[*at]}};
}

}  // namespace reprise::journal

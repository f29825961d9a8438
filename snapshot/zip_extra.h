// What a ZIP says of an entry beyond its name and bytes: Unix times, owners and modes, in extra fields and in
// the external attributes. Info-ZIP's extra fields 0x5455 and 0x7875, PKWARE's 0x000a (times of NTFS, to 100
// ns).
//
// A time without any of these is a DOS time, two seconds exact, and is taken as UTC: an archive means the
// same wherever it is read. Values only; threads: any.
#pragma once

#include <optional>

#include "base/bytes.h"
#include "base/clock.h"

namespace reprise::snapshot::zip {

inline constexpr uint16_t kTimesExtra = 0x5455, kNtfsExtra = 0x000a, kOwnersExtra = 0x7875;
inline constexpr uint8_t kUnix = 3, kMac = 19;  // systems that have Unix modes in the attributes

struct Extra {
  std::optional<Timestamp> mtime, atime;
  std::optional<uint32_t> uid, gid;
};
// What can be understood of these fields; the rest is passed over.
Extra parse_extra(ByteView extra);

Timestamp time_of_dos(uint16_t date, uint16_t time);
struct DosTime {
  uint16_t date = 0, time = 0;
};
DosTime dos_of_time(Timestamp time);  // the nearest there is before it, between 1980 and 2107

// The contents of the three fields. The first has no place for every time.
std::optional<Bytes> times_field(Timestamp mtime);
Bytes ntfs_field(Timestamp mtime);
Bytes owners_field(uint32_t uid, uint32_t gid);

// Type and permissions of an entry; `is_directory`: its name ends in a slash.
uint32_t mode_of(uint16_t made_by, uint32_t attributes, bool is_directory);
uint32_t attributes_of(uint32_t mode);

}  // namespace reprise::snapshot::zip

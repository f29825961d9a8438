#include "snapshot/zip_extra.h"

#include <sys/stat.h>

#include <algorithm>
#include <chrono>

namespace reprise::snapshot::zip {
namespace {

constexpr int64_t kSecondsFrom1601 = 11'644'473'600;  // to 1970
constexpr int64_t kTicksPerSecond = 10'000'000;
constexpr int kDosFirstYear = 1980, kDosLastYear = 2107;
constexpr uint32_t kDosReadOnly = 0x01, kDosDirectory = 0x10;

std::optional<Timestamp> time_of_ticks(uint64_t ticks) {
  if (ticks == 0 || ticks > INT64_MAX) return std::nullopt;
  auto signed_ticks = static_cast<int64_t>(ticks);
  return Timestamp{signed_ticks / kTicksPerSecond - kSecondsFrom1601,
                   static_cast<uint32_t>(signed_ticks % kTicksPerSecond) * 100};
}

void parse_ntfs(ByteReader field, std::optional<Timestamp>& mtime, std::optional<Timestamp>& atime) {
  field.take(4);
  while (field.remaining() >= 4) {
    auto tag = field.value<uint16_t>(), size = field.value<uint16_t>();
    ByteReader times(field.take(size));
    if (tag != 1 || size < 24) continue;
    mtime = time_of_ticks(times.value<uint64_t>());
    atime = time_of_ticks(times.value<uint64_t>());
  }
}

std::optional<uint32_t> parse_id(ByteReader& field) {
  auto size = field.value<uint8_t>();
  ByteView bytes = field.take(size);
  if (!field.ok() || size == 0) return std::nullopt;
  uint64_t value = 0;
  for (size_t i = bytes.size(); i-- > 0;) {
    if (i >= 4 && bytes[i] != std::byte{}) return std::nullopt;
    if (i < 4) value = value << 8 | std::to_integer<uint64_t>(bytes[i]);
  }
  return static_cast<uint32_t>(value);
}

}  // namespace

Extra parse_extra(ByteView extra) {
  Extra found;
  std::optional<Timestamp> exact;
  ByteReader in(extra);
  while (in.remaining() >= 4) {
    auto id = in.value<uint16_t>(), size = in.value<uint16_t>();
    ByteReader field(in.take(size));
    if (id == kNtfsExtra) parse_ntfs(field, exact, found.atime);
    if (id == kTimesExtra && size >= 5 && (field.value<uint8_t>() & 1) != 0)
      found.mtime = Timestamp{field.value<int32_t>(), 0};
    if (id == kOwnersExtra && field.value<uint8_t>() == 1) {
      found.uid = parse_id(field);
      found.gid = parse_id(field);
    }
  }
  // The finer one, unless they speak of different times.
  if (exact && (!found.mtime || found.mtime->sec == exact->sec)) found.mtime = exact;
  return found;
}

Timestamp time_of_dos(uint16_t date, uint16_t time) {
  using namespace std::chrono;
  auto month_of = std::clamp((date >> 5) & 15, 1, 12);
  auto day_of = std::clamp(date & 31, 1, 31);
  sys_days days = year(kDosFirstYear + (date >> 9)) / month(static_cast<unsigned>(month_of)) /
                  day(static_cast<unsigned>(day_of));
  int64_t seconds = (time >> 11) * 3600 + ((time >> 5) & 63) * 60 + (time & 31) * 2;
  return {days.time_since_epoch().count() * int64_t{86400} + seconds, 0};
}

DosTime dos_of_time(Timestamp time) {
  using namespace std::chrono;
  const sys_days first = year(kDosFirstYear) / January / 1, after = year(kDosLastYear + 1) / January / 1;
  int64_t least = first.time_since_epoch().count() * int64_t{86400};
  int64_t most = after.time_since_epoch().count() * int64_t{86400} - 1;
  int64_t at = std::clamp(time.sec, least, most);
  year_month_day day{sys_days(days(at / 86400))};
  int64_t in_day = at % 86400;
  auto date = (static_cast<int>(day.year()) - kDosFirstYear) << 9 | static_cast<unsigned>(day.month()) << 5 |
              static_cast<unsigned>(day.day());
  auto clock = in_day / 3600 << 11 | in_day / 60 % 60 << 5 | in_day % 60 / 2;
  return {static_cast<uint16_t>(date), static_cast<uint16_t>(clock)};
}

std::optional<Bytes> times_field(Timestamp mtime) {
  if (mtime.sec < INT32_MIN || mtime.sec > INT32_MAX) return std::nullopt;
  Bytes field;
  append_value(field, uint8_t{1});
  append_value(field, static_cast<int32_t>(mtime.sec));
  return field;
}

Bytes ntfs_field(Timestamp mtime) {
  // What lies before 1601 or far behind us becomes the nearest there is.
  int64_t seconds =
      std::clamp(mtime.sec, -kSecondsFrom1601, INT64_MAX / kTicksPerSecond - kSecondsFrom1601 - 1);
  auto ticks = static_cast<uint64_t>((seconds + kSecondsFrom1601) * kTicksPerSecond + mtime.nsec / 100);
  Bytes field;
  append_value(field, uint32_t{0});
  append_value(field, uint16_t{1});
  append_value(field, uint16_t{24});
  for (int i = 0; i < 3; i++) append_value(field, ticks);  // mtime, atime, ctime
  return field;
}

Bytes owners_field(uint32_t uid, uint32_t gid) {
  Bytes field;
  append_value(field, uint8_t{1});
  append_value(field, uint8_t{4});
  append_value(field, uid);
  append_value(field, uint8_t{4});
  append_value(field, gid);
  return field;
}

uint32_t mode_of(uint16_t made_by, uint32_t attributes, bool is_directory) {
  uint32_t mode = attributes >> 16;
  auto system = static_cast<uint8_t>(made_by >> 8);
  bool is_unix = (system == kUnix || system == kMac) && mode != 0;
  if (!is_unix) {
    is_directory |= (attributes & kDosDirectory) != 0;
    bool writable = (attributes & kDosReadOnly) == 0;
    return is_directory ? S_IFDIR | 0755 : S_IFREG | (writable ? 0644 : 0444);
  }
  if ((mode & S_IFMT) == 0) mode |= is_directory ? S_IFDIR : S_IFREG;
  return mode;
}

uint32_t attributes_of(uint32_t mode) {
  uint32_t dos = S_ISDIR(mode) ? kDosDirectory : 0;
  if ((mode & 0200) == 0 && !S_ISLNK(mode)) dos |= kDosReadOnly;
  return mode << 16 | dos;
}

}  // namespace reprise::snapshot::zip

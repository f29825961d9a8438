// ZipLayout: where everything lies in a ZIP, read and checked before libzip may see it. libzip unpacks; what
// it is told to unpack is settled here. A ZIP is accepted if and only if
//
// - the end record is where the file ends, the directory lies right before it, and is as long as it says;
// - each entry of the directory has a local header that says the same of it: name, method, sizes, checksum;
// - no two entries overlap, none reaches into the directory, none is encrypted or spread over several disks;
// - each is stored or packed by deflate or bzip2, and no larger than these can make it;
// - all of it is within the limits, which is known before anything is allocated for it.
//
// APPNOTE 6.3.9, 4.3 and 4.5 (zip64). Values only; threads: any.
#pragma once

#include <string>
#include <vector>

#include "base/disk.h"
#include "base/error.h"
#include "snapshot/import.h"

namespace reprise::snapshot {

struct ZipEntry {
  std::string name;  // as its bytes are
  uint16_t made_by = 0, flags = 0, method = 0, dos_time = 0, dos_date = 0;
  uint32_t crc = 0, attributes = 0;
  uint64_t packed_bytes = 0, bytes = 0;
  uint64_t header_offset = 0;
  Bytes extra;
};

inline constexpr uint16_t kZipStored = 0, kZipDeflate = 8, kZipBzip2 = 12;

// In the order of the directory. kCorrupt, kUnsupported or, beyond the limits, kNoSpace.
Result<std::vector<ZipEntry>> read_zip_layout(const File& archive, const ImportLimits& limits);

}  // namespace reprise::snapshot

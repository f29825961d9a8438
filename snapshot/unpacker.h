// Unpacker: the bytes of a stream that was compressed by gzip, bzip2, xz or zstd. libarchive does it, within
// this process; what starts other programs is not asked for. Threads: one.
#pragma once

#include <memory>

#include "base/host_stream.h"

namespace reprise::snapshot {

// "gzip", "bzip2", …, by the first bytes of a stream; "" if they are of none that can be unpacked.
std::string_view packed_by(ByteView first);

// `source` must outlive it. kCorrupt, from read(), when the bytes cannot be unpacked or are cut off.
Result<std::unique_ptr<ByteSource>> unpack(ByteSource& source);

}  // namespace reprise::snapshot

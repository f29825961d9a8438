#include "store/blob.h"

namespace reprise::store {

Result<BlobId> BlobSink::put_parts(std::span<const ByteView> parts, Refers) {
  Bytes whole;
  size_t total = 0;
  for (ByteView part : parts) total += part.size();
  whole.reserve(total);
  for (ByteView part : parts) append_bytes(whole, part);
  return put(whole);
}

}  // namespace reprise::store

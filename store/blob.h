// Blobs: immutable byte strings named by their XXH3-128. BlobSink takes them, BlobSource gives them back.
//
// No order, no names, no lifetime: what refers to a blob is in the blob that has its id (snapshot/).
// A blob's id says what it should contain, not who may be trusted: a source verifies the hash of what it
// gives.
#pragma once

#include "base/bytes.h"
#include "base/error.h"
#include "base/ids.h"

namespace reprise::store {

inline constexpr size_t kBlobLimit = 16 << 20;  // bytes in one blob

// May the blob refer to others? Who looks for what is still needed reads only those that may.
enum class Refers : uint8_t { kMaybe, kToNone };

class BlobSink {
 public:
  virtual ~BlobSink() = default;
  // Stores bytes and returns their id. If a blob of that id is there its bytes are compared: equal ones are
  // stored once, different ones are kCorrupt (a collision never aliases).
  virtual Result<BlobId> put(ByteView bytes) = 0;
  // The same for a blob that lies in pieces; what put would do with all of them in a row. Spares copying
  // where the sink can take pieces.
  virtual Result<BlobId> put_parts(std::span<const ByteView> parts, Refers refers);
  // Does it still have the blob that put returned `id` for, and all that were put before it and that it
  // refers to? A sink that never drops anything says yes.
  virtual Result<bool> keeps(BlobId) { return true; }
};

class BlobSource {
 public:
  virtual ~BlobSource() = default;
  // kNotFound, or kCorrupt when what is stored does not have this hash.
  virtual Result<Bytes> get(BlobId id) = 0;
};

}  // namespace reprise::store

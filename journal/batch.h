// Batch: operations applied all or none, encoded: one Cap'n Proto message (journal.capnp) and a body with
// file bytes.
//
// An encoded batch is immutable and shared: copying a Batch copies a pointer, and it may be read from any
// thread. Its checksum is made once, by its origin, and goes with it from instance to instance unchanged.
// Bytes from outside enter through Batch::parse alone, which checks all bounds: after it every accessor is
// safe.
#pragma once

#include <functional>
#include <memory>
#include <string_view>
#include <vector>

#include "base/clock.h"
#include "base/error.h"
#include "base/ids.h"
#include "fs/operation.h"
#include "journal/position.h"

namespace reprise::journal {

inline constexpr size_t kBatchSoftLimit = 64 * 1024;  // bytes at which a batch closes at the end of the call
inline constexpr size_t kBatchMessageLimit = 16 * 1024 * 1024;  // refused by readers beyond this
inline constexpr size_t kBatchBodyLimit = 64 * 1024 * 1024;     // likewise
inline constexpr size_t kLabelLimit = 255;                      // bytes

enum class BatchKind : uint8_t { kOrdinary, kOriginStart, kCompacted };

struct BatchHeader {
  BatchKind kind = BatchKind::kOrdinary;
  OriginId origin;
  Lsn lsn = 0;
  uint64_t lamport = 0;
  Timestamp time;
  std::string_view label;
  std::vector<Vector::Entry> dependencies;  // as the difference from the origin's previous batch
  OriginId previous_origin;                 // kOriginStart only
};

class Batch {
 public:
  Batch() = default;

  // `bytes` is message, then body; both multiples of 8 long. Checks the checksum, then everything else:
  // sizes, kinds, names (1 to 255 bytes, no '/' or NUL, not "." or ".."), ranges of the body. kCorrupt or
  // kUnsupported.
  static Result<Batch> parse(std::shared_ptr<const Bytes> bytes, size_t message_bytes, uint64_t checksum);

  explicit operator bool() const { return bytes_ != nullptr; }
  const BatchHeader& header() const;  // its label points into this batch
  size_t operation_count() const;
  // In order; the operations point into this batch. A kCompacted batch has none of these kinds (not yet
  // readable).
  void for_each(const std::function<void(const fs::Operation&)>& visit) const;

  ByteView message() const;
  ByteView body() const;
  uint64_t checksum() const;     // XXH3-64 of message and body, unseeded
  size_t encoded_bytes() const;  // of both together

 private:
  friend class BatchBuilder;
  struct Shared;
  std::shared_ptr<const Shared> bytes_;
};

// Memory of batches that are gone, for those to come.
class MemoryPool;

// Collects operations and encodes them. Reusable: finish() leaves it empty with its memory kept. Not
// thread-safe; one thread may collect and another, later, finish.
class BatchBuilder {
 public:
  BatchBuilder();
  // Takes the memory of its batches from this pool, which they return it to: others may share it.
  explicit BatchBuilder(std::shared_ptr<MemoryPool> pool);
  ~BatchBuilder();
  BatchBuilder(BatchBuilder&&) noexcept;
  BatchBuilder& operator=(BatchBuilder&&) noexcept;

  // Copies what the operation points to, file bytes once. False, and nothing added, if the batch would grow
  // past what readers accept: to an empty builder everything may be added, up to kBatchBodyLimit of file
  // bytes. It must be an operation that parse() accepts.
  [[nodiscard]] bool try_add(const fs::Operation& operation);
  void add(const fs::Operation& operation);  // the same, where there is room
  bool empty() const;
  size_t operation_count() const;
  size_t bytes() const;  // about what finish() will encode; 0 if it is empty
  Batch finish(const BatchHeader& header);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

std::shared_ptr<MemoryPool> make_memory_pool();

}  // namespace reprise::journal

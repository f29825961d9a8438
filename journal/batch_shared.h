// What all copies of one Batch share. Private to this folder: batch.cc reads it, batch_builder.cc makes it.
#pragma once

#include <array>
#include <atomic>
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

#include "base/check.h"
#include "journal/batch.h"

namespace reprise::journal {

// Memory of batches that are gone, for those to come: fresh memory costs more to touch than the bytes to copy
// into it, and so does memory that has left the processor's caches: what came back last goes out first.
// Threads: any; batches outlive the builders whose pool they return to.
class MemoryPool {
 public:
  // Empty, with room for so many bytes and less than twice as many. Less than 4 KiB are not worth keeping.
  Bytes take(size_t capacity);
  void give_back(Bytes&& bytes);

 private:
  static constexpr size_t kKeptBytes = 8 << 20;         // at most
  static constexpr size_t kSmallest = 12, kSizes = 16;  // powers of two, from 4 KiB

  std::mutex mutex_;
  std::array<std::vector<Bytes>, kSizes> kept_;
  size_t kept_bytes_ = 0;
};

struct Batch::Shared {
  ~Shared() {
    if (!pool) return;
    pool->give_back(std::move(built_message));
    pool->give_back(std::move(built_body));
  }
  std::shared_ptr<MemoryPool> pool;     // of built_message and built_body
  std::shared_ptr<const Bytes> parsed;  // one of these holds the bytes: from outside …
  Bytes built_message, built_body;      // … or built here
  ByteView message, body;
  BatchHeader header;
  uint32_t operation_count = 0;
  // Made when first asked for: usually by the journal's writer, off the recording thread.
  mutable std::atomic<uint64_t> checksum{0};
  mutable std::atomic<bool> checksum_known{false};

  Status decode();  // fills header and operation_count; throws kj::Exception
};

uint64_t batch_checksum(ByteView message, ByteView body);
// Null, or what no header of a batch may be.
const char* check_batch_header(const BatchHeader& header);

}  // namespace reprise::journal

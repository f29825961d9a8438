// What all copies of one Batch share. Private to this folder: batch.cc reads it, batch_builder.cc makes it.
#pragma once

#include <atomic>
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

#include "base/check.h"
#include "journal/batch.h"

namespace reprise::journal {

// Memory of the bodies of batches that are gone, for those to come: fresh memory costs more to touch than the
// bytes to copy into it. Threads: any; batches outlive the builder whose pool they return to.
class BodyPool {
 public:
  Bytes take();  // empty, with the room it last had
  void give_back(Bytes&& bytes);

 private:
  static constexpr size_t kKeptBytes = 8 << 20;  // at most
  std::mutex mutex_;
  std::vector<Bytes> kept_;
  size_t kept_bytes_ = 0;
};

struct Batch::Shared {
  ~Shared() {
    if (pool) pool->give_back(std::move(built_body));
  }
  std::shared_ptr<BodyPool> pool;       // of built_body
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

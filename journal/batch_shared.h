// What all copies of one Batch share. Private to this folder: batch.cc reads it, batch_builder.cc makes it.
#pragma once

#include <atomic>
#include <memory>

#include "base/check.h"
#include "journal/batch.h"

namespace reprise::journal {

struct Batch::Shared {
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

#include <memory>

#include "base/check.h"
#include "base/hash.h"
#include "journal/batch.h"
#include "tests/fuzz/memory.h"
#include "tests/fuzz/target.h"

namespace reprise::fuzz {
namespace {

journal::Batch encode_again(const journal::Batch& batch) {
  journal::BatchBuilder builder;
  batch.for_each([&](const fs::Operation& operation) { builder.add(operation); });
  return builder.finish(batch.header());
}

Result<journal::Batch> parse(ByteView message, ByteView body) {
  auto bytes = std::make_shared<Bytes>(message.begin(), message.end());
  append_bytes(*bytes, body);
  uint64_t checksum = hash64(*bytes);
  return journal::Batch::parse(std::move(bytes), message.size(), checksum);
}

}  // namespace

void fuzz_batch(ByteView input) {
  ByteReader in(input);
  size_t message_bytes = size_t{in.value<uint16_t>()} * 8;
  ByteView rest = in.take(in.remaining() / 8 * 8);
  if (message_bytes > rest.size()) return;
  MemoryLimit limit(small_memory(input.size()));
  auto batch = parse(rest.first(message_bytes), rest.subspan(message_bytes));
  if (!batch) return;
  // What was accepted can be said again, and is then said as we say it.
  journal::Batch again = encode_again(*batch);
  auto decoded = parse(again.message(), again.body());
  CHECK(decoded);
  CHECK(decoded->operation_count() == batch->operation_count());
  CHECK(decoded->header().lsn == batch->header().lsn && decoded->header().label == batch->header().label);
  CHECK(encode_again(*decoded).checksum() == again.checksum());
}

}  // namespace reprise::fuzz

REPRISE_FUZZ_TARGET(reprise::fuzz::fuzz_batch)

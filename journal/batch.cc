#define XXH_STATIC_LINKING_ONLY  // for a hashing state on the stack
#include "journal/batch.h"

#include <fmt/format.h>
#include <xxhash.h>

#include "base/hash.h"
#include "journal/batch_shared.h"
#include "journal/operation_codec.h"

namespace reprise::journal {
namespace {

constexpr uint32_t kNestingLimit = 8;  // the schema is four deep

std::unexpected<Error> damaged(std::string what) {
  return fail(Code::kCorrupt, "batch: " + std::move(what));
}

kj::ArrayPtr<const capnp::word> words_of(ByteView message) {
  return {reinterpret_cast<const capnp::word*>(message.data()), message.size() / sizeof(capnp::word)};
}

Status check_sizes(size_t message_bytes, size_t all_bytes) {
  if (message_bytes > all_bytes || message_bytes % 8 != 0 || all_bytes % 8 != 0) {
    return damaged(fmt::format("expected message and body in multiples of 8 bytes, found {} of {}",
                               message_bytes, all_bytes));
  }
  if (message_bytes > kBatchMessageLimit || all_bytes - message_bytes > kBatchBodyLimit) {
    return damaged(fmt::format("expected at most {} of message and {} of body, found {} and {}",
                               format_bytes(kBatchMessageLimit), format_bytes(kBatchBodyLimit),
                               format_bytes(message_bytes), format_bytes(all_bytes - message_bytes)));
  }
  return {};
}

// One Cap'n Proto segment that fills the message exactly, so that a batch has one shape.
Status check_segment_table(ByteView message) {
  uint32_t more_segments = message.size() < 8 ? 1 : load_value<uint32_t>(message.data());
  uint64_t words = message.size() < 8 ? 0 : load_value<uint32_t>(message.data() + 4);
  if (more_segments != 0 || 8 + words * 8 != message.size()) {
    return damaged(fmt::format("expected a message of one segment in {} bytes, found {} words in {} segments",
                               message.size(), words, uint64_t{more_segments} + 1));
  }
  return {};
}

OriginId origin_of(schema::Id128::Reader id) {
  return {.hi = id.getHi(), .lo = id.getLo()};
}

Result<BatchKind> kind_of(schema::Batch::Kind kind) {
  switch (kind) {
    case schema::Batch::Kind::ORDINARY:
      return BatchKind::kOrdinary;
    case schema::Batch::Kind::ORIGIN_START:
      return BatchKind::kOriginStart;
    case schema::Batch::Kind::COMPACTED:
      return fail(Code::kUnsupported, "batch kind compacted cannot be read by this version");
  }
  return fail(Code::kUnsupported, fmt::format("batch kind {} is unknown", static_cast<uint16_t>(kind)));
}

Result<BatchHeader> decode_header(schema::Batch::Reader batch) {
  BatchHeader header;
  header.kind = TRY(kind_of(batch.getKind()));
  header.origin = origin_of(batch.getOrigin());
  header.lsn = batch.getLsn();
  header.lamport = batch.getLamport();
  header.time = {.sec = batch.getTime().getSec(), .nsec = batch.getTime().getNsec()};
  auto label = batch.getLabel();
  header.label = {reinterpret_cast<const char*>(label.begin()), label.size()};
  header.previous_origin = origin_of(batch.getPreviousOrigin());
  for (auto entry : batch.getDependencies()) {
    header.dependencies.emplace_back(origin_of(entry.getOrigin()), entry.getLsn());
  }
  return header;
}

}  // namespace

const char* check_batch_header(const BatchHeader& header) {
  if (!header.origin) return "no origin";
  if (header.lsn == 0) return "LSN 0";
  if (header.kind == BatchKind::kOriginStart && header.lsn != 1)
    return "the start of an origin at an LSN other than 1";
  if (header.kind != BatchKind::kOriginStart && header.previous_origin)
    return "a previous origin past the first batch";
  if (header.time.nsec >= 1'000'000'000) return "nanoseconds past a second";
  if (header.label.size() > kLabelLimit) return "a label of more than 255 bytes";
  OriginId previous;
  for (const auto& [origin, lsn] : header.dependencies) {
    if (!(previous < origin)) return "dependencies out of order";
    if (origin == header.origin) return "a dependency on its own origin";
    if (lsn == 0) return "a dependency on LSN 0";
    previous = origin;
  }
  return nullptr;
}

uint64_t batch_checksum(ByteView message, ByteView body) {
  if (body.empty()) return hash64(message);
  XXH3_state_t state;
  XXH3_64bits_reset(&state);
  XXH3_64bits_update(&state, message.data(), message.size());
  XXH3_64bits_update(&state, body.data(), body.size());
  return XXH3_64bits_digest(&state);
}

// Reads every field once, so that no later reader meets a surprise.
Status Batch::Shared::decode() {
  capnp::ReaderOptions options;
  options.traversalLimitInWords =
      4 * (message.size() / 8) + 1024;  // objects shared by many pointers are refused
  options.nestingLimit = kNestingLimit;
  capnp::FlatArrayMessageReader reader(words_of(message), options);
  auto batch = reader.getRoot<schema::Batch>();
  header = TRY(decode_header(batch));
  if (const char* wrong = check_batch_header(header)) return damaged(fmt::format("found {}", wrong));

  auto operations = batch.getOperations();
  operation_count = operations.size();
  uint64_t body_read = 0;
  for (uint32_t i = 0; i < operations.size(); ++i) {
    auto decoded = decode_operation(operations[i], body);
    if (!decoded) return std::unexpected(decoded.error().with_context(fmt::format("batch: operation {}", i)));
    if (const char* wrong = check_operation(decoded->operation)) {
      return damaged(
          fmt::format("operation {} ({}): found {}", i, fs::operation_name(decoded->operation), wrong));
    }
    // Ranges that overlap would let a small batch stand for endless writing.
    if (decoded->body.length != 0 && decoded->body.offset < body_read) {
      return damaged(fmt::format("operation {}: expected bytes at or after {} of the body, found {}", i,
                                 body_read, decoded->body.offset));
    }
    if (decoded->body.length != 0) body_read = uint64_t{decoded->body.offset} + decoded->body.length;
  }
  return {};
}

Result<Batch> Batch::parse(std::shared_ptr<const Bytes> bytes, size_t message_bytes, uint64_t checksum) {
  TRY(check_sizes(message_bytes, bytes->size()));
  auto shared = std::make_shared<Shared>();
  shared->parsed = std::move(bytes);
  shared->message = ByteView(*shared->parsed).first(message_bytes);
  shared->body = ByteView(*shared->parsed).subspan(message_bytes);
  if (uint64_t found = batch_checksum(shared->message, shared->body); found != checksum) {
    return damaged(fmt::format("expected checksum {:016x}, found {:016x}", checksum, found));
  }
  shared->checksum.store(checksum, std::memory_order_relaxed);
  shared->checksum_known.store(true, std::memory_order_relaxed);
  TRY(check_segment_table(shared->message));

  Status decoded;
  KJ_IF_MAYBE (exception, kj::runCatchingExceptions([&] { decoded = shared->decode(); })) {
    return damaged(
        fmt::format("expected a message of the schema, found: {}", exception->getDescription().cStr()));
  }
  if (!decoded) return std::unexpected(decoded.error());
  Batch batch;
  batch.bytes_ = std::move(shared);
  return batch;
}

const BatchHeader& Batch::header() const {
  return bytes_->header;
}
size_t Batch::operation_count() const {
  return bytes_->operation_count;
}
ByteView Batch::message() const {
  return bytes_->message;
}
ByteView Batch::body() const {
  return bytes_->body;
}
size_t Batch::encoded_bytes() const {
  return bytes_->message.size() + bytes_->body.size();
}

uint64_t Batch::checksum() const {
  const Shared& shared = *bytes_;
  // Threads that race here compute the same value.
  if (!shared.checksum_known.load(std::memory_order_acquire)) {
    shared.checksum.store(batch_checksum(shared.message, shared.body), std::memory_order_relaxed);
    shared.checksum_known.store(true, std::memory_order_release);
  }
  return shared.checksum.load(std::memory_order_relaxed);
}

void Batch::for_each(const std::function<void(const fs::Operation&)>& visit) const {
  // A reader of its own: the traversal limit of a shared one would run out. What parse() or the builder
  // vouched for needs none.
  capnp::ReaderOptions options;
  options.traversalLimitInWords = UINT64_MAX;
  options.nestingLimit = kNestingLimit;
  capnp::FlatArrayMessageReader reader(words_of(bytes_->message), options);
  for (auto operation : reader.getRoot<schema::Batch>().getOperations()) {
    auto decoded = decode_operation(operation, bytes_->body);
    CHECK(decoded);
    visit(decoded->operation);
  }
}

}  // namespace reprise::journal

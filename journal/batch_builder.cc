#include <algorithm>
#include <cstring>

#include "base/check.h"
#include "journal/batch.h"
#include "journal/batch_shared.h"
#include "journal/operation_codec.h"

namespace reprise::journal {
namespace {

constexpr size_t kChunkBytes = 16 * 1024;  // longer than any name or link target

size_t words_for(size_t bytes) {
  return (bytes + 7) / 8;
}

// Keeps copies of names until the batch is encoded; chunks are reused, so nothing is allocated once it is
// warm.
class TextArena {
 public:
  std::string_view copy(std::string_view text) {
    if (text.empty()) return {};
    if (chunks_.empty() || used_ + text.size() > kChunkBytes) next_chunk();
    char* to = chunks_[chunk_].get() + used_;
    std::memcpy(to, text.data(), text.size());
    used_ += text.size();
    return {to, text.size()};
  }
  void clear() {
    chunk_ = 0;
    used_ = 0;
  }

 private:
  void next_chunk() {
    chunk_ = chunks_.empty() ? 0 : chunk_ + 1;
    used_ = 0;
    if (chunk_ == chunks_.size()) chunks_.push_back(std::make_unique<char[]>(kChunkBytes));
  }

  std::vector<std::unique_ptr<char[]>> chunks_;
  size_t chunk_ = 0, used_ = 0;
};

template <class Op>
void keep_text(Op& operation, TextArena& arena) {
  if constexpr (requires { operation.name; }) operation.name = arena.copy(operation.name);
  if constexpr (requires { operation.target; }) operation.target = arena.copy(operation.target);
  if constexpr (requires { operation.old_name; }) {
    operation.old_name = arena.copy(operation.old_name);
    operation.new_name = arena.copy(operation.new_name);
  }
}

void put_id(OriginId id, schema::Id128::Builder to) {
  to.setHi(id.hi);
  to.setLo(id.lo);
}

}  // namespace

Bytes BodyPool::take() {
  std::lock_guard lock(mutex_);
  if (kept_.empty()) return {};
  Bytes bytes = std::move(kept_.back());
  kept_.pop_back();
  kept_bytes_ -= bytes.capacity();
  return bytes;
}

void BodyPool::give_back(Bytes&& bytes) {
  std::lock_guard lock(mutex_);
  if (kept_bytes_ + bytes.capacity() > kKeptBytes) return;
  bytes.clear();
  kept_bytes_ += bytes.capacity();
  kept_.push_back(std::move(bytes));
}

struct BatchBuilder::State {
  struct Pending {
    fs::Operation operation;  // its text in `text`; its file bytes only as `body`
    BodyRange range;
  };
  std::vector<Pending> pending;
  TextArena text;
  std::shared_ptr<BodyPool> pool = std::make_shared<BodyPool>();
  Bytes body;
  size_t text_words = 0;          // of the names, each rounded up
  std::vector<uint64_t> scratch;  // words; all zero between two batches

  // Of the message: without operations, and for each besides its names.
  static constexpr size_t kFixedWords = 8 + capnp::sizeInWords<schema::Batch>() +
                                        2 * capnp::sizeInWords<schema::Id128>() +
                                        capnp::sizeInWords<schema::Timestamp>();
  static constexpr size_t kTimesWords = 3 * (capnp::sizeInWords<schema::Timestamp>() + 1) + 1;
  static constexpr size_t kOperationWords = capnp::sizeInWords<schema::Operation>() + kTimesWords;

  size_t operation_words() const { return pending.size() * kOperationWords + text_words; }
  size_t message_words(const BatchHeader& header) const;
  void fill(const BatchHeader& header, schema::Batch::Builder to) const;
  void encode(const BatchHeader& header, Batch::Shared& to);
  void give_body(Batch::Shared& to);
};

// An upper bound, so that the message stays in one segment.
size_t BatchBuilder::State::message_words(const BatchHeader& header) const {
  constexpr size_t kDependency =
      capnp::sizeInWords<schema::VectorEntry>() + capnp::sizeInWords<schema::Id128>();
  return kFixedWords + words_for(header.label.size()) + header.dependencies.size() * kDependency +
         operation_words();
}

void BatchBuilder::State::fill(const BatchHeader& header, schema::Batch::Builder to) const {
  put_id(header.origin, to.initOrigin());
  to.setLsn(header.lsn);
  to.setLamport(header.lamport);
  auto time = to.initTime();
  time.setSec(header.time.sec);
  time.setNsec(header.time.nsec);
  to.setLabel({reinterpret_cast<const capnp::byte*>(header.label.data()), header.label.size()});
  to.setKind(static_cast<schema::Batch::Kind>(header.kind));
  if (header.previous_origin) put_id(header.previous_origin, to.initPreviousOrigin());
  if (!header.dependencies.empty()) {
    auto dependencies = to.initDependencies(static_cast<uint32_t>(header.dependencies.size()));
    for (uint32_t i = 0; i < dependencies.size(); ++i) {
      put_id(header.dependencies[i].first, dependencies[i].initOrigin());
      dependencies[i].setLsn(header.dependencies[i].second);
    }
  }
  auto operations = to.initOperations(static_cast<uint32_t>(pending.size()));
  for (uint32_t i = 0; i < operations.size(); ++i) {
    encode_operation(pending[i].operation, pending[i].range, operations[i]);
  }
}

void BatchBuilder::State::encode(const BatchHeader& header, Batch::Shared& to) {
  size_t words = message_words(header);
  if (scratch.size() < words) scratch.assign(std::max(words, scratch.size() * 2), 0);
  capnp::MallocMessageBuilder builder(
      kj::arrayPtr(reinterpret_cast<capnp::word*>(scratch.data()), scratch.size()));
  auto root = builder.initRoot<schema::Batch>();
  fill(header, root);
  auto segments = builder.getSegmentsForOutput();
  CHECK(segments.size() == 1);
  auto encoded = segments[0].asBytes();
  CHECK(8 + encoded.size() <= kBatchMessageLimit && body.size() <= kBatchBodyLimit);

  to.built_message.reserve(8 + encoded.size());
  append_value(to.built_message, uint32_t{0});                                // one segment …
  append_value(to.built_message, static_cast<uint32_t>(encoded.size() / 8));  // … of so many words
  append_bytes(to.built_message, {reinterpret_cast<const std::byte*>(encoded.begin()), encoded.size()});
  auto label = root.asReader().getLabel();
  if (label.size() != 0) {
    size_t offset = 8 + static_cast<size_t>(label.begin() - encoded.begin());
    to.header.label = {reinterpret_cast<const char*>(to.built_message.data()) + offset, label.size()};
  }
}

// A batch does not hold much more memory than it has bytes.
void BatchBuilder::State::give_body(Batch::Shared& to) {
  if (body.size() < body.capacity() / 2) {
    to.built_body = Bytes(body.begin(), body.end());
    body.clear();
  } else {
    to.built_body = std::exchange(body, pool->take());
    to.pool = pool;
  }
}

BatchBuilder::BatchBuilder() : state_(std::make_unique<State>()) {}
BatchBuilder::~BatchBuilder() = default;

void BatchBuilder::add(const fs::Operation& operation) {
  // What readers would refuse must never be written.
  CHECK(check_operation(operation) == nullptr);
  State& state = *state_;
  ByteView bytes = body_bytes_of(operation);
  CHECK(bytes.size() <= kBatchBodyLimit - state.body.size());
  State::Pending& added = state.pending.emplace_back(
      operation, BodyRange{static_cast<uint32_t>(state.body.size()), static_cast<uint32_t>(bytes.size())});
  if (!bytes.empty() && state.body.capacity() == 0) state.body.reserve(2 * kBatchSoftLimit);
  append_bytes(state.body, bytes);
  std::visit([&](auto& o) { keep_text(o, state.text); }, added.operation);
  state.text_words += words_for(text_bytes_of(operation)) + 1;
}

bool BatchBuilder::fits(const fs::Operation& operation) const {
  constexpr size_t kMessageRoom = kBatchMessageLimit / 2;  // the other half is for what finish() adds
  return body_bytes_of(operation).size() <= kBatchBodyLimit - state_->body.size() &&
         state_->operation_words() * sizeof(capnp::word) + text_bytes_of(operation) <= kMessageRoom;
}

bool BatchBuilder::empty() const {
  return state_->pending.empty();
}
size_t BatchBuilder::operation_count() const {
  return state_->pending.size();
}
size_t BatchBuilder::bytes() const {
  if (empty()) return 0;
  return (State::kFixedWords + state_->operation_words()) * sizeof(capnp::word) + state_->body.size();
}

Batch BatchBuilder::finish(const BatchHeader& header) {
  CHECK(header.kind != BatchKind::kCompacted && check_batch_header(header) == nullptr);
  State& state = *state_;
  auto shared = std::make_shared<Batch::Shared>();
  state.body.resize(words_for(state.body.size()) * 8);
  shared->header = header;
  shared->header.label = {};
  state.encode(header, *shared);
  state.give_body(*shared);
  shared->message = shared->built_message;
  shared->body = shared->built_body;
  shared->operation_count = static_cast<uint32_t>(state.pending.size());

  state.pending.clear();
  state.text.clear();
  state.text_words = 0;
  Batch batch;
  batch.bytes_ = std::move(shared);
  return batch;
}

}  // namespace reprise::journal

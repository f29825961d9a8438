#include <algorithm>
#include <bit>
#include <cstring>
#include <type_traits>
#include <utility>

#include "base/check.h"
#include "journal/batch.h"
#include "journal/batch_shared.h"
#include "journal/operation_codec.h"

namespace reprise::journal {
namespace {

constexpr size_t kUsualBody = 2 * kBatchSoftLimit;            // room for what one that gathers comes to
constexpr size_t kFetchedEntries = 256, kFetchedBody = 4096;  // ahead of the operation that follows
constexpr size_t kKeptEntries = 8 * kBatchSoftLimit;          // beyond this a builder gives memory back

constexpr size_t words_for(size_t bytes) {
  return (bytes + 7) / 8;
}

// Calls visit(text) for every name and target of an operation, in an order that is always the same.
template <class Op, class Visit>
void for_each_text(Op& operation, const Visit& visit) {
  if constexpr (requires { operation.name; }) visit(operation.name);
  if constexpr (requires { operation.target; }) visit(operation.target);
  if constexpr (requires { operation.old_name; }) {
    visit(operation.old_name);
    visit(operation.new_name);
  }
}

// Memory that another thread has read since it was last written belongs to that thread's processor as well:
// asks for it back, before it is written again, without waiting.
inline void fetch_to_write(std::byte* from, size_t bytes) {
  constexpr size_t kLine = 64;
  for (size_t at = 0; at < bytes; at += kLine) {
#if defined(__x86_64__)
    asm volatile("prefetchw %0" : : "m"(from[at]));  // the compiler's own would only read
#else
    __builtin_prefetch(from + at, 1);
#endif
  }
}

template <class Op>
ByteView file_bytes_of(const Op& operation) {
  if constexpr (requires { operation.data; }) return operation.data;
  if constexpr (requires { operation.value; }) return operation.value;
  return {};
}

void put_id(OriginId id, schema::Id128::Builder to) {
  to.setHi(id.hi);
  to.setLo(id.lo);
}

// Words that an operation takes in the message besides its names, and a bound for each of these.
template <class Op>
constexpr size_t kOperationWords =
    capnp::sizeInWords<schema::Operation>() +
    (std::is_same_v<Op, fs::SetAttributes> ? 1 + 3 * capnp::sizeInWords<schema::Timestamp>()
                                           : capnp::sizeInWords<schema::Timestamp>());
constexpr size_t kHeaderWords =
    1 + capnp::sizeInWords<schema::Batch>() + 2 * capnp::sizeInWords<schema::Id128>() +
    capnp::sizeInWords<schema::Timestamp>() + 2;  // tags of the lists of dependencies and operations

// A message in one segment of memory that is there already.
class MessageInPlace final : public capnp::MessageBuilder {
 public:
  explicit MessageInPlace(kj::ArrayPtr<capnp::word> zeroed) : zeroed_(zeroed) {}
  kj::ArrayPtr<capnp::word> allocateSegment(unsigned minimum_words) override {
    CHECK(minimum_words <= zeroed_.size());
    return std::exchange(zeroed_, nullptr);
  }

 private:
  kj::ArrayPtr<capnp::word> zeroed_;
};

}  // namespace

std::shared_ptr<MemoryPool> make_memory_pool() {
  return std::make_shared<MemoryPool>();
}

Bytes MemoryPool::take(size_t capacity) {
  Bytes bytes;
  if (capacity < size_t{1} << kSmallest) {
    bytes.reserve(capacity);
    return bytes;
  }
  auto size = static_cast<size_t>(std::bit_width(capacity - 1));
  if (size - kSmallest < kSizes) {
    std::lock_guard lock(mutex_);
    std::vector<Bytes>& kept = kept_[size - kSmallest];
    if (!kept.empty()) {
      bytes = std::move(kept.back());
      kept.pop_back();
      kept_bytes_ -= bytes.capacity();
      return bytes;
    }
  }
  bytes.reserve(size_t{1} << size);
  return bytes;
}

void MemoryPool::give_back(Bytes&& bytes) {
  size_t capacity = bytes.capacity();
  if (!std::has_single_bit(capacity)) return;  // none, or not from here
  size_t size = static_cast<size_t>(std::countr_zero(capacity));
  if (size < kSmallest || size - kSmallest >= kSizes) return;
  std::lock_guard lock(mutex_);
  if (kept_bytes_ + capacity > kKeptBytes) return;
  bytes.clear();
  kept_bytes_ += capacity;
  kept_[size - kSmallest].push_back(std::move(bytes));
}

// Operations lie one behind the other in `entries`, each as an Entry, the fs:: struct and its names, so that
// adding one is little more than copying it. Everything else is left to finish().
struct BatchBuilder::State {
  struct Entry {
    uint32_t bytes;  // of all three, a multiple of 8
    uint32_t kind;   // index in fs::Operation
  };
  std::shared_ptr<MemoryPool> pool;
  std::unique_ptr<std::byte[]> entries;
  size_t entries_bytes = 0, entries_capacity = 0;
  size_t count = 0;
  size_t words = 0;  // of the message, for the operations: an upper bound
  Bytes body;
  size_t body_before = 0;  // size that the body had the time before

  explicit State(std::shared_ptr<MemoryPool> from) : pool(std::move(from)) {}

  template <class Op>
  bool try_add(const Op& operation, size_t kind);
  std::byte* grow_entries(size_t by);
  void add_to_body(ByteView bytes);
  template <size_t kKind>
  fs::Operation load(const std::byte* from) const;
  fs::Operation load(const Entry& entry, const std::byte* from) const;
  void fill(const BatchHeader& header, schema::Batch::Builder to) const;
  void encode(const BatchHeader& header, Batch::Shared& to) const;
  void give_body(Batch::Shared& to);
  void clear();
};

template <class Op>
bool BatchBuilder::State::try_add(const Op& operation, size_t kind) {
  static_assert(std::is_trivially_copyable_v<Op> && sizeof(Op) % 8 == 0);
  constexpr size_t kMessageRoom = kBatchMessageLimit / 2 / sizeof(capnp::word);  // half is for the header
  size_t text_bytes = 0, text_words = 0;
  for_each_text(operation, [&](std::string_view text) {
    text_bytes += text.size();
    text_words += words_for(text.size());
  });
  ByteView bytes = file_bytes_of(operation);
  size_t more_words = kOperationWords<Op> + text_words;
  if (bytes.size() > kBatchBodyLimit - body.size() || words + more_words > kMessageRoom) return false;

  size_t entry_bytes = sizeof(Entry) + sizeof(Op) + words_for(text_bytes) * 8;
  std::byte* to = grow_entries(entry_bytes);
  store_value(to, Entry{static_cast<uint32_t>(entry_bytes), static_cast<uint32_t>(kind)});
  to += sizeof(Entry);
  std::memcpy(to, &operation, sizeof(Op));
  to += sizeof(Op);
  for_each_text(operation, [&](std::string_view text) {
    if (text.empty()) return;
    std::memcpy(to, text.data(), text.size());
    to += text.size();
  });
  if (!bytes.empty()) add_to_body(bytes);
  words += more_words;
  ++count;
  return true;
}

std::byte* BatchBuilder::State::grow_entries(size_t by) {
  if (entries_bytes + by > entries_capacity) [[unlikely]] {
    size_t capacity = std::max(2 * entries_capacity, std::bit_ceil(entries_bytes + by));
    auto larger = std::make_unique_for_overwrite<std::byte[]>(capacity);
    if (entries_bytes > 0) std::memcpy(larger.get(), entries.get(), entries_bytes);
    entries = std::move(larger);
    entries_capacity = capacity;
  }
  std::byte* at = entries.get() + std::exchange(entries_bytes, entries_bytes + by);
  fetch_to_write(at + by, std::min(kFetchedEntries, entries_capacity - entries_bytes));
  return at;
}

// A batch of one call takes little memory; one that gathers is given what it will need, so that bytes are
// copied once.
void BatchBuilder::State::add_to_body(ByteView bytes) {
  size_t needed = body.size() + bytes.size();
  if (needed > body.capacity()) [[unlikely]] {
    size_t capacity = body.empty() ? std::max(needed, body_before) : std::max(2 * needed, kUsualBody);
    Bytes larger = pool->take(std::min(capacity, std::max(needed, kBatchBodyLimit)));
    append_bytes(larger, body);
    std::swap(body, larger);
    pool->give_back(std::move(larger));
  }
  append_bytes(body, bytes);
  size_t room = body.capacity() - body.size();
  fetch_to_write(body.data() + body.size(), std::min({room, bytes.size(), kFetchedBody}));
}

template <size_t kKind>
fs::Operation BatchBuilder::State::load(const std::byte* from) const {
  using Op = std::variant_alternative_t<kKind, fs::Operation>;
  Op operation;
  std::memcpy(&operation, from, sizeof operation);
  const char* text = reinterpret_cast<const char*>(from) + sizeof operation;
  for_each_text(operation, [&](std::string_view& its) {
    its = {text, its.size()};
    text += its.size();
  });
  return operation;
}

fs::Operation BatchBuilder::State::load(const Entry& entry, const std::byte* from) const {
  return [&]<size_t... kKinds>(std::index_sequence<kKinds...>) {
    using Load = fs::Operation (State::*)(const std::byte*) const;
    static constexpr Load kLoads[] = {&State::load<kKinds>...};
    return (this->*kLoads[entry.kind])(from);
  }(std::make_index_sequence<std::variant_size_v<fs::Operation>>());
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
  auto operations = to.initOperations(static_cast<uint32_t>(count));
  const std::byte* at = entries.get();
  BodyRange range;
  for (auto builder : operations) {
    Entry entry = load_value<Entry>(at);
    fs::Operation operation = load(entry, at + sizeof entry);
    // What readers would refuse must never be written.
    CHECK(check_operation(operation) == nullptr);
    range.length = static_cast<uint32_t>(body_bytes_of(operation).size());
    encode_operation(operation, range, builder);
    range.offset += range.length;
    at += entry.bytes;
  }
}

void BatchBuilder::State::encode(const BatchHeader& header, Batch::Shared& to) const {
  constexpr size_t kTableBytes = 8;
  constexpr size_t kDependencyWords =
      capnp::sizeInWords<schema::VectorEntry>() + capnp::sizeInWords<schema::Id128>();
  size_t room =
      kHeaderWords + words_for(header.label.size()) + header.dependencies.size() * kDependencyWords + words;
  to.built_message = pool->take(kTableBytes + room * sizeof(capnp::word));
  to.built_message.resize(kTableBytes + room * sizeof(capnp::word));
  MessageInPlace message(
      kj::arrayPtr(reinterpret_cast<capnp::word*>(to.built_message.data() + kTableBytes), room));
  auto root = message.initRoot<schema::Batch>();
  fill(header, root);
  auto segments = message.getSegmentsForOutput();
  CHECK(segments.size() == 1);
  size_t bytes = kTableBytes + segments[0].asBytes().size();
  CHECK(bytes <= kBatchMessageLimit && body.size() <= kBatchBodyLimit);
  auto label = root.asReader().getLabel();
  if (label.size() != 0) to.header.label = {reinterpret_cast<const char*>(label.begin()), label.size()};

  store_value(to.built_message.data(), uint32_t{0});  // one segment, of so many words
  store_value(to.built_message.data() + 4, static_cast<uint32_t>((bytes - kTableBytes) / 8));
  to.built_message.resize(bytes);
}

// A batch does not hold much more memory than it has bytes.
void BatchBuilder::State::give_body(Batch::Shared& to) {
  body_before = body.size();
  if (body.empty()) return;
  body.resize(words_for(body.size()) * 8);
  if (body.size() < body.capacity() / 4) {
    to.built_body = pool->take(body.size());
    append_bytes(to.built_body, body);
    body.clear();
  } else {
    to.built_body = std::exchange(body, {});
  }
}

void BatchBuilder::State::clear() {
  if (entries_capacity > kKeptEntries) {
    entries.reset();
    entries_capacity = 0;
  }
  entries_bytes = count = words = 0;
  body.clear();
}

BatchBuilder::BatchBuilder() : BatchBuilder(make_memory_pool()) {}
BatchBuilder::BatchBuilder(std::shared_ptr<MemoryPool> pool)
    : state_(std::make_unique<State>(std::move(pool))) {}
BatchBuilder::~BatchBuilder() = default;
BatchBuilder::BatchBuilder(BatchBuilder&&) noexcept = default;
BatchBuilder& BatchBuilder::operator=(BatchBuilder&&) noexcept = default;

bool BatchBuilder::try_add(const fs::Operation& operation) {
  return std::visit([&](const auto& o) { return state_->try_add(o, operation.index()); }, operation);
}

void BatchBuilder::add(const fs::Operation& operation) {
  bool added = try_add(operation);
  CHECK(added);
}

bool BatchBuilder::empty() const {
  return state_->count == 0;
}
size_t BatchBuilder::operation_count() const {
  return state_->count;
}
size_t BatchBuilder::bytes() const {
  if (empty()) return 0;
  return (kHeaderWords + state_->words) * sizeof(capnp::word) + state_->body.size();
}

Batch BatchBuilder::finish(const BatchHeader& header) {
  CHECK(header.kind != BatchKind::kCompacted && check_batch_header(header) == nullptr);
  State& state = *state_;
  auto shared = std::make_shared<Batch::Shared>();
  shared->pool = state.pool;
  shared->header = header;
  shared->header.label = {};
  state.encode(header, *shared);
  state.give_body(*shared);
  shared->message = shared->built_message;
  shared->body = shared->built_body;
  shared->operation_count = static_cast<uint32_t>(state.count);
  state.clear();
  Batch batch;
  batch.bytes_ = std::move(shared);
  return batch;
}

}  // namespace reprise::journal

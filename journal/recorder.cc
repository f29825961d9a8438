#include "journal/recorder.h"

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <condition_variable>
#include <mutex>
#include <string>
#include <vector>

#include "base/check.h"
#include "journal/call_gate.h"

namespace reprise::journal {
namespace {

constexpr size_t kAroundABatch = 256;  // what one takes besides its operations, when each call is one
constexpr size_t kMuch = 512 << 10;    // bytes gathered that the journal is told of at once
constexpr size_t kIdleBuilders = kGatherLimit / kBatchSoftLimit;

uint64_t draw_prefix(Random& random) {
  uint64_t prefix;
  do prefix = random.next() & InodeId::kMaxPrefix;
  while (prefix == 0);
  return prefix;
}

std::unexpected<fs::Errno> errno_of(const Error& error, int otherwise) {
  return fs::errno_of(error.code() == Code::kNoSpace ? ENOSPC : otherwise);
}

}  // namespace

struct Recorder::State {
  using Lock = std::unique_lock<std::mutex>;
  struct Closed {
    BatchBuilder builder;
    BatchHeader header;  // without its label
    std::string label;
  };

  Journal& journal;
  Clock& clock;
  Random& random;
  const OriginId origin;
  const bool always;  // every call waits for the disk
  Allowance* allowance = nullptr;

  std::mutex claiming;
  Claim claim;  // guarded by `claiming`
  std::atomic<bool> claimed;

  std::atomic<bool> begun = false;  // the stream has its first batch; set by the recording thread
  // Of the recording thread.
  bool in_call = false;  // between the first record of a call and its end
  uint64_t prefix = 0;   // of the inode ids handed out; 0 before the first
  uint64_t used = 0;     // ids handed out of it

  // Of who has entered or taken the gate: the open batch.
  CallGate gate;
  std::shared_ptr<MemoryPool> pool = make_memory_pool();
  BatchBuilder open{pool};
  std::string label;
  bool labelled = false;                 // it has operations of a call, not only claims of prefixes
  bool told = false, told_much = false;  // the journal knows that something is gathered; that it is much
  bool asks = false;                     // then it will ask for it

  std::mutex appending;         // closed batches are encoded and appended in their order
  std::vector<Closed> leaving;  // of who holds `appending`

  mutable std::mutex mutex;  // all below
  OriginId previous;         // whose batch was the last before the stream began
  std::vector<Closed> closed;
  std::vector<BatchBuilder> idle;
  std::atomic<size_t> closed_bytes{0};  // changed with the mutex held
  std::atomic<int> flushes_waiting{0};  // likewise; for the end of a call
  uint64_t flushes_done = 0;
  std::condition_variable flush_done;
  Vector applied;  // own batches in the journal included
  Vector unsaid;   // what was observed since the last own batch: its successor's dependencies
  uint64_t lamport = 0;
  Lsn lsn = 0;
  LogIndex newest = 0;  // log index of the newest own batch
  std::optional<Error> failure;
  std::atomic<bool> failed{false};

  State(Journal& to, Clock& time, Random& chance, OriginId before, Claim claims)
      : journal(to),
        clock(time),
        random(chance),
        origin(chance.next_id<OriginId>()),
        always(to.durability() == Durability::kAlways),
        claim(std::move(claims)),
        claimed(claim == nullptr),
        previous(before) {}

  Status claim_once() {
    std::lock_guard one(claiming);
    if (claimed.load(std::memory_order_relaxed)) return {};
    TRY(claim(origin));
    claimed.store(true, std::memory_order_release);
    return {};
  }

  // With the gate.
  void close_open(BatchKind kind = BatchKind::kOrdinary);
  void begin_stream();
  void collect(const fs::Operation& operation);
  // With `appending`.
  bool append_all();
  void append_closed();
  Result<LogIndex> append(Closed& batch);
  // By the recording thread: it leaves the gate.
  void leave();
  void append_at_once();
  void claim_prefix();
  fs::Outcome<void> outcome() const;
};

// The open batch, if it has anything in it, gets its place in the stream and waits to be appended.
void Recorder::State::close_open(BatchKind kind) {
  if (open.empty()) return;
  labelled = false;
  Closed batch{.builder = std::move(open), .header = {}, .label = std::exchange(label, {})};
  batch.header = {.kind = kind, .origin = origin, .time = clock.realtime()};
  std::lock_guard lock(mutex);
  if (kind == BatchKind::kOriginStart) batch.header.previous_origin = previous;
  batch.header.lsn = ++lsn;
  batch.header.lamport = ++lamport;
  if (!unsaid.empty()) batch.header.dependencies = std::exchange(unsaid, {}).entries();
  closed_bytes.store(closed_bytes.load(std::memory_order_relaxed) + batch.builder.bytes(),
                     std::memory_order_relaxed);
  closed.push_back(std::move(batch));
  if (idle.empty()) {
    open = BatchBuilder(pool);
  } else {
    open = std::move(idle.back());
    idle.pop_back();
  }
}

// Everything there is, but for the call that is under way: false if there is one.
bool Recorder::State::append_all() {
  bool all = gate.take();
  if (all) {
    close_open();
    told = told_much = false;
    gate.give_back();
  }
  append_closed();
  return all;
}

// What the tree has and the journal refuses is lost to peers: recording ends there, and reserve() lets no
// further call through.
void Recorder::State::append_closed() {
  Lock lock(mutex);
  std::swap(closed, leaving);
  for (Closed& batch : leaving) {
    const size_t bytes = batch.builder.bytes();
    if (!failure) {
      lock.unlock();
      auto index = append(batch);
      lock.lock();
      if (index) {
        newest = *index;
        applied.set(origin, batch.header.lsn);
      } else {
        failure = index.error();
        failed.store(true, std::memory_order_release);
      }
    }
    // Only now: until it is appended it counts as gathered.
    closed_bytes.store(closed_bytes.load(std::memory_order_relaxed) - bytes, std::memory_order_relaxed);
    if (!failure && idle.size() < kIdleBuilders) idle.push_back(std::move(batch.builder));
  }
  leaving.clear();
}

Result<LogIndex> Recorder::State::append(Closed& batch) {
  batch.header.label = batch.label;
  return journal.append(batch.builder.finish(batch.header));
}

// Who asked during the call went without what the call records.
void Recorder::State::leave() {
  in_call = false;
  if (!gate.leave()) return;
  if (flushes_waiting == 0 && !journal.reader_waits() && journal.expect(true)) return;
  append_at_once();
}

void Recorder::State::append_at_once() {
  std::lock_guard one(appending);
  CHECK(append_all());  // no call is under way but this thread's, which has left
  if (flushes_waiting == 0) return;
  std::lock_guard lock(mutex);
  ++flushes_done;
  flush_done.notify_all();
}

fs::Outcome<void> Recorder::State::outcome() const {
  if (failed.load(std::memory_order_acquire)) [[unlikely]]
    return errno_of(*failure, EIO);
  return {};
}

// The first batch of the stream.
void Recorder::State::begin_stream() {
  begun = true;
  if (prefix == 0) prefix = draw_prefix(random);
  open.add(fs::ClaimPrefix{prefix});
  close_open(BatchKind::kOriginStart);
}

void Recorder::State::claim_prefix() {
  if (in_call) return open.add(fs::ClaimPrefix{prefix});
  gate.enter();
  open.add(fs::ClaimPrefix{prefix});
  leave();
}

// What the open batch has no room for goes into the next, and a write that no batch can hold into several,
// which together do the same.
void Recorder::State::collect(const fs::Operation& operation) {
  if (open.try_add(operation)) [[likely]]
    return;
  const auto* write = std::get_if<fs::Write>(&operation);
  if (write == nullptr || write->data.size() <= kBatchBodyLimit) {
    std::string kept = label;
    close_open();
    label = std::move(kept);
    labelled = true;
    return open.add(operation);
  }
  for (size_t done = 0; done < write->data.size(); done += kBatchBodyLimit) {
    fs::Write part = *write;
    part.offset += done;
    part.data = write->data.subspan(done, std::min(kBatchBodyLimit, write->data.size() - done));
    collect(part);
  }
}

Recorder::Recorder(std::unique_ptr<State> state) : state_(std::move(state)) {
  state_->journal.set_gatherer(this);
}

Recorder::~Recorder() {
  state_->journal.set_gatherer(nullptr);
  hand_over();
}

std::unique_ptr<Recorder> Recorder::create(Journal& journal, Clock& clock, Random& random,
                                           const Vector& applied, uint64_t lamport, OriginId previous_origin,
                                           Claim claim, Allowance* allowance) {
  auto state = std::make_unique<State>(journal, clock, random, previous_origin, std::move(claim));
  state->allowance = allowance;
  state->applied = applied;
  state->lamport = lamport;
  if (Lsn of_previous = applied.get(previous_origin); of_previous > 0) {
    state->unsaid.set(previous_origin, of_previous);
  } else {
    state->unsaid = applied;
  }
  return std::unique_ptr<Recorder>(new Recorder(std::move(state)));
}

OriginId Recorder::origin() const {
  return state_->origin;
}

bool Recorder::begun() const {
  return state_->begun;
}

Vector Recorder::vector() const {
  std::lock_guard lock(state_->mutex);
  return state_->applied;
}

uint64_t Recorder::lamport() const {
  std::lock_guard lock(state_->mutex);
  return state_->lamport;
}

void Recorder::observe(const BatchHeader& header) {
  CHECK(header.origin != state_->origin);
  std::lock_guard lock(state_->mutex);
  if (!state_->begun) state_->previous = header.origin;
  state_->lamport = std::max(state_->lamport, header.lamport);
  state_->applied.set(header.origin, header.lsn);
  state_->unsaid.set(header.origin, header.lsn);
}

Result<LogIndex> Recorder::flush() {
  State& state = *state_;
  std::unique_lock one(state.appending);
  State::Lock lock(state.mutex);
  ++state.flushes_waiting;  // the call that is under way, if any, looks at it when it ends
  uint64_t done_before = state.flushes_done;
  lock.unlock();
  bool all = state.append_all();
  one.unlock();  // the call may need it
  lock.lock();
  if (!all) state.flush_done.wait(lock, [&] { return state.flushes_done != done_before; });
  --state.flushes_waiting;
  if (state.failure) return std::unexpected(*state.failure);
  return state.newest;
}

void Recorder::hand_over() {
  std::lock_guard one(state_->appending);
  static_cast<void>(state_->append_all());  // what a call has kept, it will tell the journal of
}

fs::Outcome<void> Recorder::reserve(size_t bytes) {
  if (state_->failed.load(std::memory_order_acquire)) [[unlikely]]
    return errno_of(*state_->failure, EROFS);
  if (!state_->claimed.load(std::memory_order_acquire)) [[unlikely]] {
    if (Status claimed = state_->claim_once(); !claimed) return errno_of(claimed.error(), EROFS);
  }
  if (Status room = state_->journal.reserve(bytes); !room) [[unlikely]]
    return errno_of(room.error(), EROFS);
  if (state_->allowance != nullptr) state_->allowance->take(bytes + kAroundABatch);
  return {};
}

void Recorder::record(const fs::Operation& operation, std::string_view label) {
  State& state = *state_;
  if (!state.in_call) {
    state.gate.enter();
    state.in_call = true;
  }
  if (state.failed.load(std::memory_order_relaxed)) [[unlikely]]
    return;  // the call was let in before the journal failed
  if (!state.begun) [[unlikely]]
    state.begin_stream();
  label = label.substr(0, kLabelLimit);
  if (state.labelled && state.label != label) state.close_open();
  if (!state.labelled) {
    state.label = label;
    state.labelled = true;
  }
  state.collect(operation);
  if (std::holds_alternative<fs::Barrier>(operation)) state.close_open();
}

fs::Outcome<void> Recorder::end_call() {
  State& state = *state_;
  if (!state.in_call) return state.outcome();
  size_t open_bytes = state.open.bytes();
  bool closes = open_bytes >= kBatchSoftLimit;
  if (closes) state.close_open();
  size_t gathered = open_bytes + state.closed_bytes.load(std::memory_order_relaxed);
  bool much = gathered >= kMuch;
  bool at_once = state.always || gathered >= kGatherLimit || state.journal.reader_waits();
  if (!at_once && gathered > 0 && (!state.told || (much && !state.told_much))) {
    state.told = true;
    state.told_much = much;
    state.asks = state.journal.expect(much);
  }
  at_once |= closes && !state.asks;
  state.leave();
  if (at_once) state.append_at_once();
  return state.outcome();
}

fs::Outcome<void> Recorder::commit() {
  State& state = *state_;
  if (!state.always) return {};
  LogIndex through;
  {
    std::lock_guard lock(state.mutex);
    if (state.failure) return errno_of(*state.failure, EIO);
    through = state.newest;
  }
  // The journal has the call, and followers get it: whether the disk will, reserve() asks before the next
  // one.
  if (Status synced = state.journal.sync(through); !synced) return errno_of(synced.error(), EIO);
  return {};
}

InodeId Recorder::next() {
  State& state = *state_;
  bool used_up = state.used > (uint64_t{1} << InodeId::kCounterBits) - 1;
  if (state.prefix == 0 || used_up) [[unlikely]] {
    state.prefix = draw_prefix(state.random);
    state.used = 0;
    if (state.begun) state.claim_prefix();
  }
  return InodeId::make(state.prefix, static_cast<uint32_t>(state.used++));
}

}  // namespace reprise::journal

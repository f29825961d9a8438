#include "journal/recorder.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <condition_variable>
#include <mutex>
#include <string>

#include "base/check.h"

namespace reprise::journal {
namespace {

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

  Journal& journal;
  Clock& clock;
  Random& random;
  const OriginId origin, previous;
  const bool always;   // every call waits for the disk
  bool begun = false;  // the stream has its first batch; of the recording thread

  std::mutex closing;  // one batch closes and is appended at a time
  mutable std::mutex mutex;
  std::array<BatchBuilder, 2> builders;  // one gathers; the other belongs to who holds `closing`
  size_t gathering = 0;
  std::string label;          // of what is gathered
  bool labelled = false;      // it has operations of a call, not only claims of prefixes
  bool expected = false;      // the journal knows that something is gathered …
  bool expected_now = false;  // … and that it is much
  bool in_call = false;       // between the first record of a call and its end
  bool wanted = false;        // somebody asked for the batch in the middle of the call
  int flushes_waiting = 0;    // for the end of the call
  uint64_t flushed_calls = 0;
  std::condition_variable call_ended;

  Vector applied;  // own batches in the journal included
  Vector unsaid;   // what was observed since the last own batch: its successor's dependencies
  uint64_t lamport = 0;
  Lsn lsn = 0;
  LogIndex newest = 0;  // log index of the newest own batch
  uint64_t prefix = 0;  // of the inode ids handed out; 0 before the first
  uint64_t used = 0;    // ids handed out of it
  std::optional<Error> failure;
  std::atomic<bool> failed{false};

  State(Journal& to, Clock& time, Random& chance, OriginId before)
      : journal(to),
        clock(time),
        random(chance),
        origin(chance.next_id<OriginId>()),
        previous(before),
        always(to.durability() == Durability::kAlways) {}

  BatchBuilder& open() { return builders[gathering]; }
  Status close();
  Status close(BatchKind kind, Lock& lock);
  void fail_with(const Error& error);  // with mutex held
  // By the recording thread, which `lock` lets others in between.
  void begin_stream();
  void collect(const fs::Operation& operation, Lock& lock);
  void collect_parts(const fs::Write& write, Lock& lock);
};

// Closes what is gathered, encodes it with `mutex` released, and appends it. What the tree has and the
// journal refuses is lost to peers: recording ends here, and reserve() lets no further call through.
// `closing` is held, and `mutex` by `lock`.
Status Recorder::State::close(BatchKind kind, Lock& lock) {
  if (failure) return std::unexpected(*failure);
  expected = expected_now = false;
  if (open().empty()) return {};
  BatchBuilder& full = open();
  std::string its_label = std::exchange(label, {});
  labelled = false;
  gathering ^= 1;
  BatchHeader header{.kind = kind,
                     .origin = origin,
                     .lsn = ++lsn,
                     .lamport = ++lamport,
                     .time = clock.realtime(),
                     .label = its_label,
                     .dependencies = std::exchange(unsaid, {}).entries()};
  if (kind == BatchKind::kOriginStart) header.previous_origin = previous;
  lock.unlock();
  auto index = journal.append(full.finish(header));
  lock.lock();
  if (!index) {
    fail_with(index.error());
    return std::unexpected(*failure);
  }
  newest = *index;
  applied.set(origin, header.lsn);
  return {};
}

void Recorder::State::fail_with(const Error& error) {
  if (failure) return;
  failure = error;
  failed.store(true, std::memory_order_release);
}

Status Recorder::State::close() {
  std::lock_guard one(closing);
  Lock lock(mutex);
  return close(BatchKind::kOrdinary, lock);
}

// The first batch of the stream, in a journal that it must be in before any other.
void Recorder::State::begin_stream() {
  std::lock_guard one(closing);
  Lock lock(mutex);
  begun = true;
  if (prefix == 0) prefix = draw_prefix(random);
  open().add(fs::ClaimPrefix{prefix});
  static_cast<void>(close(BatchKind::kOriginStart, lock));  // kept in failure
}

void Recorder::State::collect(const fs::Operation& operation, Lock& lock) {
  const auto* write = std::get_if<fs::Write>(&operation);
  if (write != nullptr && write->data.size() > kBatchBodyLimit) return collect_parts(*write, lock);
  if (!open().fits(operation)) {
    std::string kept = label;
    lock.unlock();
    static_cast<void>(close());  // kept in failure
    lock.lock();
    label = std::move(kept);
    labelled = true;
  }
  open().add(operation);
}

// A write that no batch can hold is recorded as several, which together do the same.
void Recorder::State::collect_parts(const fs::Write& write, Lock& lock) {
  for (size_t done = 0; done < write.data.size(); done += kBatchBodyLimit) {
    fs::Write part = write;
    part.offset += done;
    part.data = write.data.subspan(done, std::min(kBatchBodyLimit, write.data.size() - done));
    collect(part, lock);
  }
}

Recorder::Recorder(std::unique_ptr<State> state) : state_(std::move(state)) {
  state_->journal.set_gatherer(this);
}

Recorder::~Recorder() {
  state_->journal.set_gatherer(nullptr);
  static_cast<void>(state_->close());
}

std::unique_ptr<Recorder> Recorder::create(Journal& journal, Clock& clock, Random& random,
                                           const Vector& applied, uint64_t lamport,
                                           OriginId previous_origin) {
  auto state = std::make_unique<State>(journal, clock, random, previous_origin);
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
  state_->lamport = std::max(state_->lamport, header.lamport);
  state_->applied.set(header.origin, header.lsn);
  state_->unsaid.set(header.origin, header.lsn);
}

Result<LogIndex> Recorder::flush() {
  State& state = *state_;
  std::unique_lock one(state.closing);
  State::Lock lock(state.mutex);
  if (!state.in_call) {
    TRY(state.close(BatchKind::kOrdinary, lock));
    return state.newest;
  }
  one.unlock();  // the call may need it
  state.wanted = true;
  ++state.flushes_waiting;
  state.call_ended.wait(lock, [&, before = state.flushed_calls] { return state.flushed_calls != before; });
  --state.flushes_waiting;
  if (state.failure) return std::unexpected(*state.failure);
  return state.newest;
}

void Recorder::hand_over() {
  State& state = *state_;
  std::lock_guard one(state.closing);
  State::Lock lock(state.mutex);
  if (state.in_call)
    state.wanted = true;
  else
    static_cast<void>(state.close(BatchKind::kOrdinary, lock));  // kept in failure
}

fs::Outcome<void> Recorder::reserve(size_t bytes) {
  if (state_->failed.load(std::memory_order_acquire)) [[unlikely]]
    return errno_of(*state_->failure, EROFS);
  if (Status room = state_->journal.reserve(bytes); !room) [[unlikely]]
    return errno_of(room.error(), EROFS);
  return {};
}

void Recorder::record(const fs::Operation& operation, std::string_view label) {
  label = label.substr(0, kLabelLimit);
  State& state = *state_;
  if (!state.begun) state.begin_stream();
  State::Lock lock(state.mutex);
  if (state.labelled && state.label != label) {
    lock.unlock();
    static_cast<void>(state.close());  // kept in failure
    lock.lock();
  }
  if (state.failure) return;  // the call was let in before the journal failed
  if (!state.labelled) {
    state.label = label;
    state.labelled = true;
  }
  state.in_call = true;
  state.collect(operation, lock);
  if (!std::holds_alternative<fs::Barrier>(operation)) return;
  lock.unlock();
  static_cast<void>(state.close());  // kept in failure
}

fs::Outcome<void> Recorder::end_call() {
  State& state = *state_;
  State::Lock lock(state.mutex);
  state.in_call = false;
  size_t bytes = state.open().bytes();
  bool much = bytes >= kBatchSoftLimit;
  bool close = std::exchange(state.wanted, false) || state.always || bytes >= kBatchHardLimit ||
               state.journal.reader_waits();
  bool tell = !close && bytes > 0 && (!state.expected || (much && !state.expected_now));
  if (tell) {
    state.expected = true;
    state.expected_now = much;
  }
  bool flush_waits = state.flushes_waiting > 0;
  if (!close && !tell && !flush_waits && !state.failure) return {};
  lock.unlock();
  if (tell) close = !state.journal.expect(much) && much;
  if (close) static_cast<void>(state.close());  // kept in failure
  lock.lock();
  if (flush_waits) {
    ++state.flushed_calls;
    state.call_ended.notify_all();
  }
  if (state.failure) return errno_of(*state.failure, EIO);
  return {};
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
  std::lock_guard lock(state.mutex);
  bool used_up = state.used > (uint64_t{1} << InodeId::kCounterBits) - 1;
  if (state.prefix == 0 || used_up) {
    state.prefix = draw_prefix(state.random);
    state.used = 0;
    if (state.begun) state.open().add(fs::ClaimPrefix{state.prefix});
  }
  return InodeId::make(state.prefix, static_cast<uint32_t>(state.used++));
}

}  // namespace reprise::journal

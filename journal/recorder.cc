#include "journal/recorder.h"

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
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

}  // namespace

struct Recorder::State {
  Journal& journal;
  Clock& clock;
  Random& random;
  const OriginId origin;

  mutable std::mutex mutex;
  BatchBuilder open;      // the batch that is being collected
  std::string label;      // of its operations
  bool labelled = false;  // it has operations of a call, not only claims of prefixes
  Vector applied;         // own batches included
  Vector unsaid;          // what was observed since the last own batch: its successor's dependencies
  uint64_t lamport = 0;
  Lsn lsn = 0;
  LogIndex newest = 0;  // log index of the newest own batch
  uint64_t prefix = 0;  // of the inode ids handed out
  uint64_t used = 0;    // ids handed out of it
  std::optional<Error> failure;
  std::atomic<bool> failed{false};

  State(Journal& to, Clock& time, Random& chance)
      : journal(to), clock(time), random(chance), origin(chance.next_id<OriginId>()) {}

  // With mutex held:
  Status close_batch(BatchKind kind = BatchKind::kOrdinary, OriginId previous = {});
  void collect(const fs::Operation& operation);
  void collect_parts(const fs::Write& write);
  void claim_prefix();
};

// Encodes and appends. What the tree has and the journal refuses is lost to peers: recording ends here, and
// reserve() lets no further call through.
Status Recorder::State::close_batch(BatchKind kind, OriginId previous) {
  if (failure) return std::unexpected(*failure);
  if (open.empty()) return {};
  BatchHeader header{.kind = kind,
                     .origin = origin,
                     .lsn = lsn + 1,
                     .lamport = lamport + 1,
                     .time = clock.realtime(),
                     .label = label,
                     .dependencies = unsaid.entries(),
                     .previous_origin = previous};
  auto index = journal.append(open.finish(header));
  label.clear();
  labelled = false;
  if (!index) {
    failure = index.error();
    failed.store(true, std::memory_order_release);
    return std::unexpected(*failure);
  }
  newest = *index;
  lsn += 1;
  lamport += 1;
  applied.set(origin, lsn);
  unsaid = {};
  return {};
}

void Recorder::State::collect(const fs::Operation& operation) {
  const auto* write = std::get_if<fs::Write>(&operation);
  if (write != nullptr && write->data.size() > kBatchBodyLimit) return collect_parts(*write);
  if (!open.fits(operation)) {
    std::string kept = label;
    static_cast<void>(close_batch());  // kept in failure
    label = std::move(kept);
    labelled = true;
  }
  open.add(operation);
}

// A write that no batch can hold is recorded as several, which together do the same.
void Recorder::State::collect_parts(const fs::Write& write) {
  for (size_t done = 0; done < write.data.size(); done += kBatchBodyLimit) {
    fs::Write part = write;
    part.offset += done;
    part.data = write.data.subspan(done, std::min(kBatchBodyLimit, write.data.size() - done));
    collect(part);
  }
}

void Recorder::State::claim_prefix() {
  prefix = draw_prefix(random);
  used = 0;
  open.add(fs::ClaimPrefix{prefix});
}

Recorder::Recorder(std::unique_ptr<State> state) : state_(std::move(state)) {}
Recorder::~Recorder() = default;

Result<std::unique_ptr<Recorder>> Recorder::begin(Journal& journal, Clock& clock, Random& random,
                                                  const Vector& applied, uint64_t lamport,
                                                  OriginId previous_origin) {
  auto state = std::make_unique<State>(journal, clock, random);
  state->applied = applied;
  state->unsaid = applied;
  state->lamport = lamport;
  state->claim_prefix();
  TRY(state->close_batch(BatchKind::kOriginStart, previous_origin));
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
  std::lock_guard lock(state_->mutex);
  TRY(state_->close_batch());
  return state_->newest;
}

fs::Outcome<void> Recorder::reserve(size_t) {
  if (state_->failed.load(std::memory_order_acquire)) [[unlikely]] {
    return fs::errno_of(state_->failure->code() == Code::kNoSpace ? ENOSPC : EROFS);
  }
  if (std::optional<Error> failure = state_->journal.failure()) [[unlikely]] {
    return fs::errno_of(failure->code() == Code::kNoSpace ? ENOSPC : EROFS);
  }
  return {};
}

void Recorder::record(const fs::Operation& operation, std::string_view label) {
  label = label.substr(0, kLabelLimit);
  std::lock_guard lock(state_->mutex);
  State& state = *state_;
  if (state.failure) return;  // the call was let in before the journal failed
  if (state.labelled && state.label != label) {
    if (!state.close_batch()) return;
  }
  if (!state.labelled) {
    state.label = label;
    state.labelled = true;
  }
  state.collect(operation);
  if (std::holds_alternative<fs::Barrier>(operation))
    static_cast<void>(state.close_batch());  // kept in failure
}

void Recorder::end_call() {
  std::lock_guard lock(state_->mutex);
  if (state_->labelled) static_cast<void>(state_->close_batch());  // kept in failure
}

InodeId Recorder::next() {
  std::lock_guard lock(state_->mutex);
  if (state_->used > (uint64_t{1} << InodeId::kCounterBits) - 1) state_->claim_prefix();
  return InodeId::make(state_->prefix, static_cast<uint32_t>(state_->used++));
}

}  // namespace reprise::journal

// The journal without files: a tail, and nothing else.
#include <fmt/format.h>

#include "journal/tailed_journal.h"

namespace reprise::journal {
namespace {

class MemoryJournal final : public TailedJournal {
 public:
  MemoryJournal(const JournalIdentity& identity, uint64_t bytes_max)
      : TailedJournal(identity, Tail(1, {}, 0)), bytes_max_(bytes_max) {}

  Status reserve(uint64_t) override { return {}; }
  bool expect(bool) override { return false; }
  Result<LogIndex> append(const Batch& batch) override {
    std::lock_guard lock(mutex_);
    TRY(check_next(batch));
    LogIndex index = push(batch);
    // Who comes too late for what goes here is sent all of the tree.
    while (held_bytes() > bytes_max_ && tail_.first() < index) tail_.pop_front();
    first_ = tail_.first();
    return index;
  }
  // There is no disk to wait for: what was appended is as safe as it gets.
  Status sync(LogIndex through) override {
    std::lock_guard lock(mutex_);
    if (through < tail_.end()) return {};
    return fail(Code::kInvalidArgument,
                fmt::format("expected a log index up to {}, found {}", tail_.end() - 1, through));
  }
  LogIndex durable() const override { return last(); }
  std::optional<Error> failure() const override { return std::nullopt; }
  Durability durability() const override { return Durability::kNone; }
  Result<JournalFiles> files() const override { return JournalFiles{}; }

  Result<uint64_t> bytes_from(LogIndex from) const override {
    std::lock_guard lock(mutex_);
    if (from < first_) return gap(from);
    return bytes_from_locked(std::min(from, tail_.end()));
  }
  Result<LogIndex> position_of(const Vector& vector) override {
    std::lock_guard lock(mutex_);
    if (!vector.covers(tail_.covered())) return gap(first_ - 1);
    return tail_.first_not_covered(first_, vector);
  }
  Result<LogIndex> trim(LogIndex index) override {
    std::lock_guard lock(mutex_);
    while (tail_.first() < std::min(index, tail_.end())) tail_.pop_front();
    return first_ = tail_.first();
  }
  Status end_segment() override { return {}; }
  Status restart_at(LogIndex next, const Vector& covered) override {
    std::lock_guard lock(mutex_);
    if (next < tail_.end()) {
      return fail(Code::kInvalidArgument,
                  fmt::format("expected a log index from {}, found {}", tail_.end(), next));
    }
    tail_ = Tail(next, covered, tail_.bytes_before(tail_.end()));
    first_ = next;
    return {};
  }
  void give_up(const Error&) override {}  // it is never opened again
  Status close() override {
    std::lock_guard lock(mutex_);
    closed_ = true;
    arrived_.notify_all();
    return {};
  }

 protected:
  std::unique_ptr<StoredReader> stored_reader() override { return nullptr; }

 private:
  uint64_t held_bytes() const {
    return bytes_from_locked(tail_.first()) + (tail_.end() - tail_.first()) * kHeldAroundABatch;
  }
  uint64_t bytes_from_locked(LogIndex from) const {
    return tail_.bytes_before(tail_.end()) - tail_.bytes_before(from);
  }

  const uint64_t bytes_max_;
};

}  // namespace

std::unique_ptr<Journal> Journal::in_memory(const JournalIdentity& identity, const JournalOptions& options) {
  return std::make_unique<MemoryJournal>(identity, options.in_memory_bytes);
}

}  // namespace reprise::journal

#include "journal/tailed_journal.h"

#include <fmt/format.h>

#include <chrono>

namespace reprise::journal {

class TailCursor final : public Cursor {
 public:
  TailCursor(TailedJournal& journal, LogIndex from) : journal_(journal), next_(from) {}

  Result<std::optional<Logged>> next() override {
    auto logged = TRY(next_appended());
    if (logged) return logged;
    journal_.ask_gatherer();
    return next_appended();
  }

  bool wait(uint32_t timeout_ms) override {
    ++journal_.waiting_;  // from here on what is recorded is appended at once
    journal_.ask_gatherer();
    std::unique_lock lock(journal_.mutex_);
    journal_.arrived_.wait_for(lock, std::chrono::milliseconds(timeout_ms),
                               [&] { return next_ < journal_.tail_.end() || journal_.closed_; });
    --journal_.waiting_;
    return next_ < journal_.tail_.end();
  }

 private:
  Result<std::optional<Logged>> next_appended() {
    {
      std::lock_guard lock(journal_.mutex_);
      if (next_ >= journal_.tail_.end()) return std::optional<Logged>();
      if (next_ >= journal_.tail_.first()) {
        Logged logged{next_, journal_.tail_.at(next_)};
        ++next_;
        return logged;
      }
      if (next_ < journal_.first_) return journal_.gap(next_);
    }
    if (!stored_) stored_ = journal_.stored_reader();
    Batch batch = TRY(stored_->read(next_));
    return Logged{next_++, std::move(batch)};
  }

  TailedJournal& journal_;
  LogIndex next_;
  std::unique_ptr<StoredReader> stored_;
};

TailedJournal::TailedJournal(const JournalIdentity& identity, Tail tail)
    : identity_(identity), tail_(std::move(tail)), first_(tail_.first()) {}

LogIndex TailedJournal::first() const {
  std::lock_guard lock(mutex_);
  return first_;
}
LogIndex TailedJournal::last() const {
  std::lock_guard lock(mutex_);
  return tail_.end() - 1;
}
std::unique_ptr<Cursor> TailedJournal::read(LogIndex from) {
  return std::make_unique<TailCursor>(*this, from);
}

void TailedJournal::set_gatherer(Gatherer* gatherer) {
  std::lock_guard lock(gatherer_mutex_);
  gatherer_ = gatherer;
}

void TailedJournal::ask_gatherer() {
  std::lock_guard lock(gatherer_mutex_);
  if (gatherer_ != nullptr) gatherer_->hand_over();
}

Status TailedJournal::check_next(const Batch& batch) const {
  if (closed_)
    return fail(Code::kInvalidArgument, fmt::format("the journal of branch {} is closed", identity_.branch));
  if (!batch) return fail(Code::kInvalidArgument, "expected a batch, found none");
  const BatchHeader& header = batch.header();
  Lsn expected = tail_.vector().get(header.origin) + 1;
  if (header.lsn == expected) return {};
  return fail(Code::kInvalidArgument,
              fmt::format("branch {}: expected LSN {} of origin {}, found {}", identity_.branch, expected,
                          header.origin.to_string(), header.lsn));
}

LogIndex TailedJournal::push(const Batch& batch) {
  tail_.push(batch);
  if (waiting_ > 0) arrived_.notify_all();
  return tail_.end() - 1;
}

std::unexpected<Error> TailedJournal::gap(LogIndex index) const {
  return fail(Code::kGap, fmt::format("branch {}: log index {} has been trimmed, the log begins at {}",
                                      identity_.branch, index, first_));
}

}  // namespace reprise::journal

#include "journal/allowance.h"

#include <algorithm>
#include <utility>

namespace reprise::journal {

void Allowance::begin() {
  std::lock_guard lock(mutex_);
  until_ = half_ = taken();
  set_unhurried();
  bounded_ = true;
}

void Allowance::end() {
  std::lock_guard lock(mutex_);
  bounded_ = false;
  until_ = half_ = kUnbounded;
  set_unhurried();
  raised_.notify_all();
}

void Allowance::allow_until(uint64_t until) {
  std::lock_guard lock(mutex_);
  if (!bounded_) return;
  const uint64_t taken = this->taken();
  until_ = until;
  half_ = taken + (until - std::min(until, taken)) / 2;
  ++times_allowed_;
  wanted_ = false;
  set_unhurried();
  raised_.notify_all();
}

// Where somebody waits, or the keeper is to be told, everybody comes by.
void Allowance::set_unhurried() {
  unhurried_.store(waiting_.empty() ? half_ : 0, std::memory_order_relaxed);
}

bool Allowance::may_go(const Waiter& waiter) const {
  const uint64_t taken = this->taken();
  if (!bounded_ || until_ == kUnbounded) return true;
  if (&waiter != &waiting_.front()) return false;
  return taken + waiter.bytes <= until_ || (times_allowed_ >= waiter.first_since + 2 && taken < until_);
}

void Allowance::take_slowly(uint64_t bytes) {
  std::unique_lock lock(mutex_);
  taken_.fetch_sub(bytes, std::memory_order_relaxed);  // not yet
  const auto waiter = waiting_.insert(waiting_.end(), {bytes, times_allowed_});
  set_unhurried();
  raised_.wait_for(lock, longest_wait_, [&] {
    if (may_go(*waiter)) return true;
    wanted_ = true;
    short_.notify_one();
    return false;
  });
  const bool was_first = waiter == waiting_.begin();
  waiting_.erase(waiter);
  taken_.fetch_add(bytes, std::memory_order_relaxed);
  if (was_first && !waiting_.empty()) {
    waiting_.front().first_since = times_allowed_;
    raised_.notify_all();
  }
  set_unhurried();
  if (taken() > half_) short_.notify_one();
}

bool Allowance::wait_until_short(std::chrono::milliseconds longest) {
  std::unique_lock lock(mutex_);
  bool is = short_.wait_for(lock, longest, [&] { return woken_ || wanted_ || taken() > half_; });
  woken_ = false;
  return is;
}

size_t Allowance::waiting() const {
  std::lock_guard lock(mutex_);
  return waiting_.size();
}

void Allowance::wake() {
  std::lock_guard lock(mutex_);
  woken_ = true;
  short_.notify_one();
}

}  // namespace reprise::journal

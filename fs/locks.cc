#include "fs/locks.h"

#include <algorithm>
#include <condition_variable>

#include "base/check.h"

namespace reprise::fs {
namespace {

bool overlap(const LockRange& a, const LockRange& b) {
  return a.first <= b.last && b.first <= a.last;
}

bool exclude_each_other(LockMode a, LockMode b) {
  return a == LockMode::kExclusive || b == LockMode::kExclusive;
}

}  // namespace

// Lives on the stack of the thread that waits. Whoever takes it off the queue sets its outcome.
struct Locks::Waiter {
  Request request;
  HeldLock blocker = {};  // what was in the way when it was last tried
  bool done = false;
  Outcome<void> outcome = {};
  std::condition_variable woken;
};

Locks::~Locks() {
  CHECK(waiting() == 0);
}

LockOwner Locks::new_process(int32_t pid) {
  std::lock_guard lock(mutex_);
  return {++last_owner_, LockOwner::Kind::kProcess, pid};
}

LockOwner Locks::new_open_file() {
  std::lock_guard lock(mutex_);
  return {++last_owner_, LockOwner::Kind::kOpenFile, -1};
}

// --- what is held

std::vector<Locks::Span>::iterator Locks::first_reaching(std::vector<Span>& spans, uint64_t byte) {
  return std::ranges::lower_bound(spans, byte, {}, [](const Span& span) { return span.range.last; });
}

Locks::Holder* Locks::find_holder(Space& space, const LockOwner& owner) {
  auto found = std::ranges::find(space.holders, owner, &Holder::owner);
  return found == space.holders.end() ? nullptr : &*found;
}

std::optional<HeldLock> Locks::find_conflict(const Space& space, const Request& request) {
  for (const Holder& holder : space.holders) {
    if (holder.owner == request.owner) continue;
    auto span = std::ranges::lower_bound(holder.spans, request.range.first, {},
                                         [](const Span& s) { return s.range.last; });
    for (; span != holder.spans.end() && span->range.first <= request.range.last; ++span)
      if (exclude_each_other(span->mode, request.mode))
        return HeldLock{holder.owner, span->mode, span->range};
  }
  return std::nullopt;
}

// Gives the owner `mode` on the range, or with none takes what it has there. ENOLCK changes nothing.
Outcome<void> Locks::replace(Space& space, const LockOwner& owner, LockRange range,
                             std::optional<LockMode> mode) {
  Holder* holder = find_holder(space, owner);
  if (holder == nullptr) {
    if (!mode) return {};
    if (held_ >= held_max_) return errno_of(ENOLCK);
    space.holders.push_back({owner, {{range, *mode}}});
    ++held_;
    return {};
  }
  // What lies in the range or touches it gives way to at most three: left of it, it, right of it.
  std::vector<Span>& spans = holder->spans;
  auto begin = first_reaching(spans, range.first == 0 ? 0 : range.first - 1);
  auto end = begin;
  LockRange whole = range;
  std::optional<Span> left, right;
  for (; end != spans.end() && end->range.first <= range.last + 1; ++end) {
    const LockRange& old = end->range;
    if (end->mode == mode) {
      whole = {std::min(whole.first, old.first), std::max(whole.last, old.last)};
      continue;
    }
    if (old.first < range.first) left = Span{{old.first, std::min(old.last, range.first - 1)}, end->mode};
    if (old.last > range.last) right = Span{{std::max(old.first, range.last + 1), old.last}, end->mode};
  }
  std::vector<Span> instead;
  if (left) instead.push_back(*left);
  if (mode) instead.push_back({whole, *mode});
  if (right) instead.push_back(*right);
  auto before = static_cast<size_t>(end - begin);
  if (instead.size() > before && held_ + instead.size() - before > held_max_) return errno_of(ENOLCK);
  held_ = held_ + instead.size() - before;
  spans.insert(spans.erase(begin, end), instead.begin(), instead.end());
  if (spans.empty()) space.holders.erase(space.holders.begin() + (holder - space.holders.data()));
  return {};
}

void Locks::drop_all(Spaces& spaces, InodeId inode, const LockOwner& owner) {
  auto found = spaces.find(inode);
  if (found == spaces.end()) return;
  Holder* holder = find_holder(found->second, owner);
  if (holder == nullptr) return;
  held_ -= holder->spans.size();
  found->second.holders.erase(found->second.holders.begin() + (holder - found->second.holders.data()));
  changed(spaces, inode);
}

// --- calls

Outcome<void> Locks::lock_file(InodeId inode, const LockOwner& owner, LockMode mode, const LockWait& wait) {
  return acquire(files_, inode, {owner, mode, {}}, wait);
}

void Locks::unlock_file(InodeId inode, const LockOwner& owner) {
  std::lock_guard lock(mutex_);
  drop_all(files_, inode, owner);
}

Outcome<void> Locks::lock_range(InodeId inode, const LockOwner& owner, LockMode mode, LockRange range,
                                const LockWait& wait) {
  return acquire(ranges_, inode, {owner, mode, range}, wait);
}

Outcome<void> Locks::unlock_range(InodeId inode, const LockOwner& owner, LockRange range) {
  std::lock_guard lock(mutex_);
  auto found = ranges_.find(inode);
  if (found == ranges_.end()) return {};
  TRY(replace(found->second, owner, range, std::nullopt));
  changed(ranges_, inode);
  return {};
}

void Locks::release(InodeId inode, const LockOwner& owner) {
  std::lock_guard lock(mutex_);
  drop_all(ranges_, inode, owner);
  drop_all(files_, inode, owner);
}

std::optional<HeldLock> Locks::find_conflict(InodeId inode, const LockOwner& owner, LockMode mode,
                                             LockRange range) const {
  std::lock_guard lock(mutex_);
  auto found = ranges_.find(inode);
  if (found == ranges_.end()) return std::nullopt;
  return find_conflict(found->second, {owner, mode, range});
}

std::optional<HeldLock> Locks::find_own(InodeId inode, const LockOwner& owner, LockRange range) const {
  std::lock_guard lock(mutex_);
  auto found = ranges_.find(inode);
  if (found == ranges_.end()) return std::nullopt;
  for (const Holder& holder : found->second.holders) {
    if (holder.owner != owner) continue;
    for (const Span& span : holder.spans)
      if (overlap(span.range, range)) return HeldLock{owner, span.mode, span.range};
  }
  return std::nullopt;
}

size_t Locks::held() const {
  std::lock_guard lock(mutex_);
  return held_;
}

size_t Locks::waiting() const {
  std::lock_guard lock(mutex_);
  size_t count = 0;
  for (const Spaces* spaces : {&files_, &ranges_})
    for (const auto& [inode, space] : *spaces) count += space.waiters.size();
  return count;
}

// --- waiting

Outcome<void> Locks::acquire(Spaces& spaces, InodeId inode, const Request& request, const LockWait& wait) {
  Waiter waiter{.request = request};
  {
    std::lock_guard lock(mutex_);
    Space& space = spaces[inode];
    if (&spaces == &files_) {
      Holder* own = find_holder(space, request.owner);
      if (own != nullptr && own->spans.front().mode == request.mode) return {};
      if (own != nullptr) CHECK(replace(space, request.owner, request.range, std::nullopt));
    }
    Outcome<bool> queued = try_or_queue(space, waiter, wait.wait);
    changed(spaces, inode);  // giving up the old mode may have let others in
    if (!queued) return std::unexpected(queued.error());
    if (!*queued) return {};
  }
  // Taken and given back without the mutex: it waits for its own function, which takes the mutex.
  std::stop_callback interruption(wait.interrupted, [&] {
    std::lock_guard lock(mutex_);
    if (waiter.done) return;
    Space& space = spaces.at(inode);
    finish(space, std::ranges::find(space.waiters, &waiter), errno_of(EINTR));
  });
  std::unique_lock lock(mutex_);
  waiter.woken.wait(lock, [&] { return waiter.done; });
  return waiter.outcome;
}

// True if it has to wait now.
Outcome<bool> Locks::try_or_queue(Space& space, Waiter& waiter, bool wait) {
  const Request& request = waiter.request;
  std::optional<HeldLock> conflict = find_conflict(space, request);
  if (!conflict) {
    TRY(replace(space, request.owner, request.range, request.mode));
    return false;
  }
  if (!wait) return errno_of(EAGAIN);
  if (would_deadlock(request.owner, conflict->owner)) return errno_of(EDEADLK);
  note_blocked(waiter, *conflict);
  space.waiters.push_back(&waiter);
  return true;
}

// After what is held became less, or somebody stopped waiting.
void Locks::changed(Spaces& spaces, InodeId inode) {
  auto found = spaces.find(inode);
  Space& space = found->second;
  while (grant_some(space)) {
  }
  find_new_blockers(space);
  if (space.holders.empty() && space.waiters.empty()) spaces.erase(found);
}

// True if somebody was: his lock may have replaced a stronger one of his, which others wait for.
bool Locks::grant_some(Space& space) {
  bool granted = false;
  for (auto next = space.waiters.begin(); next != space.waiters.end();) {
    auto waiter = next++;
    const Request& request = (*waiter)->request;
    if (find_conflict(space, request)) continue;
    finish(space, waiter, replace(space, request.owner, request.range, request.mode));
    granted = true;
  }
  return granted;
}

// Whether the lock that the waiter was blocked by is there still, or more of it.
bool Locks::still_blocked(const Space& space, const Waiter& waiter) {
  const HeldLock& blocker = waiter.blocker;
  auto holder = std::ranges::find(space.holders, blocker.owner, &Holder::owner);
  if (holder == space.holders.end()) return false;
  return std::any_of(holder->spans.begin(), holder->spans.end(), [&](const Span& span) {
    return span.mode == blocker.mode && span.range.first <= blocker.range.first &&
           span.range.last >= blocker.range.last;
  });
}

// A waiter that something else is in the way of now may close a circle. Of several that do the last one is
// refused.
void Locks::find_new_blockers(Space& space) {
  std::vector<std::pair<std::list<Waiter*>::iterator, HeldLock>> moved;
  for (auto waiter = space.waiters.begin(); waiter != space.waiters.end(); ++waiter) {
    if (still_blocked(space, **waiter)) continue;
    forget_blocked(**waiter);
    moved.emplace_back(waiter, *find_conflict(space, (*waiter)->request));
  }
  for (auto& [waiter, blocker] : moved) {
    if (would_deadlock((*waiter)->request.owner, blocker.owner))
      finish(space, waiter, errno_of(EDEADLK));
    else
      note_blocked(**waiter, blocker);
  }
}

void Locks::finish(Space& space, std::list<Waiter*>::iterator waiter, Outcome<void> outcome) {
  Waiter& finished = **waiter;
  space.waiters.erase(waiter);
  forget_blocked(finished);
  finished.outcome = outcome;
  finished.done = true;
  finished.woken.notify_one();  // with the mutex held: afterwards it may be gone
}

// --- deadlock

// Each waiter is blocked by one holder that counts, so there is one way to follow. Linux gives up after ten
// steps; here it ends where nobody waits, or has been everywhere. An open file is never found at the end: who
// waits for one is not noted.
bool Locks::would_deadlock(const LockOwner& caller, const LockOwner& blocker) const {
  LockOwner owner = blocker;
  for (size_t steps = 0; steps <= blocked_.size(); ++steps) {
    auto waits = blocked_.find(owner.id);
    if (waits == blocked_.end()) return false;
    owner = waits->second->blocker.owner;
    if (owner == caller) return true;
  }
  return false;
}

void Locks::note_blocked(Waiter& waiter, const HeldLock& blocker) {
  waiter.blocker = blocker;
  if (blocker.owner.kind == LockOwner::Kind::kProcess) blocked_.emplace(waiter.request.owner.id, &waiter);
}

void Locks::forget_blocked(Waiter& waiter) {
  auto [begin, end] = blocked_.equal_range(waiter.request.owner.id);
  auto found = std::find_if(begin, end, [&](const auto& entry) { return entry.second == &waiter; });
  if (found != end) blocked_.erase(found);
}

// --- invariants

std::string Locks::check_invariants() const {
  std::lock_guard lock(mutex_);
  size_t held = 0, blocked = 0;
  for (const Spaces* spaces : {&files_, &ranges_}) {
    for (const auto& [inode, space] : *spaces) {
      std::string wrong = check_space(space, held, blocked);
      if (!wrong.empty()) return "inode " + std::to_string(inode.value) + ": " + wrong;
      for (const Holder& holder : space.holders)
        if (spaces == &files_ && (holder.spans.size() != 1 || holder.spans[0].range != LockRange{}))
          return "inode " + std::to_string(inode.value) + ": a file's lock is not of the whole file";
    }
  }
  if (held != held_) return "counted " + std::to_string(held_) + " held, are " + std::to_string(held);
  if (held > held_max_) return "more held than may be";
  if (blocked != blocked_.size()) return "noted as blocked is who does not wait";
  return {};
}

std::string Locks::check_space(const Space& space, size_t& held, size_t& blocked) const {
  if (space.holders.empty()) return space.waiters.empty() ? "kept for nobody" : "waited for nobody";
  for (const Holder& holder : space.holders) {
    if (holder.spans.empty()) return "a holder of nothing";
    held += holder.spans.size();
    for (size_t i = 0; i < holder.spans.size(); ++i) {
      const Span& span = holder.spans[i];
      if (span.range.first > span.range.last || span.range.last > kLockByteMax) return "not a range";
      if (find_conflict(space, {holder.owner, span.mode, span.range})) return "held against each other";
      if (i == 0) continue;
      const Span& before = holder.spans[i - 1];
      if (before.range.last >= span.range.first) return "ranges out of order";
      if (before.range.last + 1 == span.range.first && before.mode == span.mode) return "ranges not merged";
    }
  }
  for (const Waiter* waiter : space.waiters) {
    if (!find_conflict(space, waiter->request)) return "somebody waits for nothing";
    if (!still_blocked(space, *waiter)) return "somebody waits for what is not in the way";
    if (waiter->blocker.owner.kind == LockOwner::Kind::kProcess) ++blocked;
  }
  return {};
}

}  // namespace reprise::fs

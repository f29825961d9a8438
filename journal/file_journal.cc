#include "journal/file_journal.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>

#include "base/check.h"
#include "journal/stored_frames.h"

namespace reprise::journal {
namespace {

constexpr auto kGatherTime =
    std::chrono::milliseconds(1);              // between an append and its write, when nobody waits
constexpr uint64_t kWriteSoonBytes = 1 << 20;  // or this many bytes
constexpr uint64_t kRoundBytes = 8 << 20;      // written before anybody hears of it
constexpr auto kSpaceRetryTime = std::chrono::milliseconds(100);  // between two tries on a full disk

uint64_t backlog_cost(const Batch& batch) {
  return kFrameHeaderBytes + batch.encoded_bytes();
}

// The one that `after` has more of than `before`, if there is but one.
std::optional<OriginId> only_origin_between(const Vector& before, const Vector& after) {
  std::optional<OriginId> only;
  for (const auto& [origin, lsn] : after.entries()) {
    if (lsn == before.get(origin)) continue;
    if (only) return std::nullopt;
    only = origin;
  }
  return only;
}

}  // namespace

Result<std::unique_ptr<Journal>> Journal::open(std::unique_ptr<Directory> directory,
                                               const JournalIdentity& identity, const JournalOptions& options,
                                               Random& random, LogIndex durable_hint, Recovery* recovery) {
  return FileJournal::open(std::move(directory), identity, options, random, durable_hint, recovery);
}

Result<std::unique_ptr<Journal>> FileJournal::open(std::unique_ptr<Directory> directory,
                                                   const JournalIdentity& identity,
                                                   const JournalOptions& options, Random& random,
                                                   LogIndex durable_hint, Recovery* recovery) {
  RecoveredLog log = TRY(recover_log(*directory, identity, durable_hint));
  if (log.segments.empty()) {
    log.recovery = {.first = 1, .last = 0, .clean_close = true};
    log.state.next_index = 1;
  }
  if (recovery != nullptr) *recovery = log.recovery;
  bool begin = log.segments.empty() || log.sealed;
  std::unique_ptr<FileJournal> journal(
      new FileJournal(std::move(directory), identity, options, random, std::move(log)));
  if (begin) TRY(journal->begin_segment(journal->next_header()));
  journal->segments_.back().readable_bytes = journal->writer_->flushed_bytes();
  journal->opened_ = true;
  if (options.threads) journal->thread_ = std::thread([raw = journal.get()] { raw->run(); });
  Lock lock(journal->mutex_);
  journal->wake_compressor();
  lock.unlock();
  return std::unique_ptr<Journal>(std::move(journal));
}

FileJournal::FileJournal(std::unique_ptr<Directory> directory, const JournalIdentity& identity,
                         const JournalOptions& options, Random& random, RecoveredLog log)
    : TailedJournal(identity, Tail(log.state.next_index, log.vector, log.batch_bytes)),
      directory_(std::move(directory)),
      options_(options),
      random_(random),
      segments_(std::move(log.segments)),
      written_(log.state.next_index - 1),
      durable_(written_),
      ends_with_close_(log.recovery.clean_close),
      header_(std::move(log.last_header)),
      written_vector_(std::move(log.vector)),
      written_batch_bytes_(log.batch_bytes) {
  if (!segments_.empty()) first_ = segments_.front().first_index;
  if (log.file) writer_ = std::make_unique<SegmentWriter>(std::move(log.file), header_.id, log.state);
}

FileJournal::~FileJournal() {
  // Whoever wants to know how it went has called close().
  if (opened_) static_cast<void>(close());
}

// --- appending and waiting

bool FileJournal::has_room_for(uint64_t bytes) const {
  uint64_t pending = pending_bytes_.load(std::memory_order_relaxed);
  return pending == 0 || pending + bytes <= options_.backlog_bytes;
}

Status FileJournal::reserve(uint64_t bytes) {
  if (has_room_for(bytes) && !refuses_.load(std::memory_order_acquire)) [[likely]]
    return {};
  Lock lock(mutex_);
  ++waiting_for_room_;
  if (!has_room_for(bytes)) work_.notify_one();
  wait_settled(lock, [&] { return has_room_for(bytes) || refusal() || closed_; });
  --waiting_for_room_;
  if (refusal()) return std::unexpected(*refusal());
  return {};
}

Result<LogIndex> FileJournal::append(const Batch& batch) {
  Lock lock(mutex_);
  if (failure_) return std::unexpected(*failure_);
  TRY(check_next(batch));
  LogIndex index = push(batch);
  bool was_idle = pending_bytes_ == 0;
  bool was_soon = pending_bytes_ >= soon_bytes();
  pending_bytes_ += backlog_cost(batch);
  bool wake_up =
      (was_idle && options_.durability != Durability::kNone) || (!was_soon && pending_bytes_ >= soon_bytes());
  if (wake_up) work_.notify_one();
  return index;
}

bool FileJournal::expect(bool now) {
  Lock lock(mutex_);
  bool was_idle = pending_bytes_ == 0 && !expected_;
  expected_ = true;
  expected_now_ |= now;
  if (now || (was_idle && options_.durability != Durability::kNone)) work_.notify_one();
  return !failure_;
}

Status FileJournal::sync(LogIndex through) {
  Lock lock(mutex_);
  if (through >= tail_.end()) {
    return fail(Code::kInvalidArgument,
                fmt::format("expected a log index up to {}, found {}", tail_.end() - 1, through));
  }
  if (through > durable_ && !failure_) {
    sync_wanted_ = std::max(sync_wanted_, through);
    work_.notify_one();
    wait_settled(lock, [&] { return durable_ >= through || refusal(); });
  }
  if (failure_) return std::unexpected(*failure_);
  if (durable_ < through) return std::unexpected(*full_);
  return {};
}

LogIndex FileJournal::durable() const {
  Lock lock(mutex_);
  return durable_;
}

std::optional<Error> FileJournal::failure() const {
  Lock lock(mutex_);
  return refusal();
}

const std::optional<Error>& FileJournal::refusal() const {
  return failure_ ? failure_ : full_;
}

void FileJournal::give_up(const Error& why) {
  Lock lock(mutex_);
  fail_with(why);
}

void FileJournal::fail_with(const Error& error) {
  if (failure_) return;
  failure_ = error;
  refuses_.store(true, std::memory_order_release);
  settled_.notify_all();
}

// What was not written for want of space still waits, and nothing that was written is in doubt: so that is
// the one failure which may pass.
void FileJournal::note_outcome(const Status& status) {
  if (!status && status.error().code() != Code::kNoSpace) return fail_with(status.error());
  full_.reset();
  if (!status) {
    full_ = Error(Code::kNoSpace, status.error().message() + "; nothing more is taken until there is space",
                  status.error().sys_errno());
  }
  refuses_.store(refusal().has_value(), std::memory_order_release);
}

// --- the writer

uint64_t FileJournal::soon_bytes() const {
  uint64_t bytes = options_.durability == Durability::kNone ? options_.segment_bytes : kWriteSoonBytes;
  return std::max<uint64_t>(1, std::min(bytes, options_.backlog_bytes / 2));
}

bool FileJournal::urgent() const {
  return stopping_ || expected_now_ || sync_wanted_ > durable_ || pending_bytes_ >= soon_bytes() ||
         (waiting_for_room_ > 0 && pending_bytes_ > 0);
}

bool FileJournal::wait_for_work(Lock& lock) {
  if (full_) {
    work_.wait_for(lock, kSpaceRetryTime, [&] { return stopping_; });
  } else if (options_.durability == Durability::kNone) {
    work_.wait(lock, [&] { return urgent(); });
  } else {
    work_.wait(lock, [&] { return urgent() || expected_ || pending_bytes_ > 0; });
    bool lazy = options_.durability == Durability::kLazy;
    auto pause = lazy ? std::chrono::milliseconds(options_.lazy_interval_ms) : kGatherTime;
    work_.wait_for(lock, pause, [&] { return urgent(); });
    ask_for_expected(lock);
    if (lazy) sync_wanted_ = tail_.end() - 1;
  }
  ask_for_expected(lock);
  return !stopping_ || pending_bytes_ > 0 || sync_wanted_ > durable_;
}

void FileJournal::ask_for_expected(Lock& lock) {
  if (!expected_) return;
  expected_ = expected_now_ = false;
  lock.unlock();
  ask_gatherer();
  lock.lock();
}

void FileJournal::run() {
  Lock lock(mutex_);
  while (wait_for_work(lock)) {
    if (options_.durability == Durability::kNone && !urgent() && !full_) continue;
    do_round(lock);
    if (failure_ || (full_ && stopping_)) return;
  }
}

void FileJournal::do_round(Lock& lock) {
  Round round = plan();
  writing_ = true;
  lock.unlock();
  Status status = write(round);
  lock.lock();
  writing_ = false;
  publish(std::move(round));
  note_outcome(status);
  settled_.notify_all();
}

void FileJournal::work() {
  if (options_.threads) return;
  Lock lock(mutex_);
  ask_for_expected(lock);
  if (writing_ || failure_ || closed_) return;
  if (options_.durability == Durability::kLazy) sync_wanted_ = tail_.end() - 1;
  bool writes = options_.durability != Durability::kNone || urgent() || full_;
  if (writes && (pending_bytes_ > 0 || sync_wanted_ > durable_)) do_round(lock);
  if (!options_.compress || !compresses_ || refusal()) return;
  if (Segment* next = next_to_compress()) compress_one(lock, next->sequence);
}

FileJournal::Round FileJournal::plan() {
  Round round{.durable = durable_};
  uint64_t bytes = 0;
  LogIndex next = written_ + 1;
  for (; next < tail_.end() && bytes < kRoundBytes; ++next) {
    round.batches.push_back(tail_.at(next));
    bytes += backlog_cost(round.batches.back());
  }
  // A sync that is asked for something further on waits for the round that writes it.
  round.sync = sync_wanted_ > durable_ && sync_wanted_ < next;
  return round;
}

Status FileJournal::write(Round& round) {
  while (round.written < round.batches.size()) {
    if (segment_is_full()) TRY(rotate(round));
    TRY(write_some(round));
  }
  if (round.sync) {
    TRY(writer_->sync());
    round.durable = writer_->state().next_index - 1;
  }
  return {};
}

bool FileJournal::segment_is_full() const {
  const SegmentState& state = writer_->state();
  return state.sealed || (state.offset >= options_.segment_bytes && state.summary.batches > 0);
}

// As many of the round's batches as one write takes, and the segment.
Status FileJournal::write_some(Round& round) {
  SegmentState state = writer_->state();
  size_t end = round.written;
  do writer_->add(round.batches[end++], round.durable);
  while (end < round.batches.size() && !writer_->wants_flush() && !segment_is_full());
  TRY(writer_->flush());
  for (; round.written < end; ++round.written) {
    const Batch& batch = round.batches[round.written];
    state.offset += backlog_cost(batch);
    state.next_index += 1;
    written_vector_.set(batch.header().origin, batch.header().lsn);
    written_batch_bytes_ += batch.encoded_bytes();
    round.points.push_back({header_.sequence, {state.next_index, state.offset, written_batch_bytes_}});
  }
  return {};
}

// Seals the segment and begins the next. Everything in a segment that another follows is on the disk.
Status FileJournal::rotate(Round& round) {
  if (!writer_->state().sealed) TRY(writer_->add_summary(FrameKind::kSeal, round.durable));
  TRY(writer_->sync());
  round.durable = writer_->state().next_index - 1;
  if (round.begun.empty())
    round.left_readable = writer_->flushed_bytes();
  else
    round.begun.back().readable_bytes = writer_->flushed_bytes();

  SegmentHeader header = next_header();
  writer_ = TRY(SegmentWriter::create(*directory_, header));
  header_ = std::move(header);
  Segment segment{
      .sequence = header_.sequence, .first_index = header_.first_index, .covered = header_.covered};
  segment.note_point({header_.first_index, writer_->state().offset, written_batch_bytes_});
  round.begun.push_back(std::move(segment));
  return {};
}

void FileJournal::publish(Round&& round) {
  if (!round.begun.empty()) segments_.back().readable_bytes = round.left_readable;
  for (Segment& segment : round.begun) segments_.push_back(std::move(segment));
  segments_.back().readable_bytes = writer_->flushed_bytes();
  auto segment = segments_.end() - static_cast<ptrdiff_t>(round.begun.size()) - 1;
  for (const auto& [sequence, point] : round.points) {
    while (segment->sequence != sequence) ++segment;
    segment->note_point(point);
  }
  for (size_t i = 0; i < round.written; ++i) pending_bytes_ -= backlog_cost(round.batches[i]);
  if (round.written > 0) ends_with_close_ = false;
  written_ += round.written;
  durable_ = std::max(durable_, round.durable);
  forget_read_batches();
  if (!round.begun.empty()) wake_compressor();
}

// Keeps recent_bytes of what is written; what is not written stays in any case.
void FileJournal::forget_read_batches() {
  uint64_t written_end = tail_.bytes_before(written_ + 1);
  while (tail_.first() <= written_ &&
         written_end - tail_.bytes_before(tail_.first()) > options_.recent_bytes) {
    tail_.pop_front();
  }
}

// --- segments

SegmentHeader FileJournal::next_header() const {
  return {.volume = identity_.volume,
          .id = random_.next_id<SegmentId>(),
          .branch = identity_.branch,
          .sequence = header_.sequence + 1,
          .first_index = writer_ ? writer_->state().next_index : written_ + 1,
          .previous = writer_ ? writer_->state().summary.chain : 0,
          .covered = written_vector_};
}

Status FileJournal::begin_segment(SegmentHeader header) {
  writer_ = TRY(SegmentWriter::create(*directory_, header));
  header_ = std::move(header);
  Segment segment{.sequence = header_.sequence,
                  .first_index = header_.first_index,
                  .covered = header_.covered,
                  .readable_bytes = writer_->flushed_bytes()};
  segment.note_point({header_.first_index, writer_->state().offset, written_batch_bytes_});
  segments_.push_back(std::move(segment));
  ends_with_close_ = false;
  return {};
}

void FileJournal::wait_until_idle(Lock& lock) {
  wait_settled(lock, [&] { return !writing_ || failure_; });
}

Status FileJournal::seal_and_begin() {
  if (!writer_->state().sealed) TRY(writer_->add_summary(FrameKind::kSeal, durable_));
  TRY(writer_->sync());
  durable_ = written_;
  segments_.back().readable_bytes = writer_->flushed_bytes();
  TRY(begin_segment(next_header()));
  wake_compressor();
  return {};
}

// So that a trim of everything leaves nothing behind but a header.
Status FileJournal::rotate_if_all_before(LogIndex index) {
  if (index == 0) return {};
  {
    Lock lock(mutex_);
    if (index < tail_.end() || segments_.back().first_index == tail_.end()) return {};
  }
  TRY(sync(index - 1));
  Lock lock(mutex_);
  wait_until_idle(lock);
  if (failure_) return std::unexpected(*failure_);
  if (closed_ || written_ + 1 != index || segments_.back().first_index == index) return {};
  Status status = seal_and_begin();
  if (!status && status.error().code() != Code::kNoSpace) fail_with(status.error());
  return status;
}

// Oldest first and one by one: a crash leaves an unbroken run of segments. So what could not be removed is
// the first to be tried the next time; and behind a sync that failed nothing more is removed, since nobody
// knows which of the files a crash would bring back.
Status FileJournal::drop_files() {
  while (!to_drop_.empty()) {
    Status removed = directory_->unlink(segment_name(to_drop_.front()));
    if (!removed && removed.error().code() != Code::kNotFound) return removed;
    if (Status synced = directory_->sync(); !synced) {
      Error error(Code::kIo, synced.error().message(), synced.error().sys_errno());
      Lock lock(mutex_);
      fail_with(error);
      return std::unexpected(std::move(error));
    }
    to_drop_.pop_front();
  }
  return {};
}

Result<LogIndex> FileJournal::trim(LogIndex index) {
  std::lock_guard one_at_a_time(trim_mutex_);
  index = std::min(index, last() + 1);
  // On a full disk the last segment stays: dropping those before it is what makes space.
  Status rotated = rotate_if_all_before(index);
  if (!rotated && rotated.error().code() != Code::kNoSpace) return std::unexpected(rotated.error());
  LogIndex first;
  {
    Lock lock(mutex_);
    wait_settled(lock, [&] { return !replacing_; });
    if (failure_) return std::unexpected(*failure_);
    while (segments_.size() > 1 && segments_[1].first_index <= index) {
      to_drop_.push_back(segments_.front().sequence);
      segments_.erase(segments_.begin());
    }
    first_ = segments_.front().first_index;
    while (tail_.first() < first_) tail_.pop_front();
    first = first_;
  }
  TRY(drop_files());
  return first;
}

Status FileJournal::end_segment() {
  std::lock_guard one_at_a_time(trim_mutex_);
  return rotate_if_all_before(last() + 1);
}

Status FileJournal::restart_at(LogIndex next, const Vector& covered) {
  std::lock_guard one_at_a_time(trim_mutex_);
  {
    Lock lock(mutex_);
    // Both at once: waiting for the one lets the other go on.
    wait_settled(lock, [&] { return !replacing_ && (!writing_ || failure_); });
    if (failure_) return std::unexpected(*failure_);
    if (next < tail_.end() || closed_) {
      return fail(Code::kInvalidArgument,
                  fmt::format("branch {}: expected an open journal and a log index from {}, found {}",
                              identity_.branch, tail_.end(), next));
    }
    SegmentHeader header = next_header();
    header.first_index = next;
    header.previous = 0;
    header.restart = true;
    header.covered = covered;
    uint64_t bytes_before = tail_.bytes_before(tail_.end());
    if (Status status = begin_segment(std::move(header)); !status) {
      if (status.error().code() != Code::kNoSpace) fail_with(status.error());
      return status;
    }
    for (; segments_.size() > 1; segments_.erase(segments_.begin()))
      to_drop_.push_back(segments_.front().sequence);
    segments_.back().points.front().bytes_before = bytes_before;
    tail_ = Tail(next, covered, bytes_before);
    written_vector_ = covered;
    written_batch_bytes_ = bytes_before;
    first_ = next;
    written_ = durable_ = next - 1;
    pending_bytes_ = 0;
    note_outcome({});
    settled_.notify_all();
  }
  return drop_files();
}

Status FileJournal::close() {
  std::lock_guard one_at_a_time(trim_mutex_);
  {
    Lock lock(mutex_);
    if (!closed_) {
      closed_ = stopping_ = true;
      compressor_ends_ = true;
      sync_wanted_ = tail_.end() - 1;
      work_.notify_one();
      arrived_.notify_all();
      settled_.notify_all();
      ended_.notify_all();
    }
  }
  if (thread_.joinable()) thread_.join();
  if (compressor_.joinable()) compressor_.join();
  Lock lock(mutex_);
  if (!options_.threads)
    wait_settled(lock, [&] { return (pending_bytes_ == 0 && durable_ >= sync_wanted_) || refusal(); });
  if (refusal()) return std::unexpected(*refusal());
  if (ends_with_close_ || writer_->state().sealed) return {};
  Status status = writer_->add_summary(FrameKind::kClose, durable_);
  if (status) status = writer_->sync();
  if (!status) fail_with(status.error());
  ends_with_close_ = status.has_value();
  segments_.back().readable_bytes = writer_->flushed_bytes();
  return status;
}

// --- reading what is in files only

std::unique_ptr<StoredReader> FileJournal::stored_reader() {
  return std::make_unique<StoredFrames>(*this);
}

Result<uint64_t> FileJournal::bytes_from(LogIndex from) const {
  uint64_t all;
  {
    Lock lock(mutex_);
    if (from < first_) return gap(from);
    all = tail_.bytes_before(tail_.end());
    if (from >= tail_.end()) return 0;
    if (from >= tail_.first()) return all - tail_.bytes_before(from);
  }
  StoredFrames frames(*this);
  return all - TRY(frames.bytes_before(from));
}

Result<LogIndex> FileJournal::position_of(const Vector& vector) {
  LogIndex index;
  {
    Lock lock(mutex_);
    if (vector.covers(tail_.covered())) return tail_.first_not_covered(tail_.first(), vector);
    // The last segment before which there is nothing that the vector lacks.
    auto after = std::find_if(segments_.begin(), segments_.end(),
                              [&](const Segment& s) { return !vector.covers(s.covered); });
    if (after == segments_.begin()) return gap(first_ - 1);
    const Segment& segment = *(after - 1);
    index = segment.first_index;
    // If all that comes in between is of one origin, its LSNs count batches as the log index does.
    const Vector& next = after == segments_.end() ? tail_.covered() : after->covered;
    if (auto origin = only_origin_between(segment.covered, next); origin && !vector.covers(next))
      return index + (vector.get(*origin) - segment.covered.get(*origin));
  }
  StoredFrames frames(*this);
  for (;; ++index) {
    {
      Lock lock(mutex_);
      if (index >= tail_.first()) return tail_.first_not_covered(index, vector);
    }
    Frame frame = TRY(frames.at(index));
    if (vector.get(frame.header.origin) < frame.header.lsn) return index;
  }
}

}  // namespace reprise::journal

#include "replay/leader_link.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <chrono>

#include "snapshot/stream.h"

namespace reprise::replay {
namespace {

static_assert(snapshot::kPieceBytes <= kTreeFrameLimit);

constexpr size_t kUnackedMax = 64;
constexpr size_t kLagBatchesMax = 20'000;  // counted, of what a peer lacks
// Handed to one write: enough to make system calls rare, little enough to keep memory and latency bounded.
constexpr size_t kWriteBatches = 64;
constexpr size_t kWriteBytes = 256 << 10;

// How `peer` has what `ours` lacks; nothing if it does not.
std::optional<std::string> ahead(const journal::Vector& peer, const journal::Vector& ours) {
  for (const auto& [origin, lsn] : peer.entries()) {
    if (lsn > ours.get(origin))
      return fmt::format("the peer has batches that the leader lacks (origin {}: {} there, {} here)",
                         origin.to_short_string(), lsn, ours.get(origin));
  }
  return std::nullopt;
}

// Where the journal must be read from, and what that costs; or why it cannot be.
Result<LogIndex> price_suffix(journal::Journal& journal, const journal::Vector& peer, CatchUpFacts& facts) {
  LogIndex from = TRY(journal.position_of(peer));
  uint64_t bytes = TRY(journal.bytes_from(from));
  LogIndex last = journal.last();
  facts.suffix_bytes = bytes + (last >= from ? last - from + 1 : 0) * kFrameHeaderBytes;
  return from;
}

}  // namespace

LeaderLink::LeaderLink(Member& member, Clock& clock, const SessionOptions& options, KeptTrees* kept)
    : member_(member),
      clock_(clock),
      options_(options),
      kept_(kept),
      session_(options, member.volume(), member.branch(), clock.monotonic_ns() / 1'000'000) {}

void LeaderLink::receive(ByteView bytes) {
  std::optional<FetchedPart> part;
  {
    std::lock_guard lock(mutex_);
    session_.receive(bytes, now_ms());
    part = session_.take_fetched();
    unacked_.acked(session_.acked());
    woken_ = true;
  }
  if (part) take_back(*part);
  changed_.notify_one();
}

void LeaderLink::take_back(const FetchedPart& part) {
  journal::Vector before = member_.vector();
  Status taken = member_.take_back(giver_, part.batches, part.complete);
  journal::Vector after = member_.vector();
  auto batches = std::ranges::count_if(part.batches, [&](const journal::Batch& batch) {
    const journal::BatchHeader& header = batch.header();
    return header.lsn > before.get(header.origin) && header.lsn <= after.get(header.origin);
  });
  std::lock_guard lock(mutex_);
  taken_back_ += static_cast<uint64_t>(batches);
  if (!part.missing.empty()) not_taken_back_ = part.missing;
  if (!taken) not_taken_back_ = taken.error().message();
  if (!taken || part.complete) session_.end_fetch(part.complete);
  woken_ = true;
}

void LeaderLink::close(Error why) {
  {
    std::lock_guard lock(mutex_);
    session_.close(std::move(why));
    woken_ = true;
  }
  changed_.notify_one();
}

std::optional<Error> LeaderLink::closed() const {
  std::lock_guard lock(mutex_);
  return session_.closed();
}

Result<LeaderLink::Activity> LeaderLink::step(const Write& write) {
  std::optional<CatchUpRequest> request;
  std::optional<std::vector<uint64_t>> held;
  bool heartbeat;
  {
    std::lock_guard lock(mutex_);
    session_.tick(now_ms());
    request = session_.take_request();
    if (!request) held = session_.take_held();
    heartbeat = session_.heartbeat_due();
  }
  if (request) {
    if (Status done = catch_up(*request, write); !done) close(done.error());
  } else if (held) {
    if (Status done = send_snapshot(write, &*held); !done) close(done.error());
  } else if (heartbeat) {
    journal::Vector ours = member_.vector();
    std::lock_guard lock(mutex_);
    session_.heartbeat(ours);
  }
  if (!closed()) send_batches();
  ask_sync_if_wanted();
  if (!closed()) {
    if (Status done = checkpoint(); !done) close(done.error());
  }
  bool sent = false;
  if (Status flushed = flush(write, &sent); !flushed) close(flushed.error());
  if (std::optional<Error> why = closed()) {
    keep_tree();
    cursor_.reset();  // an ended peer holds nothing of the journal
    return std::unexpected(*why);
  }
  return sent ? Activity::kSent : Activity::kIdle;
}

Status LeaderLink::flush(const Write& write, bool* sent) {
  std::vector<Outgoing> output;
  {
    std::lock_guard lock(mutex_);
    output = session_.take_output();
  }
  if (output.empty()) return {};
  std::vector<ByteView> pieces;
  for (const Outgoing& out : output) out.append_pieces(pieces);
  *sent = true;
  return write(pieces);
}

Status LeaderLink::catch_up(const CatchUpRequest& request, const Write& write) {
  cursor_.reset();
  pending_.reset();
  const journal::Vector& peer = request.peer.position.vector;
  Moment ours = TRY(member_.settle());
  CatchUpFacts facts{.equal = peer == ours.position.vector,
                     .peer_is_new = request.peer.is_new,
                     .peer_is_empty = peer.empty(),
                     .peer_is_ahead = ahead(peer, ours.position.vector),
                     .asked_for_snapshot = request.resync,
                     .snapshot_bytes = member_.estimated_snapshot_bytes()};
  // Later it has a tree that we sent it.
  if (!request.first && request.peer.offers_tree && facts.snapshot_bytes >= options_.offer_from_bytes)
    facts.peer_holds = facts.snapshot_bytes;
  if (request.first) facts.peer_holds = request.peer.holds;
  if (facts.peer_is_ahead && request.first && !request.fetched && member_.would_take_back(peer)) {
    std::lock_guard lock(mutex_);
    branch_ = request.peer.branch;
    giver_ = peer;
    session_.begin_fetch(ours);
    return {};
  }
  if (facts.peer_is_ahead && request.fetched) {
    std::lock_guard lock(mutex_);
    *facts.peer_is_ahead += fmt::format("; they could not be taken back: {}", not_taken_back_);
  }
  // Only a greeting says the peer's digest; later the checkpoints compare them.
  facts.digests_differ = request.first && facts.equal && request.peer.position.digest != ours.position.digest;
  Result<LogIndex> from = price_suffix(member_.journal(), peer, facts);
  if (!from) facts.suffix_missing = from.error().message();
  std::optional<FromKept> kept = look_for_difference(peer, from, facts);
  CatchUpDecision decision = choose_tier(facts);
  {
    std::lock_guard lock(mutex_);
    branch_ = request.peer.branch;
    session_.begin_catch_up(decision, ours);
  }
  if (decision.tier == Tier::kDifference) return send_difference(*kept, write);
  if (decision.tier == Tier::kSnapshot) return send_snapshot(write, nullptr);
  if (decision.tier == Tier::kMissingBlobs) return {};  // once it has said which it has
  read_from(decision.tier == Tier::kSuffix ? *from : ours.log_index + 1);
  return {};
}

void LeaderLink::read_from(LogIndex index) {
  cursor_ = member_.journal().read(index);
  sent_index_ = index - 1;
  unchecked_ = true;
  checkpoint_at_ms_ = 0;
}

// Those passed at `position`, the newest of them if there are too many for one message.
Result<std::vector<Mark>> LeaderLink::marks_before(const journal::Position& position) {
  std::vector<Mark> passed;
  size_t bytes = 0;
  std::vector<Mark> all = TRY(member_.marks());
  for (auto mark = all.rbegin(); mark != all.rend() && passed.size() < kMarksMax; ++mark) {
    bytes += mark->name.size() + mark->token.size();
    if (bytes > kMarksBytesMax) break;
    journal::Position at = TRY(journal::Position::parse_token(mark->token));
    if (position.vector.covers(at.vector)) passed.push_back(std::move(*mark));
  }
  std::reverse(passed.begin(), passed.end());
  return passed;
}

Status LeaderLink::send_snapshot(const Write& write, const std::vector<uint64_t>* held) {
  std::function<bool(BlobId)> has;
  if (held != nullptr) has = [held](BlobId id) { return std::ranges::binary_search(*held, id.lo); };
  Pinned pinned = TRY(member_.pin());
  std::vector<Mark> marks = TRY(marks_before(pinned.moment.position));
  {
    std::lock_guard lock(mutex_);
    session_.begin_tree(pinned.moment, std::move(marks));
    ++overwrites_;
  }
  bool sent = false;
  TRY(flush(write, &sent));
  read_from(pinned.moment.log_index + 1);
  uint64_t bytes = 0, meanwhile_bytes = 0;
  snapshot::Captured captured = TRY(snapshot::send_tree(
      pinned.view, snapshot::kPieceBytes,
      [&](ByteView piece) -> Status {
        bytes += piece.size();
        std::array<std::byte, kFrameHeaderBytes> header;
        {
          std::lock_guard lock(mutex_);
          if (session_.closed()) return std::unexpected(*session_.closed());
          header = session_.frame_tree(piece.size());
        }
        std::array<ByteView, 2> pieces{ByteView(header), piece};
        TRY(write(pieces));
        return send_meanwhile(write, meanwhile_bytes);
      },
      has));
  std::lock_guard lock(mutex_);
  session_.end_tree(captured.root, bytes);
  return {};
}

// What is done while a tree is sent: so the journal need not keep it until the end.
Status LeaderLink::send_meanwhile(const Write& write, uint64_t& bytes) {
  if (bytes >= kMeanwhileBytes) return {};
  auto sent_bytes = [&] {
    std::lock_guard lock(mutex_);
    return session_.sent_bytes();
  };
  const uint64_t before = sent_bytes();
  send_batches();
  bytes += sent_bytes() - before;
  bool sent = false;
  return flush(write, &sent);
}

// From which of the trees that were kept the peer is brought here with fewest bytes.
std::optional<LeaderLink::FromKept> LeaderLink::look_for_difference(const journal::Vector& peer,
                                                                    const Result<LogIndex>& suffix,
                                                                    CatchUpFacts& facts) {
  std::optional<FromKept> best;
  std::optional<uint64_t> limit = difference_limit(facts, options_.difference_from_bytes);
  if (kept_ == nullptr || !limit) return best;
  for (Pinned& base : kept_->after(peer, now_ms())) {
    const LogIndex next = base.moment.log_index + 1;
    uint64_t to_base = 0;
    if (base.moment.position.vector != peer) {
      Result<uint64_t> rest = member_.journal().bytes_from(next);
      if (!suffix || !facts.suffix_bytes || !rest || *rest > *facts.suffix_bytes) continue;
      to_base = *facts.suffix_bytes - *rest;
    }
    if (to_base > *limit) continue;
    Result<Pinned> ours = member_.pin();
    if (!ours) return best;
    auto bytes = difference_bytes(base.view, ours->view, *limit - to_base);
    if (!bytes) continue;
    facts.difference_bytes = limit = to_base + *bytes;
    best = {std::move(base), std::move(*ours), to_base > 0 ? *suffix : next};
  }
  return best;
}

Status LeaderLink::send_difference(const FromKept& kept, const Write& write) {
  read_from(kept.from);
  if (!TRY(send_up_to(kept.base.moment.log_index, write))) return {};
  std::vector<Mark> marks = TRY(marks_before(kept.ours.moment.position));
  {
    std::lock_guard lock(mutex_);
    session_.begin_difference(kept.ours.moment, std::move(marks));
  }
  bool sent = false;
  uint64_t batches =
      TRY(replay::send_difference(kept.base.view, kept.ours.view, [&](const journal::Batch& batch) {
        {
          std::lock_guard lock(mutex_);
          if (session_.closed()) return Status(std::unexpected(*session_.closed()));
          session_.send_piece(batch);
        }
        return flush(write, &sent);
      }));
  {
    std::lock_guard lock(mutex_);
    session_.end_difference(batches);
  }
  read_from(kept.ours.moment.log_index + 1);
  return {};
}

// False if the journal does not have them any more; then the peer is to be brought up to date in another way.
Result<bool> LeaderLink::send_up_to(LogIndex last, const Write& write) {
  bool sent = false;
  while (sent_index_ < last) {
    send_batches(last);
    if (!cursor_) return false;
    TRY(flush(write, &sent));
    if (auto why = closed()) return std::unexpected(*why);
  }
  return true;
}

// The tree that the peer would have had next: with all that was sent, and what came since.
void LeaderLink::keep_tree() {
  if (kept_ == nullptr || !cursor_) return;
  Result<Pinned> pinned = member_.pin();
  if (pinned) kept_->keep(std::move(*pinned), now_ms());
}

void LeaderLink::send_batches(LogIndex last) {
  size_t bytes = 0;
  bool sent = false;
  for (size_t count = 0; cursor_ && count < kWriteBatches && bytes < kWriteBytes && sent_index_ < last;
       ++count) {
    Result<std::optional<journal::Logged>> next = cursor_->next();
    std::lock_guard lock(mutex_);
    if (!next) {  // trimmed, or damaged: what can be mended by a snapshot is
      cursor_.reset();
      return session_.restart(next.error().message());
    }
    if (!*next) break;
    const journal::Logged& logged = **next;
    session_.send_batch(logged.batch);
    sent = true;
    bytes += logged.batch.encoded_bytes();
    sent_index_ = logged.index;
    unchecked_ = true;
    if (pending_ && pending_->log_index == sent_index_) {
      session_.checkpoint(pending_->position);
      pending_.reset();
      unchecked_ = false;
    }
  }
  if (!sent) return;
  std::lock_guard lock(mutex_);
  unacked_.sent(session_.sent(), clock_.monotonic_ns());
}

void LeaderLink::want_synced(const journal::Vector& wanted) {
  {
    std::lock_guard lock(mutex_);
    if (sync_asked_.covers(wanted)) return;
    sync_wanted_ = wanted;
    woken_ = true;
  }
  changed_.notify_one();
}

void LeaderLink::ask_sync_if_wanted() {
  std::lock_guard lock(mutex_);
  if (!sync_wanted_ || !session_.decided() || !session_.sent().covers(*sync_wanted_)) return;
  sync_asked_ = session_.sent();
  sync_wanted_.reset();
  session_.ask_sync();
}

Status LeaderLink::checkpoint() {
  if (!cursor_ || !unchecked_ || pending_) return {};
  if (checkpoint_at_ms_ != 0 && now_ms() - checkpoint_at_ms_ < options_.checkpoint_interval_ms) return {};
  Moment moment = TRY(member_.settle());
  checkpoint_at_ms_ = now_ms();
  if (moment.log_index > sent_index_) {
    pending_ = std::move(moment);  // the writer goes on meanwhile
  } else if (moment.log_index == sent_index_) {
    std::lock_guard lock(mutex_);
    session_.checkpoint(moment.position);
    unchecked_ = false;
  }
  return {};
}

void LeaderLink::wait(uint32_t timeout_ms) {
  if (!cursor_) {
    std::unique_lock lock(mutex_);
    changed_.wait_for(lock, std::chrono::milliseconds(timeout_ms), [&] { return woken_; });
    woken_ = false;
    return;
  }
  if (unchecked_ && !pending_) {
    uint64_t since = now_ms() - checkpoint_at_ms_;
    uint64_t left = since < options_.checkpoint_interval_ms ? options_.checkpoint_interval_ms - since : 1;
    timeout_ms = std::min<uint32_t>(timeout_ms, static_cast<uint32_t>(left));
  }
  cursor_->wait(timeout_ms);
}

void UnackedSince::sent(const journal::Vector& vector, uint64_t now_ns) {
  entries_.push_back({vector, now_ns});
  if (entries_.size() <= kUnackedMax) return;
  size_t kept = 0;
  for (size_t at = 0; at < entries_.size(); at += 2) entries_[kept++] = std::move(entries_[at]);
  entries_.resize(kept);
}

void UnackedSince::acked(const journal::Vector& vector) {
  while (!entries_.empty() && vector.covers(entries_.front().vector)) entries_.pop_front();
}

std::optional<uint64_t> UnackedSince::oldest_ns() const {
  if (entries_.empty()) return std::nullopt;
  return entries_.front().ns;
}

// What the journal has and the peer has not acknowledged; nothing where the journal does not reach back to
// it.
Lag LeaderLink::lag(const journal::Vector& acked) const {
  Lag out;
  journal::Journal& journal = member_.journal();
  Result<LogIndex> from = journal.position_of(acked);
  if (!from) {
    out.at_least = true;
    return out;
  }
  Result<uint64_t> bytes = journal.bytes_from(*from);
  LogIndex last = journal.last();
  if (!bytes || last < *from) return out;
  out.batches = last - *from + 1;
  out.bytes = *bytes;
  auto cursor = journal.read(*from);
  for (size_t count = 0; count < std::min<uint64_t>(out.batches, kLagBatchesMax); ++count) {
    auto next = cursor->next();
    if (!next || !*next) break;
    out.operations += (*next)->batch.operation_count();
  }
  out.at_least = out.batches > kLagBatchesMax;
  return out;
}

PeerStatus LeaderLink::status(bool with_lag) const {
  PeerStatus out = status_without_lag();
  if (!with_lag || !out.connected || !out.greeted) return out;
  out.lag = lag(out.acked);
  std::lock_guard lock(mutex_);
  auto oldest_ns = unacked_.oldest_ns();
  uint64_t now_ns = clock_.monotonic_ns();
  if (out.lag.batches > 0 && oldest_ns) out.lag.us = (now_ns - std::min(now_ns, *oldest_ns)) / 1000;
  return out;
}

PeerStatus LeaderLink::status_without_lag() const {
  std::lock_guard lock(mutex_);
  PeerStatus out;
  out.name = session_.peer_name();
  out.snapshot_bytes = session_.decision().snapshot_bytes;
  out.suffix_bytes = session_.decision().suffix_bytes;
  out.difference_bytes = session_.decision().difference_bytes;
  out.received_bytes = session_.received_bytes();
  out.checkpoints = session_.checkpoints();
  out.synced = session_.synced();
  out.detached = session_.closed() && session_.closed()->code() == Code::kDetached;
  out.connected = !session_.closed();
  out.greeted = session_.greeted();
  out.branch = branch_;
  out.tier = session_.decision().tier;
  out.reason = session_.decision().reason;
  out.sent_bytes = session_.sent_bytes();
  out.overwrites = overwrites_;
  out.resyncs = session_.resyncs();
  out.decided = session_.decided();
  out.fetching = session_.fetching();
  out.taken_back = taken_back_;
  out.sent = session_.sent();
  out.acked = session_.acked();
  if (session_.closed()) out.ended = session_.closed()->message();
  return out;
}

}  // namespace reprise::replay

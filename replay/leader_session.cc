#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "base/check.h"
#include "replay/session.h"

namespace reprise::replay {

LeaderSession::LeaderSession(const SessionOptions& options, VolumeId volume, std::string branch,
                             uint64_t now_ms)
    : channel_(options, now_ms),
      authentication_(Role::kLeader, options.token, *options.random),
      volume_(volume),
      branch_(std::move(branch)),
      budget_(options.resyncs_per_minute) {
  channel_.limit_frames(authentication_.passed() ? kControlLimit : kStrangerLimit);
}

void LeaderSession::receive(ByteView bytes, uint64_t now_ms) {
  channel_.set_now(now_ms);
  while (std::optional<Incoming> message = channel_.take(bytes)) handle(std::move(*message));
}

void LeaderSession::authenticate(const Incoming& message) {
  const Control* control = std::get_if<Control>(&message);
  if (control == nullptr)
    return channel_.close_malformed(Error(Code::kCorrupt, "a stranger sent something else than a challenge"));
  if (const auto* bye = std::get_if<Bye>(control))
    return channel_.close(Error(bye->code, "the peer left: " + bye->reason));
  if (const auto* refuse = std::get_if<Refuse>(control))
    return channel_.close(Error(refuse->code, "refused by the peer: " + refuse->reason));
  auto answer = authentication_.answer(*control);
  if (!answer) return channel_.close_malformed(answer.error());
  if (*answer) channel_.send(**answer);
  if (authentication_.passed()) channel_.limit_frames(kControlLimit);
}

void LeaderSession::handle(Incoming message) {
  if (!authentication_.passed()) return authenticate(message);
  const Control* control = std::get_if<Control>(&message);
  auto* batch = std::get_if<journal::Batch>(&message);
  if (batch != nullptr && fetching()) {
    if (fetch_ == Fetching::kYes) fetched_.batches.push_back(std::move(*batch));
  } else if (control == nullptr) {
    channel_.close_malformed(Error(Code::kCorrupt, "a follower sent changes; it may only receive them"));
  } else if (auto* hello = std::get_if<Hello>(control)) {
    handle_hello(*hello);
  } else if (auto* bye = std::get_if<Bye>(control)) {
    channel_.close(Error(bye->code, "the peer left: " + bye->reason));
  } else if (auto* refuse = std::get_if<Refuse>(control)) {
    channel_.close(Error(refuse->code, "refused by the peer: " + refuse->reason));
  } else if (std::holds_alternative<Challenge>(*control) && !greeted_) {
    channel_.close_malformed(
        Error(Code::kUnauthorised, "the follower has a token, and this leader has none"));
  } else if (!greeted_) {
    channel_.close_malformed(Error(Code::kCorrupt, "expected a greeting first"));
  } else if (auto* ack = std::get_if<Ack>(control)) {
    handle_ack(ack->vector, acked_);
  } else if (auto* synced = std::get_if<Synced>(control)) {
    handle_ack(synced->vector, synced_);
  } else if (std::holds_alternative<Heartbeat>(*control)) {
    // That it came is all it says.
  } else if (auto* held = std::get_if<Held>(control)) {
    handle_held(*held);
  } else if (auto* fetched = std::get_if<Fetched>(control); fetched != nullptr && fetching()) {
    fetched_.complete = true;
    fetched_.missing = fetched->missing;
  } else if (auto* resync = std::get_if<Resync>(control); resync != nullptr && !fetching()) {
    restart("the peer asked for it: " + resync->reason);
    if (request_) request_->resync = resync->reason;
  } else {
    channel_.close_malformed(Error(Code::kCorrupt, "a follower sent what only a leader may send"));
  }
}

// What comes when it is not asked for answers a catch-up that was given up meanwhile.
void LeaderSession::handle_held(const Held& held) {
  if (!awaiting_held_ || held_complete_) return;
  if (held_.size() + held.blobs.size() > kHeldMax)
    return channel_.close_malformed(
        Error(Code::kCorrupt, fmt::format("the peer names more than {} blobs", kHeldMax)));
  held_.insert(held_.end(), held.blobs.begin(), held.blobs.end());
  held_complete_ = held.last;
}

std::optional<std::vector<uint64_t>> LeaderSession::take_held() {
  if (!held_complete_ || channel_.closed()) return std::nullopt;
  awaiting_held_ = held_complete_ = false;
  std::ranges::sort(held_);
  return std::exchange(held_, {});
}

void LeaderSession::handle_ack(const journal::Vector& vector, journal::Vector& noted) {
  if (!sent_.covers(vector)) {
    return channel_.close_malformed(
        Error(Code::kCorrupt, "the peer claims to have applied batches that were not sent to it"));
  }
  noted = vector;
}

void LeaderSession::handle_hello(const Hello& hello) {
  const SessionOptions& ours = channel_.options();
  auto refuse = [&](Code code, const std::string& reason) {
    channel_.close(Error(code, "refused: " + reason), Control(Refuse{.code = code, .reason = reason}));
  };
  if (greeted_) return channel_.close_malformed(Error(Code::kCorrupt, "a second greeting"));
  if (hello.max_version < ours.min_version || hello.min_version > ours.max_version)
    return refuse(Code::kUnsupported,
                  fmt::format("the leader speaks versions {} to {} of the protocol, the follower {} to {}",
                              ours.min_version, ours.max_version, hello.min_version, hello.max_version));
  if (hello.role != Role::kFollower)
    return refuse(Code::kUnsupported, "expected a follower; this version serves nobody else");
  if (hello.volume && hello.volume != volume_)
    return refuse(Code::kWrongVolume, fmt::format("the leader's volume is {}, the follower's is {}",
                                                  volume_.to_string(), hello.volume.to_string()));
  if (!hello.volume && !hello.position.vector.empty())
    return refuse(Code::kCorrupt, "the follower has applied batches and yet has no volume");
  greeted_ = true;
  peer_ = hello;
  sent_ = acked_ = hello.position.vector;
  request_ = CatchUpRequest{.peer = peer_, .first = true};
}

std::optional<CatchUpRequest> LeaderSession::take_request() {
  if (channel_.closed()) return std::nullopt;
  return std::exchange(request_, std::nullopt);
}

void LeaderSession::begin_fetch(const Moment& ours) {
  CHECK(greeted_ && !fetching());
  greet(ours);
  fetch_ = Fetching::kYes;
  channel_.limit_frames(SIZE_MAX);
  channel_.send(Fetch{.vector = ours.position.vector});
}

std::optional<FetchedPart> LeaderSession::take_fetched() {
  if (fetch_ == Fetching::kIgnoring && fetched_.complete) ask_again();
  if (fetch_ != Fetching::kYes || (fetched_.batches.empty() && !fetched_.complete)) return std::nullopt;
  return std::exchange(fetched_, {});
}

// What still comes is thrown away until its end has: it answers nothing else.
void LeaderSession::end_fetch(bool complete) {
  if (!fetching()) return;
  fetch_ = Fetching::kIgnoring;
  if (complete) ask_again();
}

void LeaderSession::ask_again() {
  fetch_ = Fetching::kNo;
  channel_.limit_frames(kControlLimit);
  fetched_ = {};
  request_ = CatchUpRequest{.peer = peer_, .first = true, .fetched = true};
}

void LeaderSession::restart(std::string reason) {
  if (channel_.closed()) return;
  CHECK(greeted_);
  if (!budget_.take(channel_.now_ms())) {
    std::string what = fmt::format("overwritten more than {} times in a minute, the last time would be: {}",
                                   channel_.options().resyncs_per_minute, reason);
    return channel_.close(Error(Code::kDetached, what),
                          Control(Refuse{.code = Code::kDetached, .reason = what}));
  }
  ++resyncs_;
  Hello peer = peer_;
  peer.position = {.vector = sent_, .digest = {}};
  peer.is_new = peer_.is_new && sent_.empty();
  // A peer that has not been answered yet still has to be.
  request_ = CatchUpRequest{.peer = std::move(peer), .first = !answered_};
}

void LeaderSession::greet(const Moment& ours) {
  if (answered_) return;
  const SessionOptions& options = channel_.options();
  channel_.send(Hello{.min_version = options.min_version,
                      .max_version = options.max_version,
                      .volume = volume_,
                      .branch = branch_,
                      .role = Role::kLeader,
                      .position = ours.position,
                      .lamport = ours.lamport});
  answered_ = true;
}

void LeaderSession::begin_catch_up(const CatchUpDecision& decision, const Moment& ours) {
  CHECK(greeted_);
  greet(ours);
  decision_ = decision;
  decided_ = true;
  awaiting_held_ = decision.tier == Tier::kMissingBlobs;
  held_complete_ = false;
  held_.clear();
  channel_.send(CatchUp{.decision = decision, .target = ours.position.vector});
}

void LeaderSession::send_batch(const journal::Batch& batch) {
  const journal::BatchHeader& header = batch.header();
  sent_.set(header.origin, std::max(sent_.get(header.origin), header.lsn));
  channel_.send(batch);
}

void LeaderSession::begin_tree(const Moment& moment, std::vector<Mark> marks) {
  sent_ = moment.position.vector;
  channel_.send(
      SnapshotBegin{.position = moment.position, .lamport = moment.lamport, .marks = std::move(marks)});
}

void LeaderSession::end_tree(BlobId root, uint64_t bytes) {
  channel_.send(SnapshotEnd{.root = root, .bytes = bytes});
}

void LeaderSession::begin_difference(const Moment& moment, std::vector<Mark> marks) {
  sent_ = moment.position.vector;
  channel_.send(
      DifferenceBegin{{.position = moment.position, .lamport = moment.lamport, .marks = std::move(marks)}});
}

void LeaderSession::checkpoint(const journal::Position& position) {
  channel_.send(Checkpoint{.position = position});
  ++checkpoints_;
}

void LeaderSession::close(Error why) {
  Bye bye{.code = why.code(), .reason = why.message()};
  channel_.close(std::move(why), Control(std::move(bye)));
}

}  // namespace reprise::replay

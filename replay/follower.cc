#include "replay/follower.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>

#include "base/log.h"

namespace reprise::replay {
namespace {

constexpr size_t kReadBytes = 256 << 10;
constexpr uint32_t kReadWaitMs = 250;  // between looks at the time

Status write_output(Stream& stream, FollowerLink& link, uint32_t timeout_ms) {
  std::vector<Outgoing> output = link.take_output();
  if (output.empty()) return {};
  std::vector<ByteView> pieces;
  for (const Outgoing& out : output) out.append_pieces(pieces);
  return stream.write(pieces, timeout_ms);
}

uint64_t batches_behind(const journal::Vector& leader, const journal::Vector& ours) {
  uint64_t out = 0;
  for (const auto& [origin, lsn] : leader.entries()) out += lsn - std::min(lsn, ours.get(origin));
  return out;
}

}  // namespace

std::string_view state_name(FollowerState state) {
  switch (state) {
    case FollowerState::kConnecting:
      return "connecting";
    case FollowerState::kCatchingUp:
      return "catching up";
    case FollowerState::kLive:
      return "live";
    case FollowerState::kDetached:
      return "detached";
    case FollowerState::kStopped:
      return "stopped";
  }
  return "unknown";
}

std::unique_ptr<Follower> Follower::start(Network& network, const Endpoint& endpoint, Member& member,
                                          Clock& clock, const FollowerOptions& options) {
  std::unique_ptr<Follower> out(new Follower(network, endpoint, member, clock, options));
  out->thread_ = std::thread([follower = out.get()] { follower->run(); });
  return out;
}

Follower::Follower(Network& network, const Endpoint& endpoint, Member& member, Clock& clock,
                   const FollowerOptions& options)
    : network_(network),
      endpoint_(endpoint),
      member_(member),
      clock_(clock),
      options_(options),
      budget_(options.session.resyncs_per_minute) {}

Follower::~Follower() {
  stop();
}

void Follower::stop() {
  std::lock_guard stopping(stop_mutex_);
  {
    std::lock_guard lock(mutex_);
    stopping_ = true;
    if (stream_ != nullptr) stream_->shut_down();
  }
  changed_.notify_all();
  if (thread_.joinable()) thread_.join();
}

void Follower::run() {
  uint32_t retry_ms = options_.retry_first_ms;
  bool again = true;
  while (again) {
    {
      std::lock_guard lock(mutex_);
      if (stopping_) break;
    }
    Result<std::unique_ptr<Stream>> stream = network_.connect(endpoint_, options_.connect_timeout_ms);
    if (stream) {
      again = follow(**stream);
      stream->reset();  // not kept open while we pause
    } else {
      note_failure(stream.error());
      again =
          stream.error().code() != Code::kInvalidArgument;  // the endpoint's name; it will not become another
    }
    if (!again) break;
    pause(retry_ms);
    // A connection that came to nothing, though greeted, is a failure too: else a batch that we cannot read
    // would be asked for a hundred times a second.
    retry_ms = stream && was_live_ ? options_.retry_first_ms : std::min(retry_ms * 2, options_.retry_max_ms);
  }
  std::lock_guard lock(mutex_);
  status_.state = again ? FollowerState::kStopped : FollowerState::kDetached;
  changed_.notify_all();
}

bool Follower::follow(Stream& stream) {
  {
    std::lock_guard lock(mutex_);
    if (stopping_) return true;
    stream_ = &stream;
    before_ = status_;
  }
  if (!stream.is_local() && !options_.session.token) {
    note_failure(
        Error(Code::kUnauthorised, fmt::format("{}: lies on another machine: expected a token that its "
                                               "instances know",
                                               endpoint_.to_string())));
    std::lock_guard lock(mutex_);
    stream_ = nullptr;
    return false;
  }
  bool again = true;
  catch_up_began_ns_ = clock_.monotonic_ns();
  SessionOptions session = options_.session;
  session.offers_tree &= options_.offers_tree_here || !stream.is_local();
  Result<std::unique_ptr<FollowerLink>> link =
      FollowerLink::begin(member_, clock_, session, budget_, unfinished_, options_.tree_limit_bytes);
  if (!link) {
    note_failure(link.error());
    again = false;  // the member cannot even say where it is
  } else {
    exchange_with(stream, **link);
    was_live_ = (*link)->session().caught_up();
    again = !(*link)->session().hopeless();
    publish(**link);
    note_failure((*link)->session().closed().value_or(Error(Code::kUnreachable, "the connection was lost")));
  }
  std::lock_guard lock(mutex_);
  stream_ = nullptr;
  return again;
}

// Returns when the session is over or the stream is.
void Follower::exchange_with(Stream& stream, FollowerLink& link) {
  Bytes buffer(kReadBytes);
  std::optional<Error> lost;  // writing failed; what the leader said before it left is still read
  for (;;) {
    if (!lost)
      if (Status written = write_output(stream, link, options_.write_timeout_ms); !written)
        lost = written.error();
    publish(link);
    if (link.session().closed()) return;
    if (link.says_more() && !lost) continue;
    Result<size_t> n = stream.read(buffer, kReadWaitMs);
    if (n && *n > 0) {
      link.receive(ByteView(buffer).first(*n));
    } else if (n) {
      return link.close(
          lost.value_or(Error(Code::kUnreachable, stream.peer() + ": the leader closed the connection")));
    } else if (n.error().code() != Code::kTimeout || lost) {
      return link.close(lost.value_or(n.error()));
    }
    link.tick();
  }
}

void Follower::publish(const FollowerLink& link) {
  const FollowerSession& session = link.session();
  journal::Vector ours = member_.vector();
  std::lock_guard lock(mutex_);
  if (session.greeted()) {
    status_.connections = before_.connections + 1;
    status_.state = session.caught_up() ? FollowerState::kLive : FollowerState::kCatchingUp;
    status_.leader_volume = session.leader_volume();
  }
  if (session.decision()) note_catch_up(session);
  if (session.last_resync()) status_.last_resync = session.last_resync();
  status_.received_bytes = before_.received_bytes + session.received_bytes();
  status_.sent_bytes = before_.sent_bytes + session.sent_bytes();
  status_.batches = before_.batches + link.batches();
  status_.overwrites = before_.overwrites + link.overwrites();
  status_.differences = before_.differences + link.differences();
  status_.checkpoints = before_.checkpoints + session.checkpoints();
  status_.lag_batches = batches_behind(session.leader_vector(), ours);
  changed_.notify_all();
}

void Follower::note_catch_up(const FollowerSession& session) {
  status_.decision = session.decision();
  status_.catch_up_bytes = session.catch_up_bytes();
  status_.catch_up_operations = session.catch_up_operations();
  uint64_t now_ns = clock_.monotonic_ns();
  if (!session.caught_up()) {
    if (catch_up_began_ns_ == 0) catch_up_began_ns_ = now_ns;
  } else if (catch_up_began_ns_ != 0) {
    status_.catch_up_us = (now_ns - catch_up_began_ns_) / 1000;
    catch_up_began_ns_ = 0;
  }
}

void Follower::note_failure(const Error& error) {
  std::lock_guard lock(mutex_);
  status_.state = FollowerState::kConnecting;
  if (stopping_) return;  // we ended it
  if (!status_.last_error || status_.last_error->message() != error.message())
    log_debug("{}", error.message());
  status_.last_error = error;
  changed_.notify_all();
}

void Follower::pause(uint32_t ms) {
  std::unique_lock lock(mutex_);
  changed_.wait_for(lock, std::chrono::milliseconds(ms), [&] { return stopping_; });
}

Status Follower::wait_for_state(uint32_t timeout_ms, const Cancelled& cancelled,
                                const std::function<bool(FollowerState)>& reached, std::string_view what) {
  constexpr uint32_t kSlice_ms = 50;
  std::unique_lock lock(mutex_);
  auto settled = [&] {
    return reached(status_.state) || status_.state == FollowerState::kDetached ||
           status_.state == FollowerState::kStopped || stopping_;
  };
  bool in_time = false;
  for (uint32_t left_ms = timeout_ms; !in_time;) {
    uint32_t slice_ms = cancelled ? std::min(left_ms, kSlice_ms) : left_ms;
    in_time = changed_.wait_for(lock, std::chrono::milliseconds(slice_ms), settled);
    left_ms -= slice_ms;
    if (in_time || left_ms == 0) break;
    if (cancelled()) return fail(Code::kCancelled, endpoint_.to_string() + ": cancelled before contact");
  }
  if (reached(status_.state)) return {};
  std::string why = status_.last_error ? ": " + status_.last_error->message() : "";
  if (status_.state == FollowerState::kDetached)
    return fail(status_.last_error ? status_.last_error->code() : Code::kDetached,
                endpoint_.to_string() + ": detached" + why);
  if (in_time) return fail(Code::kCancelled, endpoint_.to_string() + ": following was stopped");
  // If nobody was there, that is what is wrong, and not that it took long.
  bool away = status_.last_error && status_.last_error->code() == Code::kUnreachable;
  return std::unexpected(
      Error(away ? Code::kUnreachable : Code::kTimeout,
            fmt::format("{}: {} within {} ms{}", endpoint_.to_string(), what, timeout_ms, why),
            away ? status_.last_error->sys_errno() : 0));
}

Status Follower::wait_connected(uint32_t timeout_ms, const Cancelled& cancelled) {
  return wait_for_state(
      timeout_ms, cancelled,
      [](FollowerState state) {
        return state == FollowerState::kCatchingUp || state == FollowerState::kLive;
      },
      "not connected to the leader");
}

Status Follower::wait_caught_up(uint32_t timeout_ms, const Cancelled& cancelled) {
  return wait_for_state(
      timeout_ms, cancelled, [](FollowerState state) { return state == FollowerState::kLive; },
      "not caught up with the leader");
}

FollowerStatus Follower::status() const {
  std::lock_guard lock(mutex_);
  return status_;
}

}  // namespace reprise::replay

#include "replay/leader.h"

#include <fmt/format.h>

#include <chrono>
#include <condition_variable>
#include <utility>

#include "base/log.h"

namespace reprise::replay {
namespace {

constexpr uint32_t kIdleWaitMs = 100;  // how long a sender may overlook a request or a stop
constexpr uint32_t kReadWaitMs = 1000;
constexpr size_t kReadBytes = 16 << 10;  // followers say little
constexpr uint32_t kLeaveMs = 300;
constexpr uint64_t kAcceptPauseNs = 100'000'000;
constexpr uint64_t kCrowdPauseNs = 5'000'000;

}  // namespace

class Leader::Peer {
 public:
  Peer(std::unique_ptr<Stream> stream, Member& member, Clock& clock, const LeaderOptions& options,
       KeptTrees& kept)
      : stream_(std::move(stream)),
        options_(options),
        since_(clock.realtime()),
        link_(member, clock, options.session, options.keeps_trees ? &kept : nullptr),
        reader_([this] { read_all(); }),
        sender_([this] { send_all(); }) {}

  ~Peer() {
    link_.close(Error(Code::kCancelled, "the leader stops"));
    {
      // Time to take leave; but a peer that takes nothing must not hold up the leader.
      std::unique_lock lock(mutex_);
      changed_.wait_for(lock, std::chrono::milliseconds(kLeaveMs), [&] { return ended_; });
    }
    stream_->shut_down();
    sender_.join();
    reader_.join();
  }

  void close(Error why) { link_.close(std::move(why)); }
  bool ended() const {
    std::lock_guard lock(mutex_);
    return ended_;
  }
  void want_synced(const journal::Vector& wanted) { link_.want_synced(wanted); }
  PeerStatus status(bool with_lag = false) const {
    PeerStatus out = link_.status(with_lag);
    out.peer = stream_->peer();
    out.connected_since = since_;
    return out;
  }

 private:
  void read_all() {
    Bytes buffer(kReadBytes);
    while (!link_.closed()) {
      Result<size_t> n = stream_->read(buffer, kReadWaitMs);
      if (n && *n > 0)
        link_.receive(ByteView(buffer).first(*n));
      else if (n)
        link_.close(Error(Code::kUnreachable, "the peer closed the connection"));
      else if (n.error().code() != Code::kTimeout)
        link_.close(n.error());
    }
  }

  void send_all() {
    LeaderLink::Write write = [this](std::span<const ByteView> pieces) {
      return stream_->write(pieces, options_.write_timeout_ms);
    };
    for (;;) {
      Result<LeaderLink::Activity> did = link_.step(write);
      if (!did) {
        link_.close(did.error());
        break;
      }
      if (*did == LeaderLink::Activity::kIdle) link_.wait(kIdleWaitMs);
    }
    log_debug("{}: ended: {}", stream_->peer(), link_.status().ended);
    stream_->shut_down();
    std::lock_guard lock(mutex_);
    ended_ = true;
    changed_.notify_all();
  }

  std::unique_ptr<Stream> stream_;
  LeaderOptions options_;
  Timestamp since_;
  LeaderLink link_;
  mutable std::mutex mutex_;  // ended_
  std::condition_variable changed_;
  bool ended_ = false;
  std::thread reader_, sender_;  // last: they use the rest
};

Result<std::unique_ptr<Leader>> Leader::listen(Network& network, const Endpoint& endpoint, Member& member,
                                               Clock& clock, const LeaderOptions& options) {
  auto listener = TRY(network.listen(endpoint));
  if (!listener->is_local() && !options.session.token) {
    return fail(
        Code::kUnauthorised,
        fmt::format("{}: other machines could connect there: expected a token that followers must know, "
                    "or an address of the loopback",
                    endpoint.to_string()));
  }
  return std::unique_ptr<Leader>(new Leader(std::move(listener), member, clock, options));
}

Leader::Leader(std::unique_ptr<Listener> listener, Member& member, Clock& clock, const LeaderOptions& options)
    : listener_(std::move(listener)), member_(member), clock_(clock), options_(options) {
  acceptor_ = std::thread([this] { accept_all(); });
}

Leader::~Leader() {
  stop();
}

void Leader::stop() {
  std::lock_guard stopping(stop_mutex_);
  if (stopping_.exchange(true)) return;
  listener_->close();
  acceptor_.join();
  std::vector<std::unique_ptr<Peer>> peers;
  {
    std::lock_guard lock(mutex_);
    reap();
    peers = std::exchange(peers_, {});
  }
  for (auto& peer : peers)
    peer->close(Error(Code::kCancelled, "the leader stops"));  // all at once, then wait for each
}

void Leader::accept_all() {
  while (!stopping_.load()) {
    Result<std::unique_ptr<Stream>> stream = listener_->accept();
    if (!stream) {
      if (stream.error().code() == Code::kCancelled) return;
      // Out of descriptors, most likely: it passes, and the peers there are go on.
      log_warning("{}", stream.error().message());
      clock_.sleep_ns(kAcceptPauseNs);
      continue;
    }
    admit(std::move(*stream));
  }
}

void Leader::admit(std::unique_ptr<Stream> stream) {
  // Those that were cut off take a moment to end: a flood of them waits in the kernel's backlog, not here.
  while (is_crowded() && !stopping_.load()) clock_.sleep_ns(kCrowdPauseNs);
  std::lock_guard lock(mutex_);
  size_t greeted = 0, strangers = 0;
  for (const auto& peer : peers_) {
    PeerStatus status = peer->status();
    (status.greeted ? greeted : strangers) += status.connected ? 1 : 0;
  }
  if (strangers >= options_.strangers_max) cut_off_oldest_stranger();
  peers_.push_back(std::make_unique<Peer>(std::move(stream), member_, clock_, options_, kept_));
  if (greeted >= options_.peers_max)
    peers_.back()->close(Error(
        Code::kBusy, fmt::format("the leader serves {} peers, which is its limit", options_.peers_max)));
}

bool Leader::is_crowded() {
  std::lock_guard lock(mutex_);
  reap();
  return peers_.size() >= options_.peers_max + 2 * options_.strangers_max;
}

void Leader::cut_off_oldest_stranger() {
  for (const auto& peer : peers_) {
    PeerStatus status = peer->status();
    if (!status.connected || status.greeted) continue;
    return peer->close(Error(
        Code::kBusy, fmt::format("{} others have connected since and not greeted", options_.strangers_max)));
  }
}

void Leader::reap() {
  std::erase_if(peers_, [this](const std::unique_ptr<Peer>& peer) {
    if (!peer->ended()) return false;
    if (ended_.size() >= options_.ended_max) ended_.pop_front();
    ended_.push_back(peer->status());
    return true;
  });
}

void Leader::want_synced(const journal::Vector& wanted) {
  std::lock_guard lock(mutex_);
  for (const auto& peer : peers_) peer->want_synced(wanted);
}

std::vector<PeerStatus> Leader::peers(bool with_lag) const {
  std::lock_guard lock(mutex_);
  std::vector<PeerStatus> out;
  out.reserve(peers_.size() + ended_.size());
  for (const auto& peer : peers_) out.push_back(peer->status(with_lag));
  out.insert(out.end(), ended_.begin(), ended_.end());
  return out;
}

}  // namespace reprise::replay

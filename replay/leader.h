// Leader: serves a member to any number of followers over one endpoint.
//
// Two threads per peer: one reads what the peer says, one tails the journal through the peer's own cursor and
// writes; hence no peer delays another, nor the writer. One thread accepts. What is sent and when is
// LeaderLink's; sockets are here.
//
// Threads: every function from any thread. stop() (or destruction) returns when all threads have ended.
#pragma once

#include <atomic>
#include <deque>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "base/clock.h"
#include "base/socket.h"
#include "replay/leader_link.h"
#include "replay/member.h"

namespace reprise::replay {

struct LeaderOptions {
  SessionOptions session;
  uint32_t write_timeout_ms = 30'000;  // a peer that takes no byte for so long is cut off
  size_t peers_max = 256;              // at once; more are refused
  size_t strangers_max = 32;  // connected and not greeted yet; one more, and the first of them is cut off
  size_t ended_max = 16;      // remembered in peers()
  bool keeps_trees = true;    // of peers that leave (KeptTrees), to send them differences when they are back
};

class Leader {
 public:
  // network, member and clock outlive it. Errors as Network::listen; kInvalidArgument where others than this
  // machine's programs may connect and there is no token.
  static Result<std::unique_ptr<Leader>> listen(Network& network, const Endpoint& endpoint, Member& member,
                                                Clock& clock, const LeaderOptions& options = {});
  ~Leader();

  // Takes leave of the peers, who will try to come back, and gives up the endpoint.
  void stop();
  const Endpoint& endpoint() const { return listener_->endpoint(); }
  // Connected peers, and the last ones that ended with the reason.
  std::vector<PeerStatus> peers(bool with_lag = false) const;
  // Has everybody who has been sent all of `wanted`, or will be, put it on his disk (PeerStatus::synced).
  void want_synced(const journal::Vector& wanted);

 private:
  class Peer;
  Leader(std::unique_ptr<Listener> listener, Member& member, Clock& clock, const LeaderOptions& options);
  void accept_all();
  void admit(std::unique_ptr<Stream> stream);
  bool is_crowded();
  // With mutex_ held.
  void reap();
  void cut_off_oldest_stranger();

  std::unique_ptr<Listener> listener_;
  Member& member_;
  Clock& clock_;
  LeaderOptions options_;
  std::atomic<bool> stopping_{false};
  mutable std::mutex mutex_;  // peers_, ended_
  KeptTrees kept_;
  std::vector<std::unique_ptr<Peer>> peers_;
  std::deque<PeerStatus> ended_;
  std::mutex stop_mutex_;
  std::thread acceptor_;
};

}  // namespace reprise::replay

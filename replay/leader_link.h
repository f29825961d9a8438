// LeaderLink: one peer of a leader: a LeaderSession, connected to the member whose journal and tree it sends.
//
// It reads the journal through a cursor of its own and holds one write's worth of batches: a slow or dead
// peer costs the writer nothing. When the journal is trimmed under the cursor, the peer gets a snapshot.
//
// What a peer sends back that the member lost is given to the member as it comes, in receive().
//
// No socket and no thread inside: receive() takes bytes, step() hands bytes to the writer it is given.
// Threads: receive(), close() and status() from any; step() and wait() from one. The mutex is never held
// while writing or while the member works on its tree.
#pragma once

#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>

#include "base/clock.h"
#include "replay/member.h"
#include "replay/session.h"

namespace reprise::replay {

// What a leader can say of a peer.
struct PeerStatus {
  std::string peer;        // as the transport names it
  bool connected = false;  // false: it is gone, and `ended` says why
  bool greeted = false;
  std::string branch;
  Tier tier = Tier::kNothing;  // of the last catch-up
  std::string reason;
  uint64_t sent_bytes = 0;
  uint64_t overwrites = 0;  // snapshots sent
  uint64_t resyncs = 0;     // of which because it was out of step or too slow
  bool decided = false;     // how it is brought up to date
  bool fetching = false;    // it sends what the leader lost
  uint64_t taken_back = 0;  // batches it sent so
  journal::Vector sent, acked;
  Timestamp connected_since;
  std::string ended;
};

class LeaderLink {
 public:
  // Writes all pieces to the peer or fails.
  using Write = std::function<Status(std::span<const ByteView> pieces)>;
  enum class Activity { kSent, kIdle };

  // member and clock outlive it.
  LeaderLink(Member& member, Clock& clock, const SessionOptions& options);

  void receive(ByteView bytes);
  // Does the next piece of work: answers, catches the peer up, sends batches, checkpoints. An error is the
  // end of the session (it was told to the peer if it can still be told).
  Result<Activity> step(const Write& write);
  // After kIdle: until there may be something to do, at most timeout_ms.
  void wait(uint32_t timeout_ms);
  void close(Error why);
  std::optional<Error> closed() const;
  PeerStatus status() const;  // without what only the transport knows

 private:
  uint64_t now_ms() { return clock_.monotonic_ns() / 1'000'000; }
  Status flush(const Write& write, bool* sent);
  Status catch_up(const CatchUpRequest& request, const Write& write);
  void take_back(const FetchedPart& part);
  Result<std::vector<Mark>> marks_before(const journal::Position& position);
  Status send_snapshot(const Write& write);
  void read_from(LogIndex index);
  void send_batches();
  Status checkpoint();

  Member& member_;
  Clock& clock_;
  SessionOptions options_;

  mutable std::mutex mutex_;  // of the members up to the next comment
  std::condition_variable changed_;
  bool woken_ = false;
  LeaderSession session_;
  uint64_t overwrites_ = 0, taken_back_ = 0;
  std::string branch_;
  std::string not_taken_back_;  // why something was not

  // Of step() alone.
  std::unique_ptr<journal::Cursor> cursor_;
  LogIndex sent_index_ = 0;
  bool unchecked_ = false;         // something was sent since the last checkpoint
  uint64_t checkpoint_at_ms_ = 0;  // of the last one
  std::optional<Moment> pending_;  // a moment ahead of what was sent; checkpoint when the sending gets there
};

}  // namespace reprise::replay

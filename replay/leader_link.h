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
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>

#include "base/clock.h"
#include "replay/difference.h"
#include "replay/member.h"
#include "replay/session.h"

namespace reprise::replay {

// How far a peer is behind what this instance has: what it has not said to have applied.
struct Lag {
  uint64_t batches = 0, operations = 0, bytes = 0;
  bool at_least = false;  // too much to count it all: operations
  uint64_t us = 0;        // since the oldest of what it has been sent and lacks was sent
};

// What a leader can say of a peer.
struct PeerStatus {
  std::string peer;        // as the transport names it
  bool connected = false;  // false: it is gone, and `ended` says why
  bool greeted = false;
  std::string name, branch;    // what it calls itself
  Tier tier = Tier::kNothing;  // of the last catch-up
  std::string reason;
  uint64_t snapshot_bytes = 0;               // estimated, when that was decided
  std::optional<uint64_t> suffix_bytes;      // likewise, if the journal had it
  std::optional<uint64_t> difference_bytes;  // likewise, if it was looked for and is at most half of both
  uint64_t sent_bytes = 0, received_bytes = 0;
  uint64_t checkpoints = 0;  // digests sent, for it to compare
  uint64_t overwrites = 0;   // snapshots sent
  uint64_t resyncs = 0;      // of which because it was out of step or too slow
  bool decided = false;      // how it is brought up to date
  bool fetching = false;     // it sends what the leader lost
  uint64_t taken_back = 0;   // batches it sent so
  journal::Vector sent, acked;
  journal::Vector synced;  // on its disk, as far as it was asked
  Lag lag;
  Timestamp connected_since;
  std::string ended;
  bool detached = false;  // it ended for good
};

// When what a peer has not acknowledged was sent. Bounded: of long lists every second entry is forgotten.
class UnackedSince {
 public:
  void sent(const journal::Vector& vector, uint64_t now_ns);
  void acked(const journal::Vector& vector);
  // Of the oldest; nothing if there is none.
  std::optional<uint64_t> oldest_ns() const;

 private:
  struct Entry {
    journal::Vector vector;
    uint64_t ns = 0;
  };
  std::deque<Entry> entries_;
};

class LeaderLink {
 public:
  // Writes all pieces to the peer or fails.
  using Write = std::function<Status(std::span<const ByteView> pieces)>;
  enum class Activity { kSent, kIdle };

  // member, clock and `kept` outlive it. Without `kept` (null) no difference is ever sent.
  LeaderLink(Member& member, Clock& clock, const SessionOptions& options, KeptTrees* kept = nullptr);

  void receive(ByteView bytes);
  // Does the next piece of work: answers, catches the peer up, sends batches, checkpoints. An error is the
  // end of the session (it was told to the peer if it can still be told).
  Result<Activity> step(const Write& write);
  // After kIdle: until there may be something to do, at most timeout_ms.
  void wait(uint32_t timeout_ms);
  void close(Error why);
  std::optional<Error> closed() const;
  // Without what only the transport knows. With `lag`, reads the journal to count what the peer lacks.
  PeerStatus status(bool with_lag = false) const;
  // Has what the peer has been sent put on its disk, once it has been sent all of `wanted`.
  void want_synced(const journal::Vector& wanted);

 private:
  uint64_t now_ms() { return clock_.monotonic_ns() / 1'000'000; }
  Status flush(const Write& write, bool* sent);
  Status catch_up(const CatchUpRequest& request, const Write& write);
  void take_back(const FetchedPart& part);
  Result<std::vector<Mark>> marks_before(const journal::Position& position);
  // `held`: sorted, what need not be sent; null: nothing.
  Status send_snapshot(const Write& write, const std::vector<uint64_t>* held);
  Status send_meanwhile(const Write& write, uint64_t& bytes);
  struct FromKept {
    Pinned base, ours;
    LogIndex from = 0;  // batches from here lead to the base
  };
  std::optional<FromKept> look_for_difference(const journal::Vector& peer, const Result<LogIndex>& suffix,
                                              CatchUpFacts& facts);
  Status send_difference(const FromKept& kept, const Write& write);
  Result<bool> send_up_to(LogIndex last, const Write& write);
  void keep_tree();
  void read_from(LogIndex index);
  void send_batches(LogIndex last = ~LogIndex{0});
  Status checkpoint();
  void ask_sync_if_wanted();
  Lag lag(const journal::Vector& acked) const;
  PeerStatus status_without_lag() const;

  Member& member_;
  Clock& clock_;
  SessionOptions options_;
  KeptTrees* kept_;

  mutable std::mutex mutex_;  // of the members up to the next comment
  std::condition_variable changed_;
  bool woken_ = false;
  LeaderSession session_;
  uint64_t overwrites_ = 0, taken_back_ = 0;
  std::string branch_;
  std::string not_taken_back_;  // why something was not
  journal::Vector giver_;       // where the peer was when it was asked for what we lack; only then set
  std::optional<journal::Vector> sync_wanted_;
  journal::Vector sync_asked_;  // for all of this it was asked already
  UnackedSince unacked_;

  // Of step() alone.
  std::unique_ptr<journal::Cursor> cursor_;
  LogIndex sent_index_ = 0;
  bool unchecked_ = false;         // something was sent since the last checkpoint
  uint64_t checkpoint_at_ms_ = 0;  // of the last one
  std::optional<Moment> pending_;  // a moment ahead of what was sent; checkpoint when the sending gets there
};

}  // namespace reprise::replay

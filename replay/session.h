// Session: the protocol between a leader and a follower, as two pure state machines. Bytes and ticks go in;
// bytes and steps to take come out. No socket, clock, thread or instance inside: links (leader_link.h,
// follower_link.h) connect them to an instance, threads (leader.h, follower.h) to a socket, and the simulator
// to neither.
//
// Only leader → follower data for now; vectors and dependencies are in the messages already, so that writers
// on both sides can come without another layout. docs/replication.md shows the exchange.
//
// Time is milliseconds on any clock that does not go backwards. Not thread-safe.
// Malformed or unexpected input closes a session: closed() says why, the last output tells the peer.
#pragma once

#include <algorithm>
#include <array>
#include <deque>
#include <optional>
#include <span>
#include <string>
#include <variant>
#include <vector>

#include "base/clock.h"
#include "base/error.h"
#include "replay/authentication.h"
#include "replay/member.h"
#include "replay/tier.h"
#include "replay/wire.h"

namespace reprise::replay {

// Batches that are sent between the pieces of a tree, for after it: a leader sends no more once they are of
// so many bytes, so they are somewhat more at most. A follower keeps them in memory, and takes twice as many.
inline constexpr uint64_t kMeanwhileBytes = 16 << 20;

struct SessionOptions {
  uint16_t min_version = kProtocolVersion, max_version = kProtocolVersion;  // of the protocol, that we speak
  uint64_t handshake_timeout_ms = 10'000;
  uint64_t heartbeat_interval_ms = 1'000;
  uint64_t silence_limit_ms = 120'000;   // a peer that says nothing whole, nor 64 KiB, for so long is gone
  uint64_t checkpoint_interval_ms = 50;  // at most one comparison of digests in this time
  uint32_t resyncs_per_minute = 3;  // overwrites beyond the first catch-up; more is no way to keep in step
  size_t group_batches = 256;       // applied at once, at most
  size_t group_bytes = 8 << 20;
  uint64_t difference_from_bytes = 256 << 10;  // what costs more by suffix or snapshot is compared
  // A follower that is overwritten says which blobs its tree has, if that is of so many bytes: it costs both
  // ends about as much work as the tree, and pays where bytes are dear.
  uint64_t offer_from_bytes = 1 << 20;
  bool offers_tree = true;
  std::string name;  // what we are called as a follower, for people; at most 64 bytes
  Token token;       // both ends must know; null: none
  Random* random = &system_random();
};

// Hysteresis: how many overwrites a peer may still have this minute.
class ResyncBudget {
 public:
  explicit ResyncBudget(uint32_t per_minute) : per_minute_(per_minute) {}
  // Takes one; false if there is none left.
  bool take(uint64_t now_ms);

 private:
  uint32_t per_minute_;
  std::deque<uint64_t> taken_ms_;
};

// What both ends have: frames in, messages out, who spoke when, whether it is over.
class Channel {
 public:
  Channel(const SessionOptions& options, uint64_t now_ms);

  void send(const Control& control);
  void send(const journal::Batch& batch);
  // Ends the session; `last` is still sent, after what is waiting.
  void close(Error why, const std::optional<Control>& last = std::nullopt);
  void close_malformed(const Error& error);
  // One message from the front of `bytes`; nothing when they are used up or the session is over.
  std::optional<Incoming> take(ByteView& bytes);
  // Ends the session when the peer has been silent for too long; `greeted`: the handshake is done.
  void tick(uint64_t now_ms, bool greeted);
  bool heartbeat_due() const;
  void limit_frames(size_t payload_bytes) { reader_.limit_payload(payload_bytes); }
  // Silence counts from now: we were busy and did not listen.
  void listen_again(uint64_t now_ms);

  // In the order in which they must be written.
  std::vector<Outgoing> take_output();
  const std::optional<Error>& closed() const { return closed_; }
  uint64_t now_ms() const { return now_ms_; }
  void set_now(uint64_t now_ms) { now_ms_ = std::max(now_ms_, now_ms); }
  uint64_t received_bytes() const { return received_bytes_; }
  uint64_t sent_bytes() const { return sent_bytes_; }
  // The header of a piece of a tree, which goes to the peer without passing through take_output: next, when
  // what that gave is written.
  std::array<std::byte, kFrameHeaderBytes> frame_tree(size_t payload_bytes);
  const SessionOptions& options() const { return options_; }

 private:
  SessionOptions options_;
  FrameReader reader_;
  std::vector<Outgoing> output_;
  std::optional<Error> closed_;
  uint64_t started_ms_, now_ms_, last_sent_ms_, last_received_ms_;
  uint64_t received_bytes_ = 0, sent_bytes_ = 0, sent_frames_ = 0;
  uint64_t unfinished_bytes_ = 0;  // since somebody was last heard
};

// --- leader

// A peer waits to be told how it will be brought up to date.
struct CatchUpRequest {
  Hello peer;                         // what it said of itself, its position moved on by what was sent since
  bool first = false;                 // of this session: nothing was decided yet
  std::optional<std::string> resync;  // it asked to be overwritten: why
  bool fetched = false;               // it was asked already for what it has more than we
};

// What a peer has sent of the batches that it was asked for.
struct FetchedPart {
  std::vector<journal::Batch> batches;
  bool complete = false;  // these are the last
  std::string missing;    // then: why it could not send them all
};

class LeaderSession {
 public:
  LeaderSession(const SessionOptions& options, VolumeId volume, std::string branch, uint64_t now_ms);

  void receive(ByteView bytes, uint64_t now_ms);
  void tick(uint64_t now_ms) { channel_.tick(now_ms, greeted_); }
  bool heartbeat_due() const { return answered_ && channel_.heartbeat_due(); }
  void heartbeat(const journal::Vector& ours) { channel_.send(Heartbeat{.vector = ours}); }

  // Set once by each hello and each request to resync; then the owner decides and calls begin_catch_up.
  std::optional<CatchUpRequest> take_request();
  // The owner noticed by itself that the stream cannot go on (trimmed): the next request is this.
  void restart(std::string reason);
  void begin_catch_up(const CatchUpDecision& decision, const Moment& ours);
  // Or, once, the owner asks the peer for what it has more than we, and takes it in parts as it comes. When
  // it is done with the last one, or wants no more of them, it says so; after the last the request comes
  // again.
  void begin_fetch(const Moment& ours);
  std::optional<FetchedPart> take_fetched();
  void end_fetch(bool complete);
  // After a catch-up by missing blobs has begun: once, the blobs that the peer has, sorted.
  std::optional<std::vector<uint64_t>> take_held();
  bool fetching() const { return fetch_ != Fetching::kNo; }
  // A catch-up was decided.
  bool decided() const { return decided_; }
  // Then, as decided: batches, or a tree and then batches.
  void send_batch(const journal::Batch& batch);
  void begin_tree(const Moment& moment, std::vector<Mark> marks);
  // See Channel.
  auto frame_tree(size_t payload_bytes) { return channel_.frame_tree(payload_bytes); }
  void end_tree(BlobId root, uint64_t bytes);
  // Or, after the batches up to the tree that it begins with: a difference, and then batches.
  void begin_difference(const Moment& moment, std::vector<Mark> marks);
  void send_piece(const journal::Batch& batch) { channel_.send(batch); }
  void end_difference(uint64_t batches) { channel_.send(DifferenceEnd{.batches = batches}); }
  // Asks that what was sent so far be put on the peer's disk; synced() says when it is.
  void ask_sync() { channel_.send(Sync{}); }
  // The position after exactly the batches sent.
  void checkpoint(const journal::Position& position);
  void close(Error why);

  std::vector<Outgoing> take_output() { return channel_.take_output(); }
  const std::optional<Error>& closed() const { return channel_.closed(); }
  bool greeted() const { return greeted_; }

  const journal::Vector& sent() const {
    return sent_;
  }  // what the peer has, once it has applied all that was sent
  const journal::Vector& acked() const { return acked_; }    // what it says it has
  const journal::Vector& synced() const { return synced_; }  // and has on its disk, as far as it was asked
  const std::string& peer_name() const { return peer_.name; }
  const CatchUpDecision& decision() const { return decision_; }
  uint64_t sent_bytes() const { return channel_.sent_bytes(); }
  uint64_t received_bytes() const { return channel_.received_bytes(); }
  uint64_t checkpoints() const { return checkpoints_; }  // sent, for the peer to compare digests
  uint64_t resyncs() const { return resyncs_; }

 private:
  enum class Fetching { kNo, kYes, kIgnoring };  // what comes is of no use: its end is waited for

  void handle(Incoming message);
  void authenticate(const Incoming& message);
  void handle_hello(const Hello& hello);
  void handle_held(const Held& held);
  void greet(const Moment& ours);
  void ask_again();

  Channel channel_;
  Authentication authentication_;
  VolumeId volume_;
  std::string branch_;
  Fetching fetch_ = Fetching::kNo;
  bool awaiting_held_ = false, held_complete_ = false;
  std::vector<uint64_t> held_;
  FetchedPart fetched_;
  bool greeted_ = false;
  bool answered_ = false, decided_ = false;
  Hello peer_;
  std::optional<CatchUpRequest> request_;
  ResyncBudget budget_;
  CatchUpDecision decision_;
  void handle_ack(const journal::Vector& vector, journal::Vector& noted);

  journal::Vector sent_, acked_, synced_;
  uint64_t resyncs_ = 0, checkpoints_ = 0;
};

// --- follower

// What a follower's owner has to do next, in this order; each is answered by done(), checked() or failed().
struct AdoptVolume {
  VolumeId volume;
};
struct ApplyGroup {
  std::vector<journal::Batch> batches;
};
struct OfferBlobs {};         // answered by offer(), then done(): a tree without these blobs follows
struct BeginTree {            // a tree's bytes follow; drop those of an unfinished one
  bool onto_offered = false;  // but not of what was offered
};
struct AddToTree {
  Bytes bytes;
};
struct InstallTree {
  BlobId root;
  journal::Position position;
  uint64_t lamport = 0;
  std::vector<Mark> marks;
};
struct BeginDifference {};  // batches follow that lead from the tree as it is then to another; as BeginTree
struct AddToDifference {
  journal::Batch batch;
};
struct InstallDifference {
  journal::Position position;
  uint64_t lamport = 0;
  std::vector<Mark> marks;
};
struct CheckPosition {};  // answered by checked() with our own position
struct SyncMember {};     // what is applied goes to the disk
// The leader wants what it lacks: after done(), send_back() for each batch, and end_send_back().
struct SendBack {
  journal::Vector leader;
};
using Step = std::variant<AdoptVolume, ApplyGroup, BeginTree, AddToTree, InstallTree, CheckPosition, SendBack,
                          SyncMember, BeginDifference, AddToDifference, InstallDifference, OfferBlobs>;

struct FollowerFacts {
  VolumeId volume;  // zero: adopts the leader's
  std::string branch;
  Moment moment;
  bool is_new = false;
  uint64_t holds = 0;  // bytes of blobs that could be offered
};

class FollowerSession {
 public:
  // `budget` outlives the session and is shared by those that follow each other.
  FollowerSession(const SessionOptions& options, const FollowerFacts& facts, ResyncBudget& budget,
                  uint64_t now_ms);

  // Take all steps before calling it again.
  void receive(ByteView bytes, uint64_t now_ms);
  void tick(uint64_t now_ms);
  void close(Error why);

  std::optional<Step> next_step();
  // The step worked; `applied` is our vector now.
  void done(const journal::Vector& applied);
  void checked(const journal::Position& ours);
  // All steps are answered; doing them may have taken long.
  void rested(uint64_t now_ms) { channel_.listen_again(now_ms); }
  // The batches that SendBack asks for, and their end: with why they are not all, if they are not.
  void send_back(const journal::Batch& batch) { channel_.send(batch); }
  void end_send_back(std::string missing);
  // The blobs that need not be sent: at most kHeldMax.
  void offer(std::span<const BlobId> blobs);
  // The step did not work. kGap, kCorrupt and kDivergence ask the leader for a snapshot; others end the
  // session.
  void failed(const Error& error);

  std::vector<Outgoing> take_output() { return channel_.take_output(); }
  const std::optional<Error>& closed() const { return channel_.closed(); }
  // Trying again would give the same answer: refused, another token, or out of step too often.
  bool hopeless() const { return hopeless_; }

  bool greeted() const { return greeted_; }
  bool caught_up() const { return caught_up_; }
  const std::optional<CatchUpDecision>& decision() const { return decision_; }
  uint64_t catch_up_bytes() const { return catch_up_bytes_; }            // received for the last catch-up
  uint64_t catch_up_operations() const { return catch_up_operations_; }  // in batches received for it
  uint64_t received_bytes() const { return channel_.received_bytes(); }
  uint64_t sent_bytes() const { return channel_.sent_bytes(); }
  const journal::Vector& leader_vector() const { return leader_vector_; }
  VolumeId leader_volume() const { return leader_volume_; }
  uint64_t checkpoints() const { return checkpoints_; }  // digests compared and found equal
  const std::optional<Error>& last_resync() const { return last_resync_; }

 private:
  enum class Expect { kHello, kCatchUp, kTreeBegin, kTree, kBatches, kDifference };

  void greet();
  void handle(Incoming message);
  void authenticate(const Control& control);
  void handle_hello(const Hello& hello);
  void handle_catch_up(const CatchUp& catch_up);
  void handle_batch(journal::Batch batch);
  void keep_for_later(journal::Batch batch);
  void end_tree(const SnapshotEnd& end);
  void handle_difference(const Control& control);
  void handle_checkpoint(const Checkpoint& checkpoint);
  void unexpected(std::string_view what);
  void resync(const Error& why);
  void note_caught_up();

  Channel channel_;
  Authentication authentication_;
  FollowerFacts facts_;
  ResyncBudget& budget_;
  Expect expect_ = Expect::kHello;
  bool greeted_ = false, caught_up_ = false, hopeless_ = false;
  bool sending_back_ = false;
  bool discarding_ = false;     // a resync was asked for: what still comes of the old stream means nothing
  bool awaiting_tree_ = false;  // a snapshot or a difference was announced and is not installed
  std::deque<Step> steps_;
  size_t under_way_ = std::variant_npos;  // index() of the step taken last, until it is answered
  size_t group_bytes_ = 0;                // of the last step, if it is an ApplyGroup
  std::deque<journal::Position> to_check_;
  std::optional<SnapshotBegin> tree_;
  uint64_t tree_bytes_ = 0, pieces_ = 0;
  std::vector<journal::Batch> meanwhile_;  // that came between the pieces of a tree
  uint64_t meanwhile_bytes_ = 0;
  std::optional<CatchUpDecision> decision_;
  journal::Vector target_, received_, applied_, leader_vector_;
  VolumeId leader_volume_;
  uint64_t catch_up_bytes_ = 0, catch_up_operations_ = 0, checkpoints_ = 0;
  std::optional<Error> last_resync_;
};

}  // namespace reprise::replay

// Wire: what lies between two instances: frames, and the control messages in some of them.
//
// A frame is a header of 24 bytes and a payload. Its kind says what the payload is: a control message
// (session.capnp), a batch exactly as its origin encoded it, or a piece of a tree. docs/replication.md has
// the layout. Pure: bytes to values and back. Bytes from outside are never trusted: sizes are checked before
// memory is taken, and memory is taken only as the bytes come.
#pragma once

#include <array>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <variant>
#include <vector>

#include "base/bytes.h"
#include "base/error.h"
#include "base/ids.h"
#include "base/mac.h"
#include "journal/batch.h"
#include "journal/position.h"
#include "replay/member.h"
#include "replay/tier.h"

namespace reprise::replay {

inline constexpr uint16_t kProtocolVersion = 0;  // may still change
inline constexpr size_t kFrameHeaderBytes = 24;
inline constexpr size_t kControlLimit = 1 << 20;    // bytes in a control message
inline constexpr size_t kTreeFrameLimit = 1 << 20;  // bytes in a piece of a tree
inline constexpr size_t kTextLimit = 1024;          // bytes in a reason; longer ones are cut when sent

enum class Role : uint8_t { kFollower, kLeader, kWriter };

struct Hello {
  uint16_t min_version = kProtocolVersion, max_version = kProtocolVersion;
  VolumeId volume;
  std::string branch;
  Role role = Role::kFollower;
  journal::Position position;
  uint64_t lamport = 0;
  bool is_new = false;
  std::string name = {};  // of a follower
  uint64_t holds = 0;     // likewise: bytes of blobs that it has
  bool offers_tree = false;
};
struct Refuse {
  Code code = Code::kDetached;
  std::string reason;
};
struct CatchUp {
  CatchUpDecision decision;
  journal::Vector target;
};
inline constexpr size_t kMarksMax = 1000;            // in one SnapshotBegin
inline constexpr size_t kMarksBytesMax = 512 << 10;  // of their names and tokens
struct SnapshotBegin {
  journal::Position position;
  uint64_t lamport = 0;
  std::vector<Mark> marks;
};
struct SnapshotEnd {
  BlobId root;
  uint64_t bytes = 0;
};
// What leads from the tree after the batches sent so far to that of `position`.
struct DifferenceBegin : SnapshotBegin {};
struct DifferenceEnd {
  uint64_t batches = 0;
};
// Blobs that a follower need not be sent: of each the lower half of its id, which is as good as its hash.
struct Held {
  std::vector<uint64_t> blobs;
  bool last = false;
};
inline constexpr size_t kHeldMax = 1 << 20;  // blobs that are named at one time
inline constexpr size_t kHeldPerMessage = 1 << 16;
struct Checkpoint {
  journal::Position position;
};
struct Ack {
  journal::Vector vector;
  uint64_t bytes = 0;
};
struct Heartbeat {
  journal::Vector vector;
};
struct Resync {
  Code code = Code::kDivergence;
  std::string reason;
};
struct Bye {
  Code code = Code::kCancelled;
  std::string reason;
};
// A leader asks for the batches that it lacks.
struct Fetch {
  journal::Vector vector;  // of the leader
};
// A follower has sent them, or says why not.
struct Fetched {
  std::string missing;  // empty: all were sent
};
// Authentication (replay/authentication.h).
struct Challenge {
  std::array<std::byte, 32> nonce{};
};
struct Proof {
  Mac mac{};
};
// A leader asks that everything sent so far be on the follower's disk.
struct Sync {};
// It is.
struct Synced {
  journal::Vector vector;
};
using Control =
    std::variant<Hello, Refuse, CatchUp, SnapshotBegin, SnapshotEnd, Checkpoint, Ack, Heartbeat, Resync, Bye,
                 Fetch, Fetched, Challenge, Proof, Sync, Synced, DifferenceBegin, DifferenceEnd, Held>;

// A piece of a tree's byte stream.
struct TreeData {
  Bytes bytes;
};

using Incoming = std::variant<Control, journal::Batch, TreeData>;

// What to send: these bytes, then the batch's message and body if there is one.
struct Outgoing {
  Bytes bytes;
  journal::Batch batch;

  size_t size() const { return bytes.size() + (batch ? batch.encoded_bytes() : 0); }
  void append_pieces(std::vector<ByteView>& pieces) const;
};

// A whole frame. kUnsupported when the message would exceed kControlLimit: a vector of more than 40,000
// origins.
Result<Bytes> encode_control(const Control& control);
// The payload of a control frame. kCorrupt.
Result<Control> decode_control(ByteView payload);
std::array<std::byte, kFrameHeaderBytes> control_frame_header(ByteView payload);
std::array<std::byte, kFrameHeaderBytes> batch_frame_header(const journal::Batch& batch);
std::array<std::byte, kFrameHeaderBytes> tree_frame_header(size_t payload_bytes);
// Each frame says how many went before it in its direction of the connection: one that was lost, came twice
// or in another's place is noticed by the next. Headers are made as those of the first.
void number_frame(std::span<std::byte> header, uint64_t frames_before);

// Puts the frames of a connection together, from its first byte on, from whatever pieces the bytes come in.
class FrameReader {
 public:
  // Takes from the front of `bytes` up to the end of one frame, at most all; a value when that completed a
  // frame. After an error the stream has no meaning any more and the reader must not be used again.
  Result<std::optional<Incoming>> take(ByteView& bytes);
  // From the next frame on none may have a larger payload, whatever its kind allows.
  void limit_payload(size_t bytes) { limit_ = bytes; }

 private:
  Status read_header();
  Result<Incoming> finish();

  std::array<std::byte, kFrameHeaderBytes> header_;
  size_t header_have_ = 0;
  uint64_t frames_ = 0;
  uint8_t kind_ = 0;
  uint32_t payload_bytes_ = 0;
  uint32_t message_bytes_ = 0;
  uint64_t checksum_ = 0;
  size_t limit_ = SIZE_MAX;
  Bytes payload_;
};

}  // namespace reprise::replay

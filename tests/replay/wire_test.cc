// Frames and control messages: back what went in, and never more than an error from bytes that are none.
#include "replay/wire.h"

#include <gtest/gtest.h>

#include <random>

#include "frames.h"
#include "link_pair.h"

namespace reprise::replay {
namespace {

journal::Position position_of(uint64_t lsn) {
  journal::Position out{.digest = {.lo = lsn, .hi = 3}};
  out.vector.set({.hi = 1, .lo = 2}, lsn);
  return out;
}

Result<std::optional<Incoming>> read(ByteView bytes) {
  FrameReader reader;
  return reader.take(bytes);
}
template <class T>
T round_trip(const T& value) {
  Bytes frame = *encode_control(value);
  Result<std::optional<Incoming>> back = read(frame);
  CHECK(back && *back);
  return std::get<T>(std::get<Control>(**back));
}

TEST(Wire, ControlMessagesComeBackAsTheyWent) {
  Hello hello = round_trip(Hello{.min_version = 1,
                                 .max_version = 9,
                                 .volume = {.hi = 5, .lo = 6},
                                 .branch = "main",
                                 .role = Role::kLeader,
                                 .position = position_of(7),
                                 .lamport = 8,
                                 .is_new = true});
  EXPECT_EQ(hello.min_version, 1);
  EXPECT_EQ(hello.max_version, 9);
  EXPECT_EQ(hello.volume, (VolumeId{.hi = 5, .lo = 6}));
  EXPECT_EQ(hello.branch, "main");
  EXPECT_EQ(hello.role, Role::kLeader);
  EXPECT_EQ(hello.position, position_of(7));
  EXPECT_EQ(hello.lamport, 8u);
  EXPECT_TRUE(hello.is_new);

  CatchUp catch_up = round_trip(CatchUp{.decision = {.tier = Tier::kSnapshot,
                                                     .estimated_bytes = 1,
                                                     .suffix_bytes = 2,
                                                     .snapshot_bytes = 3,
                                                     .reason = "why"},
                                        .target = position_of(4).vector});
  EXPECT_EQ(catch_up.decision.tier, Tier::kSnapshot);
  EXPECT_EQ(catch_up.decision.estimated_bytes, 1u);
  EXPECT_EQ(catch_up.decision.suffix_bytes, 2u);
  EXPECT_EQ(catch_up.decision.snapshot_bytes, 3u);
  EXPECT_EQ(catch_up.decision.reason, "why");
  EXPECT_EQ(catch_up.target, position_of(4).vector);

  EXPECT_EQ(round_trip(Refuse{.code = Code::kWrongVolume, .reason = "r"}).code, Code::kWrongVolume);
  EXPECT_EQ(round_trip(Resync{.code = Code::kDivergence, .reason = "r"}).reason, "r");
  EXPECT_EQ(round_trip(Bye{.code = Code::kCancelled, .reason = "b"}).code, Code::kCancelled);
  EXPECT_EQ(round_trip(SnapshotBegin{.position = position_of(1), .lamport = 2}).position, position_of(1));
  EXPECT_EQ(round_trip(SnapshotBegin{.position = position_of(1), .lamport = 2, .marks = {{"m", "r0.x"}}})
                .marks.at(0)
                .token,
            "r0.x");
  EXPECT_EQ(round_trip(SnapshotEnd{.root = {.lo = 1, .hi = 2}, .bytes = 3}).root, (BlobId{.lo = 1, .hi = 2}));
  EXPECT_EQ(round_trip(Checkpoint{.position = position_of(6)}).position, position_of(6));
  EXPECT_EQ(round_trip(Ack{.vector = position_of(6).vector, .bytes = 77}).bytes, 77u);
  EXPECT_EQ(round_trip(Heartbeat{.vector = position_of(6).vector}).vector, position_of(6).vector);
  EXPECT_EQ(round_trip(Hello{.name = "relay-1"}).name, "relay-1");
  EXPECT_EQ(round_trip(Synced{.vector = position_of(6).vector}).vector, position_of(6).vector);
  round_trip(Sync{});
  EXPECT_EQ(round_trip(Challenge{.nonce = {std::byte{1}, std::byte{2}}}).nonce[1], std::byte{2});
  EXPECT_EQ(round_trip(Proof{.mac = {std::byte{3}}}).mac[0], std::byte{3});
}

TEST(Wire, TextsOfAPeerAreMadePrintableAndShort) {
  Refuse refuse = round_trip(Refuse{.code = Code::kDetached, .reason = "\x1b[31m" + std::string(5000, 'x')});
  EXPECT_EQ(refuse.reason.find('\x1b'), std::string::npos);
  EXPECT_LE(refuse.reason.size(), 2 * kTextLimit);
}

TEST(Wire, AHeaderAloneTakesNoMemoryAndTooMuchIsRefused) {
  auto header = tree_frame_header(kTreeFrameLimit);
  EXPECT_TRUE(read(header));  // waits for more
  store_value(header.data() + 8, static_cast<uint32_t>(kTreeFrameLimit + 1));
  Result<std::optional<Incoming>> refused = read(header);
  ASSERT_FALSE(refused);
  EXPECT_NE(refused.error().message().find("1048577"), std::string::npos) << refused.error().message();
  Bytes control = *encode_control(Heartbeat{});
  store_value(control.data() + 8, static_cast<uint32_t>(kControlLimit + 8));
  EXPECT_FALSE(read(control));
}

// Control messages answer each other: one that is lost would be waited for while heartbeats come.
TEST(Wire, AFrameThatIsLostDoubledOrMovedIsNoticed) {
  Frames made;
  std::vector<Bytes> said;
  for (uint64_t lsn = 1; lsn <= 3; ++lsn) said.push_back(made.of(Heartbeat{position_of(lsn).vector}));
  auto read_all = [&](std::vector<size_t> order) -> Status {
    FrameReader reader;
    for (size_t which : order) {
      ByteView bytes(said[which]);
      TRY(reader.take(bytes));
    }
    return {};
  };
  EXPECT_TRUE(read_all({0, 1, 2}));
  for (const auto& order : {std::vector<size_t>{1}, {0, 2}, {0, 0}, {0, 1, 1}, {0, 2, 1}}) {
    Status refused = read_all(order);
    ASSERT_FALSE(refused);
    EXPECT_NE(refused.error().message().find("lost, doubled or moved"), std::string::npos);
  }
}

TEST(Wire, RefusesAVectorThatDoesNotFitAMessage) {
  Heartbeat heartbeat;
  for (uint64_t i = 1; i <= 50'000; ++i) heartbeat.vector.set({.hi = i, .lo = 1}, 1);
  Result<Bytes> frame = encode_control(heartbeat);
  ASSERT_FALSE(frame);
  EXPECT_EQ(frame.error().code(), Code::kUnsupported);
}

// Every byte of a recorded session flipped: the follower ends with an error or goes on with equal trees,
// never with others.
TEST(Wire, AFlippedBitNeverGivesADifferentTree) {
  constexpr VolumeId kVolume{.hi = 1, .lo = 1};
  MemoryMember leader(kVolume);
  leader.write_file("a", "some bytes");
  leader.write_file("b", std::string(500, 'b'));
  Bytes recorded;
  {
    MemoryMember follower(VolumeId{});
    LinkPair pair(leader, follower);
    std::mt19937 random(1);
    pair.deliver_to_leader(random, 1 << 20);
    for (int i = 0; i < 5; ++i) pair.step_leader();
    recorded = pair.to_follower();
  }
  ASSERT_GT(recorded.size(), 1000u);
  std::mt19937 random(2);
  size_t closed = 0, resyncs = 0;
  for (size_t at = 0; at < recorded.size(); ++at) {
    MemoryMember follower(VolumeId{});
    LinkPair pair(leader, follower);
    Bytes bytes = recorded;
    bytes[at] ^= static_cast<std::byte>(1u << random() % 8);
    pair.follower_link().receive(bytes);
    const FollowerSession& session = pair.session();
    closed += session.closed().has_value();
    resyncs += session.last_resync().has_value();
    if (!session.closed() && !session.last_resync() && follower.vector() == leader.vector()) {
      EXPECT_EQ(follower.recomputed_digest(), leader.recomputed_digest()) << "byte " << at;
    }
  }
  // Frames carry checksums: nearly every flip is noticed at once, one in a length leaves the reader waiting.
  EXPECT_GT(closed + resyncs, recorded.size() * 9 / 10);
}

// Frames that are well formed and hold nonsense: the reader must neither crash nor hang nor take much memory.
TEST(Wire, GarbageInFramesIsAnErrorAtMost) {
  std::mt19937 random(3);
  size_t errors = 0;
  for (int i = 0; i < 20'000; ++i) {
    Bytes payload(8 * (1 + random() % 40));
    if (random() % 2 == 0) {
      for (std::byte& b : payload) b = static_cast<std::byte>(random());
    } else {  // a real message, damaged, with its checksum made right again
      Bytes frame =
          *encode_control(CatchUp{.decision = {.reason = "reason"}, .target = position_of(3).vector});
      payload.assign(frame.begin() + kFrameHeaderBytes, frame.end());
      for (int n = 1 + random() % 4; n > 0; --n)
        payload[random() % payload.size()] = static_cast<std::byte>(random());
    }
    auto header = control_frame_header(payload);
    Bytes frame(header.begin(), header.end());
    append_bytes(frame, payload);
    errors += !read(frame);
  }
  EXPECT_GT(errors, 10'000u);
}

TEST(Wire, RandomBytesNeverOpenASession) {
  MemoryMember leader({.hi = 1, .lo = 1});
  ManualClock clock;
  std::mt19937 random(4);
  for (int i = 0; i < 2'000; ++i) {
    LeaderLink link(leader, clock, {});
    Bytes bytes(24 + random() % 200);
    for (std::byte& b : bytes) b = static_cast<std::byte>(random());
    if (random() % 2 == 0) {  // past the first check, into the rest of the header
      Bytes start = *encode_control(Heartbeat{});
      std::copy_n(start.begin(), 5, bytes.begin());
    }
    link.receive(bytes);
    EXPECT_FALSE(link.status().greeted);
  }
}

}  // namespace
}  // namespace reprise::replay

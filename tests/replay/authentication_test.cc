// Who may connect: both ends prove that they know the token, or nothing is said and nothing believed.
#include "replay/authentication.h"

#include <gtest/gtest.h>

#include "frames.h"
#include "link_pair.h"

namespace reprise::replay {
namespace {

constexpr VolumeId kVolume{.hi = 0xaaaa, .lo = 1};

Token token(const char* text) {
  return std::make_shared<const std::string>(text);
}
SessionOptions with(Token token) {
  SessionOptions options;
  options.token = std::move(token);
  return options;
}
template <class T>
T in(const Result<std::optional<Control>>& answer) {
  CHECK(answer && *answer);
  return std::get<T>(**answer);
}

struct Ends {
  explicit Ends(const char* leaders = "the secret", const char* followers = "the secret")
      : leader(Role::kLeader, token(leaders), system_random()),
        follower(Role::kFollower, token(followers), system_random()) {}
  Authentication leader, follower;
};

TEST(Authentication, BothEndsProveThatTheyKnowTheToken) {
  Ends ends;
  EXPECT_FALSE(ends.leader.begin());  // waits to be spoken to
  auto challenge = in<Challenge>(ends.leader.answer(*ends.follower.begin()));
  EXPECT_NE(challenge.nonce, std::get<Challenge>(*ends.follower.begin()).nonce);
  auto proof = in<Proof>(ends.follower.answer(challenge));
  EXPECT_FALSE(ends.leader.passed());
  auto back = in<Proof>(ends.leader.answer(proof));
  EXPECT_TRUE(ends.leader.passed());
  EXPECT_NE(back.mac, proof.mac);
  EXPECT_FALSE(ends.follower.passed());
  auto last = ends.follower.answer(back);
  EXPECT_TRUE(last && !*last);
  EXPECT_TRUE(ends.follower.passed());
}

TEST(Authentication, AnotherTokenDoesNotPass) {
  Ends ends("the secret", "the Secret");
  auto proof = in<Proof>(ends.follower.answer(*ends.leader.answer(*ends.follower.begin()).value()));
  auto refused = ends.leader.answer(proof);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code(), Code::kUnauthorised);
  EXPECT_FALSE(ends.leader.passed());
}

// What one end said, said to it, or said again, proves nothing.
TEST(Authentication, OwnProofsAndThoseOfBeforeDoNotPass) {
  Ends ends;
  auto challenge = in<Challenge>(ends.leader.answer(*ends.follower.begin()));
  auto proof = in<Proof>(ends.follower.answer(challenge));
  EXPECT_FALSE(ends.follower.answer(proof));

  Ends again;
  in<Challenge>(again.leader.answer(*ends.follower.begin()));  // the same challenge of a follower as before
  EXPECT_FALSE(again.leader.answer(proof));
  EXPECT_FALSE(again.leader.passed());
}

TEST(Authentication, TheLeaderProvesNothingToWhoHasNot) {
  Ends ends;
  in<Challenge>(ends.leader.answer(*ends.follower.begin()));
  EXPECT_FALSE(ends.leader.answer(*ends.follower.begin()));  // a second challenge
  for (const Control& early : {Control(Hello{}), Control(Ack{}), Control(Proof{})}) {
    Ends others;
    auto answer = others.leader.answer(early);
    ASSERT_FALSE(answer);
    EXPECT_FALSE(others.leader.passed());
  }
}

TEST(Authentication, ASessionBeginsBehindIt) {
  MemoryMember leader(kVolume), follower(VolumeId{});
  leader.write_file("hello", "hi");
  for (size_t piece : {size_t{1} << 20, size_t{7}}) {
    LinkPair pair(leader, follower, with(token("the secret")));
    pair.record();
    pair.run(1, piece);
    EXPECT_TRUE(pair.session().caught_up());
    for (const Bytes* said : {&pair.said_to_leader(), &pair.said_to_follower()})
      EXPECT_EQ(as_text(*said).find("the secret"), std::string_view::npos);
  }
  EXPECT_EQ(follower.read_file("hello"), "hi");
}

TEST(Authentication, WhereOnlyOneEndHasATokenNothingBegins) {
  MemoryMember leader(kVolume), follower(VolumeId{});
  leader.write_file("hello", "hi");
  struct Case {
    Token leaders, followers;
  };
  for (const Case& c : {Case{token("the secret"), nullptr}, Case{nullptr, token("the secret")},
                        Case{token("the secret"), token("another")}}) {
    LinkPair pair(leader, follower, with(c.leaders), with(c.followers));
    pair.record();
    pair.run();
    ASSERT_TRUE(pair.session().closed());
    EXPECT_EQ(pair.session().closed()->code(), Code::kUnauthorised) << pair.session().closed()->message();
    EXPECT_TRUE(pair.session().hopeless());
    EXPECT_FALSE(pair.leader_link().status().greeted);
    EXPECT_NE(pair.leader_link().status().ended.find("token"), std::string::npos)
        << pair.leader_link().status().ended;
    EXPECT_LT(pair.said_to_follower().size(), 600u);
    EXPECT_FALSE(follower.volume());
  }
}

// A stranger's frame costs no more than a greeting's worth of memory, whatever it claims.
TEST(Authentication, StrangersSendLittle) {
  MemoryMember leader(kVolume);
  ManualClock clock;
  LeaderLink link(leader, clock, with(token("the secret")));
  Heartbeat large;
  for (uint64_t i = 1; i <= 500; ++i) large.vector.set({.hi = i, .lo = 1}, 1);
  link.receive(ByteView(*encode_control(large)).first(kFrameHeaderBytes));
  ASSERT_TRUE(link.closed());
  EXPECT_NE(link.closed()->message().find("4096"), std::string::npos) << link.closed()->message();
  // Nor may one who has greeted send what only a leader sends.
  LeaderLink open(leader, clock, {});
  Frames frames;
  open.receive(frames.of(Hello{.branch = "main", .is_new = true}));
  Bytes header(kFrameHeaderBytes);
  std::ranges::copy(tree_frame_header(kTreeFrameLimit), header.begin());
  store_value(header.data() + 4, uint8_t{2});  // a batch, as large as they come
  store_value(header.data() + 8, uint32_t{64 << 20});
  open.receive(frames.numbered(header));
  ASSERT_TRUE(open.closed());
  EXPECT_NE(open.closed()->message().find("67108864"), std::string::npos) << open.closed()->message();
}

TEST(Authentication, AStrangerWhoSaysNothingMoreIsCutOff) {
  MemoryMember leader(kVolume);
  ManualClock clock;
  LeaderLink link(leader, clock, with(token("the secret")));
  link.receive(*encode_control(Challenge{}));
  clock.advance_ms(SessionOptions{}.handshake_timeout_ms - 1);
  auto write = [](std::span<const ByteView>) { return Status(); };
  EXPECT_TRUE(link.step(write));
  clock.advance_ms(2);
  EXPECT_FALSE(link.step(write));
}

}  // namespace
}  // namespace reprise::replay

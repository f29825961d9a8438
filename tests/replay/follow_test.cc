// Leader and follower with their threads, over real sockets of each kind.
#include <gtest/gtest.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <functional>
#include <thread>

#include "frames.h"
#include "memory_member.h"
#include "replay/follower.h"
#include "replay/leader.h"

namespace reprise::replay {
namespace {

constexpr VolumeId kVolume{.hi = 0xaaaa, .lo = 1};
constexpr uint32_t kPatienceMs = 20'000;

bool eventually(const std::function<bool()>& holds) {
  for (uint32_t waited_ms = 0; waited_ms < kPatienceMs; waited_ms += 2) {
    if (holds()) return true;
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
  return holds();
}

// A kind of socket, and whether there is a token.
struct Transport {
  const char* name;
  const char* host;  // of TCP; null: a Unix socket
  bool token;
  bool in_process = false;  // neither
};

class Follow : public testing::TestWithParam<Transport> {
 protected:
  void SetUp() override {
    std::string pattern = testing::TempDir() + "reprise-follow-XXXXXX";
    ASSERT_NE(mkdtemp(pattern.data()), nullptr);
    endpoint_.path = pattern + "/s";
    folder_ = pattern;
    if (const char* host = GetParam().host) {
      endpoint_ = {.kind = Endpoint::Kind::kTcp, .host = host};
      endpoint_.port = (*system_network().listen(endpoint_))->endpoint().port;  // one that is free
    }
    if (GetParam().in_process) endpoint_.kind = Endpoint::Kind::kProcess;
    if (GetParam().token) token_ = std::make_shared<const std::string>("a secret of the tests");
    for (int i = 0; i < 50; ++i) leader_.write_file("old" + std::to_string(i), std::string(2000, 'o'));
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  std::unique_ptr<Leader> lead(LeaderOptions options = {}) {
    options.session.token = token_;
    auto leader = Leader::listen(system_network(), endpoint_, leader_, system_clock(), options);
    CHECK(leader);
    return std::move(*leader);
  }
  std::unique_ptr<Follower> follow(MemoryMember& member, FollowerOptions options = {}) {
    if (!options.session.token) options.session.token = token_;
    return Follower::start(system_network(), endpoint_, member, system_clock(), options);
  }
  bool in_step(MemoryMember& member) {
    return eventually([&] { return member.vector() == leader_.vector(); }) &&
           member.recomputed_digest() == leader_.recomputed_digest();
  }

  // Who connects, and is no follower.
  std::unique_ptr<Stream> stranger() {
    auto stream = system_network().connect(endpoint_, 1000);
    CHECK(stream);
    return std::move(*stream);
  }

  // As a new follower would, to whom the leader is what it says.
  Status greet(Stream& stream) {
    said_ = Frames();
    Authentication authentication(Role::kFollower, token_, system_random());
    FrameReader reader;
    Bytes buffer(100);
    for (std::optional<Control> say = authentication.begin(); say;) {
      TRY(this->say(stream, *say));
      say.reset();
      while (!authentication.passed() && !say) {
        ByteView got = ByteView(buffer).first(TRY(stream.read(buffer, 1000)));
        while (auto message = TRY(reader.take(got)))
          say = TRY(authentication.answer(std::get<Control>(*message)));
      }
    }
    return say(stream, Hello{.branch = "main", .is_new = true});
  }
  Status say(Stream& stream, const Control& control) {
    Bytes frame = said_.of(control);
    std::vector<ByteView> pieces{frame};
    return stream.write(pieces, 1000);
  }

  std::string folder_;
  Endpoint endpoint_;
  Token token_;
  Frames said_;  // to the leader, by who is no follower
  MemoryMember leader_{kVolume};
};
INSTANTIATE_TEST_SUITE_P(Over, Follow,
                         testing::Values(Transport{"Unix", nullptr, false},
                                         Transport{"UnixToken", nullptr, true},
                                         Transport{"Tcp4", "127.0.0.1", false},
                                         Transport{"Tcp6Token", "::1", true},
                                         Transport{"Process", nullptr, false, true},
                                         Transport{"ProcessToken", nullptr, true, true}),
                         [](const auto& over) { return std::string(over.param.name); });

TEST_P(Follow, KeepsInStepLive) {
  auto leader = lead();
  MemoryMember member(VolumeId{});
  auto follower = follow(member);
  ASSERT_TRUE(follower->wait_connected(kPatienceMs));
  EXPECT_EQ(member.volume(), kVolume);
  ASSERT_TRUE(follower->wait_caught_up(kPatienceMs));
  for (int i = 0; i < 2000; ++i) leader_.write_file("live" + std::to_string(i), std::string(i % 300, 'x'));
  ASSERT_TRUE(in_step(member));
  EXPECT_TRUE(eventually([&] { return follower->status().checkpoints > 0; }));
  FollowerStatus status = follower->status();
  EXPECT_EQ(status.state, FollowerState::kLive);
  EXPECT_EQ(status.leader_volume, kVolume);
  EXPECT_EQ(status.decision->tier, Tier::kSuffix);
  EXPECT_EQ(status.overwrites, 0u);
  EXPECT_TRUE(eventually([&] { return follower->status().lag_batches == 0; }));
  EXPECT_TRUE(eventually([&] {
    std::vector<PeerStatus> peers = leader->peers();
    return peers.size() == 1 && peers[0].connected && peers[0].acked == leader_.vector();
  }));
  EXPECT_GT(leader->peers()[0].sent_bytes, 100'000u);
  bool over_tcp = endpoint_.kind == Endpoint::Kind::kTcp;
  EXPECT_NE(leader->peers()[0].peer.find(over_tcp ? endpoint_.host : "process"), std::string::npos)
      << leader->peers()[0].peer;
}

TEST_P(Follow, OverwritesOverTheSocketAndGoesOn) {
  leader_.trim_all();
  auto leader = lead();
  MemoryMember member(VolumeId{});
  auto follower = follow(member);
  for (int i = 0; i < 500; ++i) leader_.write_file("meanwhile" + std::to_string(i), "x");
  ASSERT_TRUE(follower->wait_caught_up(kPatienceMs));
  ASSERT_TRUE(in_step(member));
  EXPECT_EQ(follower->status().decision->tier, Tier::kSnapshot);
  EXPECT_EQ(member.installs(), 1u);
  EXPECT_GT(follower->status().catch_up_bytes, 0u);
  EXPECT_GT(follower->status().catch_up_us, 0u);
}

TEST_P(Follow, ServesManyAtOnce) {
  auto leader = lead();
  std::vector<std::unique_ptr<MemoryMember>> members;
  std::vector<std::unique_ptr<Follower>> followers;
  for (int i = 0; i < 8; ++i) {
    members.push_back(std::make_unique<MemoryMember>(VolumeId{}));
    followers.push_back(follow(*members.back()));
  }
  for (int i = 0; i < 300; ++i) leader_.write_file("live" + std::to_string(i), "x");
  for (auto& member : members) EXPECT_TRUE(in_step(*member));
}

TEST_P(Follow, AFollowerThatWasAwayReturnsByTheSuffix) {
  auto leader = lead();
  MemoryMember member(VolumeId{});
  auto follower = follow(member);
  ASSERT_TRUE(follower->wait_connected(kPatienceMs));
  for (int i = 0; i < 300; ++i) leader_.write_file("a" + std::to_string(i), "x");
  follower.reset();  // in the midst of it
  EXPECT_TRUE(eventually([&] { return !leader->peers().at(0).connected; }));
  EXPECT_NE(leader->peers().at(0).ended, "");
  leader_.write_file("while away", "yes");
  follower = follow(member);
  ASSERT_TRUE(follower->wait_caught_up(kPatienceMs));
  ASSERT_TRUE(in_step(member));
  EXPECT_EQ(follower->status().decision->tier, Tier::kSuffix);
  EXPECT_EQ(member.installs(), 0u);
}

TEST_P(Follow, WaitsForALeaderAndComesBackWhenItReturns) {
  MemoryMember member(VolumeId{});
  auto follower = follow(member);
  Status none = follower->wait_connected(50);
  ASSERT_FALSE(none);
  EXPECT_EQ(none.error().code(), Code::kUnreachable);
  EXPECT_NE(none.error().message().find("nobody listens there"), std::string::npos) << none.error().message();
  auto leader = lead();
  ASSERT_TRUE(follower->wait_caught_up(kPatienceMs));
  leader.reset();
  EXPECT_TRUE(eventually([&] { return follower->status().state == FollowerState::kConnecting; }));
  leader_.write_file("while alone", "yes");
  leader = lead();
  ASSERT_TRUE(follower->wait_caught_up(kPatienceMs));
  ASSERT_TRUE(in_step(member));
  EXPECT_EQ(follower->status().connections, 2u);
}

TEST_P(Follow, AnotherVolumeIsRefusedAtOnce) {
  auto leader = lead();
  MemoryMember member({.hi = 0xbbbb, .lo = 2});
  auto follower = follow(member);
  Status refused = follower->wait_connected(kPatienceMs);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code(), Code::kWrongVolume);
  EXPECT_NE(refused.error().message().find(kVolume.to_string()), std::string::npos)
      << refused.error().message();
  EXPECT_NE(refused.error().message().find(member.volume().to_string()), std::string::npos)
      << refused.error().message();
  EXPECT_EQ(follower->status().state, FollowerState::kDetached);
}

TEST_P(Follow, DivergenceIsMendedOnce) {
  auto leader = lead();
  MemoryMember member(VolumeId{});
  auto follower = follow(member);
  ASSERT_TRUE(follower->wait_caught_up(kPatienceMs));
  ASSERT_TRUE(in_step(member));
  member.corrupt_silently();
  leader_.write_file("next", "x");
  ASSERT_TRUE(eventually([&] { return member.installs() == 1; }));
  ASSERT_TRUE(eventually([&] { return follower->status().state == FollowerState::kLive; }));
  ASSERT_TRUE(in_step(member));
  EXPECT_EQ(follower->status().last_resync->code(), Code::kDivergence);
}

TEST_P(Follow, ASlowFollowerDelaysNeitherTheWriterNorOthers) {
  auto leader = lead();
  MemoryMember slow(VolumeId{}), quick(VolumeId{});
  auto slow_follower = follow(slow);
  auto quick_follower = follow(quick);
  ASSERT_TRUE(slow_follower->wait_caught_up(kPatienceMs));
  slow.set_apply_delay_ms(300);
  auto start = std::chrono::steady_clock::now();
  for (int i = 0; i < 200; ++i)
    leader_.write_file("large" + std::to_string(i), std::string(60'000, 'l'));  // 12 MB
  ASSERT_TRUE(in_step(quick));
  auto took = std::chrono::steady_clock::now() - start;
  EXPECT_NE(slow.vector(), leader_.vector()) << "the slow one was not slow enough to show anything, after "
                                             << std::chrono::duration<double>(took).count() << " s";
  slow.set_apply_delay_ms(0);
  EXPECT_TRUE(in_step(slow));
}

// A peer that greets and then never reads.
TEST_P(Follow, ADeadPeerIsCutOffAndTheWriterGoesOn) {
  LeaderOptions options;
  options.write_timeout_ms = 200;
  auto leader = lead(options);
  auto stream = stranger();
  ASSERT_TRUE(greet(*stream));
  for (int i = 0; i < 400; ++i)
    leader_.write_file("large" + std::to_string(i), std::string(60'000, 'l'));  // 24 MB
  ASSERT_TRUE(eventually([&] {
    auto peers = leader->peers();
    return peers.size() == 1 && !peers[0].connected;
  }));
  EXPECT_NE(leader->peers()[0].ended.find("took no bytes for 200 ms"), std::string::npos)
      << leader->peers()[0].ended;
}

TEST_P(Follow, StrangersDoNotDisturb) {
  auto leader = lead();
  for (int i = 0; i < 20; ++i) {
    auto stream = stranger();
    std::vector<ByteView> pieces{as_bytes("GET / HTTP/1.0\r\n\r\n and so on")};
    ASSERT_TRUE(stream->write(pieces, 1000));
  }
  MemoryMember member(VolumeId{});
  auto follower = follow(member);
  EXPECT_TRUE(follower->wait_caught_up(kPatienceMs));
}

TEST_P(Follow, StrangersThatSayNothingMakeRoomForOthers) {
  LeaderOptions options;
  options.strangers_max = 4;
  auto leader = lead(options);
  std::vector<std::unique_ptr<Stream>> silent;
  for (int i = 0; i < 50; ++i) silent.push_back(stranger());
  MemoryMember member(VolumeId{});
  auto follower = follow(member);
  EXPECT_TRUE(follower->wait_caught_up(kPatienceMs));
  Bytes buffer(4096);
  // The first of them has been told to go, the last may still greet.
  EXPECT_TRUE(eventually([&] {
    auto n = silent.front()->read(buffer, 10);
    return n && *n == 0;
  }));
  EXPECT_EQ(silent.back()->read(buffer, 10).error().code(), Code::kTimeout);
  EXPECT_TRUE(eventually([&] {
    size_t connected = 0;
    for (const PeerStatus& peer : leader->peers()) connected += peer.connected;
    return connected <= options.strangers_max + 1;
  }));
}

TEST_P(Follow, AnotherTokenIsRefusedAtOnce) {
  auto leader = lead();
  MemoryMember member(VolumeId{});
  FollowerOptions options;
  options.session.token = std::make_shared<const std::string>("another secret");
  auto follower = follow(member, options);
  Status refused = follower->wait_connected(kPatienceMs);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code(), Code::kUnauthorised) << refused.error().message();
  EXPECT_NE(refused.error().message().find("token"), std::string::npos) << refused.error().message();
  EXPECT_EQ(follower->status().state, FollowerState::kDetached);
  EXPECT_FALSE(member.volume());
}

TEST_P(Follow, StoppingIsPromptWhateverGoesOn) {
  auto leader = lead();
  MemoryMember member(VolumeId{}), lonely(VolumeId{});
  auto follower = follow(member);
  ASSERT_TRUE(follower->wait_caught_up(kPatienceMs));
  auto stuck = stranger();  // never says a word
  auto start = std::chrono::steady_clock::now();
  leader->stop();
  follower->stop();
  auto took = std::chrono::steady_clock::now() - start;
  EXPECT_LT(took, std::chrono::seconds(2));
  EXPECT_EQ(follower->status().state, FollowerState::kStopped);
  EXPECT_EQ(system_network().connect(endpoint_, 1000).error().code(), Code::kUnreachable);
  Status after = follower->wait_connected(kPatienceMs);
  ASSERT_FALSE(after);
  EXPECT_EQ(after.error().code(), Code::kCancelled);
}

// A network whose streams come from elsewhere.
class FarNetwork final : public Network {
 public:
  class FarStream final : public Stream {
   public:
    explicit FarStream(std::unique_ptr<Stream> stream) : stream_(std::move(stream)) {}
    Result<size_t> read(ByteSpan into, uint32_t timeout_ms) override {
      return stream_->read(into, timeout_ms);
    }
    Status write(std::span<const ByteView> pieces, uint32_t timeout_ms) override {
      return stream_->write(pieces, timeout_ms);
    }
    void shut_down() override { stream_->shut_down(); }
    const std::string& peer() const override { return stream_->peer(); }
    bool is_local() const override { return false; }

   private:
    std::unique_ptr<Stream> stream_;
  };
  Result<std::unique_ptr<Listener>> listen(const Endpoint& endpoint) override {
    return system_network().listen(endpoint);
  }
  Result<std::unique_ptr<Stream>> connect(const Endpoint& endpoint, uint32_t timeout_ms) override {
    return std::make_unique<FarStream>(TRY(system_network().connect(endpoint, timeout_ms)));
  }
};

TEST(FollowFar, OtherMachinesAreRefusedWithoutAToken) {
  MemoryMember leading(kVolume), following(VolumeId{});
  Endpoint everywhere{.kind = Endpoint::Kind::kTcp, .host = "0.0.0.0"};
  auto refused = Leader::listen(system_network(), everywhere, leading, system_clock());
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code(), Code::kUnauthorised);
  EXPECT_NE(refused.error().message().find("expected a token"), std::string::npos)
      << refused.error().message();
  Token token = std::make_shared<const std::string>("a secret of the tests");
  auto leader =
      *Leader::listen(system_network(), everywhere, leading, system_clock(), {.session = {.token = token}});

  FarNetwork far;
  Endpoint endpoint{.kind = Endpoint::Kind::kTcp, .host = "127.0.0.1", .port = leader->endpoint().port};
  {
    auto follower = Follower::start(far, endpoint, following, system_clock());
    Status connected = follower->wait_connected(kPatienceMs);
    ASSERT_FALSE(connected);
    EXPECT_EQ(connected.error().code(), Code::kUnauthorised);
    EXPECT_NE(connected.error().message().find("expected a token"), std::string::npos)
        << connected.error().message();
  }
  auto follower = Follower::start(far, endpoint, following, system_clock(), {.session = {.token = token}});
  EXPECT_TRUE(follower->wait_caught_up(kPatienceMs));
}

}  // namespace
}  // namespace reprise::replay

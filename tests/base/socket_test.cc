// Sockets of the host: what a name means, who may listen, how waiting ends.
#include "base/socket.h"

#include <gtest/gtest.h>
#include <netdb.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <fstream>
#include <thread>

namespace reprise {
namespace {

class Socket : public testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = testing::TempDir() + "reprise-socket-XXXXXX";
    ASSERT_NE(mkdtemp(pattern.data()), nullptr);
    folder_ = pattern;
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }
  Endpoint at(const std::string& name) const { return {.path = folder_ + "/" + name}; }

  std::string folder_;
};

// What every kind of them does.
class AnySocket : public Socket, public testing::WithParamInterface<const char*> {
 protected:
  void SetUp() override {
    Socket::SetUp();
    std::string kind = GetParam();
    Endpoint endpoint = at("s");
    if (kind == "process")
      endpoint.kind = Endpoint::Kind::kProcess;
    else if (kind != "unix")
      endpoint = {.kind = Endpoint::Kind::kTcp, .host = kind};
    auto listener = system_network().listen(endpoint);
    ASSERT_TRUE(listener) << listener.error().message();
    listener_ = std::move(*listener);
    endpoint_ = listener_->endpoint();
  }
  std::unique_ptr<Stream> connect() {
    auto stream = system_network().connect(endpoint_, 1000);
    EXPECT_TRUE(stream) << stream.error().message();
    return std::move(*stream);
  }

  std::unique_ptr<Listener> listener_;
  Endpoint endpoint_;
};
INSTANTIATE_TEST_SUITE_P(Kinds, AnySocket,
                         testing::Values("unix", "127.0.0.1", "::1", "localhost", "process"),
                         [](const auto& kind) { return "Kind" + std::to_string(kind.index); });

bool there(const Endpoint& endpoint) {
  return access(endpoint.path.c_str(), F_OK) == 0;
}

TEST(Endpoint, ReadsWhatPeopleWrite) {
  EXPECT_EQ(Endpoint::parse("unix:/tmp/s.sock")->path, "/tmp/s.sock");
  EXPECT_EQ(Endpoint::parse("unix:relative")->to_string(), "unix:relative");
  EXPECT_EQ(Endpoint::parse("unix:").error().code(), Code::kInvalidArgument);
  EXPECT_EQ(Endpoint::parse("process:a name")->to_string(), "process:a name");
  EXPECT_EQ(Endpoint::parse("process:").error().code(), Code::kInvalidArgument);
  EXPECT_EQ(Endpoint::parse("").error().code(), Code::kInvalidArgument);
  EXPECT_EQ(Endpoint::parse("udp:localhost:1").error().code(), Code::kInvalidArgument);
  for (const char* good : {"tcp:localhost:1", "tcp:127.0.0.1:65535", "tcp:[::1]:80", "tcp:[fe80::1%eth0]:80"})
    EXPECT_EQ(Endpoint::parse(good)->to_string(), good);
  EXPECT_EQ(Endpoint::parse("tcp:[::1]:80")->host, "::1");
  EXPECT_EQ(Endpoint::parse("tcp:[::1]:80")->port, 80);
  for (const char* wrong :
       {"tcp:", "tcp:1", "tcp:host:", "tcp:host:0", "tcp:host:65536", "tcp:host:-1", "tcp::1", "tcp:::1:80",
        "tcp:[]:80", "tcp:[::1:80", "tcp:a b:80", "tcp:host:80x", "tcp:host: 80"})
    EXPECT_EQ(Endpoint::parse(wrong).error().code(), Code::kInvalidArgument) << wrong;
}

TEST_P(AnySocket, CarriesBytesBothWaysAndSaysWhenTheOtherSideIsGone) {
  auto client = connect();
  auto server = *listener_->accept();
  std::vector<ByteView> pieces{as_bytes("one "), as_bytes(""), as_bytes("two")};
  ASSERT_TRUE(client->write(pieces, 1000));
  Bytes buffer(100);
  ASSERT_EQ(*server->read(buffer, 1000), 7u);
  EXPECT_EQ(as_text(ByteView(buffer).first(7)), "one two");
  client.reset();
  EXPECT_EQ(*server->read(buffer, 1000), 0u);
}

TEST_P(AnySocket, MovesMoreThanTheKernelHoldsAndManyPieces) {
  auto client = connect();
  auto server = *listener_->accept();
  std::vector<std::string> texts;
  size_t total = 0;
  for (int i = 0; i < 500; ++i)
    texts.push_back(std::string(1 + i * 97 % 30'000, static_cast<char>('a' + i % 26)));
  std::vector<ByteView> pieces;
  std::string all;
  for (const std::string& text : texts) pieces.push_back(as_bytes(text)), total += text.size(), all += text;
  std::thread writer([&] { EXPECT_TRUE(client->write(pieces, 5000)); });
  std::string got;
  Bytes buffer(10'000);
  while (got.size() < total) {
    Result<size_t> n = server->read(buffer, 5000);
    ASSERT_TRUE(n && *n > 0);
    got += as_text(ByteView(buffer).first(*n));
  }
  writer.join();
  EXPECT_EQ(got, all);
}

TEST_P(AnySocket, WaitsNoLongerThanTold) {
  auto client = connect();
  auto server = *listener_->accept();
  Bytes buffer(10);
  EXPECT_EQ(client->read(buffer, 20).error().code(), Code::kTimeout);
  Bytes large(16 << 20);
  std::vector<ByteView> pieces{large};
  EXPECT_EQ(client->write(pieces, 20).error().code(), Code::kTimeout);
}

TEST_P(AnySocket, ShuttingDownWakesWhoWaits) {
  auto client = connect();
  auto server = *listener_->accept();
  std::thread reader([&] {
    Bytes buffer(10);
    EXPECT_EQ(client->read(buffer, 60'000).error().code(), Code::kCancelled);
  });
  std::thread acceptor([&] { EXPECT_EQ(listener_->accept().error().code(), Code::kCancelled); });
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  client->shut_down();
  listener_->close();
  reader.join();
  acceptor.join();
  EXPECT_FALSE(there(at("s")));
  EXPECT_EQ(system_network().connect(endpoint_, 1000).error().code(), Code::kUnreachable);
}

TEST_P(AnySocket, ALiveSocketIsBusyAndItsListenerUndisturbed) {
  auto second = system_network().listen(endpoint_);
  ASSERT_FALSE(second);
  EXPECT_EQ(second.error().code(), Code::kBusy);
  EXPECT_NE(second.error().message().find("somebody listens there"), std::string::npos);
  EXPECT_TRUE(system_network().connect(endpoint_, 1000));
}

TEST_P(AnySocket, ThisMachinesOwnAreKnownToBe) {
  auto client = connect();
  auto server = *listener_->accept();
  EXPECT_TRUE(listener_->is_local() && client->is_local() && server->is_local());
}

// As after a leader's end, whose connections are not quite over for the kernel.
TEST_P(AnySocket, WhoListenedHereMayListenAgainAtOnce) {
  auto client = connect();
  auto server = *listener_->accept();
  server.reset();  // the first to close
  listener_.reset();
  auto again = system_network().listen(endpoint_);
  EXPECT_TRUE(again) << again.error().message();
}

TEST_F(Socket, ASocketLeftByAKilledProcessIsReplaced) {
  // A socket file that nobody listens on is what a killed listener leaves.
  int fd = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  at("s").path.copy(address.sun_path, sizeof address.sun_path - 1);
  ASSERT_EQ(::bind(fd, reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
  ::close(fd);
  ASSERT_TRUE(there(at("s")));
  EXPECT_EQ(system_network().connect(at("s"), 100).error().code(), Code::kUnreachable);
  auto listener = system_network().listen(at("s"));
  ASSERT_TRUE(listener) << listener.error().message();
  EXPECT_TRUE(system_network().connect(at("s"), 1000));
}

TEST_F(Socket, AnotherKindOfFileIsLeftAlone) {
  std::ofstream(at("s").path) << "precious";
  auto listener = system_network().listen(at("s"));
  ASSERT_FALSE(listener);
  EXPECT_EQ(listener.error().code(), Code::kAlreadyExists);
  EXPECT_TRUE(there(at("s")));
  EXPECT_EQ(system_network().connect(at("s"), 100).error().code(), Code::kUnreachable);
}

TEST_F(Socket, NobodyThereIsUnreachable) {
  EXPECT_EQ(system_network().connect(at("nothing"), 100).error().code(), Code::kUnreachable);
  EXPECT_EQ(system_network().listen(at("no/folder/s")).error().code(), Code::kNotFound);
}

TEST_F(Socket, AHostIsFoundByEachOfItsAddresses) {
  auto listener = *system_network().listen({.kind = Endpoint::Kind::kTcp, .host = "localhost"});
  EXPECT_NE(listener->endpoint().port, 0);
  addrinfo hints{}, *found = nullptr;
  hints.ai_socktype = SOCK_STREAM;
  ASSERT_EQ(::getaddrinfo("localhost", nullptr, &hints, &found), 0);
  for (addrinfo* at = found; at != nullptr; at = at->ai_next) {
    char host[NI_MAXHOST];
    ASSERT_EQ(::getnameinfo(at->ai_addr, at->ai_addrlen, host, sizeof host, nullptr, 0, NI_NUMERICHOST), 0);
    Endpoint endpoint{.kind = Endpoint::Kind::kTcp, .host = host, .port = listener->endpoint().port};
    EXPECT_TRUE(system_network().connect(endpoint, 1000)) << host;
  }
  ::freeaddrinfo(found);
}

TEST_F(Socket, OtherMachinesAreToldFromThisOne) {
  auto listener = *system_network().listen({.kind = Endpoint::Kind::kTcp, .host = "0.0.0.0"});
  EXPECT_FALSE(listener->is_local());
  Endpoint loopback{.kind = Endpoint::Kind::kTcp, .host = "127.0.0.1", .port = listener->endpoint().port};
  auto client = *system_network().connect(loopback, 1000);
  EXPECT_TRUE(client->is_local());
  EXPECT_TRUE((*listener->accept())->is_local());
  EXPECT_NE(client->peer(), "");
}

TEST_F(Socket, HostsThatAreNone) {
  Endpoint nowhere{.kind = Endpoint::Kind::kTcp, .host = "no such host", .port = 1};
  EXPECT_EQ(system_network().listen(nowhere).error().code(), Code::kNotFound);
  EXPECT_EQ(system_network().connect(nowhere, 100).error().code(), Code::kUnreachable);
  Endpoint foreign{.kind = Endpoint::Kind::kTcp, .host = "192.0.2.1", .port = 1};  // for examples (RFC 5737)
  EXPECT_EQ(system_network().listen(foreign).error().code(), Code::kInvalidArgument);
}

TEST_F(Socket, PathsMayBeLongerThanAnAddress) {
  std::string folder = std::string(90, 'd') + "/" + std::string(90, 'e');
  std::filesystem::create_directories(folder_ + "/" + folder);
  Endpoint endpoint = at(folder + "/s");
  auto listener = system_network().listen(endpoint);
  ASSERT_TRUE(listener) << listener.error().message();
  EXPECT_TRUE(system_network().connect(endpoint, 1000));
  EXPECT_EQ(system_network().listen(endpoint).error().code(), Code::kBusy);
  listener->reset();
  EXPECT_FALSE(there(endpoint));
  EXPECT_EQ(system_network().listen(at(std::string(150, 'x'))).error().code(), Code::kInvalidArgument);
}

}  // namespace
}  // namespace reprise

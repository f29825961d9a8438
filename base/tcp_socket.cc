// TCP over IPv4 and IPv6.
#include <arpa/inet.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>

#include "base/socket_stream.h"

namespace reprise {
namespace {

constexpr int kBacklog = 64;

// Of a family that the kernel says; as people write it.
struct Address {
  sockaddr_storage storage{};
  socklen_t size = sizeof(sockaddr_storage);

  const sockaddr* get() const { return reinterpret_cast<const sockaddr*>(&storage); }
  sockaddr* get() { return reinterpret_cast<sockaddr*>(&storage); }
  in_port_t& port() {
    return storage.ss_family == AF_INET6 ? reinterpret_cast<sockaddr_in6*>(&storage)->sin6_port
                                         : reinterpret_cast<sockaddr_in*>(&storage)->sin_port;
  }
  bool operator==(const Address& other) const {
    return size == other.size && std::memcmp(&storage, &other.storage, size) == 0;
  }

  bool is_loopback() const {
    constexpr uint32_t kLoopbackNet = 127;
    if (storage.ss_family == AF_INET)
      return ntohl(reinterpret_cast<const sockaddr_in*>(&storage)->sin_addr.s_addr) >> 24 == kLoopbackNet;
    if (storage.ss_family != AF_INET6) return false;
    const in6_addr& address = reinterpret_cast<const sockaddr_in6*>(&storage)->sin6_addr;
    if (IN6_IS_ADDR_V4MAPPED(&address)) return address.s6_addr[12] == kLoopbackNet;
    return IN6_IS_ADDR_LOOPBACK(&address);
  }

  Endpoint endpoint() const {
    char host[NI_MAXHOST] = "?", port[NI_MAXSERV] = "0";
    // Numbers only: fails for no address that the kernel gives.
    ::getnameinfo(get(), size, host, sizeof host, port, sizeof port, NI_NUMERICHOST | NI_NUMERICSERV);
    return {.kind = Endpoint::Kind::kTcp, .host = host, .port = static_cast<uint16_t>(std::stoul(port))};
  }
};

Address local_address(int fd) {
  Address out;
  if (::getsockname(fd, out.get(), &out.size) != 0) out.size = 0;
  return out;
}
Address peer_address(int fd) {
  Address out;
  if (::getpeername(fd, out.get(), &out.size) != 0) out.size = 0;
  return out;
}

// All addresses that the host's name stands for. Takes as long as the host's resolver does, unless the name
// is an address.
Result<std::vector<Address>> resolve(const Endpoint& endpoint, bool to_listen) {
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_NUMERICSERV | (to_listen ? AI_PASSIVE : 0);
  addrinfo* found = nullptr;
  int error = ::getaddrinfo(endpoint.host.c_str(), fmt::format("{}", endpoint.port).c_str(), &hints, &found);
  if (error != 0) {
    return fail(to_listen ? Code::kNotFound : Code::kUnreachable,
                fmt::format("{}: cannot find the host: {}", endpoint.to_string(), ::gai_strerror(error)));
  }
  std::vector<Address> out;
  for (addrinfo* at = found; at != nullptr; at = at->ai_next) {
    Address address;
    std::memcpy(&address.storage, at->ai_addr, at->ai_addrlen);
    address.size = at->ai_addrlen;
    if (std::ranges::find(out, address) == out.end()) out.push_back(address);
  }
  ::freeaddrinfo(found);
  return out;
}

Result<Descriptor> open_socket(const Address& address, const std::string& name) {
  Descriptor fd(::socket(address.storage.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!fd) return socket_failed(name, "make a socket");
  return fd;
}

// Messages are written whole: nothing is gained by waiting for more of them.
void send_at_once(int fd) {
  int on = 1;
  ::setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);  // best effort
}

class TcpListener final : public SocketListener {
 public:
  TcpListener(std::vector<Descriptor> fds, Descriptor wake, const Endpoint& endpoint, bool is_local)
      : SocketListener(std::move(fds), std::move(wake), endpoint), is_local_(is_local) {}
  ~TcpListener() override { close(); }

  bool is_local() const override { return is_local_; }

 private:
  std::unique_ptr<Stream> connected(Descriptor fd) override {
    send_at_once(fd.get());
    Address peer = peer_address(fd.get());
    bool local = peer.is_loopback() && local_address(fd.get()).is_loopback();
    std::string name = peer.size != 0 ? peer.endpoint().to_string() : endpoint().to_string();
    return std::make_unique<SocketStream>(std::move(fd), std::move(name), local);
  }

  bool is_local_;
};

Result<Descriptor> listen_on(const Address& address, const std::string& name) {
  Descriptor fd = TRY(open_socket(address, name));
  int on = 1;
  // Connections of one that listened here before may not be quite over yet. Not for two at once.
  ::setsockopt(fd.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  if (address.storage.ss_family == AF_INET6)
    ::setsockopt(fd.get(), IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof on);  // IPv4 has a socket of its own
  if (::bind(fd.get(), address.get(), address.size) != 0 || ::listen(fd.get(), kBacklog) != 0) {
    if (errno == EADDRINUSE) return fail(Code::kBusy, name + ": somebody listens there already");
    if (errno == EADDRNOTAVAIL)
      return fail(Code::kInvalidArgument, name + ": expected an address of this machine");
    return socket_failed(name, "listen");
  }
  return fd;
}

// One attempt; kUnreachable and kTimeout are worth another.
Result<std::unique_ptr<Stream>> connect_to(const Address& address, const std::string& name,
                                           uint32_t timeout_ms) {
  auto nobody = [&] {
    return std::unexpected(Error(Code::kUnreachable, name + ": nobody listens there", ECONNREFUSED));
  };
  Descriptor fd = TRY(open_socket(address, name));
  int error = ::connect(fd.get(), address.get(), address.size) == 0 ? 0 : errno;
  if (error == EINPROGRESS || error == EINTR) {
    if (!TRY(wait_for_socket(fd.get(), POLLOUT, timeout_ms, name)))
      return fail(Code::kTimeout, fmt::format("{}: did not answer within {} ms", name, timeout_ms));
    socklen_t size = sizeof error;
    if (::getsockopt(fd.get(), SOL_SOCKET, SO_ERROR, &error, &size) != 0)
      return socket_failed(name, "connect");
  }
  if (error != 0) {
    if (error == ECONNREFUSED) return nobody();
    bool away = error == EHOSTUNREACH || error == ENETUNREACH || error == ETIMEDOUT || error == ECONNRESET;
    Error why = Error::from_errno(error, name + ": cannot connect");
    return std::unexpected(away ? Error(Code::kUnreachable, why.message(), error) : std::move(why));
  }
  Address local = local_address(fd.get());
  // A port that nobody listens on may be given to the very socket that tries to reach it, which then talks to
  // itself.
  if (local == peer_address(fd.get())) return nobody();
  send_at_once(fd.get());
  bool is_local = address.is_loopback() && local.is_loopback();
  return std::make_unique<SocketStream>(std::move(fd), name, is_local);
}

}  // namespace

Result<std::unique_ptr<Listener>> listen_tcp(const Endpoint& endpoint) {
  std::string name = endpoint.to_string();
  std::vector<Address> addresses = TRY(resolve(endpoint, true));
  Endpoint actual = endpoint;
  std::vector<Descriptor> fds;
  bool is_local = true;
  for (Address& address : addresses) {
    address.port() = htons(actual.port);
    fds.push_back(TRY(listen_on(address, name)));
    is_local = is_local && address.is_loopback();
    // Port 0 is whichever is free: then the same for all.
    if (actual.port == 0) actual.port = ntohs(local_address(fds.back().get()).port());
  }
  return std::make_unique<TcpListener>(std::move(fds), TRY(make_wake(name)), actual, is_local);
}

Result<std::unique_ptr<Stream>> connect_tcp(const Endpoint& endpoint, uint32_t timeout_ms) {
  std::string name = endpoint.to_string();
  std::vector<Address> addresses = TRY(resolve(endpoint, false));
  auto begin = std::chrono::steady_clock::now();
  Result<std::unique_ptr<Stream>> last = fail(Code::kUnreachable, name + ": no such host");
  for (const Address& address : addresses) {
    auto passed = std::chrono::steady_clock::now() - begin;
    auto passed_ms = std::chrono::duration_cast<std::chrono::milliseconds>(passed).count();
    if (passed_ms > timeout_ms) break;
    last = connect_to(address, name, timeout_ms - static_cast<uint32_t>(passed_ms));
    bool another =
        !last && (last.error().code() == Code::kUnreachable || last.error().code() == Code::kTimeout);
    if (!another) break;
  }
  return last;
}

}  // namespace reprise

// The host's own network: Unix stream sockets, non-blocking underneath, waited for with poll(2).
#include "base/socket.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <thread>
#include <utility>

#include "base/descriptor.h"

namespace reprise {
namespace {

constexpr int kBacklog = 64;
constexpr int kBufferBytes = 1 << 20;  // asked of the kernel, for bulk transfer; it may give less
constexpr size_t kPiecesAtOnce = 64;

std::unexpected<Error> failed(std::string_view name, std::string_view doing) {
  int code = errno;
  return std::unexpected(Error::from_errno(code, fmt::format("{}: cannot {}", name, doing)));
}

// False on timeout.
Result<bool> wait_for(int fd, short events, uint32_t timeout_ms, const std::string& name) {
  pollfd entry{.fd = fd, .events = events, .revents = 0};
  for (;;) {
    int ready = ::poll(&entry, 1, static_cast<int>(std::min<uint32_t>(timeout_ms, INT32_MAX)));
    if (ready > 0) return true;
    if (ready == 0) return false;
    if (errno != EINTR) return failed(name, "wait");
  }
}

class HostStream final : public Stream {
 public:
  HostStream(Descriptor fd, std::string peer) : fd_(std::move(fd)), peer_(std::move(peer)) {}

  Result<size_t> read(ByteSpan into, uint32_t timeout_ms) override {
    for (;;) {
      if (shut_down_.load()) return cancelled();
      ssize_t n = ::recv(fd_.get(), into.data(), into.size(), 0);
      if (n > 0) return static_cast<size_t>(n);
      if (n == 0) {
        if (shut_down_.load()) return cancelled();
        return size_t{0};
      }
      if (errno == EINTR) continue;
      if (errno == ECONNRESET) return size_t{0};  // a killed peer is a closed one
      if (errno != EAGAIN && errno != EWOULDBLOCK) return failed(peer_, "read");
      if (!TRY(wait_for(fd_.get(), POLLIN, timeout_ms, peer_)))
        return fail(Code::kTimeout, fmt::format("{}: nothing received for {} ms", peer_, timeout_ms));
    }
  }

  Status write(std::span<const ByteView> pieces, uint32_t timeout_ms) override {
    size_t skip = 0;  // bytes of pieces.front() that have gone
    while (!pieces.empty()) {
      if (shut_down_.load()) return cancelled();
      ssize_t n = send_some(pieces, skip);
      if (n < 0 && errno == EINTR) continue;
      if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
        if (!TRY(wait_for(fd_.get(), POLLOUT, timeout_ms, peer_)))
          return fail(Code::kTimeout, fmt::format("{}: took no bytes for {} ms", peer_, timeout_ms));
        continue;
      }
      if (n < 0) return shut_down_.load() ? Status(cancelled()) : Status(failed(peer_, "write"));
      skip += static_cast<size_t>(n);
      while (!pieces.empty() && skip >= pieces.front().size()) {
        skip -= pieces.front().size();
        pieces = pieces.subspan(1);
      }
    }
    return {};
  }

  void shut_down() override {
    shut_down_.store(true);
    ::shutdown(fd_.get(), SHUT_RDWR);  // fails only when the other side is gone already
  }
  const std::string& peer() const override { return peer_; }

 private:
  std::unexpected<Error> cancelled() const {
    return fail(Code::kCancelled, peer_ + ": the stream was shut down");
  }

  ssize_t send_some(std::span<const ByteView> pieces, size_t skip) {
    std::array<iovec, kPiecesAtOnce> vector;
    size_t count = std::min(pieces.size(), vector.size());
    for (size_t i = 0; i < count; ++i) {
      ByteView piece = i == 0 ? pieces[i].subspan(skip) : pieces[i];
      vector[i] = {.iov_base = const_cast<std::byte*>(piece.data()), .iov_len = piece.size()};
    }
    msghdr message{};
    message.msg_iov = vector.data();
    message.msg_iovlen = count;
    return ::sendmsg(fd_.get(), &message, MSG_NOSIGNAL);
  }

  Descriptor fd_;
  std::string peer_;
  std::atomic<bool> shut_down_{false};
};

// A socket's address holds 107 bytes of path. A longer one is reached through a descriptor of its directory.
struct UnixAddress {
  sockaddr_un address{};
  Descriptor directory;  // keeps the address valid

  static Result<UnixAddress> of(const std::string& path) {
    UnixAddress out;
    std::string shown = path;
    if (path.size() >= sizeof out.address.sun_path) {
      size_t slash = path.find_last_of('/');
      std::string folder = slash == std::string::npos ? "." : path.substr(0, slash + 1);
      out.directory = Descriptor(::open(folder.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
      if (!out.directory) return failed("unix:" + path, "open its directory");
      shown = fmt::format("/proc/self/fd/{}/{}", out.directory.get(), path.substr(slash + 1));
    }
    if (shown.size() >= sizeof out.address.sun_path)
      return fail(Code::kInvalidArgument,
                  fmt::format("unix:{}: the name of the socket is longer than 80 bytes", path));
    out.address.sun_family = AF_UNIX;
    shown.copy(out.address.sun_path, shown.size());
    return out;
  }
  const sockaddr* get() const { return reinterpret_cast<const sockaddr*>(&address); }
};

Result<Descriptor> open_socket(const std::string& name) {
  Descriptor fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!fd) return failed(name, "make a socket");
  return fd;
}

void enlarge_buffers(int fd) {
  // Best effort: a smaller buffer is slower, not wrong.
  ::setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &kBufferBytes, sizeof kBufferBytes);
  ::setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &kBufferBytes, sizeof kBufferBytes);
}

class HostListener final : public Listener {
 public:
  HostListener(Descriptor fd, Descriptor wake, Endpoint endpoint, struct stat made)
      : fd_(std::move(fd)), wake_(std::move(wake)), endpoint_(std::move(endpoint)), made_(made) {}
  ~HostListener() override { close(); }

  Result<std::unique_ptr<Stream>> accept() override {
    std::string name = endpoint_.to_string();
    for (;;) {
      if (closed_.load()) return fail(Code::kCancelled, name + ": no longer listening");
      Descriptor peer(::accept4(fd_.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
      if (peer) return connected(std::move(peer));
      if (errno == EINTR || errno == ECONNABORTED) continue;
      if (errno != EAGAIN && errno != EWOULDBLOCK) return failed(name, "accept a connection");
      std::array<pollfd, 2> entries{pollfd{.fd = fd_.get(), .events = POLLIN},
                                    pollfd{.fd = wake_.get(), .events = POLLIN}};
      if (::poll(entries.data(), entries.size(), -1) < 0 && errno != EINTR) return failed(name, "wait");
    }
  }

  void close() override {
    if (closed_.exchange(true)) return;
    uint64_t one = 1;
    // Fails only when its counter is full, and then whoever waits is awake.
    [[maybe_unused]] ssize_t written = ::write(wake_.get(), &one, sizeof one);
    // Only our own file: somebody may have replaced it after it was removed by hand.
    struct stat now;
    if (::lstat(endpoint_.path.c_str(), &now) == 0 && now.st_ino == made_.st_ino &&
        now.st_dev == made_.st_dev)
      ::unlink(endpoint_.path.c_str());
    ::shutdown(fd_.get(), SHUT_RDWR);  // refuses who is still in the backlog
  }

 private:
  Result<std::unique_ptr<Stream>> connected(Descriptor fd) {
    enlarge_buffers(fd.get());
    ucred credentials{};
    socklen_t size = sizeof credentials;
    std::string peer = endpoint_.to_string();
    if (::getsockopt(fd.get(), SOL_SOCKET, SO_PEERCRED, &credentials, &size) == 0)
      peer = fmt::format("{} (process {})", peer, credentials.pid);
    return std::make_unique<HostStream>(std::move(fd), std::move(peer));
  }

  Descriptor fd_, wake_;
  Endpoint endpoint_;
  struct stat made_;
  std::atomic<bool> closed_{false};
};

enum class Occupant { kNobody, kStale, kAlive, kOther };

// What is at the path where a socket shall be made.
Result<Occupant> occupant_of(const Endpoint& endpoint, const UnixAddress& address) {
  struct stat st;
  if (::lstat(endpoint.path.c_str(), &st) != 0) {
    if (errno == ENOENT) return Occupant::kNobody;
    return failed(endpoint.to_string(), "look at it");
  }
  if (!S_ISSOCK(st.st_mode)) return Occupant::kOther;
  Descriptor probe = TRY(open_socket(endpoint.to_string()));
  if (::connect(probe.get(), address.get(), sizeof address.address) == 0) return Occupant::kAlive;
  if (errno == ECONNREFUSED) return Occupant::kStale;
  if (errno == ENOENT) return Occupant::kNobody;
  return Occupant::kAlive;  // EAGAIN: its backlog is full; EACCES: somebody else's
}

class HostNetwork final : public Network {
 public:
  Result<std::unique_ptr<Listener>> listen(const Endpoint& endpoint) override {
    std::string name = endpoint.to_string();
    UnixAddress address = TRY(UnixAddress::of(endpoint.path));
    switch (TRY(occupant_of(endpoint, address))) {
      case Occupant::kNobody:
        break;
      case Occupant::kAlive:
        return fail(Code::kBusy, name + ": somebody listens there already");
      case Occupant::kOther:
        return fail(Code::kAlreadyExists,
                    name + ": expected no file or an unused socket there, found another kind of file");
      case Occupant::kStale:
        if (::unlink(endpoint.path.c_str()) != 0 && errno != ENOENT)
          return failed(name, "replace the unused socket");
    }
    Descriptor fd = TRY(open_socket(name));
    if (::bind(fd.get(), address.get(), sizeof address.address) != 0) {
      if (errno == EADDRINUSE) return fail(Code::kBusy, name + ": somebody else began to listen there");
      return failed(name, "make the socket");
    }
    struct stat made;
    if (::lstat(endpoint.path.c_str(), &made) != 0) return failed(name, "look at the new socket");
    if (::listen(fd.get(), kBacklog) != 0) return failed(name, "listen");
    Descriptor wake(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
    if (!wake) return failed(name, "make an event");
    return std::make_unique<HostListener>(std::move(fd), std::move(wake), endpoint, made);
  }

  Result<std::unique_ptr<Stream>> connect(const Endpoint& endpoint, uint32_t timeout_ms) override {
    std::string name = endpoint.to_string();
    UnixAddress address = TRY(UnixAddress::of(endpoint.path));
    auto deadline = std::chrono::steady_clock::now() + std::chrono::milliseconds(timeout_ms);
    for (;;) {
      Descriptor fd = TRY(open_socket(name));
      if (::connect(fd.get(), address.get(), sizeof address.address) == 0) {
        enlarge_buffers(fd.get());
        return std::make_unique<HostStream>(std::move(fd), name);
      }
      if (errno == ENOENT || errno == ECONNREFUSED)
        return fail(Code::kUnreachable, name + ": nobody listens there");
      if (errno != EAGAIN && errno != EINTR) return failed(name, "connect");
      if (std::chrono::steady_clock::now() >= deadline)
        return fail(Code::kTimeout, fmt::format("{}: did not accept within {} ms", name, timeout_ms));
      std::this_thread::sleep_for(std::chrono::milliseconds(2));  // the listener's backlog is full
    }
  }
};

}  // namespace

Result<Endpoint> Endpoint::parse(std::string_view text) {
  constexpr std::string_view kUnixPrefix = "unix:";
  if (!text.starts_with(kUnixPrefix))
    return fail(Code::kUnsupported, fmt::format("endpoint \"{}\": expected unix:PATH", printable(text)));
  Endpoint out{.kind = Kind::kUnix, .path = std::string(text.substr(kUnixPrefix.size()))};
  if (out.path.empty() || out.path.find('\0') != std::string::npos)
    return fail(Code::kInvalidArgument,
                fmt::format("endpoint \"{}\": expected a path after unix:", printable(text)));
  return out;
}

std::string Endpoint::to_string() const {
  return "unix:" + path;
}

Network& system_network() {
  static HostNetwork network;
  return network;
}

}  // namespace reprise

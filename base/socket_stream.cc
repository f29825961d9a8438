#include "base/socket_stream.h"

#include <fmt/format.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>

namespace reprise {
namespace {

constexpr size_t kPiecesAtOnce = 64;

}  // namespace

std::unexpected<Error> socket_failed(std::string_view name, std::string_view doing) {
  int code = errno;
  return std::unexpected(Error::from_errno(code, fmt::format("{}: cannot {}", name, doing)));
}

Result<bool> wait_for_socket(int fd, short events, uint32_t timeout_ms, const std::string& name) {
  pollfd entry{.fd = fd, .events = events, .revents = 0};
  for (;;) {
    int ready = ::poll(&entry, 1, static_cast<int>(std::min<uint32_t>(timeout_ms, INT32_MAX)));
    if (ready > 0) return true;
    if (ready == 0) return false;
    if (errno != EINTR) return socket_failed(name, "wait");
  }
}

Result<size_t> SocketStream::read(ByteSpan into, uint32_t timeout_ms) {
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
    if (errno != EAGAIN && errno != EWOULDBLOCK) return socket_failed(peer_, "read");
    if (!TRY(wait_for_socket(fd_.get(), POLLIN, timeout_ms, peer_)))
      return fail(Code::kTimeout, fmt::format("{}: nothing received for {} ms", peer_, timeout_ms));
  }
}

Status SocketStream::write(std::span<const ByteView> pieces, uint32_t timeout_ms) {
  size_t skip = 0;  // bytes of pieces.front() that have gone
  while (!pieces.empty()) {
    if (shut_down_.load()) return cancelled();
    ssize_t n = send_some(pieces, skip);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
      if (!TRY(wait_for_socket(fd_.get(), POLLOUT, timeout_ms, peer_)))
        return fail(Code::kTimeout, fmt::format("{}: took no bytes for {} ms", peer_, timeout_ms));
      continue;
    }
    if (n < 0) return shut_down_.load() ? Status(cancelled()) : Status(socket_failed(peer_, "write"));
    skip += static_cast<size_t>(n);
    while (!pieces.empty() && skip >= pieces.front().size()) {
      skip -= pieces.front().size();
      pieces = pieces.subspan(1);
    }
  }
  return {};
}

void SocketStream::shut_down() {
  shut_down_.store(true);
  ::shutdown(fd_.get(), SHUT_RDWR);  // fails only when the other side is gone already
}

std::unexpected<Error> SocketStream::cancelled() const {
  return fail(Code::kCancelled, peer_ + ": the stream was shut down");
}

ssize_t SocketStream::send_some(std::span<const ByteView> pieces, size_t skip) {
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

Result<std::unique_ptr<Stream>> SocketListener::accept() {
  std::string name = endpoint_.to_string();
  std::vector<pollfd> entries{pollfd{.fd = wake_.get(), .events = POLLIN}};
  for (const Descriptor& fd : fds_) entries.push_back({.fd = fd.get(), .events = POLLIN});
  for (;;) {
    if (closed_.load()) return fail(Code::kCancelled, name + ": no longer listening");
    for (const Descriptor& fd : fds_) {
      Descriptor peer(::accept4(fd.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
      if (peer) return connected(std::move(peer));
      // The connection was gone before it was taken; the next round takes what follows it.
      if (errno == EINTR || errno == ECONNABORTED || errno == EAGAIN || errno == EWOULDBLOCK) continue;
      if (closed_.load()) break;  // EINVAL of a socket that was shut down
      return socket_failed(name, "accept a connection");
    }
    if (!closed_.load() && ::poll(entries.data(), entries.size(), -1) < 0 && errno != EINTR)
      return socket_failed(name, "wait");
  }
}

void SocketListener::close() {
  if (closed_.exchange(true)) return;
  uint64_t one = 1;
  // Fails only when its counter is full, and then whoever waits is awake.
  [[maybe_unused]] ssize_t written = ::write(wake_.get(), &one, sizeof one);
  give_up_endpoint();
  for (const Descriptor& fd : fds_) ::shutdown(fd.get(), SHUT_RDWR);  // refuses who is still in the backlog
}

Result<Descriptor> make_wake(const std::string& name) {
  Descriptor wake(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!wake) return socket_failed(name, "make an event");
  return wake;
}

}  // namespace reprise

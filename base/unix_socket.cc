// Unix stream sockets.
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <thread>

#include "base/socket_stream.h"

namespace reprise {
namespace {

constexpr int kBacklog = 64;
constexpr int kBufferBytes = 1 << 20;  // asked of the kernel, for bulk transfer; it may give less

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
      if (!out.directory) return socket_failed("unix:" + path, "open its directory");
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
  if (!fd) return socket_failed(name, "make a socket");
  return fd;
}

void enlarge_buffers(int fd) {
  // Best effort: a smaller buffer is slower, not wrong.
  ::setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &kBufferBytes, sizeof kBufferBytes);
  ::setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &kBufferBytes, sizeof kBufferBytes);
}

class UnixListener final : public SocketListener {
 public:
  UnixListener(std::vector<Descriptor> fds, Descriptor wake, const Endpoint& endpoint,
               const struct stat& made)
      : SocketListener(std::move(fds), std::move(wake), endpoint), made_(made) {}
  ~UnixListener() override { close(); }

  bool is_local() const override { return true; }

 private:
  std::unique_ptr<Stream> connected(Descriptor fd) override {
    enlarge_buffers(fd.get());
    ucred credentials{};
    socklen_t size = sizeof credentials;
    std::string peer = endpoint().to_string();
    if (::getsockopt(fd.get(), SOL_SOCKET, SO_PEERCRED, &credentials, &size) == 0)
      peer = fmt::format("{} (process {})", peer, credentials.pid);
    return std::make_unique<SocketStream>(std::move(fd), std::move(peer), true);
  }

  // Only our own file: somebody may have replaced it after it was removed by hand.
  void give_up_endpoint() override {
    struct stat now;
    const char* path = endpoint().path.c_str();
    if (::lstat(path, &now) == 0 && now.st_ino == made_.st_ino && now.st_dev == made_.st_dev) ::unlink(path);
  }

  struct stat made_;
};

enum class Occupant { kNobody, kStale, kAlive, kOther };

// What is at the path where a socket shall be made.
Result<Occupant> occupant_of(const Endpoint& endpoint, const UnixAddress& address) {
  struct stat st;
  if (::lstat(endpoint.path.c_str(), &st) != 0) {
    if (errno == ENOENT) return Occupant::kNobody;
    return socket_failed(endpoint.to_string(), "look at it");
  }
  if (!S_ISSOCK(st.st_mode)) return Occupant::kOther;
  Descriptor probe = TRY(open_socket(endpoint.to_string()));
  if (::connect(probe.get(), address.get(), sizeof address.address) == 0) return Occupant::kAlive;
  if (errno == ECONNREFUSED) return Occupant::kStale;
  if (errno == ENOENT) return Occupant::kNobody;
  return Occupant::kAlive;  // EAGAIN: its backlog is full; EACCES: somebody else's
}

}  // namespace

Result<std::unique_ptr<Listener>> listen_unix(const Endpoint& endpoint) {
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
        return socket_failed(name, "replace the unused socket");
  }
  Descriptor fd = TRY(open_socket(name));
  if (::bind(fd.get(), address.get(), sizeof address.address) != 0) {
    if (errno == EADDRINUSE) return fail(Code::kBusy, name + ": somebody else began to listen there");
    return socket_failed(name, "make the socket");
  }
  struct stat made;
  if (::lstat(endpoint.path.c_str(), &made) != 0) return socket_failed(name, "look at the new socket");
  if (::listen(fd.get(), kBacklog) != 0) return socket_failed(name, "listen");
  std::vector<Descriptor> fds;
  fds.push_back(std::move(fd));
  return std::make_unique<UnixListener>(std::move(fds), TRY(make_wake(name)), endpoint, made);
}

Result<std::unique_ptr<Stream>> connect_unix(const Endpoint& endpoint, uint32_t timeout_ms) {
  std::string name = endpoint.to_string();
  UnixAddress address = TRY(UnixAddress::of(endpoint.path));
  auto deadline = std::chrono::steady_clock::now() + std::chrono::milliseconds(timeout_ms);
  for (;;) {
    Descriptor fd = TRY(open_socket(name));
    if (::connect(fd.get(), address.get(), sizeof address.address) == 0) {
      enlarge_buffers(fd.get());
      return std::make_unique<SocketStream>(std::move(fd), name, true);
    }
    if (errno == ENOENT || errno == ECONNREFUSED)
      return std::unexpected(Error(Code::kUnreachable, name + ": nobody listens there", ECONNREFUSED));
    if (errno != EAGAIN && errno != EINTR) return socket_failed(name, "connect");
    if (std::chrono::steady_clock::now() >= deadline)
      return fail(Code::kTimeout, fmt::format("{}: did not accept within {} ms", name, timeout_ms));
    std::this_thread::sleep_for(std::chrono::milliseconds(2));  // the listener's backlog is full
  }
}

}  // namespace reprise

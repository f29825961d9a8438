// Connections within one process: pairs of connected sockets, which need no place in the filesystem and that
// nobody else can reach.
#include <fmt/format.h>
#include <sys/socket.h>

#include <condition_variable>
#include <deque>
#include <map>
#include <mutex>

#include "base/socket_stream.h"

namespace reprise {
namespace {

constexpr size_t kBacklog = 64;

class ProcessListener;

// Who listens in this process. Its mutex comes before a listener's.
struct Listeners {
  std::mutex mutex;
  std::map<std::string, ProcessListener*, std::less<>> by_name;
};

Listeners& listeners() {
  static Listeners all;
  return all;
}

class ProcessListener final : public Listener {
 public:
  explicit ProcessListener(Endpoint endpoint) : endpoint_(std::move(endpoint)) {}
  ~ProcessListener() override { close(); }

  Result<std::unique_ptr<Stream>> accept() override {
    std::unique_lock lock(mutex_);
    arrived_.wait(lock, [&] { return closed_ || !waiting_.empty(); });
    if (closed_) return fail(Code::kCancelled, endpoint_.to_string() + ": no longer listening");
    Descriptor fd = std::move(waiting_.front());
    waiting_.pop_front();
    return std::make_unique<SocketStream>(std::move(fd), endpoint_.to_string(), true);
  }
  void close() override {
    std::lock_guard all(listeners().mutex);
    std::lock_guard lock(mutex_);
    if (!closed_) listeners().by_name.erase(endpoint_.path);
    closed_ = true;
    waiting_.clear();
    arrived_.notify_all();
  }
  const Endpoint& endpoint() const override { return endpoint_; }
  bool is_local() const override { return true; }

  // False if too many wait already.
  bool take(Descriptor fd) {
    std::lock_guard lock(mutex_);
    if (waiting_.size() >= kBacklog) return false;
    waiting_.push_back(std::move(fd));
    arrived_.notify_one();
    return true;
  }

 private:
  const Endpoint endpoint_;
  std::mutex mutex_;
  std::condition_variable arrived_;
  std::deque<Descriptor> waiting_;
  bool closed_ = false;
};

}  // namespace

Result<std::unique_ptr<Listener>> listen_in_process(const Endpoint& endpoint) {
  std::lock_guard lock(listeners().mutex);
  auto [at, is_new] = listeners().by_name.try_emplace(endpoint.path, nullptr);
  if (!is_new) return fail(Code::kBusy, endpoint.to_string() + ": somebody listens there already");
  auto listener = std::make_unique<ProcessListener>(endpoint);
  at->second = listener.get();
  return listener;
}

Result<std::unique_ptr<Stream>> connect_in_process(const Endpoint& endpoint) {
  const std::string name = endpoint.to_string();
  int fds[2];
  if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds) != 0)
    return socket_failed(name, "make a pair of sockets");
  Descriptor here(fds[0]), there(fds[1]);
  std::lock_guard lock(listeners().mutex);
  auto found = listeners().by_name.find(endpoint.path);
  if (found == listeners().by_name.end())
    return fail(Code::kUnreachable, name + ": nobody listens there, in this process");
  if (!found->second->take(std::move(there)))
    return fail(Code::kUnreachable, fmt::format("{}: {} connections wait already", name, kBacklog));
  return std::make_unique<SocketStream>(std::move(here), name, true);
}

}  // namespace reprise

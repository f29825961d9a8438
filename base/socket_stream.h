// What the host's kinds of sockets have in common, behind base/socket.h: a descriptor, a stream over one, and
// who accepts on some. Non-blocking underneath, waited for with poll(2). For unix_socket.cc and
// tcp_socket.cc.
#pragma once

#include <atomic>
#include <string>
#include <vector>

#include "base/descriptor.h"
#include "base/socket.h"

namespace reprise {

// Of errno: "NAME: cannot DOING: …".
std::unexpected<Error> socket_failed(std::string_view name, std::string_view doing);
// False on timeout.
Result<bool> wait_for_socket(int fd, short events, uint32_t timeout_ms, const std::string& name);

class SocketStream final : public Stream {
 public:
  SocketStream(Descriptor fd, std::string peer, bool is_local)
      : fd_(std::move(fd)), peer_(std::move(peer)), is_local_(is_local) {}

  Result<size_t> read(ByteSpan into, uint32_t timeout_ms) override;
  Status write(std::span<const ByteView> pieces, uint32_t timeout_ms) override;
  void shut_down() override;
  const std::string& peer() const override { return peer_; }
  bool is_local() const override { return is_local_; }

 private:
  std::unexpected<Error> cancelled() const;
  ssize_t send_some(std::span<const ByteView> pieces, size_t skip);

  Descriptor fd_;
  std::string peer_;
  bool is_local_;
  std::atomic<bool> shut_down_{false};
};

// Accepts on one or more sockets that listen. What a kind of socket does besides is its subclass's, which
// calls close() in its destructor.
class SocketListener : public Listener {
 public:
  SocketListener(std::vector<Descriptor> fds, Descriptor wake, Endpoint endpoint)
      : fds_(std::move(fds)), wake_(std::move(wake)), endpoint_(std::move(endpoint)) {}

  Result<std::unique_ptr<Stream>> accept() final;
  void close() final;
  const Endpoint& endpoint() const final { return endpoint_; }

 protected:
  virtual std::unique_ptr<Stream> connected(Descriptor fd) = 0;
  virtual void give_up_endpoint() {}

 private:
  std::vector<Descriptor> fds_;
  Descriptor wake_;
  Endpoint endpoint_;
  std::atomic<bool> closed_{false};
};

// What wakes a listener that waits.
Result<Descriptor> make_wake(const std::string& name);

Result<std::unique_ptr<Listener>> listen_unix(const Endpoint& endpoint);
Result<std::unique_ptr<Stream>> connect_unix(const Endpoint& endpoint, uint32_t timeout_ms);
Result<std::unique_ptr<Listener>> listen_in_process(const Endpoint& endpoint);
Result<std::unique_ptr<Stream>> connect_in_process(const Endpoint& endpoint);
Result<std::unique_ptr<Listener>> listen_tcp(const Endpoint& endpoint);
Result<std::unique_ptr<Stream>> connect_tcp(const Endpoint& endpoint, uint32_t timeout_ms);

}  // namespace reprise

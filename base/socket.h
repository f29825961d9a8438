// Streams between processes, behind an interface so that a simulator can put its own network here.
//
// An Endpoint is where somebody listens, as people write it: "unix:PATH", "tcp:HOST:PORT", or within one
// process "process:NAME". A Stream is a
// connected, ordered, reliable pair of byte streams; what the bytes mean is for replay/ to say. Nothing here
// retries: a caller that wants to try again does so.
//
// Threads: one reader and one writer at a time per Stream, which may be two threads; shut_down() and close()
// from any.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "base/bytes.h"
#include "base/error.h"

namespace reprise {

struct Endpoint {
  enum class Kind { kUnix, kTcp, kProcess };
  Kind kind = Kind::kUnix;
  std::string path = {};  // of a Unix socket; in a process a name, of any bytes
  std::string host = {};  // of TCP: a name or an address
  uint16_t port = 0;      // of TCP; to listen, 0 is any that is free

  // "unix:PATH", "process:NAME", "tcp:HOST:PORT" or "tcp:[ADDRESS]:PORT"; kInvalidArgument says what is wrong
  // with it, kUnsupported for a kind this build does not know.
  static Result<Endpoint> parse(std::string_view text);
  std::string to_string() const;
  bool operator==(const Endpoint&) const = default;
};

class Stream {
 public:
  virtual ~Stream() = default;  // closes
  // Waits for bytes and reads 1 to into.size() of them; 0 when the other side has closed. kTimeout when
  // nothing came within timeout_ms, kCancelled after shut_down().
  virtual Result<size_t> read(ByteSpan into, uint32_t timeout_ms) = 0;
  // Writes all pieces, in order. kTimeout when the other side took nothing for timeout_ms: the stream is then
  // useless, as nobody knows how much of the pieces has gone.
  virtual Status write(std::span<const ByteView> pieces, uint32_t timeout_ms) = 0;
  // Ends both directions at once; a read or write that waits returns.
  virtual void shut_down() = 0;
  // Who is at the other end, for messages.
  virtual const std::string& peer() const = 0;
  // Do both ends lie on this machine for certain: a Unix socket, this process, or loopback?
  virtual bool is_local() const = 0;
};

class Listener {
 public:
  virtual ~Listener() = default;  // closes
  // Waits for the next connection. kCancelled after close().
  virtual Result<std::unique_ptr<Stream>> accept() = 0;
  // Stops listening and gives up the endpoint; an accept() that waits returns.
  virtual void close() = 0;
  // Where it listens; with the port, if that was free to choose.
  virtual const Endpoint& endpoint() const = 0;
  // Can only this machine's own programs connect?
  virtual bool is_local() const = 0;
};

class Network {
 public:
  virtual ~Network() = default;
  // On all addresses that a TCP host's name stands for; kNotFound and kInvalidArgument for one that is not
  // this machine's. kBusy when somebody listens there already. A socket file that nobody listens on any more
  // (its process was killed) is replaced; any other file at that path is left alone: kAlreadyExists.
  virtual Result<std::unique_ptr<Listener>> listen(const Endpoint& endpoint) = 0;
  // kUnreachable when nobody listens there, kTimeout. To find a host by its name may take longer than that.
  virtual Result<std::unique_ptr<Stream>> connect(const Endpoint& endpoint, uint32_t timeout_ms) = 0;
};

// The machine's own; lives as long as the process.
Network& system_network();

}  // namespace reprise

// Control: how another process asks a live instance something: a Unix socket in its store, one question and
// one answer a connection, both a length (u32) and JSON. Who may open the store's folder may ask; answers
// come from a handler. An answer may be told in parts before it ends, at the pace of who asked: each part
// waits until he asks for more.
//
// Threads: the handler is called on a thread per connection. stop() (or destruction) returns when all have
// ended; a handler that waits looks at `stopping` meanwhile.
#pragma once

#include <atomic>
#include <functional>
#include <list>
#include <memory>
#include <mutex>
#include <nlohmann/json.hpp>
#include <string>
#include <thread>

#include "base/error.h"
#include "base/socket.h"

namespace reprise::instance {

using Json = nlohmann::json;

class ControlServer {
 public:
  // Sends a part, and waits until more is asked for. An error: nobody listens any more.
  using Say = std::function<Status(const Json& part)>;
  using Handler =
      std::function<Result<Json>(const Json& question, const std::atomic<bool>& stopping, const Say& say)>;

  static Result<std::unique_ptr<ControlServer>> listen(Network& network, const std::string& path,
                                                       Handler handler);
  ~ControlServer();
  void stop();

 private:
  struct Connection {
    std::unique_ptr<Stream> stream;
    std::thread thread;
    std::atomic<bool> done{false};
  };
  ControlServer(std::unique_ptr<Listener> listener, Handler handler);
  void accept_all();
  void answer(Stream& stream);
  void reap(bool all);

  std::unique_ptr<Listener> listener_;
  Handler handler_;
  std::atomic<bool> stopping_{false};
  std::mutex mutex_;  // connections_
  std::list<Connection> connections_;
  std::thread acceptor_;
};

// Asks and waits for the answer, at most timeout_ms. kUnreachable when no live instance listens at path; an
// error that the handler gave comes back as it was. Parts of an answer go to `take`, which may end it all;
// timeout_ms is for each.
using TakePart = std::function<Status(const Json& part)>;
Result<Json> ask(Network& network, const std::string& path, const Json& question, uint32_t timeout_ms,
                 const TakePart& take = nullptr);

}  // namespace reprise::instance

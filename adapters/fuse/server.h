// Server: answers a kernel's FUSE requests from one Filesystem, on threads of its own.
//
// The mount itself is made elsewhere (mount.h): a Server gets the descriptor of an open, mounted FUSE device.
// It is stateless as far as descriptors go: the kernel opens, closes and locks by itself and sends neither
// OPEN, RELEASE nor FLUSH; a node id is an InodeId; what the kernel knows is pinned (lookup_table.h). The
// kernel checks permissions (default_permissions) and keeps names, attributes and bytes for an hour: what
// changes behind its back goes through coherence(). Writes go through at once; advisory locks are the
// kernel's.
//
// Ownership: `filesystem` and `clock` outlive it; it owns the descriptor. Threads: start, stop and the
// destructor from the one thread that owns it, the rest from any.
//
//   auto server = TRY(Server::start(filesystem, system_clock(), fd, {.on_fsync = [&] { return
//   instance.sync(); }})); … server->stop();
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "adapters/fuse/owners.h"
#include "adapters/fuse/request_counts.h"
#include "base/clock.h"
#include "base/error.h"
#include "fs/filesystem.h"
#include "instance/coherence.h"

namespace reprise::fuse {

struct ServerOptions {
  size_t workers = 4;
  double cache_timeout_s = 3600;     // of names (also absent ones) and attributes
  std::optional<Owner> show_all_as;  // Owners
  std::string label;                 // recorded with every operation
  // Called by fsync(2) and fdatasync(2): returns when all that was acknowledged before is on the disk. Null:
  // nothing to do.
  std::function<Status()> on_fsync;
};

class Server {
 public:
  // Takes fd over, also on failure.
  static Result<std::unique_ptr<Server>> start(fs::Filesystem& filesystem, Clock& clock, int fd,
                                               ServerOptions options);
  ~Server();
  Server(const Server&) = delete;
  Server& operator=(const Server&) = delete;

  // Ends all workers and closes the descriptor. Whoever still uses the mount gets ENOTCONN. Safe to call
  // again.
  void stop();
  // Returns when all is answered that the kernel had asked when it was called, what it writes back in the
  // background included: syncfs(2) does not wait for that everywhere. False if there was more and more for
  // `timeout_ms`. From any thread but a worker; until stop().
  bool drain(uint64_t timeout_ms);
  // The kernel has ended the connection: no mount is left.
  bool unmounted() const;

  const RequestCounts& requests() const;
  // Until stop().
  instance::CoherenceHook& coherence();

  class Session;

 private:
  explicit Server(std::unique_ptr<Session> session);
  std::unique_ptr<Session> session_;
};

}  // namespace reprise::fuse

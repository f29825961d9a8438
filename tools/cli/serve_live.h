// What `run`, `mount` and `serve` have in common: an instance that is live in this process, for `run` and
// `mount` served to a mount. How the mount is made, and what happens in it, is theirs. Threads: all from the
// one that runs the command.
#pragma once

#include <signal.h>
#include <sys/types.h>

#include <functional>
#include <optional>
#include <string>

#include "adapters/fuse/server.h"
#include "instance/host.h"
#include "tools/cli/command.h"
#include "tools/cli/target.h"

namespace reprise::cli {

struct LiveOptions {
  std::string store, listen, follow, name, token_file, label,
      durability = "fsync", journal_limit, journal_age, store_limit, snapshots, snapshot_age, volume_size,
      volume_inodes, memory;
  double await_followers_s = 3;
  bool hydrate = false;
};

// --listen, --await-followers, --follow, --name, --token-file, --label, --durability, and what is kept:
// --journal-limit, --journal-age, --store-limit, --snapshots and --snapshot-age; --volume-size and
// --volume-inodes; --hydrate and --memory.
void add_live_options(Command& command, LiveOptions& options);

// The branch of the store; `option` is what the user calls it in errors.
Result<Target> live_target(const std::string& store, const std::string& option);
// Is the mountpoint apart from the store? Mounting over the store would hide it, from this process too.
Status check_apart(const Target& target, const std::string& mountpoint);
// `command_line` is what others are told who want the branch meanwhile.
Result<instance::HostOptions> host_options(const LiveOptions& options, const Target& target,
                                           const std::string& command_line);

// STORE or STORE:BRANCH with a full path, as programs in the mount find it in REPRISE_STORE.
std::string full_name(const Target& target);

struct ServedMount {
  int fuse_fd = -1;                  // of the mounted device; serve_live closes it
  std::optional<fuse::Owner> owner;  // whom everything is shown to belong to
  std::string path;
  pid_t seen_by = 0;  // a process that has the mount
};

// Opens the instance, serves the mount, meets the leader if there is one, and lets `body` do what it is all
// for; its exit status. A store made for nothing goes again. The signals that ask to end must be blocked: one
// that comes before `body` begins ends it all, with 128 + its number.
Result<int> serve_live(const instance::HostOptions& settings, ServedMount mount,
                       const std::function<int(fuse::Server&)>& body);

// The same without a mount: connects, and lets `body` do what it is all for.
Result<int> serve_alone(const instance::HostOptions& settings,
                        const std::function<int(instance::Host&)>& body);

// Has the kernel write back what is only in its caches (shared mappings). The mount is seen through the eyes
// of a process that has it; if that is gone, nothing is done.
Status sync_mount(pid_t seen_by, const std::string& path);
// How long the requests may take that come of that (fuse::Server::drain), once nobody should ask for more.
inline constexpr uint64_t kDrain_ms = 5000;
inline constexpr const char* kStillWriting =
    "the kernel was still writing back what was changed through mappings; some of that may be missing";

// SIGINT, SIGTERM, SIGHUP and SIGQUIT.
sigset_t signals_that_end();

}  // namespace reprise::cli

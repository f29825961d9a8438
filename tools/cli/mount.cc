// mount: an instance that everybody sees, for as long as this command runs.
#include <fmt/format.h>
#include <signal.h>
#include <unistd.h>

#include "adapters/fuse/public_mount.h"
#include "tools/cli/command.h"
#include "tools/cli/serve_live.h"

namespace reprise::cli {
namespace {

struct Options {
  LiveOptions live;
  std::string path;
};

// Until a signal, or until somebody unmounts.
void wait_for_end(const fuse::Server& server) {
  sigset_t signals = signals_that_end();
  timespec interval{.tv_sec = 0, .tv_nsec = 100'000'000};
  while (!server.unmounted() && ::sigtimedwait(&signals, nullptr, &interval) < 0) {
  }
}

Result<int> mount(const Options& options) {
  Target target = TRY(live_target(options.live.store, "STORE"));
  instance::HostOptions settings =
      TRY(host_options(options.live, target, "reprise mount " + options.live.store + " " + options.path));
  TRY(check_apart(target, options.path));
  sigset_t signals = signals_that_end();
  ::pthread_sigmask(SIG_BLOCK, &signals, nullptr);

  auto mount = TRY(fuse::PublicMount::make(options.path, settings.follow.has_value()));
  std::string mount_path = mount->mountpoint();
  ServedMount served{
      .fuse_fd = mount->take_fuse_fd(), .owner = mount->owner(), .path = mount_path, .seen_by = getpid()};
  return serve_live(settings, std::move(served), [&](fuse::Server& server) {
    fmt::print("{} is mounted at {}\n", target.store, options.path);
    std::fflush(stdout);
    wait_for_end(server);
    if (server.unmounted()) return kDone;
    // What is only in the kernel's caches is written while somebody is there to take it.
    auto written = sync_mount(getpid(), mount_path);
    if (!server.drain(kDrain_ms)) complain(kStillWriting);
    auto unmounted = mount->unmount();
    for (const Status& status : {written, unmounted}) {
      if (!status) complain(status.error().message());
    }
    return written && unmounted ? kDone : kFailed;
  });
}

}  // namespace

void add_mount(Command& reprise) {
  auto options = std::make_shared<Options>();
  Command command = reprise.subcommand(
      "mount", "Mount an instance where everybody can see it, until this command gets a signal or `umount`");
  command.required("store", options->live.store, "STORE[:BRANCH], made if it is not there");
  command.required("path", options->path, "an existing directory");
  add_live_options(command, options->live);
  command.does([options] { return mount(*options); });
}

}  // namespace reprise::cli

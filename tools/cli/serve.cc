// serve: an instance without a command or a mount: for those who follow it.
#include <fmt/format.h>
#include <signal.h>

#include "tools/cli/command.h"
#include "tools/cli/serve_live.h"

namespace reprise::cli {
namespace {

void announce(const Target& target, const LiveOptions& options) {
  fmt::print("{} is served{}{}{}{}\n", full_name(target), options.listen.empty() ? "" : " at ",
             options.listen, options.follow.empty() ? "" : ", following ", options.follow);
  std::fflush(stdout);
}

// Until a signal, or until it is to be promoted. Detached from whom it follows it goes on with what it has,
// and says so.
void wait_for_end(const instance::Host& host) {
  sigset_t signals = signals_that_end();
  timespec interval{.tv_sec = 0, .tv_nsec = 100'000'000};
  // At the end once more: it may have been detached a moment ago.
  for (bool told = false, ended = false; !ended;) {
    ended = host.promotion_asked() || ::sigtimedwait(&signals, nullptr, &interval) >= 0;
    auto attached = host.check_not_detached();
    if (!attached && !told) complain(fmt::format("{}; serving what there is", attached.error().message()));
    told = told || !attached;
  }
}

Result<int> serve(const LiveOptions& options) {
  Target target = TRY(live_target(options.store, "STORE"));
  instance::HostOptions settings = TRY(host_options(options, target, "reprise serve " + options.store));
  sigset_t signals = signals_that_end();
  ::pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  for (LiveOptions now = options;;) {
    bool promoted = false;
    int status = TRY(serve_alone(settings, [&](instance::Host& host) {
      host.allow_promotion();
      announce(target, now);
      wait_for_end(host);
      promoted = host.promotion_asked();
      return kDone;
    }));
    if (!promoted) return status;
    // The leader of before is not followed any more; who followed this one comes back to it in a moment.
    auto store = TRY(store::Store::open(settings.store_path));
    TRY(instance::promote(*store, target.branch, settings.instance.holder));
    settings.follow.reset();
    now.follow.clear();
  }
}

}  // namespace

void add_serve(Command& reprise) {
  auto options = std::make_shared<LiveOptions>();
  Command command = reprise.subcommand(
      "serve", "Serve a store to followers, with no command and no mount, until this command gets a signal");
  command.required("store", options->store, "STORE[:BRANCH], made if it is not there");
  add_live_options(command, *options);
  command.does([options] { return serve(*options); });
}

}  // namespace reprise::cli

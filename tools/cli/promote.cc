// promote: a follower becomes the one that writes.
#include <fmt/format.h>
#include <unistd.h>

#include "instance/instance.h"
#include "tools/cli/command.h"
#include "tools/cli/target.h"

namespace reprise::cli {
namespace {

struct Options {
  std::string what;
  double timeout_s = 30;
};

// The one that is live ends its part as a follower and begins anew; meanwhile nobody answers.
Result<bool> leads(const Target& target) {
  auto open = open_target(target);
  if (!open || !open->live) return false;
  auto stat = ask_live(*open, {{"ask", "stat"}}, 10'000);
  return stat && (*stat)["role"] != "follower";
}

Result<int> promote(const Options& options) {
  Target target = Target::parse(options.what);
  if (!target.position.empty() || !target.path.empty())
    return fail(Code::kInvalidArgument, fmt::format("{}: expected STORE[:BRANCH]", options.what));
  {
    OpenTarget open = TRY(open_target(target, store::Access::kWrite));
    if (!open.live) {
      TRY(instance::promote(*open.store, target.branch, {getpid(), "reprise promote " + options.what}));
      fmt::print("{}: writes from now on; `reprise run`, `mount` or `serve` it without --follow\n",
                 target.store);
      return kDone;
    }
    TRY(ask_live(open, {{"ask", "promote"}}));
  }
  uint64_t begin_ns = system_clock().monotonic_ns();
  while (!TRY(leads(target))) {
    if (static_cast<double>(system_clock().monotonic_ns() - begin_ns) > options.timeout_s * 1e9) {
      complain(
          fmt::format("{}: was asked, and does not lead after {:.1f} s", target.store, options.timeout_s));
      return kNo;
    }
    system_clock().sleep_ns(20'000'000);
  }
  fmt::print("{}: leads\n", target.store);
  return kDone;
}

}  // namespace

void add_promote(Command& reprise) {
  auto options = std::make_shared<Options>();
  Command command = reprise.subcommand("promote",
                                       "Make a follower the one that writes: a stopped store, or one that "
                                       "`serve` serves. What other followers have "
                                       "more is taken from them first");
  command.required("store", options->what, "STORE[:BRANCH]");
  command.number("--timeout", options->timeout_s, 0, 1e6, "seconds, for one that is live");
  command.does([options] { return promote(*options); });
}

}  // namespace reprise::cli

// Target: what the user named: STORE[:BRANCH][@POSITION][:PATH], and opening it to read.
#pragma once

#include <functional>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>

#include "instance/history.h"
#include "replay/replayer.h"
#include "store/store.h"

namespace reprise::cli {

struct Target {
  std::string store;
  std::string branch = "main";
  std::string position;  // "" for the head
  std::string path;      // "" if none was given; else begins with '/'

  // What exists under its whole name is that, whatever ':' and '@' it holds.
  static Target parse(std::string_view text);
  // Is the branch named as one may be? kInvalidArgument names it and says what is allowed; also for what was
  // taken as a path because of a '/' behind its ':', in a folder that is not there.
  Status check_branch() const;
};

// A store opened to ask it something. Where an instance of the branch is live, it has written all it has
// first.
struct OpenTarget {
  std::shared_ptr<store::Store> store;
  Target target;
  std::optional<store::LockHolder> live;
  bool may_ask = true;  // the live instance; not if it is another user's

  // Its state at the target's position: all of it, or what is touched (instance::open_state_at).
  enum class Read { kWhole, kAsTouched };
  Result<instance::State> state(const std::function<bool(const replay::ReplayProgress&)>& progress = nullptr,
                                Read read = Read::kWhole) const;
};
// To read, the store need not be writable, and a live instance that this user may not ask is not asked: then
// there is what it has written by itself.
Result<OpenTarget> open_target(const Target& target, store::Access access = store::Access::kRead);
// The same where this process has a store open, which may be the one that is meant.
Result<OpenTarget> open_target_beside(const Target& target, const std::shared_ptr<store::Store>& opened);
// For who asks the live instance alone: it writes nothing first, so that it can be asked whatever its disk
// does.
Result<OpenTarget> open_target_to_ask(const Target& target);
// The branch must be nobody's.
Status refuse_live(const OpenTarget& target, std::string_view why);
// Asks the live instance of the target.
Result<nlohmann::json> ask_live(const OpenTarget& target, const nlohmann::json& question,
                                uint32_t timeout_ms = 600'000);

}  // namespace reprise::cli

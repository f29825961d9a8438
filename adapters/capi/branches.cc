// What becomes of branches: joined, with a decision or without, discarded, reset.
#include "instance/branches.h"

#include <fmt/format.h>

#include <optional>
#include <vector>

#include "adapters/capi/calls.h"

namespace reprise::capi {
namespace {

template <class Found>
void tell(const std::vector<Found>& all, reprise_conflict_callback callback, void* context) {
  if (callback == nullptr) return;
  for (const Found& one : all) {
    reprise_conflict told{one.path.c_str(), one.what.c_str()};
    callback(context, &told);
  }
}

int64_t join(reprise_instance* handle, const char* call, const char* name,
             std::optional<replay::Winner> winner, instance::Joined& into) {
  return with(handle, call, [&](Instance& parent) -> int64_t {
    if (name == nullptr) return refuse_null(call, "a name");
    auto joined = parent->join(name, winner);
    if (!joined) return refuse(joined.error());
    into = std::move(*joined);
    return static_cast<int64_t>(into.conflicts.size());
  });
}

Result<instance::Reset> reset(Instance& instance, const char* call, const char* position, const char* branch,
                              const char* keep) {
  const std::string of = text_or(branch, instance->branch().c_str());
  const std::string at = text_or(position, "");
  TRY(store::Store::check_name("branch", of));
  if (keep != nullptr) TRY(store::Store::check_name("branch", keep));
  if (at.empty() && of == instance->branch()) {
    return fail(Code::kInvalidArgument,
                fmt::format("{}: expected a position of branch {}, or another branch, found none", call, of));
  }
  if (of != instance->branch() && !instance.options.store_path.empty() && !instance->follower())
    TRY(instance::find_branch(*instance->store(), of));
  return instance->reset(of, at, text_or(keep, ""));
}

}  // namespace
}  // namespace reprise::capi

using namespace reprise;
using namespace reprise::capi;

int64_t reprise_join(reprise_instance* handle, const char* name, reprise_conflict_callback callback,
                     void* context) {
  instance::Joined joined;
  int64_t found = join(handle, "reprise_join", name, std::nullopt, joined);
  tell(joined.conflicts, callback, context);
  return found;
}

int64_t reprise_join_resolved(reprise_instance* handle, const char* name, int winner,
                              reprise_conflict_callback conflict, reprise_conflict_callback left_out,
                              void* context) {
  constexpr const char* kCall = "reprise_join_resolved";
  if (int wrong = instances().check(handle); wrong != 0) return refuse_handle(wrong, kCall, "instance");
  if (winner != REPRISE_OURS && winner != REPRISE_THEIRS) {
    return refuse(
        EINVAL, fmt::format("{}: winner: expected REPRISE_OURS ({}) or REPRISE_THEIRS ({}), found {}", kCall,
                            int{REPRISE_OURS}, int{REPRISE_THEIRS}, winner));
  }
  instance::Joined joined;
  int64_t found = join(handle, kCall, name,
                       winner == REPRISE_OURS ? replay::Winner::kOurs : replay::Winner::kTheirs, joined);
  tell(joined.conflicts, conflict, context);
  tell(joined.left_out, left_out, context);
  return found;
}

int reprise_discard(reprise_instance* handle, const char* name) {
  return with(handle, "reprise_discard", [&](Instance& parent) -> int {
    if (name == nullptr) return refuse_null("reprise_discard", "a name");
    return done(instance::discard_branch(*parent->store(), name, parent.options.instance.holder));
  });
}

int64_t reprise_reset(reprise_instance* handle, const char* position, const char* branch, const char* keep,
                      uint64_t* before) {
  constexpr const char* kCall = "reprise_reset";
  return with(handle, kCall, [&](Instance& instance) -> int64_t {
    auto made = reset(instance, kCall, position, branch, keep);
    if (!made) return refuse(made.error());
    if (before != nullptr) *before = made->before;
    return static_cast<int64_t>(made->operations);
  });
}

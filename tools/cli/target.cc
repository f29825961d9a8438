#include "tools/cli/target.h"

#include <fmt/format.h>
#include <unistd.h>

#include <filesystem>

#include "instance/control.h"
#include "tools/cli/command.h"

namespace reprise::cli {

Target Target::parse(std::string_view text) {
  Target target;
  bool forced = text.starts_with("store:");
  if (forced) text.remove_prefix(6);
  std::error_code ignored;
  auto exists = [&](std::string_view path) {
    return !path.empty() && std::filesystem::exists(path, ignored);
  };
  if (!exists(text)) {
    if (size_t path = text.find(":/", 1); path != std::string_view::npos) {
      target.path = text.substr(path + 1);
      text = text.substr(0, path);
    }
  }
  if (!exists(text)) {
    if (size_t at = text.rfind('@');
        at != std::string_view::npos && text.find('/', at) == std::string_view::npos) {
      target.position = text.substr(at + 1);
      text = text.substr(0, at);
    }
  }
  if (!exists(text)) {
    if (size_t colon = text.rfind(':');
        colon != std::string_view::npos && text.find('/', colon) == std::string_view::npos) {
      target.branch = text.substr(colon + 1);
      text = text.substr(0, colon);
    }
  }
  target.store = text;
  return target;
}

Status Target::check_branch() const {
  TRY(store::Store::check_name("branch", branch));
  size_t colon = store.find(':', 1);
  std::error_code ignored;
  if (colon == std::string::npos || store.find('/', colon) == std::string::npos ||
      std::filesystem::exists(std::filesystem::path(store).parent_path(), ignored))
    return {};
  auto refused = store::Store::check_name("branch", std::string_view(store).substr(colon + 1));
  if (refused) return {};
  return std::unexpected(refused.error().with_context(store));
}

namespace {

Result<OpenTarget> open_unwritten(const Target& target, store::Access access,
                                  const std::shared_ptr<store::Store>& opened = nullptr) {
  TRY(target.check_branch());
  OpenTarget open{.target = target};
  std::error_code ignored;
  const bool is_opened = opened && std::filesystem::equivalent(opened->path(), target.store, ignored);
  open.store = is_opened ? opened : TRY(store::Store::open(target.store, access));
  std::string branches = target.store + "/branches";
  bool is_new = target.branch == "main" &&
                (!std::filesystem::exists(branches, ignored) || std::filesystem::is_empty(branches, ignored));
  if (!is_new && !std::filesystem::exists(branches + "/" + target.branch, ignored)) {
    return fail(Code::kNotFound, fmt::format("{}: there is no branch {}", target.store, target.branch));
  }
  open.live = TRY(open.store->lock_holder(target.branch));
  return open;
}

// Has the live instance write what it has.
Result<OpenTarget> written(OpenTarget open, store::Access access) {
  if (!open.live) return open;
  auto asked = ask_live(open, {{"ask", "sync"}});
  if (asked) return open;
  if (access == store::Access::kWrite || asked.error().code() != Code::kPermission)
    return std::unexpected(asked.error());
  open.may_ask = false;
  complain(fmt::format("{}; what it has not written yet is not shown", asked.error().message()));
  return open;
}

}  // namespace

Result<OpenTarget> open_target_to_ask(const Target& target) {
  return open_unwritten(target, store::Access::kRead);
}

Result<OpenTarget> open_target(const Target& target, store::Access access) {
  return written(TRY(open_unwritten(target, access)), access);
}

Result<OpenTarget> open_target_beside(const Target& target, const std::shared_ptr<store::Store>& opened) {
  constexpr auto kAccess = store::Access::kRead;
  return written(TRY(open_unwritten(target, kAccess, opened)), kAccess);
}

Status refuse_live(const OpenTarget& target, std::string_view why) {
  if (!target.live) return {};
  return fail(Code::kBusy, fmt::format("{}: branch {} is live in {}; {}", target.target.store,
                                       target.target.branch, target.live->describe(), why));
}

Result<nlohmann::json> ask_live(const OpenTarget& target, const nlohmann::json& question,
                                uint32_t timeout_ms) {
  return instance::ask(system_network(), target.store->control_socket_path(target.target.branch), question,
                       timeout_ms);
}

Result<instance::State> OpenTarget::state(const std::function<bool(const replay::ReplayProgress&)>& progress,
                                          Read read) const {
  auto until = TRY(instance::resolve_position(*store, target.branch, target.position, system_clock()));
  if (read == Read::kAsTouched) return TRY(instance::open_state_at(store, target.branch, until, progress));
  return TRY(instance::state_at(*store, target.branch, until, progress));
}

}  // namespace reprise::cli

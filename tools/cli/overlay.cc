#include "tools/cli/overlay.h"

#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>

#include "base/host_tree.h"
#include "instance/overlay.h"
#include "tools/cli/command.h"
#include "tools/cli/difference.h"
#include "tools/cli/progress.h"

namespace reprise::cli {
namespace {

constexpr size_t kShownMax = 20;  // changes at the end of a run

// Where overlays of their own name lie.
Result<std::string> state_folder() {
  const char* state = std::getenv("XDG_STATE_HOME");
  const char* home = std::getenv("HOME");
  std::string folder;
  if (state != nullptr && state[0] == '/') {
    folder = fmt::format("{}/reprise", state);
  } else if (home != nullptr && home[0] == '/') {
    folder = fmt::format("{}/.local/state/reprise", home);
  } else {
    return fail(Code::kInvalidArgument,
                "--from: expected a home directory to keep the changes in, found none; --store says where");
  }
  std::error_code error;
  std::filesystem::create_directories(folder, error);
  if (error) return std::unexpected(Error::from_errno(error.value(), folder + ": cannot create"));
  return folder;
}

// A new folder, so that no other run takes the same.
Result<std::string> claim_name(const std::string& directory) {
  const std::string folder = TRY(state_folder());
  const std::string name = std::filesystem::path(directory).filename().string();
  for (int number = 1;; number++) {
    std::string path = fmt::format("{}/{}-{}", folder, name.substr(0, 100), number);
    if (::mkdir(path.c_str(), 0700) == 0) return path;
    if (errno != EEXIST) return std::unexpected(Error::from_errno(errno, path + ": cannot create"));
  }
}

Status remove_overlay(const std::string& store) {
  TRY(store::Store::remove_unused(store));
  ::rmdir((store + "/mnt").c_str());
  if (::rmdir(store.c_str()) != 0 && errno != ENOTEMPTY)
    return std::unexpected(Error::from_errno(errno, store + ": cannot remove"));
  return {};
}

void take_away(const std::string& store) {
  if (Status removed = remove_overlay(store); !removed) complain(removed.error().message());
}

}  // namespace

Result<OverlayRun> OverlayRun::plan(const std::string& directory, const std::string& store) {
  OverlayRun run;
  run.directory_ = canonical_host_path(directory);
  struct stat st;
  if (::stat(run.directory_.c_str(), &st) != 0)
    return std::unexpected(Error::from_errno(errno, "--from " + printable(directory)));
  if (!S_ISDIR(st.st_mode) || run.directory_ == "/")
    return fail(Code::kInvalidArgument,
                fmt::format("--from {}: expected a directory other than /, found {}", printable(directory),
                            S_ISDIR(st.st_mode) ? "that" : "another file"));
  run.own_name_ = store.empty();
  run.store_ = store.empty() ? TRY(claim_name(run.directory_)) : store;
  if (auto found = rests_on(run.store_); store::Store::looks_like_store(run.store_)) {
    auto there = TRY(std::move(found));
    if (there != run.directory_)
      return fail(Code::kInvalidArgument,
                  fmt::format("--store {}: expected a new store or one that rests on {}, found one that {}",
                              store, run.directory_, there ? "rests on " + *there : "has everything itself"));
  }
  return run;
}

Status OverlayRun::begin() {
  if (store::Store::looks_like_store(store_)) return {};
  Progress progress("looking at " + directory_);
  auto show = [&](const snapshot::Imported& done) { progress.show(fmt::format("{} entries", done.entries)); };
  auto made = instance::make_overlay(store_, directory_, system_clock(), system_random(), show);
  if (!made) {
    if (own_name_) ::rmdir(store_.c_str());
    return std::unexpected(made.error());
  }
  made_ = true;
  for (const std::string& path : made->unreadable)
    complain(fmt::format("{}/{}: may not be listed, and is empty in the overlay", directory_, path));
  return {};
}

void OverlayRun::forget() {
  if (made_) {
    take_away(store_);
  } else if (own_name_) {
    ::rmdir(store_.c_str());
  }
}

Status OverlayRun::end(const Target& target) {
  std::vector<PathDifference> changes;
  {
    OpenTarget open = TRY(open_target(target));
    fs::Head base = TRY(instance::overlay_base(*open.store));
    instance::State state = TRY(open.state());
    changes = TRY(instance::compare(base, state.head, {.one_volume = true, .list_moved = false}));
  }
  if (changes.empty() && own_name_) {
    complain(fmt::format("nothing changed in {}", directory_));
    take_away(store_);
    return {};
  }
  const std::string shown = target.branch == "main" ? store_ : store_ + ":" + target.branch;
  size_t added = 0, deleted = 0;
  for (const PathDifference& change : changes) {
    added += change.added();
    deleted += change.deleted();
  }
  complain(fmt::format("nothing was written to {}; {} added, {} deleted, {} changed in the overlay {}",
                       directory_, added, deleted, changes.size() - added - deleted, shown));
  for (size_t i = 0; i < std::min(changes.size(), kShownMax); i++)
    fmt::print(stderr, "{}\n", line_of(changes[i]));
  if (changes.size() > kShownMax) fmt::print(stderr, "… and {} more\n", changes.size() - kShownMax);
  if (!changes.empty())
    fmt::print(stderr,
               "reprise diff {0}            shows what (--stat, --patch)\n"
               "reprise apply {0} --onto {1}   brings it there\n"
               "reprise run --store {0} -- …   goes on\n"
               "reprise discard {2}         forgets it\n",
               shown, directory_, store_);
  return {};
}

Result<std::optional<std::string>> rests_on(const std::string& store) {
  if (!store::Store::looks_like_store(store)) return std::nullopt;
  auto open = TRY(store::Store::open(store, store::Access::kRead));
  if (!TRY(open->base_directory())) return std::nullopt;
  return TRY(instance::overlay_directory(*open)).path;
}

Status discard_overlay(const std::string& store) {
  {
    auto open = TRY(store::Store::open(store, store::Access::kRead));
    if (!TRY(open->base_directory()))
      return fail(
          Code::kInvalidArgument,
          fmt::format("{}: expected the name of a branch behind a store that rests on no directory", store));
    for (const std::string& branch : TRY(open->branch_names())) {
      if (auto holder = TRY(open->lock_holder(branch)))
        return fail(Code::kBusy,
                    fmt::format("{}: expected no live instance, found one: {}", store, holder->describe()));
    }
  }
  return remove_overlay(store);
}

}  // namespace reprise::cli

// apply: what was done in an overlay is brought to the directory that it rests on.
#include <fmt/format.h>
#include <unistd.h>

#include <set>

#include "base/host_tree.h"
#include "instance/instance.h"
#include "instance/overlay.h"
#include "snapshot/apply_changes.h"
#include "tools/cli/command.h"
#include "tools/cli/difference.h"
#include "tools/cli/target.h"

namespace reprise::cli {
namespace {

struct Options {
  std::string store, onto;
  std::vector<std::string> paths;
  bool dry_run = false;
};

using Paths = std::vector<snapshot::ChangedPath>;

// A name that was renamed is one that went and one that came.
Paths each_path(const std::vector<PathDifference>& changes) {
  Paths paths;
  for (const PathDifference& change : changes) {
    std::optional<InodeId> before, after;
    if (change.before) before = change.before->inode;
    if (change.after) after = change.after->inode;
    if (change.renamed()) {
      paths.push_back({.path = change.old_path, .before = before, .after = {}});
      before.reset();
    }
    paths.push_back({.path = change.path, .before = before, .after = after, .content = change.content});
  }
  // One name may have gone with one thing and come with another.
  std::ranges::stable_sort(paths, {}, &snapshot::ChangedPath::path);
  Paths merged;
  for (snapshot::ChangedPath& path : paths) {
    if (merged.empty() || merged.back().path != path.path) {
      merged.push_back(std::move(path));
      continue;
    }
    if (path.before) merged.back().before = path.before;
    if (path.after) merged.back().after = path.after;
    merged.back().content = true;
  }
  return merged;
}

// A path from the top of the directory, however it was given.
std::string trimmed(std::string path, const std::string& directory) {
  if (path == directory || path.starts_with(directory + "/")) path.erase(0, directory.size());
  while (path.starts_with("./")) path.erase(0, 2);
  while (path.starts_with('/')) path.erase(0, 1);
  while (path.ends_with('/')) path.pop_back();
  return path;
}

bool lies_in(const std::string& path, const std::string& top) {
  return top.empty() || path == top || path.starts_with(top + "/");
}

// Those that were asked for, what is below them, and new directories that they lie in.
Result<Paths> chosen(Paths all, const std::vector<std::string>& wanted, const std::string& directory) {
  if (wanted.empty()) return all;
  std::set<std::string> taken;
  for (const std::string& given : wanted) {
    const std::string top = trimmed(given, directory);
    const size_t before = taken.size();
    for (const auto& path : all)
      if (lies_in(path.path, top)) taken.insert(path.path);
    if (taken.size() == before)
      return fail(Code::kNotFound, fmt::format("{}: nothing there was changed", printable(given)));
  }
  std::erase_if(all, [&](const snapshot::ChangedPath& path) {
    const bool leads = !path.before && path.after && std::ranges::any_of(taken, [&](const std::string& one) {
      return one.starts_with(path.path + "/");
    });
    return !taken.contains(path.path) && !leads;
  });
  return all;
}

// Has the overlay hold all of these files, so that it can do without what they rest on, which is about to
// change.
Status hold(const OpenTarget& open, const Paths& paths) {
  instance::InstanceOptions settings;
  settings.branch = open.target.branch;
  settings.holder = {getpid(), "reprise apply " + open.target.store};
  auto instance = TRY(instance::Instance::open(open.store, settings));
  auto all = [&]() -> Status {
    for (const snapshot::ChangedPath& path : paths) {
      if (!path.after) continue;
      auto held = instance->filesystem().hold(fs::Caller{.label = "apply"}, *path.after);
      if (!held)
        return fail(Code::kIo, fmt::format("{}: cannot be read: {}", printable(path.path),
                                           fs::errno_text(held.error())));
    }
    return {};
  };
  auto held = all();
  auto closed = instance->close();
  TRY(std::move(held));
  return closed;
}

Result<int> refuse(const std::vector<snapshot::Conflict>& conflicts, const Options& options) {
  for (const snapshot::Conflict& conflict : conflicts) fmt::print("{}: {}\n", conflict.path, conflict.why);
  complain(fmt::format("{} of the places were changed on both sides; nothing was written to {}",
                       conflicts.size(), options.onto));
  return kNo;
}

struct Sides {
  fs::Head base, head;
  Paths paths;
};
Result<Sides> sides_of(const OpenTarget& open, const Options& options) {
  fs::Head base = TRY(instance::overlay_base(*open.store));
  instance::State state = TRY(open.state());
  Paths paths = each_path(TRY(instance::compare(base, state.head, {.one_volume = true, .list_moved = true})));
  const store::BaseDirectory directory = TRY(instance::overlay_directory(*open.store));
  paths = TRY(chosen(std::move(paths), options.paths, directory.path));
  return Sides{std::move(base), std::move(state.head), std::move(paths)};
}

Result<int> apply(const Options& options) {
  Target target = Target::parse(options.store);
  if (!target.position.empty() || !target.path.empty())
    return fail(Code::kInvalidArgument, fmt::format("{}: expected STORE[:BRANCH]", options.store));
  OpenTarget open = TRY(open_target(target, store::Access::kWrite));
  TRY(refuse_live(open, "it has to end before its changes are applied"));
  const store::BaseDirectory base = TRY(instance::overlay_directory(*open.store));
  if (canonical_host_path(options.onto) != base.path)
    return fail(Code::kInvalidArgument, fmt::format("--onto {}: expected {}, which the overlay rests on",
                                                    printable(options.onto), printable(base.path)));
  auto host = TRY(HostTree::open(base.path));
  snapshot::ExportOptions writing{
      .owners = ::geteuid() == 0, .set_ids = true, .devices = true, .all_xattrs = true, .filter = {}};
  {
    Sides sides = TRY(sides_of(open, options));
    snapshot::ChangesToApply changes(sides.base, sides.head, *host, sides.paths, writing);
    auto conflicts = TRY(changes.check());
    if (!conflicts.empty()) return refuse(conflicts, options);
    const size_t left = sides.paths.size() - changes.already();
    if (options.dry_run || left == 0) {
      fmt::print("{} places {}\n", left, left == 0 ? "differ: nothing to do" : "would be changed");
      return kDone;
    }
    TRY(hold(open, sides.paths));
  }
  Sides sides = TRY(sides_of(open, options));
  snapshot::ChangesToApply changes(sides.base, sides.head, *host, sides.paths, writing);
  auto conflicts = TRY(changes.apply(system_random()));
  if (!conflicts.empty()) return refuse(conflicts, options);
  fmt::print("{} places changed in {}; `reprise discard {}` forgets the overlay\n",
             sides.paths.size() - changes.already(), base.path, options.store);
  return kDone;
}

}  // namespace

void add_apply(Command& reprise) {
  auto options = std::make_shared<Options>();
  Command command = reprise.subcommand(
      "apply",
      "Bring what was done in an overlay (`run --from`) to its directory, all of it or, if both changed the "
      "same, nothing; exit 1 then");
  command.required("store", options->store, "STORE[:BRANCH]");
  command.required("--onto", options->onto, "the directory, as a word of caution: the one it rests on");
  command.rest("paths", options->paths, "only these, and what is below them");
  command.flag("--dry-run", options->dry_run, "only look, and say what is in the way");
  command.does([options] { return apply(*options); });
}

}  // namespace reprise::cli

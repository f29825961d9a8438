// diff: what differs between two states, directories or archives.
#include "fs/diff.h"

#include <fmt/format.h>

#include "fs/lazy_node.h"
#include "instance/overlay.h"
#include "instance/snapshots.h"
#include "tools/cli/command.h"
#include "tools/cli/difference.h"
#include "tools/cli/outside.h"
#include "tools/cli/patch.h"
#include "tools/cli/progress.h"
#include "tools/cli/target.h"

namespace reprise::cli {
namespace {

struct Options {
  std::string before, after;
  bool stat = false, patch = false, json = false;
};

// One of the two.
struct Side {
  fs::Head head = fs::Head::create(Timestamp{});
  std::shared_ptr<store::Store> store;  // a directory or an archive has none

  std::optional<VolumeId> volume() const { return store ? std::optional(store->volume()) : std::nullopt; }
};

using Read = OpenTarget::Read;

// `other` is the other side's.
Result<Side> open_side(const std::string& what, Read read, const std::shared_ptr<store::Store>& other) {
  if (Outside outside = Outside::parse(what)) return Side{.head = TRY(outside.read()), .store = {}};
  Target target = Target::parse(what);
  if (!target.path.empty())
    return fail(Code::kInvalidArgument, fmt::format("{}: expected a whole state, without a path", what));
  OpenTarget open = TRY(open_target_beside(target, other));
  Progress progress("replaying " + what);
  instance::State state = TRY(open.state(std::ref(progress), read));
  return Side{.head = std::move(state.head), .store = open.store};
}

void print_json(const PathDifference& change) {
  nlohmann::json json = {{"change", letters(change)}, {"path", printable(change.path)}};
  if (change.renamed()) json["old_path"] = printable(change.old_path);
  auto side = [](const fs::Attributes& a) {
    return nlohmann::json{{"inode", a.inode.value}, {"mode", a.mode}, {"size", a.size}};
  };
  if (change.before) json["before"] = side(*change.before);
  if (change.after) json["after"] = side(*change.after);
  fmt::print("{}\n", json.dump());
}

uint64_t size_of(const std::optional<fs::Attributes>& attributes) {
  return attributes && !attributes->is_directory() ? attributes->size : 0;
}

void print_stat(const std::vector<PathDifference>& changes, const Side& before, const Side& after) {
  uint64_t added = 0, deleted = 0, changed = 0, bytes = 0;
  for (const PathDifference& change : changes) {
    uint64_t differ = 0;
    if (change.content && change.before && change.after && !change.type_changed()) {
      fs::for_each_changed_range(before.head, change.before->inode, after.head, change.after->inode,
                                 [&](uint64_t offset, uint64_t end) {
                                   differ += end - offset;
                                   return true;
                                 });
    } else if (change.content || change.added() || change.deleted()) {
      differ = std::max(size_of(change.before), size_of(change.after));
    }
    (change.added() ? added : change.deleted() ? deleted : changed)++;
    bytes += differ;
    fmt::print("{:<3} {}  {} -> {}{}\n", letters(change), names_of(change),
               change.before ? format_bytes(size_of(change.before)) : "-",
               change.after ? format_bytes(size_of(change.after)) : "-",
               differ > 0 ? fmt::format(", {} in blocks that differ", format_bytes(differ)) : "");
  }
  fmt::print("{} added, {} deleted, {} changed; {} in blocks that differ\n", added, deleted, changed,
             format_bytes(bytes));
}

// As git knows modes; 0 for what a patch cannot hold.
uint32_t patch_mode(const std::optional<fs::Attributes>& attributes) {
  if (!attributes) return 0;
  if (attributes->is_symlink()) return 0120000;
  if (!attributes->is_regular()) return 0;
  return (attributes->mode & S_IXUSR) != 0 ? 0100755 : 0100644;
}

constexpr uint64_t kPatchMax = uint64_t{1} << 30;

Result<Bytes> bytes_of(const fs::Tree& tree, const std::optional<fs::Attributes>& attributes,
                       const std::string& path) {
  if (patch_mode(attributes) == 0) return Bytes{};
  if (attributes->is_symlink()) {
    ByteView target = as_bytes(*tree.read_link(attributes->inode));
    return Bytes(target.begin(), target.end());
  }
  if (attributes->size > kPatchMax)
    return fail(Code::kUnsupported, fmt::format("a file of {} is too large for a patch (at most {})",
                                                format_bytes(attributes->size), format_bytes(kPatchMax)));
  Bytes bytes(attributes->size);
  auto got = tree.read(attributes->inode, 0, bytes);
  if (!got)  // of a file that rests on a directory
    return fail(Code::kIo, fmt::format("{}: its bytes cannot be had any more: {}", printable(path),
                                       fs::errno_text(got.error())));
  return bytes;
}

Status print_patch(const PathDifference& change, const Side& before, const Side& after) {
  uint32_t old_mode = patch_mode(change.before), new_mode = patch_mode(change.after);
  std::string text;
  if (old_mode != 0 || new_mode != 0) {
    const std::string& old_path = change.renamed() ? change.old_path : change.path;
    Bytes old_bytes = TRY(bytes_of(before.head, change.before, old_path));
    Bytes new_bytes = TRY(bytes_of(after.head, change.after, change.path));
    if (old_mode != 0 && new_mode != 0 && change.type_changed()) {
      // A change of type is a removal and a new file.
      text = patch_of({old_path, old_mode, old_bytes}, {old_path, 0, {}}) +
             patch_of({change.path, 0, {}}, {change.path, new_mode, new_bytes});
    } else {
      text = patch_of({old_path, old_mode, old_bytes},
                      {new_mode != 0 ? change.path : old_path, new_mode, new_bytes});
    }
  }
  // What a patch has no words for is still said.
  if (text.empty()) text = fmt::format("# {} {}\n", letters(change), names_of(change));
  fmt::print("{}", text);
  return {};
}

// What an overlay rests on, as it was.
Result<Side> open_base(const std::string& what) {
  Target target = Target::parse(what);
  OpenTarget open = TRY(open_target(target));
  return Side{.head = TRY(instance::overlay_base(*open.store)), .store = open.store};
}

struct Compared {
  Side before, after;
  std::vector<PathDifference> changes;
};

// Loads what will be shown of the bytes: for a patch the files, else where they differ. False where that
// cannot be.
bool load_bytes(const Compared& both, const PathDifference& change, bool of_patch) {
  const auto load = [&](const fs::Tree& tree, const std::optional<fs::Attributes>& attributes) {
    const bool shown = of_patch && attributes && attributes->is_regular() && attributes->size <= kPatchMax;
    return !shown || tree.load_bytes(attributes->inode, 0, attributes->size).has_value();
  };
  if (!load(both.before.head, change.before) || !load(both.after.head, change.after)) return false;
  if (of_patch || !change.content || !change.before || !change.after) return true;
  fs::for_each_changed_range(both.before.head, change.before->inode, both.after.head, change.after->inode,
                             [](uint64_t, uint64_t) { return true; });
  return !fs::take_load_failure();
}

// Opens both and compares them. kCorrupt if they cannot be read, or not as they are touched.
Result<Compared> compare(const Options& options, Read read) {
  const bool of_overlay = options.after.empty();
  Compared both;
  auto& [before, after, changes] = both;
  before = TRY(of_overlay ? open_base(options.before) : open_side(options.before, read, nullptr));
  after = TRY(open_side(of_overlay ? options.before : options.after, read, before.store));
  const bool one_volume = before.volume() && before.volume() == after.volume();
  // A patch names files only.
  changes = TRY(
      instance::compare(before.head, after.head, {.one_volume = one_volume, .list_moved = options.patch}));
  bool loaded = true;
  if (options.stat || options.patch)
    for (const PathDifference& change : changes) loaded = loaded && load_bytes(both, change, options.patch);
  if (!loaded) return instance::cannot_be_loaded();
  return both;
}

Result<int> diff(const Options& options) {
  auto compared = compare(options, Read::kAsTouched);
  if (!compared && compared.error().code() == Code::kCorrupt) compared = compare(options, Read::kWhole);
  if (!compared) return std::unexpected(compared.error());
  const auto& [before, after, changes] = *compared;
  std::optional<Error> unreadable;  // the first whose bytes are not to be had; the others are shown
  if (options.stat) {
    print_stat(changes, before, after);
  } else {
    for (const PathDifference& change : changes) {
      if (options.patch) {
        Status printed = print_patch(change, before, after);
        if (!printed)
          fmt::print("# {} {}: {}\n", letters(change), names_of(change), printed.error().message());
        if (!printed && !unreadable) unreadable = printed.error();
      } else if (options.json) {
        print_json(change);
      } else {
        fmt::print("{}\n", line_of(change));
      }
    }
  }
  if (unreadable) return std::unexpected(*unreadable);
  return changes.empty() ? kDone : kNo;
}

}  // namespace

void add_diff(Command& reprise) {
  auto options = std::make_shared<Options>();
  Command command =
      reprise.subcommand("diff", "Show what differs between two states, directories or archives");
  command.required("before", options->before, "STATE, a directory, a ZIP or a tar");
  command.option("after", options->after,
                 "the same; without it the first is an overlay (`run --from`), and is compared with the "
                 "directory as it was");
  command.flag("--stat", options->stat, "sizes, how much differs, and totals");
  command.flag("--patch", options->patch, "as a patch for git-apply(1), bytes that are no text included");
  command.flag("--json", options->json, "one JSON object a line");
  command.exclude_each_other({"--stat", "--patch", "--json"});
  command.footer(
      "Each line begins with what changed: A added, D deleted, R renamed, T of another type, M bytes,\n"
      "P permissions, owner, times or extended attributes. Renames, owners and times are seen between\n"
      "states of one volume. Exit status: 0 equal, 1 they differ.");
  command.does([options] { return diff(*options); });
}

}  // namespace reprise::cli

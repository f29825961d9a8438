// snapshot import, snapshot export: files from outside become history, and states become files.
#include <fmt/format.h>
#include <unistd.h>

#include <charconv>
#include <filesystem>

#include "base/check.h"
#include "instance/record_tree.h"
#include "snapshot/import.h"
#include "tools/cli/exported.h"
#include "tools/cli/progress.h"
#include "tools/cli/target.h"

namespace reprise::cli {
namespace {

struct ImportSettings {
  std::string store, from, label;
  std::string max_entries, max_size, max_file_size, max_ratio, max_depth;
  bool over = false, set_ids = false, devices = false, all_xattrs = false, json = false;
};

// A whole number, with K, M, G or T behind it 1024 of them, and so on. 0 means no limit.
std::optional<uint64_t> parse_quantity(const std::string& text) {
  uint64_t number = 0;
  const char* end = text.data() + text.size();
  auto [rest, error] = std::from_chars(text.data(), end, number);
  if (error != std::errc()) return std::nullopt;
  if (rest == end) return number;
  size_t unit = std::string_view("KMGT").find(*rest);
  if (unit == std::string_view::npos || rest + 1 != end) return std::nullopt;
  size_t shift = 10 * (unit + 1);
  if (number > UINT64_MAX >> shift) return std::nullopt;
  return number << shift;
}

std::string check_quantity(const std::string& text) {
  return parse_quantity(text) ? "" : "expected a whole number, with K, M, G or T behind it if need be";
}

snapshot::ImportOptions import_options(const ImportSettings& settings, const Target& target) {
  snapshot::ImportOptions options;
  auto limit = [](const std::string& text, uint64_t& into) {
    if (!text.empty()) into = parse_quantity(text).value_or(into);
  };
  limit(settings.max_entries, options.limits.entries);
  limit(settings.max_size, options.limits.bytes);
  if (!settings.max_size.empty()) {
    uint64_t bytes = options.limits.bytes;  // zeros included it may be as many times more as it is by default
    options.limits.unpacked_bytes = bytes > UINT64_MAX >> 4 ? 0 : bytes << 4;
  }
  limit(settings.max_file_size, options.limits.file_bytes);
  limit(settings.max_ratio, options.limits.ratio);
  limit(settings.max_depth, options.limits.depth);
  options.set_ids = settings.set_ids;
  options.devices = settings.devices;
  options.all_xattrs = settings.all_xattrs;
  options.into = target.path;
  options.now = system_clock().realtime();
  return options;
}

// Where it comes from, by what it is or by what is said before it.
Result<snapshot::Imported> import_from(const std::string& from, fs::Head& head,
                                       const snapshot::ImportOptions& options) {
  Progress progress("reading " + from);
  auto show = [&](const snapshot::Imported& done) {
    progress.show(fmt::format("{} entries, {}", done.entries, format_bytes(done.bytes)));
  };
  bool directory = from.starts_with("dir:");
  bool archive = from.starts_with("zip:") || from.starts_with("tar:");
  std::string path = directory || archive ? from.substr(4) : from;
  std::error_code ignored;
  if (directory || (!archive && std::filesystem::is_directory(path, ignored)))
    return snapshot::import_directory_into(head, path, options, show);
  if (path == "-") {
    if (isatty(STDIN_FILENO) != 0)
      return fail(Code::kInvalidArgument, "an archive is not read from a terminal; redirect standard input");
    return snapshot::import_stream(head, standard_input(), options, show);
  }
  return snapshot::import_archive(head, path, options, show);
}

// The directory of this path; no symlink is followed.
Result<InodeId> directory_at(const fs::Tree& tree, std::string_view path, const std::string& shown) {
  InodeId at = kRootInode;
  while (!path.empty()) {
    size_t end = std::min(path.find('/'), path.size());
    std::string_view part = path.substr(0, end);
    path.remove_prefix(std::min(end + 1, path.size()));
    if (part.empty()) continue;
    auto found = tree.lookup(at, part);
    if (!found)
      return fail(Code::kNotFound, fmt::format("{}: {}: {}", printable(shown), printable(part),
                                               fs::errno_text(found.error())));
    at = found->inode;
  }
  return at;
}

// Is there nothing where it is to go?
Status check_empty(const fs::Tree& tree, const Target& target, const ImportSettings& settings) {
  auto at = directory_at(tree, target.path, settings.store);
  if (!at) return {};
  bool empty = true;
  auto read = tree.read_directory(*at, 0, [&](const fs::Dentry&) {
    empty = false;
    return false;
  });
  if (read && empty) return {};
  return fail(Code::kAlreadyExists,
              fmt::format("{}: expected nothing where the import goes, found files; --over lays it over them",
                          settings.store));
}

void warn_of(const snapshot::Imported& imported) {
  auto warn = [](uint64_t count, std::string_view what) {
    if (count > 0) fmt::print(stderr, "reprise: {} {}\n", count, what);
  };
  warn(imported.skipped_devices, "device nodes were left out (--devices keeps them)");
  warn(imported.skipped_set_ids,
       "files and directories came without their setuid or setgid bits (--set-ids keeps them)");
  warn(imported.skipped_xattrs,
       "extended attributes were left out (--all-xattrs keeps security.* and trusted.*)");
  warn(imported.duplicates,
       fmt::format("names came more than once, and the last counts: {}", imported.first_duplicate));
  warn(imported.case_collisions,
       fmt::format("names differ from another only in case: {}", imported.first_case_collision));
}

// The store the import goes into, opened for writing. One that was made for it goes again unless it is kept.
class ImportStore {
 public:
  static Result<std::unique_ptr<ImportStore>> open(const Target& target, const ImportSettings& settings) {
    TRY(target.check_branch());
    auto store = std::make_unique<ImportStore>();
    store->path_ = target.store;
    if (!store::Store::looks_like_store(target.store)) {
      std::error_code ignored;
      store->made_folder_ = !std::filesystem::exists(target.store, ignored);
      store->store_ = TRY(store::Store::create(target.store, system_random().next_id<VolumeId>()));
      store->made_ = true;
    } else {
      OpenTarget there = TRY(open_target(target, store::Access::kWrite));
      TRY(refuse_live(there, "end that first"));
      store->store_ = there.store;
    }
    instance::InstanceOptions options;
    options.branch = target.branch;
    options.holder = {getpid(), fmt::format("reprise snapshot import {} {}", settings.store, settings.from)};
    store->instance_ = TRY(instance::Instance::open(store->store_, options));
    return store;
  }
  ~ImportStore() {
    if (!made_) return;
    instance_.reset();
    store_.reset();
    auto removed = store::Store::remove_unused(path_);
    if (!removed) complain(removed.error().message());
    if (removed && made_folder_) ::rmdir(path_.c_str());
  }
  ImportStore() = default;
  ImportStore(const ImportStore&) = delete;
  ImportStore& operator=(const ImportStore&) = delete;

  instance::Instance& instance() { return *instance_; }
  void keep() { made_ = false; }

 private:
  std::string path_;
  bool made_ = false, made_folder_ = false;
  std::shared_ptr<store::Store> store_;
  std::unique_ptr<instance::Instance> instance_;
};

Result<int> import_state(const ImportSettings& settings) {
  Target target = Target::parse(settings.store);
  if (!target.position.empty())
    return fail(Code::kInvalidArgument,
                fmt::format("{}: expected STORE[:BRANCH][:/PATH]; what is imported follows what is there",
                            settings.store));
  snapshot::ImportOptions options = import_options(settings, target);
  snapshot::Imported imported;
  std::unique_ptr<ImportStore> store;
  fs::View before;
  fs::Head wanted = fs::Head::create(options.now);
  bool is_new = !store::Store::looks_like_store(target.store);
  if (is_new) {
    // Nothing is made for what cannot be read.
    TRY(store::Store::check_new(target.store));
    imported = TRY(import_from(settings.from, wanted, options));
    store = TRY(ImportStore::open(target, settings));
    before = store->instance().filesystem().view();
  } else {
    store = TRY(ImportStore::open(target, settings));
    uint64_t left = TRY(
        instance::remove_left_imports(store->instance(), "what an interrupted import has left", options.now));
    if (left > 0) complain("what an interrupted import had left is gone");
    before = store->instance().filesystem().view();
    if (!settings.over) TRY(check_empty(before, target, settings));
    wanted = fs::Head(before);
    imported = TRY(import_from(settings.from, wanted, options));
  }
  instance::Instance& instance = store->instance();
  std::string label = settings.label.empty() ? "import " + settings.from : settings.label;
  auto recorded = instance::record_tree(instance, before, wanted, label, options.now);
  if (!recorded) return std::unexpected(recorded.error().with_context(settings.store));
  imported.replaced -= *recorded;
  store::SnapshotRecord record = TRY(instance.snapshot(label));
  TRY(instance.close());
  store->keep();
  warn_of(imported);
  if (settings.json) {
    nlohmann::json json = {{"id", record.id},
                           {"log_index", record.log_index},
                           {"entries", imported.entries},
                           {"bytes", imported.bytes},
                           {"replaced", imported.replaced},
                           {"duplicates", imported.duplicates},
                           {"case_collisions", imported.case_collisions},
                           {"skipped_devices", imported.skipped_devices},
                           {"skipped_set_ids", imported.skipped_set_ids},
                           {"skipped_xattrs", imported.skipped_xattrs},
                           {"digest", record.digest.to_string()}};
    fmt::print("{}\n", json.dump());
  } else {
    fmt::print("{} entries, {}{}; snapshot {}\n", imported.entries, format_bytes(imported.bytes),
               imported.replaced > 0 ? fmt::format(", {} in the place of others", imported.replaced) : "",
               record.id);
  }
  return kDone;
}

struct ExportWhat {
  std::string state, onto;
  ExportSettings settings;
};

Result<int> export_state(const ExportWhat& what) {
  Destination destination = TRY(Destination::parse(what.onto));
  OpenTarget open = TRY(open_target(Target::parse(what.state)));
  Progress progress("replaying");
  instance::State state = TRY(open.state(std::ref(progress)));
  InodeId top = TRY(directory_at(state.head, open.target.path, what.state));
  auto exported = TRY(destination.write(state.head, top, what.settings));
  fmt::print(destination.report(), "{} entries, {}, in {}\n", entries_of(exported),
             format_bytes(exported.bytes), destination.shown());
  return kDone;
}

}  // namespace

void add_import(Command& snapshot) {
  auto settings = std::make_shared<ImportSettings>();
  Command command =
      snapshot.subcommand("import", "Bring the files of a directory, a ZIP or a tar into a store");
  command.required("store", settings->store, "STORE[:BRANCH][:/PATH]; made if it is not there");
  command.required(
      "from", settings->from,
      "DIR, a ZIP, a tar (also packed by gzip, bzip2, xz or zstd), or - for one on standard input");
  command.flag("--over", settings->over, "lay it over the files that are there");
  command.option("--label", settings->label, "a note for the history and the snapshot");
  command.flag("--set-ids", settings->set_ids, "keep setuid and setgid bits");
  command.flag("--devices", settings->devices, "keep device nodes");
  command.flag("--all-xattrs", settings->all_xattrs, "keep security.* and trusted.* attributes");
  command.option("--max-entries", settings->max_entries,
                 "files and directories at the most (2000000; 0: no limit, here and below)", check_quantity);
  command.option("--max-size", settings->max_size, "bytes of all files at the most, zeros not counted (16G)",
                 check_quantity);
  command.option("--max-file-size", settings->max_file_size, "size of one file at the most (1T)",
                 check_quantity);
  command.option("--max-ratio", settings->max_ratio, "bytes at the most for each of the archive (100)",
                 check_quantity);
  command.option("--max-depth", settings->max_depth, "names in a path at the most (256)", check_quantity);
  command.flag("--json", settings->json, "what was done, as JSON");
  command.does([settings] { return import_state(*settings); });
}

void add_export(Command& snapshot) {
  auto what = std::make_shared<ExportWhat>();
  Command command =
      snapshot.subcommand("export", "Put a state, or a directory of it, into a directory, a ZIP or a tar");
  command.required("state", what->state, "STATE[:/PATH]");
  command.required("to", what->onto, kDestinationHelp);
  add_export_settings(command, what->settings);
  command.does([what] { return export_state(*what); });
}

}  // namespace reprise::cli

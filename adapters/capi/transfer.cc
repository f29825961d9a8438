// Files from the host become an instance's history, and states become files of the host.
#include <fmt/format.h>
#include <sys/stat.h>

#include <cstring>
#include <optional>

#include "adapters/capi/calls.h"
#include "adapters/capi/options.h"
#include "base/host_stream.h"
#include "instance/record_tree.h"
#include "snapshot/export.h"
#include "snapshot/import.h"

namespace reprise::capi {
namespace {

bool is_host_directory(const char* path) {
  struct stat found{};
  return ::stat(path, &found) == 0 && S_ISDIR(found.st_mode);
}

// The directory of this path of a tree; no symlink is followed.
Result<InodeId> directory_at(const fs::Tree& tree, std::string_view path) {
  InodeId at = kRootInode;
  for (std::string_view rest = path; !rest.empty();) {
    size_t end = std::min(rest.find('/'), rest.size());
    std::string_view name = rest.substr(0, end);
    rest.remove_prefix(std::min(end + 1, rest.size()));
    if (name.empty()) continue;
    auto found = tree.lookup(at, name);
    if (!found) return std::unexpected(Error::from_errno(static_cast<int>(found.error()), std::string(path)));
    at = found->inode;
  }
  auto attributes = tree.stat(at);
  if (!attributes || !attributes->is_directory())
    return std::unexpected(Error::from_errno(ENOTDIR, std::string(path)));
  return at;
}

bool is_empty(const fs::Tree& tree, InodeId directory) {
  bool empty = true;
  auto read = tree.read_directory(directory, 0, [&](const fs::Dentry&) { return empty = false; });
  return empty && read;
}

uint64_t limit_of(uint64_t given, uint64_t usual) {
  return given == 0 ? usual : given == UINT64_MAX ? 0 : given;
}

snapshot::ImportOptions options_of(const reprise_import_options& given, Timestamp now) {
  snapshot::ImportOptions options;
  options.limits.entries = limit_of(given.max_entries, options.limits.entries);
  if (given.max_bytes == UINT64_MAX) {
    options.limits.bytes = options.limits.unpacked_bytes = options.limits.ratio = 0;
  } else if (given.max_bytes != 0) {
    options.limits.bytes = given.max_bytes;
    uint64_t with_zeros = given.max_bytes << 4;  // as many times more as it may be by default
    options.limits.unpacked_bytes = with_zeros >> 4 == given.max_bytes ? with_zeros : 0;
  }
  options.set_ids = given.set_ids != 0;
  options.devices = given.devices != 0;
  options.all_xattrs = given.all_xattrs != 0;
  options.into = text_or(given.into, "");
  options.now = now;
  return options;
}

Result<int64_t> import_from(Instance& instance, const char* from, const reprise_import_options& given) {
  const Timestamp now = instance.options.instance.clock.realtime();
  const snapshot::ImportOptions options = options_of(given, now);
  const fs::View before = instance->filesystem().view();
  if (given.over == 0) {
    auto into = directory_at(before, options.into);
    bool missing = !into && into.error().code() == Code::kNotFound;
    if (!missing && !is_empty(before, TRY(std::move(into))))
      return fail(
          Code::kAlreadyExists,
          fmt::format("/{}: expected nothing where the import goes, found files", printable(options.into)));
  }
  fs::Head wanted(before);
  auto imported = is_host_directory(from) ? snapshot::import_directory_into(wanted, from, options)
                                          : snapshot::import_archive(wanted, from, options);
  if (!imported) return std::unexpected(imported.error());
  std::string label = given.label != nullptr ? given.label : instance.options.label;
  TRY(instance::record_tree(*instance, before, wanted, label, now));
  return static_cast<int64_t>(imported->entries);
}

enum class Kind : uint8_t { kDirectory, kZip, kTar };

Kind kind_of(std::string_view path) {
  if (is_host_directory(std::string(path).c_str())) return Kind::kDirectory;
  return path.ends_with(".zip") ? Kind::kZip : path.ends_with(".tar") ? Kind::kTar : Kind::kDirectory;
}

Result<snapshot::Exported> export_to(const fs::Tree& tree, InodeId top, const char* to,
                                     const reprise_export_options& given) {
  snapshot::ExportOptions options;
  options.owners = given.owners != 0;
  options.set_ids = given.set_ids != 0;
  options.devices = given.devices != 0;
  options.all_xattrs = given.all_xattrs != 0;
  Kind kind = kind_of(to);
  if (kind == Kind::kDirectory) {
    return given.over != 0 && is_host_directory(to)
               ? snapshot::export_over_directory(tree, top, to, options, system_random())
               : snapshot::export_directory(tree, top, to, options, system_random());
  }
  auto staged = TRY(StagedFile::begin(to, system_random()));
  auto exported = TRY(kind == Kind::kTar ? snapshot::export_tar(tree, top, *staged, options)
                                         : snapshot::export_zip(tree, top, staged->file(), options));
  TRY(staged->publish());
  return exported;
}

}  // namespace
}  // namespace reprise::capi

using namespace reprise;
using namespace reprise::capi;

int64_t reprise_import(reprise_instance* handle, const char* from, const reprise_import_options* options) {
  constexpr const char* kCall = "reprise_import";
  return with(handle, kCall, [&](Instance& instance) -> int64_t {
    if (from == nullptr || *from == '\0') return refuse_null(kCall, "a path of the host");
    reprise_import_options given = REPRISE_IMPORT_OPTIONS_INIT;
    if (options != nullptr) {
      if (int wrong = take_options(given, options, kCall); wrong != 0) return wrong;
    }
    if (given.label != nullptr && std::strlen(given.label) > journal::kLabelLimit)
      return refuse(EINVAL, fmt::format("{}: label: expected at most {} bytes, found {}", kCall,
                                        journal::kLabelLimit, std::strlen(given.label)));
    if (instance->follower())
      return refuse(EROFS, fmt::format("{}: a follower takes nothing but what its leader sends", kCall));
    auto imported = import_from(instance, from, given);
    return imported ? *imported : refuse(imported.error());
  });
}

int64_t reprise_export(reprise_instance* handle, const char* to, const reprise_export_options* options) {
  constexpr const char* kCall = "reprise_export";
  return with(handle, kCall, [&](Instance& instance) -> int64_t {
    if (to == nullptr || *to == '\0') return refuse_null(kCall, "a path of the host");
    reprise_export_options given = REPRISE_EXPORT_OPTIONS_INIT;
    if (options != nullptr) {
      if (int wrong = take_options(given, options, kCall); wrong != 0) return wrong;
    }
    auto tree = tree_at(instance, given.position);
    if (!tree) return refuse(tree.error());
    auto top = directory_at(*tree, text_or(given.from, ""));
    if (!top) return refuse(top.error());
    auto written = export_to(*tree, *top, to, given);
    if (!written) return refuse(written.error());
    return static_cast<int64_t>(written->files + written->directories + written->symlinks + written->others +
                                written->hard_links);
  });
}

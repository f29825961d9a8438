#include "tools/cli/exported.h"

#include <fmt/format.h>
#include <unistd.h>

#include <filesystem>

#include "base/host_stream.h"

namespace reprise::cli {
namespace {

void warn_of_skipped(const snapshot::Exported& exported, bool zip) {
  auto warn = [](uint64_t count, const char* what) {
    if (count > 0) fmt::print(stderr, "reprise: left out {} {}\n", count, what);
  };
  warn(exported.skipped_devices,
       zip ? "device nodes, which a ZIP does not hold" : "device nodes (--devices makes them)");
  warn(exported.skipped_others, "FIFOs, which a ZIP does not hold");
  warn(exported.skipped_sockets, "sockets");
  warn(exported.skipped_set_ids, "setuid or setgid bits (--owners keeps them)");
  warn(exported.skipped_xattrs, zip ? "extended attributes, which a ZIP does not hold"
                                    : "extended attributes (--all-xattrs keeps what can be kept)");
  if (exported.copied_hard_links > 0)
    fmt::print(stderr, "reprise: {} hard links have become files of their own\n", exported.copied_hard_links);
}

// From a file that can be read again, to where nothing can be changed any more.
Status copy(const File& from, ByteSink& to) {
  Bytes buffer(1 << 20);
  for (uint64_t at = 0;;) {
    size_t got = TRY(from.pread(buffer, at));
    TRY(to.write(ByteView(buffer).first(got)));
    at += got;
    if (got < buffer.size()) return {};
  }
}

}  // namespace

void add_export_settings(Command& command, ExportSettings& settings) {
  command.options(
      "--include", settings.include,
      "only what matches this pattern, and what is below it: a name, or with a / a path (repeatable)");
  command.options("--exclude", settings.exclude, "not what matches this pattern (repeatable)");
  command.flag("--over", settings.over,
               "into a directory with files in it, whose own stay where nothing takes their place");
  command.flag("--owners", settings.owners,
               "keep setuid and setgid bits; in a directory set owners and groups, too (root)");
  command.flag("--devices", settings.devices, "make device nodes (in a directory: root)");
  command.flag("--all-xattrs", settings.all_xattrs,
               "keep security.* and trusted.* attributes (in a directory: root)");
}

Result<Destination> Destination::parse(const std::string& text) {
  Destination to;
  to.path_ = text;
  std::error_code ignored;
  auto named = [&](std::string_view suffix) { return text.size() > suffix.size() && text.ends_with(suffix); };
  if (text.starts_with("dir:") || text.starts_with("zip:") || text.starts_with("tar:")) {
    to.path_ = text.substr(4);
    to.kind_ = text[0] == 'd' ? Kind::kDirectory : text[0] == 'z' ? Kind::kZip : Kind::kTar;
  } else if (std::filesystem::is_directory(text, ignored)) {
    to.kind_ = Kind::kDirectory;
  } else if (named(".zip")) {
    to.kind_ = Kind::kZip;
  } else if (text == "-" || named(".tar")) {
    to.kind_ = Kind::kTar;
  } else if (named(".tar.gz") || named(".tgz") || named(".tar.bz2") || named(".tar.xz") ||
             named(".tar.zst")) {
    return fail(
        Code::kInvalidArgument,
        fmt::format("{}: a tar is not packed here; export to - and pipe it through gzip, xz or zstd, or say "
                    "dir: or tar: before it if that is meant",
                    printable(text)));
  }
  if (to.path_.empty()) return fail(Code::kInvalidArgument, "expected where to put it, found an empty path");
  if (to.is_stream() && isatty(STDOUT_FILENO) != 0)
    return fail(Code::kInvalidArgument, "an archive is not written to a terminal; redirect standard output");
  return to;
}

Result<snapshot::Exported> Destination::write(const fs::Tree& tree, InodeId top,
                                              const ExportSettings& settings) const {
  snapshot::ExportOptions options;
  options.owners = options.set_ids = settings.owners;
  options.devices = settings.devices;
  options.all_xattrs = settings.all_xattrs;
  options.filter = {settings.include, settings.exclude};
  if (settings.over && kind_ != Kind::kDirectory) {
    return fail(Code::kInvalidArgument,
                fmt::format("{}: --over is for directories; an archive is replaced", printable(path_)));
  }
  std::error_code ignored;
  auto exported = kind_ != Kind::kDirectory ? write_archive(tree, top, options)
                  : settings.over && std::filesystem::is_directory(path_, ignored)
                      ? snapshot::export_over_directory(tree, top, path_, options, system_random())
                      : snapshot::export_directory(tree, top, path_, options, system_random());
  if (exported) warn_of_skipped(*exported, kind_ == Kind::kZip);
  return exported;
}

Result<snapshot::Exported> Destination::write_archive(const fs::Tree& tree, InodeId top,
                                                      const snapshot::ExportOptions& options) const {
  if (is_stream()) {
    auto out = standard_output();
    if (kind_ == Kind::kTar) return snapshot::export_tar(tree, top, *out, options);
    // A ZIP is not written from front to back.
    auto file = TRY(make_unnamed_file());
    auto exported = TRY(snapshot::export_zip(tree, top, *file, options));
    TRY(copy(*file, *out));
    return exported;
  }
  auto staged = TRY(StagedFile::begin(path_, system_random()));
  auto exported = TRY(kind_ == Kind::kTar ? snapshot::export_tar(tree, top, *staged, options)
                                          : snapshot::export_zip(tree, top, staged->file(), options));
  TRY(staged->publish());
  return exported;
}

uint64_t entries_of(const snapshot::Exported& exported) {
  return exported.files + exported.directories + exported.symlinks + exported.others + exported.hard_links;
}

}  // namespace reprise::cli

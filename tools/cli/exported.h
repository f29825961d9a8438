// Where a tree goes when it leaves a store: a directory, a ZIP, a tar, or standard output. For `snapshot
// export` and `replay`.
#pragma once

#include <cstdio>
#include <string>
#include <vector>

#include "snapshot/export.h"
#include "tools/cli/command.h"

namespace reprise::cli {

inline constexpr const char* kDestinationHelp =
    "DIR, empty or not there yet, FILE.zip, FILE.tar, or - for a tar on standard output; zip:, tar: and dir: "
    "before it "
    "say which";

struct ExportSettings {
  bool owners = false, devices = false, all_xattrs = false, over = false;
  std::vector<std::string> include, exclude;
};
// --owners, --devices, --all-xattrs, --include, --exclude and --over.
void add_export_settings(Command& command, ExportSettings& settings);

class Destination {
 public:
  // kInvalidArgument for what cannot be written to: before anything is done for it.
  static Result<Destination> parse(const std::string& text);

  // Warns of what is left out.
  Result<snapshot::Exported> write(const fs::Tree& tree, InodeId top, const ExportSettings& settings) const;

  // Where to say what was done: standard output, unless that is the destination.
  std::FILE* report() const { return is_stream() ? stderr : stdout; }
  std::string shown() const { return is_stream() ? "standard output" : path_; }

 private:
  enum class Kind : uint8_t { kDirectory, kZip, kTar };
  bool is_stream() const { return path_ == "-" && kind_ != Kind::kDirectory; }
  Result<snapshot::Exported> write_archive(const fs::Tree& tree, InodeId top,
                                           const snapshot::ExportOptions& options) const;

  Kind kind_ = Kind::kDirectory;
  std::string path_;
};

uint64_t entries_of(const snapshot::Exported& exported);

}  // namespace reprise::cli

#include "tools/cli/outside.h"

#include <fmt/format.h>

#include <filesystem>

#include "store/store.h"
#include "tools/cli/progress.h"
#include "tools/cli/target.h"

namespace reprise::cli {

Outside Outside::parse(const std::string& text) {
  if (text.starts_with("dir:")) return {Kind::kDirectory, text.substr(4)};
  if (text.starts_with("zip:") || text.starts_with("tar:")) return {Kind::kArchive, text.substr(4)};
  std::error_code ignored;
  if (text.starts_with("store:") || store::Store::looks_like_store(text)) return {Kind::kNone, text};
  if (std::filesystem::is_directory(text, ignored)) return {Kind::kDirectory, text};
  if (std::filesystem::is_regular_file(text, ignored)) return {Kind::kArchive, text};
  return {Kind::kNone, text};
}

Result<fs::Head> Outside::read() const {
  Progress progress("reading " + path);
  auto show = [&](const snapshot::Imported& done) {
    progress.show(fmt::format("{} entries, {}", done.entries, format_bytes(done.bytes)));
  };
  if (kind == Kind::kDirectory) return snapshot::import_directory(path, show);
  fs::Head head = fs::Head::create(Timestamp{});
  snapshot::ImportOptions options = snapshot::ImportOptions::everything();
  options.limits = {};
  TRY(snapshot::import_archive(head, path, options, show));
  return head;
}

}  // namespace reprise::cli

#include "tools/cli/difference.h"

#include <fmt/format.h>

#include "base/bytes.h"

namespace reprise::cli {
namespace {

std::string shown_path(const std::string& path, const std::optional<fs::Attributes>& attributes) {
  return printable(path) + (attributes && attributes->is_directory() ? "/" : "");
}

}  // namespace

std::string letters(const PathDifference& change) {
  if (change.added()) return "A";
  if (change.deleted()) return "D";
  if (change.type_changed()) return "T";
  std::string text;
  if (change.renamed()) text += 'R';
  if (change.content) text += 'M';
  if (change.attributes) text += 'P';
  return text;
}

std::string names_of(const PathDifference& change) {
  std::string path = shown_path(change.path, change.after ? change.after : change.before);
  return change.renamed() ? shown_path(change.old_path, change.before) + " -> " + path : path;
}

std::string line_of(const PathDifference& change) {
  return fmt::format("{:<3} {}", letters(change), names_of(change));
}

}  // namespace reprise::cli

#include "fs/operation.h"

namespace reprise::fs {
namespace {

struct Name {
  std::string_view operator()(const Create&) const { return "create"; }
  std::string_view operator()(const Link&) const { return "link"; }
  std::string_view operator()(const Unlink&) const { return "unlink"; }
  std::string_view operator()(const Rmdir&) const { return "rmdir"; }
  std::string_view operator()(const Rename&) const { return "rename"; }
  std::string_view operator()(const Write&) const { return "write"; }
  std::string_view operator()(const Truncate&) const { return "truncate"; }
  std::string_view operator()(const Allocate&) const { return "allocate"; }
  std::string_view operator()(const CopyRange&) const { return "copy-range"; }
  std::string_view operator()(const SetAttributes&) const { return "set-attributes"; }
  std::string_view operator()(const SetXattr&) const { return "set-xattr"; }
  std::string_view operator()(const RemoveXattr&) const { return "remove-xattr"; }
  std::string_view operator()(const Barrier&) const { return "barrier"; }
  std::string_view operator()(const ClaimPrefix&) const { return "claim-prefix"; }
  std::string_view operator()(const SetLimits&) const { return "set-limits"; }
};

}  // namespace

bool is_mark(std::string_view name) {
  auto is_letter = [](char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_'; };
  if (name.empty() || name.size() > kMarkMax || !is_letter(name[0]) || name == "head") return false;
  for (char c : name)
    if (!is_letter(c) && !(c >= '0' && c <= '9') && c != '.' && c != '-') return false;
  return true;
}

std::string_view operation_name(const Operation& operation) {
  return std::visit(Name{}, operation);
}

}  // namespace reprise::fs

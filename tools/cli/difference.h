// How a path that differs is shown.
#pragma once

#include <string>

#include "instance/compare.h"

namespace reprise::cli {

using instance::PathDifference;

// One letter for each thing that changed: A added, D deleted, T another type, R renamed, M bytes, P
// permissions, owner, times or extended attributes.
std::string letters(const PathDifference& change);
std::string names_of(const PathDifference& change);  // "path", "dir/", "old -> new"; printable
std::string line_of(const PathDifference& change);   // both, as `diff` shows them

}  // namespace reprise::cli

#include "fs/reservations.h"

#include <algorithm>

namespace reprise::fs {
namespace {

// The first range that ends behind `block`.
auto first_past(auto& ranges, uint64_t block) {
  auto at = ranges.upper_bound(block);
  if (at != ranges.begin() && std::prev(at)->second > block) --at;
  return at;
}

}  // namespace

uint64_t Reservations::count(InodeId inode, BlockRange range) const {
  auto file = files_.find(inode);
  if (file == files_.end()) return 0;
  uint64_t found = 0;
  for (auto at = first_past(file->second, range.first); at != file->second.end() && at->first < range.end;
       ++at)
    found += std::min(at->second, range.end) - std::max(at->first, range.first);
  return found;
}

void Reservations::add(InodeId inode, BlockRange range) {
  if (range.first >= range.end) return;
  remove(inode, range);
  files_[inode].emplace(range.first, range.end);
  total_ += range.end - range.first;
}

void Reservations::remove(InodeId inode, BlockRange range) {
  auto file = files_.find(inode);
  if (file == files_.end()) return;
  Ranges& ranges = file->second;
  for (auto at = first_past(ranges, range.first); at != ranges.end() && at->first < range.end;) {
    const auto [first, end] = *at;
    at = ranges.erase(at);
    if (first < range.first) ranges.emplace(first, range.first);
    if (end > range.end) ranges.emplace(range.end, end);
    total_ -= std::min(end, range.end) - std::max(first, range.first);
  }
  if (ranges.empty()) files_.erase(file);
}

void Reservations::remove_all(InodeId inode) {
  remove(inode, {.first = 0, .end = ~uint64_t{0}});
}

void Reservations::clear() {
  files_.clear();
  total_ = 0;
}

}  // namespace reprise::fs

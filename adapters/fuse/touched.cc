#include "adapters/fuse/touched.h"

#include <algorithm>

namespace reprise::fuse {
namespace {

constexpr uint64_t kToEnd = TouchedInode::kToEnd;

uint64_t end_of(uint64_t offset, uint64_t length) {
  return length > kToEnd - offset ? kToEnd : offset + length;
}

TouchedInode attributes_of(InodeId inode) {
  return {inode, 0, 0};
}
TouchedInode listing_of(InodeId directory) {
  return {directory, 0, kToEnd};
}

}  // namespace

Touched Touched::by(std::span<const fs::Operation> operations) {
  Touched touched;
  for (const fs::Operation& operation : operations) touched.add(operation);
  touched.settle();
  return touched;
}

Touched Touched::everything() {
  Touched touched;
  touched.everything_ = true;
  return touched;
}

void Touched::add(const fs::Operation& operation) {
  struct Visitor {
    std::vector<TouchedName>& names;
    std::vector<TouchedInode>& inodes;

    void name_in(InodeId parent, std::string_view name, InodeId inode) {
      names.push_back({parent, name});
      inodes.push_back(listing_of(parent));
      if (inode) inodes.push_back(attributes_of(inode));
    }

    void operator()(const fs::Create& o) { name_in(o.parent, o.name, o.inode); }
    void operator()(const fs::Link& o) { name_in(o.parent, o.name, o.inode); }
    void operator()(const fs::Unlink& o) { name_in(o.parent, o.name, o.inode); }
    void operator()(const fs::Rmdir& o) { name_in(o.parent, o.name, o.inode); }
    void operator()(const fs::Rename& o) {
      name_in(o.old_parent, o.old_name, o.inode);
      name_in(o.new_parent, o.new_name, o.replaced);
    }
    void operator()(const fs::Write& o) {
      inodes.push_back({o.inode, o.offset, end_of(o.offset, o.data.size())});
    }
    void operator()(const fs::Truncate& o) { inodes.push_back({o.inode, o.size, kToEnd}); }
    void operator()(const fs::Allocate& o) {
      bool moves = o.change == fs::RangeChange::kCollapse || o.change == fs::RangeChange::kInsert;
      inodes.push_back({o.inode, o.offset, moves ? kToEnd : end_of(o.offset, o.length)});
    }
    void operator()(const fs::CopyRange& o) {
      inodes.push_back({o.to, o.to_offset, end_of(o.to_offset, o.length)});
    }
    void operator()(const fs::SetAttributes& o) { inodes.push_back(attributes_of(o.inode)); }
    void operator()(const fs::SetXattr& o) { inodes.push_back(attributes_of(o.inode)); }
    void operator()(const fs::RemoveXattr& o) { inodes.push_back(attributes_of(o.inode)); }
    void operator()(const fs::Barrier&) {}
    void operator()(const fs::ClaimPrefix&) {}
    void operator()(const fs::SetLimits&) {}
  };
  std::visit(Visitor{names_, inodes_}, operation);
}

void Touched::settle() {
  std::ranges::sort(names_);
  names_.erase(std::unique(names_.begin(), names_.end()), names_.end());
  std::ranges::sort(inodes_);
  std::vector<TouchedInode> merged;
  for (const TouchedInode& next : inodes_) {
    // In order of offset, so a range either meets the last one of its inode or begins after it. An empty
    // range gives way to the next one: dropping bytes drops the attributes too.
    bool same = !merged.empty() && merged.back().inode == next.inode;
    if (same && next.offset <= merged.back().end) {
      merged.back().end = std::max(merged.back().end, next.end);
    } else if (same && merged.back().offset == merged.back().end) {
      merged.back() = next;
    } else {
      merged.push_back(next);
    }
  }
  inodes_ = std::move(merged);
}

bool Touched::name(InodeId parent, std::string_view name) const {
  return everything_ || std::ranges::binary_search(names_, TouchedName{parent, name});
}

bool Touched::inode(InodeId inode) const {
  return everything_ || !of(inode).empty();
}

std::span<const TouchedInode> Touched::of(InodeId inode) const {
  auto found = std::ranges::equal_range(inodes_, inode, {}, &TouchedInode::inode);
  return {found.begin(), found.end()};
}

// A range that is read at several places is noted from the first to the last of them.
void Marks::note(InodeId inode, uint64_t offset, uint64_t length) {
  if (touched_->is_everything()) {
    if (std::ranges::find(read_, inode, &TouchedInode::inode) == read_.end())
      read_.push_back({inode, 0, TouchedInode::kToEnd});
    return;
  }
  for (const TouchedInode& range : touched_->of(inode)) {
    uint64_t begin = std::max(range.offset, offset), end = std::min(range.end, end_of(offset, length));
    if (begin >= end) continue;
    auto same = [&](const TouchedInode& noted) {
      return noted.inode == inode && noted.offset >= range.offset && noted.end <= range.end;
    };
    if (auto noted = std::ranges::find_if(read_, same); noted != read_.end()) {
      noted->offset = std::min(noted->offset, begin);
      noted->end = std::max(noted->end, end);
    } else {
      read_.push_back({inode, begin, end});
    }
  }
}

}  // namespace reprise::fuse

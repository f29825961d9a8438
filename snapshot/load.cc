#include "snapshot/load.h"

#include <fmt/format.h>

#include "snapshot/snapshot.h"

namespace reprise::snapshot {
namespace {

// A tree of blobs is no deeper than an inode table (17) with a directory (25) in it.
constexpr size_t kDepthMax = 64;

// A blob on the way down whose children are being fetched.
struct Open {
  BlobId id;
  Bytes bytes;
  std::vector<BlobId> children;
  size_t next = 0;
};

Result<Open> fetch(BlobId id, store::BlobSource& source, ChildrenOf children_of) {
  Bytes bytes = TRY(source.get(id));
  Open open{.id = id, .bytes = std::move(bytes)};
  auto children = children_of(open.bytes);
  if (!children) {
    return fail(Code::kCorrupt,
                fmt::format("blob {}: expected a node of a tree, found other bytes", id.to_string()));
  }
  open.children = std::move(*children);
  return open;
}

}  // namespace

Status add_with_children(TreeBuilder& builder, BlobId root, store::BlobSource& source,
                         ChildrenOf children_of) {
  std::vector<Open> way;
  way.push_back(TRY(fetch(root, source, children_of)));
  while (!way.empty()) {
    Open& open = way.back();
    if (open.next == open.children.size()) {
      TRY(builder.add(open.id, open.bytes));
      way.pop_back();
      continue;
    }
    BlobId child = open.children[open.next++];
    if (builder.has(child)) continue;
    if (way.size() >= kDepthMax) {
      return fail(Code::kCorrupt, fmt::format("tree {}: expected at most {} levels of blobs, found more",
                                              root.to_string(), kDepthMax));
    }
    way.push_back(TRY(fetch(child, source, children_of)));
  }
  return {};
}

Result<fs::View> load(BlobId root, store::BlobSource& source, Remember remember, const LoadLimits& limits,
                      std::shared_ptr<fs::Source> rests_on) {
  TreeBuilder builder(limits, remember, std::move(rests_on));
  TRY(add_with_children(builder, root, source, children_of));
  return builder.finish(root);
}

}  // namespace reprise::snapshot

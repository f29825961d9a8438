// Fetching blobs for a TreeBuilder, children first. Inside snapshot/ only.
#pragma once

#include "snapshot/tree_builder.h"
#include "store/blob.h"

namespace reprise::snapshot {

using ChildrenOf = std::optional<std::vector<BlobId>> (*)(ByteView blob);

// Adds the blob and what children_of says is below it. kNotFound, kCorrupt.
Status add_with_children(TreeBuilder& builder, BlobId root, store::BlobSource& source,
                         ChildrenOf children_of);

}  // namespace reprise::snapshot

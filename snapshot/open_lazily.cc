#include <fmt/format.h>

#include <mutex>
#include <unordered_set>

#include "fs/file_content.h"
#include "fs/lazy_node.h"
#include "snapshot/load.h"
#include "snapshot/snapshot.h"

namespace reprise::snapshot {
namespace {

std::string dependent_on(const fs::LazyNode& lazy) {
  if (lazy.stands_for == fs::LazyNode::For::kPart) {
    const uint64_t begin = lazy.first_block * fs::kBlockSize;
    const uint64_t length = fs::kBlockSize << (fs::kFanoutBits * (lazy.level + 1));
    return fmt::format("bytes {} to {} of inode {:#x}", begin,
                       begin + std::min(length, lazy.size - std::min(lazy.size, begin)), lazy.base);
  }
  if (!lazy.of_table())
    return fmt::format("the {} of inode {:#x} ({})", S_ISDIR(lazy.mode) ? "names" : "bytes", lazy.base,
                       S_ISDIR(lazy.mode) ? fmt::format("{} entries", lazy.size) : format_bytes(lazy.size));
  if (lazy.bits >= 64) return "all inodes";
  return fmt::format("inodes {:#x} to {:#x}", lazy.base, lazy.base + ((uint64_t{1} << lazy.bits) - 1));
}

// What the LazyNodes of one opening load from.
class Nodes final : public fs::NodeSource, public std::enable_shared_from_this<Nodes> {
 public:
  Nodes(const std::shared_ptr<store::BlobSource>& blobs, std::function<void(const Error&)> damaged,
        std::shared_ptr<fs::Source> rests_on)
      : blobs_(blobs), damaged_(std::move(damaged)), rests_on_(std::move(rests_on)) {}

  fs::Outcome<fs::Node*> load(const fs::LazyNode& lazy) override {
    auto node = build(lazy);
    if (node) return *node;
    report(lazy, node.error());
    return fs::errno_of(EIO);
  }
  void refuse(const fs::LazyNode& lazy, std::string_view why) override {
    report(lazy, Error(Code::kCorrupt, std::string(why)));
  }

 private:
  Result<fs::Node*> build(const fs::LazyNode& lazy) {
    const auto blobs = blobs_.lock();
    if (blobs == nullptr) return fail(Code::kUnreachable, "the store has been closed");
    if (!lazy.of_table() && S_ISREG(lazy.mode)) {
      const Bytes blob = TRY(blobs->get(lazy.stored));
      if (fs::Node* node = build_part(lazy, blob)) return node;
    }
    // What does not come in parts: a directory, or a file as a former version stored it.
    TreeBuilder builder({}, Remember::kYes, rests_on_, shared_from_this());
    TRY(add_with_children(builder, lazy.stored, *blobs, children_needed));
    return builder.take_node(lazy.stored);
  }

  // A node of a file by itself, with LazyNodes for what is below. Null if the blob is no such node.
  static fs::Node* build_part(const fs::LazyNode& lazy, ByteView blob) {
    if (fs::FileLeaf* leaf = parse_file_leaf(blob)) {
      fs::file_content::hash_blocks(*leaf, lazy.first_block);
      fs::mark_stored(*leaf, lazy.stored);
      return leaf;
    }
    const auto in = parse_inner(blob);
    if (!in || in->kind != fs::NodeKind::kFileInner || !in->summed) return nullptr;
    auto* inner = new fs::FileInner;
    inner->level = in->level;
    for (int i = 0; i < fs::kFanout; i++) {
      if ((in->mask >> i & 1) == 0) continue;
      inner->child[i] = new fs::LazyNode(lazy, in->level, i, in->child[i], in->sum[i], in->blocks[i]);
      inner->sum += in->sum[i];
      inner->blocks += in->blocks[i];
    }
    fs::mark_stored(*inner, lazy.stored);
    return inner;
  }

  // Each damage once, however often it is run into.
  void report(const fs::LazyNode& lazy, const Error& why) {
    {
      std::lock_guard lock(mutex_);
      if (!reported_.insert(lazy.stored).second) return;
    }
    damaged_(Error(why).with_context(
        fmt::format("blob {}, on which {} depend", lazy.stored.to_string(), dependent_on(lazy))));
  }

  const std::weak_ptr<store::BlobSource> blobs_;  // a tree does not keep its store open
  const std::function<void(const Error&)> damaged_;
  const std::shared_ptr<fs::Source> rests_on_;
  std::mutex mutex_;
  std::unordered_set<BlobId> reported_;
};

}  // namespace

Result<fs::View> open_lazily(BlobId root, const std::shared_ptr<store::BlobSource>& source,
                             std::function<void(const Error&)> damaged,
                             std::shared_ptr<fs::Source> rests_on) {
  const Bytes blob = TRY(source->get(root));
  const auto volume = parse_volume(blob);
  if (!volume || !volume->has_totals()) {
    return fail(Code::kUnsupported, fmt::format("tree {}: expected a volume that says what it holds, found a "
                                                "snapshot of a former version",
                                                root.to_string()));
  }
  auto nodes = std::make_shared<Nodes>(source, std::move(damaged), std::move(rests_on));
  constexpr int kIdBits = 64;
  auto view = fs::View::open(new fs::LazyNode(nodes, volume->table, volume->totals.digest, 0, kIdBits),
                             {volume->totals.inodes, volume->totals.blocks}, volume->limits);
  if (view) return std::move(*view);
  return fail(Code::kCorrupt, fmt::format("tree {}: expected a root directory, found none that can be loaded",
                                          root.to_string()));
}

}  // namespace reprise::snapshot

#include "snapshot/node_format.h"

#include <algorithm>
#include <bit>

#include "fs/xattrs.h"

namespace reprise::snapshot {
namespace {

using fs::NodeKind;

constexpr int kLevelMax = 24;
constexpr uint8_t kVolumeKind = 9;  // after those of fs::NodeKind

enum ContentForm : uint8_t { kNone = 0, kSmall = 1, kDirectory = 2, kInBlob = 3, kRests = 4, kSummed = 5 };
enum XattrForm : uint8_t { kNoXattrs = 0, kXattrsInline = 1, kXattrsInBlob = 2 };

// An inode in a page, before its content.
struct __attribute__((packed)) InodeRecord {
  uint32_t mode, uid, gid, nlink;
  uint64_t size, rdev_or_parent;
  int64_t atime_sec, mtime_sec, ctime_sec;
  uint32_t atime_nsec, mtime_nsec, ctime_nsec;
  uint8_t content_form, xattr_form;
  uint16_t zero;
};
static_assert(sizeof(InodeRecord) == 72);

Bytes begin(NodeKind kind, uint8_t version = kNodeVersion) {
  Bytes out;
  append_value(out, kind);
  append_value(out, version);
  return out;
}

uint8_t version_of(ByteView blob) {
  return std::to_integer<uint8_t>(blob[1]);
}

// The rest of a blob of this kind; nullopt if it is another.
std::optional<ByteReader> open(ByteView blob, NodeKind kind) {
  if (kind_of(blob) != kind) return std::nullopt;
  return ByteReader(blob.subspan(kNodeHeaderBytes));
}

void append_id(Bytes& out, const BlobId& id) {
  append_value(out, id.lo);
  append_value(out, id.hi);
}
BlobId take_id(ByteReader& in) {
  BlobId id;
  id.lo = in.value<uint64_t>();
  id.hi = in.value<uint64_t>();
  return id;
}

// count u16, then each: ordinal u16, inode u64, type u8, name length u8, name.
void append_dir_leaf(Bytes& out, const fs::DirLeaf& leaf) {
  append_value(out, leaf.count);
  for (int i = 0; i < leaf.count; i++) {
    const fs::DirLeaf::Slot& slot = leaf.slots()[i];
    constexpr fs::DirKey kOrdinals = (fs::DirKey{1} << fs::kDirOrdinalBits) - 1;
    append_value(out, static_cast<uint16_t>(slot.key & kOrdinals));
    append_value(out, static_cast<uint64_t>(slot.inode));
    append_value(out, slot.type);
    append_value(out, slot.name_length);
    append_bytes(out, as_bytes(leaf.name(slot)));
  }
}

struct DirEntry {
  uint16_t ordinal;
  uint64_t inode;
  uint8_t type;
  std::string_view name;
};
// The bytes that a leaf takes up, or nullopt if it is none.
template <class Visit>
bool take_dir_leaf(ByteReader& in, const Visit& visit) {
  auto count = in.value<uint16_t>();
  if (count == 0 || count > fs::DirLeaf::kMaxCapacity / sizeof(fs::DirLeaf::Slot)) return false;
  for (int i = 0; i < count; i++) {
    DirEntry entry;
    entry.ordinal = in.value<uint16_t>();
    entry.inode = in.value<uint64_t>();
    entry.type = in.value<uint8_t>();
    auto length = in.value<uint8_t>();
    entry.name = as_text(in.take(length));
    if (!in.ok() || entry.ordinal >> fs::kDirOrdinalBits != 0 || entry.name.empty()) return false;
    visit(entry);
  }
  return true;
}

fs::DirLeaf* build_dir_leaf(ByteReader in) {
  ByteReader measured = in;
  size_t used = 0;
  bool whole =
      take_dir_leaf(measured, [&](const DirEntry& e) { used += sizeof(fs::DirLeaf::Slot) + e.name.size(); });
  if (!whole || !measured.at_end() || used > fs::DirLeaf::kMaxCapacity) return nullptr;
  size_t capacity = fs::DirLeaf::kMinCapacity;
  while (capacity < used) capacity += 256;  // as directories do, so that leaves have few sizes
  auto* leaf =
      fs::DirLeaf::create(static_cast<uint16_t>(std::min<size_t>(capacity, fs::DirLeaf::kMaxCapacity)));
  take_dir_leaf(in, [&](const DirEntry& e) {
    leaf->names_begin = static_cast<uint16_t>(leaf->names_begin - e.name.size());
    std::memcpy(leaf->bytes() + leaf->names_begin, e.name.data(), e.name.size());
    leaf->slots()[leaf->count++] = {fs::dir_hash(e.name) + e.ordinal, e.inode, leaf->names_begin,
                                    static_cast<uint8_t>(e.name.size()), e.type};
  });
  return leaf;
}

}  // namespace

std::optional<NodeKind> kind_of(ByteView blob) {
  if (blob.size() < kNodeHeaderBytes || blob.size() > kNodeBlobMax) return std::nullopt;
  auto kind = std::to_integer<uint8_t>(blob[0]);
  if (kind < 1 || kind > 8) return std::nullopt;
  auto known = static_cast<NodeKind>(kind);
  bool may_say_sums =
      known == NodeKind::kTableInner || known == NodeKind::kTablePage || known == NodeKind::kFileInner;
  if (version_of(blob) > (may_say_sums ? kSummedVersion : kNodeVersion)) return std::nullopt;
  return known;
}

Bytes encode_volume(const VolumeNode& node) {
  Bytes out;
  append_value(out, kVolumeKind);
  append_value(out, node.has_totals() ? kSummedVersion : kNodeVersion);
  append_id(out, node.table);
  append_value(out, node.limits.bytes);
  append_value(out, node.limits.inodes);
  append_value(out, node.limits.file_size);
  append_value(out, node.limits.names_per_directory);
  append_value(out, node.limits.depth);
  if (node.has_totals()) {
    append_value(out, node.totals.inodes);
    append_value(out, node.totals.blocks);
    append_id(out, node.totals.digest);
  }
  return out;
}

std::optional<VolumeNode> parse_volume(ByteView blob) {
  ByteReader in(blob);
  if (in.value<uint8_t>() != kVolumeKind) return std::nullopt;
  auto version = in.value<uint8_t>();
  if (version > kSummedVersion) return std::nullopt;
  VolumeNode node;
  node.table = take_id(in);
  node.limits.bytes = in.value<uint64_t>();
  node.limits.inodes = in.value<uint64_t>();
  node.limits.file_size = in.value<uint64_t>();
  node.limits.names_per_directory = in.value<uint64_t>();
  node.limits.depth = in.value<uint32_t>();
  if (version == kSummedVersion) {
    node.totals.inodes = in.value<uint64_t>();
    node.totals.blocks = in.value<uint64_t>();
    node.totals.digest = take_id(in);
  }
  if (!in.ok() || !in.at_end() || !node.table) return std::nullopt;
  if (version == kSummedVersion ? !node.has_totals() : node.limits == fs::SetLimits{}) return std::nullopt;
  return node;
}

Bytes encode_inner(const InnerNode& node) {
  Bytes out = begin(node.kind, node.summed ? kSummedVersion : kNodeVersion);
  append_value(out, node.kind == NodeKind::kTableInner ? node.shift : node.level);
  append_value(out, uint8_t{0});
  append_value(out, node.mask);
  if (node.kind == NodeKind::kTableInner) append_value(out, node.base);
  for (int i = 0; i < fs::kFanout; i++) {
    if ((node.mask >> i & 1) == 0) continue;
    if (node.kind == NodeKind::kDirInner) append_value(out, node.key[i]);
    append_id(out, node.child[i]);
    if (node.summed) append_id(out, node.sum[i]);
    if (node.summed && node.kind == NodeKind::kFileInner) append_value(out, node.blocks[i]);
  }
  return out;
}

std::optional<InnerNode> parse_inner(ByteView blob) {
  auto kind = kind_of(blob);
  if (kind != NodeKind::kTableInner && kind != NodeKind::kDirInner && kind != NodeKind::kFileInner)
    return std::nullopt;
  ByteReader in(blob.subspan(kNodeHeaderBytes));
  InnerNode node{.kind = *kind};
  node.summed = version_of(blob) == kSummedVersion;
  auto height = in.value<uint8_t>();
  auto zero = in.value<uint8_t>();
  node.mask = in.value<uint16_t>();
  if (zero != 0 || node.mask == 0) return std::nullopt;
  if (kind == NodeKind::kTableInner) {
    node.shift = height;
    node.base = in.value<uint64_t>();
    if (height < fs::kFanoutBits || height > 60 || height % fs::kFanoutBits != 0) return std::nullopt;
  } else {
    node.level = height;
    if (height < 1 || height > kLevelMax) return std::nullopt;
    // A directory's children have no gaps.
    if (kind == NodeKind::kDirInner && (node.mask & (node.mask + 1)) != 0) return std::nullopt;
  }
  for (int i = 0; i < fs::kFanout; i++) {
    if ((node.mask >> i & 1) == 0) continue;
    if (kind == NodeKind::kDirInner) node.key[i] = in.value<fs::DirKey>();
    node.child[i] = take_id(in);
    if (node.summed) node.sum[i] = take_id(in);
    if (node.summed && kind == NodeKind::kFileInner) node.blocks[i] = in.value<uint32_t>();
  }
  return in.at_end() ? std::optional(node) : std::nullopt;
}

Bytes encode_dir_leaf(const fs::DirLeaf& leaf) {
  Bytes out = begin(NodeKind::kDirLeaf);
  append_dir_leaf(out, leaf);
  return out;
}

fs::DirLeaf* parse_dir_leaf(ByteView blob) {
  auto in = open(blob, NodeKind::kDirLeaf);
  return in ? build_dir_leaf(*in) : nullptr;
}

// kind, version, mask of the blocks u16, length of the last of them u16 (what is cut off is zero), zero u16;
// the blocks.
void encode_file_leaf(const fs::FileLeaf& leaf, std::array<std::byte, kLeafHeaderBytes>& header,
                      std::vector<ByteView>& parts) {
  parts.assign(1, header);
  uint16_t mask = 0;
  for (int i = 0; i < fs::kFanout; i++) {
    if (leaf.block[i] == nullptr) continue;
    mask |= static_cast<uint16_t>(1u << i);
    parts.emplace_back(leaf.block[i], fs::kBlockSize);
  }
  CHECK(mask != 0);
  ByteView& last = parts.back();
  size_t length = last.size();
  while (length >= 8 && load_value<uint64_t>(last.data() + length - 8) == 0) length -= 8;
  while (length > 0 && last[length - 1] == std::byte{0}) length--;
  last = last.first(length);
  header = {};
  store_value(header.data(), NodeKind::kFileLeaf);
  store_value(header.data() + 1, kNodeVersion);
  store_value(header.data() + 2, mask);
  store_value(header.data() + 4, static_cast<uint16_t>(length));
}

fs::FileLeaf* parse_file_leaf(ByteView blob) {
  auto in = open(blob, NodeKind::kFileLeaf);
  if (!in) return nullptr;
  auto mask = in->value<uint16_t>();
  auto last_length = in->value<uint16_t>();
  auto zero = in->value<uint16_t>();
  auto blocks = static_cast<size_t>(std::popcount(mask));
  if (blocks == 0 || zero != 0 || last_length > fs::kBlockSize) return nullptr;
  if (in->remaining() != (blocks - 1) * fs::kBlockSize + last_length) return nullptr;
  auto* leaf = new fs::FileLeaf;
  for (int i = 0; i < fs::kFanout; i++) {
    if ((mask >> i & 1) == 0) continue;
    size_t length = std::min<size_t>(in->remaining(), fs::kBlockSize);
    leaf->block[i] = fs::BlockPool::allocate();
    ByteView bytes = in->take(length);
    if (length > 0) std::memcpy(leaf->block[i], bytes.data(), length);
    if (length < fs::kBlockSize) std::memset(leaf->block[i] + length, 0, fs::kBlockSize - length);
  }
  leaf->dirty = mask;
  return leaf;
}

Bytes encode_xattrs(const fs::Xattrs& xattrs) {
  Bytes out = begin(NodeKind::kXattrs);
  append_value(out, xattrs.count);
  append_bytes(out, xattrs.view());
  return out;
}

fs::Xattrs* parse_xattrs(ByteView blob) {
  auto in = open(blob, NodeKind::kXattrs);
  if (!in) return nullptr;
  auto count = in->value<uint16_t>();
  return in->ok() ? make_xattrs(count, in->take(in->remaining())) : nullptr;
}

fs::Xattrs* make_xattrs(uint16_t count, ByteView bytes) {
  auto* xattrs = fs::Xattrs::create(static_cast<uint32_t>(bytes.size()));
  xattrs->count = count;
  if (!bytes.empty()) std::memcpy(xattrs->bytes(), bytes.data(), bytes.size());
  if (fs::xattrs::valid(*xattrs)) return xattrs;
  fs::release(xattrs);
  return nullptr;
}

fs::SmallFile* make_small(ByteView bytes) {
  auto* small = fs::SmallFile::create(static_cast<uint32_t>(bytes.size()));
  std::memcpy(small->bytes(), bytes.data(), bytes.size());
  small->length = static_cast<uint32_t>(bytes.size());
  return small;
}

fs::DirLeaf* make_dir_leaf(ByteView inline_directory) {
  return build_dir_leaf(ByteReader(inline_directory));
}

bool is_inline(const fs::Node& node) {
  if (node.kind == NodeKind::kXattrs) return static_cast<const fs::Xattrs&>(node).length <= kInlineXattrsMax;
  return node.kind == NodeKind::kSmallFile || node.kind == NodeKind::kDirLeaf;
}

const fs::Node* content_below(const fs::Inode& inode) {
  return fs::is_sourced(inode.content) ? fs::as_sourced(inode.content).held : inode.content;
}

PageEncoder::PageEncoder(uint64_t base) : out_(begin(NodeKind::kTablePage, kSummedVersion)) {
  append_value(out_, mask_);  // filled in by finish()
  append_value(out_, base);
}

void PageEncoder::add(int slot, const fs::Inode& inode, BlobId content, BlobId xattrs) {
  mask_ |= static_cast<uint16_t>(1u << slot);
  bool small = inode.content != nullptr && inode.content->kind == NodeKind::kSmallFile;
  bool leaf = inode.content != nullptr && inode.content->kind == NodeKind::kDirLeaf;
  bool rests = fs::is_sourced(inode.content);
  append_value(out_, InodeRecord{
                         .mode = inode.mode,
                         .uid = inode.uid,
                         .gid = inode.gid,
                         .nlink = inode.nlink,
                         .size = inode.size,
                         .rdev_or_parent = inode.rdev_or_parent,
                         .atime_sec = inode.atime_sec,
                         .mtime_sec = inode.mtime_sec,
                         .ctime_sec = inode.ctime_sec,
                         .atime_nsec = inode.atime_nsec,
                         .mtime_nsec = inode.mtime_nsec,
                         .ctime_nsec = inode.ctime_nsec,
                         .content_form = inode.content == nullptr ? kNone
                                         : small                  ? kSmall
                                         : leaf                   ? kDirectory
                                         : rests                  ? kRests
                                                                  : kSummed,
                         .xattr_form = inode.xattrs == nullptr    ? kNoXattrs
                                       : is_inline(*inode.xattrs) ? kXattrsInline
                                                                  : kXattrsInBlob,
                         .zero = 0,
                     });
  if (small) {
    ByteView bytes = static_cast<const fs::SmallFile*>(inode.content)->view();
    append_value(out_, static_cast<uint16_t>(bytes.size()));
    append_bytes(out_, bytes);
  } else if (leaf) {
    size_t at = out_.size();
    append_value(out_, uint16_t{0});
    append_dir_leaf(out_, *static_cast<const fs::DirLeaf*>(inode.content));
    store_value(out_.data() + at, static_cast<uint16_t>(out_.size() - at - 2));
  } else if (rests) {
    const fs::SourcedFile& file = fs::as_sourced(inode.content);
    append_value(out_, file.limit);
    append_value(out_, static_cast<uint16_t>(file.key_length));
    append_bytes(out_, file.key());
    append_id(out_, content);
  } else if (inode.content != nullptr) {
    append_id(out_, content);
    append_id(out_, inode.sum);
    append_value(out_, inode.blocks);
  }
  if (inode.xattrs == nullptr) return;
  if (is_inline(*inode.xattrs)) {
    append_value(out_, inode.xattrs->count);
    append_value(out_, static_cast<uint16_t>(inode.xattrs->length));
    append_bytes(out_, inode.xattrs->view());
  } else {
    append_id(out_, xattrs);
  }
}

Bytes PageEncoder::finish() {
  store_value(out_.data() + kNodeHeaderBytes, mask_);
  return std::move(out_);
}

namespace {

bool take_content(ByteReader& in, uint8_t form, PageEntry& entry) {
  switch (form) {
    case kNone:
      return true;
    case kInBlob:
      entry.content = take_id(in);
      return static_cast<bool>(entry.content);
    case kSummed:
      entry.content = take_id(in);
      entry.inode.sum = take_id(in);
      entry.inode.blocks = in.value<uint32_t>();
      entry.summed = true;
      return static_cast<bool>(entry.content);
    case kSmall: {
      auto length = in.value<uint16_t>();
      entry.inline_small = in.take(length);
      return length > 0 && length <= fs::kPathMax;  // the longest is a symlink's target
    }
    case kDirectory: {
      auto length = in.value<uint16_t>();
      entry.inline_directory = in.take(length);
      return length > 0;
    }
    case kRests: {
      entry.source_limit = in.value<uint64_t>();
      auto length = in.value<uint16_t>();
      entry.source_key = in.take(length);
      entry.content = take_id(in);  // zero: nothing is held
      return entry.source_limit > 0 && length > 0 && length <= fs::SourcedFile::kKeyMax;
    }
    default:
      return false;
  }
}

bool take_xattrs(ByteReader& in, uint8_t form, PageEntry& entry) {
  switch (form) {
    case kNoXattrs:
      return true;
    case kXattrsInBlob:
      entry.xattrs = take_id(in);
      return static_cast<bool>(entry.xattrs);
    case kXattrsInline: {
      entry.xattr_count = in.value<uint16_t>();
      auto length = in.value<uint16_t>();
      entry.inline_xattrs = in.take(length);
      return length > 0 && length <= kInlineXattrsMax;
    }
    default:
      return false;
  }
}

bool take_entry(ByteReader& in, uint8_t version, PageEntry& entry) {
  ByteView bytes = in.take(sizeof(InodeRecord));
  if (!in.ok()) return false;
  auto record = load_value<InodeRecord>(bytes.data());
  fs::Inode& inode = entry.inode;
  inode.mode = record.mode;
  inode.uid = record.uid;
  inode.gid = record.gid;
  inode.nlink = record.nlink;
  inode.size = record.size;
  inode.rdev_or_parent = record.rdev_or_parent;
  inode.set_atime({record.atime_sec, record.atime_nsec});
  inode.set_mtime({record.mtime_sec, record.mtime_nsec});
  inode.set_ctime({record.ctime_sec, record.ctime_nsec});
  if (record.mode == 0 || record.nlink == 0 || record.zero != 0) return false;
  if (record.content_form == (version == kSummedVersion ? kInBlob : kSummed)) return false;
  return take_content(in, record.content_form, entry) && take_xattrs(in, record.xattr_form, entry) && in.ok();
}

}  // namespace

bool parse_page(ByteView blob, uint64_t& base, const std::function<bool(const PageEntry&)>& visit) {
  auto in = open(blob, NodeKind::kTablePage);
  if (!in) return false;
  auto mask = in->value<uint16_t>();
  base = in->value<uint64_t>();
  if (mask == 0 || base % fs::kFanout != 0) return false;
  for (int slot = 0; slot < fs::kFanout; slot++) {
    if ((mask >> slot & 1) == 0) continue;
    PageEntry entry{.slot = slot};
    if (!take_entry(*in, version_of(blob), entry) || !visit(entry)) return false;
  }
  return in->at_end();
}

namespace {

std::optional<std::vector<BlobId>> children(ByteView blob, bool only_needed) {
  if (auto volume = parse_volume(blob)) return std::vector{volume->table};
  auto kind = kind_of(blob);
  if (!kind) return std::nullopt;
  std::vector<BlobId> children;
  if (*kind == NodeKind::kTablePage) {
    uint64_t base;
    bool whole = parse_page(blob, base, [&](const PageEntry& entry) {
      if (entry.content && !(only_needed && entry.summed)) children.push_back(entry.content);
      if (entry.xattrs) children.push_back(entry.xattrs);
      return true;
    });
    if (!whole) return std::nullopt;
  } else if (*kind == NodeKind::kTableInner || *kind == NodeKind::kDirInner ||
             *kind == NodeKind::kFileInner) {
    auto inner = parse_inner(blob);
    if (!inner) return std::nullopt;
    if (only_needed && *kind == NodeKind::kTableInner && inner->summed) return children;
    for (int i = 0; i < fs::kFanout; i++) {
      if ((inner->mask >> i & 1) != 0) children.push_back(inner->child[i]);
    }
  }
  return children;
}

}  // namespace

std::optional<std::vector<BlobId>> children_of(ByteView blob) {
  return children(blob, false);
}

std::optional<std::vector<BlobId>> children_needed(ByteView blob) {
  return children(blob, true);
}

}  // namespace reprise::snapshot

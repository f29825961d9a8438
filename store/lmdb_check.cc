// The format is that of LMDB 0.9 on a 64-bit little-endian machine (its data version 1).
#include "store/lmdb_check.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <bit>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/bytes.h"

namespace reprise::store {
namespace {

constexpr uint32_t kMagic = 0xBEEFC0DE, kDataVersion = 1;
constexpr size_t kPageHeaderBytes = 16, kMetaBytes = 136, kNodeHeaderBytes = 8, kDatabaseBytes = 48;
constexpr size_t kKeyMax = 511;
constexpr int kDepthMax = 32;  // LMDB's own bound
constexpr uint64_t kNoPage = ~uint64_t{0};
enum PageFlag : uint16_t { kBranch = 0x01, kLeaf = 0x02, kOverflow = 0x04, kMetaPage = 0x08 };
enum NodeFlag : uint16_t { kBigData = 0x01, kSubData = 0x02 };
constexpr uint16_t kIntegerKeys = 0x08;  // of a database
constexpr uint16_t kOneFile = 0x4000;  // of the environment, which has its flags with those of the free pages

struct Database {
  uint16_t flags = 0, depth = 0;
  uint64_t branch_pages = 0, leaf_pages = 0, overflow_pages = 0, entries = 0, root = 0;
};
struct Meta {
  uint32_t page_bytes = 0;
  uint64_t map_bytes = 0, last_page = 0, transaction = 0;
  Database free, main;
  bool operator==(const Meta& other) const {
    return transaction == other.transaction && last_page == other.last_page && free.root == other.free.root &&
           main.root == other.main.root;
  }
};

Database read_database(ByteReader& in, uint32_t& pad) {
  Database db;
  pad = in.value<uint32_t>();
  db.flags = in.value<uint16_t>();
  db.depth = in.value<uint16_t>();
  db.branch_pages = in.value<uint64_t>();
  db.leaf_pages = in.value<uint64_t>();
  db.overflow_pages = in.value<uint64_t>();
  db.entries = in.value<uint64_t>();
  db.root = in.value<uint64_t>();
  return db;
}

// Each transaction writes its number into one of the two pages, in turn: the even ones into page 0. Were only
// the greater number looked at, a wrong byte in it would pass for the state before the last transaction.
bool follow_each_other(uint64_t even, uint64_t odd) {
  if (even == 0 && odd == 0) return true;  // new
  return even % 2 == 0 && odd % 2 == 1 && (even + 1 == odd || odd + 1 == even);
}

struct Node {
  uint16_t flags = 0;
  ByteView key, data;  // of a branch no data
  uint64_t child = 0;  // of a branch
  uint32_t data_bytes = 0;
};

class Check {
 public:
  explicit Check(const File& file) : file_(file) {}

  Result<Meta> newest_meta() {
    file_bytes_ = TRY(file_.size());
    for (std::optional<std::array<uint64_t, 2>> before;;) {
      Meta first = TRY(meta(0, 0));
      Meta second = TRY(meta(1, first.page_bytes));
      if (second.page_bytes != first.page_bytes)
        return damaged(1, "the page size of page 0", second.page_bytes);
      // A transaction's pages are in the file before it is: the size is asked after it.
      file_bytes_ = TRY(file_.size());
      if (follow_each_other(first.transaction, second.transaction))
        return first.transaction < second.transaction ? second : first;
      // Another process may have written them between the two looks: not if they are the same again.
      std::array<uint64_t, 2> found = {first.transaction, second.transaction};
      if (before == found)
        return damaged(1, fmt::format("a transaction that is next to {} of page 0", found[0]), found[1]);
      before = found;
    }
  }

  Status check(const Meta& meta) {
    page_bytes_ = meta.page_bytes;
    uint64_t pages = file_bytes_ / page_bytes_;
    // LMDB may leave out pages at the end that are free.
    constexpr uint64_t kSlackPages = 4096;
    if (meta.last_page < 1 || meta.last_page >= pages + kSlackPages ||
        meta.last_page >= meta.map_bytes / page_bytes_)
      return damaged(0, fmt::format("a last page among {}", pages), meta.last_page);
    used_.assign(std::max(pages, meta.last_page + 1), false);
    pages_ = pages;
    used_[0] = used_[1] = true;
    if (meta.main.flags != 0) return damaged(0, "a main table without flags", meta.main.flags);
    if ((meta.free.flags & ~kOneFile) != kIntegerKeys)
      return damaged(0, "a table of free pages", meta.free.flags);
    TRY(walk(meta.main, Kind::kMain));
    TRY(walk(meta.free, Kind::kFree));
    for (uint64_t page : free_) {
      if (page < 2 || page > meta.last_page || used_[page])
        return damaged(page, "a page in use or a free one",
                       "a page that is in the list of free ones, and is not");
      used_[page] = true;
    }
    return {};
  }

 private:
  enum class Kind { kMain, kTable, kFree };
  // Of the tree of a table, while it is walked in order.
  struct Counts {
    uint64_t branch_pages = 0, leaf_pages = 0, overflow_pages = 0, entries = 0;
    std::string last;    // key; of a branch the one that its child may begin with
    bool may_be = true;  // a key may be equal to it
  };

  template <class Found>
  std::unexpected<Error> damaged(uint64_t page, std::string_view expected, const Found& found) const {
    return fail(Code::kCorrupt,
                fmt::format("{}: page {}: expected {}, found {}", file_.path(), page, expected, found));
  }

  Result<Meta> meta(uint64_t page, uint64_t offset) {
    std::array<std::byte, kPageHeaderBytes + kMetaBytes> bytes;
    if (TRY(file_.pread(bytes, offset)) != bytes.size())
      return damaged(page, "the first pages of a catalogue", fmt::format("a file of {} bytes", file_bytes_));
    ByteReader in(bytes);
    in.take(10);
    auto flags = in.value<uint16_t>();
    in.take(4);
    auto magic = in.value<uint32_t>(), version = in.value<uint32_t>();
    if (flags != kMetaPage || magic != kMagic)
      return damaged(page, "the mark of an LMDB file", "other bytes");
    if (version != kDataVersion)
      return damaged(page, fmt::format("version {} of the format", kDataVersion), version);
    Meta meta;
    in.take(8);  // an address, zero
    meta.map_bytes = in.value<uint64_t>();
    uint32_t pad = 0;
    meta.free = read_database(in, meta.page_bytes);
    meta.main = read_database(in, pad);
    meta.last_page = in.value<uint64_t>();
    meta.transaction = in.value<uint64_t>();
    if (!std::has_single_bit(meta.page_bytes) || meta.page_bytes < 512 || meta.page_bytes > 65536 ||
        file_bytes_ < uint64_t{2} * meta.page_bytes)
      return damaged(page, "pages of a size that the file has room for", meta.page_bytes);
    return meta;
  }

  // Each page once: no cycles, and no page in two places.
  Status use(uint64_t page) {
    if (page >= pages_) return damaged(page, fmt::format("a file of more than {} pages", page), pages_);
    if (used_[page]) return damaged(page, "it in one place", "it in two");
    used_[page] = true;
    return {};
  }

  Result<Bytes> read_page(uint64_t page) {
    TRY(use(page));
    Bytes bytes(page_bytes_);
    if (TRY(file_.pread(bytes, page * page_bytes_)) != bytes.size())
      return damaged(page, "a whole page", "the end of the file");
    if (load_value<uint64_t>(bytes.data()) != page)
      return damaged(page, "its own number", load_value<uint64_t>(bytes.data()));
    return bytes;
  }

  Status walk(const Database& db, Kind kind) {
    Counts counts;
    bool empty = db.root == kNoPage;
    if (empty != (db.depth == 0) || db.depth > kDepthMax) return damaged(0, "a depth of a tree", db.depth);
    if (!empty) TRY(walk_page(db.root, db.depth, kind, counts));
    bool same = counts.branch_pages == db.branch_pages && counts.leaf_pages == db.leaf_pages &&
                counts.overflow_pages == db.overflow_pages && counts.entries == db.entries;
    if (!same) {
      return damaged(empty ? 0 : db.root, fmt::format("{} entries in {} pages", db.entries, db.leaf_pages),
                     fmt::format("{} in {}", counts.entries, counts.leaf_pages));
    }
    return {};
  }

  // `depth` levels of pages are left, this one among them. As deep as a tree of LMDB's is.
  Status walk_page(uint64_t page, int depth, Kind kind, Counts& counts) {
    Bytes bytes = TRY(read_page(page));
    bool leaf = depth == 1;
    std::vector<Node> nodes = TRY(nodes_of(page, bytes, leaf));
    (leaf ? counts.leaf_pages : counts.branch_pages)++;
    for (const Node& node : nodes) {
      const bool first_child = !leaf && &node == &nodes.front();  // its key says nothing
      if (!first_child) TRY(check_order(page, node.key, leaf, kind, counts));
      if (!leaf) {
        TRY(walk_page(node.child, depth - 1, kind, counts));
        continue;
      }
      counts.entries++;
      TRY(check_leaf(page, node, kind, counts));
    }
    return {};
  }

  // Each key once, and above all that come before it, on other pages too: else a look-up misses it.
  Status check_order(uint64_t page, ByteView key, bool leaf, Kind kind, Counts& counts) {
    std::string_view now = as_text(key);
    std::array<char, sizeof(uint64_t)> number;
    if (kind == Kind::kFree) {
      if (key.size() != number.size()) return damaged(page, "a number", fmt::format("{} bytes", key.size()));
      std::ranges::reverse_copy(now, number.begin());  // of which LMDB compares the value
      now = {number.data(), number.size()};
    }
    if (now < counts.last || (now == counts.last && !counts.may_be))
      return damaged(page, "keys in order", "others");
    counts.last = now;
    counts.may_be = !leaf;
    return {};
  }

  Result<std::vector<Node>> nodes_of(uint64_t page, ByteView bytes, bool leaf) {
    auto flags = load_value<uint16_t>(bytes.data() + 10), lower = load_value<uint16_t>(bytes.data() + 12),
         upper = load_value<uint16_t>(bytes.data() + 14);
    if (flags != (leaf ? kLeaf : kBranch)) return damaged(page, leaf ? "a leaf" : "a branch", flags);
    if (lower <= kPageHeaderBytes || lower % 2 != 0 || lower > upper || upper > bytes.size())
      return damaged(page, "entries within the page", fmt::format("{} to {}", lower, upper));
    size_t count = (lower - kPageHeaderBytes) / 2;
    if (!leaf && count < 2) return damaged(page, "two children", count);
    std::vector<Node> nodes;
    size_t used = 0;
    for (size_t i = 0; i < count; ++i) {
      auto at = load_value<uint16_t>(bytes.data() + kPageHeaderBytes + 2 * i);
      Node node;
      if (at < upper || at > bytes.size() - kNodeHeaderBytes || at % 2 != 0 ||
          !parse_node(bytes, at, leaf, i, node, used))
        return damaged(page, "an entry within the page", fmt::format("one at {}", at));
      nodes.push_back(node);
    }
    // LMDB moves entries about by their sizes.
    if (used != bytes.size() - upper)
      return damaged(page, fmt::format("{} bytes of entries", bytes.size() - upper), used);
    return nodes;
  }

  static bool parse_node(ByteView bytes, size_t at, bool leaf, size_t place, Node& node, size_t& used) {
    ByteReader in(bytes.subspan(at));
    uint64_t low = in.value<uint16_t>(), high = in.value<uint16_t>();
    node.flags = in.value<uint16_t>();
    auto key_bytes = in.value<uint16_t>();
    if (key_bytes > kKeyMax || (key_bytes == 0 && (leaf || place > 0))) return false;
    node.key = in.take(key_bytes);
    uint64_t bytes_there = kNodeHeaderBytes + key_bytes;
    if (leaf) {
      node.data_bytes = static_cast<uint32_t>(low | high << 16);
      uint32_t here = (node.flags & kBigData) != 0 ? sizeof(uint64_t) : node.data_bytes;
      node.data = in.take(here);
      bytes_there += here;
    } else {
      node.child = low | high << 16 | uint64_t{node.flags} << 32;
    }
    used += bytes_there + bytes_there % 2;
    return in.ok();
  }

  Status check_leaf(uint64_t page, const Node& node, Kind kind, Counts& counts) {
    Bytes elsewhere;
    ByteView data = node.data;
    if ((node.flags & kBigData) != 0) {
      if (node.flags != kBigData) return damaged(page, "flags of an entry", node.flags);
      elsewhere =
          TRY(overflow(load_value<uint64_t>(node.data.data()), node.data_bytes, kind == Kind::kFree, counts));
      data = elsewhere;
    } else if (node.flags != (kind == Kind::kMain ? kSubData : 0)) {
      return damaged(page, "flags of an entry", node.flags);
    }
    if (kind == Kind::kFree) return note_free(page, data);
    if (kind == Kind::kTable) return {};
    if (data.size() != kDatabaseBytes) return damaged(page, "a table", fmt::format("{} bytes", data.size()));
    ByteReader in(data);
    uint32_t pad = 0;
    Database table = read_database(in, pad);
    if (table.flags != 0) return damaged(page, "a table without flags", table.flags);
    return walk(table, Kind::kTable);
  }

  // A run of pages; its bytes, if they are wanted.
  Result<Bytes> overflow(uint64_t page, uint64_t data_bytes, bool wanted, Counts& counts) {
    uint64_t count = (kPageHeaderBytes + data_bytes + page_bytes_ - 1) / page_bytes_;
    if (page >= pages_ || count > pages_ - page)
      return damaged(page, fmt::format("{} pages", count), fmt::format("a file of {}", pages_));
    for (uint64_t i = 0; i < count; ++i) TRY(use(page + i));
    counts.overflow_pages += count;
    Bytes bytes(kPageHeaderBytes + (wanted ? data_bytes : 0));
    if (TRY(file_.pread(bytes, page * page_bytes_)) != bytes.size())
      return damaged(page, "a whole page", "the end of the file");
    if (load_value<uint64_t>(bytes.data()) != page || load_value<uint16_t>(bytes.data() + 10) != kOverflow ||
        load_value<uint32_t>(bytes.data() + 12) != count)
      return damaged(page, fmt::format("the first of {} pages of data", count), "another page");
    bytes.erase(bytes.begin(), bytes.begin() + kPageHeaderBytes);
    return bytes;
  }

  // Of one transaction: how many, then their numbers.
  Status note_free(uint64_t page, ByteView data) {
    if (data.size() < sizeof(uint64_t) || data.size() % sizeof(uint64_t) != 0)
      return damaged(page, "a list of free pages", fmt::format("{} bytes", data.size()));
    auto count = load_value<uint64_t>(data.data());
    if (count > data.size() / sizeof(uint64_t) - 1) return damaged(page, "a list of free pages", count);
    for (uint64_t i = 1; i <= count; ++i) {
      auto free = load_value<uint64_t>(data.data() + i * sizeof(uint64_t));
      if (i > 1 && free >= free_.back()) return damaged(page, "free pages in order", free);
      free_.push_back(free);
    }
    return {};
  }

  const File& file_;
  uint64_t file_bytes_ = 0, page_bytes_ = 0, pages_ = 0;
  std::vector<bool> used_;
  std::vector<uint64_t> free_;
};

}  // namespace

Status check_lmdb(const File& file) {
  constexpr int kTries = 50;
  for (int tries = 1;; ++tries) {
    Check check(file);
    auto before = check.newest_meta();
    Status sound = before ? check.check(*before) : Status(std::unexpected(before.error()));
    if (sound) return {};
    // Two transactions of another process later a page may be used again.
    auto after = Check(file).newest_meta();
    bool moved = before && after && !(*before == *after);
    if (!moved || tries == kTries) return sound;
  }
}

}  // namespace reprise::store

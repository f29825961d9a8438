// Batches and operations for tests, and a text form of both to compare them by.
#pragma once

#include <fmt/format.h>
#include <rapidcheck.h>

#include <string>

#include "base/disk.h"
#include "fs/operation.h"
#include "fs/types.h"
#include "journal/journal.h"

namespace reprise::test {

using namespace reprise::journal;

inline const OriginId kOriginA{.hi = 0xa, .lo = 1};
inline const OriginId kOriginB{.hi = 0xb, .lo = 2};
inline const JournalIdentity kIdentity{.volume = {.hi = 7, .lo = 8}, .branch = "main"};

// A write of `bytes` bytes, all different from those of another LSN.
inline Batch make_batch(OriginId origin, Lsn lsn, size_t bytes = 24) {
  BatchBuilder builder;
  std::string name = fmt::format("file-{}", lsn);
  std::string data(bytes, static_cast<char>('a' + lsn % 26));
  builder.add(fs::Create{
      .parent = kRootInode, .name = name, .inode = {100 + lsn}, .mode = S_IFREG | 0644, .time = {1, 2}});
  if (bytes > 0) builder.add(fs::Write{.inode = {100 + lsn}, .data = as_bytes(data), .time = {3, 4}});
  return builder.finish({.origin = origin, .lsn = lsn, .lamport = lsn, .time = {5, 6}, .label = "test"});
}

inline std::string show(const Timestamp& t) {
  return fmt::format("{}.{}", t.sec, t.nsec);
}

// Every field of an operation.
struct Shown {
  std::string operator()(const fs::Create& o) const {
    return fmt::format("create {} {} {} {:o} {} {} {} {} {}", o.parent.value, printable(o.name),
                       o.inode.value, o.mode, o.uid, o.gid, o.rdev, printable(o.target), show(o.time));
  }
  std::string operator()(const fs::Link& o) const { return place("link", o); }
  std::string operator()(const fs::Unlink& o) const { return place("unlink", o); }
  std::string operator()(const fs::Rmdir& o) const { return place("rmdir", o); }
  std::string operator()(const fs::Rename& o) const {
    return fmt::format("rename {} {} {} {} {} {} {} {}", o.old_parent.value, printable(o.old_name),
                       o.new_parent.value, printable(o.new_name), o.inode.value, o.replaced.value, o.exchange,
                       show(o.time));
  }
  std::string operator()(const fs::Write& o) const {
    return fmt::format("write {} {} {} {}", o.inode.value, o.offset, to_hex(o.data), show(o.time));
  }
  std::string operator()(const fs::Truncate& o) const {
    return fmt::format("truncate {} {} {}", o.inode.value, o.size, show(o.time));
  }
  std::string operator()(const fs::Allocate& o) const {
    return fmt::format("allocate {} {} {} {} {} {}", o.inode.value, static_cast<int>(o.change), o.keep_size,
                       o.offset, o.length, show(o.time));
  }
  std::string operator()(const fs::CopyRange& o) const {
    return fmt::format("copy {} {} {} {} {} {}", o.from.value, o.from_offset, o.to.value, o.to_offset,
                       o.length, show(o.time));
  }
  std::string operator()(const fs::SetAttributes& o) const {
    return fmt::format("set {} {} {:o} {} {} {} {} {}", o.inode.value, o.mask, o.mode, o.uid, o.gid,
                       show(o.atime), show(o.mtime), show(o.ctime));
  }
  std::string operator()(const fs::SetXattr& o) const {
    return fmt::format("xattr {} {} {} {}", o.inode.value, printable(o.name), to_hex(o.value), show(o.time));
  }
  std::string operator()(const fs::RemoveXattr& o) const {
    return fmt::format("no-xattr {} {} {}", o.inode.value, printable(o.name), show(o.time));
  }
  std::string operator()(const fs::Barrier& o) const {
    return fmt::format("barrier {} {}", printable(o.name), show(o.time));
  }
  std::string operator()(const fs::ClaimPrefix& o) const { return fmt::format("claim {}", o.prefix); }
  std::string operator()(const fs::SetLimits& o) const {
    return fmt::format("limits {} {} {} {} {}", o.bytes, o.inodes, o.file_size, o.depth,
                       o.names_per_directory);
  }

 private:
  template <class Op>
  static std::string place(std::string_view kind, const Op& o) {
    return fmt::format("{} {} {} {} {}", kind, o.parent.value, printable(o.name), o.inode.value,
                       show(o.time));
  }
};
inline std::string show(const fs::Operation& operation) {
  return std::visit(Shown{}, operation);
}

inline std::string show(const Batch& batch) {
  const BatchHeader& header = batch.header();
  std::string text =
      fmt::format("{} {} {} {} {} {}", static_cast<int>(header.kind), header.origin.to_string(), header.lsn,
                  header.lamport, show(header.time), printable(header.label));
  text += " after " + header.previous_origin.to_string();
  for (const auto& [origin, lsn] : header.dependencies)
    text += fmt::format(" {}:{}", origin.to_string(), lsn);
  batch.for_each([&](const fs::Operation& operation) { text += "\n" + show(operation); });
  return text;
}

// An operation with the strings it points to.
struct OwnedOperation {
  fs::Operation operation;
  std::vector<std::shared_ptr<std::string>> texts;
};

// Draws one operation of every kind that check_operation() accepts.
class OperationDraw {
 public:
  static OwnedOperation any(int kind);
  static constexpr int kKinds = 15;

 private:
  std::string_view keep(std::string text) {
    texts_.push_back(std::make_shared<std::string>(std::move(text)));
    return *texts_.back();
  }
  std::string bytes(size_t min, size_t max, std::string_view without) {
    auto text = *rc::gen::resize(static_cast<int>(max), rc::gen::arbitrary<std::string>());
    std::erase_if(text, [&](char c) { return without.find(c) != std::string_view::npos; });
    text.resize(std::min(text.size(), max));
    while (text.size() < min) text += 'x';
    return text;
  }
  std::string_view name() {
    std::string text = bytes(1, fs::kNameMax, std::string_view("/\0", 2));
    return keep(text == "." || text == ".." ? "dots" : text);
  }
  static InodeId inode() { return {*rc::gen::inRange<uint64_t>(1, UINT64_MAX)}; }
  static Timestamp time() {
    return {*rc::gen::arbitrary<int64_t>(), *rc::gen::inRange<uint32_t>(0, 1'000'000'000)};
  }
  static uint64_t offset() { return *rc::gen::inRange<uint64_t>(0, uint64_t{1} << 62); }
  static uint32_t u32() { return *rc::gen::arbitrary<uint32_t>(); }
  static uint64_t u64() { return *rc::gen::arbitrary<uint64_t>(); }
  ByteView data(size_t max) { return as_bytes(keep(bytes(0, max, ""))); }
  fs::Create create();
  fs::SetAttributes set_attributes();
  fs::Operation draw(int kind);

  std::vector<std::shared_ptr<std::string>> texts_;
};

inline fs::Create OperationDraw::create() {
  uint32_t type = *rc::gen::element<uint32_t>(S_IFREG, S_IFDIR, S_IFLNK, S_IFIFO, S_IFSOCK, S_IFCHR, S_IFBLK);
  std::string_view target =
      type == S_IFLNK ? keep(bytes(1, 4000, std::string_view("\0", 1))) : std::string_view();
  return {.parent = inode(),
          .name = name(),
          .inode = inode(),
          .mode = type | (u32() & 07777),
          .uid = u32(),
          .gid = u32(),
          .rdev = u64(),
          .target = target,
          .time = time()};
}

inline fs::SetAttributes OperationDraw::set_attributes() {
  fs::SetAttributes o{
      .inode = inode(), .mask = u32() & 63, .mode = u32() & 07777, .uid = u32(), .gid = u32()};
  if ((o.mask & fs::SetAttributes::kAtime) != 0) o.atime = time();
  if ((o.mask & fs::SetAttributes::kMtime) != 0) o.mtime = time();
  if ((o.mask & fs::SetAttributes::kCtime) != 0) o.ctime = time();
  return o;
}

inline fs::Operation OperationDraw::draw(int kind) {
  switch (kind) {
    case 0:
      return create();
    case 1:
      return fs::Link{inode(), name(), inode(), time()};
    case 2:
      return fs::Unlink{inode(), name(), inode(), time()};
    case 3:
      return fs::Rmdir{inode(), name(), inode(), time()};
    case 4: {
      bool exchange = *rc::gen::arbitrary<bool>();
      InodeId replaced = exchange || *rc::gen::arbitrary<bool>() ? inode() : InodeId{};
      return fs::Rename{inode(), name(), inode(), name(), inode(), replaced, exchange, time()};
    }
    case 5:
      return fs::Write{inode(), offset(), data(9000), time()};
    case 6:
      return fs::Truncate{inode(), offset(), time()};
    case 7:
      return fs::Allocate{inode(),
                          static_cast<fs::RangeChange>(*rc::gen::inRange(0, 5)),
                          *rc::gen::arbitrary<bool>(),
                          offset(),
                          offset(),
                          time()};
    case 8:
      return fs::CopyRange{inode(), offset(), inode(), offset(), offset(), time()};
    case 9:
      return set_attributes();
    case 10:
      return fs::SetXattr{inode(), name(), data(3000), time()};
    case 11:
      return fs::RemoveXattr{inode(), name(), time()};
    case 12:
      return fs::Barrier{keep(u32() % 2 == 0 ? "" : "mark-" + std::to_string(u32())), time()};
    case 13:
      return fs::ClaimPrefix{*rc::gen::inRange<uint64_t>(1, InodeId::kMaxPrefix)};
    default:
      return fs::SetLimits{u64(), u64(), u64(), u32(), u64()};
  }
}

inline OwnedOperation OperationDraw::any(int kind) {
  OperationDraw draw;
  fs::Operation operation = draw.draw(kind);
  return {operation, std::move(draw.texts_)};
}

}  // namespace reprise::test

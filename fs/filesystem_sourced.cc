// The facade's calls on files that rest on a source: it is read while no lock is held.
#include <algorithm>

#include "fs/file_content.h"
#include "fs/filesystem_call.h"
#include "fs/filesystem_fetch.h"

namespace reprise::fs {
namespace {

// Blocks that are cleared in the middle are held, one by one: what a call may take.
constexpr uint64_t kClearedMax = uint64_t{1} << 30;  // bytes

Bytes joined(ByteView head, ByteView data, ByteView tail) {
  Bytes whole;
  whole.reserve(head.size() + data.size() + tail.size());
  append_bytes(whole, head);
  append_bytes(whole, data);
  append_bytes(whole, tail);
  return whole;
}

}  // namespace

Outcome<void> Filesystem::Fetched::fetch() {
  const SourcedFile& file = as_sourced(pieces->content.get());
  pieces->head.resize(pieces->edges.head);
  pieces->tail.resize(pieces->edges.tail);
  TRY(sourced::read(file, pieces->offset - pieces->head.size(), pieces->head));
  return sourced::read(file, pieces->offset + pieces->length, pieces->tail);
}

Bytes Filesystem::Fetched::around(ByteView data) const {
  return joined(pieces->head, data, pieces->tail);
}

Outcome<void> Filesystem::need(const Inode& file, const sourced::Edges& edges, uint64_t offset,
                               uint64_t length, Fetched& fetched) {
  const Fetched::Pieces* has = fetched.pieces.get();
  if (has != nullptr && has->content.get() == file.content && has->offset == offset && has->length == length)
    return {};
  fetched.pieces.reset();
  if (edges.none()) return {};
  fetched.pieces = std::make_unique<Fetched::Pieces>();
  fetched.pieces->content = PinnedContent(file.content);
  fetched.pieces->edges = edges;
  fetched.pieces->offset = offset;
  fetched.pieces->length = length;
  return errno_of(EREMOTEIO);
}

Outcome<size_t> Filesystem::read(InodeId inode, uint64_t offset, ByteSpan into) {
  std::shared_lock lock(mutex_);
  auto bytes = head_.read_held(inode, offset, into);
  if (bytes) [[likely]]
    return bytes;
  if (bytes.error() == Errno{ENOENT}) return errno_of(ESTALE);
  if (bytes.error() != Errno{EREMOTEIO}) return bytes;
  const Inode& file = *head_.find(inode);
  const size_t wanted = file_content::readable(file.size, offset, into.size());
  PinnedContent content(file.content);
  lock.unlock();
  TRY(sourced::read(as_sourced(content.get()), offset, into.first(wanted)));
  return wanted;
}

// A range that is cleared leaves the ends of its first and last block as they are: these blocks are written
// as they will be, first. Nothing here takes a block that the file does not count already.
Outcome<void> Filesystem::allocate_sourced(Call& call, const Inode& file, const Allocate& range,
                                           Fetched& fetched) {
  const uint32_t links = file.nlink;
  if (range.change == RangeChange::kCollapse || range.change == RangeChange::kInsert)
    return errno_of(EOPNOTSUPP);
  if (range.change == RangeChange::kReserve) return call.apply_to(links, range);
  const uint64_t limit = as_sourced(file.content).limit;
  if (range.offset + range.length < limit && range.length > kClearedMax) return errno_of(EOPNOTSUPP);
  TRY(need(file, sourced::edges_to_clear(as_sourced(file.content), range.offset, range.length), range.offset,
           range.length, fetched));
  auto write = [&](uint64_t offset, ByteView data) {
    return call.apply_to(links,
                         Write{.inode = range.inode, .offset = offset, .data = data, .time = range.time});
  };
  if (fetched.pieces != nullptr) {
    const Bytes &head = fetched.pieces->head, &tail = fetched.pieces->tail;
    const uint64_t end = range.offset + range.length, begin = range.offset - head.size();
    if (range.offset / kBlockSize == end / kBlockSize) {
      TRY(write(begin, fetched.around(Bytes(range.length))));
    } else {
      if (!head.empty()) TRY(write(begin, joined(head, Bytes(kBlockSize - range.offset % kBlockSize), {})));
      if (!tail.empty()) TRY(write(end - end % kBlockSize, joined({}, Bytes(end % kBlockSize), tail)));
    }
  }
  return call.apply_to(links, range);
}

Outcome<void> Filesystem::hold(const Caller& caller, InodeId inode) {
  const Attributes before = TRY(get_attributes(inode));
  if (!before.is_regular()) return {};
  Bytes buffer(kRecordedWriteMax);
  bool any = false;
  for (uint64_t offset = 0; offset < before.size; offset += buffer.size()) {
    {
      std::shared_lock lock(mutex_);
      if (head_.read_held(inode, offset, buffer) != errno_of(EREMOTEIO)) continue;
    }
    const size_t got = TRY(read(inode, offset, buffer));
    TRY(write(caller, inode, offset, ByteView(buffer).first(got)));
    any = true;
  }
  if (!any) return {};
  SetAttributesRequest times;
  times.mtime_change = SetAttributesRequest::TimeChange::kSet;
  times.mtime = before.mtime;
  TRY(set_attributes(caller, inode, times));
  return {};
}

Outcome<uint64_t> Filesystem::copy_by_bytes(const Caller& caller, const CopyRange& range) {
  Bytes buffer(std::min<uint64_t>(range.length, kRecordedWriteMax));
  const size_t got = TRY(read(range.from, range.from_offset, buffer));
  if (got == 0) return 0;
  const uint64_t end = TRY(write(caller, range.to, range.to_offset, ByteView(buffer).first(got)));
  return end - range.to_offset;
}

}  // namespace reprise::fs

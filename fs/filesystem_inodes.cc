// The facade's calls on inodes: attributes and bytes.
#include <unistd.h>

#include <algorithm>

#include "fs/filesystem.h"
#include "fs/filesystem_call.h"
#include "fs/filesystem_fetch.h"
#include "fs/lazy_node.h"
#include "fs/permission.h"

namespace reprise::fs {
namespace {

using TimeChange = SetAttributesRequest::TimeChange;

bool valid(const Timestamp& time) {
  return time.nsec < 1'000'000'000;
}

bool changes_times(const SetAttributesRequest& request) {
  return request.atime_change != TimeChange::kOmit || request.mtime_change != TimeChange::kOmit;
}

bool changes_owner(const SetAttributesRequest& request) {
  return request.changes_owner || request.uid || request.gid;
}

bool changes_nothing(const SetAttributesRequest& request) {
  return !request.mode && !changes_owner(request) && !request.size && !changes_times(request);
}

Outcome<void> check_regular(const Protection& file) {
  if (S_ISDIR(file.mode)) return errno_of(EISDIR);
  if (!S_ISREG(file.mode)) return errno_of(EINVAL);
  return {};
}

Outcome<void> check_size(const Caller& caller, const Attributes& file, const SetAttributesRequest& request,
                         uint64_t size_max) {
  TRY(check_regular(file));
  if (!request.opened_for_writing) TRY(check_access(caller, file, W_OK));
  if (*request.size > std::max(size_max, file.size)) return errno_of(EFBIG);
  return {};
}

Outcome<void> check_chown(const Caller& caller, const Attributes& before,
                          const SetAttributesRequest& request) {
  if (caller.trusted || privileged(caller)) return {};
  const bool changes =
      request.uid || request.gid || mode_after_chown(caller, before) != (before.mode & 07777);
  if (changes && caller.uid != before.uid) return errno_of(EPERM);
  if (request.uid && *request.uid != before.uid) return errno_of(EPERM);
  if (request.gid && *request.gid != before.gid && !has_group(caller, *request.gid)) return errno_of(EPERM);
  return {};
}

// Whoever may write a file may say that it was changed now; only its owner may say anything else.
Outcome<void> check_times(const Caller& caller, const Attributes& before,
                          const SetAttributesRequest& request) {
  bool invalid = (request.atime_change == TimeChange::kSet && !valid(request.atime)) ||
                 (request.mtime_change == TimeChange::kSet && !valid(request.mtime));
  if (invalid) return errno_of(EINVAL);
  if (owns(caller, before)) return {};
  bool touch = request.atime_change == TimeChange::kNow && request.mtime_change == TimeChange::kNow;
  return touch ? check_access(caller, before, W_OK) : errno_of(EPERM);
}

Outcome<void> check_request(const Caller& caller, const Attributes& before,
                            const SetAttributesRequest& request, uint64_t size_max) {
  if (request.size) TRY(check_size(caller, before, request, size_max));
  if (request.mode && before.is_symlink()) return errno_of(EOPNOTSUPP);
  if (request.mode && !owns(caller, before)) return errno_of(EPERM);
  if (changes_owner(request)) TRY(check_chown(caller, before, request));
  if (changes_times(request)) TRY(check_times(caller, before, request));
  return {};
}

uint32_t resulting_mode(const Caller& caller, const Attributes& before, const SetAttributesRequest& request) {
  if (request.mode) {
    uint32_t mode = *request.mode & 07777;
    bool in_group = privileged(caller) || has_group(caller, request.gid.value_or(before.gid));
    return in_group ? mode : mode & ~uint32_t{S_ISGID};
  }
  if (changes_owner(request)) return mode_after_chown(caller, before);
  if (request.size) return mode_after_write(caller, before);
  return before.mode & 07777;
}

// The request but for its size as an operation; its mask is 0 if there is nothing left.
SetAttributes resolve(const Caller& caller, const Attributes& before, const SetAttributesRequest& request,
                      Timestamp now) {
  SetAttributes set{.inode = before.inode};
  auto set_time = [&](TimeChange change, Timestamp given, uint32_t bit, Timestamp& time) {
    if (change == TimeChange::kOmit) return;
    set.mask |= bit;
    time = change == TimeChange::kNow ? now : given;
  };
  set.mode = resulting_mode(caller, before, request);
  if (request.mode || set.mode != (before.mode & 07777)) set.mask |= SetAttributes::kMode;
  if (request.uid) set.mask |= SetAttributes::kUid, set.uid = *request.uid;
  if (request.gid) set.mask |= SetAttributes::kGid, set.gid = *request.gid;
  set_time(request.atime_change, request.atime, SetAttributes::kAtime, set.atime);
  set_time(request.mtime_change, request.mtime, SetAttributes::kMtime, set.mtime);
  if (set.mask != 0 || request.changes_owner) set.mask |= SetAttributes::kCtime, set.ctime = now;
  return set;
}

// Set-user-id and set-group-id do not survive another's writing.
std::optional<SetAttributes> revoke(const Caller& caller, InodeId inode, const Protection& file,
                                    Timestamp now) {
  uint32_t mode = mode_after_write(caller, file);
  if (mode == (file.mode & 07777)) return std::nullopt;
  return SetAttributes{
      .inode = inode, .mask = SetAttributes::kMode | SetAttributes::kCtime, .mode = mode, .ctime = now};
}

Outcome<void> check_range(uint64_t offset, uint64_t length) {  // of what any file may have
  if (length == 0) return errno_of(EINVAL);
  if (offset > kFileSizeMax || length > kFileSizeMax - offset) return errno_of(EFBIG);
  return {};
}

Outcome<void> check_allocate(const Attributes& file, const Allocate& range) {
  if (file.is_directory()) return errno_of(EISDIR);
  if (S_ISFIFO(file.mode)) return errno_of(ESPIPE);
  if (!file.is_regular()) return errno_of(ENODEV);
  const bool aligned = range.offset % kBlockSize == 0 && range.length % kBlockSize == 0;
  switch (range.change) {
    case RangeChange::kReserve:
    case RangeChange::kZero:
      return {};
    case RangeChange::kPunch:
      if (!range.keep_size) return errno_of(EOPNOTSUPP);
      return {};
    case RangeChange::kCollapse:
      if (range.keep_size) return errno_of(EOPNOTSUPP);
      if (!aligned || range.offset + range.length >= file.size) return errno_of(EINVAL);
      return {};
    case RangeChange::kInsert:
      if (range.keep_size) return errno_of(EOPNOTSUPP);
      if (!aligned) return errno_of(EINVAL);
      if (file.size > kFileSizeMax - range.length) return errno_of(EFBIG);
      if (range.offset >= file.size) return errno_of(EINVAL);
      return {};
  }
  return errno_of(EINVAL);
}

BlockRange blocks_touched(uint64_t offset, uint64_t length) {
  return {.first = offset / kBlockSize, .end = (offset + length - 1) / kBlockSize + 1};
}
// Those of which nothing is left outside.
BlockRange blocks_within(uint64_t offset, uint64_t length) {
  const uint64_t first = (offset + kBlockSize - 1) / kBlockSize;
  return {.first = first, .end = std::max(first, (offset + length) / kBlockSize)};
}

bool overlap(uint64_t a, uint64_t b, uint64_t length) {
  return a < b + length && b < a + length;
}

}  // namespace

Outcome<Attributes> Filesystem::get_attributes(InodeId inode) {
  std::shared_lock lock(mutex_);
  return stat_handle(inode);
}

Outcome<Attributes> Filesystem::set_attributes(const Caller& caller, InodeId inode,
                                               const SetAttributesRequest& request) {
  if (changes_nothing(request)) return get_attributes(inode);
  Call call(*this, caller);
  TRY(call.begin(0));
  Attributes before = TRY(stat_handle(inode));
  TRY(check_request(caller, before, request, file_size_max()));
  SetAttributes set = resolve(caller, before, request, call.now());
  if (request.size)  // to the size there is, too: as ext4, though not all others
    TRY(truncate(call, before, *request.size));
  if (set.mask != 0) TRY(call.apply_to(before.nlink, set));
  auto after = head_.stat(inode);
  TRY(call.commit());
  return after;
}

Outcome<void> Filesystem::truncate(Call& call, const Attributes& file, uint64_t size) {
  TRY(call.apply_to(file.nlink, Truncate{.inode = file.inode, .size = size, .time = call.now()}));
  if (reservations_.empty()) return {};
  reservations_.remove(file.inode, {.first = (size + kBlockSize - 1) / kBlockSize, .end = kFileBlocksMax});
  settle_reservations(file.inode,
                      {.first = 0, .end = 1});  // what was within one node may have become a block
  return {};
}

// --- bytes

// How much of a change of `length` bytes to make at once: all of it if that surely fits; where the volume is
// nearly full, what does, or else as little as can be told apart. Parts end where blocks do.
uint64_t Filesystem::part_that_fits(InodeId inode, uint64_t offset, uint64_t length) const {
  const BlockRange blocks = blocks_touched(offset, length);
  const uint64_t free = free_blocks();
  if (free >= blocks.end - blocks.first) return length;
  const uint64_t some = reservations_.count(inode, blocks) > 0 ? 1 : std::max<uint64_t>(free, 1);
  return std::min(length, some * kBlockSize - offset % kBlockSize);
}

Outcome<uint64_t> Filesystem::write(const Caller& caller, InodeId inode, uint64_t offset, ByteView data,
                                    bool append, uint64_t* began) {
  return with_fetched(
      [&](Fetched& fetched) { return write_once(caller, inode, offset, data, append, began, fetched); });
}

Outcome<uint64_t> Filesystem::write_once(const Caller& caller, InodeId inode, uint64_t offset, ByteView data,
                                         bool append, uint64_t* began, Fetched& fetched) {
  data = data.first(std::min(data.size(), kCallDataMax));
  Call call(*this, caller);
  TRY(call.begin(data.size()));
  Found found = TRY(find_handle(inode));
  TRY(check_regular(*found));
  const Protection before = *found;
  const uint32_t links = found->nlink;
  if (append) offset = found->size;
  if (began != nullptr) *began = offset;
  if (data.empty()) return offset;
  const uint64_t size_max = file_size_max(), first = offset;
  if (offset >= size_max) return errno_of(EFBIG);
  data = data.first(std::min<uint64_t>(data.size(), size_max - offset));
  const uint64_t end = offset + data.size();
  Bytes widened;
  if (is_sourced(found->content)) {
    const sourced::Edges edges = sourced::edges_of(as_sourced(found->content), offset, data.size());
    TRY(need(*found, edges, offset, data.size(), fetched));
    if (fetched.pieces != nullptr) {
      widened = fetched.around(data);
      data = widened;
      offset -= fetched.pieces->head.size();
    }
  }
  while (!data.empty()) {
    ByteView part = data.first(std::min<uint64_t>(data.size(), kRecordedWriteMax - offset % kBlockSize));
    part = part.first(part_that_fits(inode, offset, part.size()));
    auto written = call.apply_within_limits(
        links, Write{.inode = inode, .offset = offset, .data = part, .time = call.now()}, inode,
        blocks_touched(offset, part.size()));
    if (!written && offset <= first) return std::unexpected(written.error());
    if (!written) break;
    offset += part.size();
    data = data.subspan(part.size());
  }
  if (auto revoked = revoke(caller, inode, before, call.now())) TRY(call.apply_to(links, *revoked));
  TRY(call.commit());
  return std::min(offset, end);
}

Outcome<void> Filesystem::allocate(const Caller& caller, InodeId inode, RangeChange change, bool keep_size,
                                   uint64_t offset, uint64_t length) {
  // There is nothing past the largest size, however much of it is to be cleared.
  if (change == RangeChange::kPunch && offset < kFileSizeMax)
    length = std::min(length, kFileSizeMax - offset);
  TRY(check_range(offset, length));
  const Allocate wanted{.inode = inode,
                        .change = change,
                        .keep_size = keep_size,
                        .offset = offset,
                        .length = length,
                        .time = {}};
  return with_fetched([&](Fetched& fetched) { return allocate_once(caller, wanted, fetched); });
}

Outcome<void> Filesystem::allocate_once(const Caller& caller, const Allocate& wanted, Fetched& fetched) {
  const auto& [inode, change, keep_size, offset, length, unset] = wanted;
  Call call(*this, caller);
  TRY(call.begin(0));
  Attributes file = TRY(stat_handle(inode));
  Allocate range = wanted;
  range.time = call.now();
  TRY(check_allocate(file, range));
  bool grows = change == RangeChange::kInsert || (!keep_size && change != RangeChange::kCollapse);
  uint64_t end = change == RangeChange::kInsert ? file.size + length : offset + length;
  if (grows && end > std::max(file_size_max(), file.size)) return errno_of(EFBIG);
  const Found found = TRY(find_handle(inode));
  const bool promises =
      head_.limits().bytes != 0 && (change == RangeChange::kReserve || change == RangeChange::kZero);
  if (promises && missing_blocks(found, blocks_touched(offset, length)) > free_blocks())
    return errno_of(ENOSPC);
  if (is_sourced(found->content)) {
    TRY(allocate_sourced(call, *found, range, fetched));
  } else {
    TRY(call.apply_within_limits(file.nlink, range, inode, {.first = 0, .end = 1}));
  }
  if (promises) reserve(inode, blocks_touched(offset, length));
  if (change == RangeChange::kPunch) reservations_.remove(inode, blocks_within(offset, length));
  if (change == RangeChange::kCollapse || change == RangeChange::kInsert)
    reservations_.remove(inode, {.first = offset / kBlockSize, .end = kFileBlocksMax});
  if (auto revoked = revoke(caller, inode, file, call.now())) TRY(call.apply_to(file.nlink, *revoked));
  return call.commit();
}

Outcome<uint64_t> Filesystem::copy_range(const Caller& caller, InodeId from, uint64_t from_offset, InodeId to,
                                         uint64_t to_offset, uint64_t length) {
  length = std::min<uint64_t>(length, kCallDataMax);
  Call call(*this, caller);
  TRY(call.begin(std::min<uint64_t>(length, unrecorded_bytes(from))));
  Attributes source = TRY(stat_handle(from));
  Attributes target = TRY(stat_handle(to));
  TRY(check_regular(source));
  TRY(check_regular(target));
  if (from_offset >= source.size || length == 0) return 0;
  length = std::min(length, source.size - from_offset);
  const uint64_t size_max = file_size_max();
  if (to_offset >= size_max) return errno_of(EFBIG);
  length = std::min(length, size_max - to_offset);
  if (from == to && overlap(from_offset, to_offset, length)) return errno_of(EINVAL);
  length = part_that_fits(to, to_offset, length);
  const BlockRange blocks = blocks_touched(to_offset, length);
  for (InodeId inode : {from, to}) TRY(try_loaded(head_.find(inode)->content));
  if (is_sourced(head_.find(from)->content) || is_sourced(head_.find(to)->content)) {
    call.abandon();
    return copy_by_bytes(caller, {.from = from,
                                  .from_offset = from_offset,
                                  .to = to,
                                  .to_offset = to_offset,
                                  .length = length,
                                  .time = {}});
  }
  const bool by_writes = source.nlink == 0 && target.nlink > 0;
  if (by_writes && free_blocks() < missing_blocks({to, head_.find(to)}, blocks)) return errno_of(ENOSPC);
  CopyRange range{.from = from,
                  .from_offset = from_offset,
                  .to = to,
                  .to_offset = to_offset,
                  .length = length,
                  .time = call.now()};
  if (by_writes) {
    TRY(copy_recorded(call, range));
    settle_reservations(to, blocks);
  } else {
    TRY(call.apply_within_limits(target.nlink, range, to, blocks));
  }
  if (auto revoked = revoke(caller, to, target, call.now())) TRY(call.apply_to(target.nlink, *revoked));
  TRY(call.commit());
  return length;
}

// A copy from an inode without links, which no replayer may have: as writes of what it holds, and zeros for
// its holes.
Outcome<void> Filesystem::copy_recorded(Call& call, const CopyRange& range) {
  Bytes buffer(std::min<uint64_t>(range.length, kRecordedWriteMax));
  const uint64_t end = range.from_offset + range.length;
  TRY(head_.load_bytes(range.from, range.from_offset, range.length));
  TRY(head_.load_bytes(range.to, range.to_offset, range.length));
  for (uint64_t position = range.from_offset; position < end;) {
    auto found = head_.seek_data(range.from, position);
    if (!found && found.error() != Errno{ENXIO}) return std::unexpected(found.error());
    uint64_t data = std::min(found.value_or(end), end);
    uint64_t to = range.to_offset + (position - range.from_offset);
    uint64_t length = data - position;
    if (length > 0) {
      TRY(call.apply(Allocate{.inode = range.to,
                              .change = RangeChange::kZero,
                              .offset = to,
                              .length = length,
                              .time = range.time}));
    } else {
      uint64_t hole = TRY(head_.seek_hole(range.from, position));
      length = std::min<uint64_t>(std::min(hole, end) - position, buffer.size());
      ByteSpan part = ByteSpan(buffer).first(length);
      TRY(head_.read(range.from, position, part));
      TRY(call.apply(Write{.inode = range.to, .offset = to, .data = part, .time = range.time}));
    }
    position += length;
  }
  return {};
}

Outcome<uint64_t> Filesystem::seek_data(InodeId inode, uint64_t offset) {
  std::shared_lock lock(mutex_);
  TRY(stat_handle(inode));
  return head_.seek_data(inode, offset);
}

Outcome<uint64_t> Filesystem::seek_hole(InodeId inode, uint64_t offset) {
  std::shared_lock lock(mutex_);
  TRY(stat_handle(inode));
  return head_.seek_hole(inode, offset);
}

}  // namespace reprise::fs

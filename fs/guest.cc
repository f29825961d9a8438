#include "fs/guest.h"

#include <linux/falloc.h>

#include <algorithm>

namespace reprise::fs {
namespace {

using TimeChange = SetAttributesRequest::TimeChange;

Outcome<RangeChange> range_change_of(int mode) {
  switch (mode) {
    case 0:
    case FALLOC_FL_KEEP_SIZE:
      return RangeChange::kReserve;
    case FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE:
      return RangeChange::kPunch;
    case FALLOC_FL_ZERO_RANGE:
    case FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE:
      return RangeChange::kZero;
    case FALLOC_FL_COLLAPSE_RANGE:
      return RangeChange::kCollapse;
    case FALLOC_FL_INSERT_RANGE:
      return RangeChange::kInsert;
    default:
      return errno_of(EOPNOTSUPP);
  }
}

Outcome<void> check_copy_offset(const int64_t* offset, uint64_t length) {
  if (offset == nullptr || *offset >= 0) return {};
  uint64_t end;
  return errno_of(__builtin_add_overflow(static_cast<uint64_t>(*offset), length, &end) ? EOVERFLOW : EINVAL);
}

}  // namespace

Guest::Guest(Filesystem& filesystem, GuestOptions options)
    : filesystem_(filesystem), options_(std::move(options)) {
  filesystem_.pin(working_directory_);
}

Guest::~Guest() {
  for (size_t fd = 0; lock_owner_.id != 0 && fd < descriptors_.size(); ++fd) drop_locks(static_cast<int>(fd));
  filesystem_.unpin(working_directory_);
}

uint32_t Guest::set_umask(uint32_t umask) {
  return std::exchange(options_.umask, umask & 0777);
}

Caller Guest::caller() const {
  return {.uid = options_.uid,
          .gid = options_.gid,
          .groups = options_.groups,
          .trusted = options_.trusted,
          .label = options_.label,
          .umask = options_.umask};
}

// --- the table

Outcome<Guest::OpenFile*> Guest::file(int fd) const {
  if (fd < 0 || static_cast<size_t>(fd) >= descriptors_.size()) return errno_of(EBADF);
  OpenFile* found = descriptors_[static_cast<size_t>(fd)].get();
  if (found == nullptr) return errno_of(EBADF);
  return found;
}

Outcome<Guest::OpenFile*> Guest::file_to_read(int fd) const {
  OpenFile* found = TRY(file(fd));
  if (!found->readable()) return errno_of(EBADF);
  if (found->type == S_IFDIR) return errno_of(EISDIR);
  return found;
}

Outcome<Guest::OpenFile*> Guest::file_to_write(int fd) const {
  OpenFile* found = TRY(file(fd));
  if (!found->writable()) return errno_of(EBADF);
  return found;
}

Outcome<int> Guest::add(std::shared_ptr<OpenFile> opened) {
  auto free = std::find(descriptors_.begin(), descriptors_.end(), nullptr);
  if (free == descriptors_.end()) {
    if (descriptors_.size() >= options_.descriptors_max) return errno_of(EMFILE);
    free = descriptors_.insert(free, nullptr);
  }
  *free = std::move(opened);
  return static_cast<int>(free - descriptors_.begin());
}

Outcome<void> Guest::close(int fd) {
  TRY(file(fd));
  drop_locks(fd);
  descriptors_[static_cast<size_t>(fd)].reset();
  return {};
}

Outcome<int> Guest::dup(int fd) {
  TRY(file(fd));
  return add(descriptors_[static_cast<size_t>(fd)]);
}

Outcome<int> Guest::dup_to(int fd, int wanted) {
  TRY(file(fd));
  if (wanted < 0 || static_cast<size_t>(wanted) >= options_.descriptors_max) return errno_of(EBADF);
  auto index = static_cast<size_t>(wanted);
  if (index >= descriptors_.size()) descriptors_.resize(index + 1);
  if (wanted != fd) drop_locks(wanted);
  descriptors_[index] = descriptors_[static_cast<size_t>(fd)];
  return wanted;
}

Outcome<int> Guest::status_flags(int fd) {
  OpenFile* opened = TRY(file(fd));
  return opened->flags;
}

Outcome<void> Guest::set_status_flags(int fd, int flags) {
  constexpr int kSettable = O_APPEND | O_SYNC | O_DSYNC;
  OpenFile* opened = TRY(file(fd));
  if ((opened->flags & O_PATH) != 0) return errno_of(EBADF);
  opened->flags = (opened->flags & ~kSettable) | (flags & kSettable);
  return {};
}

// --- bytes

Outcome<size_t> Guest::read(int fd, ByteSpan into) {
  OpenFile* opened = TRY(file_to_read(fd));
  size_t bytes = TRY(filesystem_.read(opened->inode, opened->position, into));
  opened->position += bytes;
  return bytes;
}

Outcome<size_t> Guest::pread(int fd, ByteSpan into, int64_t offset) {
  if (offset < 0) return errno_of(EINVAL);
  OpenFile* opened = TRY(file_to_read(fd));
  return filesystem_.read(opened->inode, static_cast<uint64_t>(offset), into);
}

Outcome<size_t> Guest::write_at(OpenFile& opened, ByteView data, uint64_t* position) {
  bool append = (opened.flags & O_APPEND) != 0;
  uint64_t began = 0;
  uint64_t end = TRY(filesystem_.write(caller(), opened.inode, *position, data, append, &began));
  size_t written = end - began;
  *position = end;
  TRY(sync_if_asked(opened));
  return written;
}

Outcome<size_t> Guest::write(int fd, ByteView data) {
  OpenFile* opened = TRY(file_to_write(fd));
  if (data.empty()) return 0;
  return write_at(*opened, data, &opened->position);
}

// As on Linux, O_APPEND prevails over the offset.
Outcome<size_t> Guest::pwrite(int fd, ByteView data, int64_t offset) {
  if (offset < 0) return errno_of(EINVAL);
  OpenFile* opened = TRY(file_to_write(fd));
  if (data.empty()) return 0;
  auto position = static_cast<uint64_t>(offset);
  return write_at(*opened, data, &position);
}

Outcome<int64_t> Guest::seek(int fd, int64_t offset, int whence) {
  OpenFile* opened = TRY(file(fd));
  if ((opened->flags & O_PATH) != 0) return errno_of(EBADF);
  if ((whence == SEEK_DATA || whence == SEEK_HOLE) && opened->type == S_IFREG) {
    if (offset < 0) return errno_of(ENXIO);
    auto from = static_cast<uint64_t>(offset);
    opened->position = TRY(whence == SEEK_DATA ? filesystem_.seek_data(opened->inode, from)
                                               : filesystem_.seek_hole(opened->inode, from));
    return static_cast<int64_t>(opened->position);
  }
  int64_t base = 0;
  if (whence == SEEK_CUR) {
    base = static_cast<int64_t>(opened->position);
  } else if (whence == SEEK_END && opened->type == S_IFREG) {
    Attributes now = TRY(filesystem_.get_attributes(opened->inode));
    base = static_cast<int64_t>(now.size);
  } else if (whence != SEEK_SET) {
    return errno_of(EINVAL);
  }
  int64_t sought;
  if (__builtin_add_overflow(base, offset, &sought) || sought < 0) return errno_of(EINVAL);
  if (opened->type == S_IFREG && static_cast<uint64_t>(sought) > kFileSizeMax) return errno_of(EINVAL);
  opened->position = static_cast<uint64_t>(sought);
  return sought;
}

Outcome<void> Guest::fallocate(int fd, int mode, int64_t offset, int64_t length) {
  OpenFile* opened = TRY(file(fd));
  if ((opened->flags & O_PATH) != 0) return errno_of(EBADF);
  if (offset < 0 || length <= 0) return errno_of(EINVAL);
  RangeChange change = TRY(range_change_of(mode));
  if (!opened->writable()) return errno_of(EBADF);
  return filesystem_.allocate(caller(), opened->inode, change, (mode & FALLOC_FL_KEEP_SIZE) != 0,
                              static_cast<uint64_t>(offset), static_cast<uint64_t>(length));
}

Outcome<size_t> Guest::copy_file_range(int from, int64_t* from_offset, int to, int64_t* to_offset,
                                       size_t length) {
  OpenFile* source = TRY(file(from));
  OpenFile* target = TRY(file(to));
  if (((source->flags | target->flags) & O_PATH) != 0) return errno_of(EBADF);
  if (source->type == S_IFDIR || target->type == S_IFDIR) return errno_of(EISDIR);
  if (!source->readable() || !target->writable() || (target->flags & O_APPEND) != 0) return errno_of(EBADF);
  TRY(check_copy_offset(from_offset, length));
  TRY(check_copy_offset(to_offset, length));
  uint64_t read_at = from_offset == nullptr ? source->position : static_cast<uint64_t>(*from_offset);
  uint64_t write_at = to_offset == nullptr ? target->position : static_cast<uint64_t>(*to_offset);
  uint64_t copied =
      TRY(filesystem_.copy_range(caller(), source->inode, read_at, target->inode, write_at, length));
  if (from_offset == nullptr) source->position += copied;
  if (from_offset != nullptr) *from_offset += static_cast<int64_t>(copied);
  if (to_offset == nullptr) target->position += copied;
  if (to_offset != nullptr) *to_offset += static_cast<int64_t>(copied);
  TRY(sync_if_asked(*target));
  return copied;
}

Outcome<void> Guest::sync_if_asked(const OpenFile& opened) {
  if ((opened.flags & (O_SYNC | O_DSYNC)) == 0 || !options_.on_sync) return {};
  return options_.on_sync();
}

Outcome<void> Guest::fsync(int fd) {
  OpenFile* opened = TRY(file(fd));
  if ((opened->flags & O_PATH) != 0) return errno_of(EBADF);
  return options_.on_sync ? options_.on_sync() : Outcome<void>{};
}

// --- attributes

Outcome<Attributes> Guest::fstat(int fd) {
  OpenFile* opened = TRY(file(fd));
  return filesystem_.get_attributes(opened->inode);
}

Outcome<void> Guest::set(int fd, const SetAttributesRequest& request) {
  OpenFile* opened = TRY(file(fd));
  if ((opened->flags & O_PATH) != 0) return errno_of(EBADF);
  TRY(filesystem_.set_attributes(caller(), opened->inode, request));
  return {};
}

Outcome<void> Guest::ftruncate(int fd, int64_t size) {
  if (size < 0) return errno_of(EINVAL);
  OpenFile* opened = TRY(file(fd));
  if ((opened->flags & O_PATH) != 0) return errno_of(EBADF);
  if (!opened->writable() || opened->type != S_IFREG) return errno_of(EINVAL);
  return set(fd, {.size = static_cast<uint64_t>(size), .opened_for_writing = true});
}

Outcome<void> Guest::fchmod(int fd, uint32_t mode) {
  return set(fd, {.mode = mode});
}

// --- directories

Outcome<std::vector<DirectoryEntry>> Guest::read_directory(int fd, size_t max) {
  OpenFile* opened = TRY(file(fd));
  if ((opened->flags & O_PATH) != 0) return errno_of(EBADF);
  if (opened->type != S_IFDIR) return errno_of(ENOTDIR);
  std::vector<DirectoryEntry> entries;
  if (max == 0) return entries;
  Caller opener = caller();
  opener.trusted = true;  // open has checked
  TRY(filesystem_.read_directory(opener, opened->inode, opened->position, false,
                                 [&](const Dentry& dentry, const Attributes*) {
                                   entries.push_back({std::string(dentry.name), dentry.inode, dentry.type});
                                   opened->position = dentry.cookie;
                                   return entries.size() < max;
                                 }));
  return entries;
}

// --- whole files

Outcome<std::string> Guest::read_file(PathAt path) {
  int fd = TRY(open(path, O_RDONLY));
  std::string bytes;
  Outcome<size_t> got = 0;
  auto attributes = fstat(fd);
  size_t step = attributes ? std::min<uint64_t>(attributes->size + 1, kCallDataMax) : 1;
  do {
    size_t had = bytes.size();
    bytes.resize(had + step);
    got = read(fd, std::as_writable_bytes(std::span(bytes)).subspan(had));
    bytes.resize(had + got.value_or(0));
  } while (got && *got > 0);
  TRY(close(fd));
  TRY(got);
  return bytes;
}

Outcome<void> Guest::write_file(PathAt path, std::string_view bytes, uint32_t mode) {
  int fd = TRY(open(path, O_WRONLY | O_CREAT | O_TRUNC, mode));
  Outcome<size_t> put = 0;
  for (ByteView rest = as_bytes(bytes); !rest.empty() && put; rest = rest.subspan(put.value_or(0)))
    put = write(fd, rest);
  TRY(close(fd));
  TRY(put);
  return {};
}

Outcome<std::vector<DirectoryEntry>> Guest::list(PathAt path) {
  int fd = TRY(open(path, O_RDONLY | O_DIRECTORY));
  std::vector<DirectoryEntry> all;
  Outcome<std::vector<DirectoryEntry>> some = read_directory(fd);
  for (; some && !some->empty(); some = read_directory(fd))
    for (DirectoryEntry& entry : *some)
      if (entry.name != "." && entry.name != "..") all.push_back(std::move(entry));
  TRY(close(fd));
  TRY(some);
  std::ranges::sort(all, {}, &DirectoryEntry::name);
  return all;
}

}  // namespace reprise::fs

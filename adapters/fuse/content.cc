// Handlers of file content.
#include <fcntl.h>
#include <linux/falloc.h>
#include <unistd.h>

#include "adapters/fuse/session.h"

namespace reprise::fuse {
namespace {

using Session = Server::Session;

// Descriptors are the kernel's own business: what it has looked up is pinned for as long as it is open.
void on_open(fuse_req_t request, fuse_ino_t, fuse_file_info* file) {
  // "Not implemented" tells a kernel that can that it need not ask again, and may keep what it has cached.
  if (Session::of(request).opens_itself_) return reply_error(request, fs::Errno{ENOSYS});
  file->keep_cache = 1;
  fuse_reply_open(request, file);
}

void on_read(fuse_req_t request, fuse_ino_t inode, size_t size, off_t offset, fuse_file_info*) {
  static thread_local Bytes buffer;
  if (buffer.size() < size) buffer.resize(size);  // at most the request size agreed on at the start
  Session& session = Session::of(request);
  session.marks_.note_read(InodeId{inode}, static_cast<uint64_t>(offset), size);
  auto count =
      session.filesystem_.read(InodeId{inode}, static_cast<uint64_t>(offset), ByteSpan(buffer).first(size));
  if (!count) return reply_error(request, count.error());
  fuse_reply_buf(request, reinterpret_cast<const char*>(buffer.data()), *count);
}

// The kernel has resolved O_APPEND: it knows the size, and holds the inode's lock.
void on_write(fuse_req_t request, fuse_ino_t inode, const char* data, size_t size, off_t offset,
              fuse_file_info*) {
  Session& session = Session::of(request);
  auto end = session.changing_content(request, InodeId{inode}, request_kills_privileges(), [&] {
    return session.filesystem_.write(session.caller_of(request), InodeId{inode},
                                     static_cast<uint64_t>(offset), as_bytes({data, size}));
  });
  if (!end) return reply_error(request, end.error());
  fuse_reply_write(request, *end - static_cast<uint64_t>(offset));
}

int errno_for(const Error& error) {
  switch (error.code()) {
    case Code::kNoSpace:
      return ENOSPC;
    case Code::kReadOnly:
      return EROFS;
    default:
      return EIO;
  }
}

void on_fsync(fuse_req_t request, fuse_ino_t, int, fuse_file_info*) {
  Session& session = Session::of(request);
  if (!session.options_.on_fsync) return reply_done(request, {});
  session.done_with_tree();
  Status synced = session.options_.on_fsync();
  fuse_reply_err(request, synced ? 0 : errno_for(synced.error()));
}

// Of these requests the protocol does not say whether they take set-user-id away.
bool kills_unsaid(fuse_req_t request) {
  return fuse_req_ctx(request)->uid != 0;
}

void on_fallocate(fuse_req_t request, fuse_ino_t inode, int mode, off_t offset, off_t length,
                  fuse_file_info*) {
  fs::RangeChange change;
  switch (mode & ~FALLOC_FL_KEEP_SIZE) {
    case 0:
      change = fs::RangeChange::kReserve;
      break;
    case FALLOC_FL_PUNCH_HOLE:
      change = fs::RangeChange::kPunch;
      break;
    case FALLOC_FL_ZERO_RANGE:
      change = fs::RangeChange::kZero;
      break;
    case FALLOC_FL_COLLAPSE_RANGE:
      change = fs::RangeChange::kCollapse;
      break;
    case FALLOC_FL_INSERT_RANGE:
      change = fs::RangeChange::kInsert;
      break;
    default:
      return reply_error(request, fs::Errno{EOPNOTSUPP});
  }
  Session& session = Session::of(request);
  auto allocated = session.changing_content(request, InodeId{inode}, kills_unsaid(request), [&] {
    return session.filesystem_.allocate(session.caller_of(request), InodeId{inode}, change,
                                        (mode & FALLOC_FL_KEEP_SIZE) != 0, static_cast<uint64_t>(offset),
                                        static_cast<uint64_t>(length));
  });
  reply_done(request, allocated);
}

void on_copy_file_range(fuse_req_t request, fuse_ino_t from, off_t from_offset, fuse_file_info*,
                        fuse_ino_t to, off_t to_offset, fuse_file_info*, size_t length, int flags) {
  if (flags != 0) return reply_error(request, fs::Errno{EINVAL});
  Session& session = Session::of(request);
  auto copied = session.changing_content(request, InodeId{to}, kills_unsaid(request), [&] {
    return session.filesystem_.copy_range(session.caller_of(request), InodeId{from},
                                          static_cast<uint64_t>(from_offset), InodeId{to},
                                          static_cast<uint64_t>(to_offset), length);
  });
  if (!copied) return reply_error(request, copied.error());
  fuse_reply_write(request, *copied);
}

void on_lseek(fuse_req_t request, fuse_ino_t inode, off_t offset, int whence, fuse_file_info*) {
  if (whence != SEEK_DATA && whence != SEEK_HOLE) return reply_error(request, fs::Errno{EINVAL});
  Session::of(request).holes_.answer(request, InodeId{inode}, static_cast<uint64_t>(offset), whence);
}

}  // namespace

void add_content_handlers(fuse_lowlevel_ops& table) {
  table.open = on_open;
  table.read = on_read;
  table.write = on_write;
  table.fsync = on_fsync;
  table.fsyncdir = on_fsync;
  table.fallocate = on_fallocate;
  table.copy_file_range = on_copy_file_range;
  table.lseek = on_lseek;
}

}  // namespace reprise::fuse

// Advisory locks: what flock(2) and fcntl(2) check before they ask fs/locks.h.
#include <sys/file.h>

#include "fs/guest.h"

namespace reprise::fs {
namespace {

constexpr auto kOffsetMax = static_cast<int64_t>(kLockByteMax);

bool is_of_open_file(int command) {
  return command == F_OFD_SETLK || command == F_OFD_SETLKW || command == F_OFD_GETLK;
}

bool is_lock_type(short type) {
  return type == F_RDLCK || type == F_WRLCK || type == F_UNLCK;
}

LockMode mode_of(short type) {
  return type == F_WRLCK ? LockMode::kExclusive : LockMode::kShared;
}

// The bytes that start and length name, counted from `base`. A negative length names those before start.
Outcome<LockRange> range_of(int64_t base, int64_t start, int64_t length) {
  int64_t first;
  if (__builtin_add_overflow(base, start, &first)) return errno_of(EOVERFLOW);
  if (first < 0) return errno_of(EINVAL);
  int64_t last = kOffsetMax;
  if (length > 0 && __builtin_add_overflow(first, length - 1, &last)) return errno_of(EOVERFLOW);
  if (length < 0) {
    last = first - 1;
    first += length;
    if (first < 0) return errno_of(EINVAL);
  }
  return LockRange{static_cast<uint64_t>(first), static_cast<uint64_t>(last)};
}

}  // namespace

LockOwner Guest::owner_of(OpenFile& opened, bool open_file) {
  LockOwner& owner = open_file ? opened.lock_owner : lock_owner_;
  if (owner.id == 0)
    owner = open_file ? filesystem_.locks().new_open_file() : filesystem_.locks().new_process(options_.pid);
  return owner;
}

Outcome<void> Guest::flock(int fd, int operation, std::stop_token interrupted) {
  bool wait = (operation & LOCK_NB) == 0;
  int wanted = operation & ~LOCK_NB;
  if (wanted != LOCK_SH && wanted != LOCK_EX && wanted != LOCK_UN) return errno_of(EINVAL);
  OpenFile* opened = TRY(file(fd));
  if ((opened->flags & O_PATH) != 0) return errno_of(EBADF);
  LockOwner owner = owner_of(*opened, true);
  if (wanted == LOCK_UN) {
    filesystem_.locks().unlock_file(opened->inode, owner);
    return {};
  }
  if (!opened->readable() && !opened->writable()) return errno_of(EBADF);
  LockMode mode = wanted == LOCK_EX ? LockMode::kExclusive : LockMode::kShared;
  return filesystem_.locks().lock_file(opened->inode, owner, mode, {wait, std::move(interrupted)});
}

Outcome<LockRange> Guest::lock_range(const OpenFile& opened, const struct flock& wanted) {
  int64_t base = 0;
  switch (wanted.l_whence) {
    case SEEK_SET:
      break;
    case SEEK_CUR:
      base = static_cast<int64_t>(opened.position);
      break;
    case SEEK_END: {
      Attributes now = TRY(filesystem_.get_attributes(opened.inode));
      base = static_cast<int64_t>(now.size);
      break;
    }
    default:
      return errno_of(EINVAL);
  }
  return range_of(base, wanted.l_start, wanted.l_len);
}

Outcome<void> Guest::set_lock(int fd, int command, const struct flock& wanted, std::stop_token interrupted) {
  if (command != F_SETLK && command != F_SETLKW && command != F_OFD_SETLK && command != F_OFD_SETLKW)
    return errno_of(EINVAL);
  OpenFile* opened = TRY(file(fd));
  if ((opened->flags & O_PATH) != 0) return errno_of(EBADF);
  LockRange range = TRY(lock_range(*opened, wanted));
  if (!is_lock_type(wanted.l_type)) return errno_of(EINVAL);
  if (wanted.l_type == F_RDLCK && !opened->readable()) return errno_of(EBADF);
  if (wanted.l_type == F_WRLCK && !opened->writable()) return errno_of(EBADF);
  if (is_of_open_file(command) && wanted.l_pid != 0) return errno_of(EINVAL);
  LockOwner owner = owner_of(*opened, is_of_open_file(command));
  if (wanted.l_type == F_UNLCK) return filesystem_.locks().unlock_range(opened->inode, owner, range);
  bool wait = command == F_SETLKW || command == F_OFD_SETLKW;
  return filesystem_.locks().lock_range(opened->inode, owner, mode_of(wanted.l_type), range,
                                        {wait, std::move(interrupted)});
}

Outcome<struct flock> Guest::get_lock(int fd, int command, const struct flock& wanted) {
  if (command != F_GETLK && command != F_OFD_GETLK) return errno_of(EINVAL);
  OpenFile* opened = TRY(file(fd));
  if ((opened->flags & O_PATH) != 0) return errno_of(EBADF);
  if (command == F_GETLK && wanted.l_type != F_RDLCK && wanted.l_type != F_WRLCK) return errno_of(EINVAL);
  LockRange range = TRY(lock_range(*opened, wanted));
  if (!is_lock_type(wanted.l_type)) return errno_of(EINVAL);
  if (is_of_open_file(command) && wanted.l_pid != 0) return errno_of(EINVAL);
  bool own = wanted.l_type == F_UNLCK;  // what the open file has itself
  LockOwner owner = owner_of(*opened, is_of_open_file(command));
  Locks& locks = filesystem_.locks();
  std::optional<HeldLock> found =
      own ? locks.find_own(opened->inode, owner, range)
          : locks.find_conflict(opened->inode, owner, mode_of(wanted.l_type), range);
  struct flock answer = wanted;
  answer.l_type = F_UNLCK;
  if (!found) return answer;
  answer.l_type = found->mode == LockMode::kExclusive ? F_WRLCK : F_RDLCK;
  answer.l_whence = SEEK_SET;
  answer.l_start = static_cast<int64_t>(found->range.first);
  answer.l_len = found->range.last == kLockByteMax
                     ? 0
                     : static_cast<int64_t>(found->range.last - found->range.first + 1);
  answer.l_pid = found->owner.pid;
  return answer;
}

// Whatever a process has locked in a file goes when it closes any descriptor of it.
void Guest::drop_locks(int fd) {
  const OpenFile* closing = descriptors_[static_cast<size_t>(fd)].get();
  if (closing == nullptr || lock_owner_.id == 0 || (closing->flags & O_PATH) != 0) return;
  filesystem_.locks().release(closing->inode, lock_owner_);
}

}  // namespace reprise::fs

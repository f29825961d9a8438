/* A disk that fails when it is told to, for a program that is started with this library in LD_PRELOAD.
 *
 *   FAILING_DISK=DIRECTORY   only files below it are concerned (an absolute path without symlinks)
 *   FAILING_DISK_FAULT=FILE  what goes wrong from now on, looked at anew at each call; none if there is no
 * such file: "write ERRNO", "sync ERRNO", "change ERRNO" (every call that changes anything, so that with
 * EROFS it is a disk that was remounted read-only); ERRNO is a number FAILING_DISK_LOG=FILE    gets a line
 * "BYTES PATH" after each sync of a file that succeeded: its size before
 *
 *   FAILING_DISK_KILL=N      the process is killed right before the Nth call that changes or syncs anything
 *
 * A failing write writes nothing. Only what the journal and the catalogue use is looked after. */
#define _GNU_SOURCE
#undef _FILE_OFFSET_BITS /* else one name would stand for two */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

enum call { CALL_WRITE, CALL_SYNC, CALL_OTHER };

/* Is it below the directory? Its path then. */
static int is_concerned(int fd, const char* name, char path[PATH_MAX]) {
  const char* directory = getenv("FAILING_DISK");
  char link[64];
  ssize_t length = 0;
  if (directory == NULL) return 0;
  if (name != NULL && name[0] == '/') {
    snprintf(path, PATH_MAX, "%s", name);
  } else {
    if (fd == AT_FDCWD) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    length = readlink(link, path, PATH_MAX - 1);
    if (length < 0) return 0;
    path[length] = '\0';
  }
  return strncmp(path, directory, strlen(directory)) == 0;
}

/* The errno that the call must answer, or 0. */
static int fault_of(enum call call) {
  const char* file = getenv("FAILING_DISK_FAULT");
  char text[64] = "", kind[16] = "";
  int number = 0, fd = -1;
  ssize_t length = 0;
  if (file == NULL) return 0;
  fd = (int)syscall(SYS_openat, AT_FDCWD, file, O_RDONLY | O_CLOEXEC);
  if (fd < 0) return 0;
  length = syscall(SYS_read, fd, text, sizeof text - 1);
  syscall(SYS_close, fd);
  if (length <= 0 || sscanf(text, "%15s %d", kind, &number) != 2) return 0;
  if (strcmp(kind, "change") == 0) return number;
  if (strcmp(kind, "write") == 0 && call == CALL_WRITE) return number;
  if (strcmp(kind, "sync") == 0 && call == CALL_SYNC) return number;
  return 0;
}

static void count_call(void) {
  static atomic_int calls;
  const char* last = getenv("FAILING_DISK_KILL");
  if (last != NULL && atomic_fetch_add(&calls, 1) + 1 == atoi(last)) kill(getpid(), SIGKILL);
}

static int fails(enum call call, int fd, const char* name) {
  char path[PATH_MAX];
  int before = errno, fault = 0;
  if (is_concerned(fd, name, path)) {
    count_call();
    fault = fault_of(call);
  }
  errno = fault != 0 ? fault : before;
  return fault != 0;
}

static int synced(int fd, int (*sync)(int)) {
  char path[PATH_MAX], line[PATH_MAX + 32];
  const char* log = getenv("FAILING_DISK_LOG");
  struct stat found;
  int out = -1, length = 0;
  if (fails(CALL_SYNC, fd, NULL)) return -1;
  if (log == NULL || !is_concerned(fd, NULL, path) || fstat(fd, &found) != 0) return sync(fd);
  if (sync(fd) != 0) return -1;
  length = snprintf(line, sizeof line, "%lld %s\n", (long long)found.st_size, path);
  out = open(log, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0644);
  if (out < 0 || syscall(SYS_write, out, line, (size_t)length) != length) abort();
  close(out);
  return 0;
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

int fdatasync(int fd) {
  return synced(fd, REAL(fdatasync));
}
int fsync(int fd) {
  return synced(fd, REAL(fsync));
}

ssize_t pwrite(int fd, const void* bytes, size_t count, off_t offset) {
  return fails(CALL_WRITE, fd, NULL) ? -1 : REAL(pwrite)(fd, bytes, count, offset);
}
ssize_t pwrite64(int fd, const void* bytes, size_t count, off64_t offset) {
  return fails(CALL_WRITE, fd, NULL) ? -1 : REAL(pwrite64)(fd, bytes, count, offset);
}
ssize_t pwritev(int fd, const struct iovec* parts, int count, off_t offset) {
  return fails(CALL_WRITE, fd, NULL) ? -1 : REAL(pwritev)(fd, parts, count, offset);
}
ssize_t pwritev64(int fd, const struct iovec* parts, int count, off64_t offset) {
  return fails(CALL_WRITE, fd, NULL) ? -1 : REAL(pwritev64)(fd, parts, count, offset);
}
int ftruncate(int fd, off_t bytes) {
  return fails(CALL_OTHER, fd, NULL) ? -1 : REAL(ftruncate)(fd, bytes);
}
int ftruncate64(int fd, off64_t bytes) {
  return fails(CALL_OTHER, fd, NULL) ? -1 : REAL(ftruncate64)(fd, bytes);
}
int renameat(int from, const char* old_name, int to, const char* new_name) {
  return fails(CALL_OTHER, from, old_name) ? -1 : REAL(renameat)(from, old_name, to, new_name);
}
int unlinkat(int fd, const char* name, int flags) {
  return fails(CALL_OTHER, fd, name) ? -1 : REAL(unlinkat)(fd, name, flags);
}

static int changes(int flags) {
  return (flags & (O_ACCMODE | O_CREAT | O_TRUNC)) != O_RDONLY;
}

static mode_t mode_of(int flags, va_list more) {
  return (flags & O_CREAT) != 0 || (flags & O_TMPFILE) == O_TMPFILE ? va_arg(more, mode_t) : 0;
}

#define OPENS_AT(name)                                            \
  int name(int fd, const char* path, int flags, ...) {            \
    va_list more;                                                 \
    mode_t mode = 0;                                              \
    va_start(more, flags);                                        \
    mode = mode_of(flags, more);                                  \
    va_end(more);                                                 \
    if (changes(flags) && fails(CALL_OTHER, fd, path)) return -1; \
    return REAL(name)(fd, path, flags, mode);                     \
  }
#define OPENS(name)                                                     \
  int name(const char* path, int flags, ...) {                          \
    va_list more;                                                       \
    mode_t mode = 0;                                                    \
    va_start(more, flags);                                              \
    mode = mode_of(flags, more);                                        \
    va_end(more);                                                       \
    if (changes(flags) && fails(CALL_OTHER, AT_FDCWD, path)) return -1; \
    return REAL(name)(path, flags, mode);                               \
  }

OPENS_AT(openat)
OPENS_AT(openat64)
OPENS(open)
OPENS(open64)

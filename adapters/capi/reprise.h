/* Reprise: filesystems of interpreter instances, kept in step. The C interface (C99).
 *
 * An instance is one live copy of a volume: a filesystem in this process's memory, whose every change is
 * recorded. Guests are interpreters in it: each has descriptors, a working directory, credentials and a label
 * of its own. Instances follow each other, fork and join. docs/embedding.md leads from nothing to a working
 * host.
 *
 *   reprise_instance *instance;
 *   reprise_guest *guest;
 *   if (reprise_instance_open("site.store", NULL, &instance) != 0) return puts(reprise_last_error()), 1;
 *   reprise_guest_attach(instance, NULL, &guest);
 *   reprise_write_file(guest, "/hello", "hi", 2, 0644);
 *   reprise_guest_detach(guest);
 *   reprise_instance_close(instance);
 *
 * Errors. What returns int, int64_t or ptrdiff_t returns a negative errno if it failed, and nothing has
 * happened then but what the function names. reprise_last_error() says it in words. Beyond what POSIX has
 * for a call of its name:
 * - EBADF: a handle that is null, was given back, or is of another kind
 * - EBUSY: a guest that another thread is using; an instance that has guests, or is being closed; a branch
 *   that is live
 * - EINVAL: an argument that makes no sense, null where it must not be
 * - EAGAIN and the like, where the system gives no more threads or memory
 * - EPERM: this process was forked off the one that made the handle
 *
 * and for what reaches outside memory EBADMSG (damaged), ENOTSUP (a version or feature this build does not
 * know), EIO, ENOSPC, ETIMEDOUT, ECONNREFUSED, EHOSTUNREACH (nobody is there), ENOTCONN (cut off), EACCES (a
 * token is lacking, or is another), EXDEV (a peer of another volume), ESTALE (what is needed of the journal
 * was dropped), EROFS (a follower, or an instance whose disk failed), each of them negative.
 *
 * Handles are names of things, not addresses: one that is wrong in any way is refused. Each belongs to whom
 * it was given, until given back; what is left at the end of the process ends as in a crash: what was synced
 * is there.
 *
 * Threads. An instance's handle may be used by any number of threads at once; a guest by one at a time.
 * Callbacks run in the calling thread with no lock held, unless said otherwise. An instance on disk writes
 * and follows with threads of its own; one in memory that neither listens nor follows has none.
 *
 * fork(2). The child may not use what the parent has made (-EPERM), and need not give it back. As long as it
 * lives and has not exec'ed, the branches that were open are not free for others, whatever the parent closes.
 *
 * Bytes and paths. Paths are bytes of the instance's own tree, at most 4,095 of them, never of the host's,
 * but where "on the host" is said. Structures begin with their size, so that later versions can make them
 * longer: initialise with REPRISE_..._INIT, or fill with zeros and set `size`.
 */
#ifndef REPRISE_H
#define REPRISE_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#ifdef __cplusplus
extern "C" {
#endif

#define REPRISE_VERSION_MAJOR 0
#define REPRISE_VERSION_MINOR 1
#define REPRISE_VERSION_PATCH 0

#if defined(__GNUC__)
#define REPRISE_API __attribute__((visibility("default")))
#else
#define REPRISE_API
#endif

typedef struct reprise_instance reprise_instance;
typedef struct reprise_guest reprise_guest;
typedef struct reprise_watch reprise_watch;

/* "0.1.0". A constant. */
REPRISE_API const char* reprise_version(void);

/* Why the last call of this thread that failed did so, in words; "" if none has. Valid until this thread's
 * next call. */
REPRISE_API const char* reprise_last_error(void);

/* What the library has to say beside what it answers, a line without its end: that a torn journal was cut, a
 * leader is away. Called from any thread, one at a time; must not call back into the library. Null, as at the
 * beginning: nobody is told. */
enum { REPRISE_LOG_DEBUG = 0, REPRISE_LOG_WARNING = 1 };
typedef void (*reprise_log_callback)(void* context, int level, const char* line);
REPRISE_API void reprise_set_log(reprise_log_callback callback, void* context);

/* --- instances ------------------------------------------------------------------------------------------ */

typedef struct reprise_instance_options {
  size_t size;
  const char* branch;     /* null: "main". Others are made by reprise_fork */
  const char* listen;     /* null, or where followers may connect: "unix:PATH" on the host, "tcp:HOST:PORT",
                             or "process:NAME" for those of this process alone */
  const char* follow;     /* null, or whom to follow, read-only: likewise */
  const char* durability; /* null: "fsync". "none", "lazy", "fsync", "always": docs/architecture.md */
  const char* label;      /* null, or of marks and limits that are set by this instance; at most 255 bytes */
  uint64_t volume_bytes;  /* the volume's limits from here on; 0 leaves them, UINT64_MAX takes them away */
  uint64_t volume_inodes;
  uint32_t contact_timeout_ms; /* a new follower's patience; 0: 10,000 */
  uint32_t await_followers_ms; /* with `listen`, after a crash: how long followers are waited for that may
                                  have what the disk lost; 0: nobody is */
  const char*
      token; /* null, or what both ends of a connection must know: 16 to 4,096 bytes. Needed where others
                than this machine's programs can connect. It is never sent; nothing is encrypted */
} reprise_instance_options;
#define REPRISE_INSTANCE_OPTIONS_INIT \
  {sizeof(reprise_instance_options), NULL, NULL, NULL, NULL, NULL, 0, 0, 0, 0, NULL}

/* Opens the store at `store` on the host, which is made, with its parents, if it is not there; null: in
 * memory, gone with its last instance, with a journal of 64 MiB at most. Options may be null. A new follower
 * returns when it has the leader's state.
 */
REPRISE_API int reprise_instance_open(const char* store, const reprise_instance_options* options,
                                      reprise_instance** instance);
/* Ends sessions, leaves a checkpoint, gives the branch back. -EBUSY while it has guests or watches. Other
 * threads' calls with it are refused from its beginning on; those that wait are ended (-ECANCELED), those
 * under way are waited for 5 seconds, then it is -EBUSY and all is as before. Else the handle is gone
 * whatever is returned: an error tells that something of the end could not be written. */
REPRISE_API int reprise_instance_close(reprise_instance* instance);

/* What has been done so far is on the disk when it returns. */
REPRISE_API int reprise_sync(reprise_instance* instance);
/* Sets a mark, which wait_for_mark elsewhere waits for. A name is letters, digits, '_', '.', '-', and begins
 * with a letter or '_'. */
REPRISE_API int reprise_mark(reprise_instance* instance, const char* name);
/* Returns when the mark has been passed here. */
REPRISE_API int reprise_wait_for_mark(reprise_instance* instance, const char* name, uint32_t timeout_ms);
/* The position here, as text that another instance of the volume can wait for. Like snprintf: returns its
 * length, writes at most `size` bytes with the final 0. */
REPRISE_API int64_t reprise_position(reprise_instance* instance, char* text, size_t size);
/* Returns when everything before that position is applied here. */
REPRISE_API int reprise_wait_for(reprise_instance* instance, const char* position, uint32_t timeout_ms);
/* Returns when followers have everything that has been done so far: `peers` of them, whichever (0: all that
 * are connected now), on their disks if `synced`. -ENOENT if nobody is there or it does not listen, -ENOTCONN
 * if one of them has gone for good. */
REPRISE_API int reprise_flush(reprise_instance* instance, uint32_t peers, int synced, uint32_t timeout_ms);
/* Keeps the tree of this moment in the store, durably. Label null: none. Returns its number. */
REPRISE_API int64_t reprise_snapshot(reprise_instance* instance, const char* label);
/* What `reprise stat --json` shows: JSON. Like snprintf. */
REPRISE_API int64_t reprise_statistics(reprise_instance* instance, char* text, size_t size);
/* The state digest, 16 bytes: equal trees, equal digests. */
REPRISE_API int reprise_digest(reprise_instance* instance, unsigned char digest[16]);

/* --- fork, join, reset ---------------------------------------------------------------------------------- */

/* Begins the branch `name` at this moment and opens it. One of a volume in memory costs what is changed on
 * it, lasts as long as an instance of the volume does, and is opened only here. */
REPRISE_API int reprise_fork(reprise_instance* parent, const char* name, reprise_instance** child);

/* One thing that both have changed. The strings last for the call. */
typedef struct reprise_conflict {
  const char* path;
  const char* what;
} reprise_conflict;
typedef void (*reprise_conflict_callback)(void* context, const reprise_conflict* conflict);

/* Puts what was done on the branch, which must be closed, into `parent`, all or nothing, and takes the branch
 * away. Returns the number of conflicts: if there are any, nothing was done, and each was told (callback may
 * be null). */
REPRISE_API int64_t reprise_join(reprise_instance* parent, const char* name,
                                 reprise_conflict_callback callback, void* context);
enum { REPRISE_OURS = 1, REPRISE_THEIRS = 2 };
/* As reprise_join, but where both have changed the same, what the parent did counts (REPRISE_OURS), or what
 * the branch did (REPRISE_THEIRS), and of the other's what does not touch that. Returns the number of
 * conflicts. If there were any, each is told to `conflict`; then to `left_out`, of the other's, what is not
 * there now (a path as that one has it, or a mark's name); and the branch stays, with its history, until it
 * is discarded. Either callback may be null. -EBUSY, with nothing done, also if guests of `parent` do not
 * stop writing. */
REPRISE_API int64_t reprise_join_resolved(reprise_instance* parent, const char* name, int winner,
                                          reprise_conflict_callback conflict,
                                          reprise_conflict_callback left_out, void* context);
/* Takes the branch away, which must be closed, with all that was done on it. */
REPRISE_API int reprise_discard(reprise_instance* parent, const char* name);

/* Makes the tree what it was at a position, by a change as any other, all or nothing: its history stays, and
 * followers get what leads there. The position (as of reprise_diff) is one of `branch`; null, the instance's
 * own. Of another branch it may be null, too: as that is on the disk, and if it is open, was last synced.
 * With `keep` (or null) what there was becomes a branch of that name. Returns how many operations it took, 0
 * if all was so already; `before` (or null) gets the log index of what was left, which can be reset to in
 * turn. -EBUSY, with nothing done, if guests do not stop writing; -ENOENT for a position or a branch that is
 * not there, -EEXIST if `keep` is, -ENOTSUP in memory. */
REPRISE_API int64_t reprise_reset(reprise_instance* instance, const char* position, const char* branch,
                                  const char* keep, uint64_t* before);

/* --- what changes, and what differs -------------------------------------------------------------------- */

enum {
  REPRISE_CREATED = 1,
  REPRISE_CHANGED =
      2, /* its bytes (`content`), or mode, owner, times or xattrs (`attributes`), or it was replaced */
  REPRISE_REMOVED = 3,
  REPRISE_RENAMED = 4, /* `from` is what it was called; what lies below came along. May have changed, too */
  REPRISE_OVERRUN = 5  /* of a watch that could not keep up: anything may have changed before what follows */
};
/* The strings last for the call; paths are from the root, with a leading '/'. */
typedef struct reprise_change {
  int kind;
  const char* path;
  const char* from; /* null but for REPRISE_RENAMED */
  int content;
  int attributes;
} reprise_change;
typedef void (*reprise_change_callback)(void* context, const reprise_change* change);

/* Watches the whole tree from this moment on, whoever changes it: guests here, or a leader that is followed.
 * A watch belongs to one thread at a time, and holds the instance as a guest does. It costs the memory of one
 * name for each file, and writers nothing. */
REPRISE_API int reprise_watch_begin(reprise_instance* instance, reprise_watch** watch);
/* Tells what has changed since the last call, of each path but once, and returns how much. Waits for the
 * first of it, timeout_ms at most, then it is 0. */
REPRISE_API int64_t reprise_watch_next(reprise_watch* watch, uint32_t timeout_ms,
                                       reprise_change_callback callback, void* context);
/* For a host that sleeps in poll(2) or an event loop: a descriptor that can be read when there may be
 * something to tell. Then take a step: reprise_watch_next with a timeout of 0, which also makes it quiet
 * again. Poll it, do not read or close it; it goes with the watch. The first call makes it, and a thread that
 * rings it; from then on what each call of a guest changes is recorded by itself, as it is for a follower. */
REPRISE_API int reprise_watch_descriptor(reprise_watch* watch);
REPRISE_API int reprise_watch_end(reprise_watch* watch);

/* What leads from one state to another, sorted by path; returns how much. A position is null (now), a mark, a
 * log index, what reprise_position gives, or "{10m}" (ten minutes ago), of the instance's branch; a volume in
 * memory has only now. Of instances of one volume renames are seen, and owners and times compared. Callback
 * may be null. */
REPRISE_API int64_t reprise_diff(reprise_instance* before, const char* before_position,
                                 reprise_instance* after, const char* after_position,
                                 reprise_change_callback callback, void* context);

/* --- files of the host, in and out ---------------------------------------------------------------------- */

typedef struct reprise_import_options {
  size_t size;
  const char* into;     /* a directory of the instance, made if it is missing; null: the root */
  const char* label;    /* null: the instance's */
  int over;             /* not zero: over files that are there, else -EEXIST */
  int set_ids;          /* not zero: keep setuid and setgid bits, */
  int devices;          /* device nodes, */
  int all_xattrs;       /* security.* and trusted.* */
  uint64_t max_entries; /* names, and bytes that take room, at the most; 0: 2,000,000 and 16 GiB; UINT64_MAX:
                           any */
  uint64_t max_bytes;
} reprise_import_options;
#define REPRISE_IMPORT_OPTIONS_INIT {sizeof(reprise_import_options), NULL, NULL, 0, 0, 0, 0, 0, 0}

/* Brings the files of a directory, a ZIP or a tar (packed or not) of the host into the instance: guests and
 * followers see none of it or all. Returns how many names. -EBUSY, with nothing done, if somebody changed the
 * tree meanwhile; -EBADMSG for what is damaged or means harm. Options may be null. */
REPRISE_API int64_t reprise_import(reprise_instance* instance, const char* from,
                                   const reprise_import_options* options);

typedef struct reprise_export_options {
  size_t size;
  const char* position; /* null: now; as of reprise_diff */
  const char* from;     /* a directory of the instance; null: the root */
  int over;   /* not zero: into a directory with files in it, which stay where nothing takes their place */
  int owners; /* not zero: of a directory: set owners and groups, as root */
  int set_ids, devices, all_xattrs;
} reprise_export_options;
#define REPRISE_EXPORT_OPTIONS_INIT {sizeof(reprise_export_options), NULL, NULL, 0, 0, 0, 0, 0}

/* Puts a state into a directory of the host, empty or not there yet, or into a ZIP or a tar, if that is what
 * the name ends in. It appears whole or not at all. Returns how many entries. Options may be null. */
REPRISE_API int64_t reprise_export(reprise_instance* instance, const char* to,
                                   const reprise_export_options* options);

/* --- guests --------------------------------------------------------------------------------------------- */

typedef struct reprise_guest_options {
  size_t size;
  const char* label; /* null, or recorded with every operation; at most 255 bytes */
  uint32_t uid, gid;
  const uint32_t* groups; /* supplementary */
  size_t group_count;
  int checked;    /* not zero: permissions are those of uid, gid and groups. Zero: everything is allowed */
  uint32_t umask; /* 022 for what programs have by default */
  int32_t pid;    /* what others are told of its locks */
} reprise_guest_options;
#define REPRISE_GUEST_OPTIONS_INIT {sizeof(reprise_guest_options), NULL, 0, 0, NULL, 0, 0, 022, 0}

/* Options may be null: REPRISE_GUEST_OPTIONS_INIT. */
REPRISE_API int reprise_guest_attach(reprise_instance* instance, const reprise_guest_options* options,
                                     reprise_guest** guest);
/* Closes its descriptors, gives up its locks. -EBUSY while another thread is in a call with it. */
REPRISE_API int reprise_guest_detach(reprise_guest* guest);
REPRISE_API int reprise_guest_set_label(reprise_guest* guest, const char* label);

/* --- files of a guest: as the system calls of these names, with Linux's flags and errno -------------------
 */

typedef struct reprise_time {
  int64_t sec;  /* since 1970, UTC */
  int64_t nsec; /* 0 to 999,999,999 */
} reprise_time;

typedef struct reprise_attributes {
  uint64_t inode;
  uint64_t rdev;
  uint64_t bytes;  /* of the file; of a directory the number of its entries */
  uint64_t blocks; /* of 512 bytes that it takes */
  uint32_t mode;   /* type and permissions */
  uint32_t links;
  uint32_t uid, gid;
  reprise_time atime, mtime, ctime;
} reprise_attributes;

/* Returns a descriptor of this guest, which is none of the process's. */
REPRISE_API int reprise_open(reprise_guest* guest, const char* path, int flags, uint32_t mode);
REPRISE_API int reprise_close(reprise_guest* guest, int fd);
REPRISE_API int reprise_dup(reprise_guest* guest, int fd);
/* Return the number of bytes; 0 at the end of the file. */
REPRISE_API ptrdiff_t reprise_read(reprise_guest* guest, int fd, void* into, size_t size);
REPRISE_API ptrdiff_t reprise_pread(reprise_guest* guest, int fd, void* into, size_t size, int64_t offset);
REPRISE_API ptrdiff_t reprise_write(reprise_guest* guest, int fd, const void* from, size_t size);
REPRISE_API ptrdiff_t reprise_pwrite(reprise_guest* guest, int fd, const void* from, size_t size,
                                     int64_t offset);
REPRISE_API int64_t reprise_seek(reprise_guest* guest, int fd, int64_t offset, int whence);
REPRISE_API int reprise_ftruncate(reprise_guest* guest, int fd, int64_t size);
REPRISE_API int reprise_fallocate(reprise_guest* guest, int fd, int mode, int64_t offset, int64_t length);
REPRISE_API int reprise_fsync(reprise_guest* guest, int fd);
REPRISE_API int reprise_fstat(reprise_guest* guest, int fd, reprise_attributes* attributes);

/* Locks are advisory, and hold among the guests of one instance. `operation` is LOCK_SH, LOCK_EX or LOCK_UN
 * of <sys/file.h>. Who has to wait does so for timeout_ms at most (0: not at all, -EWOULDBLOCK; else
 * -ETIMEDOUT); REPRISE_FOREVER: until it has the lock, or another thread has called reprise_guest_interrupt
 * (-EINTR). Whoever waits with a limit does so beside a thread that looks at the clock. */
#define REPRISE_FOREVER UINT32_MAX
/* Of the whole file, held by the open file: as flock. */
REPRISE_API int reprise_flock(reprise_guest* guest, int fd, int operation, uint32_t timeout_ms);
/* Of `length` bytes from `offset` (0: to the end, wherever that will be), held by the guest: as fcntl's
 * F_SETLK, and like those gone when the guest closes any descriptor of the file. -EDEADLK. */
REPRISE_API int reprise_lock(reprise_guest* guest, int fd, int operation, int64_t offset, int64_t length,
                             uint32_t timeout_ms);
/* 0: reprise_lock would not have to wait. 1: it would, for the guest with `pid` (may be null). */
REPRISE_API int reprise_test_lock(reprise_guest* guest, int fd, int operation, int64_t offset, int64_t length,
                                  int32_t* pid);
/* A call of another thread with this guest that waits for a lock ends, with -EINTR; if none does, nothing
 * happens. The one call of a guest that is not refused while another thread is in one. */
REPRISE_API int reprise_guest_interrupt(reprise_guest* guest);
/* A stream on the file: fclose it before the guest goes. `mode` as of fopen; null and errno on failure. */
REPRISE_API FILE* reprise_fopen(reprise_guest* guest, const char* path, const char* mode);

REPRISE_API int reprise_stat(reprise_guest* guest, const char* path, reprise_attributes* attributes);
REPRISE_API int reprise_lstat(reprise_guest* guest, const char* path, reprise_attributes* attributes);
REPRISE_API int reprise_access(reprise_guest* guest, const char* path, int wanted);
REPRISE_API int reprise_mkdir(reprise_guest* guest, const char* path, uint32_t mode);
REPRISE_API int reprise_rmdir(reprise_guest* guest, const char* path);
REPRISE_API int reprise_unlink(reprise_guest* guest, const char* path);
REPRISE_API int reprise_rename(reprise_guest* guest, const char* from, const char* to);
REPRISE_API int reprise_link(reprise_guest* guest, const char* from, const char* to);
REPRISE_API int reprise_symlink(reprise_guest* guest, const char* target, const char* path);
/* Like snprintf. */
REPRISE_API int64_t reprise_readlink(reprise_guest* guest, const char* path, char* target, size_t size);
REPRISE_API int reprise_truncate(reprise_guest* guest, const char* path, int64_t size);
REPRISE_API int reprise_chmod(reprise_guest* guest, const char* path, uint32_t mode);
REPRISE_API int reprise_chown(reprise_guest* guest, const char* path, uint32_t uid, uint32_t gid);
/* Access and modification, UTIME_NOW and UTIME_OMIT of <sys/stat.h> among nsec; null: now. */
REPRISE_API int reprise_utimens(reprise_guest* guest, const char* path, const reprise_time times[2]);
REPRISE_API int reprise_chdir(reprise_guest* guest, const char* path);
/* Like snprintf. */
REPRISE_API int64_t reprise_getcwd(reprise_guest* guest, char* path, size_t size);

/* The name lasts for the call; `type` is DT_... of <dirent.h>. Not zero stops, and is returned; a positive
 * one cannot be taken for an error of the call. */
typedef int (*reprise_entry_callback)(void* context, const char* name, uint64_t inode, int type);
/* All entries but "." and "..", sorted by name, as they were at one moment. */
REPRISE_API int reprise_list(reprise_guest* guest, const char* path, reprise_entry_callback callback,
                             void* context);
/* The whole file. Returns its length and writes at most `size` bytes of it: ask with 0 how many there are. */
REPRISE_API int64_t reprise_read_file(reprise_guest* guest, const char* path, void* into, size_t size);
/* Makes the file, or replaces what it holds. */
REPRISE_API int reprise_write_file(reprise_guest* guest, const char* path, const void* from, size_t size,
                                   uint32_t mode);

#ifdef __cplusplus
}
#endif
#endif

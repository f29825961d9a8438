// One call of a guest as a value, so that the same sequence can be put to a Guest, to a model and to the
// kernel.
#pragma once

#include <fcntl.h>
#include <rapidcheck.h>
#include <stdio.h>

#include <map>
#include <ostream>
#include <string>
#include <vector>

#include "fs/errno.h"

namespace reprise::fs {

enum class Kind : int {
  kOpen,
  kClose,
  kRead,
  kWrite,
  kPwrite,
  kSeek,
  kTruncate,
  kFtruncate,
  kMkdir,
  kMknod,
  kUnlink,
  kRmdir,
  kRename,
  kLink,
  kSymlink,
  kReadlink,
  kChmod,
  kFchmod,
  kChown,
  kStat,
  kLstat,
  kFstat,
  kAccess,
  kList,
  kLastRandom = kList,
  // Not in random sequences: the model does not know them.
  kFallocate,   // of the slot: flags, offset, length
  kCopyRange,   // from the slot at offset, length bytes, to slot `mode` at `flags`
  kLinkHandle,  // the slot's file gets the path
  kTouch,       // utimensat: flags 0 now, 1 mtime only, 2 a given time
};

inline bool is_by_handle(Kind kind) {
  switch (kind) {
    case Kind::kClose:
    case Kind::kRead:
    case Kind::kWrite:
    case Kind::kPwrite:
    case Kind::kSeek:
    case Kind::kFtruncate:
    case Kind::kFchmod:
    case Kind::kFallocate:
    case Kind::kCopyRange:
    case Kind::kLinkHandle:
    case Kind::kFstat:
      return true;
    default:
      return false;
  }
}

inline const char* kind_name(Kind kind) {
  static const char* const kNames[] = {"open",     "close",     "read",    "write",    "pwrite", "seek",
                                       "truncate", "ftruncate", "mkdir",   "mknod",    "unlink", "rmdir",
                                       "rename",   "link",      "symlink", "readlink", "chmod",  "fchmod",
                                       "chown",    "stat",      "lstat",   "fstat",    "access", "list"};
  return kNames[static_cast<int>(kind)];
}

struct Call {
  Kind kind = Kind::kStat;
  std::string path, other;  // other: a second path, or a symlink's target
  int slot = 0;             // of the few handles a sequence has
  int flags = 0;            // of open, rename and link; whence of seek; what access asks for
  uint32_t mode = 0;        // of open, mkdir, mknod and chmod; of chown the new uid and gid
  int64_t offset = 0;       // also a size
  size_t length = 0;        // bytes to read or write
  char fill = 'x';          // what is written
  int actor = 0;            // who calls
};

inline std::ostream& operator<<(std::ostream& out, const Call& c) {
  return out << "{" << kind_name(c.kind) << " '" << c.path << "' '" << c.other << "' slot " << c.slot
             << " flags 0" << std::oct << c.flags << " mode 0" << c.mode << std::dec << " offset " << c.offset
             << " length " << c.length << " fill " << c.fill << " actor " << c.actor << "}";
}

// What a call came to, in words: an errno, or its result.
inline std::string failed(int error) {
  return errno_text(Errno{error});
}
inline std::string ok(std::string result = "") {
  return "ok " + result;
}

constexpr int kSlots = 3;

// Somebody who can be called. Both give answers and trees that compare equal when they agree.
class Callee {
 public:
  virtual ~Callee() = default;
  virtual std::string perform(const Call& call) = 0;
  // Every path below the top with all that two filesystems can agree on.
  virtual std::map<std::string, std::string> tree() = 0;
};

struct CallOptions {
  int actors = 1;
  bool sockets = true;
};

inline rc::Gen<std::string> gen_path() {
  // Few names, so that they collide; what resolution trips over now and then.
  return rc::gen::weightedOneOf<std::string>(
      {{12, rc::gen::elementOf(
                std::vector<std::string>{"a", "b", "c", "a/a", "a/b", "b/a", "a/b/c", "b/c/a", "d"})},
       {4,
        rc::gen::elementOf(std::vector<std::string>{".", "..", "a/", "b/", "a/.", "a/..", "b/../c", "../n",
                                                    "../n/a", "a//b", "./a", "", "a/b/", "../../n", "../x"})},
       {1, rc::gen::just(std::string(256, 'n'))}});
}

inline rc::Gen<Call> gen_call(const CallOptions& options) {
  using rc::gen::elementOf;
  using rc::gen::set;
  auto modes = elementOf(
      std::vector<uint32_t>{0755, 0644, 0777, 0700, 0600, 0, 02755, 04755, 02775, 06711, 02644, 0311});
  auto gen_kind = rc::gen::weightedOneOf<Kind>(
      {{3, rc::gen::map(rc::gen::inRange(0, static_cast<int>(Kind::kLastRandom) + 1),
                        [](int k) { return static_cast<Kind>(k); })},
       {2, elementOf(std::vector<Kind>{Kind::kOpen, Kind::kWrite, Kind::kMkdir, Kind::kRename, Kind::kUnlink,
                                       Kind::kLink})}});
  return rc::gen::mapcat(gen_kind, [=](Kind kind) {
    std::vector<int> flags{0};
    if (kind == Kind::kOpen)
      flags = {O_RDONLY,
               O_RDWR | O_CREAT,
               O_WRONLY | O_CREAT | O_EXCL,
               O_WRONLY | O_CREAT | O_TRUNC,
               O_RDONLY | O_TRUNC,
               O_RDWR | O_APPEND,
               O_RDONLY | O_DIRECTORY,
               O_RDWR | O_CREAT | O_APPEND,
               O_RDWR,
               O_RDONLY | O_NOFOLLOW,
               O_RDWR | O_CREAT | O_NOFOLLOW,
               O_RDONLY | O_DIRECTORY | O_NOFOLLOW,
               O_WRONLY,
               O_RDONLY | O_CREAT | O_TRUNC,
               O_PATH};
    if (kind == Kind::kRename)
      flags = {0, 0, 0, RENAME_NOREPLACE, RENAME_EXCHANGE, RENAME_NOREPLACE | RENAME_EXCHANGE};
    if (kind == Kind::kLink) flags = {0, AT_SYMLINK_FOLLOW};
    if (kind == Kind::kSeek) flags = {SEEK_SET, SEEK_CUR, SEEK_END, 77};
    if (kind == Kind::kAccess) flags = {0, 4, 2, 1, 6, 7, 8};
    auto mode = kind == Kind::kChown ? elementOf(std::vector<uint32_t>{0, 1000, 1001})
                : kind == Kind::kMknod
                    ? elementOf(options.sockets ? std::vector<uint32_t>{S_IFREG | 0644u, S_IFSOCK | 0755u}
                                                : std::vector<uint32_t>{S_IFREG | 0644u})
                    : modes;
    return rc::gen::build<Call>(
        set(&Call::kind, rc::gen::just(kind)), set(&Call::path, gen_path()), set(&Call::other, gen_path()),
        set(&Call::slot, rc::gen::inRange(0, kSlots)), set(&Call::flags, elementOf(flags)),
        set(&Call::mode, mode),
        set(&Call::offset,
            rc::gen::weightedElement<int64_t>(
                {{4, 0}, {2, 3}, {2, 100}, {1, 2048}, {1, 2049}, {1, 4096}, {1, 9000}, {1, 70000}, {1, -1}})),
        set(&Call::length, rc::gen::weightedElement<size_t>(
                               {{1, 0}, {4, 1}, {4, 10}, {1, 2100}, {1, 4096}, {1, 8192}, {1, 10000}})),
        set(&Call::fill, elementOf(std::vector<char>{'x', 'y', '\0'})),
        set(&Call::actor, rc::gen::inRange(0, options.actors)));
  });
}

// Long enough that what one call left behind is in the way of others.
inline rc::Gen<std::vector<Call>> gen_calls(const CallOptions& options) {
  return rc::gen::scale(4.0, rc::gen::container<std::vector<Call>>(rc::gen::scale(0.25, gen_call(options))));
}

}  // namespace reprise::fs

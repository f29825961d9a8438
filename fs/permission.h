// Who may do what: Linux's rules over owner, group, others and root, as plain functions of a Caller and
// Attributes.
//
// For the facade. POSIX ACLs are stored and passed on, not evaluated: an adapter whose kernel evaluates them
// passes trusted callers. A trusted caller passes every check here; uid 0 stands for all capabilities.
#pragma once

#include <unistd.h>

#include "fs/errno.h"
#include "fs/filesystem.h"

namespace reprise::fs {

// What permissions depend on, of an inode at one moment.
struct Protection {
  uint32_t mode, uid, gid;

  Protection(const Attributes& a) : mode(a.mode), uid(a.uid), gid(a.gid) {}  // NOLINT: meant to convert
  Protection(const Inode& inode) : mode(inode.mode), uid(inode.uid), gid(inode.gid) {}  // NOLINT
};

inline bool privileged(const Caller& caller) {
  return caller.uid == 0;
}

// The groups of a trusted caller are not known here; its kernel has looked.
inline bool has_group(const Caller& caller, uint32_t gid) {
  if (caller.trusted || caller.gid == gid) return true;
  for (uint32_t group : caller.groups)
    if (group == gid) return true;
  return false;
}

inline bool owns(const Caller& caller, const Protection& of) {
  return caller.trusted || privileged(caller) || caller.uid == of.uid;
}

// wanted: any of R_OK, W_OK, X_OK. EACCES.
Outcome<void> check_access_of_untrusted(const Caller& caller, const Protection& of, int wanted);
inline Outcome<void> check_access(const Caller& caller, const Protection& of, int wanted) {
  if (caller.trusted) return {};
  return check_access_of_untrusted(caller, of, wanted);
}

// In a sticky directory only the owner of a name's inode, or of the directory, may remove or rename it.
// EPERM.
Outcome<void> check_sticky(const Caller& caller, const Protection& directory, const Protection& victim);

// Permission bits left after the caller has written to a file, or has changed its owner or group: set-user-id
// goes, and set-group-id where it means execution.
uint32_t mode_after_write(const Caller& caller, const Protection& file);
uint32_t mode_after_chown(const Caller& caller, const Protection& attributes);

// What a new inode gets: the group of a set-group-id directory, and for a directory that bit as well; not
// what the umask hides.
struct Inherited {
  uint32_t mode, gid;
};
Inherited inherit(const Caller& caller, const Protection& directory, uint32_t mode);

}  // namespace reprise::fs

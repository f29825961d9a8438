#include "fs/permission.h"

namespace reprise::fs {
namespace {

// Set-group-id without group execution is no privilege of whoever runs the file: a member of the group keeps
// it.
bool drops_setgid(const Caller& caller, const Protection& attributes) {
  if ((attributes.mode & S_ISGID) == 0) return false;
  return (attributes.mode & S_IXGRP) != 0 || !(privileged(caller) || has_group(caller, attributes.gid));
}

}  // namespace

Outcome<void> check_access_of_untrusted(const Caller& caller, const Protection& of, int wanted) {
  auto want = static_cast<uint32_t>(wanted);
  if (privileged(caller)) {
    bool executable = S_ISDIR(of.mode) || (of.mode & 0111) != 0;
    if ((want & X_OK) == 0 || executable) return {};
    return errno_of(EACCES);
  }
  uint32_t bits = of.mode;
  if (caller.uid == of.uid)
    bits >>= 6;
  else if (has_group(caller, of.gid))
    bits >>= 3;
  if ((want & ~bits & 7) != 0) return errno_of(EACCES);
  return {};
}

Outcome<void> check_sticky(const Caller& caller, const Protection& directory, const Protection& victim) {
  if ((directory.mode & S_ISVTX) == 0 || owns(caller, victim) || owns(caller, directory)) return {};
  return errno_of(EPERM);
}

uint32_t mode_after_write(const Caller& caller, const Protection& file) {
  uint32_t mode = file.mode & 07777;
  return privileged(caller) ? mode : mode_after_chown(caller, file);
}

uint32_t mode_after_chown(const Caller& caller, const Protection& attributes) {
  uint32_t mode = attributes.mode & 07777;
  if (S_ISDIR(attributes.mode)) return mode;
  mode &= ~uint32_t{S_ISUID};
  if (drops_setgid(caller, attributes)) mode &= ~uint32_t{S_ISGID};
  return mode;
}

Inherited inherit(const Caller& caller, const Protection& directory, uint32_t mode) {
  const uint32_t hidden = S_ISLNK(mode) ? 0 : caller.umask & 0777;
  if ((directory.mode & S_ISGID) == 0) return {mode & ~hidden, caller.gid};
  if (S_ISDIR(mode)) return {(mode & ~hidden) | S_ISGID, directory.gid};
  constexpr uint32_t kRunsAsGroup = S_ISGID | S_IXGRP;
  bool allowed = privileged(caller) || has_group(caller, directory.gid);
  if ((mode & kRunsAsGroup) == kRunsAsGroup && !allowed) mode &= ~uint32_t{S_ISGID};  // whatever is hidden
  return {mode & ~hidden, directory.gid};
}

}  // namespace reprise::fs

// Enter: makes this process one more guest of a mount that another process serves to its command (mount.h).
//
// Threads: the process has no other; the kernel lets only such a one change its user namespace.
#pragma once

#include <sys/types.h>

#include <string>
#include <vector>

#include "base/error.h"

namespace reprise::fuse {

// Enters the namespaces of process `pid`, which has the mount, and changes to the mountpoint. kNotFound if
// there is no such process or mount, kPermission if it belongs to somebody else.
Status enter(pid_t pid, const std::string& mountpoint);

// Becomes the command, found in PATH. Returns only if it could not: with the exit status that env(1) has for
// that (127 not found, 126 not executable) in `exit_status`.
Error become(const std::vector<std::string>& command, int& exit_status);

}  // namespace reprise::fuse

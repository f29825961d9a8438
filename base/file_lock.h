// FileLock: a lock file on the host that one process holds and that says who. An open-file-description lock
// (fcntl(2)), so it goes with the process however that dies, and asking who holds it never takes it, not even
// for a moment. Not for locks of guests, and not across machines. Threads: any.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "base/error.h"

namespace reprise {

class FileLock {
 public:
  // Creates the file if it is missing, locks it and makes `holder` its content. kBusy if somebody holds it.
  static Result<std::unique_ptr<FileLock>> acquire(const std::string& path, const std::string& holder);
  // What the process that holds the lock wrote (at most 4 KiB of it); nullopt if nobody does, whatever the
  // file says.
  static Result<std::optional<std::string>> holder(const std::string& path);

  ~FileLock();
  FileLock(const FileLock&) = delete;
  FileLock& operator=(const FileLock&) = delete;

 private:
  explicit FileLock(int fd) : fd_(fd) {}
  int fd_;
};

}  // namespace reprise

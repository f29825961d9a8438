// Locks between processes on the host: FileLock, a lock file that one process holds and that says who, and
// DirectoryLock, a folder that nobody else changes for a moment. Both go with the process however that dies.
// Not for locks of guests, and not across machines. Threads: any.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "base/error.h"

namespace reprise {

// An open-file-description lock (fcntl(2)): asking who holds it never takes it, not even for a moment.
class FileLock {
 public:
  // Creates the file if it is missing, locks it and makes `holder` its content. kBusy if somebody holds it.
  static Result<std::unique_ptr<FileLock>> acquire(const std::string& path, const std::string& holder);
  // Locks a file that is there and leaves its content as it is. kBusy if somebody holds it, kNotFound.
  static Result<std::unique_ptr<FileLock>> own(const std::string& path);
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

// flock(2) on a folder itself, which leaves nothing on the disk. Shared: the folder is in use and is to stay.
// Exclusive: it is being made or removed, which takes no time.
class DirectoryLock {
 public:
  // Shared; waits while somebody has it alone. kNotFound if no folder is at path, or it was removed
  // meanwhile.
  static Result<DirectoryLock> share(const std::string& path);
  // Exclusive; kBusy at once if anybody else has it.
  static Result<DirectoryLock> own(const std::string& path);
  // Makes a shared lock exclusive, unless somebody else has one too; then it may be lost.
  bool try_exclusive();

  DirectoryLock(DirectoryLock&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  DirectoryLock& operator=(DirectoryLock&&) = delete;
  ~DirectoryLock();

 private:
  static Result<DirectoryLock> lock(const std::string& path, int operation);
  explicit DirectoryLock(int fd) : fd_(fd) {}
  int fd_;
};

}  // namespace reprise

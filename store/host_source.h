// HostSource: the bytes of a directory's files, for trees that rest on it (fs/sourced_file.h).
//
// A key holds the path of a file below the directory, and what stat(2) said of it when it was recorded:
// inode, size, times of modification and of change. It is compared before the first byte is read and again
// after each read: a file that is another one by now, or has been changed, is EIO, and failures() says which
// and why. Nothing read is kept: the host's page cache does that, reads ahead, and lets go under pressure.
//
// What stat(2) cannot tell is not noticed: stores through a mapping that was dirty already when the file was
// recorded. The directory is opened when it is first needed, so that who only looks at names can do without.
// Through base/host_tree.h: nothing outside the directory is ever read. Threads: any.
#pragma once

#include <atomic>
#include <cstdint>
#include <list>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "base/host_tree.h"
#include "fs/sourced_file.h"

namespace reprise::store {

class HostSource final : public fs::Source {
 public:
  explicit HostSource(std::string path) : path_(std::move(path)) {}

  const std::string& path() const { return path_; }
  // The key of a regular file, by what HostTree says of it.
  static Bytes key_of(std::string_view path, const HostEntry& entry);
  struct Key {
    std::string_view path;  // valid while the key is
    uint64_t inode = 0, size = 0;
    Timestamp mtime, ctime;
    // Is it the very same file, unchanged?
    bool matches(const HostEntry& entry) const;
  };
  static std::optional<Key> parse_key(ByteView key);

  fs::Outcome<void> read(ByteView key, uint64_t offset, ByteSpan into) override;

  struct Failure {
    std::string path, why;
  };
  // Files that could not be read as they were recorded; at most kFailuresMax are named.
  std::vector<Failure> failures() const;
  uint64_t bytes_read() const { return bytes_read_.load(std::memory_order_relaxed); }

  static constexpr size_t kFailuresMax = 100, kOpenFilesMax = 128;

 private:
  struct Open {
    std::string key;
    std::shared_ptr<HostTreeFile> file;
  };
  Result<std::shared_ptr<HostTreeFile>> open(std::string_view key, const Key& parsed);
  Status read_file(std::string_view key, const Key& parsed, uint64_t offset, ByteSpan into);
  void forget(std::string_view key);

  const std::string path_;
  std::atomic<uint64_t> bytes_read_{0};

  mutable std::mutex mutex_;
  std::unique_ptr<HostTree> tree_;                                          // null until it is needed
  std::list<Open> open_;                                                    // the one used last comes first
  std::unordered_map<std::string_view, std::list<Open>::iterator> by_key_;  // of the keys in open_
  std::map<std::string, std::string> failures_;
};

}  // namespace reprise::store

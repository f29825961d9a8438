// A clock, a source of chance and a disk for tests: repeatable, in memory, and able to fail when told.
#pragma once

#include <atomic>
#include <map>
#include <memory>
#include <mutex>
#include <string>

#include "base/clock.h"
#include "base/disk.h"

namespace reprise::test {

class FakeClock final : public Clock {
 public:
  Timestamp realtime() override { return {.sec = 1'700'000'000, .nsec = 5}; }
  uint64_t monotonic_ns() override { return 0; }
  void sleep_ns(uint64_t) override {}
};

class FakeRandom final : public Random {
 public:
  explicit FakeRandom(uint64_t seed = 1) : state_(seed) {}
  uint64_t next() override {  // splitmix64
    std::lock_guard lock(mutex_);
    uint64_t z = (state_ += 0x9e3779b97f4a7c15);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
    return z ^ (z >> 31);
  }

 private:
  std::mutex mutex_;
  uint64_t state_;
};

// Files in memory that outlive the Directory objects on them. Remembers what was synced, fails writes and
// syncs at a chosen call, and can be copied to be damaged.
class FakeDisk {
 public:
  struct Content {
    Bytes bytes;
    size_t synced_bytes = 0;  // of the front; files here are only appended to
  };
  std::mutex mutex;
  std::map<std::string, std::shared_ptr<Content>> files;
  std::atomic<bool> stands_still = false;  // while it is, no write goes on; notify who waits when it ends
  int calls_until_failure = -1;            // changing calls that still succeed; -1: all
  bool fails_once = false;                 // then they do again
  int failing_errno = 5;
  int calls = 0, syncs = 0;

  static std::shared_ptr<FakeDisk> create() { return std::make_shared<FakeDisk>(); }
  std::shared_ptr<FakeDisk> copy() {
    auto other = create();
    std::lock_guard lock(mutex);
    for (const auto& [name, content] : files) other->files[name] = std::make_shared<Content>(*content);
    return other;
  }
  // With the mutex held: one changing call. May it succeed?
  bool allow() {
    ++calls;
    if (calls_until_failure < 0) return true;
    if (calls_until_failure == 0) {
      if (fails_once) calls_until_failure = -1;
      return false;
    }
    --calls_until_failure;
    return true;
  }
  std::unexpected<Error> refuse(std::string_view path) {
    return std::unexpected(Error::from_errno(failing_errno, std::string(path) + ": told to fail"));
  }
};

class FakeFile final : public File {
 public:
  FakeFile(std::shared_ptr<FakeDisk> disk, std::shared_ptr<FakeDisk::Content> content, std::string path)
      : disk_(std::move(disk)), content_(std::move(content)), path_(std::move(path)) {}

  Result<size_t> pread(ByteSpan into, uint64_t offset) const override {
    std::lock_guard lock(disk_->mutex);
    const Bytes& bytes = content_->bytes;
    if (offset >= bytes.size()) return size_t{0};
    size_t n = std::min<size_t>(into.size(), bytes.size() - offset);
    if (n > 0) std::memcpy(into.data(), bytes.data() + offset, n);
    return n;
  }
  Status pwrite(ByteView bytes, uint64_t offset) override {
    disk_->stands_still.wait(true);
    std::lock_guard lock(disk_->mutex);
    bool whole = disk_->allow();
    if (!whole) bytes = bytes.first(bytes.size() / 2);
    if (content_->bytes.size() < offset + bytes.size()) content_->bytes.resize(offset + bytes.size());
    if (!bytes.empty()) std::memcpy(content_->bytes.data() + offset, bytes.data(), bytes.size());
    if (!whole) return disk_->refuse(path_);
    return {};
  }
  Result<uint64_t> size() const override {
    std::lock_guard lock(disk_->mutex);
    return content_->bytes.size();
  }
  Status resize(uint64_t bytes) override {
    std::lock_guard lock(disk_->mutex);
    if (!disk_->allow()) return disk_->refuse(path_);
    content_->bytes.resize(bytes);
    content_->synced_bytes = std::min<size_t>(content_->synced_bytes, bytes);
    return {};
  }
  Status sync_data() override {
    std::lock_guard lock(disk_->mutex);
    if (!disk_->allow()) return disk_->refuse(path_);
    ++disk_->syncs;
    content_->synced_bytes = content_->bytes.size();
    return {};
  }
  const std::string& path() const override { return path_; }

 private:
  std::shared_ptr<FakeDisk> disk_;
  std::shared_ptr<FakeDisk::Content> content_;
  std::string path_;
};

class FakeDirectory final : public Directory {
 public:
  explicit FakeDirectory(std::shared_ptr<FakeDisk> disk) : disk_(std::move(disk)) {}

  Result<std::unique_ptr<File>> open(std::string_view name, OpenMode mode) override {
    std::lock_guard lock(disk_->mutex);
    auto& files = disk_->files;
    auto at = files.find(std::string(name));
    bool must_exist = mode == OpenMode::kRead || mode == OpenMode::kReadWrite;
    if (at == files.end() && must_exist) return std::unexpected(Error::from_errno(2, join(name)));
    if (at != files.end() && mode == OpenMode::kCreate)
      return std::unexpected(Error::from_errno(17, join(name)));
    if (at == files.end()) {
      if (!disk_->allow()) return disk_->refuse(join(name));
      at = files.emplace(name, std::make_shared<FakeDisk::Content>()).first;
    }
    return std::make_unique<FakeFile>(disk_, at->second, join(name));
  }
  Result<std::unique_ptr<Directory>> open_directory(std::string_view) override {
    return fail(Code::kUnsupported, "no directories in a fake one");
  }
  Status make_directory(std::string_view) override {
    return fail(Code::kUnsupported, "no directories in a fake one");
  }
  Result<bool> exists(std::string_view name) override {
    std::lock_guard lock(disk_->mutex);
    return disk_->files.contains(std::string(name));
  }
  Status rename(std::string_view from, std::string_view to) override {
    std::lock_guard lock(disk_->mutex);
    if (!disk_->allow()) return disk_->refuse(join(from));
    auto at = disk_->files.find(std::string(from));
    if (at == disk_->files.end()) return std::unexpected(Error::from_errno(2, join(from)));
    auto content = at->second;
    disk_->files.erase(at);
    disk_->files[std::string(to)] = content;
    return {};
  }
  Status unlink(std::string_view name) override {
    std::lock_guard lock(disk_->mutex);
    if (!disk_->allow()) return disk_->refuse(join(name));
    if (disk_->files.erase(std::string(name)) == 0) return std::unexpected(Error::from_errno(2, join(name)));
    return {};
  }
  Result<std::vector<std::string>> list() override {
    std::lock_guard lock(disk_->mutex);
    std::vector<std::string> names;
    for (const auto& [name, content] : disk_->files) names.push_back(name);
    return names;
  }
  Status sync() override {
    std::lock_guard lock(disk_->mutex);
    if (!disk_->allow()) return disk_->refuse(path_);
    return {};
  }
  const std::string& path() const override { return path_; }

 private:
  std::string join(std::string_view name) const { return path_ + "/" + std::string(name); }
  std::shared_ptr<FakeDisk> disk_;
  std::string path_ = "fake";
};

}  // namespace reprise::test

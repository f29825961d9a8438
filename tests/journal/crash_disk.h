// A disk in memory that fails and loses power, for tests.
//
// CrashDisk is the disk as programs see it: everything done to it is visible at once, and is written down in
// a trace. It can refuse writes and syncs, run full, and go dead (a killed process). Platters is what such a
// disk keeps: it follows a trace event by event and says what may be left after a power failure there:
// whatever was not synced may be kept, lost, torn or zeroed, each write, rename and entry for itself, in any
// combination. A failed sync leaves what it should have written to the same fate for ever, however many later
// syncs succeed.
//
// Threads: a CrashDisk may be used from any; Platters from one.
#pragma once

#include <cerrno>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "base/disk.h"

namespace reprise::test {

using Files = std::map<std::string, Bytes>;  // by name

struct DiskEvent {
  enum Kind {
    kMark,
    kCreate,
    kWrite,
    kResize,
    kSync,
    kFailedSync,
    kRename,
    kUnlink,
    kSyncDirectory,
    kFailedSyncDirectory
  };
  Kind kind;
  size_t inode = 0;      // of a file; what a mark says
  uint64_t offset = 0;   // of a write; the size; what a mark says
  Bytes bytes;           // of a write
  std::string name, to;  // of an entry

  bool changes_entries() const { return kind == kCreate || kind == kRename || kind == kUnlink; }
  bool changes_data() const { return kind == kWrite || kind == kResize; }
};

// How long the program that uses some disks still lives: after so many changes it has died, and makes no
// more.
class Lifeline {
 public:
  void die_after(uint64_t changes) {
    std::lock_guard lock(mutex_);
    left_ = changes;
  }
  void live_on() {
    std::lock_guard lock(mutex_);
    left_ = kForEver;
  }
  // One change. May it still be made?
  bool change() {
    std::lock_guard lock(mutex_);
    if (left_ == kForEver) return true;
    if (left_ > 0) --left_;
    return left_ > 0;
  }
  bool dead() const {
    std::lock_guard lock(mutex_);
    return left_ == 0;
  }

 private:
  static constexpr uint64_t kForEver = UINT64_MAX;
  mutable std::mutex mutex_;
  uint64_t left_ = kForEver;
};

class CrashDisk {
 public:
  explicit CrashDisk(const Files& files = {}) : initial(files) {
    for (const auto& [name, bytes] : files) {
      entries_[name] = inodes_.size();
      inodes_.push_back(bytes);
    }
  }

  const Files initial;
  static constexpr uint64_t kPlenty = UINT64_MAX;

  // In the trace, even of a dead disk: the program has come so far.
  void mark(size_t what, uint64_t value) {
    std::lock_guard lock(mutex_);
    trace_.push_back({.kind = DiskEvent::kMark, .inode = what, .offset = value});
  }
  // Every changing call after so many more events is refused and has no effect, until revive().
  void die_after(size_t events) {
    std::lock_guard lock(mutex_);
    last_event_ = trace_.size() + events;
  }
  void revive() {
    std::lock_guard lock(mutex_);
    last_event_ = SIZE_MAX;
    dead_ = false;
  }
  // From now on the disk is one of several that a program changes.
  void belong_to(std::shared_ptr<Lifeline> lifeline) {
    std::lock_guard lock(mutex_);
    lifeline_ = std::move(lifeline);
  }
  // Bytes that writes may still make files longer by; then ENOSPC, with what fits written.
  void set_space(uint64_t bytes) {
    std::lock_guard lock(mutex_);
    space_ = bytes;
  }
  // The n-th write (sync) from here on, counted from 0, fails with this errno; of a write a half is written.
  void fail_write(size_t n, int sys_errno) {
    std::lock_guard lock(mutex_);
    write_fault_ = {.left = n, .sys_errno = sys_errno};
  }
  void fail_sync(size_t n, int sys_errno) {
    std::lock_guard lock(mutex_);
    sync_fault_ = {.left = n, .sys_errno = sys_errno};
  }
  // Likewise of directories; a later sync writes what this one did not.
  void fail_directory_sync(size_t n, int sys_errno) {
    std::lock_guard lock(mutex_);
    directory_sync_fault_ = {.left = n, .sys_errno = sys_errno};
  }
  // The n-th removal, likewise, which has no effect.
  void fail_unlink(size_t n, int sys_errno) {
    std::lock_guard lock(mutex_);
    unlink_fault_ = {.left = n, .sys_errno = sys_errno};
  }
  // No further call fails.
  void heal() {
    std::lock_guard lock(mutex_);
    write_fault_ = sync_fault_ = directory_sync_fault_ = unlink_fault_ = {};
    space_ = kPlenty;
  }
  bool fault_happened() const {
    std::lock_guard lock(mutex_);
    return faults_ > 0;
  }
  std::vector<DiskEvent> trace() const {
    std::lock_guard lock(mutex_);
    return trace_;
  }
  // What happened since this was last called; not with die_after().
  std::vector<DiskEvent> take_trace() {
    std::lock_guard lock(mutex_);
    return std::exchange(trace_, {});
  }
  // As a program sees them.
  Files files() const {
    std::lock_guard lock(mutex_);
    Files files;
    for (const auto& [name, inode] : entries_) files[name] = inodes_[inode];
    return files;
  }

 private:
  friend class CrashFile;
  friend class CrashDirectory;
  struct Fault {
    size_t left = SIZE_MAX;
    int sys_errno = 0;
    bool due() { return left != SIZE_MAX && left-- == 0; }
  };

  // With mutex_ held, before each change.
  Status alive(const std::string& path) {
    dead_ |= trace_.size() >= last_event_;
    if (dead_ || (lifeline_ != nullptr && !lifeline_->change()))
      return std::unexpected(Error::from_errno(EIO, path + ": the disk is dead"));
    return {};
  }
  std::unexpected<Error> refuse(const std::string& path, int sys_errno) {
    ++faults_;
    return std::unexpected(Error::from_errno(sys_errno, path + ": told to fail"));
  }
  void write(size_t inode, uint64_t offset, ByteView bytes) {
    if (bytes.empty()) return;
    Bytes& content = inodes_[inode];
    if (content.size() < offset + bytes.size()) content.resize(offset + bytes.size());
    std::memcpy(content.data() + offset, bytes.data(), bytes.size());
    trace_.push_back({.kind = DiskEvent::kWrite,
                      .inode = inode,
                      .offset = offset,
                      .bytes = Bytes(bytes.begin(), bytes.end())});
  }

  mutable std::mutex mutex_;
  std::vector<Bytes> inodes_;
  std::map<std::string, size_t> entries_;
  std::vector<DiskEvent> trace_;
  size_t last_event_ = SIZE_MAX;
  bool dead_ = false;
  std::shared_ptr<Lifeline> lifeline_;
  uint64_t space_ = kPlenty;
  Fault write_fault_, sync_fault_, directory_sync_fault_, unlink_fault_;
  int faults_ = 0;
};

class CrashFile final : public File {
 public:
  CrashFile(std::shared_ptr<CrashDisk> disk, size_t inode, std::string path)
      : disk_(std::move(disk)), inode_(inode), path_(std::move(path)) {}

  Result<size_t> pread(ByteSpan into, uint64_t offset) const override {
    std::lock_guard lock(disk_->mutex_);
    const Bytes& bytes = disk_->inodes_[inode_];
    if (offset >= bytes.size()) return size_t{0};
    size_t n = std::min<size_t>(into.size(), bytes.size() - offset);
    if (n > 0) std::memcpy(into.data(), bytes.data() + offset, n);
    return n;
  }
  Status pwrite(ByteView bytes, uint64_t offset) override {
    std::lock_guard lock(disk_->mutex_);
    TRY(disk_->alive(path_));
    if (disk_->write_fault_.due()) {
      disk_->write(inode_, offset, bytes.first(bytes.size() / 2));
      return disk_->refuse(path_, disk_->write_fault_.sys_errno);
    }
    uint64_t size = disk_->inodes_[inode_].size();
    uint64_t longer = offset + bytes.size() > size ? offset + bytes.size() - size : 0;
    uint64_t fits = disk_->space_ == CrashDisk::kPlenty ? longer : std::min(longer, disk_->space_);
    disk_->write(inode_, offset, bytes.first(bytes.size() - (longer - fits)));
    if (disk_->space_ != CrashDisk::kPlenty) disk_->space_ -= fits;
    if (fits < longer) return disk_->refuse(path_, ENOSPC);
    return {};
  }
  Result<uint64_t> size() const override {
    std::lock_guard lock(disk_->mutex_);
    return disk_->inodes_[inode_].size();
  }
  Status resize(uint64_t bytes) override {
    std::lock_guard lock(disk_->mutex_);
    TRY(disk_->alive(path_));
    Bytes& content = disk_->inodes_[inode_];
    if (bytes == content.size()) return {};
    if (disk_->space_ != CrashDisk::kPlenty && bytes < content.size())
      disk_->space_ += content.size() - bytes;
    content.resize(bytes);
    disk_->trace_.push_back({.kind = DiskEvent::kResize, .inode = inode_, .offset = bytes});
    return {};
  }
  Status sync_data() override {
    std::lock_guard lock(disk_->mutex_);
    TRY(disk_->alive(path_));
    bool fails = disk_->sync_fault_.due();
    disk_->trace_.push_back({.kind = fails ? DiskEvent::kFailedSync : DiskEvent::kSync, .inode = inode_});
    if (fails) return disk_->refuse(path_, disk_->sync_fault_.sys_errno);
    return {};
  }
  const std::string& path() const override { return path_; }

 private:
  std::shared_ptr<CrashDisk> disk_;
  size_t inode_;
  std::string path_;
};

class CrashDirectory final : public Directory {
 public:
  explicit CrashDirectory(std::shared_ptr<CrashDisk> disk) : disk_(std::move(disk)) {}

  Result<std::unique_ptr<File>> open(std::string_view name, OpenMode mode) override {
    std::lock_guard lock(disk_->mutex_);
    auto at = disk_->entries_.find(std::string(name));
    bool is_there = at != disk_->entries_.end();
    bool must_exist = mode == OpenMode::kRead || mode == OpenMode::kReadWrite;
    if (!is_there && must_exist) return std::unexpected(Error::from_errno(ENOENT, join(name)));
    if (is_there && mode == OpenMode::kCreate) return std::unexpected(Error::from_errno(EEXIST, join(name)));
    if (!is_there) {
      TRY(disk_->alive(join(name)));
      if (disk_->space_ == 0) return disk_->refuse(join(name), ENOSPC);
      size_t inode = disk_->inodes_.size();
      disk_->inodes_.emplace_back();
      disk_->trace_.push_back({.kind = DiskEvent::kCreate, .inode = inode, .name = std::string(name)});
      at = disk_->entries_.emplace(name, inode).first;
    }
    return std::make_unique<CrashFile>(disk_, at->second, join(name));
  }
  Result<std::unique_ptr<Directory>> open_directory(std::string_view) override {
    return fail(Code::kUnsupported, "no directories in one for crashes");
  }
  Status make_directory(std::string_view) override {
    return fail(Code::kUnsupported, "no directories in one for crashes");
  }
  Result<bool> exists(std::string_view name) override {
    std::lock_guard lock(disk_->mutex_);
    return disk_->entries_.contains(std::string(name));
  }
  Status rename(std::string_view from, std::string_view to) override {
    std::lock_guard lock(disk_->mutex_);
    TRY(disk_->alive(join(from)));
    auto at = disk_->entries_.find(std::string(from));
    if (at == disk_->entries_.end()) return std::unexpected(Error::from_errno(ENOENT, join(from)));
    size_t inode = at->second;
    disk_->entries_.erase(at);
    disk_->entries_[std::string(to)] = inode;
    disk_->trace_.push_back(
        {.kind = DiskEvent::kRename, .inode = inode, .name = std::string(from), .to = std::string(to)});
    return {};
  }
  Status unlink(std::string_view name) override {
    std::lock_guard lock(disk_->mutex_);
    TRY(disk_->alive(join(name)));
    auto at = disk_->entries_.find(std::string(name));
    if (at == disk_->entries_.end()) return std::unexpected(Error::from_errno(ENOENT, join(name)));
    if (disk_->unlink_fault_.due()) return disk_->refuse(join(name), disk_->unlink_fault_.sys_errno);
    if (disk_->space_ != CrashDisk::kPlenty) disk_->space_ += disk_->inodes_[at->second].size();
    disk_->trace_.push_back({.kind = DiskEvent::kUnlink, .inode = at->second, .name = std::string(name)});
    disk_->entries_.erase(at);
    return {};
  }
  Result<std::vector<std::string>> list() override {
    std::lock_guard lock(disk_->mutex_);
    std::vector<std::string> names;
    for (const auto& [name, inode] : disk_->entries_) names.push_back(name);
    return names;
  }
  Status sync() override {
    std::lock_guard lock(disk_->mutex_);
    TRY(disk_->alive(path_));
    bool fails = disk_->directory_sync_fault_.due();
    disk_->trace_.push_back({.kind = fails ? DiskEvent::kFailedSyncDirectory : DiskEvent::kSyncDirectory});
    if (fails) return disk_->refuse(path_, disk_->directory_sync_fault_.sys_errno);
    return {};
  }
  const std::string& path() const override { return path_; }

 private:
  std::string join(std::string_view name) const { return path_ + "/" + std::string(name); }
  std::shared_ptr<CrashDisk> disk_;
  std::string path_ = "disk";
};

// What becomes of one change that was not synced. Of a write that is not kept whole, the file may have grown
// to its new length all the same, with zeros.
struct Fate {
  enum Kind { kKept, kLost, kTorn } kind = kKept;
  uint64_t sectors = 0;   // torn: bit n % 64 says whether its n-th sector is written
  size_t cut = SIZE_MAX;  // kept: only so many bytes of it
};

class Platters {
 public:
  static constexpr size_t kSectorBytes = 64;  // smaller than any real one, so that small writes tear

  // A lying disk's syncs succeed and do nothing.
  explicit Platters(const Files& initial, bool lying = false) : lying_(lying) {
    for (const auto& [name, bytes] : initial) {
      entries_[name] = inodes_.size();
      inodes_.push_back({.base = bytes});
    }
  }

  void advance(const DiskEvent& event) {
    make(event);
    newest_write_ = SIZE_MAX;
    if (event.kind != DiskEvent::kWrite) return;
    newest_write_ = 0;
    for (size_t i = 0; i <= event.inode; ++i) newest_write_ += inodes_[i].open();
    newest_write_ -= 1;
  }

  // Changes whose fate is open.
  size_t open_changes() const {
    size_t n = changes_.size();
    for (const Inode& inode : inodes_) n += inode.open();
    return n;
  }
  // Which of them was the last event, a write; SIZE_MAX if it was another.
  size_t newest_write() const { return newest_write_; }
  // What is left when the n-th of them meets the fate that `fate(n)` says.
  Files survivors(const std::function<Fate(size_t)>& fate) const {
    size_t n = 0;
    std::vector<Bytes> contents;
    for (const Inode& inode : inodes_) {
      Bytes content = inode.base;
      for (const Change& change : inode.changes)
        apply(change.event, change.durable ? Fate{} : fate(n++), content);
      contents.push_back(std::move(content));
    }
    auto entries = entries_;
    for (const DiskEvent& change : changes_)
      if (fate(n++).kind == Fate::kKept) apply(change, entries);
    Files files;
    for (const auto& [name, inode] : entries)
      files[name] = inode < contents.size() ? contents[inode] : Bytes();
    return files;
  }

 private:
  struct Change {
    DiskEvent event;
    bool forgotten = false;  // a sync that should have written it failed
    bool durable = false;    // it was synced, behind one that is forgotten
  };
  struct Inode {
    Bytes base;
    std::vector<Change> changes;  // on top of it, in order
    size_t open() const {
      size_t n = 0;
      for (const Change& change : changes) n += !change.durable;
      return n;
    }
  };

  void make(const DiskEvent& event) {
    switch (event.kind) {
      case DiskEvent::kMark:
      case DiskEvent::kFailedSyncDirectory:
        return;
      case DiskEvent::kWrite:
      case DiskEvent::kResize:
        inode(event.inode).changes.push_back({.event = event});
        return;
      case DiskEvent::kSync:
        if (!lying_) sync(inode(event.inode));
        return;
      case DiskEvent::kFailedSync:
        for (Change& change : inode(event.inode).changes) change.forgotten |= !change.durable;
        return;
      case DiskEvent::kCreate:
      case DiskEvent::kRename:
      case DiskEvent::kUnlink:
        changes_.push_back(event);
        return;
      case DiskEvent::kSyncDirectory:
        if (lying_) return;
        for (const DiskEvent& change : changes_) apply(change, entries_);
        changes_.clear();
        return;
    }
  }

  Inode& inode(size_t n) {
    if (inodes_.size() <= n) inodes_.resize(n + 1);
    return inodes_[n];
  }

  static void sync(Inode& inode) {
    for (Change& change : inode.changes) change.durable |= !change.forgotten;
    size_t settled = 0;
    while (settled < inode.changes.size() && inode.changes[settled].durable)
      apply(inode.changes[settled++].event, {}, inode.base);
    inode.changes.erase(inode.changes.begin(), inode.changes.begin() + static_cast<ptrdiff_t>(settled));
  }

  static void apply(const DiskEvent& event, std::map<std::string, size_t>& entries) {
    if (event.kind != DiskEvent::kCreate) entries.erase(event.name);
    if (event.kind == DiskEvent::kCreate) entries[event.name] = event.inode;
    if (event.kind == DiskEvent::kRename) entries[event.to] = event.inode;
  }

  static void apply(const DiskEvent& event, const Fate& fate, Bytes& content) {
    if (fate.kind == Fate::kLost) return;
    if (event.kind == DiskEvent::kResize) return content.resize(event.offset);
    ByteView bytes = event.bytes;
    if (fate.kind == Fate::kKept) bytes = bytes.first(std::min(fate.cut, bytes.size()));
    if (bytes.empty()) return;
    if (content.size() < event.offset + bytes.size()) content.resize(event.offset + bytes.size());
    for (size_t at = 0; at < bytes.size();) {
      uint64_t sector = (event.offset + at) / kSectorBytes;
      size_t n = std::min<size_t>(bytes.size() - at, (sector + 1) * kSectorBytes - (event.offset + at));
      std::byte* to = content.data() + event.offset + at;
      if (fate.kind == Fate::kKept || (fate.sectors >> (sector % 64) & 1) != 0)
        std::memcpy(to, bytes.data() + at, n);
      at += n;
    }
  }

  const bool lying_;
  size_t newest_write_ = SIZE_MAX;
  std::vector<Inode> inodes_;
  std::map<std::string, size_t> entries_;  // that are on the platters
  std::vector<DiskEvent> changes_;         // of entries, since the directory was synced
};

}  // namespace reprise::test

#include "store/host_source.h"

#include <fmt/format.h>

#include <cerrno>

namespace reprise::store {
namespace {

struct __attribute__((packed)) KeyRecord {
  uint8_t version;
  uint64_t inode, size;
  int64_t mtime_sec, ctime_sec;
  uint32_t mtime_nsec, ctime_nsec;
};
constexpr uint8_t kKeyVersion = 0;

}  // namespace

Bytes HostSource::key_of(std::string_view path, const HostEntry& entry) {
  Bytes key;
  key.reserve(sizeof(KeyRecord) + path.size());
  append_value(key, KeyRecord{.version = kKeyVersion,
                              .inode = entry.inode,
                              .size = entry.size,
                              .mtime_sec = entry.mtime.sec,
                              .ctime_sec = entry.ctime.sec,
                              .mtime_nsec = entry.mtime.nsec,
                              .ctime_nsec = entry.ctime.nsec});
  append_bytes(key, as_bytes(path));
  return key;
}

std::optional<HostSource::Key> HostSource::parse_key(ByteView key) {
  if (key.size() <= sizeof(KeyRecord)) return std::nullopt;
  auto record = load_value<KeyRecord>(key.data());
  if (record.version != kKeyVersion) return std::nullopt;
  return Key{.path = as_text(key.subspan(sizeof(KeyRecord))),
             .inode = record.inode,
             .size = record.size,
             .mtime = {record.mtime_sec, record.mtime_nsec},
             .ctime = {record.ctime_sec, record.ctime_nsec}};
}

// Devices are not compared: the host may number them anew when it starts.
bool HostSource::Key::matches(const HostEntry& entry) const {
  return S_ISREG(entry.mode) && entry.inode == inode && entry.size == size && entry.mtime == mtime &&
         entry.ctime == ctime;
}

fs::Outcome<void> HostSource::read(ByteView key, uint64_t offset, ByteSpan into) {
  auto parsed = parse_key(key);
  if (!parsed) return fs::errno_of(EIO);
  auto done = read_file(as_text(key), *parsed, offset, into);
  if (done) {
    bytes_read_.fetch_add(into.size(), std::memory_order_relaxed);
    return {};
  }
  std::lock_guard lock(mutex_);
  if (failures_.size() < kFailuresMax) failures_[std::string(parsed->path)] = done.error().message();
  return fs::errno_of(done.error().code() == Code::kPermission ? EACCES : EIO);
}

Status HostSource::read_file(std::string_view key, const Key& parsed, uint64_t offset, ByteSpan into) {
  auto file = TRY(open(key, parsed));
  const size_t got = TRY(file->pread(into, offset));
  // Looked at afterwards, so that what was read came before any change that it tells of.
  if (got == into.size() && parsed.matches(TRY(file->stat()))) return {};
  forget(key);
  return fail(Code::kCorrupt, fmt::format("{}/{}: expected the file as it was recorded, found it changed",
                                          path_, printable(parsed.path)));
}

Result<std::shared_ptr<HostTreeFile>> HostSource::open(std::string_view key, const Key& parsed) {
  std::lock_guard lock(mutex_);
  if (auto known = by_key_.find(key); known != by_key_.end()) {
    open_.splice(open_.begin(), open_, known->second);
    return known->second->file;
  }
  if (tree_ == nullptr) tree_ = TRY(HostTree::open(path_));
  std::shared_ptr<HostTreeFile> file = TRY(tree_->open_file(std::string(parsed.path)));
  if (!parsed.matches(TRY(file->stat()))) {
    return fail(Code::kCorrupt, fmt::format("{}/{}: expected the file as it was recorded, found another or "
                                            "a changed one",
                                            path_, printable(parsed.path)));
  }
  if (open_.size() >= kOpenFilesMax) {
    by_key_.erase(open_.back().key);
    open_.pop_back();
  }
  open_.push_front({std::string(key), file});
  by_key_.emplace(open_.front().key, open_.begin());
  return file;
}

void HostSource::forget(std::string_view key) {
  std::lock_guard lock(mutex_);
  auto known = by_key_.find(key);
  if (known == by_key_.end()) return;
  auto at = known->second;
  by_key_.erase(known);
  open_.erase(at);
}

std::vector<HostSource::Failure> HostSource::failures() const {
  std::lock_guard lock(mutex_);
  std::vector<Failure> all;
  all.reserve(failures_.size());
  for (const auto& [path, why] : failures_) all.push_back({path, why});
  return all;
}

}  // namespace reprise::store

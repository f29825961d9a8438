// Reprise for C++17: reprise.h with owners instead of handles and exceptions instead of numbers. Header only;
// what it says of threads, errors and lifetimes holds here.
//
//   reprise::Instance a("site.store");
//   reprise::Guest guest(a);
//   guest.write_file("/hello", "hi");
//   a.snapshot("released");
//
// Every call that fails throws reprise::Error, with the errno and the words. What owns is moved, not copied;
// destructors give back, and do not throw: who wants to know whether an instance ended well calls close().
#pragma once

#include <cerrno>
#include <chrono>
#include <exception>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "reprise.h"

namespace reprise {
inline namespace api_0 {  // the library's own names are others, wherever it is linked

class Error : public std::runtime_error {
 public:
  Error(int code, const char* words) : std::runtime_error(words), code_(code) {}
  int code() const { return code_; }  // an errno

 private:
  int code_;
};

namespace detail {

inline int64_t check(int64_t result) {
  if (result < 0) throw Error(static_cast<int>(-result), reprise_last_error());
  return result;
}

// Of a call that answers like snprintf.
template <class Call>
std::string text(const Call& call) {
  std::string text(256, '\0');
  for (;;) {
    auto length = static_cast<size_t>(check(call(text.data(), text.size())));
    bool whole = length < text.size();
    text.resize(whole ? length : length + 1);
    if (whole) return text;
  }
}

// What a callback gathers. Nothing may be thrown through C: what is, comes out at the end.
template <class T>
struct Gathered {
  std::vector<T> all;
  std::exception_ptr thrown;

  template <class... Parts>
  int add(const Parts&... parts) noexcept {
    try {
      all.push_back(T{parts...});
      return 0;
    } catch (...) {
      thrown = std::current_exception();
      return 1;
    }
  }
  std::vector<T> take(int64_t result) {
    if (thrown) std::rethrow_exception(thrown);
    check(result);
    return std::move(all);
  }
};

}  // namespace detail

struct InstanceOptions {
  std::string branch, listen, follow, durability, label, token;  // empty: reprise.h's null
  uint64_t volume_bytes = 0, volume_inodes = 0;
  std::chrono::milliseconds contact_timeout{0}, await_followers{0};
};

struct Change {
  int kind = 0;  // REPRISE_CREATED, …
  std::string path, from;
  bool content = false, attributes = false;
};

namespace detail {

inline void gather_change(void* context, const reprise_change* change) {
  static_cast<Gathered<Change>*>(context)->add(change->kind, change->path,
                                               change->from != nullptr ? change->from : "",
                                               change->content != 0, change->attributes != 0);
}
inline const char* or_null(const std::string& text) {
  return text.empty() ? nullptr : text.c_str();
}

}  // namespace detail

struct ImportOptions {
  std::string into, label;
  bool over = false, set_ids = false, devices = false, all_xattrs = false;
  uint64_t max_entries = 0, max_bytes = 0;
};

struct ExportOptions {
  std::string position, from;
  bool over = false, owners = false, set_ids = false, devices = false, all_xattrs = false;
};

struct Conflict {
  std::string path, what;
};

// Whose changes count where both have changed the same.
enum class Winner { ours = REPRISE_OURS, theirs = REPRISE_THEIRS };

struct Resolved {
  std::vector<Conflict> conflicts;  // empty: joined, and the branch is gone. Else it stays
  std::vector<Conflict> left_out;   // what the other had done, and is not there now
};

struct Reset {
  int64_t operations = 0;  // that it took; 0: all was so already
  uint64_t before = 0;     // the log index of what was left; as text a position
};

class Instance {
 public:
  // In memory.
  explicit Instance(const InstanceOptions& options = {}) { open(nullptr, options); }
  explicit Instance(const std::string& store, const InstanceOptions& options = {}) {
    open(store.c_str(), options);
  }
  Instance(Instance&& other) noexcept : handle_(std::exchange(other.handle_, nullptr)) {}
  Instance& operator=(Instance&& other) noexcept {
    std::swap(handle_, other.handle_);
    return *this;
  }
  ~Instance() {
    if (handle_ != nullptr) reprise_instance_close(handle_);
  }
  // Once; guests must be gone.
  void close() {
    int closed = reprise_instance_close(handle_);
    if (closed != -EBUSY) handle_ = nullptr;
    detail::check(closed);
  }
  reprise_instance* handle() const { return handle_; }

  void sync() { detail::check(reprise_sync(handle_)); }
  void mark(const std::string& name) { detail::check(reprise_mark(handle_, name.c_str())); }
  void wait_for_mark(const std::string& name, std::chrono::milliseconds timeout) {
    detail::check(reprise_wait_for_mark(handle_, name.c_str(), static_cast<uint32_t>(timeout.count())));
  }
  std::string position() const {
    return detail::text([&](char* text, size_t size) { return reprise_position(handle_, text, size); });
  }
  void wait_for(const std::string& position, std::chrono::milliseconds timeout) {
    detail::check(reprise_wait_for(handle_, position.c_str(), static_cast<uint32_t>(timeout.count())));
  }
  void flush(std::chrono::milliseconds timeout, uint32_t peers = 0, bool synced = false) {
    detail::check(reprise_flush(handle_, peers, synced ? 1 : 0, static_cast<uint32_t>(timeout.count())));
  }
  int64_t import_from(const std::string& from, const ImportOptions& options = {}) {
    reprise_import_options given = REPRISE_IMPORT_OPTIONS_INIT;
    given.into = detail::or_null(options.into);
    given.label = detail::or_null(options.label);
    given.over = options.over ? 1 : 0;
    given.set_ids = options.set_ids ? 1 : 0;
    given.devices = options.devices ? 1 : 0;
    given.all_xattrs = options.all_xattrs ? 1 : 0;
    given.max_entries = options.max_entries;
    given.max_bytes = options.max_bytes;
    return detail::check(reprise_import(handle_, from.c_str(), &given));
  }
  int64_t export_to(const std::string& to, const ExportOptions& options = {}) const {
    reprise_export_options given = REPRISE_EXPORT_OPTIONS_INIT;
    given.position = detail::or_null(options.position);
    given.from = detail::or_null(options.from);
    given.over = options.over ? 1 : 0;
    given.owners = options.owners ? 1 : 0;
    given.set_ids = options.set_ids ? 1 : 0;
    given.devices = options.devices ? 1 : 0;
    given.all_xattrs = options.all_xattrs ? 1 : 0;
    return detail::check(reprise_export(handle_, to.c_str(), &given));
  }
  int64_t snapshot(const std::string& label = {}) {
    return detail::check(reprise_snapshot(handle_, label.empty() ? nullptr : label.c_str()));
  }
  std::string statistics() const {
    return detail::text([&](char* text, size_t size) { return reprise_statistics(handle_, text, size); });
  }
  std::string digest() const {
    std::string digest(16, '\0');
    detail::check(reprise_digest(handle_, reinterpret_cast<unsigned char*>(digest.data())));
    return digest;
  }
  Instance fork(const std::string& name) {
    Instance child(static_cast<reprise_instance*>(nullptr));
    detail::check(reprise_fork(handle_, name.c_str(), &child.handle_));
    return child;
  }
  // Empty: joined. Else nothing was done.
  std::vector<Conflict> join(const std::string& name) {
    detail::Gathered<Conflict> conflicts;
    auto add = [](void* context, const reprise_conflict* conflict) {
      static_cast<detail::Gathered<Conflict>*>(context)->add(conflict->path, conflict->what);
    };
    return conflicts.take(reprise_join(handle_, name.c_str(), add, &conflicts));
  }
  Resolved join(const std::string& name, Winner winner) {
    struct {
      detail::Gathered<Conflict> conflicts, left_out;
    } all;
    using All = decltype(all);
    auto conflict = [](void* context, const reprise_conflict* one) {
      static_cast<All*>(context)->conflicts.add(one->path, one->what);
    };
    auto left_out = [](void* context, const reprise_conflict* one) {
      static_cast<All*>(context)->left_out.add(one->path, one->what);
    };
    int64_t found =
        reprise_join_resolved(handle_, name.c_str(), static_cast<int>(winner), conflict, left_out, &all);
    return {all.conflicts.take(found), all.left_out.take(found)};
  }
  void discard(const std::string& name) { detail::check(reprise_discard(handle_, name.c_str())); }
  // An empty position is the end of another branch, an empty branch the instance's own, an empty `keep` none.
  Reset reset(const std::string& position, const std::string& branch = {}, const std::string& keep = {}) {
    Reset done;
    done.operations = detail::check(reprise_reset(handle_, detail::or_null(position), detail::or_null(branch),
                                                  detail::or_null(keep), &done.before));
    return done;
  }

 private:
  explicit Instance(reprise_instance* handle) : handle_(handle) {}
  void open(const char* store, const InstanceOptions& options) {
    auto text = [](const std::string& from) { return from.empty() ? nullptr : from.c_str(); };
    reprise_instance_options given = REPRISE_INSTANCE_OPTIONS_INIT;
    given.branch = text(options.branch);
    given.listen = text(options.listen);
    given.follow = text(options.follow);
    given.durability = text(options.durability);
    given.label = text(options.label);
    given.token = text(options.token);
    given.volume_bytes = options.volume_bytes;
    given.volume_inodes = options.volume_inodes;
    given.contact_timeout_ms = static_cast<uint32_t>(options.contact_timeout.count());
    given.await_followers_ms = static_cast<uint32_t>(options.await_followers.count());
    detail::check(reprise_instance_open(store, &given, &handle_));
  }

  reprise_instance* handle_ = nullptr;
};

// What changes in an instance, from the moment this is made.
class Watch {
 public:
  explicit Watch(const Instance& instance) {
    detail::check(reprise_watch_begin(instance.handle(), &handle_));
  }
  Watch(Watch&& other) noexcept : handle_(std::exchange(other.handle_, nullptr)) {}
  Watch& operator=(Watch&& other) noexcept {
    std::swap(handle_, other.handle_);
    return *this;
  }
  ~Watch() {
    if (handle_ != nullptr) reprise_watch_end(handle_);
  }
  reprise_watch* handle() const { return handle_; }

  std::vector<Change> next(std::chrono::milliseconds timeout = std::chrono::milliseconds(0)) {
    detail::Gathered<Change> changes;
    return changes.take(
        reprise_watch_next(handle_, static_cast<uint32_t>(timeout.count()), detail::gather_change, &changes));
  }
  int descriptor() { return static_cast<int>(detail::check(reprise_watch_descriptor(handle_))); }

 private:
  reprise_watch* handle_ = nullptr;
};

// What leads from one state to another; a position that is empty is now.
inline std::vector<Change> diff(const Instance& before, const Instance& after,
                                const std::string& before_position = {},
                                const std::string& after_position = {}) {
  detail::Gathered<Change> changes;
  return changes.take(reprise_diff(before.handle(), detail::or_null(before_position), after.handle(),
                                   detail::or_null(after_position), detail::gather_change, &changes));
}

struct GuestOptions {
  std::string label;
  bool checked = false;
  uint32_t uid = 0, gid = 0;
  std::vector<uint32_t> groups;
  uint32_t umask = 022;
  int32_t pid = 0;
};

struct Entry {
  std::string name;
  uint64_t inode = 0;
  int type = 0;  // DT_…
};

class Guest {
 public:
  explicit Guest(const Instance& instance, const GuestOptions& options = {}) {
    reprise_guest_options given = REPRISE_GUEST_OPTIONS_INIT;
    given.label = options.label.empty() ? nullptr : options.label.c_str();
    given.checked = options.checked ? 1 : 0;
    given.uid = options.uid;
    given.gid = options.gid;
    given.groups = options.groups.data();
    given.group_count = options.groups.size();
    given.umask = options.umask;
    given.pid = options.pid;
    detail::check(reprise_guest_attach(instance.handle(), &given, &handle_));
  }
  Guest(Guest&& other) noexcept : handle_(std::exchange(other.handle_, nullptr)) {}
  Guest& operator=(Guest&& other) noexcept {
    std::swap(handle_, other.handle_);
    return *this;
  }
  ~Guest() {
    if (handle_ != nullptr) reprise_guest_detach(handle_);
  }
  reprise_guest* handle() const { return handle_; }

  void set_label(const std::string& label) { detail::check(reprise_guest_set_label(handle_, label.c_str())); }

  int open(const std::string& path, int flags, uint32_t mode = 0666) {
    return static_cast<int>(detail::check(reprise_open(handle_, path.c_str(), flags, mode)));
  }
  void close(int fd) { detail::check(reprise_close(handle_, fd)); }
  size_t read(int fd, void* into, size_t size) {
    return static_cast<size_t>(detail::check(reprise_read(handle_, fd, into, size)));
  }
  size_t write(int fd, std::string_view bytes) {
    return static_cast<size_t>(detail::check(reprise_write(handle_, fd, bytes.data(), bytes.size())));
  }
  int64_t seek(int fd, int64_t offset, int whence) {
    return detail::check(reprise_seek(handle_, fd, offset, whence));
  }
  void fsync(int fd) { detail::check(reprise_fsync(handle_, fd)); }
  // LOCK_SH, LOCK_EX, LOCK_UN; waits without a limit unless told otherwise.
  void flock(int fd, int operation, uint32_t timeout_ms = REPRISE_FOREVER) {
    detail::check(reprise_flock(handle_, fd, operation, timeout_ms));
  }
  void lock(int fd, int operation, int64_t offset, int64_t length, uint32_t timeout_ms = REPRISE_FOREVER) {
    detail::check(reprise_lock(handle_, fd, operation, offset, length, timeout_ms));
  }

  reprise_attributes stat(const std::string& path) const {
    reprise_attributes attributes;
    detail::check(reprise_stat(handle_, path.c_str(), &attributes));
    return attributes;
  }
  reprise_attributes lstat(const std::string& path) const {
    reprise_attributes attributes;
    detail::check(reprise_lstat(handle_, path.c_str(), &attributes));
    return attributes;
  }
  void mkdir(const std::string& path, uint32_t mode = 0777) {
    detail::check(reprise_mkdir(handle_, path.c_str(), mode));
  }
  void rmdir(const std::string& path) { detail::check(reprise_rmdir(handle_, path.c_str())); }
  void unlink(const std::string& path) { detail::check(reprise_unlink(handle_, path.c_str())); }
  void rename(const std::string& from, const std::string& to) {
    detail::check(reprise_rename(handle_, from.c_str(), to.c_str()));
  }
  void link(const std::string& from, const std::string& to) {
    detail::check(reprise_link(handle_, from.c_str(), to.c_str()));
  }
  void symlink(const std::string& target, const std::string& path) {
    detail::check(reprise_symlink(handle_, target.c_str(), path.c_str()));
  }
  std::string readlink(const std::string& path) const {
    return detail::text(
        [&](char* text, size_t size) { return reprise_readlink(handle_, path.c_str(), text, size); });
  }
  void truncate(const std::string& path, int64_t size) {
    detail::check(reprise_truncate(handle_, path.c_str(), size));
  }
  void chmod(const std::string& path, uint32_t mode) {
    detail::check(reprise_chmod(handle_, path.c_str(), mode));
  }
  void chdir(const std::string& path) { detail::check(reprise_chdir(handle_, path.c_str())); }
  std::string getcwd() const {
    return detail::text([&](char* text, size_t size) { return reprise_getcwd(handle_, text, size); });
  }

  std::vector<Entry> list(const std::string& path) const {
    detail::Gathered<Entry> entries;
    auto add = [](void* context, const char* name, uint64_t inode, int type) {
      return static_cast<detail::Gathered<Entry>*>(context)->add(name, inode, type);
    };
    return entries.take(reprise_list(handle_, path.c_str(), add, &entries));
  }
  std::string read_file(const std::string& path) const {
    std::string bytes;
    for (int64_t length = detail::check(reprise_read_file(handle_, path.c_str(), nullptr, 0));;) {
      bytes.resize(static_cast<size_t>(length));
      length = detail::check(reprise_read_file(handle_, path.c_str(), bytes.data(), bytes.size()));
      bool whole = static_cast<size_t>(length) <= bytes.size();  // or it has grown meanwhile
      if (!whole) continue;
      bytes.resize(static_cast<size_t>(length));
      return bytes;
    }
  }
  void write_file(const std::string& path, std::string_view bytes, uint32_t mode = 0666) {
    detail::check(reprise_write_file(handle_, path.c_str(), bytes.data(), bytes.size(), mode));
  }

 private:
  reprise_guest* handle_ = nullptr;
};

}  // namespace api_0
}  // namespace reprise

#include <fmt/format.h>

#include <cstring>
#include <vector>

#include "adapters/capi/calls.h"
#include "adapters/capi/options.h"
#include "adapters/capi/reprise.h"

namespace reprise::capi {

Guests& guests() {
  static auto& all = *new Guests;
  return all;
}

namespace {

// What a call found, as its return value.
template <class T>
int64_t answer(const fs::Outcome<T>& outcome, const char* call, std::string_view of) {
  if (!outcome) return refuse(outcome.error(), call, of);
  if constexpr (std::is_void_v<T>) {
    return 0;
  } else {
    return static_cast<int64_t>(*outcome);
  }
}

// Runs `body` with the guest that the handle names.
template <class Body>
auto with(const reprise_guest* handle, const char* call, const Body& body) noexcept {
  return guarded(call, [&]() -> decltype(body(std::declval<fs::Guest&>())) {
    auto used = guests().use(handle, true);
    if (used.error != 0) return refuse_handle(used.error, call, "guest");
    return body(used->guest);
  });
}

// A call of one path whose outcome is a number or nothing.
template <class Body>
int on_path(const reprise_guest* handle, const char* call, const char* path, const Body& body) noexcept {
  return with(handle, call, [&](fs::Guest& guest) -> int {
    if (path == nullptr) return refuse_null(call, "a path");
    return static_cast<int>(answer(body(guest), call, path));
  });
}

// A call of a descriptor.
template <class Body>
int64_t on_descriptor(const reprise_guest* handle, const char* call, int fd, const Body& body) noexcept {
  return with(handle, call, [&](fs::Guest& guest) -> int64_t {
    auto outcome = body(guest);
    if (outcome) return answer(outcome, call, {});
    return answer(outcome, call, fmt::format("descriptor {}", fd));
  });
}

// Bytes that a host lends; a null pointer is no bytes.
int check_buffer(const char* call, const void* bytes, size_t size) {
  if (bytes != nullptr || size == 0) return 0;
  return refuse(EINVAL,
                fmt::format("{}: expected where {} bytes are, or go, found a null pointer", call, size));
}
ByteSpan room(void* into, size_t size) {
  return {static_cast<std::byte*>(into), size};
}
ByteView bytes(const void* from, size_t size) {
  return {static_cast<const std::byte*>(from), size};
}

reprise_time time_of(const Timestamp& time) {
  return {time.sec, static_cast<int64_t>(time.nsec)};
}

void put(reprise_attributes& into, const fs::Attributes& from) {
  into = {};
  into.inode = from.inode.value;
  into.rdev = from.rdev;
  into.bytes = from.size;
  into.blocks = from.blocks * (fs::kBlockSize / 512);
  into.mode = from.mode;
  into.links = from.nlink;
  into.uid = from.uid;
  into.gid = from.gid;
  into.atime = time_of(from.atime);
  into.mtime = time_of(from.mtime);
  into.ctime = time_of(from.ctime);
}

int stat_path(const reprise_guest* handle, const char* call, const char* path, int flags,
              reprise_attributes* attributes) {
  return with(handle, call, [&](fs::Guest& guest) -> int {
    if (path == nullptr || attributes == nullptr) return refuse_null(call, "a path and room for attributes");
    auto found = guest.stat(path, flags);
    if (!found) return refuse(found.error(), call, path);
    put(*attributes, *found);
    return 0;
  });
}

fs::GuestOptions options_of(const reprise_guest_options& given, Instances::Use& instance) {
  fs::GuestOptions options;
  options.uid = given.uid;
  options.gid = given.gid;
  if (given.group_count != 0) options.groups.assign(given.groups, given.groups + given.group_count);
  options.trusted = given.checked == 0;
  options.umask = given.umask;
  options.label = given.label != nullptr ? given.label : "";
  options.pid = given.pid;
  // The guest holds the instance, so it is there whenever this runs.
  options.on_sync = [&of = *instance]() -> fs::Outcome<void> {
    auto synced = of->guest_sync();
    if (synced) return {};
    return fs::errno_of(synced.error().code() == Code::kNoSpace ? ENOSPC : EIO);
  };
  return options;
}

int check_options(const reprise_guest_options& options, const char* call) {
  constexpr size_t kGroupsMax = 65536;
  if (options.label != nullptr && std::strlen(options.label) > journal::kLabelLimit)
    return refuse(EINVAL, fmt::format("{}: label: expected at most {} bytes, found {}", call,
                                      journal::kLabelLimit, std::strlen(options.label)));
  if (options.group_count > kGroupsMax || (options.groups == nullptr && options.group_count != 0))
    return refuse(
        EINVAL, fmt::format("{}: groups: expected at most {}, found {}{}", call, kGroupsMax,
                            options.group_count, options.groups == nullptr ? " behind a null pointer" : ""));
  if ((options.umask & ~0777u) != 0)
    return refuse(EINVAL,
                  fmt::format("{}: umask: expected permission bits, found {:o}", call, options.umask));
  return 0;
}

}  // namespace
}  // namespace reprise::capi

using namespace reprise;
using namespace reprise::capi;

int reprise_guest_attach(reprise_instance* instance, const reprise_guest_options* options,
                         reprise_guest** guest) {
  constexpr const char* kCall = "reprise_guest_attach";
  return guarded(kCall, [&]() -> int {
    if (guest == nullptr) return refuse_null(kCall, "where to put the handle");
    reprise_guest_options given = REPRISE_GUEST_OPTIONS_INIT;
    if (options != nullptr) {
      if (int wrong = take_options(given, options, kCall); wrong != 0) return wrong;
    }
    if (int wrong = check_options(given, kCall); wrong != 0) return wrong;
    auto used = instances().use(instance, false);
    if (used.error != 0) return refuse_handle(used.error, kCall, "instance");
    fs::GuestOptions guest_options = options_of(given, used);
    void* handle = guests().add(std::make_unique<Guest>(std::move(used), std::move(guest_options)));
    if (handle == nullptr) return refuse(ENFILE, fmt::format("{}: too many guests", kCall));
    *guest = static_cast<reprise_guest*>(handle);
    return 0;
  });
}

int reprise_guest_detach(reprise_guest* handle) {
  constexpr const char* kCall = "reprise_guest_detach";
  return guarded(kCall, [&]() -> int {
    std::unique_ptr<Guest> guest;
    if (int error = guests().remove(handle, guest, [](const Guest&) { return false; }); error != 0)
      return refuse_handle(error, kCall, "guest");
    return 0;
  });
}

int reprise_guest_set_label(reprise_guest* handle, const char* label) {
  constexpr const char* kCall = "reprise_guest_set_label";
  return with(handle, kCall, [&](fs::Guest& guest) -> int {
    reprise_guest_options given = REPRISE_GUEST_OPTIONS_INIT;
    given.label = label;
    if (int wrong = check_options(given, kCall); wrong != 0) return wrong;
    guest.set_label(label != nullptr ? label : "");
    return 0;
  });
}

// --- descriptors

int reprise_open(reprise_guest* handle, const char* path, int flags, uint32_t mode) {
  return on_path(handle, "reprise_open", path,
                 [&](fs::Guest& guest) { return guest.open(path, flags, mode); });
}
int reprise_close(reprise_guest* handle, int fd) {
  return static_cast<int>(
      on_descriptor(handle, "reprise_close", fd, [&](fs::Guest& guest) { return guest.close(fd); }));
}
int reprise_dup(reprise_guest* handle, int fd) {
  return static_cast<int>(
      on_descriptor(handle, "reprise_dup", fd, [&](fs::Guest& guest) { return guest.dup(fd); }));
}
ptrdiff_t reprise_read(reprise_guest* handle, int fd, void* into, size_t size) {
  if (int wrong = check_buffer("reprise_read", into, size); wrong != 0) return wrong;
  return on_descriptor(handle, "reprise_read", fd,
                       [&](fs::Guest& guest) { return guest.read(fd, room(into, size)); });
}
ptrdiff_t reprise_pread(reprise_guest* handle, int fd, void* into, size_t size, int64_t offset) {
  if (int wrong = check_buffer("reprise_pread", into, size); wrong != 0) return wrong;
  return on_descriptor(handle, "reprise_pread", fd,
                       [&](fs::Guest& guest) { return guest.pread(fd, room(into, size), offset); });
}
ptrdiff_t reprise_write(reprise_guest* handle, int fd, const void* from, size_t size) {
  if (int wrong = check_buffer("reprise_write", from, size); wrong != 0) return wrong;
  return on_descriptor(handle, "reprise_write", fd,
                       [&](fs::Guest& guest) { return guest.write(fd, bytes(from, size)); });
}
ptrdiff_t reprise_pwrite(reprise_guest* handle, int fd, const void* from, size_t size, int64_t offset) {
  if (int wrong = check_buffer("reprise_pwrite", from, size); wrong != 0) return wrong;
  return on_descriptor(handle, "reprise_pwrite", fd,
                       [&](fs::Guest& guest) { return guest.pwrite(fd, bytes(from, size), offset); });
}
int64_t reprise_seek(reprise_guest* handle, int fd, int64_t offset, int whence) {
  return on_descriptor(handle, "reprise_seek", fd,
                       [&](fs::Guest& guest) { return guest.seek(fd, offset, whence); });
}
int reprise_ftruncate(reprise_guest* handle, int fd, int64_t size) {
  return static_cast<int>(on_descriptor(handle, "reprise_ftruncate", fd,
                                        [&](fs::Guest& guest) { return guest.ftruncate(fd, size); }));
}
int reprise_fallocate(reprise_guest* handle, int fd, int mode, int64_t offset, int64_t length) {
  return static_cast<int>(on_descriptor(handle, "reprise_fallocate", fd, [&](fs::Guest& guest) {
    return guest.fallocate(fd, mode, offset, length);
  }));
}
int reprise_fsync(reprise_guest* handle, int fd) {
  return static_cast<int>(
      on_descriptor(handle, "reprise_fsync", fd, [&](fs::Guest& guest) { return guest.fsync(fd); }));
}
int reprise_fstat(reprise_guest* handle, int fd, reprise_attributes* attributes) {
  constexpr const char* kCall = "reprise_fstat";
  return with(handle, kCall, [&](fs::Guest& guest) -> int {
    if (attributes == nullptr) return refuse_null(kCall, "room for attributes");
    auto found = guest.fstat(fd);
    if (!found) return refuse(found.error(), kCall, fmt::format("descriptor {}", fd));
    put(*attributes, *found);
    return 0;
  });
}
// --- paths

int reprise_stat(reprise_guest* handle, const char* path, reprise_attributes* attributes) {
  return stat_path(handle, "reprise_stat", path, 0, attributes);
}
int reprise_lstat(reprise_guest* handle, const char* path, reprise_attributes* attributes) {
  return stat_path(handle, "reprise_lstat", path, AT_SYMLINK_NOFOLLOW, attributes);
}
int reprise_access(reprise_guest* handle, const char* path, int wanted) {
  return on_path(handle, "reprise_access", path,
                 [&](fs::Guest& guest) { return guest.access(path, wanted); });
}
int reprise_mkdir(reprise_guest* handle, const char* path, uint32_t mode) {
  return on_path(handle, "reprise_mkdir", path, [&](fs::Guest& guest) { return guest.mkdir(path, mode); });
}
int reprise_rmdir(reprise_guest* handle, const char* path) {
  return on_path(handle, "reprise_rmdir", path, [&](fs::Guest& guest) { return guest.rmdir(path); });
}
int reprise_unlink(reprise_guest* handle, const char* path) {
  return on_path(handle, "reprise_unlink", path, [&](fs::Guest& guest) { return guest.unlink(path); });
}
int reprise_rename(reprise_guest* handle, const char* from, const char* to) {
  return on_path(handle, "reprise_rename", to == nullptr ? to : from,
                 [&](fs::Guest& guest) { return guest.rename(from, to); });
}
int reprise_link(reprise_guest* handle, const char* from, const char* to) {
  return on_path(handle, "reprise_link", to == nullptr ? to : from,
                 [&](fs::Guest& guest) { return guest.link(from, to); });
}
int reprise_symlink(reprise_guest* handle, const char* target, const char* path) {
  return on_path(handle, "reprise_symlink", target == nullptr ? target : path,
                 [&](fs::Guest& guest) { return guest.symlink(target, path); });
}
int64_t reprise_readlink(reprise_guest* handle, const char* path, char* target, size_t size) {
  constexpr const char* kCall = "reprise_readlink";
  return with(handle, kCall, [&](fs::Guest& guest) -> int64_t {
    if (path == nullptr) return refuse_null(kCall, "a path");
    auto found = guest.readlink(path);
    if (!found) return refuse(found.error(), kCall, path);
    return put_text(*found, target, size);
  });
}
int reprise_truncate(reprise_guest* handle, const char* path, int64_t size) {
  return on_path(handle, "reprise_truncate", path,
                 [&](fs::Guest& guest) { return guest.truncate(path, size); });
}
int reprise_chmod(reprise_guest* handle, const char* path, uint32_t mode) {
  return on_path(handle, "reprise_chmod", path, [&](fs::Guest& guest) { return guest.chmod(path, mode); });
}
int reprise_chown(reprise_guest* handle, const char* path, uint32_t uid, uint32_t gid) {
  return on_path(handle, "reprise_chown", path,
                 [&](fs::Guest& guest) { return guest.chown(path, uid, gid); });
}
int reprise_utimens(reprise_guest* handle, const char* path, const reprise_time times[2]) {
  return on_path(handle, "reprise_utimens", path, [&](fs::Guest& guest) {
    if (times == nullptr) return guest.utimens(path, nullptr);
    timespec both[2] = {{times[0].sec, times[0].nsec}, {times[1].sec, times[1].nsec}};
    return guest.utimens(path, both);
  });
}
int reprise_chdir(reprise_guest* handle, const char* path) {
  return on_path(handle, "reprise_chdir", path, [&](fs::Guest& guest) { return guest.chdir(path); });
}
int64_t reprise_getcwd(reprise_guest* handle, char* path, size_t size) {
  return with(handle, "reprise_getcwd", [&](fs::Guest& guest) -> int64_t {
    auto found = guest.working_directory();
    if (!found) return refuse(found.error(), "reprise_getcwd");
    return put_text(*found, path, size);
  });
}

// --- whole files and directories

int reprise_list(reprise_guest* handle, const char* path, reprise_entry_callback callback, void* context) {
  constexpr const char* kCall = "reprise_list";
  std::vector<fs::DirectoryEntry> entries;
  int listed = with(handle, kCall, [&](fs::Guest& guest) -> int {
    if (path == nullptr || callback == nullptr) return refuse_null(kCall, "a path and a callback");
    auto found = guest.list(path);
    if (!found) return refuse(found.error(), kCall, path);
    entries = std::move(*found);
    return 0;
  });
  if (listed != 0) return listed;
  // The guest is free again: the callback may use it.
  for (const fs::DirectoryEntry& entry : entries) {
    if (int stop = callback(context, entry.name.c_str(), entry.inode.value, entry.type); stop != 0)
      return stop;
  }
  return 0;
}
int64_t reprise_read_file(reprise_guest* handle, const char* path, void* into, size_t size) {
  constexpr const char* kCall = "reprise_read_file";
  if (int wrong = check_buffer(kCall, into, size); wrong != 0) return wrong;
  return with(handle, kCall, [&](fs::Guest& guest) -> int64_t {
    if (path == nullptr) return refuse_null(kCall, "a path");
    auto fd = guest.open(path, O_RDONLY);
    if (!fd) return refuse(fd.error(), kCall, path);
    auto attributes = guest.fstat(*fd);
    fs::Outcome<size_t> last = 0;
    size_t done = 0;
    while (attributes && done < size) {
      last = guest.pread(*fd, room(into, size).subspan(done), static_cast<int64_t>(done));
      if (!last || *last == 0) break;
      done += *last;
    }
    static_cast<void>(guest.close(*fd));  // of a file that was only read nothing is left to fail
    if (!attributes) return refuse(attributes.error(), kCall, path);
    if (!last) return refuse(last.error(), kCall, path);
    return static_cast<int64_t>(std::max<uint64_t>(attributes->size, done));
  });
}
int reprise_write_file(reprise_guest* handle, const char* path, const void* from, size_t size,
                       uint32_t mode) {
  constexpr const char* kCall = "reprise_write_file";
  if (int wrong = check_buffer(kCall, from, size); wrong != 0) return wrong;
  return on_path(handle, kCall, path,
                 [&](fs::Guest& guest) { return guest.write_file(path, as_text(bytes(from, size)), mode); });
}

// reprise_fopen: a FILE of the C library whose bytes are a guest's.
#include <cerrno>
#include <cstdio>
#include <memory>
#include <optional>
#include <string_view>

#include "adapters/capi/answers.h"
#include "adapters/capi/reprise.h"
#include "fs/guest.h"

namespace reprise::capi {
namespace {

struct Stream {
  reprise_guest* guest;
  int fd;
};

ssize_t answer(int64_t result) {
  if (result >= 0) return result;
  errno = static_cast<int>(-result);
  return -1;
}

ssize_t on_read(void* cookie, char* into, size_t size) {
  auto* stream = static_cast<Stream*>(cookie);
  return answer(reprise_read(stream->guest, stream->fd, into, size));
}
// 0 says that it failed: of a write a stream knows no -1.
ssize_t on_write(void* cookie, const char* from, size_t size) {
  auto* stream = static_cast<Stream*>(cookie);
  size_t done = 0;
  while (done < size) {
    ssize_t n = answer(reprise_write(stream->guest, stream->fd, from + done, size - done));
    if (n <= 0) break;
    done += static_cast<size_t>(n);
  }
  return static_cast<ssize_t>(done);
}
int on_seek(void* cookie, off64_t* offset, int whence) {
  auto* stream = static_cast<Stream*>(cookie);
  int64_t at = reprise_seek(stream->guest, stream->fd, *offset, whence);
  if (answer(at) < 0) return -1;
  *offset = at;
  return 0;
}
int on_close(void* cookie) {
  std::unique_ptr<Stream> stream(static_cast<Stream*>(cookie));
  return answer(reprise_close(stream->guest, stream->fd)) < 0 ? EOF : 0;
}

// Of fopen's modes those of C and POSIX, and 'x'; 'e' and 'm' mean nothing here.
std::optional<int> flags_of(std::string_view mode) {
  if (mode.empty()) return std::nullopt;
  bool both = mode.find('+') != std::string_view::npos;
  int flags = both ? O_RDWR : mode[0] == 'r' ? O_RDONLY : O_WRONLY;
  if (mode[0] == 'w') flags |= O_CREAT | O_TRUNC;
  if (mode[0] == 'a') flags |= O_CREAT | O_APPEND;
  if (mode.find('x') != std::string_view::npos) flags |= O_EXCL;
  bool known = std::string_view("rwa").find(mode[0]) != std::string_view::npos &&
               mode.find_first_not_of("+bxem", 1) == std::string_view::npos;
  return known ? std::optional(flags) : std::nullopt;
}

}  // namespace
}  // namespace reprise::capi

using namespace reprise::capi;

FILE* reprise_fopen(reprise_guest* guest, const char* path, const char* mode) {
  auto flags = flags_of(mode != nullptr ? mode : "");
  if (!flags) {
    errno = -refuse(EINVAL, "reprise_fopen: expected a mode as of fopen, \"r\", \"w+\" …, found another");
    return nullptr;
  }
  int fd = reprise_open(guest, path, *flags, 0666);
  if (fd < 0) {
    errno = -fd;
    return nullptr;
  }
  auto stream = std::make_unique<Stream>(Stream{guest, fd});
  FILE* file = ::fopencookie(stream.get(), mode, {on_read, on_write, on_seek, on_close});
  if (file == nullptr) {
    int error = errno;
    reprise_close(guest, fd);
    errno = -refuse(error, "reprise_fopen: the C library made no stream");
    return nullptr;
  }
  stream.release();
  return file;
}

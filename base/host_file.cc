#include "base/host_file.h"

#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>

namespace reprise {
namespace {

std::unexpected<Error> failed(const std::string& path, std::string_view doing) {
  int code = errno;
  return std::unexpected(Error::from_errno(code, printable(path) + ": cannot " + std::string(doing)));
}

}  // namespace

Result<size_t> HostFile::pread(ByteSpan into, uint64_t offset) const {
  size_t done = 0;
  while (done < into.size()) {
    ssize_t n = ::pread(fd_.get(), into.data() + done, into.size() - done, static_cast<off_t>(offset + done));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return failed(path_, "read");
    if (n == 0) break;
    done += static_cast<size_t>(n);
  }
  return done;
}

Status HostFile::pwrite(ByteView bytes, uint64_t offset) {
  size_t done = 0;
  while (done < bytes.size()) {
    ssize_t n =
        ::pwrite(fd_.get(), bytes.data() + done, bytes.size() - done, static_cast<off_t>(offset + done));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return failed(path_, "write");
    done += static_cast<size_t>(n);
  }
  return {};
}

Result<uint64_t> HostFile::size() const {
  struct stat st;
  if (::fstat(fd_.get(), &st) != 0) return failed(path_, "stat");
  return static_cast<uint64_t>(st.st_size);
}

Result<uint64_t> HostFile::next_data(uint64_t offset) const {
  off_t at = ::lseek(fd_.get(), static_cast<off_t>(offset), SEEK_DATA);
  if (at >= 0) return static_cast<uint64_t>(at);
  return errno == ENXIO ? size() : offset;  // nothing but a hole; or it cannot be told
}

Status HostFile::resize(uint64_t bytes) {
  if (::ftruncate(fd_.get(), static_cast<off_t>(bytes)) != 0) return failed(path_, "resize");
  return {};
}

Status HostFile::sync_data() {
  if (::fdatasync(fd_.get()) != 0) return failed(path_, "sync");
  return {};
}

}  // namespace reprise

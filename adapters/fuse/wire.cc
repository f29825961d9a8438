#include "adapters/fuse/wire.h"

#include <linux/fuse.h>
#include <poll.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/bytes.h"

namespace reprise::fuse {
namespace {

struct CurrentRequest {
  bool takes_offer = false;  // an INIT that offers FUSE_HANDLE_KILLPRIV_V2
  bool kills_privileges = false;
  bool for_unnamed = false;
};
thread_local CurrentRequest current;

ssize_t read_request(int fd, void* buffer, size_t size, void*) {
  return ::read(fd, buffer, size);
}

ssize_t write_reply(int fd, iovec* parts, int count, void*) {
  if (current.takes_offer && count == 2 && parts[1].iov_len >= sizeof(fuse_init_out)) {
    auto* reply = static_cast<fuse_init_out*>(parts[1].iov_base);
    reply->flags |= FUSE_HANDLE_KILLPRIV_V2;
    current.takes_offer = false;
  }
  return ::writev(fd, parts, count);
}

}  // namespace

const fuse_custom_io& wire_io() {
  static const fuse_custom_io io = {
      .writev = write_reply, .read = read_request, .splice_receive = nullptr, .splice_send = nullptr};
  return io;
}

void note_request(fuse_buf& request) {
  ByteReader reader({static_cast<const std::byte*>(request.mem), request.size});
  auto header = reader.value<fuse_in_header>();
  current = {};
  switch (header.opcode) {
    case FUSE_INIT: {
      // Old kernels send less; they offer less, too.
      current.takes_offer = (reader.value<fuse_init_in>().flags & FUSE_HANDLE_KILLPRIV_V2) != 0;
      break;
    }
    case FUSE_WRITE:
      current.kills_privileges = (reader.value<fuse_write_in>().write_flags & FUSE_WRITE_KILL_SUIDGID) != 0;
      break;
    case FUSE_SETATTR:
      current.kills_privileges = (reader.value<fuse_setattr_in>().valid & FATTR_KILL_SUIDGID) != 0;
      break;
    case FUSE_TMPFILE:
      current.for_unnamed = true;
      static_cast<fuse_in_header*>(request.mem)->opcode = FUSE_CREATE;
      break;
    default:
      break;
  }
}

bool request_kills_privileges() {
  return current.kills_privileges;
}
bool request_is_for_unnamed() {
  return current.for_unnamed;
}

bool has_requests(int device) {
  pollfd waiting = {.fd = device, .events = POLLIN, .revents = 0};
  return ::poll(&waiting, 1, 0) > 0;
}

}  // namespace reprise::fuse

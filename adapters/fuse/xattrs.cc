// Handlers of extended attributes.
//
// ACLs cannot be set here, as on a filesystem mounted without them: nothing would enforce them, and a program
// that is told its ACL was taken (cp -a sets one that says no more than the mode) does not set the mode any
// more.
#include <sys/xattr.h>

#include "adapters/fuse/session.h"

namespace reprise::fuse {
namespace {

using Session = Server::Session;

// A size of zero asks how much room is needed.
void reply_bytes(fuse_req_t request, ByteView bytes, size_t room) {
  if (room == 0) {
    fuse_reply_xattr(request, bytes.size());
  } else if (bytes.size() > room) {
    reply_error(request, fs::Errno{ERANGE});
  } else {
    fuse_reply_buf(request, reinterpret_cast<const char*>(bytes.data()), bytes.size());
  }
}

void on_getxattr(fuse_req_t request, fuse_ino_t inode, const char* name, size_t room) {
  Session& session = Session::of(request);
  auto value = session.filesystem_.get_xattr(session.caller_of(request), InodeId{inode}, name);
  if (!value) return reply_error(request, value.error());
  reply_bytes(request, *value, room);
}

void on_listxattr(fuse_req_t request, fuse_ino_t inode, size_t room) {
  Session& session = Session::of(request);
  auto names = session.filesystem_.list_xattrs(session.caller_of(request), InodeId{inode});
  if (!names) return reply_error(request, names.error());
  reply_bytes(request, as_bytes(*names), room);
}

bool is_acl(std::string_view name) {
  return name.starts_with("system.posix_acl_");
}

void on_setxattr(fuse_req_t request, fuse_ino_t inode, const char* name, const char* value, size_t size,
                 int flags) {
  if (is_acl(name)) return reply_error(request, fs::Errno{EOPNOTSUPP});
  fs::XattrMode mode;
  switch (flags) {
    case 0:
      mode = fs::XattrMode::kAny;
      break;
    case XATTR_CREATE:
      mode = fs::XattrMode::kCreate;
      break;
    case XATTR_REPLACE:
      mode = fs::XattrMode::kReplace;
      break;
    case XATTR_CREATE | XATTR_REPLACE:
      mode = fs::XattrMode::kBoth;
      break;
    default:
      return reply_error(request, fs::Errno{EINVAL});
  }
  Session& session = Session::of(request);
  reply_done(request, session.filesystem_.set_xattr(session.caller_of(request), InodeId{inode}, name,
                                                    as_bytes({value, size}), mode));
}

void on_removexattr(fuse_req_t request, fuse_ino_t inode, const char* name) {
  Session& session = Session::of(request);
  reply_done(request, session.filesystem_.remove_xattr(session.caller_of(request), InodeId{inode}, name));
}

}  // namespace

void add_xattr_handlers(fuse_lowlevel_ops& table) {
  table.getxattr = on_getxattr;
  table.listxattr = on_listxattr;
  table.setxattr = on_setxattr;
  table.removexattr = on_removexattr;
}

}  // namespace reprise::fuse

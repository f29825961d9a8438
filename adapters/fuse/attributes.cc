// Handlers of attributes, and of the filesystem as a whole.
#include <sys/statvfs.h>

#include "adapters/fuse/session.h"

namespace reprise::fuse {
namespace {

using Session = Server::Session;
using TimeChange = fs::SetAttributesRequest::TimeChange;

void on_getattr(fuse_req_t request, fuse_ino_t inode, fuse_file_info*) {
  Session& session = Session::of(request);
  session.reply_attributes(request, session.filesystem_.get_attributes(InodeId{inode}));
}

fs::SetAttributesRequest changes_asked_for(const struct stat& wanted, int mask) {
  fs::SetAttributesRequest changes;
  if (mask & FUSE_SET_ATTR_MODE) changes.mode = wanted.st_mode & 07777;
  if (mask & FUSE_SET_ATTR_UID) changes.uid = wanted.st_uid;
  if (mask & FUSE_SET_ATTR_GID) changes.gid = wanted.st_gid;
  if (mask & FUSE_SET_ATTR_SIZE) changes.size = static_cast<uint64_t>(wanted.st_size);
  // What is left of a chown that keeps both ids.
  if ((mask & ~FUSE_SET_ATTR_CTIME) == 0) changes.changes_owner = true;
  if (mask & FUSE_SET_ATTR_ATIME) {
    changes.atime_change = mask & FUSE_SET_ATTR_ATIME_NOW ? TimeChange::kNow : TimeChange::kSet;
    changes.atime = {wanted.st_atim.tv_sec, static_cast<uint32_t>(wanted.st_atim.tv_nsec)};
  }
  if (mask & FUSE_SET_ATTR_MTIME) {
    changes.mtime_change = mask & FUSE_SET_ATTR_MTIME_NOW ? TimeChange::kNow : TimeChange::kSet;
    changes.mtime = {wanted.st_mtim.tv_sec, static_cast<uint32_t>(wanted.st_mtim.tv_nsec)};
  }
  return changes;
}

// A request that names nothing to change is a chown that keeps both ids; or the kernel is about to send
// somebody's write, which will take set-user-id away. What only the owner may do by chown is left to the
// write.
fs::Outcome<fs::Attributes> keep_owner(Session& session, fuse_req_t request, InodeId inode,
                                       const fs::SetAttributesRequest& changes) {
  std::vector<uint32_t> groups = session.groups_of(request);
  fs::Caller caller = session.caller_of(request);
  caller.trusted = false;
  caller.groups = groups;
  auto changed = session.filesystem_.set_attributes(caller, inode, changes);
  if (!changed && changed.error() == fs::Errno{EPERM}) return session.filesystem_.get_attributes(inode);
  return changed;
}

fs::Outcome<fs::Attributes> change_attributes(fuse_req_t request, InodeId inode,
                                              const fs::SetAttributesRequest& changes) {
  Session& session = Session::of(request);
  bool gives_away = changes.uid || changes.gid;
  if (changes.changes_owner && !gives_away) return keep_owner(session, request, inode, changes);
  auto change = [&] {
    return session.filesystem_.set_attributes(session.caller_of(request), inode, changes);
  };
  // Giving a file away always says that set-user-id must go, of which the filesystem knows by itself; but not
  // whether somebody other than root is of the file's group.
  if (gives_away && fuse_req_ctx(request)->uid == 0) return change();
  bool kills = request_kills_privileges();
  auto changed = session.changing_content(request, inode, kills, change);
  // Its mode may have changed once more.
  return changed && kills ? session.filesystem_.get_attributes(inode) : changed;
}

void on_setattr(fuse_req_t request, fuse_ino_t inode, struct stat* wanted, int mask, fuse_file_info*) {
  Session& session = Session::of(request);
  fs::SetAttributesRequest changes = changes_asked_for(*wanted, mask);
  if (auto allowed = session.owners_.change(changes); !allowed) return reply_error(request, allowed.error());
  session.reply_attributes(request, change_attributes(request, InodeId{inode}, changes));
}

void on_readlink(fuse_req_t request, fuse_ino_t inode) {
  auto target = Session::of(request).filesystem_.read_link(InodeId{inode});
  if (!target) return reply_error(request, target.error());
  fuse_reply_readlink(request, target->c_str());
}

void on_statfs(fuse_req_t request, fuse_ino_t) {
  fs::StatFs usage = Session::of(request).filesystem_.stat_fs();
  struct statvfs reply = {};
  reply.f_bsize = reply.f_frsize = fs::kBlockSize;
  reply.f_blocks = usage.blocks_total;
  reply.f_bfree = reply.f_bavail = usage.blocks_free;
  reply.f_files = usage.inodes_total;
  reply.f_ffree = reply.f_favail = usage.inodes_free;
  reply.f_namemax = fs::kNameMax;
  fuse_reply_statfs(request, &reply);
}

}  // namespace

void add_attribute_handlers(fuse_lowlevel_ops& table) {
  table.getattr = on_getattr;
  table.setattr = on_setattr;
  table.readlink = on_readlink;
  table.statfs = on_statfs;
}

}  // namespace reprise::fuse

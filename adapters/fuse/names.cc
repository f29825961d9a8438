// Handlers that look names up, make, move and remove them, and forget what the kernel no longer holds.
#include <fcntl.h>
#include <linux/fs.h>

#include "adapters/fuse/session.h"

namespace reprise::fuse {
namespace {

using Session = Server::Session;

void on_lookup(fuse_req_t request, fuse_ino_t parent, const char* name) {
  Session& session = Session::of(request);
  auto found = session.filesystem_.lookup(session.caller_of(request), InodeId{parent}, name);
  if (!found && found.error() == fs::Errno{ENOENT})
    return session.reply_no_entry(request, InodeId{parent}, name);
  session.reply_entry(request, InodeId{parent}, name, found);
}

void on_forget(fuse_req_t request, fuse_ino_t inode, uint64_t count) {
  Session::of(request).lookups_.remove(InodeId{inode}, count);
  fuse_reply_none(request);
}

void on_forget_multi(fuse_req_t request, size_t count, fuse_forget_data* forgets) {
  Session& session = Session::of(request);
  for (size_t i = 0; i < count; ++i) session.lookups_.remove(InodeId{forgets[i].ino}, forgets[i].nlookup);
  fuse_reply_none(request);
}

void on_mknod(fuse_req_t request, fuse_ino_t parent, const char* name, mode_t mode, dev_t rdev) {
  Session& session = Session::of(request);
  if ((mode & S_IFMT) == 0) mode |= S_IFREG;
  auto made = session.filesystem_.make_node(session.caller_of(request), InodeId{parent}, name, mode, rdev);
  session.reply_entry(request, InodeId{parent}, name, made);
}

void on_mkdir(fuse_req_t request, fuse_ino_t parent, const char* name, mode_t mode) {
  Session& session = Session::of(request);
  auto made =
      session.filesystem_.make_directory(session.caller_of(request), InodeId{parent}, name, mode & 07777);
  session.reply_entry(request, InodeId{parent}, name, made);
}

void on_symlink(fuse_req_t request, const char* target, fuse_ino_t parent, const char* name) {
  Session& session = Session::of(request);
  auto made = session.filesystem_.make_symlink(session.caller_of(request), InodeId{parent}, name, target);
  session.reply_entry(request, InodeId{parent}, name, made);
}

void on_link(fuse_req_t request, fuse_ino_t inode, fuse_ino_t new_parent, const char* new_name) {
  Session& session = Session::of(request);
  auto made =
      session.filesystem_.link(session.caller_of(request), InodeId{inode}, InodeId{new_parent}, new_name);
  session.reply_entry(request, InodeId{new_parent}, new_name, made);
}

// open(2) with O_CREAT of a name that the kernel takes to be absent. A remote change may have made it
// meanwhile: then it is opened, unless it must be new.
fs::Outcome<fs::Attributes> create_or_open(Session& session, const fs::Caller& caller, InodeId parent,
                                           const char* name, mode_t mode, int flags) {
  auto made = session.filesystem_.make_node(caller, parent, name, S_IFREG | (mode & 07777), 0);
  if (made || made.error() != fs::Errno{EEXIST} || (flags & O_EXCL) != 0) return made;
  fs::Attributes found = TRY(session.filesystem_.lookup(caller, parent, name));
  if (!found.is_regular()) return fs::errno_of(EEXIST);
  if ((flags & O_TRUNC) == 0) return found;
  return session.filesystem_.set_attributes(caller, found.inode, {.size = 0});
}

// open(2) with O_TMPFILE. The kernel itself keeps the one with O_EXCL from being linked.
void on_create_unnamed(fuse_req_t request, InodeId parent, mode_t mode, fuse_file_info* file) {
  Session& session = Session::of(request);
  bool linkable = (file->flags & O_EXCL) == 0;
  auto made = session.filesystem_.make_unlinked(session.caller_of(request), parent, mode & 07777, linkable);
  file->keep_cache = 1;
  session.reply_created(request, parent, "", made, *file);
  if (made) session.filesystem_.unpin(made->inode);  // from here on the kernel's lookup holds it
}

void on_create(fuse_req_t request, fuse_ino_t parent, const char* name, mode_t mode, fuse_file_info* file) {
  if (request_is_for_unnamed()) return on_create_unnamed(request, InodeId{parent}, mode, file);
  Session& session = Session::of(request);
  auto made = create_or_open(session, session.caller_of(request), InodeId{parent}, name, mode, file->flags);
  file->keep_cache = 1;
  session.reply_created(request, InodeId{parent}, name, made, *file);
}

void on_unlink(fuse_req_t request, fuse_ino_t parent, const char* name) {
  Session& session = Session::of(request);
  reply_done(request, session.filesystem_.unlink(session.caller_of(request), InodeId{parent}, name));
}

void on_rmdir(fuse_req_t request, fuse_ino_t parent, const char* name) {
  Session& session = Session::of(request);
  reply_done(request,
             session.filesystem_.remove_directory(session.caller_of(request), InodeId{parent}, name));
}

void on_rename(fuse_req_t request, fuse_ino_t old_parent, const char* old_name, fuse_ino_t new_parent,
               const char* new_name, unsigned flags) {
  fs::RenameMode mode;
  switch (flags) {
    case 0:
      mode = fs::RenameMode::kReplace;
      break;
    case RENAME_NOREPLACE:
      mode = fs::RenameMode::kNoReplace;
      break;
    case RENAME_EXCHANGE:
      mode = fs::RenameMode::kExchange;
      break;
    default:
      return reply_error(request, fs::Errno{EINVAL});
  }
  Session& session = Session::of(request);
  reply_done(request, session.filesystem_.rename(session.caller_of(request), InodeId{old_parent}, old_name,
                                                 InodeId{new_parent}, new_name, mode));
}

}  // namespace

void add_name_handlers(fuse_lowlevel_ops& table) {
  table.lookup = on_lookup;
  table.forget = on_forget;
  table.forget_multi = on_forget_multi;
  table.mknod = on_mknod;
  table.mkdir = on_mkdir;
  table.symlink = on_symlink;
  table.link = on_link;
  table.create = on_create;
  table.unlink = on_unlink;
  table.rmdir = on_rmdir;
  table.rename = on_rename;
}

}  // namespace reprise::fuse

// Handlers of directory listings.
#include "adapters/fuse/session.h"

namespace reprise::fuse {
namespace {

using Session = Server::Session;

void on_opendir(fuse_req_t request, fuse_ino_t, fuse_file_info* file) {
  if (Session::of(request).opens_directories_itself_) return reply_error(request, fs::Errno{ENOSYS});
  file->keep_cache = 1;
  file->cache_readdir = 1;
  fuse_reply_open(request, file);
}

bool is_dot(std::string_view name) {
  return name == "." || name == "..";
}

void on_readdir(fuse_req_t request, fuse_ino_t directory, size_t size, off_t cookie, fuse_file_info*) {
  Session& session = Session::of(request);
  std::vector<char> reply(size);  // at most the request size agreed on at the start
  size_t used = 0;
  session.marks_.note_listed(InodeId{directory});
  auto read = session.filesystem_.read_directory(
      session.caller_of(request), InodeId{directory}, static_cast<uint64_t>(cookie), false,
      [&](const fs::Dentry& dentry, const fs::Attributes*) {
        struct stat type = {};
        type.st_ino = dentry.inode.value;
        type.st_mode = static_cast<mode_t>(dentry.type) << 12;
        std::string name(dentry.name);
        size_t needed = fuse_add_direntry(request, reply.data() + used, size - used, name.c_str(), &type,
                                          static_cast<off_t>(dentry.cookie));
        if (needed > size - used) return false;
        used += needed;
        return true;
      });
  if (!read) return reply_error(request, read.error());
  fuse_reply_buf(request, reply.data(), used);
}

// Every entry but "." and ".." is a lookup as well. Read under the filesystem's lock, so what is added here
// is pinned before anything can remove it.
void on_readdirplus(fuse_req_t request, fuse_ino_t directory, size_t size, off_t cookie, fuse_file_info*) {
  Session& session = Session::of(request);
  std::vector<char> reply(size);
  std::vector<InodeId> told;
  size_t used = 0;
  session.marks_.note_listed(InodeId{directory});
  auto read = session.filesystem_.read_directory(
      session.caller_of(request), InodeId{directory}, static_cast<uint64_t>(cookie), true,
      [&](const fs::Dentry& dentry, const fs::Attributes* attributes) {
        fuse_entry_param entry = session.entry(InodeId{directory}, dentry.name, *attributes);
        if (is_dot(dentry.name)) entry.ino = 0;  // listed, not looked up
        std::string name(dentry.name);
        size_t needed = fuse_add_direntry_plus(request, reply.data() + used, size - used, name.c_str(),
                                               &entry, static_cast<off_t>(dentry.cookie));
        if (needed > size - used) return false;
        used += needed;
        if (entry.ino != 0) {
          session.lookups_.add(dentry.inode);
          told.push_back(dentry.inode);
        }
        return true;
      });
  bool answered = read && fuse_reply_buf(request, reply.data(), used) == 0;
  if (!read) reply_error(request, read.error());
  if (answered) return;
  for (InodeId inode : told) session.lookups_.remove(inode, 1);
}

}  // namespace

void add_directory_handlers(fuse_lowlevel_ops& table) {
  table.opendir = on_opendir;
  table.readdir = on_readdir;
  table.readdirplus = on_readdirplus;
}

}  // namespace reprise::fuse

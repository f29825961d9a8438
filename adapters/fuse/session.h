// Session: what the handlers of requests share. For this folder only.
//
// Handlers are grouped by subject in names.cc (lookup, create, remove, rename), attributes.cc, content.cc,
// directories.cc and xattrs.cc; each subject fills its part of the table that libfuse calls through. A
// handler runs on a worker, answers its request exactly once and holds no lock while it does.
#pragma once

#include <atomic>
#include <thread>
#include <vector>

#include "adapters/fuse/holes.h"
#include "adapters/fuse/in_flight.h"
#include "adapters/fuse/kernel_cache.h"
#include "adapters/fuse/libfuse.h"
#include "adapters/fuse/lookup_table.h"
#include "adapters/fuse/server.h"
#include "adapters/fuse/touched.h"
#include "adapters/fuse/wire.h"

namespace reprise::fuse {

class Server::Session {
 public:
  Session(fs::Filesystem& filesystem, Clock& clock, ServerOptions options);
  ~Session();

  Status start(int fd);
  void stop();

  static Session& of(fuse_req_t request) { return *static_cast<Session*>(fuse_req_userdata(request)); }

  // The kernel has said hello.
  void connected() { cache_.connect(session_); }

  // --- for the handlers
  fs::Caller caller_of(fuse_req_t request) const;
  std::vector<uint32_t> groups_of(fuse_req_t request) const;  // of its process
  // Does `change`, which alters a file; where that `kills` privileges, set-user-id and set-group-id go.
  template <class Change>
  auto changing_content(fuse_req_t request, InodeId inode, bool kills, const Change& change)
      -> decltype(change()) {
    if (!kills) return change();
    fs::Attributes before = TRY(filesystem_.get_attributes(inode));
    auto changed = change();
    if (changed) TRY(revoke_privileges(request, before));
    return changed;
  }
  struct stat stat_of(const fs::Attributes& attributes) const;
  double attributes_timeout(InodeId inode) {
    bool may_cache = !marks_.inode(inode) && lookups_.settled(inode, clock_.monotonic_ns());
    return may_cache ? options_.cache_timeout_s : 0;
  }

  // Answers with an inode under a name: counts and pins it. Everything that tells the kernel of an inode goes
  // through here or through add_entry.
  void reply_entry(fuse_req_t request, InodeId parent, std::string_view name,
                   const fs::Outcome<fs::Attributes>& found);
  void reply_created(fuse_req_t request, InodeId parent, std::string_view name,
                     const fs::Outcome<fs::Attributes>& created, fuse_file_info& file);
  void reply_no_entry(fuse_req_t request, InodeId parent, std::string_view name);
  void reply_attributes(fuse_req_t request, const fs::Outcome<fs::Attributes>& attributes);
  fuse_entry_param entry(InodeId parent, std::string_view name, const fs::Attributes& attributes);

  // A request that will say nothing more about the tree before it waits for something slow.
  void done_with_tree();

  // --- fields
  fs::Filesystem& filesystem_;
  Clock& clock_;
  const ServerOptions options_;
  const Owners owners_;
  LookupTable lookups_;
  Marks marks_;
  RequestCounts counts_;
  InFlight in_flight_;
  KernelCache cache_;
  Holes holes_;
  bool opens_itself_ = false, opens_directories_itself_ = false;  // the kernel can do without OPEN, OPENDIR

 private:
  friend class Server;
  fs::Outcome<void> revoke_privileges(fuse_req_t request, const fs::Attributes& before);
  bool add_to_lookups(const fs::Attributes& attributes);
  void serve(size_t worker);
  void wake_and_join();
  bool drain(uint64_t timeout_ms);

  fuse_session* session_ = nullptr;
  std::atomic<bool> unmounted_{false};
  std::atomic<size_t> running_{0};
  std::vector<std::thread> workers_;
  // For drain(): workers look at the one, and write into their own of the others, before each request.
  std::atomic<uint64_t> round_{0};
  std::vector<std::atomic<uint64_t>> seen_rounds_;
};

// Handlers by subject.
void add_name_handlers(fuse_lowlevel_ops& table);
void add_attribute_handlers(fuse_lowlevel_ops& table);
void add_content_handlers(fuse_lowlevel_ops& table);
void add_directory_handlers(fuse_lowlevel_ops& table);
void add_xattr_handlers(fuse_lowlevel_ops& table);

inline void reply_error(fuse_req_t request, fs::Errno error) {
  fuse_reply_err(request, static_cast<int>(error));
}
inline void reply_done(fuse_req_t request, const fs::Outcome<void>& outcome) {
  fuse_reply_err(request, outcome ? 0 : static_cast<int>(outcome.error()));
}

}  // namespace reprise::fuse

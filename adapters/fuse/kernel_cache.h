// KernelCache: keeps what the kernel has cached of a mount in step with changes that did not come through it.
//
// One change goes: mark what it touches (replies get zero timeouts), apply and publish, wait for the replies
// begun before, tell the kernel to drop the names and then the inodes, unmark. Names come first, because the
// kernel takes the directory's lock to drop a name and so waits until lookups and listings under way in it
// have been taken in; after that only what is newer than the change can follow.
//
// If it is known before what a change touches, that is dropped before as well, and the change applied at a
// moment at which no request is answered and nothing of it is cached: so nobody sees one part of it as it is,
// and then another as it was.
//
// An inode that the kernel says it does not have, although it was told of it, is on its way in or out: it is
// asked again until one or the other has happened. Without that, a lookup whose answer was written but not
// yet taken in could keep old attributes for an hour.
//
// Threads: any that serves no requests; workers keep answering meanwhile. Holds no lock that a handler takes
// for longer than a look-up.
#pragma once

#include <atomic>
#include <functional>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "adapters/fuse/in_flight.h"
#include "adapters/fuse/libfuse.h"
#include "adapters/fuse/lookup_table.h"
#include "adapters/fuse/touched.h"
#include "instance/coherence.h"

namespace reprise::fuse {

class KernelCache final : public instance::CoherenceHook {
 public:
  KernelCache(fs::Filesystem& filesystem, LookupTable& lookups, Marks& marks, InFlight& in_flight,
              Clock& clock)
      : filesystem_(filesystem), lookups_(lookups), marks_(marks), in_flight_(in_flight), clock_(clock) {}

  Status apply_remotely(std::span<const fs::Operation> operations,
                        const std::function<Status()>& apply) override;
  Status replace_all(const std::function<Result<fs::View>()>& install, const fs::View* next) override;

  // For a worker that changed an inode's attributes in a request that does not return them: no pages and no
  // names are dropped, so the kernel takes no lock that the request may hold.
  Status drop_attributes(InodeId inode);

  // Makes the kernel write back what programs have put into mappings of these bytes of an inode. Takes
  // requests to be served: not for a worker.
  Status write_back(InodeId inode, uint64_t offset, uint64_t length);

  // The kernel has said hello and waits for the answer: from now on there is something to keep in step. A
  // change under way is waited for, so that none is half seen.
  void connect(fuse_session* session);
  // The mount is gone: nothing is cached any more.
  void unmounted() { session_.store(nullptr); }
  // The session is about to go. Waits for a change under way.
  void disconnect();

 private:
  struct Sized {
    InodeId inode;
    uint64_t size;
  };
  // A name of a directory that changes, if there is one.
  using NameIn = std::function<std::optional<std::string>(InodeId directory)>;

  Status drop_and_apply(const std::function<Status()>& drop, const NameIn& name_in,
                        const std::function<Status()>& apply);
  Status drop_again(std::span<const TouchedInode> read, const NameIn& name_in);
  Status drop_and_apply(const fs::View& next, const std::function<Status()>& apply);
  std::vector<Sized> sizes_of_what_differs(const fs::View& before, const fs::View& after);
  std::vector<Sized> sizes_of(const Touched& touched);
  Status tell_what_grew(std::span<const Sized> before);
  Status drop(const Touched& touched);
  Status drop_what_differs(const fs::View& before, const fs::View& after);
  Status drop_name(InodeId parent, std::string_view name);
  Status drop_inode(const TouchedInode& touched);

  fs::Filesystem& filesystem_;
  LookupTable& lookups_;
  Marks& marks_;
  InFlight& in_flight_;
  Clock& clock_;
  std::mutex changing_;  // one change at a time
  std::atomic<fuse_session*> session_{nullptr};
};

}  // namespace reprise::fuse

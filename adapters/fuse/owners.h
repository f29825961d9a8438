// Owners: user and group ids as they are journaled, and as the mount shows them. The one place where they
// differ.
//
// A mount made by root shows true ids. A mount in somebody's own user namespace cannot: no id but theirs
// exists in it. There everything shows as theirs and is journaled as 0:0.
#pragma once

#include <sys/stat.h>
#include <sys/types.h>

#include <optional>

#include "fs/filesystem.h"

namespace reprise::fuse {

struct Owner {
  uid_t uid = 0;
  gid_t gid = 0;
};

class Owners {
 public:
  // Everything is shown as `all`; nullopt: as it is.
  explicit Owners(std::optional<Owner> all) : all_(all) {}

  // Who a new inode belongs to when `asking` makes it.
  Owner journaled(Owner asking) const { return all_ ? Owner{0, 0} : asking; }
  Owner shown(Owner journaled) const { return all_ ? *all_ : journaled; }

  // Turns the ids a guest asks for with chown into those to be journaled. EPERM if they cannot be had: where
  // all belongs to one owner, nothing can be given to another.
  fs::Outcome<void> change(fs::SetAttributesRequest& request) const {
    if (!all_) return {};
    if ((request.uid && *request.uid != all_->uid) || (request.gid && *request.gid != all_->gid)) {
      return fs::errno_of(EPERM);
    }
    request.uid.reset();
    request.gid.reset();
    return {};
  }

 private:
  std::optional<Owner> all_;
};

}  // namespace reprise::fuse

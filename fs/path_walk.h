// PathWalk: follows one path through a Filesystem, part by part, as Linux does (path_resolution(7)).
//
// For Guest. A walk lives during one call, holds no lock between parts and pins nothing on its way: a
// directory that is removed meanwhile is a name that does not exist.
#pragma once

#include <string>
#include <string_view>

#include "fs/filesystem.h"

namespace reprise::fs {

// Where a path's last part is.
struct Place {
  InodeId parent;
  std::string_view name;  // one part, may be "." or ".."; empty for "/" itself. Valid until the walk goes on.
  bool slash = false;     // a '/' follows, so it must be a directory
};

class PathWalk {
 public:
  // `path` is absolute or begins at the directory `start`, which must be pinned.
  PathWalk(Filesystem& filesystem, const Caller& caller, InodeId start)
      : filesystem_(filesystem), caller_(caller), start_(start) {}

  // Everything but the last part. ENOENT (empty path), ENAMETOOLONG, ELOOP, ENOTDIR, EACCES, …
  Outcome<Place> to_last(std::string_view path);
  // What a place leads to, its last part included; a symlink there is followed if `follow`, or if a '/'
  // follows it.
  Outcome<Attributes> finish(Place place, bool follow, Hold hold = Hold::kNo);
  // The same for a symlink at a place that is known: where it leads to.
  Outcome<Place> through_link(const Place& place, InodeId symlink);
  // What is at the place itself.
  Outcome<Attributes> look(const Place& place, Hold hold = Hold::kNo);

  // What a call on `at` that found it gone means to the path: a name that does not exist, unless the walk
  // began there.
  template <class T>
  Outcome<T> settle(InodeId at, Outcome<T> outcome) const {
    if (!outcome && outcome.error() == Errno{ESTALE} && at != start_) return errno_of(ENOENT);
    return outcome;
  }

 private:
  Outcome<Place> advance(InodeId at, std::string_view rest);
  Outcome<InodeId> expand(InodeId at, InodeId symlink, std::string_view rest);

  Filesystem& filesystem_;
  const Caller& caller_;
  const InodeId start_;
  std::string text_;  // of the last symlink followed, and what of the path follows it
  int links_ = 0;
};

}  // namespace reprise::fs

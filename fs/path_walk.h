// PathWalk: follows one path through a Filesystem, part by part, as Linux does (path_resolution(7)).
//
// For Guest. A walk lives during one call and pins nothing on its way. Each of its functions takes the
// filesystem's lock once, for however many parts; between them a directory may be removed, and is then a name
// that does not exist.
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

  // What the whole path leads to; a symlink at its end is followed if `follow`, or if a '/' follows it.
  // ENOENT (empty path), ENAMETOOLONG, ELOOP, ENOTDIR, EACCES, …
  Outcome<Attributes> find(std::string_view path, bool follow);
  // Everything but the last part.
  Outcome<Place> to_last(std::string_view path);
  // What a place leads to, its last part included; symlinks as above.
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
  using Found = Filesystem::Found;

  // With the lock held.
  Outcome<Place> begin(std::string_view path);
  Outcome<Place> advance(InodeId at, std::string_view rest);
  Outcome<InodeId> expand(InodeId at, InodeId symlink, std::string_view rest);
  Outcome<Place> expand_at(const Place& place, InodeId symlink);
  Outcome<Found> directory(InodeId at) const;
  Outcome<Found> locate(const Place& place) const;
  Outcome<Found> follow_to_end(Place place, bool follow);
  Outcome<Attributes> show(const Outcome<Found>& found, Hold hold) const;

  Filesystem& filesystem_;
  const Caller& caller_;
  const InodeId start_;
  std::string text_;  // of the last symlink followed, and what of the path follows it
  int links_ = 0;
};

}  // namespace reprise::fs

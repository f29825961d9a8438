#include "fs/path_walk.h"

#include "fs/permission.h"

namespace reprise::fs {
namespace {

std::string_view without_leading_slashes(std::string_view path) {
  size_t begin = path.find_first_not_of('/');
  return begin == path.npos ? std::string_view{} : path.substr(begin);
}

}  // namespace

// --- one lock each

Outcome<Attributes> PathWalk::find(std::string_view path, bool follow) {
  std::shared_lock lock(filesystem_.mutex_);
  Place place = TRY(begin(path));
  return show(follow_to_end(place, follow), Hold::kNo);
}

Outcome<Place> PathWalk::to_last(std::string_view path) {
  std::shared_lock lock(filesystem_.mutex_);
  return begin(path);
}

Outcome<Attributes> PathWalk::finish(Place place, bool follow, Hold hold) {
  std::shared_lock lock(filesystem_.mutex_);
  return show(follow_to_end(place, follow), hold);
}

Outcome<Attributes> PathWalk::look(const Place& place, Hold hold) {
  std::shared_lock lock(filesystem_.mutex_);
  return show(locate(place), hold);
}

Outcome<Place> PathWalk::through_link(const Place& place, InodeId symlink) {
  std::shared_lock lock(filesystem_.mutex_);
  return expand_at(place, symlink);
}

// --- with the lock held

Outcome<Place> PathWalk::begin(std::string_view path) {
  if (path.empty()) return errno_of(ENOENT);
  if (path.size() > kPathMax) return errno_of(ENAMETOOLONG);
  return advance(path.starts_with('/') ? kRootInode : start_, path);
}

Outcome<PathWalk::Found> PathWalk::directory(InodeId at) const {
  return settle(at, filesystem_.find_directory(caller_, at, X_OK));
}

Outcome<Place> PathWalk::advance(InodeId at, std::string_view rest) {
  rest = without_leading_slashes(rest);
  if (rest.empty()) return Place{at, {}, false};
  for (;;) {
    std::string_view part = rest.substr(0, rest.find('/'));
    std::string_view after = rest.substr(part.size());
    std::string_view next = without_leading_slashes(after);
    if (next.empty()) {
      if (!caller_.trusted) {
        Found last = TRY(settle(at, filesystem_.find_handle(at)));
        TRY(check_access(caller_, *last, X_OK));
      }
      return Place{at, part, !after.empty()};
    }
    Found found = TRY(filesystem_.find_part(TRY(directory(at)), part));
    if (S_ISLNK(found->mode)) {
      at = TRY(expand(at, found.id, after));
      rest = without_leading_slashes(text_);
    } else if (S_ISDIR(found->mode)) {
      at = found.id;
      rest = next;
    } else {
      return errno_of(ENOTDIR);
    }
  }
}

// Puts the link's text before the rest of the path, in text_. Returns where that begins.
Outcome<InodeId> PathWalk::expand(InodeId at, InodeId symlink, std::string_view rest) {
  if (++links_ > kSymlinksMax) return errno_of(ELOOP);
  std::string text(TRY(filesystem_.head_.read_link(symlink)));
  text += rest;
  text_ = std::move(text);
  return text_.starts_with('/') ? kRootInode : at;
}

Outcome<Place> PathWalk::expand_at(const Place& place, InodeId symlink) {
  InodeId at = TRY(expand(place.parent, symlink, place.slash ? "/" : ""));
  return advance(at, text_);
}

// What is at the place itself.
Outcome<PathWalk::Found> PathWalk::locate(const Place& place) const {
  if (place.name.empty()) return filesystem_.find_handle(place.parent);
  return filesystem_.find_part(TRY(directory(place.parent)), place.name);
}

Outcome<PathWalk::Found> PathWalk::follow_to_end(Place place, bool follow) {
  for (;;) {
    Found found = TRY(locate(place));
    if (S_ISLNK(found->mode) && (follow || place.slash)) {
      place = TRY(expand_at(place, found.id));
    } else if (place.slash && !S_ISDIR(found->mode)) {
      return errno_of(ENOTDIR);
    } else {
      return found;
    }
  }
}

Outcome<Attributes> PathWalk::show(const Outcome<Found>& found, Hold hold) const {
  Outcome<Attributes> attributes;
  if (found) {
    if (hold == Hold::kPin) filesystem_.pin(found->id);
    fill_attributes(*attributes, found->id, **found);
  } else {
    attributes = std::unexpected(found.error());
  }
  return attributes;
}

}  // namespace reprise::fs

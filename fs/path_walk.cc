#include "fs/path_walk.h"

namespace reprise::fs {
namespace {

std::string_view without_leading_slashes(std::string_view path) {
  size_t begin = path.find_first_not_of('/');
  return begin == path.npos ? std::string_view{} : path.substr(begin);
}

}  // namespace

Outcome<Place> PathWalk::to_last(std::string_view path) {
  if (path.empty()) return errno_of(ENOENT);
  if (path.size() > kPathMax) return errno_of(ENAMETOOLONG);
  return advance(path.starts_with('/') ? kRootInode : start_, path);
}

Outcome<Place> PathWalk::advance(InodeId at, std::string_view rest) {
  rest = without_leading_slashes(rest);
  if (rest.empty()) return Place{at, {}, false};
  for (;;) {
    std::string_view part = rest.substr(0, rest.find('/'));
    std::string_view after = rest.substr(part.size());
    std::string_view next = without_leading_slashes(after);
    if (next.empty()) {
      if (!caller_.trusted) TRY(settle(at, filesystem_.access(caller_, at, X_OK)));
      return Place{at, part, !after.empty()};
    }
    Attributes found = TRY(settle(at, filesystem_.lookup(caller_, at, part)));
    if (found.is_symlink()) {
      at = TRY(expand(at, found.inode, after));
      rest = without_leading_slashes(text_);
    } else if (found.is_directory()) {
      at = found.inode;
      rest = next;
    } else {
      return errno_of(ENOTDIR);
    }
  }
}

// Puts the link's text before the rest of the path, in text_. Returns where that begins.
Outcome<InodeId> PathWalk::expand(InodeId at, InodeId symlink, std::string_view rest) {
  if (++links_ > kSymlinksMax) return errno_of(ELOOP);
  std::string text = TRY(settle(symlink, filesystem_.read_link(symlink)));
  text += rest;
  text_ = std::move(text);
  return text_.starts_with('/') ? kRootInode : at;
}

Outcome<Place> PathWalk::through_link(const Place& place, InodeId symlink) {
  InodeId at = TRY(expand(place.parent, symlink, place.slash ? "/" : ""));
  return advance(at, text_);
}

Outcome<Attributes> PathWalk::look(const Place& place, Hold hold) {
  if (!place.name.empty())
    return settle(place.parent, filesystem_.lookup(caller_, place.parent, place.name, hold));
  auto root = filesystem_.get_attributes(place.parent);
  if (root && hold == Hold::kPin) filesystem_.pin(place.parent);
  return root;
}

Outcome<Attributes> PathWalk::finish(Place place, bool follow, Hold hold) {
  for (;;) {
    Attributes found = TRY(look(place, hold));
    bool through = found.is_symlink() && (follow || place.slash);
    if (!through && (!place.slash || found.is_directory())) return found;
    if (hold == Hold::kPin) filesystem_.unpin(found.inode);
    if (!through) return errno_of(ENOTDIR);
    place = TRY(through_link(place, found.inode));
  }
}

}  // namespace reprise::fs

// Fetched: what a change of part of a block needs of the file's source, read while no lock is held. For the
// facade's own sources.
//
// A change finds out under the lock what it lacks (Filesystem::need answers EREMOTEIO), gives the
// lock back, fetches, and is tried again. What was fetched is good for as long as the file's content is the
// very one it was fetched for: that one is pinned, so whoever changes the file gives it another.
#pragma once

#include <memory>

#include "fs/filesystem.h"
#include "fs/sourced_file.h"

namespace reprise::fs {

struct Filesystem::Fetched {
  struct Pieces {
    PinnedContent content;
    uint64_t offset = 0, length = 0;  // of the change
    sourced::Edges edges;
    Bytes head, tail;  // what the file has before and behind the change, in the same blocks
  };
  std::unique_ptr<Pieces> pieces;  // null where nothing is lacking, as almost always

  // EIO, EACCES.
  Outcome<void> fetch();
  // `data` with what is before and behind it.
  Bytes around(ByteView data) const;
};

// Runs `change(fetched)` until it has what it needs.
template <class Change>
auto Filesystem::with_fetched(const Change& change) -> decltype(change(std::declval<Fetched&>())) {
  Fetched fetched;
  for (;;) {
    auto done = change(fetched);
    if (done || done.error() != Errno{EREMOTEIO}) return done;
    TRY(fetched.fetch());
  }
}

}  // namespace reprise::fs

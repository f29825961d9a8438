// Watch: what changes in an instance, as paths and kinds, for who wants to know: editors, caches, indexers.
//
// It reads the journal behind the instance, as a follower does, at the pace of who asks: nothing waits for
// him, and nothing is kept for him but the journal. What came since he asked last is told as one: a path that
// changed a hundred times is one change, a file that came and went is none. Where the journal does not reach
// back to where he was (it was trimmed, the tree was overwritten) or he is too far behind, `overrun` says
// that anything may have changed since, and it goes on from now.
//
// What it is not: a history (`reprise log` has every operation), nor a lock-step view: the tree may be
// further already than what it tells. A file with several names is told by the one it got last.
//
// Costs the memory of one name for each inode. The instance outlives it. Threads: one at a time.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "instance/instance.h"
#include "instance/path_index.h"

namespace reprise::instance {

struct PathChange {
  enum class Kind {
    kCreated,
    kChanged,  // content, attributes, or both; or it was replaced
    kRemoved,
    kRenamed,  // `from` is what it was called; what lies below came along
  };
  Kind kind = Kind::kChanged;
  std::string path;  // from the root, with a leading '/', bytes as they are
  std::string from = {};
  bool content = false, attributes = false;  // of what was changed or renamed, that too
};
// "created", "changed", …
std::string_view kind_name(PathChange::Kind kind);

struct WatchOptions {
  size_t paths_max = 10'000;      // told at once; what is more comes with the next call
  uint64_t behind_max = 1 << 20;  // batches; more is an overrun
};

struct Watched {
  bool overrun = false;             // before these: anything may have changed
  std::vector<PathChange> changes;  // in order
  LogIndex last = 0;                // the batch up to which this tells
};

class Watch {
 public:
  // From this moment on.
  static Result<std::unique_ptr<Watch>> begin(Instance& instance, WatchOptions options = {});
  // What has changed since the last call; waits up to timeout_ms for the first of it, then it may be nothing.
  // The journal's failure.
  Result<Watched> next(uint32_t timeout_ms);

 private:
  Watch(Instance& instance, WatchOptions options) : instance_(instance), options_(options) {}
  Status start_anew();
  bool is_too_far_behind() const;
  Result<Watched> overrun();

  Instance& instance_;
  WatchOptions options_;
  PathIndex paths_;
  std::unique_ptr<journal::Cursor> cursor_;
  LogIndex last_ = 0;
};

}  // namespace reprise::instance

// Joining: one join, from a branch's journal to its parent's. Of Instance alone; used once, by the thread
// that joins.
#pragma once

#include "instance/instance.h"

namespace reprise::instance {

class Joining {
 public:
  // `label`: of the batch that says where it happened. The caller holds the branch's lock.
  Joining(Instance& parent, Branch branch, std::string label)
      : parent_(parent),
        store_(*parent.store_),
        branch_(std::move(branch)),
        fork_(*branch_.fork),
        label_(std::move(label)) {}

  // If the parent has gone on since the fork, nothing is done, and Joined::moved says so.
  void only_if_unmoved() { only_if_unmoved_ = true; }

  Result<Joined> run();
  // After run() has found that both have changed the same: what both began with, and the branch's end.
  const fs::View& base() const { return *base_; }
  fs::View theirs() const { return theirs_->view(); }

 private:
  // False if nothing was done: the parent had gone on and must not, or both have changed the same.
  Result<bool> record_all();
  // What was recorded is put on the disk, and the branch is not needed any more.
  Status end();
  Status open_branch();
  Status open_in_memory(const MemoryBranch& branch);
  Status load_both();
  bool has_moved(const journal::Vector& now) const;
  Result<fs::View> put_in_place();
  Status apply(fs::Head& head, std::vector<InodeId>& unlinked);
  Status apply_batches(fs::Head& head, std::vector<InodeId>& unlinked, const journal::Vector& now);
  Status check_result(const fs::Tree& before, const fs::Head& after) const;
  Status skip_what_is_there();
  Status record_batches();
  Status note_mark(const std::string& name, Digest128 digest);
  void give_up(const Error& why);

  Instance& parent_;
  store::Store& store_;
  const Branch branch_;
  const Fork& fork_;
  const std::string label_;
  bool only_if_unmoved_ = false;
  std::shared_ptr<journal::Journal> journal_;  // the branch's
  journal::Vector vector_;                     // of the branch's end
  std::optional<Digest128> digest_;            // likewise, where its closing has left it
  std::optional<fs::View> base_;               // what both began with,
  std::optional<fs::Head> theirs_;             // and the branch's end: once the parent has moved
  bool needs_both_ = false;
  // Of a join that was interrupted: the parent's last batch before it.
  std::optional<LogIndex> began_behind_;
  // Where the branch goes on behind what the parent has of it already, and what that is.
  LogIndex rest_ = 0;
  journal::Vector skipped_;
  bool all_there_ = false;  // and what says where it happened
  struct PassedMark {
    std::string name;
    Digest128 digest;  // of the parent's tree at it
  };
  std::vector<PassedMark> marks_;
  Joined joined_;
};

}  // namespace reprise::instance

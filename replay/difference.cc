#include "replay/difference.h"

#include <fmt/format.h>

#include "fs/transition.h"

namespace reprise::replay {
namespace {

// What an operation takes, encoded, besides names and bytes.
constexpr uint64_t kOperationBytes = 120;
// Nobody's: these batches are in no journal.
constexpr OriginId kNobody{~uint64_t{0}, ~uint64_t{0}};

// Operations, put together to batches of about the size that a recorder makes.
class IntoBatches final : public fs::TransitionTarget {
 public:
  IntoBatches(const fs::Tree& have, const fs::Tree& wanted,
              const std::function<Status(const journal::Batch&)>& write)
      : have_(have), wanted_(wanted), write_(write) {}

  InodeId new_inode(InodeId wanted) override {
    if (wanted) return wanted;
    // For the hidden directory, which is gone in the end.
    InodeId free{~uint64_t{0}};
    while (have_.stat(free) || wanted_.stat(free)) --free.value;
    return free;
  }
  void apply(const fs::Operation& operation) override {
    if (!status_) return;
    if (!batch_.try_add(operation)) {
      finish();
      batch_.add(operation);
    }
    if (batch_.bytes() >= journal::kBatchSoftLimit) finish();
  }
  void finish() {
    if (!status_ || batch_.empty()) return;
    status_ = write_(batch_.finish({.origin = kNobody, .lsn = ++batches_, .lamport = 1}));
  }
  const Status& status() const { return status_; }
  uint64_t batches() const { return batches_; }

 private:
  const fs::Tree &have_, &wanted_;
  const std::function<Status(const journal::Batch&)>& write_;
  journal::BatchBuilder batch_;
  Status status_;
  uint64_t batches_ = 0;
};

}  // namespace

std::optional<uint64_t> difference_bytes(const fs::Tree& have, const fs::Tree& wanted, uint64_t most) {
  if (have.partial() || wanted.partial()) return std::nullopt;
  uint64_t bytes = 0;
  auto count = [&](uint64_t more) { return (bytes += more) <= most; };
  fs::for_each_changed_inode(have, wanted, [&](const fs::ChangedInode& change) {
    if (!count(kOperationBytes)) return false;
    if (change.content && change.after && change.after->is_regular()) {
      fs::for_each_changed_range(have, wanted, change.inode, [&](uint64_t offset, uint64_t end) {
        return count(kOperationBytes + end - offset);
      });
    }
    if (change.names) {
      fs::for_each_changed_name(have, wanted, change.inode, [&](const fs::ChangedName& name) {
        return count(kOperationBytes + name.name.size());
      });
    }
    return bytes <= most;
  });
  return bytes <= most ? std::optional(bytes) : std::nullopt;
}

Result<uint64_t> send_difference(const fs::Tree& have, const fs::Tree& wanted,
                                 const std::function<Status(const journal::Batch&)>& write) {
  IntoBatches target(have, wanted, write);
  if (have.limits() != wanted.limits()) target.apply(wanted.limits());
  fs::TreeChanges changes = fs::all_changes(have, wanted);
  auto made = fs::Transition(have, wanted, changes).make(target);
  target.finish();
  TRY(target.status());
  if (!made)
    return std::unexpected(Error::from_errno(static_cast<int>(made.error()), "the tree cannot be read"));
  return target.batches();
}

Status DifferenceReceiver::add(const journal::Batch& batch) {
  if (batch.encoded_bytes() > left_bytes_)
    return fail(Code::kNoSpace, "the leader's difference is larger than a tree may be here");
  left_bytes_ -= batch.encoded_bytes();
  ++batches_;
  std::optional<std::string> refused;
  batch.for_each([&](const fs::Operation& operation) {
    if (refused) return;
    if (auto done = head_.apply(operation); !done)
      refused = fmt::format("{}: {}", fs::operation_name(operation), fs::errno_text(done.error()));
  });
  for (InodeId inode : head_.take_unlinked()) head_.remove_unlinked(inode);
  if (!refused) return {};
  return fail(Code::kDivergence, fmt::format("the leader's difference does not fit this tree: {}", *refused));
}

void KeptTrees::keep(Pinned tree, uint64_t now_ms) {
  std::lock_guard lock(mutex_);
  drop_old(now_ms);
  std::erase_if(kept_, [&](const Kept& kept) {
    return kept.tree.moment.position.vector == tree.moment.position.vector;
  });
  if (kept_.size() >= kMax) kept_.pop_front();
  kept_.push_back({std::move(tree), now_ms});
}

std::vector<Pinned> KeptTrees::after(const journal::Vector& peer, uint64_t now_ms) {
  std::lock_guard lock(mutex_);
  drop_old(now_ms);
  std::vector<Pinned> found;
  for (const Kept& kept : kept_)
    if (kept.tree.moment.position.vector.covers(peer))
      found.push_back({kept.tree.view.share(), kept.tree.moment});
  return found;
}

void KeptTrees::drop_old(uint64_t now_ms) {
  std::erase_if(kept_, [&](const Kept& kept) { return now_ms > kept.since_ms + kFor_ms; });
}

}  // namespace reprise::replay

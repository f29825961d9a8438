// Instance::reset, and what it is made of: a tree that is wanted is recorded on a branch of its own, which is
// then joined. So however much it is, it is there all at once or not at all, and nobody waits meanwhile.
#include <fmt/format.h>

#include "base/log.h"
#include "fs/transition.h"
#include "instance/history.h"
#include "instance/joining.h"
#include "instance/name.h"
#include "instance/snapshots.h"

namespace reprise::instance {
namespace {

constexpr int kTries = 5;
constexpr int kNamesTried = 1000;
// One call, hence one batch, so that peers never see a part of it, if it is no more than this.
constexpr uint64_t kOneCallBytes = 8 << 20;
constexpr size_t kOneCallChanges = 20'000;

class OntoChanges final : public fs::TransitionTarget {
 public:
  explicit OntoChanges(Changes& changes) : changes_(changes) {}
  InodeId new_inode(InodeId) override { return changes_.new_inode(); }
  void apply(const fs::Operation& operation) override { changes_.apply(operation); }

 private:
  Changes& changes_;
};

// Each operation a call of its own; those after an error are left out.
class OntoInstance final : public fs::TransitionTarget {
 public:
  OntoInstance(Instance& instance, std::string_view label) : instance_(instance), label_(label) {}
  InodeId new_inode(InodeId) override {
    InodeId inode;
    call([&](Changes& changes) { inode = changes.new_inode(); });
    return inode;
  }
  void apply(const fs::Operation& operation) override {
    call([&](Changes& changes) { changes.apply(operation); });
  }
  Status status() && { return std::move(status_); }

 private:
  void call(const std::function<void(Changes&)>& make) {
    if (!status_) return;
    status_ = instance_.change(label_, 512 << 10, [&](Changes& changes) -> Status {
      make(changes);
      return {};
    });
  }
  Instance& instance_;
  const std::string_view label_;
  Status status_;
};

Status of_reading(fs::Outcome<void> made) {
  if (made) return {};
  return std::unexpected(
      Error::from_errno(static_cast<int>(made.error()), "the state that is wanted cannot be read"));
}

}  // namespace

Result<Reset> Instance::reset(std::string_view branch, std::string_view position, std::string_view keep) {
  if (recorder_ == nullptr)
    return fail(Code::kReadOnly, "cannot reset: this instance follows another; reset it where that is");
  if (in_memory()) return fail(Code::kUnsupported, "a store in memory keeps no past states");
  TRY(sync());  // what is read is on the disk
  auto until = TRY(resolve_position(*store_, branch, position, options_.clock));
  State wanted = TRY(state_at(*store_, branch, until));
  Reset reset{.branch = std::string(branch)};
  reset.log_index = wanted.log_index;
  Joined joined = TRY(rewrite([&](const fs::View&) { return fs::Head(wanted.head.view()); },
                              fmt::format("reset to {}@{}", branch, wanted.log_index), keep, reset.before));
  reset.operations = joined.operations;
  return reset;
}

// Guests may go on writing; it has to be the tree as it was found, all of it.
Result<Joined> Instance::rewrite(const MakeTree& make, std::string_view label, std::string_view keep,
                                 LogIndex& before) {
  for (int i = 0; i < kTries; i++) {
    Joined joined = TRY(try_rewrite(make, label, keep, before));
    if (!joined.moved) return joined;
  }
  return fail(Code::kBusy, fmt::format("{}: expected branch {} to stand still for a moment, found it changed "
                                       "each of {} times; nothing was done",
                                       name_of(*store_), options_.branch, kTries));
}

Result<Joined> Instance::try_rewrite(const MakeTree& make, std::string_view label, std::string_view keep,
                                     LogIndex& before) {
  replay::Pinned pinned = TRY(pin());
  before = pinned.moment.log_index;
  TRY(journal_->sync(before));
  fs::Head wanted = TRY(make(pinned.view));
  TRY(load_all(pinned.view));
  TRY(load_all(wanted));
  fs::TreeChanges changes = fs::all_changes(pinned.view, wanted);
  if (!keep.empty())
    TRY(fork_branch(*store_, keep, options_.branch, pinned, options_.holder, options_.clock));
  if (changes.names.empty() && changes.inodes.empty()) return Joined{};
  auto joined = record_aside(pinned, wanted, changes, label);
  if ((!joined || joined->moved) && !keep.empty()) {
    if (auto gone = discard_branch(*store_, keep, options_.holder); !gone)
      log_warning("{}", gone.error().message());
  }
  return joined;
}

Result<Joined> Instance::record_aside(const replay::Pinned& pinned, const fs::Tree& wanted,
                                      const fs::TreeChanges& changes, std::string_view label) {
  const std::string scratch = TRY(begin_scratch(pinned));
  Result<Joined> joined;
  if (Status recorded = record_on(scratch, pinned.view, wanted, changes, label); !recorded) {
    joined = std::unexpected(recorded.error());
  } else {
    auto lock = TRY(store_->lock_branch(scratch, options_.holder));
    Joining joining(*this, TRY(find_branch(*store_, scratch)), std::string(label));
    joining.only_if_unmoved();
    joined = joining.run();
  }
  if (!joined || joined->moved) {
    // One that has begun is finished by the next opening, as every join.
    auto gone = discard_branch(*store_, scratch, options_.holder);
    if (!gone && gone.error().code() != Code::kInvalidArgument) log_warning("{}", gone.error().message());
  }
  return joined;
}

Result<std::string> Instance::begin_scratch(const replay::Pinned& pinned) {
  for (int n = 1; n <= kNamesTried; n++) {
    std::string name = fmt::format("reset-{}", n);
    auto made = fork_branch(*store_, name, options_.branch, pinned, options_.holder, options_.clock);
    if (made) return name;
    bool taken = made.error().code() == Code::kAlreadyExists || made.error().code() == Code::kBusy;
    if (!taken) return std::unexpected(made.error());
  }
  return fail(Code::kAlreadyExists,
              fmt::format("{}: expected one of the branches reset-1 to reset-{} not to be there",
                          name_of(*store_), kNamesTried));
}

Status Instance::record_on(const std::string& branch, const fs::Tree& have, const fs::Tree& wanted,
                           const fs::TreeChanges& changes, std::string_view label) {
  InstanceOptions options{.branch = branch,
                          .journal = {.threads = options_.journal.threads},
                          .holder = options_.holder,
                          .clock = options_.clock,
                          .random = options_.random};
  auto aside = TRY(Instance::open(store_, options));
  fs::Transition transition(have, wanted, changes);
  uint64_t bytes = transition.bytes();
  Status made;
  if (bytes <= kOneCallBytes && changes.names.size() + changes.inodes.size() <= kOneCallChanges) {
    TRY(aside->change(label, bytes, [&](Changes& all) -> Status {
      OntoChanges target(all);
      made = of_reading(transition.make(target));
      return {};
    }));
  } else {
    OntoInstance target(*aside, label);
    made = of_reading(transition.make(target));
    if (made) made = std::move(target).status();
  }
  TRY(std::move(made));
  return aside->close();
}

}  // namespace reprise::instance

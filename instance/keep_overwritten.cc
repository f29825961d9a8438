// What an instance has alone, and a leader's snapshot is about to take away: kept as a branch of its own,
// which can be looked at, compared and joined as any other.
#include <fmt/format.h>

#include <algorithm>

#include "base/log.h"
#include "instance/history.h"
#include "instance/instance.h"

namespace reprise::instance {
namespace {

constexpr size_t kGroupBatches = 256;
constexpr int kNamesTried = 1000;

// Not taken yet.
Result<std::string> free_name(store::Store& store, OriginId origin) {
  std::vector<std::string> taken = TRY(store.branch_names());
  for (int n = 1; n <= kNamesTried; ++n) {
    std::string name = "kept-" + origin.to_short_string() + (n == 1 ? "" : fmt::format("-{}", n));
    if (std::ranges::find(taken, name) == taken.end()) return name;
  }
  return fail(Code::kAlreadyExists,
              fmt::format("{}: too many branches of one origin are kept", store.path()));
}

}  // namespace

// With keeping_ and applying_ held, as all here: nothing is applied meanwhile.
Status Instance::keep_overwritten(const journal::Vector& leader) {
  auto name = keep_tail(leader);
  if (name) {
    log_warning(
        "{}: the leader does not have all that was written here; it is overwritten, and what it has not is "
        "kept as the branch {}: `reprise diff {} {}:{}`",
        store_->path(), *name, store_->path(), store_->path(), *name);
    return {};
  }
  // Then at least as it is now.
  replay::Pinned pinned;
  filesystem_->replay([&](fs::Head& head) {
    head.settle();
    pinned = {head.view(), {{replayer_.applied(), head.digest()}, replayer_.lamport(), journal_->last()}};
  });
  auto record = TRY(capture(pinned, "before it was overwritten", false));
  log_warning(
      "{}: the leader does not have all that was written here; it is overwritten, and what there was is "
      "kept as snapshot {} ({}@{}), as it cannot be kept as a branch: {}",
      store_->path(), record.id, store_->path(), record.log_index, name.error().message());
  return {};
}

// A fork at the last state that the leader has, too, and all batches since.
Result<std::string> Instance::keep_tail(const journal::Vector& leader) {
  const LogIndex from = TRY(journal_->position_of(leader)), last = journal_->last();
  if (from > last || from < journal_->first())
    return fail(Code::kGap, "the journal does not hold what the leader lacks");
  TRY(journal_->sync(last));
  OriginId origin;
  {
    auto cursor = journal_->read(from);
    for (LogIndex index = from; index <= last; ++index) {
      auto logged = TRY(cursor->next());
      if (!logged) return fail(Code::kGap, "the journal does not hold what the leader lacks");
      const journal::BatchHeader& header = logged->batch.header();
      if (index == from) origin = header.origin;
      if (header.lsn <= leader.get(header.origin))
        return fail(Code::kUnsupported, "what the leader has and what it lacks took turns");
    }
  }
  std::string name = TRY(free_name(*store_, origin));
  State base = TRY(state_at(*store_, options_.branch, from - 1));
  replay::Pinned pinned{base.head.view(), {base.position, base.lamport, base.log_index}};
  TRY(fork_branch(*store_, name, options_.branch, pinned, options_.holder, options_.clock));
  if (Status filled = fill_branch(name, from); !filled) {
    Status discarded = discard_branch(*store_, name, options_.holder);
    if (!discarded) log_warning("{}", discarded.error().message());
    return std::unexpected(filled.error());
  }
  return name;
}

// All batches from `from` on; then it is what this instance is.
Status Instance::fill_branch(const std::string& name, LogIndex from) {
  InstanceOptions options{.branch = name,
                          .follower = true,
                          .journal = {.threads = options_.journal.threads},
                          .holder = options_.holder,
                          .clock = options_.clock,
                          .random = options_.random};
  auto branch = TRY(Instance::open(store_, options));
  auto cursor = journal_->read(from);
  std::vector<journal::Batch> group;
  for (bool more = true; more;) {
    auto logged = TRY(cursor->next());
    more = logged.has_value();
    if (more) group.push_back(std::move(logged->batch));
    if (!more || group.size() >= kGroupBatches) {
      TRY(branch->apply(group));
      group.clear();
    }
  }
  Digest128 ours, theirs = TRY(branch->settle()).position.digest;
  filesystem_->replay([&](fs::Head& head) {
    head.settle();
    ours = head.digest();
  });
  if (ours != theirs) {
    return fail(Code::kDivergence, fmt::format("what was to be kept has the digest {}, expected {}",
                                               theirs.to_string(), ours.to_string()));
  }
  return branch->close();
}

}  // namespace reprise::instance

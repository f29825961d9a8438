#include "replay/follower_link.h"

#include <fmt/format.h>

#include "base/check.h"

namespace reprise::replay {
namespace {

// Sent back at once: little enough to keep memory bounded.
constexpr size_t kWriteBatches = 64;
constexpr size_t kWriteBytes = 256 << 10;

}  // namespace

Result<std::unique_ptr<FollowerLink>> FollowerLink::begin(Member& member, Clock& clock,
                                                          const SessionOptions& options, ResyncBudget& budget,
                                                          uint64_t tree_limit_bytes) {
  Moment moment = TRY(member.settle());
  FollowerFacts facts{.volume = member.volume(),
                      .branch = member.branch(),
                      .moment = std::move(moment),
                      .is_new = member.is_new()};
  return std::unique_ptr<FollowerLink>(
      new FollowerLink(member, clock, options, facts, budget, tree_limit_bytes));
}

FollowerLink::FollowerLink(Member& member, Clock& clock, const SessionOptions& options,
                           const FollowerFacts& facts, ResyncBudget& budget, uint64_t tree_limit_bytes)
    : member_(member),
      clock_(clock),
      tree_limit_bytes_(tree_limit_bytes),
      session_(options, facts, budget, clock.monotonic_ns() / 1'000'000) {}

void FollowerLink::receive(ByteView bytes) {
  session_.receive(bytes, now_ms());
  bool worked = false;
  while (std::optional<Step> step = session_.next_step()) perform(std::move(*step)), worked = true;
  if (worked) session_.rested(now_ms());
}

void FollowerLink::perform(Step step) {
  if (std::holds_alternative<CheckPosition>(step)) return check_position();
  if (auto* back = std::get_if<SendBack>(&step)) return begin_send_back(back->leader);
  Status done;
  if (auto* adopt = std::get_if<AdoptVolume>(&step)) {
    done = member_.adopt_volume(adopt->volume);
  } else if (auto* group = std::get_if<ApplyGroup>(&step)) {
    done = member_.apply(group->batches);
    if (done) batches_ += group->batches.size();
  } else if (std::holds_alternative<SyncMember>(step)) {
    done = member_.sync();
  } else if (std::holds_alternative<BeginTree>(step)) {
    tree_.emplace(snapshot::LoadLimits{.memory_bytes = tree_limit_bytes_});
  } else if (auto* add = std::get_if<AddToTree>(&step)) {
    CHECK(tree_);
    done = tree_->add(add->bytes);
  } else if (auto* whole = std::get_if<InstallTree>(&step)) {
    done = install(*whole);
  } else if (std::holds_alternative<BeginDifference>(step)) {
    done = begin_difference();
  } else if (auto* piece = std::get_if<AddToDifference>(&step)) {
    CHECK(difference_);
    done = difference_->add(piece->batch);
  } else {
    done = install(std::get<InstallDifference>(step));
  }
  if (done)
    session_.done(member_.vector());
  else
    session_.failed(done.error());
}

void FollowerLink::check_position() {
  Result<Moment> ours = member_.settle();
  if (ours)
    session_.checked(ours->position);
  else
    session_.failed(ours.error());
}

void FollowerLink::begin_send_back(const journal::Vector& leader) {
  session_.done(member_.vector());
  Result<LogIndex> from = member_.journal().position_of(leader);
  if (!from) return session_.end_send_back(from.error().message());
  send_back_ = member_.journal().read(*from);
  send_back_end_ = member_.journal().last();
}

void FollowerLink::go_on_sending_back() {
  size_t bytes = 0;
  for (size_t count = 0; send_back_ && count < kWriteBatches && bytes < kWriteBytes; ++count) {
    Result<std::optional<journal::Logged>> next = send_back_->next();
    bool more = next && *next && (*next)->index <= send_back_end_ && !session_.closed();
    if (!more) {
      send_back_.reset();
      return session_.end_send_back(next ? "" : next.error().message());
    }
    session_.send_back((*next)->batch);
    bytes += (*next)->batch.encoded_bytes();
  }
}

std::vector<Outgoing> FollowerLink::take_output() {
  go_on_sending_back();
  return session_.take_output();
}

Status FollowerLink::begin_difference() {
  Pinned ours = TRY(member_.pin());
  difference_.emplace(ours.view, tree_limit_bytes_);
  return {};
}

// It is an overwrite to the member: its journal goes on after the position.
Status FollowerLink::install(const InstallDifference& step) {
  CHECK(difference_);
  fs::View tree = difference_->finish();
  difference_.reset();
  if (Digest128 digest = tree.digest(); digest != step.position.digest)
    return fail(Code::kDivergence,
                fmt::format("divergence: with the leader's difference the digest is {}, expected {}",
                            digest.to_string(), step.position.digest.to_string()));
  TRY(member_.install(tree, step.position, step.lamport, step.marks));
  ++differences_;
  return {};
}

Status FollowerLink::install(const InstallTree& step) {
  CHECK(tree_);
  Result<fs::View> tree = tree_->finish(step.root);
  tree_.reset();
  if (!tree) {
    // A piece that is missing is as wrong as one that is damaged.
    Code code = tree.error().code() == Code::kNotFound ? Code::kCorrupt : tree.error().code();
    return fail(code, "the leader's snapshot: " + tree.error().message());
  }
  if (Digest128 digest = tree->digest(); digest != step.position.digest)
    return fail(Code::kCorrupt, fmt::format("the leader's snapshot has the digest {}, expected {}",
                                            digest.to_string(), step.position.digest.to_string()));
  TRY(member_.install(*tree, step.position, step.lamport, step.marks));
  ++overwrites_;
  return {};
}

}  // namespace reprise::replay

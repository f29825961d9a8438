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
                                                          UnfinishedTree& unfinished,
                                                          uint64_t tree_limit_bytes) {
  Moment moment = TRY(member.settle());
  FollowerFacts facts{.volume = member.volume(),
                      .branch = member.branch(),
                      .moment = std::move(moment),
                      .is_new = member.is_new()};
  if (unfinished.tree) facts.holds = unfinished.tree->bytes();
  const uint64_t own = member.estimated_snapshot_bytes();
  if (options.offers_tree && !facts.is_new && own >= options.offer_from_bytes)
    facts.holds = std::max(facts.holds, own);
  return std::unique_ptr<FollowerLink>(
      new FollowerLink(member, clock, options, facts, budget, unfinished, tree_limit_bytes));
}

FollowerLink::FollowerLink(Member& member, Clock& clock, const SessionOptions& options,
                           const FollowerFacts& facts, ResyncBudget& budget, UnfinishedTree& unfinished,
                           uint64_t tree_limit_bytes)
    : member_(member),
      clock_(clock),
      tree_limit_bytes_(tree_limit_bytes),
      offers_tree_(options.offers_tree && !facts.is_new),
      unfinished_(unfinished),
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
    unfinished_.tree.reset();  // no tree is needed any more
  } else if (std::holds_alternative<SyncMember>(step)) {
    done = member_.sync();
  } else if (std::holds_alternative<OfferBlobs>(step)) {
    offer_blobs();
  } else if (auto* begin = std::get_if<BeginTree>(&step)) {
    onto_offered_ = begin->onto_offered;
    if (!onto_offered_) begin_tree();
  } else if (auto* add = std::get_if<AddToTree>(&step)) {
    done = add_to_tree(add->bytes);
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

void FollowerLink::begin_tree() {
  unfinished_.tree.emplace(snapshot::LoadLimits{.memory_bytes = tree_limit_bytes_});
  unfinished_.has_own = false;
}

// What has come of a tree before, and what the member has. Where that is too much, nothing: all is sent then.
void FollowerLink::offer_blobs() {
  if (!unfinished_.tree) begin_tree();
  if (offers_tree_ && !unfinished_.has_own) {
    Result<Pinned> ours = member_.pin();
    unfinished_.has_own = ours && unfinished_.tree->add_all_of(ours->view);
    if (!unfinished_.has_own) begin_tree();
  }
  session_.offer(unfinished_.tree->has(kHeldMax));
}

Status FollowerLink::add_to_tree(ByteView piece) {
  CHECK(unfinished_.tree);
  Status added = unfinished_.tree->add(piece);
  if (added || !onto_offered_ || added.error().code() != Code::kNoSpace) return added;
  // It may be what was there before that is too much.
  unfinished_.tree.reset();
  return fail(Code::kGap, "with what was here before, " + added.error().message());
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
  CHECK(unfinished_.tree);
  Result<fs::View> tree = unfinished_.tree->finish(step.root);
  unfinished_.tree.reset();
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

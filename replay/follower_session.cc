#include <fmt/format.h>

#include <utility>

#include "base/bytes.h"
#include "base/check.h"
#include "replay/session.h"

namespace reprise::replay {
namespace {

// Such an error says that our tree and the leader's stream do not fit together, which a snapshot mends.
bool mended_by_snapshot(Code code) {
  return code == Code::kGap || code == Code::kCorrupt || code == Code::kDivergence ||
         code == Code::kUnsupported;
}

template <class T>
size_t index_of() {
  return Step(T{}).index();
}

}  // namespace

FollowerSession::FollowerSession(const SessionOptions& options, const FollowerFacts& facts,
                                 ResyncBudget& budget, uint64_t now_ms)
    : channel_(options, now_ms),
      authentication_(Role::kFollower, options.token, *options.random),
      facts_(facts),
      budget_(budget),
      applied_(facts.moment.position.vector) {
  received_ = applied_;
  if (auto first = authentication_.begin()) {
    channel_.limit_frames(kStrangerLimit);
    channel_.send(*first);
  } else {
    greet();
  }
}

void FollowerSession::greet() {
  const SessionOptions& options = channel_.options();
  channel_.send(Hello{.min_version = options.min_version,
                      .max_version = options.max_version,
                      .volume = facts_.volume,
                      .branch = facts_.branch,
                      .role = Role::kFollower,
                      .position = facts_.moment.position,
                      .lamport = facts_.moment.lamport,
                      .is_new = facts_.is_new,
                      .name = options.name,
                      .holds = facts_.holds,
                      .offers_tree = options.offers_tree});
}

// Before it has passed, nothing that the other end says is believed but that it goes.
void FollowerSession::authenticate(const Control& control) {
  auto answer = authentication_.answer(control);
  if (!answer) {
    hopeless_ = answer.error().code() == Code::kUnauthorised;
    return channel_.close_malformed(answer.error());
  }
  if (*answer) channel_.send(**answer);
  if (!authentication_.passed()) return;
  channel_.limit_frames(SIZE_MAX);
  greet();
}

void FollowerSession::receive(ByteView bytes, uint64_t now_ms) {
  CHECK(steps_.empty() && under_way_ == std::variant_npos);
  channel_.set_now(now_ms);
  while (std::optional<Incoming> message = channel_.take(bytes)) handle(std::move(*message));
}

void FollowerSession::tick(uint64_t now_ms) {
  channel_.tick(now_ms, greeted_);
  if (greeted_ && channel_.heartbeat_due()) channel_.send(Heartbeat{.vector = applied_});
}

void FollowerSession::close(Error why) {
  Bye bye{.code = why.code(), .reason = why.message()};
  channel_.close(std::move(why), Control(std::move(bye)));
}

void FollowerSession::unexpected(std::string_view what) {
  channel_.close_malformed(Error(Code::kCorrupt, fmt::format("{} came when it may not", what)));
}

void FollowerSession::handle(Incoming message) {
  if (!authentication_.passed() && !std::holds_alternative<Control>(message))
    return unexpected("a frame before the leader's proof");
  if (auto* batch = std::get_if<journal::Batch>(&message)) return handle_batch(std::move(*batch));
  if (auto* data = std::get_if<TreeData>(&message)) {
    if (discarding_) return;
    if (expect_ != Expect::kTree) return unexpected("a piece of a tree");
    tree_bytes_ += data->bytes.size();
    catch_up_bytes_ += data->bytes.size() + kFrameHeaderBytes;
    steps_.push_back(AddToTree{std::move(data->bytes)});
    return;
  }
  const Control& control = std::get<Control>(message);
  bool leaves = std::holds_alternative<Refuse>(control) || std::holds_alternative<Bye>(control);
  if (!authentication_.passed() && !leaves) return authenticate(control);
  if (auto* hello = std::get_if<Hello>(&control)) return handle_hello(*hello);
  if (auto* refuse = std::get_if<Refuse>(&control)) {
    hopeless_ = refuse->code == Code::kWrongVolume || refuse->code == Code::kUnsupported ||
                refuse->code == Code::kDetached || refuse->code == Code::kUnauthorised;
    return channel_.close(Error(refuse->code, "refused by the leader: " + refuse->reason));
  }
  if (auto* bye = std::get_if<Bye>(&control))
    return channel_.close(Error(bye->code, "the leader left: " + bye->reason));
  if (!greeted_) return unexpected("a message before the leader's greeting");
  if (auto* catch_up = std::get_if<CatchUp>(&control)) return handle_catch_up(*catch_up);
  if (auto* heartbeat = std::get_if<Heartbeat>(&control)) {
    leader_vector_ = heartbeat->vector;
    return;
  }
  if (auto* fetch = std::get_if<Fetch>(&control)) {
    if (expect_ != Expect::kCatchUp || sending_back_) return unexpected("a request to send back");
    sending_back_ = true;
    steps_.push_back(SendBack{fetch->vector});
    return;
  }
  if (std::holds_alternative<Sync>(control)) return steps_.push_back(SyncMember{});
  if (discarding_) return;
  if (auto* begin = std::get_if<SnapshotBegin>(&control)) {
    if (expect_ != Expect::kTreeBegin) return unexpected("the beginning of a snapshot");
    tree_ = *begin;
    tree_bytes_ = 0;
    expect_ = Expect::kTree;
    steps_.push_back(BeginTree{.onto_offered = decision_->tier == Tier::kMissingBlobs});
  } else if (auto* end = std::get_if<SnapshotEnd>(&control)) {
    end_tree(*end);
  } else if (std::holds_alternative<DifferenceBegin>(control) ||
             std::holds_alternative<DifferenceEnd>(control)) {
    handle_difference(control);
  } else if (auto* checkpoint = std::get_if<Checkpoint>(&control)) {
    handle_checkpoint(*checkpoint);
  } else {
    unexpected("a message that only a follower may send");
  }
}

void FollowerSession::handle_hello(const Hello& hello) {
  const SessionOptions& ours = channel_.options();
  auto refuse = [&](Code code, const std::string& reason) {
    hopeless_ = true;
    channel_.close(Error(code, reason), Control(Refuse{.code = code, .reason = reason}));
  };
  if (greeted_) return unexpected("a second greeting");
  if (hello.max_version < ours.min_version || hello.min_version > ours.max_version)
    return refuse(Code::kUnsupported,
                  fmt::format("the follower speaks versions {} to {} of the protocol, the leader {} to {}",
                              ours.min_version, ours.max_version, hello.min_version, hello.max_version));
  if (hello.role != Role::kLeader || !hello.volume) return unexpected("a greeting of no leader");
  if (facts_.volume && hello.volume != facts_.volume)
    return refuse(Code::kWrongVolume, fmt::format("the follower's volume is {}, the leader's is {}",
                                                  facts_.volume.to_string(), hello.volume.to_string()));
  greeted_ = true;
  leader_volume_ = hello.volume;
  leader_vector_ = hello.position.vector;
  expect_ = Expect::kCatchUp;
  if (!facts_.volume) steps_.push_back(AdoptVolume{hello.volume});
}

void FollowerSession::handle_catch_up(const CatchUp& catch_up) {
  if (sending_back_) return unexpected("a catch-up before everything was sent back");
  decision_ = catch_up.decision;
  target_ = catch_up.target;
  caught_up_ = false;
  discarding_ = false;
  catch_up_bytes_ = catch_up_operations_ = meanwhile_bytes_ = 0;
  tree_.reset();
  meanwhile_.clear();
  const Tier tier = catch_up.decision.tier;
  const bool tree_comes = tier == Tier::kSnapshot || tier == Tier::kMissingBlobs;
  awaiting_tree_ = tree_comes || tier == Tier::kDifference;
  expect_ = tree_comes ? Expect::kTreeBegin : Expect::kBatches;
  if (tier == Tier::kMissingBlobs) steps_.push_back(OfferBlobs{});
  leader_vector_.merge(target_);
  note_caught_up();
}

void FollowerSession::end_tree(const SnapshotEnd& end) {
  if (expect_ != Expect::kTree || end.bytes != tree_bytes_) return unexpected("the end of a snapshot");
  received_ = tree_->position.vector;
  steps_.push_back(InstallTree{.root = end.root,
                               .position = tree_->position,
                               .lamport = tree_->lamport,
                               .marks = std::move(tree_->marks)});
  expect_ = Expect::kBatches;
  for (journal::Batch& batch : std::exchange(meanwhile_, {})) handle_batch(std::move(batch));
}

// What the leader has done since it began to send a tree.
void FollowerSession::keep_for_later(journal::Batch batch) {
  if (meanwhile_bytes_ >= 2 * kMeanwhileBytes)
    return channel_.close_malformed(
        Error(Code::kCorrupt, fmt::format("more than {} of batches came before the end of a tree",
                                          format_bytes(2 * kMeanwhileBytes))));
  meanwhile_bytes_ += batch.encoded_bytes();
  meanwhile_.push_back(std::move(batch));
}

void FollowerSession::handle_difference(const Control& control) {
  if (auto* begin = std::get_if<DifferenceBegin>(&control)) {
    if (expect_ != Expect::kBatches || !awaiting_tree_) return unexpected("the beginning of a difference");
    tree_ = *begin;
    pieces_ = 0;
    expect_ = Expect::kDifference;
    return steps_.push_back(BeginDifference{});
  }
  if (expect_ != Expect::kDifference || std::get<DifferenceEnd>(control).batches != pieces_)
    return unexpected("the end of a difference");
  received_ = tree_->position.vector;
  steps_.push_back(InstallDifference{
      .position = tree_->position, .lamport = tree_->lamport, .marks = std::move(tree_->marks)});
  expect_ = Expect::kBatches;
}

void FollowerSession::handle_batch(journal::Batch batch) {
  if (discarding_) return;
  if (expect_ == Expect::kTree) return keep_for_later(std::move(batch));
  if (expect_ == Expect::kDifference) {
    ++pieces_;
    catch_up_bytes_ += batch.encoded_bytes() + kFrameHeaderBytes;
    catch_up_operations_ += batch.operation_count();
    return steps_.push_back(AddToDifference{std::move(batch)});
  }
  if (expect_ != Expect::kBatches) return unexpected("a batch");
  if (!received_.covers(target_)) {
    catch_up_bytes_ += batch.encoded_bytes() + kFrameHeaderBytes;
    catch_up_operations_ += batch.operation_count();
  }
  const journal::BatchHeader& header = batch.header();
  if (header.lsn > received_.get(header.origin)) received_.set(header.origin, header.lsn);
  if (header.lsn > leader_vector_.get(header.origin)) leader_vector_.set(header.origin, header.lsn);

  const SessionOptions& options = channel_.options();
  auto* group = steps_.empty() ? nullptr : std::get_if<ApplyGroup>(&steps_.back());
  if (group == nullptr || group->batches.size() >= options.group_batches ||
      group_bytes_ >= options.group_bytes) {
    steps_.push_back(ApplyGroup{});
    group = &std::get<ApplyGroup>(steps_.back());
    group_bytes_ = 0;
  }
  group_bytes_ += batch.encoded_bytes();
  group->batches.push_back(std::move(batch));
}

void FollowerSession::handle_checkpoint(const Checkpoint& checkpoint) {
  if (expect_ != Expect::kBatches) return unexpected("a checkpoint");
  to_check_.push_back(checkpoint.position);
  steps_.push_back(CheckPosition{});
}

std::optional<Step> FollowerSession::next_step() {
  CHECK(under_way_ == std::variant_npos);
  // What arrived whole is applied even if the session is over by now.
  if (steps_.empty()) return std::nullopt;
  std::optional<Step> step(std::move(steps_.front()));
  steps_.pop_front();
  under_way_ = step->index();
  return step;
}

void FollowerSession::done(const journal::Vector& applied) {
  size_t step = std::exchange(under_way_, std::variant_npos);
  applied_ = applied;
  bool installed = step == index_of<InstallTree>() || step == index_of<InstallDifference>();
  if (installed) awaiting_tree_ = false;
  if (installed || step == index_of<ApplyGroup>())
    channel_.send(Ack{.vector = applied_, .bytes = channel_.received_bytes()});
  if (step == index_of<SyncMember>()) channel_.send(Synced{.vector = applied_});
  note_caught_up();
}

void FollowerSession::checked(const journal::Position& ours) {
  CHECK(under_way_ == index_of<CheckPosition>() && !to_check_.empty());
  under_way_ = std::variant_npos;
  journal::Position theirs = std::move(to_check_.front());
  to_check_.pop_front();
  applied_ = ours.vector;
  leader_vector_.merge(theirs.vector);
  if (ours.vector != theirs.vector)
    return resync(
        Error(Code::kGap, fmt::format("after the same batches this tree is at {}, the leader's at {}",
                                      ours.to_token(), theirs.to_token())));
  if (ours.digest != theirs.digest)
    return resync(Error(Code::kDivergence,
                        fmt::format("divergence: at equal vectors the digest is {} here and {} at the leader",
                                    ours.digest.to_string(), theirs.digest.to_string())));
  ++checkpoints_;
}

void FollowerSession::end_send_back(std::string missing) {
  sending_back_ = false;
  channel_.send(Fetched{.missing = std::move(missing)});
}

void FollowerSession::offer(std::span<const BlobId> blobs) {
  CHECK(blobs.size() <= kHeldMax);
  Held held;
  do {
    auto some = blobs.first(std::min(blobs.size(), kHeldPerMessage));
    blobs = blobs.subspan(some.size());
    held.blobs.clear();
    for (const BlobId& blob : some) held.blobs.push_back(blob.lo);
    held.last = blobs.empty();
    channel_.send(held);
  } while (!held.last);
}

void FollowerSession::failed(const Error& error) {
  under_way_ = std::variant_npos;
  if (mended_by_snapshot(error.code())) return resync(error);
  steps_.clear();
  to_check_.clear();
  hopeless_ = true;
  channel_.close(error, Control(Bye{.code = Code::kDetached, .reason = error.message()}));
}

void FollowerSession::resync(const Error& why) {
  steps_.clear();
  to_check_.clear();
  caught_up_ = false;
  last_resync_ = why;
  if (channel_.closed()) return;
  if (!budget_.take(channel_.now_ms())) {
    hopeless_ = true;
    std::string what = fmt::format("out of step more than {} times in a minute, the last time: {}",
                                   channel_.options().resyncs_per_minute, why.message());
    return channel_.close(Error(Code::kDetached, what),
                          Control(Bye{.code = Code::kDetached, .reason = what}));
  }
  discarding_ = true;
  channel_.send(Resync{.code = why.code(), .reason = why.message()});
}

void FollowerSession::note_caught_up() {
  bool streaming = expect_ == Expect::kBatches && !awaiting_tree_ && !discarding_;
  if (streaming && applied_.covers(target_)) caught_up_ = true;
}

}  // namespace reprise::replay

// FollowerLink: a follower's end of one connection: a FollowerSession, connected to the member that it feeds.
//
// No socket and no thread inside. Not thread-safe: one thread drives it.
#pragma once

#include <memory>
#include <optional>
#include <vector>

#include "base/clock.h"
#include "replay/difference.h"
#include "replay/member.h"
#include "replay/session.h"
#include "snapshot/stream.h"

namespace reprise::replay {

// A tree of which some has come: kept from one session to the next, so that a transfer that broke off is gone
// on with.
struct UnfinishedTree {
  std::optional<snapshot::TreeReceiver> tree;
  bool has_own = false;  // what the member has is in it too
};

class FollowerLink {
 public:
  // Says where the member is; the greeting is in take_output(). member, clock, budget and `unfinished`, which
  // those that follow each other share, outlive it.
  static Result<std::unique_ptr<FollowerLink>> begin(Member& member, Clock& clock,
                                                     const SessionOptions& options, ResyncBudget& budget,
                                                     UnfinishedTree& unfinished, uint64_t tree_limit_bytes);

  // Takes bytes and does what they ask for: applies, installs, compares.
  void receive(ByteView bytes);
  void tick() { session_.tick(now_ms()); }
  void close(Error why) { session_.close(std::move(why)); }
  // Some of what there is to say; while says_more(), there is more at once.
  std::vector<Outgoing> take_output();
  bool says_more() const { return send_back_ != nullptr; }

  const FollowerSession& session() const { return session_; }
  uint64_t batches() const { return batches_; }          // given to the member
  uint64_t overwrites() const { return overwrites_; }    // snapshots installed
  uint64_t differences() const { return differences_; }  // likewise

 private:
  FollowerLink(Member& member, Clock& clock, const SessionOptions& options, const FollowerFacts& facts,
               ResyncBudget& budget, UnfinishedTree& unfinished, uint64_t tree_limit_bytes);
  uint64_t now_ms() { return clock_.monotonic_ns() / 1'000'000; }
  void perform(Step step);
  void check_position();
  void begin_send_back(const journal::Vector& leader);
  void go_on_sending_back();
  void begin_tree();
  void offer_blobs();
  Status add_to_tree(ByteView piece);
  Status begin_difference();
  Status install(const InstallTree& step);
  Status install(const InstallDifference& step);

  Member& member_;
  Clock& clock_;
  uint64_t tree_limit_bytes_;
  const bool offers_tree_;
  UnfinishedTree& unfinished_;
  FollowerSession session_;
  bool onto_offered_ = false;
  std::optional<DifferenceReceiver> difference_;
  std::unique_ptr<journal::Cursor> send_back_;  // what the leader lacks, from here
  LogIndex send_back_end_ = 0;                  // to here
  uint64_t batches_ = 0, overwrites_ = 0, differences_ = 0;
};

}  // namespace reprise::replay

// A leader whose disk lost the end of its journal takes it back from its followers (docs/replication.md).
#include <fmt/format.h>

#include <algorithm>
#include <filesystem>

#include "instance/history.h"
#include "instance/host.h"
#include "instance_fixture.h"
#include "journal/segment_reader.h"

namespace reprise::instance {
namespace {

class TakeBack : public InstanceTest {
 protected:
  HostOptions leading(uint32_t await_ms = 5000) const {
    HostOptions settings{.instance = options(), .store_path = {}, .listen = {}, .follow = {}, .label = {}};
    settings.store_path = path("leader");
    settings.listen = Endpoint{Endpoint::Kind::kUnix, path("socket")};
    settings.await_followers_ms = await_ms;
    return settings;
  }
  HostOptions following(std::string_view name = "follower") const {
    HostOptions settings{.instance = options(), .store_path = {}, .listen = {}, .follow = {}, .label = {}};
    settings.store_path = path(name);
    settings.follow = Endpoint{Endpoint::Kind::kUnix, path("socket")};
    return settings;
  }
  static std::unique_ptr<Host> open(const HostOptions& settings) {
    auto host = Host::open(settings);
    EXPECT_TRUE(host) << host.error().message();
    return host ? std::move(*host) : nullptr;
  }
  // What a process does from its start until guests are let in.
  static std::unique_ptr<Host> start(const HostOptions& settings) {
    auto host = open(settings);
    if (host == nullptr) return nullptr;
    auto taken = host->take_back_tail();
    EXPECT_TRUE(taken) << taken.error().message();
    auto connected = host->connect(10'000);
    EXPECT_TRUE(connected) << connected.error().message();
    return host;
  }
  // Each a batch of its own.
  static void write_files(Host& host, int from, int to) {
    for (int i = from; i < to; ++i) {
      write(host.instance(), fmt::format("/file-{}", i), fmt::format("text {}", i));
      ASSERT_TRUE(host.instance().settle());
    }
  }
  static bool has_file(Host& host, int i) {
    return read(host.instance(), fmt::format("/file-{}", i)) == fmt::format("text {}", i);
  }
  static void expect_in_step(Host& leader, Host& follower) {
    auto moment = leader.instance().settle();
    ASSERT_TRUE(moment);
    auto there = follower.instance().wait_for(moment->position.vector, 10'000);
    ASSERT_TRUE(there) << there.error().message();
    auto theirs = follower.instance().settle();
    ASSERT_TRUE(theirs);
    EXPECT_EQ(theirs->position.vector, moment->position.vector);
    EXPECT_EQ(theirs->position.digest, moment->position.digest);
  }
  static Json follow_of(Host& host) { return host.statistics()["follow"]; }

  // Of 20 files a leader that died has the first 8 batches, and a follower that is away has all.
  void lose_what_a_follower_has() {
    auto leader = start(leading());
    write_files(*leader, 0, 20);
    auto follower = start(following());
    expect_in_step(*leader, *follower);
    ASSERT_TRUE(follower->close());
    follower.reset();
    leader.reset();
    lose_tail(8);
  }

  // What a loss of power leaves of the leader's journal: its first `batches` batches.
  void lose_tail(size_t batches) {
    auto directory = open_host_directory(path("leader/branches/main/journal"));
    ASSERT_TRUE(directory);
    auto file = (*directory)->open("0000000001.seg", OpenMode::kRead);
    ASSERT_TRUE(file);
    auto reader = journal::SegmentReader::open(std::move(*file));
    ASSERT_TRUE(reader);
    for (size_t passed = 0; passed < batches;) {
      auto frame = (*reader)->next();
      ASSERT_TRUE(frame && *frame);
      passed += (*frame)->is_batch() ? 1 : 0;
    }
    uint64_t end = (*reader)->state().offset;
    ASSERT_LT(end, (*reader)->limit());
    std::filesystem::resize_file(path("leader/branches/main/journal/0000000001.seg"), end);
  }
  size_t writers_recorded() {
    auto store = store::Store::open(path("leader"), store::Access::kRead);
    EXPECT_TRUE(store);
    auto branch = (*store)->catalogue().branch("main");
    EXPECT_TRUE(branch && *branch);
    return (*branch)->writers.size();
  }
};

TEST_F(TakeBack, WhatTheDiskLostComesBackBeforeGuestsAreLetIn) {
  auto follower_settings = following();
  auto leader = start(leading());
  ASSERT_NE(leader, nullptr);
  write_files(*leader, 0, 60);
  auto follower = start(follower_settings);
  write_files(*leader, 60, 80);
  expect_in_step(*leader, *follower);
  leader.reset();  // a crash
  lose_tail(20);

  leader = open(leading());
  ASSERT_FALSE(has_file(*leader, 79));
  ASSERT_TRUE(leader->instance().may_take_back());
  ASSERT_TRUE(leader->take_back_tail());
  for (int i = 0; i < 80; ++i) EXPECT_TRUE(has_file(*leader, i)) << i;
  EXPECT_EQ(leader->statistics()["opened"]["taken_back_batches"].get<uint64_t>() + 20,
            leader->instance().journal().last());
  EXPECT_EQ(leader->instance().journal().durable(), leader->instance().journal().last());
  ASSERT_TRUE(leader->connect(1000));
  write_files(*leader, 80, 90);
  expect_in_step(*leader, *follower);
  EXPECT_EQ(follow_of(*follower)["overwrites"], 0);
  // On its own disk again, and a stream of its own from there.
  ASSERT_TRUE(leader->close());
  leader.reset();
  EXPECT_EQ(writers_recorded(), 0u);
  leader = open(leading());
  EXPECT_FALSE(leader->instance().may_take_back());
  for (int i : {19, 20, 79, 89}) EXPECT_TRUE(has_file(*leader, i)) << i;
  ASSERT_TRUE(follower->close());
}

TEST_F(TakeBack, AStreamOfWhichEverythingWasLostComesBackToo) {
  auto leader = start(leading());
  write_files(*leader, 0, 5);
  ASSERT_TRUE(leader->close());
  leader.reset();
  leader = start(leading());
  auto follower = start(following());
  LogIndex before = leader->instance().journal().last();
  write_files(*leader, 5, 10);
  expect_in_step(*leader, *follower);
  leader.reset();
  lose_tail(before);  // the journal ends with a clean close, or nearly

  leader = start(leading());
  for (int i = 0; i < 10; ++i) EXPECT_TRUE(has_file(*leader, i)) << i;
  expect_in_step(*leader, *follower);
  EXPECT_EQ(follow_of(*follower)["overwrites"], 0);
}

TEST_F(TakeBack, NobodyComesInTimeAndALateFollowerGivesItBackAsLongAsNothingWasWritten) {
  ASSERT_NO_FATAL_FAILURE(lose_what_a_follower_has());
  uint64_t begin_ns = system_clock().monotonic_ns();
  auto leader = start(leading(300));
  EXPECT_GE(system_clock().monotonic_ns() - begin_ns, 300'000'000u);
  EXPECT_LT(system_clock().monotonic_ns() - begin_ns, 5'000'000'000u);
  EXPECT_FALSE(has_file(*leader, 19));
  auto follower = start(following());
  for (uint64_t i = 0; i < 500 && !has_file(*leader, 19); ++i) system_clock().sleep_ns(10'000'000);
  EXPECT_TRUE(has_file(*leader, 19));
  write_files(*leader, 20, 25);
  expect_in_step(*leader, *follower);
  EXPECT_EQ(follow_of(*follower)["overwrites"], 0);
}

TEST_F(TakeBack, WhatAFollowerHasMoreThanALeaderThatWroteSinceIsKeptAsABranch) {
  ASSERT_NO_FATAL_FAILURE(lose_what_a_follower_has());
  auto leader = start(leading(1));
  write(leader->instance(), "/since", "s");
  auto follower = start(following());
  expect_in_step(*leader, *follower);
  EXPECT_FALSE(has_file(*follower, 19));
  // A tree is there before it is counted.
  for (int i = 0; i < 1000 && follow_of(*follower)["overwrites"] == 0; ++i)
    system_clock().sleep_ns(10'000'000);
  EXPECT_EQ(follow_of(*follower)["overwrites"], 1);
  std::string name;
  {
    store::Store& store = *follower->instance().store();
    auto branches = list_branches(store);
    ASSERT_TRUE(branches);
    ASSERT_EQ(branches->size(), 2u);
    const Branch& kept = branches->front();
    name = kept.name;
    EXPECT_TRUE(name.starts_with("kept-")) << name;
    ASSERT_TRUE(kept.fork);
    EXPECT_EQ(kept.fork->parent, "main");
    auto state = state_at(store, name, std::nullopt);
    ASSERT_TRUE(state) << state.error().message();
    EXPECT_TRUE(state->head.lookup(kRootInode, "file-19"));
    EXPECT_FALSE(state->head.lookup(kRootInode, "since"));
    // It begins where both were the same.
    auto common = state_at(store, name, kept.fork->log_index);
    ASSERT_TRUE(common) << common.error().message();
    EXPECT_TRUE(leader->instance().vector().covers(common->position.vector));
    EXPECT_FALSE(common->head.lookup(kRootInode, "file-19"));
  }
  ASSERT_TRUE(follower->close());
  follower.reset();
  // Where it may be written, it can be had back.
  auto writer = InstanceTest::open(open_store("follower"));
  auto joined = writer->join(name);
  ASSERT_TRUE(joined) << joined.error().message();
  EXPECT_TRUE(joined->conflicts.empty());
  EXPECT_EQ(read(*writer, "/file-19"), "text 19");
  EXPECT_EQ(read(*writer, "/since"), "s");
}

TEST_F(TakeBack, WhereTheJournalDoesNotHoldItItsTreeIsKeptAsASnapshot) {
  ASSERT_NO_FATAL_FAILURE(lose_what_a_follower_has());
  {
    auto alone = InstanceTest::open(open_store("follower"), true);
    ASSERT_TRUE(alone->snapshot(""));
    ASSERT_TRUE(alone->trim());
    ASSERT_TRUE(alone->close());
  }
  auto leader = start(leading(1));
  write(leader->instance(), "/since", "s");
  auto follower = start(following());
  expect_in_step(*leader, *follower);
  EXPECT_FALSE(has_file(*follower, 19));
  store::Store& store = *follower->instance().store();
  EXPECT_EQ(list_branches(store)->size(), 1u);
  auto records = store.catalogue().snapshots();
  ASSERT_TRUE(records);
  auto kept = std::ranges::find(*records, "before it was overwritten", &store::SnapshotRecord::label);
  ASSERT_NE(kept, records->end());
  auto state = state_at(store, "main", kept->log_index);
  ASSERT_TRUE(state) << state.error().message();
  EXPECT_TRUE(state->head.lookup(kRootInode, "file-19"));
  EXPECT_FALSE(state->head.lookup(kRootInode, "since"));
}

// A leader of before wrote under two origins; who is promoted knows of one.
TEST_F(TakeBack, APromotedFollowerTakesWhatOthersHaveMoreWhoeverWroteIt) {
  auto leader = start(leading());
  write_files(*leader, 0, 10);
  for (const char* name : {"b", "c"}) {
    auto follower = start(following(name));
    expect_in_step(*leader, *follower);
    ASSERT_TRUE(follower->close());
    if (std::string_view(name) == "c") break;
    ASSERT_TRUE(leader->close());
    leader.reset();
    leader = start(leading());
    write_files(*leader, 10, 20);
  }
  leader.reset();
  HostOptions promoted = leading();
  promoted.store_path = path("b");
  auto other = start(following("c"));
  EXPECT_FALSE(promote(*open_store("b"), "nothing", options().holder));
  EXPECT_EQ(promote(*other->instance().store(), "main", options().holder).error().code(), Code::kBusy);
  ASSERT_TRUE(promote(*open_store("b"), "main", options().holder));
  ASSERT_TRUE(promote(*open_store("b"), "main", options().holder));  // once more changes nothing
  auto now = start(promoted);
  EXPECT_TRUE(has_file(*now, 19));
  write(now->instance(), "/since", "s");
  expect_in_step(*now, *other);
  EXPECT_EQ(follow_of(*other)["overwrites"], 0);
  // From here on it takes nothing from anybody.
  EXPECT_FALSE(now->instance().may_take_back());
  ASSERT_TRUE(now->close());
  now.reset();
  EXPECT_FALSE(open(promoted)->instance().was_promoted());
}

TEST_F(TakeBack, OnlyFormerStreamsOfItsOwnAndOnlyOnTopOfWhatItHas) {
  auto leader = start(leading());
  write_files(*leader, 0, 20);
  ASSERT_TRUE(leader->instance().sync());
  OriginId own = leader->instance().vector().entries().front().first;
  leader.reset();
  lose_tail(8);
  leader = open(leading());
  journal::Vector ours = leader->instance().vector();
  ASSERT_EQ(ours.get(own), 8u);
  journal::Vector more = ours, others = ours, beside;
  more.set(own, 9);
  EXPECT_TRUE(leader->instance().would_take_back(more));
  others.set({.hi = 1, .lo = 2}, 1);
  EXPECT_FALSE(leader->instance().would_take_back(others)) << "a stream of somebody else";
  beside.set({.hi = 1, .lo = 2}, 1);
  EXPECT_FALSE(leader->instance().would_take_back(beside)) << "it lacks what is here";
  journal::BatchBuilder builder;
  builder.add(fs::Barrier{"stranger", {}});
  journal::Batch batch = builder.finish({.origin = {.hi = 1, .lo = 2}, .lsn = 1, .lamport = 9});
  auto taken = leader->instance().take_back(more, std::span(&batch, 1), true);
  EXPECT_EQ(taken.error().code(), Code::kCorrupt);
  batch = builder.finish({.origin = own, .lsn = ours.get(own) + 1, .lamport = 9});
  auto two = leader->instance().take_back(beside, std::span(&batch, 1), true);
  ASSERT_FALSE(two) << "of one who lacks what another has given back meanwhile";
  EXPECT_EQ(two.error().code(), Code::kDetached);
  EXPECT_EQ(leader->instance().vector(), ours);
  write(leader->instance(), "/since", "s");
  ASSERT_TRUE(leader->instance().settle());
  EXPECT_FALSE(leader->instance().would_take_back(more)) << "it has written";
}

TEST_F(TakeBack, ACleanCloseWithoutAWriteForgetsNothing) {
  auto leader = start(leading());
  write_files(*leader, 0, 5);
  leader.reset();
  leader = start(leading(1));
  EXPECT_TRUE(leader->instance().may_take_back());
  ASSERT_TRUE(leader->close());
  leader.reset();
  EXPECT_EQ(writers_recorded(), 1u);
  leader = start(leading(1));
  EXPECT_TRUE(leader->instance().may_take_back());
  write_files(*leader, 5, 6);
  ASSERT_TRUE(leader->close());
  leader.reset();
  EXPECT_EQ(writers_recorded(), 0u);
}

}  // namespace
}  // namespace reprise::instance

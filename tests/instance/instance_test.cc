// Instances over stores on disk and in memory: what survives closing and crashing, following, snapshots,
// history.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>

#include "instance/control.h"
#include "instance/history.h"
#include "instance/host.h"
#include "snapshot/stream.h"
#include "tests/instance/instance_fixture.h"

namespace reprise::instance {
namespace {

TEST_F(InstanceTest, AClosedStoreOpensFromItsCheckpointWithNothingToReplay) {
  Digest128 digest;
  {
    auto instance = open(create_store("s"));
    write(*instance, "/file", "kept");
    ASSERT_TRUE(instance->close());
    digest = instance->filesystem().digest();
  }
  auto instance = open(open_store("s"));
  EXPECT_NE(instance->open_report().snapshot, 0u);
  EXPECT_EQ(instance->open_report().batches_replayed, 0u);
  EXPECT_TRUE(instance->open_report().recovery.clean_close);
  EXPECT_EQ(instance->filesystem().digest(), digest);
  EXPECT_EQ(read(*instance, "/file"), "kept");
}

TEST_F(InstanceTest, LimitsOutliveCheckpointsAndOverwrites) {
  const fs::SetLimits limits{.bytes = 1 << 20, .inodes = 3};
  {
    auto instance = open(create_store("s"));
    ASSERT_TRUE(instance->filesystem().set_limits(limits));
    write(*instance, "/one", "1");
    ASSERT_TRUE(instance->close());
  }
  auto instance = open(open_store("s"));
  EXPECT_EQ(instance->open_report().batches_replayed, 0u);
  EXPECT_EQ(instance->filesystem().limits(), limits);
  write(*instance, "/two", "2");
  fs::Guest guest(instance->filesystem());
  auto third = guest.write_file("/three", "3");
  ASSERT_FALSE(third);
  EXPECT_EQ(third.error(), fs::Errno(ENOSPC));
}

TEST_F(InstanceTest, AfterACrashTheJournalBringsBackWhatWasSynced) {
  {
    auto instance = open(create_store("s"));
    for (int i = 0; i < 50; i++) write(*instance, "/file" + std::to_string(i), "text " + std::to_string(i));
    ASSERT_TRUE(instance->sync());
  }
  auto instance = open(open_store("s"));
  EXPECT_EQ(instance->open_report().snapshot, 0u);
  EXPECT_GE(instance->open_report().batches_replayed, 2u);
  for (int i = 0; i < 50; i++)
    EXPECT_EQ(read(*instance, "/file" + std::to_string(i)), "text " + std::to_string(i));
}

TEST_F(InstanceTest, EveryOpeningThatWritesIsANewOriginAndNoOther) {
  journal::Vector first;
  {
    auto instance = open(create_store("s"));
    ASSERT_TRUE(instance->close());
    first = instance->vector();
  }
  EXPECT_EQ(first.entries().size(), 1u);
  for (bool crash : {false, true, false}) {
    auto instance = open(open_store("s"));
    EXPECT_EQ(instance->vector(), first) << "an opening that has written nothing shows in the history";
    if (!crash) {
      ASSERT_TRUE(instance->close());
    }
  }
  auto instance = open(open_store("s"));
  LogIndex last = instance->journal().last();
  write(*instance, "/file", "text");
  ASSERT_TRUE(instance->sync());
  EXPECT_EQ(instance->vector().entries().size(), 2u);
  EXPECT_TRUE(instance->vector().covers(first));
  const journal::Batch start = batches(*instance, last + 1).front();
  EXPECT_EQ(start.header().kind, journal::BatchKind::kOriginStart);
  EXPECT_EQ(start.header().previous_origin, first.entries().front().first);
  EXPECT_EQ(start.header().dependencies, first.entries());
}

TEST_F(InstanceTest, WhatAnOpeningAddsToTheJournalDoesNotGrowWithTheirNumber) {
  auto store = create_store("s");
  std::vector<uint64_t> added;
  uint64_t before = 0;
  for (int i = 0; i < 40; i++) {
    auto instance = open(store);
    write(*instance, "/file", "text");
    ASSERT_TRUE(instance->sync());
    uint64_t all = *instance->journal().bytes_from(1);
    added.push_back(all - std::exchange(before, all));
    ASSERT_TRUE(instance->close());
  }
  EXPECT_EQ(added[2], added.back());
  // A follower with all of it, and one that begins at the end.
  auto leader = open(store);
  EXPECT_EQ(leader->vector().entries().size(), 40u);
  auto follower = Instance::open_new_follower("", options(true));
  ASSERT_TRUE(follower);
  ASSERT_TRUE((*follower)->adopt_volume(leader->volume()));
  auto applied = (*follower)->apply(batches(*leader));
  ASSERT_TRUE(applied) << applied.error().message();
  EXPECT_EQ((*follower)->settle()->position, leader->settle()->position);
}

TEST_F(InstanceTest, ABranchHasOneLiveInstance) {
  auto store = create_store("s");
  auto instance = open(store);
  auto second = Instance::open(store, options());
  ASSERT_FALSE(second);
  EXPECT_EQ(second.error().code(), Code::kBusy);
  EXPECT_NE(second.error().message().find("instance_test"), std::string::npos) << second.error().message();
}

TEST_F(InstanceTest, AFollowerAppliesWhatALeaderRecordedAndIsReadOnlyToItsGuests) {
  auto leader = open(create_store("leader"));
  write(*leader, "/file", "one");
  ASSERT_TRUE(leader->settle());
  auto follower = Instance::open_new_follower(path("follower"), options(true));
  ASSERT_TRUE(follower) << follower.error().message();
  ASSERT_FALSE(std::filesystem::exists(path("follower")));
  ASSERT_TRUE((*follower)->adopt_volume(leader->volume()));
  auto applied = (*follower)->apply(batches(*leader));
  ASSERT_TRUE(applied) << applied.error().message();
  EXPECT_EQ(read(**follower, "/file"), "one");
  EXPECT_EQ((*follower)->settle()->position, leader->settle()->position);

  {
    fs::Guest guest((*follower)->filesystem());
    auto refused = guest.write_file("/file", "two");
    ASSERT_FALSE(refused);
    EXPECT_EQ(static_cast<int>(refused.error()), EROFS);
  }

  // Twice is once.
  ASSERT_TRUE((*follower)->apply(batches(*leader)));
  EXPECT_EQ((*follower)->settle()->position, leader->settle()->position);
  journal::Position position = leader->settle()->position;
  ASSERT_TRUE((*follower)->close());
  follower->reset();
  auto again = open(open_store("follower"), true);
  EXPECT_EQ(again->settle()->position, position);
}

TEST_F(InstanceTest, AnOverwriteIsThereAtOnceAndAfterACrash) {
  auto leader = open(create_store("leader"));
  write(*leader, "/new", "tree");
  auto mark = leader->mark("here", "");
  ASSERT_TRUE(mark) << mark.error().message();
  auto pinned = leader->pin();
  ASSERT_TRUE(pinned);
  auto marks = leader->marks();
  ASSERT_TRUE(marks);
  {
    auto follower = Instance::open_new_follower(path("follower"), options(true));
    ASSERT_TRUE(follower);
    ASSERT_TRUE((*follower)->adopt_volume(leader->volume()));
    auto done = (*follower)->install(pinned->view, pinned->moment.position, pinned->moment.lamport, *marks);
    ASSERT_TRUE(done) << done.error().message();
    EXPECT_EQ(read(**follower, "/new"), "tree");
    EXPECT_TRUE((*follower)->wait_for_mark("here", 0));
    // What comes after the snapshot goes on from it.
    LogIndex after = leader->journal().last() + 1;
    write(*leader, "/new", "tree, grown");
    ASSERT_TRUE(leader->settle());
    ASSERT_TRUE((*follower)->apply(batches(*leader, after)));
    ASSERT_TRUE((*follower)->sync());
  }
  auto follower = open(open_store("follower"), true);
  EXPECT_EQ(read(*follower, "/new"), "tree, grown");
  EXPECT_EQ(follower->settle()->position, leader->settle()->position);
}

TEST_F(InstanceTest, ASecondSnapshotStoresOnlyWhatChanged) {
  auto instance = open(create_store("s"));
  write(*instance, "/noise", random_bytes(3'000'000));
  auto first = instance->snapshot("first");
  ASSERT_TRUE(first);
  write(*instance, "/small", "little");
  auto second = instance->snapshot("second");
  ASSERT_TRUE(second);
  EXPECT_GT(first->stored_bytes, 3'000'000u);
  EXPECT_LT(second->stored_bytes, first->stored_bytes / 50);
}

TEST_F(InstanceTest, ADamagedSnapshotIsMadeUpForByTheJournal) {
  Digest128 digest;
  {
    auto instance = open(create_store("s"));
    write(*instance, "/file", std::string(10'000, 'x'));
    ASSERT_TRUE(instance->close());
    digest = instance->filesystem().digest();
  }
  damage_a_pack(path("s"));
  auto state = state_at(*open_store("s"), "main", std::nullopt);
  ASSERT_TRUE(state) << state.error().message();
  EXPECT_EQ(state->position.digest, digest);
  auto instance = open(open_store("s"));
  EXPECT_EQ(instance->open_report().snapshot, 0u);
  EXPECT_EQ(read(*instance, "/file"), std::string(10'000, 'x'));
}

TEST_F(InstanceTest, ADamagedSnapshotThatTheJournalDoesNotReachIsRefusedNotBelieved) {
  {
    auto leader = open(create_store("leader"));
    write(*leader, "/file", std::string(10'000, 'x'));
    auto pinned = leader->pin();
    ASSERT_TRUE(pinned);
    auto follower = Instance::open_new_follower(path("s"), options(true));
    ASSERT_TRUE(follower);
    ASSERT_TRUE((*follower)->adopt_volume(leader->volume()));
    ASSERT_TRUE((*follower)->install(pinned->view, pinned->moment.position, pinned->moment.lamport, {}));
    ASSERT_TRUE((*follower)->close());
  }
  damage_a_pack(path("s"));
  auto instance = Instance::open(open_store("s"), options(true));
  ASSERT_FALSE(instance);
  EXPECT_EQ(instance.error().code(), Code::kCorrupt);
}

TEST_F(InstanceTest, WhatAnOverwriteWouldLoseIsKeptAsABranch) {
  auto leader = open(create_store("leader"));
  write(*leader, "/file", "leader's");
  ASSERT_TRUE(leader->mark("passed", ""));
  auto pinned = leader->pin();
  ASSERT_TRUE(pinned);
  {
    auto follower = Instance::open_new_follower(path("s"), options(true));
    ASSERT_TRUE(follower);
    ASSERT_TRUE((*follower)->adopt_volume(leader->volume()));
    ASSERT_TRUE((*follower)->apply(batches(*leader)));
    ASSERT_TRUE((*follower)->close());
  }
  {
    auto alone = open(open_store("s"));
    write(*alone, "/precious", "only here");
    ASSERT_TRUE(alone->close());
  }
  auto store = open_store("s");
  auto follower = open(store, true);
  auto marks = leader->marks();
  ASSERT_TRUE(marks);
  ASSERT_TRUE(follower->install(pinned->view, pinned->moment.position, pinned->moment.lamport, *marks));
  EXPECT_EQ(read(*follower, "/precious"), fs::errno_text(fs::Errno{ENOENT}));
  auto branches = list_branches(*store);
  ASSERT_TRUE(branches);
  ASSERT_EQ(branches->size(), 2u);
  auto state = state_at(*store, branches->front().name, std::nullopt);
  ASSERT_TRUE(state) << state.error().message();
  EXPECT_TRUE(state->head.lookup(kRootInode, "precious"));
  // The mark has been passed, but the state at it is not here.
  EXPECT_TRUE(follower->wait_for_mark("passed", 0));
  EXPECT_EQ(resolve_position(*store, "main", "passed", system_clock()).error().code(), Code::kNotFound);
}

TEST_F(InstanceTest, AHostAnswersOverItsControlSocket) {
  HostOptions settings{.instance = options(), .store_path = {}, .listen = {}, .follow = {}, .label = {}};
  settings.store_path = path("s");
  auto host = Host::open(settings);
  ASSERT_TRUE(host) << host.error().message();
  ASSERT_TRUE((*host)->connect(1000));
  write((*host)->instance(), "/file", "text");
  std::string socket = (*host)->instance().store()->control_socket_path("main");
  auto marked = ask(system_network(), socket, {{"ask", "mark"}, {"name", "here"}}, 5000);
  ASSERT_TRUE(marked) << marked.error().message();
  auto waited =
      ask(system_network(), socket, {{"ask", "wait-for"}, {"mark", "here"}, {"timeout_ms", 100}}, 5000);
  ASSERT_TRUE(waited) << waited.error().message();
  EXPECT_EQ((*waited)["position"], (*marked)["position"]);
  auto late =
      ask(system_network(), socket, {{"ask", "wait-for"}, {"mark", "never"}, {"timeout_ms", 50}}, 5000);
  ASSERT_FALSE(late);
  EXPECT_EQ(late.error().code(), Code::kTimeout);
  auto digest = ask(system_network(), socket, {{"ask", "digest"}}, 5000);
  ASSERT_TRUE(digest) << digest.error().message();
  EXPECT_EQ((*digest)["digest"], (*host)->instance().filesystem().digest().to_string());
  auto unknown = ask(system_network(), socket, {{"ask", "dance"}}, 5000);
  ASSERT_FALSE(unknown);
  EXPECT_EQ(unknown.error().code(), Code::kUnsupported);
  ASSERT_TRUE((*host)->close());
  EXPECT_EQ(ask(system_network(), socket, {{"ask", "stat"}}, 1000).error().code(), Code::kUnreachable);
}

TEST_F(InstanceTest, AFollowersHostAdoptsTheVolumeAndKeepsUp) {
  Endpoint endpoint{Endpoint::Kind::kUnix, path("socket")};
  HostOptions leading{.instance = options(), .store_path = {}, .listen = {}, .follow = {}, .label = {}};
  leading.store_path = path("leader");
  leading.listen = endpoint;
  auto leader = Host::open(leading);
  ASSERT_TRUE(leader) << leader.error().message();
  ASSERT_TRUE((*leader)->connect(1000));
  write((*leader)->instance(), "/file", "one");

  HostOptions following{.instance = options(), .store_path = {}, .listen = {}, .follow = {}, .label = {}};
  following.store_path = path("follower");
  following.follow = endpoint;
  auto follower = Host::open(following);
  ASSERT_TRUE(follower) << follower.error().message();
  auto connected = (*follower)->connect(10'000);
  ASSERT_TRUE(connected) << connected.error().message();
  EXPECT_EQ(read((*follower)->instance(), "/file"), "one");
  write((*leader)->instance(), "/file", "two");
  auto position = (*leader)->instance().settle();
  ASSERT_TRUE(position);
  ASSERT_TRUE((*follower)->instance().wait_for(position->position.vector, 10'000));
  EXPECT_EQ(read((*follower)->instance(), "/file"), "two");
  ASSERT_TRUE((*follower)->close());
  ASSERT_TRUE((*leader)->close());
}

// What is sent of a tree, beside what the choice of a catch-up takes it for.
TEST_F(InstanceTest, EstimatesASnapshotByWhatIsSentOfIt) {
  struct {
    const char* what;
    int files;
    size_t bytes_min, bytes_max;
  } const kTrees[] = {{"empty files", 2000, 0, 0},
                      {"small files", 2000, 1, 4096},
                      {"files of some blocks", 500, 100, 40'000},
                      {"one large file", 1, 3'000'000, 3'000'000}};
  uint64_t next = 0;  // no blob is sent twice
  auto no_two_alike = [&](size_t size) {
    std::string text;
    while (text.size() < size) text += fmt::format("{:08x}", next++);
    text.resize(size);
    return text;
  };
  for (const auto& tree : kTrees) {
    auto instance = open(store::Store::in_memory(system_random().next_id<VolumeId>()));
    for (int i = 0; i < tree.files; i++) {
      size_t step =
          tree.files > 1 ? (tree.bytes_max - tree.bytes_min) / static_cast<size_t>(tree.files - 1) : 0;
      write(*instance, fmt::format("/file{:04}", i),
            no_two_alike(tree.bytes_min + step * static_cast<size_t>(i)));
    }
    uint64_t sent = 0;
    auto pinned = instance->pin();
    ASSERT_TRUE(pinned);
    ASSERT_TRUE(snapshot::send_tree(pinned->view, snapshot::kPieceBytes, [&](ByteView piece) -> Status {
      sent += piece.size();
      return {};
    }));
    uint64_t estimated = instance->estimated_snapshot_bytes();
    EXPECT_GT(estimated, sent * 8 / 10) << tree.what << ": " << sent;
    EXPECT_LT(estimated, sent * 14 / 10) << tree.what << ": " << sent;
  }
}

}  // namespace
}  // namespace reprise::instance

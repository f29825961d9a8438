// Instances over stores on disk and in memory: what survives closing and crashing, following, snapshots,
// marks, history.
#include "instance/instance.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <thread>

#include "fs/guest.h"
#include "instance/control.h"
#include "instance/history.h"
#include "instance/host.h"
#include "instance/marks.h"

namespace reprise::instance {
namespace {

class InstanceTest : public testing::Test {
 protected:
  void SetUp() override {
    char name[] = "/tmp/reprise-instance-XXXXXX";
    ASSERT_NE(mkdtemp(name), nullptr);
    folder_ = name;
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  std::string path(std::string_view name) const { return folder_ + "/" + std::string(name); }
  static InstanceOptions options(bool follower = false) {
    InstanceOptions options;
    options.follower = follower;
    options.holder = {getpid(), "instance_test"};
    return options;
  }
  std::shared_ptr<store::Store> create_store(std::string_view name) {
    auto store = store::Store::create(path(name), system_random().next_id<VolumeId>());
    EXPECT_TRUE(store) << store.error().message();
    return std::move(*store);
  }
  std::shared_ptr<store::Store> open_store(std::string_view name) {
    auto store = store::Store::open(path(name));
    EXPECT_TRUE(store) << store.error().message();
    return std::move(*store);
  }
  static std::unique_ptr<Instance> open(std::shared_ptr<store::Store> store, bool follower = false) {
    auto instance = Instance::open(std::move(store), options(follower));
    EXPECT_TRUE(instance) << instance.error().message();
    return std::move(*instance);
  }
  static void write(Instance& instance, std::string_view path, std::string_view text) {
    fs::Guest guest(instance.filesystem());
    auto done = guest.write_file(path, text);
    ASSERT_TRUE(done) << fs::errno_text(done.error());
  }
  static std::string read(Instance& instance, std::string_view path) {
    fs::Guest guest(instance.filesystem());
    auto text = guest.read_file(path);
    return text ? std::string(as_text(as_bytes(*text))) : fs::errno_text(text.error());
  }
  // Every batch the journal has from `from` on.
  static std::vector<journal::Batch> batches(Instance& instance, LogIndex from = 1) {
    std::vector<journal::Batch> all;
    auto cursor = instance.journal().read(from);
    for (;;) {
      auto logged = cursor->next();
      EXPECT_TRUE(logged) << logged.error().message();
      if (!logged || !*logged) return all;
      all.push_back((*logged)->batch);
    }
  }

  std::string folder_;
};

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

// What an adapter does in apply_remotely, reduced to asking: has the mark been passed at its end?
class AsksForAMark : public CoherenceHook {
 public:
  AsksForAMark(Instance& instance, std::string mark) : instance_(instance), mark_(std::move(mark)) {}
  Status apply_remotely(std::span<const fs::Operation>, const std::function<Status()>& apply) override {
    Status status = apply();
    answers_.push_back(instance_.wait_for_mark(mark_, 0) ? "passed" : "not yet");
    return status;
  }
  Status replace_all(const std::function<Result<fs::View>()>& install) override {
    TRY(install());
    return {};
  }
  std::vector<std::string> answers_;

 private:
  Instance& instance_;
  std::string mark_;
};

TEST_F(InstanceTest, AMarkIsPassedWhenCachesHaveDroppedWhatIsOlder) {
  auto leader = open(create_store("a"));
  write(*leader, "/file", "old");
  write(*leader, "/file", "new");
  ASSERT_TRUE(leader->mark("here", "test"));
  auto opened = Instance::open_new_follower(path("b"), options(true));
  ASSERT_TRUE(opened) << opened.error().message();
  std::unique_ptr<Instance> follower = std::move(*opened);
  ASSERT_TRUE(follower->adopt_volume(leader->volume()));
  AsksForAMark hook(*follower, "here");
  follower->set_coherence_hook(&hook);
  auto all = batches(*leader);
  ASSERT_TRUE(follower->apply(all));
  EXPECT_EQ(hook.answers_, std::vector<std::string>{"not yet"});
  auto passed = follower->wait_for_mark("here", 0);
  ASSERT_TRUE(passed) << "once apply() is done";
  // What it had already is no mark at another place.
  ASSERT_TRUE(follower->apply(all));
  EXPECT_EQ(follower->wait_for_mark("here", 0)->log_index, passed->log_index);
  follower->set_coherence_hook(nullptr);
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

TEST_F(InstanceTest, MarksSurviveACrashInTheMiddleOfAnOverwrite) {
  auto leader = open(create_store("leader"));
  write(*leader, "/file", "text");
  ASSERT_TRUE(leader->mark("here", ""));
  auto pinned = leader->pin();
  auto marks = leader->marks();
  ASSERT_TRUE(pinned && marks);
  std::string in_the_way;
  {
    auto follower = Instance::open_new_follower(path("follower"), options(true));
    ASSERT_TRUE(follower);
    ASSERT_TRUE((*follower)->adopt_volume(leader->volume()));
    // The journal cannot begin anew.
    for (const auto& entry : std::filesystem::directory_iterator(path("follower") + "/branches/main/journal"))
      in_the_way = entry.path();
    size_t digits = in_the_way.rfind('1');
    in_the_way.replace(digits, 1, "2");
    in_the_way += ".new";
    std::filesystem::create_directory(in_the_way);
    auto done = (*follower)->install(pinned->view, pinned->moment.position, pinned->moment.lamport, *marks);
    ASSERT_FALSE(done) << "the test does not stop it where it should";
  }
  std::filesystem::remove(in_the_way);
  auto follower = open(open_store("follower"), true);
  EXPECT_EQ(read(*follower, "/file"), "text");
  EXPECT_EQ(follower->settle()->position, leader->settle()->position);
  EXPECT_TRUE(follower->wait_for_mark("here", 0));
}

TEST_F(InstanceTest, AMomentAfterAMarkKnowsTheMark) {
  auto leader = open(create_store("leader"));
  constexpr int kMarks = 50;
  std::thread marking([&] {
    for (int i = 0; i < kMarks; i++) EXPECT_TRUE(leader->mark(fmt::format("m{}", i), ""));
  });
  // What a snapshot is sent with: the tree of a moment, and then the marks.
  std::vector<std::pair<journal::Vector, size_t>> sent;
  while (sent.empty() || sent.back().second < kMarks) {
    auto pinned = leader->pin();
    auto marks = leader->marks();
    if (!pinned || !marks) break;
    sent.emplace_back(pinned->moment.position.vector, marks->size());
  }
  marking.join();
  auto marks = leader->marks();
  ASSERT_TRUE(marks);
  for (const auto& [vector, known] : sent) {
    auto later = std::find_if(marks->begin(), marks->end(), [&](const replay::Mark& mark) {
      return !vector.covers(journal::Position::parse_token(mark.token)->vector);
    });
    ASSERT_GE(known, static_cast<size_t>(later - marks->begin()));
  }
}

TEST_F(InstanceTest, AMarkIsOnTheDiskInEveryModeAndItsLossIsNoticed) {
  for (auto durability : {journal::Durability::kNone, journal::Durability::kFsync}) {
    std::string name = durability == journal::Durability::kNone ? "none" : "fsync";
    std::string segment = path(name) + "/branches/main/journal/0000000001.seg";
    InstanceOptions chosen = options();
    chosen.journal.durability = durability;
    uintmax_t before_second = 0;
    {
      auto instance = Instance::open(create_store(name), chosen);
      ASSERT_TRUE(instance) << instance.error().message();
      ASSERT_TRUE((*instance)->mark("first", ""));
      before_second = std::filesystem::file_size(segment);
      write(**instance, "/two", "2");
      ASSERT_TRUE((*instance)->mark("second", ""));
    }
    std::filesystem::resize_file(segment, before_second);
    auto again = Instance::open(open_store(name), chosen);
    ASSERT_FALSE(again) << "what a mark named was lost, and nobody noticed";
    EXPECT_EQ(again.error().code(), Code::kCorrupt);
  }
}

TEST_F(InstanceTest, MarksOfWhatWasLostAreDropped) {
  auto store = create_store("s");
  auto instance = open(store);
  LogIndex first = instance->mark("first", "")->log_index;
  ASSERT_TRUE(instance->mark("second", ""));
  EXPECT_EQ(*drop_marks_after(*store, "other", 0), std::vector<std::string>{});
  EXPECT_EQ(*drop_marks_after(*store, "main", first), std::vector<std::string>{"second"});
  EXPECT_TRUE(store->catalogue().mark("main", "first")->has_value());
  EXPECT_FALSE(store->catalogue().mark("main", "second")->has_value());
}

TEST_F(InstanceTest, MarksArePositionsThatCanBeReadAgain) {
  auto store = create_store("s");
  auto instance = open(store);
  write(*instance, "/file", "before");
  auto mark = instance->mark("release-1", "");
  ASSERT_TRUE(mark) << mark.error().message();
  write(*instance, "/file", "after");
  ASSERT_TRUE(instance->sync());

  for (std::string position : {std::string("release-1"), mark->token, std::to_string(mark->log_index)}) {
    auto until = resolve_position(*store, "main", position, system_clock());
    ASSERT_TRUE(until) << until.error().message();
    EXPECT_EQ(*until, std::optional(mark->log_index)) << position;
    auto state = state_at(*store, "main", *until);
    ASSERT_TRUE(state) << state.error().message();
    auto token = token_of(*store, "main", *state);
    ASSERT_TRUE(token);
    EXPECT_EQ(*token, mark->token);
    auto file = state->head.lookup(kRootInode, "file");
    ASSERT_TRUE(file);
    EXPECT_EQ(state->head.stat(file->inode)->size, std::string_view("before").size());
  }
  EXPECT_EQ(resolve_position(*store, "main", "release-2", system_clock()).error().code(), Code::kNotFound);
  EXPECT_EQ(resolve_position(*store, "main", "{ten}", system_clock()).error().code(), Code::kInvalidArgument);
  auto head = state_at(*store, "main", std::nullopt);
  ASSERT_TRUE(head);
  EXPECT_EQ(head->position, instance->settle()->position);
}

TEST_F(InstanceTest, TrimmingGoesNoFurtherThanTheNewestSnapshot) {
  auto store = create_store("s");
  auto instance = open(store);
  EXPECT_EQ(instance->trim().error().code(), Code::kNotFound);
  write(*instance, "/file", "one");
  auto snapshot = instance->snapshot("kept");
  ASSERT_TRUE(snapshot) << snapshot.error().message();
  write(*instance, "/file", "two");
  auto trimmed = instance->trim();
  ASSERT_TRUE(trimmed) << trimmed.error().message();
  EXPECT_LE(trimmed->first, snapshot->log_index + 1);
  ASSERT_TRUE(instance->sync());
  instance.reset();
  EXPECT_EQ(read(*open(store), "/file"), "two");
}

std::string random_bytes(size_t count) {
  std::string bytes(count, '\0');
  for (char& c : bytes) c = static_cast<char>(system_random().next());
  return bytes;
}

TEST_F(InstanceTest, TendingKeepsTheNextOpeningShort) {
  InstanceOptions tended = options();
  tended.retention.reopen_batches = 20;
  auto store = create_store("s");
  auto instance = std::move(*Instance::open(store, tended));
  auto write_and_tend = [&](int from, int to) {
    for (int i = from; i < to; ++i) {
      write(*instance, fmt::format("/{}", i), "x");
      ASSERT_TRUE(instance->sync());
    }
    auto done = instance->tend({});
    ASSERT_TRUE(done) << done.error().message();
  };
  write_and_tend(0, 10);
  EXPECT_TRUE(store->catalogue().snapshots()->empty()) << "little to replay so far";
  write_and_tend(10, 40);
  EXPECT_EQ(store->catalogue().snapshots()->size(), 1u);
  write_and_tend(40, 90);
  EXPECT_EQ(store->catalogue().snapshots()->size(), 1u) << "one checkpoint takes the place of the last";
  write_and_tend(90, 95);
  Digest128 digest = instance->filesystem().digest();
  instance.reset();  // as a crash
  store.reset();
  auto again = open(open_store("s"));
  EXPECT_LE(again->open_report().batches_replayed, 20u);
  EXPECT_GE(again->open_report().batches_replayed, 5u);
  EXPECT_EQ(again->filesystem().digest(), digest);
}

TEST_F(InstanceTest, TendingKeepsTheJournalWithinItsLimit) {
  constexpr uint64_t kLimit = 4 << 20;
  InstanceOptions tended = options();
  tended.retention.journal_bytes = kLimit;
  auto store = create_store("s");
  auto instance = std::move(*Instance::open(store, tended));
  uint64_t largest = 0;
  for (int i = 0; i < 60; ++i) {
    write(*instance, fmt::format("/{}", i % 7), random_bytes(300'000));
    ASSERT_TRUE(instance->sync());
    if (i == 10) {
      ASSERT_TRUE(instance->snapshot("early"));
    }
    auto done = instance->tend({});
    ASSERT_TRUE(done) << done.error().message();
    largest = std::max(largest, instance->journal().files()->bytes);
  }
  EXPECT_LE(largest, kLimit);
  EXPECT_GT(largest, kLimit / 2) << "no more is dropped than has to be";
  EXPECT_GT(instance->journal().first(), 20u);
  // What is left of the journal can be looked at.
  auto kept = store->catalogue().snapshots().value();
  std::erase_if(kept, [](const store::SnapshotRecord& record) { return !record.checkpoint; });
  ASSERT_GT(kept.size(), 1u);
  ASSERT_LT(kept.size(), 8u);
  EXPECT_LE(kept.front().log_index, instance->journal().first() + 5);
  for (LogIndex index = kept.front().log_index; index <= instance->journal().last(); ++index) {
    auto state = state_at(*store, "main", index);
    ASSERT_TRUE(state) << state.error().message();
    EXPECT_EQ(state->log_index, index);
  }
  Digest128 digest = instance->filesystem().digest();
  instance.reset();  // as a crash
  EXPECT_EQ(open(store)->filesystem().digest(), digest);
  auto early = state_at(*store, "main", store->catalogue().snapshots()->front().log_index);
  EXPECT_TRUE(early) << early.error().message();
}

class SetClock final : public Clock {
 public:
  Timestamp realtime() override { return {.sec = now_s, .nsec = 0}; }
  uint64_t monotonic_ns() override { return system_clock().monotonic_ns(); }
  void sleep_ns(uint64_t ns) override { system_clock().sleep_ns(ns); }
  std::atomic<int64_t> now_s = 1'000'000;
};

TEST_F(InstanceTest, OldBatchesGoUnlessAPeerNeedsThem) {
  SetClock clock;
  InstanceOptions tended{.holder = {getpid(), "instance_test"}, .clock = clock};
  tended.retention.journal_age_s = 3600;
  tended.journal.segment_bytes = 10'000;
  auto instance = std::move(*Instance::open(create_store("s"), tended));
  auto write_some = [&] {
    for (int i = 0; i < 20; ++i) {
      write(*instance, "/file", std::string(2000, static_cast<char>('a' + i)));
      ASSERT_TRUE(instance->sync());
    }
  };
  auto tend = [&](std::vector<journal::Vector> peers) {
    auto done = instance->tend(peers);
    ASSERT_TRUE(done) << done.error().message();
  };
  write_some();
  tend({});  // makes a checkpoint
  LogIndex young = instance->journal().last() + 1;
  const journal::Vector peer = instance->vector(), behind;  // which has nothing yet
  clock.now_s += 3000;
  for (int round = 0; round < 2; ++round) {
    write_some();
    tend({});
  }
  EXPECT_EQ(instance->journal().first(), 1u) << "nothing is an hour old";
  clock.now_s += 1000;
  tend({});
  EXPECT_LE(instance->journal().first(), young) << "only the first is";
  clock.now_s += 10'000;
  LogIndex first = instance->journal().first();
  tend({peer, behind});
  EXPECT_EQ(instance->journal().first(), first) << "a peer needs it all";
  tend({peer});
  EXPECT_TRUE(instance->journal().position_of(peer)) << "what it needs is there";
  tend({});
  EXPECT_GT(instance->journal().first(), young);
  EXPECT_FALSE(instance->journal().position_of(peer));
  Digest128 digest = instance->filesystem().digest();
  instance.reset();  // as a crash
  EXPECT_EQ(open(open_store("s"))->filesystem().digest(), digest);
}

TEST_F(InstanceTest, ASecondSnapshotStoresOnlyWhatChanged) {
  auto instance = open(create_store("s"));
  std::string noise(3'000'000, '\0');
  for (char& c : noise) c = static_cast<char>(system_random().next());
  write(*instance, "/noise", noise);
  auto first = instance->snapshot("first");
  ASSERT_TRUE(first);
  write(*instance, "/small", "little");
  auto second = instance->snapshot("second");
  ASSERT_TRUE(second);
  EXPECT_GT(first->stored_bytes, 3'000'000u);
  EXPECT_LT(second->stored_bytes, first->stored_bytes / 50);
}

// Changes one byte near the end of the newest pack.
void damage_pack(const std::string& folder) {
  std::string pack;
  for (auto& entry : std::filesystem::directory_iterator(folder))
    pack = std::max(pack, entry.path().string());
  auto size = std::filesystem::file_size(pack);
  std::fstream file(pack, std::ios::in | std::ios::out | std::ios::binary);
  file.seekp(static_cast<std::streamoff>(size - 10));
  file.put('\x5a');
}

TEST_F(InstanceTest, ADamagedSnapshotIsMadeUpForByTheJournal) {
  Digest128 digest;
  {
    auto instance = open(create_store("s"));
    write(*instance, "/file", std::string(10'000, 'x'));
    ASSERT_TRUE(instance->close());
    digest = instance->filesystem().digest();
  }
  damage_pack(path("s/packs"));
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
  damage_pack(path("s/packs"));
  auto instance = Instance::open(open_store("s"), options(true));
  ASSERT_FALSE(instance);
  EXPECT_EQ(instance.error().code(), Code::kCorrupt);
}

TEST_F(InstanceTest, WhatAnOverwriteWouldLoseIsKeptAsASnapshot) {
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
  auto records = store->catalogue().snapshots();
  ASSERT_TRUE(records);
  auto kept = std::find_if(records->begin(), records->end(), [](auto& record) { return !record.checkpoint; });
  ASSERT_NE(kept, records->end());
  auto state = state_at(*store, "main", kept->log_index);
  ASSERT_TRUE(state) << state.error().message();
  EXPECT_TRUE(state->head.lookup(kRootInode, "precious"));
  // The mark has been passed, but the state at it is not here.
  EXPECT_TRUE(follower->wait_for_mark("passed", 0));
  EXPECT_EQ(resolve_position(*store, "main", "passed", system_clock()).error().code(), Code::kNotFound);
}

TEST_F(InstanceTest, MarksWorkAfterVeryManySessions) {
  auto store = create_store("s");
  for (int i = 0; i < 300; i++) {
    auto instance = open(store);
    write(*instance, "/file", "text");
    ASSERT_TRUE(instance->close());
  }
  auto instance = open(store);
  auto mark = instance->mark("late", "");
  ASSERT_TRUE(mark) << mark.error().message();
  EXPECT_LT(mark->token.size(), 100u) << "a token grows with the number of openings";
  auto resolved = resolve_position(*store, "main", mark->token, system_clock());
  ASSERT_TRUE(resolved) << resolved.error().message();
  EXPECT_EQ(*resolved, std::optional(mark->log_index));
  // After it has been trimmed away it is found by the snapshot that is of that state.
  auto snapshot = instance->snapshot("");
  ASSERT_TRUE(snapshot && instance->trim());
  EXPECT_EQ(*resolve_position(*store, "main", mark->token, system_clock()),
            std::optional(snapshot->log_index));
  EXPECT_TRUE(instance->wait_for(journal::Position::parse_token(mark->token)->vector, 0));
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

}  // namespace
}  // namespace reprise::instance

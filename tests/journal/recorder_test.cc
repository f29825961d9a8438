#include "journal/recorder.h"

#include <gtest/gtest.h>

#include <atomic>
#include <cerrno>
#include <chrono>
#include <thread>
#include <utility>

#include "tests/journal/allocations.h"
#include "tests/journal/batches.h"
#include "tests/journal/fake_world.h"

namespace reprise::journal {
namespace {

using test::FakeClock;
using test::FakeDirectory;
using test::FakeDisk;
using test::FakeRandom;
using test::kIdentity;
using test::kOriginB;

const OriginId kOriginC{.hi = 0xc, .lo = 3};

class RecorderTest : public testing::Test {
 protected:
  FakeClock clock_;
  FakeRandom random_;
  std::unique_ptr<Journal> journal_ = Journal::in_memory(kIdentity, {.in_memory_bytes = UINT64_MAX});

  std::unique_ptr<Recorder> begin(const Vector& applied = {}, uint64_t lamport = 0) {
    return Recorder::create(*journal_, clock_, random_, applied, lamport, {});
  }
  // Everything appended so far.
  std::vector<Batch> batches() {
    std::vector<Batch> all;
    auto cursor = journal_->read(1);
    for (auto logged = cursor->next(); *logged; logged = cursor->next()) all.push_back((*logged)->batch);
    return all;
  }
  static void call(Recorder& recorder, std::string_view name, std::string_view label) {
    ASSERT_TRUE(recorder.reserve(100));
    recorder.record(fs::Unlink{.parent = kRootInode, .name = name, .inode = {5}, .time = {1, 1}}, label);
    ASSERT_TRUE(recorder.end_call());
  }
  // The same, alone in its batch.
  static void call_and_flush(Recorder& recorder, std::string_view name, std::string_view label) {
    call(recorder, name, label);
    ASSERT_TRUE(recorder.flush());
  }
  static BatchHeader foreign(OriginId origin, Lsn lsn, uint64_t lamport) {
    return {.origin = origin, .lsn = lsn, .lamport = lamport};
  }
};

TEST_F(RecorderTest, TheFirstBatchIntroducesTheOriginAndClaimsItsPrefix) {
  auto recorder = Recorder::create(*journal_, clock_, random_, {}, 41, kOriginB);
  uint64_t early = recorder->next().prefix();  // of a call that then failed
  EXPECT_EQ(*recorder->flush(), 0u);
  EXPECT_EQ(journal_->last(), 0u) << "an instance that has written nothing has begun an origin";
  EXPECT_TRUE(recorder->vector().empty());
  call_and_flush(*recorder, "name", "label");
  auto all = batches();
  ASSERT_EQ(all.size(), 2u);
  const BatchHeader& header = all[0].header();
  EXPECT_EQ(header.kind, BatchKind::kOriginStart);
  EXPECT_EQ(header.label, "");
  EXPECT_EQ(header.origin, recorder->origin());
  EXPECT_EQ(header.lsn, 1u);
  EXPECT_EQ(header.lamport, 42u);
  EXPECT_EQ(header.previous_origin, kOriginB);
  uint64_t prefix = 0;
  all[0].for_each([&](const fs::Operation& o) { prefix = std::get<fs::ClaimPrefix>(o).prefix; });
  EXPECT_NE(prefix, 0u);
  EXPECT_EQ(prefix, early);
  EXPECT_EQ(recorder->next().prefix(), prefix);
  EXPECT_EQ(recorder->vector().get(recorder->origin()), 2u);
}

TEST_F(RecorderTest, AnOriginNamesOfThePastOnlyTheOneItContinues) {
  Vector applied;
  for (uint64_t i = 1; i <= 1000; ++i) applied.set({.hi = 0xb00, .lo = i}, i);
  OriginId previous{.hi = 0xb00, .lo = 700};
  auto recorder = Recorder::create(*journal_, clock_, random_, applied, 0, previous);
  call_and_flush(*recorder, "name", "");
  Batch first = batches().front();
  EXPECT_EQ(first.header().previous_origin, previous);
  EXPECT_EQ(first.header().dependencies, (std::vector<Vector::Entry>{{previous, 700}}));
  EXPECT_LT(first.encoded_bytes(), 300u);
  EXPECT_EQ(recorder->vector().entries().size(), 1001u);
}

TEST_F(RecorderTest, BatchesHaveDenseLsnsAndOneLabel) {
  auto recorder = begin();
  for (int i = 0; i < 5; ++i) call(*recorder, "name", i % 2 == 0 ? "request 1" : "request 2");
  EXPECT_TRUE(recorder->end_call());  // of a call that changed nothing
  auto all = batches();
  ASSERT_EQ(all.size(), 6u);
  for (size_t i = 1; i < all.size(); ++i) {
    EXPECT_EQ(all[i].header().kind, BatchKind::kOrdinary);
    EXPECT_EQ(all[i].header().lsn, i + 1);
    EXPECT_EQ(all[i].header().lamport, i + 1);
    EXPECT_EQ(all[i].header().label, i % 2 == 1 ? "request 1" : "request 2");
    EXPECT_EQ(all[i].operation_count(), 1u);
    EXPECT_EQ(all[i].header().time, clock_.realtime());
  }
  EXPECT_EQ(recorder->vector().get(recorder->origin()), 6u);
  EXPECT_EQ(*recorder->flush(), 6u);
}

TEST_F(RecorderTest, OperationsOfOneCallStayTogether) {
  auto recorder = begin();
  recorder->record(fs::Unlink{.parent = kRootInode, .name = "a", .inode = {5}, .time = {}}, "x");
  recorder->record(fs::Unlink{.parent = kRootInode, .name = "b", .inode = {6}, .time = {}}, "x");
  EXPECT_EQ(batches().size(), 1u) << "a batch closed inside a call";
  ASSERT_TRUE(recorder->end_call());
  EXPECT_EQ(journal_->last(), 2u) << "a reader asked for it during the call";
  EXPECT_EQ(batches().back().operation_count(), 2u);
}

TEST_F(RecorderTest, ABatchHasOneLabelAndEndsAtABarrier) {
  auto recorder = begin();
  recorder->record(fs::Unlink{.parent = kRootInode, .name = "a", .inode = {5}, .time = {}}, "one");
  recorder->record(fs::Unlink{.parent = kRootInode, .name = "b", .inode = {6}, .time = {}}, "two");
  recorder->record(fs::Barrier{.name = "mark", .time = {}}, "two");
  auto all = batches();
  ASSERT_EQ(all.size(), 3u);
  EXPECT_EQ(all[1].header().label, "one");
  EXPECT_EQ(all[2].header().label, "two");
  EXPECT_EQ(all[2].operation_count(), 2u);
}

TEST_F(RecorderTest, AnOverlongLabelIsCut) {
  auto recorder = begin();
  call(*recorder, "name", std::string(300, 'l'));
  EXPECT_EQ(batches().back().header().label, std::string(255, 'l'));
}

TEST_F(RecorderTest, DependenciesAreTheChangeSinceTheBatchBefore) {
  Vector applied;
  applied.set(kOriginB, 10);
  auto recorder = begin(applied, 100);
  call_and_flush(*recorder, "a", "");
  recorder->observe(foreign(kOriginB, 11, 500));
  recorder->observe(foreign(kOriginB, 12, 400));
  recorder->observe(foreign(kOriginC, 1, 7));
  call_and_flush(*recorder, "b", "");
  call_and_flush(*recorder, "c", "");
  auto all = batches();
  using Entries = std::vector<Vector::Entry>;
  EXPECT_EQ(all[0].header().dependencies, (Entries{{kOriginB, 10}}));
  EXPECT_EQ(all[1].header().dependencies, (Entries{}));
  EXPECT_EQ(all[2].header().dependencies, (Entries{{kOriginB, 12}, {kOriginC, 1}}));
  EXPECT_EQ(all[3].header().dependencies, (Entries{}));
  EXPECT_EQ(all[1].header().lamport, 102u);
  EXPECT_EQ(all[2].header().lamport, 501u);
  EXPECT_EQ(recorder->lamport(), 502u);
  EXPECT_EQ(recorder->vector().get(kOriginB), 12u);
  EXPECT_EQ(recorder->vector().get(kOriginC), 1u);
  EXPECT_EQ(recorder->vector().get(recorder->origin()), 4u);
}

TEST_F(RecorderTest, IdsAreNeverRepeatedAndAFurtherPrefixIsClaimedBeforeItsIds) {
  auto recorder = begin();
  uint64_t first = recorder->next().prefix();
  call_and_flush(*recorder, "name", "");
  InodeId last;
  for (uint64_t i = 1; i < uint64_t{1} << InodeId::kCounterBits; ++i) {
    InodeId id = recorder->next();
    ASSERT_LT(last.value, id.value);
    ASSERT_EQ(id.prefix(), first);
    last = id;
  }
  InodeId beyond = recorder->next();
  EXPECT_NE(beyond.prefix(), first);
  EXPECT_NE(beyond.prefix(), 0u);
  recorder->record(
      fs::Create{.parent = kRootInode, .name = "n", .inode = beyond, .mode = S_IFREG, .time = {}},
      "labelled");
  ASSERT_TRUE(recorder->end_call());
  Batch batch = batches().back();
  EXPECT_EQ(batch.header().label, "labelled");
  std::vector<std::string> names;
  batch.for_each([&](const fs::Operation& o) { names.emplace_back(fs::operation_name(o)); });
  ASSERT_EQ(names.size(), 2u);
  batch.for_each([&, first_one = true](const fs::Operation& o) mutable {
    if (first_one) {
      EXPECT_EQ(std::get<fs::ClaimPrefix>(o).prefix, beyond.prefix());
    }
    first_one = false;
  });
}

TEST_F(RecorderTest, AWriteThatNoBatchCanHoldIsCutIntoSeveral) {
  auto recorder = begin();
  Bytes data(kBatchBodyLimit + 5000);
  for (size_t i = 0; i < data.size(); i += 997) data[i] = static_cast<std::byte>(i / 997);
  recorder->record(fs::Write{.inode = {9}, .offset = 10, .data = data, .time = {}}, "big");
  ASSERT_TRUE(recorder->end_call());
  auto all = batches();
  ASSERT_EQ(all.size(), 3u);
  Bytes together(10);
  for (size_t i = 1; i < all.size(); ++i) {
    EXPECT_EQ(all[i].header().label, "big");
    all[i].for_each([&](const fs::Operation& o) {
      EXPECT_EQ(std::get<fs::Write>(o).offset, together.size());
      append_bytes(together, std::get<fs::Write>(o).data);
    });
  }
  EXPECT_TRUE(std::equal(together.begin() + 10, together.end(), data.begin(), data.end()));
}

// Against a journal that waits for the disk at every call.
class FailingDisk : public RecorderTest {
 protected:
  std::shared_ptr<FakeDisk> disk_ = FakeDisk::create();

  void SetUp() override {
    journal_ = *Journal::open(std::make_unique<FakeDirectory>(disk_), kIdentity,
                              {.durability = Durability::kAlways}, random_, 0, nullptr);
  }
  void fail_with(int sys_errno) {
    std::lock_guard lock(disk_->mutex);
    disk_->failing_errno = sys_errno;
    disk_->calls_until_failure = 0;
  }
  void recover() {
    std::lock_guard lock(disk_->mutex);
    disk_->calls_until_failure = -1;
  }
  static void expect_errno(const fs::Outcome<void>& outcome, int sys_errno) {
    ASSERT_FALSE(outcome);
    EXPECT_EQ(static_cast<int>(outcome.error()), sys_errno);
  }
};

TEST_F(FailingDisk, OnceItHasFailedCallsAreRefusedForGood) {
  auto recorder = begin();
  call(*recorder, "good", "");
  ASSERT_TRUE(recorder->commit());
  EXPECT_EQ(journal_->durable(), 2u);
  fail_with(EIO);
  call(*recorder, "lost", "");
  expect_errno(recorder->commit(), EIO);  // else the guest were told that the disk has it
  recover();
  expect_errno(recorder->reserve(1), EROFS);
  recorder->record(fs::Unlink{.parent = kRootInode, .name = "late", .inode = {5}, .time = {}}, "");
  expect_errno(recorder->end_call(), EIO);
  EXPECT_FALSE(recorder->flush());
  expect_errno(recorder->reserve(1), EROFS);
  EXPECT_FALSE(journal_->close());
}

TEST_F(FailingDisk, OnceItIsFullCallsAreRefusedUntilThereIsSpace) {
  auto recorder = begin();
  call(*recorder, "good", "");
  ASSERT_TRUE(recorder->commit());
  fail_with(ENOSPC);
  call(*recorder, "waits", "");
  expect_errno(recorder->commit(), ENOSPC);
  expect_errno(recorder->reserve(1), ENOSPC);
  EXPECT_EQ(journal_->failure()->code(), Code::kNoSpace);
  // A call that was let through before is in the journal, for peers, and waits for space like the other.
  recorder->record(fs::Unlink{.parent = kRootInode, .name = "late", .inode = {5}, .time = {}}, "");
  ASSERT_TRUE(recorder->end_call());
  EXPECT_EQ(batches().size(), 4u);
  recover();
  for (int i = 0; i < 5000 && !recorder->reserve(1); ++i)
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  EXPECT_FALSE(journal_->failure());
  call(*recorder, "again", "");
  ASSERT_TRUE(recorder->commit());
  EXPECT_EQ(journal_->durable(), 5u);
  EXPECT_TRUE(journal_->close());
}

// --- when a batch closes

TEST_F(RecorderTest, CallsAreGatheredUntilAReaderHasComeToTheEnd) {
  auto recorder = begin();
  call_and_flush(*recorder, "first", "");
  for (int i = 0; i < 10; ++i) call(*recorder, "name", "");
  EXPECT_EQ(journal_->last(), 2u);
  auto cursor = journal_->read(3);
  auto logged = cursor->next();
  ASSERT_TRUE(logged && *logged);
  EXPECT_EQ((*logged)->batch.operation_count(), 10u);
  EXPECT_FALSE(*cursor->next());
}

TEST_F(RecorderTest, WhileAReaderWaitsACallIsABatch) {
  auto recorder = begin();
  call_and_flush(*recorder, "first", "");
  for (int round = 0; round < 20; ++round) {
    auto cursor = journal_->read(journal_->last() + 1);
    std::thread reader([&] { EXPECT_TRUE(cursor->wait(60'000)); });
    while (!journal_->reader_waits()) std::this_thread::yield();
    LogIndex before = journal_->last();
    call(*recorder, "name", "");
    EXPECT_EQ(journal_->last(), before + 1);
    reader.join();
  }
}

TEST_F(RecorderTest, WithoutAThreadToAskForItABatchClosesAtTheSoftLimit) {
  auto recorder = begin();
  for (int i = 0; i < 5000; ++i) call(*recorder, "a name of some length", "");
  auto all = batches();
  ASSERT_GT(all.size(), 5u);
  for (size_t i = 1; i + 1 < all.size(); ++i) {
    EXPECT_GT(all[i].encoded_bytes(), kBatchSoftLimit / 3);
    EXPECT_LT(all[i].encoded_bytes(), kBatchSoftLimit * 2);
  }
}

TEST_F(RecorderTest, TheJournalsThreadAsksForWhatIsGathered) {
  auto disk = FakeDisk::create();
  auto journal = *Journal::open(std::make_unique<FakeDirectory>(disk), kIdentity, {}, random_, 0, nullptr);
  auto recorder = Recorder::create(*journal, clock_, random_, {}, 0, {});
  call(*recorder, "name", "");
  for (int i = 0; i < 5000 && journal->last() < 2; ++i)
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  EXPECT_EQ(journal->last(), 2u);
  EXPECT_EQ(recorder->vector().get(recorder->origin()), 2u);
  recorder.reset();
  EXPECT_TRUE(journal->close());
}

TEST_F(RecorderTest, AFlushWaitsForTheEndOfTheCallAndThenHasIt) {
  auto recorder = begin();
  std::atomic<bool> flushed{false};
  recorder->record(fs::Unlink{.parent = kRootInode, .name = "a", .inode = {5}, .time = {}}, "x");
  std::thread flusher([&] {
    EXPECT_EQ(*recorder->flush(), 2u);
    flushed = true;
  });
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  EXPECT_FALSE(flushed);
  recorder->record(fs::Unlink{.parent = kRootInode, .name = "b", .inode = {6}, .time = {}}, "x");
  ASSERT_TRUE(recorder->end_call());
  flusher.join();
  EXPECT_EQ(batches().back().operation_count(), 2u);
}

TEST_F(RecorderTest, AWaitingGuestDoesNotHoldTheRecorderBack) {
  // The first write fills the backlog; the disk stands still. reserve() waits, all else goes on.
  auto disk = FakeDisk::create();
  auto journal =
      *Journal::open(std::make_unique<FakeDirectory>(disk), kIdentity,
                     {.durability = Durability::kNone, .backlog_bytes = 10'000}, random_, 0, nullptr);
  auto recorder = Recorder::create(*journal, clock_, random_, {}, 0, {});
  disk->stands_still = true;
  Bytes data(20'000);
  recorder->record(fs::Write{.inode = {9}, .data = data, .time = {}}, "");
  EXPECT_TRUE(recorder->end_call());
  EXPECT_TRUE(recorder->flush());
  std::atomic<bool> let_in{false};
  std::thread guest([&] {
    EXPECT_TRUE(recorder->reserve(100));
    let_in = true;
  });
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  EXPECT_FALSE(let_in) << "the backlog is not bounded";
  recorder->record(fs::Unlink{.parent = kRootInode, .name = "a", .inode = {5}, .time = {}}, "");
  EXPECT_TRUE(recorder->end_call());
  EXPECT_EQ(*recorder->flush(), 3u);
  disk->stands_still = false;
  disk->stands_still.notify_all();
  guest.join();
  recorder.reset();
  EXPECT_TRUE(journal->close());
}

// Whoever asks, and whenever: each call is in the journal once, whole, and in its place.
TEST_F(RecorderTest, NothingIsLostOrReorderedWhileManyAsk) {
  constexpr int kCalls = 20'000;
  auto journal = *Journal::open(std::make_unique<FakeDirectory>(FakeDisk::create()), kIdentity,
                                {.backlog_bytes = 1 << 20}, random_, 0, nullptr);
  auto recorder = Recorder::create(*journal, clock_, random_, {}, 0, {});
  std::atomic<bool> done{false};
  std::vector<std::thread> askers;
  askers.emplace_back([&] {
    while (!done) EXPECT_TRUE(recorder->flush());
  });
  askers.emplace_back([&] {
    auto cursor = journal->read(1);
    while (!done) {
      auto logged = cursor->next();
      ASSERT_TRUE(logged);
      if (!*logged) cursor->wait(1);
    }
  });
  const Bytes data(3000);
  const char* const labels[] = {"one", "two"};
  for (int i = 0; i < kCalls; ++i) {
    ASSERT_TRUE(recorder->reserve(data.size()));
    std::string_view label = labels[i / 1000 % 2];
    recorder->record(fs::Truncate{.inode = {9}, .size = static_cast<uint64_t>(i), .time = {}}, label);
    if (i % 4 == 0)
      recorder->record(fs::Write{.inode = {9}, .offset = static_cast<uint64_t>(i), .data = data, .time = {}},
                       label);
    ASSERT_TRUE(recorder->end_call());
  }
  LogIndex last = *recorder->flush();
  done = true;
  for (std::thread& asker : askers) asker.join();
  EXPECT_EQ(recorder->vector().get(recorder->origin()), last);

  auto cursor = journal->read(2);  // behind the origin's start
  uint64_t next = 0;
  bool write_follows = false;
  for (LogIndex index = 2; index <= last; ++index) {
    auto logged = cursor->next();
    ASSERT_TRUE(logged && *logged);
    const Batch& batch = (*logged)->batch;
    EXPECT_EQ(batch.header().lsn, index);
    EXPECT_EQ(batch.header().label, labels[next / 1000 % 2]);
    batch.for_each([&](const fs::Operation& operation) {
      if (const auto* write = std::get_if<fs::Write>(&operation)) {
        EXPECT_TRUE(std::exchange(write_follows, false));
        EXPECT_EQ(write->offset, next - 1);
        EXPECT_EQ(write->data.size(), data.size());
        return;
      }
      EXPECT_EQ(std::get<fs::Truncate>(operation).size, next);
      write_follows = next % 4 == 0;
      ++next;
    });
    EXPECT_FALSE(write_follows) << "a call was cut";
  }
  EXPECT_EQ(next, static_cast<uint64_t>(kCalls));
  recorder.reset();
  EXPECT_TRUE(journal->close());
}

TEST_F(RecorderTest, WhatIsGatheredIsBoundedThoughTheJournalIsBusy) {
  auto disk = FakeDisk::create();
  auto journal = *Journal::open(std::make_unique<FakeDirectory>(disk), kIdentity, {}, random_, 0, nullptr);
  auto recorder = Recorder::create(*journal, clock_, random_, {}, 0, {});
  disk->stands_still = true;
  const Bytes data(100'000);
  size_t recorded = 0;
  for (int i = 0; i < 200; ++i) {
    recorder->record(fs::Write{.inode = {9}, .data = data, .time = {}}, "");
    ASSERT_TRUE(recorder->end_call());
    recorded += data.size();
    EXPECT_GE(*journal->bytes_from(1) + kGatherLimit + data.size(), recorded);
  }
  disk->stands_still = false;
  disk->stands_still.notify_all();
  recorder.reset();
  EXPECT_TRUE(journal->close());
}

// Names and file bytes go into memory that batches before have given back; encoding, hashing and writing,
// which may allocate, are other threads' work.
TEST_F(RecorderTest, RecordingAllocatesNothingOnceItIsUnderWay) {
  auto journal = *Journal::open(std::make_unique<FakeDirectory>(FakeDisk::create()), kIdentity,
                                {.segment_bytes = 4 << 20}, random_, 0, nullptr);
  auto recorder = Recorder::create(*journal, clock_, random_, {}, 0, {});
  const Bytes block(4096);
  const std::string name(200, 'n');
  size_t allocated = 0;
  constexpr int kBursts = 60, kUnderWay = 20, kCalls = 40;  // about three batches a burst
  for (int burst = 0; burst < kBursts; ++burst) {
    size_t before = test::allocations().count;
    for (int i = 0; i < kCalls; ++i) {
      ASSERT_TRUE(recorder->reserve(5000));
      recorder->record(fs::Unlink{.parent = kRootInode, .name = name, .inode = {5}, .time = {}}, "a guest");
      recorder->record(fs::Write{.inode = {9}, .data = block, .time = {}}, "a guest");
      ASSERT_TRUE(recorder->end_call());
    }
    if (burst >= kUnderWay) allocated += test::allocations().count - before;
    std::thread([&] {  // the journal's thread comes by itself, but when is its business
      auto index = recorder->flush();
      EXPECT_TRUE(journal->sync(*index));
    })
        .join();
  }
  EXPECT_EQ(allocated, 0u) << "in " << (kBursts - kUnderWay) * kCalls << " calls";
  recorder.reset();
  EXPECT_TRUE(journal->close());
}

TEST_F(RecorderTest, ObservingAndAskingGoOnBesideRecording) {
  auto recorder = begin();
  std::thread replayer([&] {
    for (Lsn lsn = 1; lsn <= 2000; ++lsn) recorder->observe(foreign(kOriginB, lsn, lsn * 2));
  });
  std::thread asker([&] {
    Lsn before = 0;
    for (int i = 0; i < 2000; ++i) {
      Lsn now = recorder->vector().get(kOriginB);
      EXPECT_GE(now, before);
      before = now;
    }
  });
  for (int i = 0; i < 2000; ++i) call_and_flush(*recorder, "name", "");
  replayer.join();
  asker.join();
  auto all = batches();
  ASSERT_EQ(all.size(), 2001u);
  uint64_t lamport = 0;
  for (const Batch& batch : all) {
    EXPECT_GT(batch.header().lamport, lamport);
    lamport = batch.header().lamport;
    for (const auto& [origin, lsn] : batch.header().dependencies) EXPECT_GT(lamport, lsn * 2);
  }
}

}  // namespace
}  // namespace reprise::journal

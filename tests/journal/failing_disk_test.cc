// Disks that refuse writes and syncs, and disks that run full: what is said, what is kept, what goes on.
#include <gtest/gtest.h>

#include <cerrno>
#include <thread>

#include "journal/journal.h"
#include "tests/journal/batches.h"
#include "tests/journal/crash_disk.h"
#include "tests/journal/fake_world.h"

namespace reprise::journal {
namespace {

using test::CrashDirectory;
using test::CrashDisk;
using test::FakeRandom;
using test::kIdentity;
using test::kOriginA;
using test::make_batch;

FakeRandom fake_random;

constexpr Lsn kBatches = 24;

Result<std::unique_ptr<Journal>> open_on(const std::shared_ptr<CrashDisk>& disk, LogIndex durable_hint,
                                         Recovery* recovery = nullptr) {
  return Journal::open(std::make_unique<CrashDirectory>(disk), kIdentity,
                       {.segment_bytes = 1500, .recent_bytes = 0, .compress = false}, fake_random,
                       durable_hint, recovery);
}

// Appends up to batch `to` and syncs every third, until something is refused.
struct Work {
  LogIndex acknowledged = 0;
  Status status;

  Work(Journal& journal, Lsn to) {
    for (Lsn lsn = journal.last() + 1; lsn <= to && status; ++lsn) status = step(journal, lsn);
  }
  Status step(Journal& journal, Lsn lsn) {
    TRY(journal.reserve(1000));
    TRY(journal.append(make_batch(kOriginA, lsn, lsn * 29 % 400)));
    if (lsn % 3 != 0) return {};
    TRY(journal.sync(lsn));
    acknowledged = lsn;
    return {};
  }
};

// Batches `first` to `last` and no more, as they were made.
void expect_batches(Journal& journal, LogIndex last, LogIndex first = 1) {
  ASSERT_EQ(journal.last(), last);
  auto cursor = journal.read(first);
  for (LogIndex index = first; index <= last; ++index) {
    auto logged = cursor->next();
    ASSERT_TRUE(logged) << logged.error().message();
    ASSERT_TRUE(*logged);
    EXPECT_EQ((*logged)->batch.checksum(), make_batch(kOriginA, index, index * 29 % 400).checksum());
  }
}

// Opened again, on the same kernel and after a power failure.
void expect_reopens(const std::shared_ptr<CrashDisk>& disk, LogIndex acknowledged, LogIndex first = 1) {
  Recovery recovery;
  auto reopened = open_on(disk, acknowledged, &recovery);
  ASSERT_TRUE(reopened) << reopened.error().message();
  EXPECT_GE(recovery.last, acknowledged);
  expect_batches(**reopened, recovery.last, first);
}

// The journal said `failure` and keeps to it, whatever the disk does now.
void expect_read_only(Journal& journal, CrashDisk& disk, const Error& failure) {
  auto expect_refused = [&](const Status& status) {
    ASSERT_FALSE(status);
    EXPECT_EQ(status.error().message(), failure.message());
  };
  size_t events = disk.trace().size();
  expect_refused(journal.reserve(1));
  expect_refused(journal.sync(journal.last()));
  EXPECT_FALSE(journal.append(make_batch(kOriginA, journal.last() + 1)));
  EXPECT_FALSE(journal.trim(journal.last() + 1));
  EXPECT_FALSE(journal.restart_at(journal.last() + 10, {}));
  EXPECT_FALSE(journal.close());
  EXPECT_EQ(disk.trace().size(), events) << "something was written after the failure";
}

struct Fault {
  const char* name;
  void (CrashDisk::*fail)(size_t n, int sys_errno);
  int sys_errno;
  size_t least;  // so often something can fail
};

class LastingFault : public testing::TestWithParam<Fault> {};

INSTANTIATE_TEST_SUITE_P(Faults, LastingFault,
                         testing::Values(Fault{"EioOnWrite", &CrashDisk::fail_write, EIO, 15},
                                         Fault{"EioOnSync", &CrashDisk::fail_sync, EIO, 15},
                                         Fault{"NoSpaceOnSync", &CrashDisk::fail_sync, ENOSPC, 15},
                                         Fault{"EioOnDirectorySync", &CrashDisk::fail_directory_sync, EIO, 5},
                                         Fault{"NoSpaceOnDirectorySync", &CrashDisk::fail_directory_sync,
                                               ENOSPC, 5}),
                         [](const auto& parameter) { return parameter.param.name; });

TEST_P(LastingFault, TurnsTheJournalReadOnlyAndLosesNothingAcknowledged) {
  size_t failures = 0;
  for (bool failed = true; failed; ++failures) {
    auto disk = std::make_shared<CrashDisk>();
    (disk.get()->*GetParam().fail)(failures, GetParam().sys_errno);
    LogIndex acknowledged = 0;
    {
      auto journal = open_on(disk, 0);
      if (!journal) {
        EXPECT_EQ(journal.error().code(), Code::kIo) << failures;
        EXPECT_EQ(journal.error().sys_errno(), GetParam().sys_errno);
        continue;
      }
      Work work(**journal, kBatches);
      acknowledged = work.acknowledged;
      if (auto failure = (*journal)->failure()) {
        EXPECT_EQ(failure->code(), Code::kIo) << failures;
        EXPECT_EQ(failure->sys_errno(), GetParam().sys_errno) << failures;
        EXPECT_NE(failure->message().find("disk"), std::string::npos) << failure->message();
        expect_read_only(**journal, *disk, *failure);
      } else {
        // Then it is the close that fails, or nothing.
        failed = !(*journal)->close();
        EXPECT_EQ(failed, disk->fault_happened());
      }
    }
    disk->heal();
    expect_reopens(disk, acknowledged);
  }
  EXPECT_GT(failures, GetParam().least);
}

// With room for anything up to what is needed.
TEST(FullDisk, TakesNothingMoreUntilThereIsSpaceAndThenGoesOn) {
  int times_full = 0;
  for (uint64_t space = 0;; space += 211) {
    auto disk = std::make_shared<CrashDisk>();
    disk->set_space(space);
    auto opened = open_on(disk, 0);
    if (!opened) {
      EXPECT_EQ(opened.error().code(), Code::kNoSpace);
      disk->heal();
      EXPECT_TRUE(open_on(disk, 0)) << "what was left of the first try is in the way";
      continue;
    }
    Journal& journal = **opened;
    Work work(journal, kBatches);
    if (work.status) break;
    ++times_full;
    ASSERT_EQ(work.status.error().code(), Code::kNoSpace) << work.status.error().message();
    ASSERT_EQ(journal.failure()->code(), Code::kNoSpace);
    EXPECT_EQ(journal.reserve(1).error().code(), Code::kNoSpace);
    EXPECT_EQ(journal.sync(journal.last()).error().code(), Code::kNoSpace);
    EXPECT_TRUE(journal.sync(work.acknowledged));
    // A call that was let through before it was full is not lost to peers.
    LogIndex last = journal.last() + 1;
    ASSERT_TRUE(journal.append(make_batch(kOriginA, last, last * 29 % 400)));
    expect_batches(journal, last);
    expect_reopens(std::make_shared<CrashDisk>(disk->files()), work.acknowledged);

    disk->heal();
    for (int i = 0; i < 5000 && journal.failure(); ++i)
      std::this_thread::sleep_for(std::chrono::milliseconds(2));
    ASSERT_FALSE(journal.failure()) << journal.failure()->message();
    ASSERT_TRUE(journal.sync(last));
    Work rest(journal, kBatches + 3);
    ASSERT_TRUE(rest.status) << rest.status.error().message();
    ASSERT_TRUE(journal.close());
    Recovery recovery;
    auto reopened = open_on(disk, journal.last(), &recovery);
    ASSERT_TRUE(reopened) << reopened.error().message();
    EXPECT_TRUE(recovery.clean_close);
    expect_batches(**reopened, kBatches + 3);
  }
  EXPECT_GT(times_full, 20);
}

TEST(FullDisk, TrimmingMakesSpace) {
  auto disk = std::make_shared<CrashDisk>();
  auto journal = *open_on(disk, 0);
  ASSERT_TRUE(Work(*journal, 12).status);
  disk->set_space(200);
  Work work(*journal, kBatches);
  ASSERT_FALSE(work.status);
  EXPECT_EQ(journal->failure()->code(), Code::kNoSpace);
  auto first = journal->trim(journal->last() + 1);  // all but what is not on the disk
  ASSERT_TRUE(first) << first.error().message();
  EXPECT_GT(*first, 6u);
  for (int i = 0; i < 5000 && journal->failure(); ++i)
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  ASSERT_FALSE(journal->failure()) << journal->failure()->message();
  EXPECT_TRUE(journal->sync(journal->last()));
  EXPECT_TRUE(journal->close());
}

// What could not be removed is removed before anything younger: no segment is ever missing between two
// others.
TEST(Trim, GoesOnWhereARemovalFailed) {
  for (size_t nth = 0; nth < 4; ++nth) {
    auto disk = std::make_shared<CrashDisk>();
    auto journal = *open_on(disk, 0);
    ASSERT_TRUE(Work(*journal, kBatches).status);
    disk->fail_unlink(nth, EIO);
    Result<LogIndex> trimmed = journal->trim(12);
    ASSERT_EQ(trimmed.has_value(), !disk->fault_happened()) << nth;
    EXPECT_FALSE(journal->failure()) << "nothing is lost by it";
    expect_reopens(std::make_shared<CrashDisk>(disk->files()), kBatches, journal->first());
    ASSERT_TRUE(journal->trim(20)) << nth;
    size_t files = journal->files()->segments.size();
    ASSERT_TRUE(journal->close());
    EXPECT_EQ(disk->files().size(), files) << nth << ": some were forgotten";
    expect_reopens(disk, kBatches, journal->first());
  }
}

// Which removals a crash will undo is not known then: nothing more is removed.
TEST(Trim, EndsForGoodWhereASyncFailed) {
  auto disk = std::make_shared<CrashDisk>();
  auto journal = *open_on(disk, 0);
  ASSERT_TRUE(Work(*journal, kBatches).status);
  disk->fail_directory_sync(1, ENOSPC);
  EXPECT_FALSE(journal->trim(20));
  ASSERT_TRUE(journal->failure());
  expect_read_only(*journal, *disk, *journal->failure());
  EXPECT_EQ(journal->failure()->code(), Code::kIo);
  EXPECT_EQ(journal->failure()->sys_errno(), ENOSPC);
}

// What a clean close says is true of a disk that has lost everything that was not synced.
TEST(Close, IsOnTheDiskWhenItReturns) {
  auto disk = std::make_shared<CrashDisk>();
  auto journal = *open_on(disk, 0);
  ASSERT_TRUE(Work(*journal, kBatches).status);
  ASSERT_TRUE(journal->close());
  test::Platters platters({});
  for (const test::DiskEvent& event : disk->trace()) platters.advance(event);
  auto left = platters.survivors([](size_t) { return test::Fate{.kind = test::Fate::kLost}; });
  Recovery recovery;
  ASSERT_TRUE(open_on(std::make_shared<CrashDisk>(left), kBatches, &recovery));
  EXPECT_TRUE(recovery.clean_close);
  EXPECT_EQ(recovery.last, kBatches);
}

TEST(FullDisk, ClosingSaysWhatIsNotOnTheDisk) {
  auto disk = std::make_shared<CrashDisk>();
  auto journal = *open_on(disk, 0);
  ASSERT_TRUE(Work(*journal, 12).status);
  disk->set_space(10);
  EXPECT_TRUE(journal->append(make_batch(kOriginA, 13, 13 * 29 % 400)));
  Status closed = journal->close();
  ASSERT_FALSE(closed);
  EXPECT_EQ(closed.error().code(), Code::kNoSpace);
  journal.reset();
  disk->heal();
  expect_reopens(disk, 12);
}

}  // namespace
}  // namespace reprise::journal

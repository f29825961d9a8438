// Advisory locks: who excludes whom, who waits for whom, and what a guest's calls check.
#include "fs/locks.h"

#include <gtest/gtest.h>
#include <sys/file.h>

#include <atomic>
#include <functional>
#include <random>
#include <thread>

#include "fs/guest.h"
#include "tests/fs/recording.h"

namespace reprise::fs {
namespace {

constexpr InodeId kFile{7}, kOther{8};
constexpr LockRange kWhole{};
const LockWait kWait{.wait = true};

int code_of(const Outcome<void>& outcome) {
  return error_of(outcome);
}

struct LocksTest : testing::Test {
  Locks locks;
  LockOwner a = locks.new_process(1), b = locks.new_process(2), c = locks.new_process(3);
  LockOwner x = locks.new_open_file(), y = locks.new_open_file(), z = locks.new_open_file();

  int shared(const LockOwner& owner, uint64_t first, uint64_t last) {
    return code_of(locks.lock_range(kFile, owner, LockMode::kShared, {first, last}));
  }
  int exclusive(const LockOwner& owner, uint64_t first, uint64_t last, InodeId inode = kFile) {
    return code_of(locks.lock_range(inode, owner, LockMode::kExclusive, {first, last}));
  }
  int unlock(const LockOwner& owner, uint64_t first, uint64_t last) {
    return code_of(locks.unlock_range(kFile, owner, {first, last}));
  }
  // The owner's ranges as others see them: "0-4r 5-9w".
  std::string ranges_of(const LockOwner& owner) {
    EXPECT_EQ(locks.check_invariants(), "");
    std::string text;
    for (uint64_t from = 0; from <= kLockByteMax;) {
      auto held = locks.find_own(kFile, owner, {from, kLockByteMax});
      if (!held) break;
      text += (text.empty() ? "" : " ") + std::to_string(held->range.first) + "-" +
              (held->range.last == kLockByteMax ? "end" : std::to_string(held->range.last)) +
              (held->mode == LockMode::kExclusive ? "w" : "r");
      from = held->range.last + 1;
    }
    return text;
  }
  void until_waiting(size_t count) {
    while (locks.waiting() != count) std::this_thread::yield();
  }
};

// A call that waits, on a thread of its own.
class Waiting {
 public:
  Waiting(Locks& locks, const std::function<Outcome<void>(const LockWait&)>& call) : locks_(locks) {
    size_t before = locks.waiting();
    thread_ = std::jthread([this, call](std::stop_token stop) {
      code_ = code_of(call({.wait = true, .interrupted = stop}));
      done_ = true;
    });
    while (!done_ && locks.waiting() == before) std::this_thread::yield();
  }
  bool waits() {
    while (!done_ && locks_.waiting() == 0) std::this_thread::yield();
    return !done_;
  }
  void interrupt() { thread_.request_stop(); }
  int result() {
    thread_.join();
    return code_;
  }

 private:
  Locks& locks_;
  int code_ = -1;
  std::atomic<bool> done_ = false;
  std::jthread thread_;
};

// --- ranges

TEST_F(LocksTest, RangesAreSplitMergedAndReplaced) {
  struct Row {
    char what;  // r, w, u
    uint64_t first, last;
    const char* expected;
  };
  const Row rows[] = {
      {'w', 10, 19, "10-19w"},
      {'w', 20, 29, "10-29w"},                          // touching: one
      {'r', 15, 17, "10-14w 15-17r 18-29w"},            // a hole of another mode
      {'u', 12, 12, "10-11w 13-14w 15-17r 18-29w"},     // split
      {'u', 40, 50, "10-11w 13-14w 15-17r 18-29w"},     // nothing there
      {'r', 5, 9, "5-9r 10-11w 13-14w 15-17r 18-29w"},  // touching, another mode
      {'w', 0, 12, "0-14w 15-17r 18-29w"},              // swallows, and meets the next
      {'w', 15, 17, "0-29w"},                           // upgrade closes the gap
      {'r', 0, kLockByteMax, "0-endr"},
      {'u', 100, kLockByteMax, "0-99r"},
      {'w', kLockByteMax, kLockByteMax, "0-99r 9223372036854775807-endw"},
      {'u', 0, kLockByteMax, ""},
  };
  for (const Row& row : rows) {
    int got = row.what == 'r'   ? shared(a, row.first, row.last)
              : row.what == 'w' ? exclusive(a, row.first, row.last)
                                : unlock(a, row.first, row.last);
    EXPECT_EQ(got, 0);
    EXPECT_EQ(ranges_of(a), row.expected);
  }
  EXPECT_EQ(locks.held(), 0u);
}

TEST_F(LocksTest, RangesOfOthersExclude) {
  EXPECT_EQ(exclusive(a, 10, 19), 0);
  EXPECT_EQ(shared(b, 0, 9), 0);
  EXPECT_EQ(shared(b, 0, 10), EAGAIN);
  EXPECT_EQ(exclusive(x, 19, 30), EAGAIN);  // ranges of processes and open files see each other
  EXPECT_EQ(exclusive(x, 20, 30), 0);
  EXPECT_EQ(exclusive(b, 10, 19, kOther), 0);
  EXPECT_EQ(shared(a, 10, 19), 0);  // downgrade
  EXPECT_EQ(shared(b, 10, 19), 0);
  EXPECT_EQ(exclusive(a, 10, 19), EAGAIN);
  EXPECT_EQ(ranges_of(a), "10-19r");  // what was refused changed nothing
  locks.release(kFile, a);
  EXPECT_EQ(exclusive(b, 10, 19), 0);
}

TEST_F(LocksTest, TheFirstConflictIsTold) {
  EXPECT_EQ(shared(a, 10, 19), 0);
  EXPECT_EQ(exclusive(x, 0, 4), 0);
  EXPECT_FALSE(locks.find_conflict(kFile, b, LockMode::kShared, {10, 19}));
  auto conflict = locks.find_conflict(kFile, b, LockMode::kExclusive, kWhole);
  ASSERT_TRUE(conflict);
  EXPECT_EQ(conflict->owner.pid, 1);  // came first
  EXPECT_EQ(conflict->range, (LockRange{10, 19}));
  conflict = locks.find_conflict(kFile, b, LockMode::kShared, kWhole);
  ASSERT_TRUE(conflict);
  EXPECT_EQ(conflict->owner.pid, -1);
  EXPECT_EQ(conflict->mode, LockMode::kExclusive);
  EXPECT_FALSE(locks.find_conflict(kFile, x, LockMode::kExclusive, {0, 9}));
}

TEST_F(LocksTest, NoMoreAreHeldThanMayBe) {
  Locks few(3);
  LockOwner owner = few.new_process(1), other = few.new_open_file();
  auto lock = [&](uint64_t first, uint64_t last) {
    return code_of(few.lock_range(kFile, owner, LockMode::kShared, {first, last}));
  };
  EXPECT_EQ(lock(0, 9), 0);
  EXPECT_EQ(lock(20, 29), 0);
  EXPECT_EQ(lock(40, 49), 0);
  EXPECT_EQ(lock(60, 69), ENOLCK);
  EXPECT_EQ(code_of(few.lock_file(kFile, other, LockMode::kShared)), ENOLCK);
  EXPECT_EQ(code_of(few.unlock_range(kFile, owner, {5, 5})), ENOLCK);  // would make two of one
  EXPECT_EQ(few.held(), 3u);
  EXPECT_EQ(lock(5, 25), 0);  // makes one of two
  EXPECT_EQ(code_of(few.lock_file(kFile, other, LockMode::kShared)), 0);
  few.release(kFile, owner);
  few.release(kFile, other);
  EXPECT_EQ(few.held(), 0u);
  EXPECT_EQ(few.check_invariants(), "");
}

// --- whole files

TEST_F(LocksTest, WholeFileLocksExcludeEachOtherAndNothingElse) {
  EXPECT_EQ(code_of(locks.lock_file(kFile, x, LockMode::kShared)), 0);
  EXPECT_EQ(code_of(locks.lock_file(kFile, y, LockMode::kShared)), 0);
  EXPECT_EQ(code_of(locks.lock_file(kFile, z, LockMode::kExclusive)), EAGAIN);
  EXPECT_EQ(exclusive(a, 0, kLockByteMax), 0);
  locks.unlock_file(kFile, y);
  EXPECT_EQ(code_of(locks.lock_file(kFile, x, LockMode::kExclusive)), 0);
  EXPECT_EQ(code_of(locks.lock_file(kFile, y, LockMode::kShared)), EAGAIN);
  EXPECT_EQ(locks.check_invariants(), "");
}

TEST_F(LocksTest, ARefusedConversionOfAWholeFileLockLosesIt) {
  ASSERT_TRUE(locks.lock_file(kFile, x, LockMode::kShared));
  ASSERT_TRUE(locks.lock_file(kFile, y, LockMode::kShared));
  EXPECT_EQ(code_of(locks.lock_file(kFile, x, LockMode::kExclusive)), EAGAIN);
  EXPECT_EQ(code_of(locks.lock_file(kFile, y, LockMode::kExclusive)), 0);
}

TEST_F(LocksTest, ARefusedConversionLetsOthersIn) {
  ASSERT_TRUE(locks.lock_file(kFile, x, LockMode::kShared));
  ASSERT_TRUE(locks.lock_file(kFile, y, LockMode::kShared));
  Waiting upgrade(locks,
                  [&](const LockWait& w) { return locks.lock_file(kFile, x, LockMode::kExclusive, w); });
  EXPECT_EQ(code_of(locks.lock_file(kFile, y, LockMode::kExclusive)), 0);  // nobody holds it but y
  EXPECT_TRUE(upgrade.waits());
  EXPECT_EQ(locks.check_invariants(), "");
  EXPECT_EQ(code_of(locks.lock_file(kFile, y, LockMode::kShared)), 0);
  EXPECT_TRUE(upgrade.waits());
  locks.release(kFile, y);
  EXPECT_EQ(upgrade.result(), 0);
  locks.release(kFile, x);
}

// --- waiting

TEST_F(LocksTest, WhoWaitsIsServedInOrderOfArrival) {
  ASSERT_EQ(exclusive(x, 0, 9), 0);
  constexpr int kThreads = 6;
  std::vector<int> order;
  std::mutex mutex;
  std::vector<std::jthread> threads;
  std::vector<LockOwner> owners;
  for (int i = 0; i < kThreads; ++i) owners.push_back(i % 2 ? locks.new_open_file() : locks.new_process(i));
  for (int i = 0; i < kThreads; ++i) {
    threads.emplace_back([&, i] {
      EXPECT_TRUE(
          locks.lock_range(kFile, owners[static_cast<size_t>(i)], LockMode::kExclusive, {5, 20}, kWait));
      {
        std::lock_guard lock(mutex);
        order.push_back(i);
      }
      locks.release(kFile, owners[static_cast<size_t>(i)]);
    });
    until_waiting(static_cast<size_t>(i) + 1);
  }
  EXPECT_EQ(locks.check_invariants(), "");
  locks.release(kFile, x);
  threads.clear();
  EXPECT_EQ(order, (std::vector<int>{0, 1, 2, 3, 4, 5}));
  EXPECT_EQ(locks.held() + locks.waiting(), 0u);
}

TEST_F(LocksTest, ANewcomerIsHeldUpByHoldersOnly) {
  ASSERT_EQ(shared(a, 0, 9), 0);
  Waiting writer(
      locks, [&](const LockWait& w) { return locks.lock_range(kFile, b, LockMode::kExclusive, {0, 9}, w); });
  EXPECT_EQ(shared(c, 0, 9), 0);
  locks.release(kFile, a);
  EXPECT_TRUE(writer.waits());
  EXPECT_EQ(locks.check_invariants(), "");
  EXPECT_EQ(unlock(c, 0, 9), 0);
  EXPECT_EQ(writer.result(), 0);
  EXPECT_EQ(ranges_of(b), "0-9w");
}

TEST_F(LocksTest, ADowngradeLetsInWhoReads) {
  ASSERT_EQ(exclusive(a, 0, 9), 0);
  Waiting reader(locks,
                 [&](const LockWait& w) { return locks.lock_range(kFile, b, LockMode::kShared, {3, 4}, w); });
  EXPECT_EQ(shared(a, 0, 2), 0);
  EXPECT_TRUE(reader.waits());
  EXPECT_EQ(shared(a, 3, 9), 0);
  EXPECT_EQ(reader.result(), 0);
  EXPECT_EQ(ranges_of(a), "0-9r");
}

// What is granted may itself be less than what its owner had.
TEST_F(LocksTest, AGrantedDowngradeLetsInTheNext) {
  ASSERT_EQ(exclusive(a, 0, 4), 0);
  ASSERT_EQ(exclusive(b, 5, 9), 0);
  Waiting first(locks,
                [&](const LockWait& w) { return locks.lock_range(kFile, x, LockMode::kShared, {0, 4}, w); });
  // Waits for b, and gives up exclusiveness over 0-4 when it gets all.
  Waiting second(locks,
                 [&](const LockWait& w) { return locks.lock_range(kFile, a, LockMode::kShared, {0, 9}, w); });
  EXPECT_EQ(locks.waiting(), 2u);
  locks.release(kFile, b);
  EXPECT_EQ(second.result(), 0);
  EXPECT_EQ(first.result(), 0);
  EXPECT_EQ(locks.check_invariants(), "");
}

TEST_F(LocksTest, WhoWaitsCanBeInterrupted) {
  ASSERT_EQ(exclusive(a, 0, 9), 0);
  Waiting range(locks,
                [&](const LockWait& w) { return locks.lock_range(kFile, b, LockMode::kShared, {0, 0}, w); });
  range.interrupt();
  EXPECT_EQ(range.result(), EINTR);
  ASSERT_TRUE(locks.lock_file(kFile, x, LockMode::kShared));
  ASSERT_TRUE(locks.lock_file(kFile, y, LockMode::kShared));
  Waiting file(locks, [&](const LockWait& w) { return locks.lock_file(kFile, x, LockMode::kExclusive, w); });
  file.interrupt();
  EXPECT_EQ(file.result(), EINTR);
  EXPECT_EQ(code_of(locks.lock_file(kFile, y, LockMode::kExclusive)), 0);  // x lost its shared one
  // Asked to stop before the call: it still gets what is free, as with a pending signal.
  std::stop_source stopped;
  stopped.request_stop();
  LockWait interrupted{.wait = true, .interrupted = stopped.get_token()};
  EXPECT_EQ(code_of(locks.lock_range(kFile, b, LockMode::kShared, {10, 10}, interrupted)), 0);
  EXPECT_EQ(code_of(locks.lock_range(kFile, b, LockMode::kShared, {0, 0}, interrupted)), EINTR);
  EXPECT_EQ(locks.waiting(), 0u);
  EXPECT_EQ(locks.check_invariants(), "");
}

// --- deadlock

TEST_F(LocksTest, ProcessesThatWouldWaitForThemselvesAreRefused) {
  constexpr uint64_t kProcesses = 20;
  std::vector<LockOwner> owners;
  for (uint64_t i = 0; i < kProcesses; ++i) {
    owners.push_back(locks.new_process(static_cast<int32_t>(i)));
    ASSERT_EQ(exclusive(owners[i], i, i, i % 2 ? kFile : kOther), 0);  // over two files
  }
  std::vector<std::unique_ptr<Waiting>> ring;
  for (uint64_t i = 0; i + 1 < kProcesses; ++i)
    ring.push_back(std::make_unique<Waiting>(locks, [&, i](const LockWait& w) {
      auto outcome =
          locks.lock_range((i + 1) % 2 ? kFile : kOther, owners[i], LockMode::kExclusive, {i + 1, i + 1}, w);
      locks.release(kFile, owners[i]);
      locks.release(kOther, owners[i]);
      return outcome;
    }));
  EXPECT_EQ(locks.waiting(), kProcesses - 1);
  EXPECT_EQ(locks.check_invariants(), "");
  EXPECT_EQ(code_of(locks.lock_range(kOther, owners.back(), LockMode::kShared, {0, 0}, kWait)), EDEADLK);
  locks.release(kFile, owners.back());
  for (auto& waiting : ring) EXPECT_EQ(waiting->result(), 0);
}

TEST_F(LocksTest, ACircleThatClosesWhileWaitingIsFound) {
  ASSERT_EQ(shared(a, 0, 0), 0);
  ASSERT_EQ(shared(b, 0, 0), 0);
  ASSERT_EQ(exclusive(c, 5, 5), 0);
  // c waits for a (and, unseen, for b); b waits for c.
  Waiting first(
      locks, [&](const LockWait& w) { return locks.lock_range(kFile, c, LockMode::kExclusive, {0, 0}, w); });
  Waiting second(
      locks, [&](const LockWait& w) { return locks.lock_range(kFile, b, LockMode::kExclusive, {5, 5}, w); });
  EXPECT_EQ(locks.waiting(), 2u);
  locks.release(kFile, a);
  EXPECT_EQ(first.result(), EDEADLK);
  EXPECT_TRUE(second.waits());
  locks.release(kFile, c);
  EXPECT_EQ(second.result(), 0);
}

TEST_F(LocksTest, ACircleIsFoundByWhatSomebodyBeganToWaitFor) {
  ASSERT_EQ(shared(a, 20, 20), 0);
  ASSERT_EQ(shared(b, 0, 0), 0);
  ASSERT_EQ(exclusive(c, 5, 5), 0);
  Waiting waiting(
      locks, [&](const LockWait& w) { return locks.lock_range(kFile, c, LockMode::kExclusive, {0, 0}, w); });
  ASSERT_EQ(shared(a, 0, 0), 0);  // in the way too, and an older holder, but c waits for b
  EXPECT_EQ(locks.check_invariants(), "");
  EXPECT_EQ(code_of(locks.lock_range(kFile, b, LockMode::kExclusive, {5, 5}, kWait)), EDEADLK);
  locks.release(kFile, a);
  locks.release(kFile, b);
  EXPECT_EQ(waiting.result(), 0);
}

TEST_F(LocksTest, AProcessIsRefusedWhereAnOpenFileWaitsForIt) {
  ASSERT_EQ(exclusive(a, 0, 0), 0);
  ASSERT_EQ(exclusive(x, 1, 1), 0);
  Waiting waiting(
      locks, [&](const LockWait& w) { return locks.lock_range(kFile, x, LockMode::kExclusive, {0, 0}, w); });
  EXPECT_EQ(code_of(locks.lock_range(kFile, a, LockMode::kExclusive, {1, 1}, kWait)), EDEADLK);
  locks.release(kFile, a);
  EXPECT_EQ(waiting.result(), 0);
}

TEST_F(LocksTest, OpenFilesAndWholeFilesWaitForEver) {
  ASSERT_EQ(exclusive(x, 0, 0), 0);
  ASSERT_EQ(exclusive(y, 1, 1), 0);
  Waiting first(
      locks, [&](const LockWait& w) { return locks.lock_range(kFile, x, LockMode::kExclusive, {1, 1}, w); });
  Waiting second(
      locks, [&](const LockWait& w) { return locks.lock_range(kFile, y, LockMode::kExclusive, {0, 0}, w); });
  EXPECT_EQ(locks.waiting(), 2u);
  EXPECT_EQ(locks.check_invariants(), "");
  second.interrupt();
  EXPECT_EQ(second.result(), EINTR);
  locks.release(kFile, y);
  EXPECT_EQ(first.result(), 0);
}

TEST_F(LocksTest, ManyThreadsNeverHoldAgainstEachOther) {
  constexpr int kThreads = 4;
  constexpr uint64_t kBytes = 8;
  struct Byte {
    std::atomic<int> readers = 0, writers = 0;
  };
  std::array<Byte, kBytes> bytes;
  std::atomic<int> wrong = 0, granted = 0;
  auto work = [&](unsigned seed) {
    std::mt19937 random(seed);
    LockOwner owner = seed % 2 ? locks.new_process(1) : locks.new_open_file();
    for (int i = 0; i < 2000; ++i) {
      uint64_t first = random() % kBytes, last = first + random() % (kBytes - first);
      bool write = random() % 2, wait = random() % 2;
      LockMode mode = write ? LockMode::kExclusive : LockMode::kShared;
      if (!locks.lock_range(kFile, owner, mode, {first, last}, {.wait = wait})) continue;
      ++granted;
      for (uint64_t at = first; at <= last; ++at) {
        ++(write ? bytes[at].writers : bytes[at].readers);
        if (bytes[at].writers > 1 || (write && bytes[at].readers > 0)) ++wrong;
      }
      for (uint64_t at = first; at <= last; ++at) --(write ? bytes[at].writers : bytes[at].readers);
      if (!locks.unlock_range(kFile, owner, {first, last})) ++wrong;
    }
  };
  {
    std::vector<std::jthread> threads;
    for (unsigned i = 0; i < kThreads; ++i) threads.emplace_back(work, i);
  }
  EXPECT_EQ(wrong, 0);
  EXPECT_GT(granted, kThreads * 500);
  EXPECT_EQ(locks.held() + locks.waiting(), 0u);
  EXPECT_EQ(locks.check_invariants(), "");
}

// --- guests

struct GuestLocks : testing::Test, Recorded {
  Guest one{filesystem, {.pid = 11}};
  Guest two{filesystem, {.pid = 22}};

  void SetUp() override { ASSERT_TRUE(one.write_file("/f", "0123456789")); }
  static struct flock range(short type, int64_t start, int64_t length, short whence = SEEK_SET) {
    return {.l_type = type, .l_whence = whence, .l_start = start, .l_len = length, .l_pid = 0};
  }
  int fd_of(Guest& guest, int flags = O_RDWR) { return *guest.open("/f", flags); }
  // 'r', 'w' or '-': what an open file of a third sees on the byte.
  char seen(int64_t byte) {
    Guest third(filesystem);
    auto found = third.get_lock(fd_of(third), F_OFD_GETLK, range(F_WRLCK, byte, 1));
    return !found || found->l_type == F_UNLCK ? '-' : found->l_type == F_WRLCK ? 'w' : 'r';
  }
};

TEST_F(GuestLocks, CallsAreCheckedAsLinuxDoes) {
  int read = fd_of(one, O_RDONLY), write = fd_of(one, O_WRONLY), path = fd_of(one, O_PATH);
  struct Row {
    int fd, command;
    struct flock wanted;
    int expected;
  };
  const int64_t top = INT64_MAX;
  const Row rows[] = {
      {99, F_SETLK, range(F_RDLCK, 0, 1), EBADF},
      {path, F_SETLK, range(F_UNLCK, 0, 1), EBADF},
      {read, F_SETLK, range(F_WRLCK, 0, 1), EBADF},
      {write, F_OFD_SETLK, range(F_RDLCK, 0, 1), EBADF},
      {read, F_SETLK, range(F_UNLCK, 0, 1), 0},
      {read, F_SETLK, range(7, 0, 1), EINVAL},
      {read, F_SETLK, range(F_RDLCK, 0, 1, 9), EINVAL},
      {read, F_SETLK, range(F_RDLCK, -1, 1), EINVAL},
      {read, F_SETLK, range(F_RDLCK, 5, -6), EINVAL},
      {read, F_SETLK, range(F_RDLCK, 5, -5), 0},
      {read, F_SETLK, range(F_RDLCK, top, 2), EOVERFLOW},
      {read, F_SETLK, range(F_RDLCK, top, 1), 0},
      {read, F_SETLK, range(F_RDLCK, top, 1, SEEK_END), EOVERFLOW},
      {read, F_SETLK, range(F_RDLCK, -11, 1, SEEK_END), EINVAL},
      {read, F_SETLK, range(F_RDLCK, -10, 0, SEEK_END), 0},
      {read, F_GETLK, range(F_UNLCK, 0, 1), EINVAL},
      {read, F_OFD_GETLK, range(F_UNLCK, 0, 1), 0},
      {read, F_GETFL, range(F_RDLCK, 0, 1), EINVAL},
  };
  for (const Row& row : rows) {
    bool get = row.command == F_GETLK || row.command == F_OFD_GETLK;
    int got = get ? error_of(one.get_lock(row.fd, row.command, row.wanted))
                  : error_of(one.set_lock(row.fd, row.command, row.wanted));
    EXPECT_EQ(got, row.expected) << &row - rows;
  }
  struct flock named = range(F_RDLCK, 0, 1);
  named.l_pid = 3;
  EXPECT_EQ(error_of(one.set_lock(read, F_OFD_SETLK, named)), EINVAL);
  EXPECT_EQ(error_of(one.set_lock(read, F_SETLK, named)), 0);
  EXPECT_EQ(error_of(one.flock(99, LOCK_SH)), EBADF);
  EXPECT_EQ(error_of(one.flock(path, LOCK_UN)), EBADF);
  EXPECT_EQ(error_of(one.flock(read, LOCK_SH | LOCK_EX)), EINVAL);
  EXPECT_EQ(error_of(one.flock(99, 0)), EINVAL);
  EXPECT_EQ(error_of(one.flock(read, LOCK_EX)), 0);  // whatever it is open for
  EXPECT_EQ(error_of(one.flock(write, LOCK_SH | LOCK_NB)), EAGAIN);
}

TEST_F(GuestLocks, RangesCountFromWhereTheySay) {
  int fd = fd_of(one);
  ASSERT_TRUE(one.seek(fd, 4, SEEK_SET));
  ASSERT_TRUE(one.set_lock(fd, F_SETLK, range(F_WRLCK, 1, 1, SEEK_CUR)));
  ASSERT_TRUE(one.set_lock(fd, F_SETLK, range(F_WRLCK, 0, -2, SEEK_END)));
  int other = fd_of(two);
  for (int64_t at = 0; at < 12; ++at)
    EXPECT_EQ(error_of(two.set_lock(other, F_SETLK, range(F_WRLCK, at, 1))),
              at == 5 || at == 8 || at == 9 ? EAGAIN : 0)
        << at;
  auto found = two.get_lock(other, F_GETLK, range(F_RDLCK, 6, 0));
  ASSERT_TRUE(found);
  EXPECT_EQ(found->l_type, F_WRLCK);
  EXPECT_EQ(found->l_pid, 11);
  EXPECT_EQ(found->l_start, 8);
  EXPECT_EQ(found->l_len, 2);
}

TEST_F(GuestLocks, ClosingAnyDescriptorOfTheFileDropsTheProcessesLocks) {
  struct Row {
    const char* what;
    std::function<void(Guest&, int fd, int other)> close;
    bool dropped;
  };
  const Row rows[] = {
      {"itself", [](Guest& g, int fd, int) { ASSERT_TRUE(g.close(fd)); }, true},
      {"another open", [](Guest& g, int, int other) { ASSERT_TRUE(g.close(other)); }, true},
      {"a duplicate", [](Guest& g, int fd, int) { ASSERT_TRUE(g.close(*g.dup(fd))); }, true},
      {"dup2 over it", [](Guest& g, int, int other) { ASSERT_TRUE(g.dup_to(*g.open("/", O_RDONLY), other)); },
       true},
      {"dup2 to itself", [](Guest& g, int fd, int) { ASSERT_TRUE(g.dup_to(fd, fd)); }, false},
      {"O_PATH", [](Guest& g, int, int) { ASSERT_TRUE(g.close(*g.open("/f", O_PATH))); }, false},
      {"read_file", [](Guest& g, int, int) { ASSERT_TRUE(g.read_file("/f")); }, true},
  };
  for (const Row& row : rows) {
    Guest guest(filesystem);
    int fd = fd_of(guest), other = fd_of(guest, O_RDONLY);
    ASSERT_TRUE(guest.set_lock(fd, F_SETLK, range(F_WRLCK, 0, 1)));
    ASSERT_TRUE(guest.set_lock(fd, F_OFD_SETLK, range(F_WRLCK, 1, 1)));
    row.close(guest, fd, other);
    EXPECT_EQ(seen(0), row.dropped ? '-' : 'w') << row.what;
    EXPECT_EQ(seen(1), std::string_view(row.what) == "itself" ? '-' : 'w') << row.what;
  }
  EXPECT_EQ(filesystem.locks().held(), 0u);  // the guests have ended
}

TEST_F(GuestLocks, LocksOfAnOpenFileGoWithItsLastDescriptor) {
  int fd = fd_of(one), copy = *one.dup(fd), other = fd_of(one);
  ASSERT_TRUE(one.flock(fd, LOCK_EX));
  ASSERT_TRUE(one.set_lock(copy, F_OFD_SETLK, range(F_WRLCK, 0, 0)));
  EXPECT_EQ(error_of(one.flock(other, LOCK_EX | LOCK_NB)), EAGAIN);  // the same guest, another open file
  EXPECT_EQ(error_of(one.set_lock(fd, F_SETLK, range(F_RDLCK, 0, 1))), EAGAIN);
  EXPECT_TRUE(one.flock(copy, LOCK_EX | LOCK_NB));  // the same open file
  ASSERT_TRUE(one.close(fd));
  EXPECT_EQ(seen(0), 'w');
  ASSERT_TRUE(one.close(copy));
  EXPECT_EQ(seen(0), '-');
  EXPECT_TRUE(one.flock(other, LOCK_EX | LOCK_NB));
}

TEST_F(GuestLocks, AGuestThatEndsLetsOthersIn) {
  auto holder = std::make_unique<Guest>(filesystem);
  int held = fd_of(*holder), fd = fd_of(one);
  ASSERT_TRUE(holder->flock(held, LOCK_EX));
  ASSERT_TRUE(holder->set_lock(held, F_SETLK, range(F_WRLCK, 0, 0)));
  Waiting waiting(filesystem.locks(),
                  [&](const LockWait& w) { return one.flock(fd, LOCK_SH, w.interrupted); });
  int other = fd_of(two);
  Waiting ranges(filesystem.locks(), [&](const LockWait& w) {
    return two.set_lock(other, F_SETLKW, range(F_RDLCK, 5, 1), w.interrupted);
  });
  EXPECT_EQ(filesystem.locks().waiting(), 2u);
  holder.reset();
  EXPECT_EQ(waiting.result(), 0);
  EXPECT_EQ(ranges.result(), 0);
}

TEST_F(GuestLocks, LocksStayWithTheInode) {
  int fd = fd_of(one);
  ASSERT_TRUE(one.set_lock(fd, F_SETLK, range(F_WRLCK, 0, 0)));
  ASSERT_TRUE(one.rename("/f", "/g"));
  ASSERT_TRUE(two.write_file("/f", "another"));
  EXPECT_EQ(seen(0), '-');
  View before = filesystem.view();
  ASSERT_TRUE(one.unlink("/g"));
  ASSERT_TRUE(one.pwrite(fd, as_bytes("x"), 0));
  ASSERT_TRUE(one.rename("/f", "/h"));
  filesystem.install(before);  // the name is back
  int other = *two.open("/g", O_RDWR);
  EXPECT_EQ(error_of(two.set_lock(other, F_SETLK, range(F_RDLCK, 0, 1))), EAGAIN);
  ASSERT_TRUE(one.close(fd));
  EXPECT_TRUE(two.set_lock(other, F_SETLK, range(F_RDLCK, 0, 1)));
}

TEST_F(GuestLocks, LockingIsNotRecorded) {
  size_t before = sink.operations.size();
  int fd = fd_of(one);
  filesystem.set_read_only(true);
  ASSERT_TRUE(one.flock(fd, LOCK_EX));
  ASSERT_TRUE(one.set_lock(fd, F_SETLK, range(F_WRLCK, 0, 0)));
  ASSERT_TRUE(one.close(fd));
  EXPECT_EQ(sink.operations.size(), before);
}

}  // namespace
}  // namespace reprise::fs

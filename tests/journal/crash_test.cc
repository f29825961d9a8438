// Power failures and kills at every point of a journal's life, on a disk that keeps any part of what was not
// synced: what was acknowledged is there afterwards, and nothing that was not appended, in its order.
#include <gtest/gtest.h>

#include <cerrno>
#include <cstdlib>
#include <thread>

#include "journal/journal.h"
#include "journal/recovery.h"
#include "journal/segments_cursor.h"
#include "journal/verify.h"
#include "tests/journal/batches.h"
#include "tests/journal/crash_disk.h"
#include "tests/journal/fake_world.h"

namespace reprise::journal {
namespace {

using test::CrashDirectory;
using test::CrashDisk;
using test::DiskEvent;
using test::FakeRandom;
using test::Fate;
using test::Files;
using test::kIdentity;
using test::kOriginB;
using test::make_batch;
using test::Platters;

FakeRandom fake_random;

// What a program says of itself in the trace: before it asks for a thing, and after it was promised it.
enum Mark : size_t { kAppending, kDurable, kTrimming, kRestarting, kRestarted, kOpened };

struct Plan {
  const char* name;
  Durability durability;
  LogIndex sync_every;  // 0: never
  bool trims;           // and restarts, rather than growing only
  bool compresses = false;
};

Result<std::unique_ptr<Journal>> open_on(const std::shared_ptr<CrashDisk>& disk, Durability durability,
                                         LogIndex durable_hint, Recovery* recovery = nullptr,
                                         bool compress = false) {
  JournalOptions options{.durability = durability,
                         .lazy_interval_ms = 1,
                         .segment_bytes = 1500,
                         .recent_bytes = 0,
                         .compress = compress};
  return Journal::open(std::make_unique<CrashDirectory>(disk), kIdentity, options, fake_random, durable_hint,
                       recovery);
}

// A program that uses a journal on a CrashDisk, and what it appended.
class Program {
 public:
  explicit Program(Plan plan) : plan_(plan) {}

  const std::shared_ptr<CrashDisk> disk = std::make_shared<CrashDisk>();
  std::vector<uint64_t> checksums;  // of the batch of each kAppending in the trace, in order

  // Opens, works until all is done or the disk does not answer, and closes. What the journal answered last.
  Status run(LogIndex batches, LogIndex durable_hint) {
    Recovery recovery;
    auto opened = open_on(disk, plan_.durability, durable_hint, &recovery, plan_.compresses);
    if (!opened) return std::unexpected(opened.error());
    Journal& journal = **opened;
    disk->mark(kOpened, recovery.last);
    disk->mark(kDurable, journal.durable());
    origin_ = fake_random.next_id<OriginId>();
    Status status;
    for (Lsn lsn = 1; lsn <= batches && status; ++lsn) status = step(journal, lsn);
    if (!status) failure = journal.failure();
    if (plan_.compresses) wait_for_copies(journal);
    Status closed = journal.close();
    if (closed) disk->mark(kDurable, journal.last());
    return status ? closed : status;
  }
  std::optional<Error> failure;  // of the journal, if it stopped working

 private:
  Status step(Journal& journal, Lsn lsn) {
    Batch batch = make_batch(origin_, lsn, lsn * 53 % 700);
    checksums.push_back(batch.checksum());
    disk->mark(kAppending, journal.last() + 1);
    LogIndex index = TRY(journal.append(batch));
    if (plan_.sync_every > 0 && lsn % plan_.sync_every == 0) {
      TRY(journal.sync(index));
      disk->mark(kDurable, index);
    }
    // Time for the background thread, so that some is written and not synced.
    if (lsn % 7 == 0 && plan_.durability != Durability::kNone)
      std::this_thread::sleep_for(std::chrono::milliseconds(2));
    disk->mark(kDurable, journal.durable());
    if (!plan_.trims) return {};
    if (lsn == 14) TRY(trim(journal, index - 3));
    if (lsn == 17) TRY(trim(journal, index + 1));
    if (lsn == 22) TRY(restart(journal, lsn));
    return {};
  }
  // While it makes any.
  void wait_for_copies(Journal& journal) const {
    for (int i = 0; i < 200 && !journal.failure(); ++i) {
      auto files = journal.files();
      if (!files || files->compression_failure || files->compressed + 1 >= files->segments.size()) return;
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
  }
  Status trim(Journal& journal, LogIndex index) {
    disk->mark(kTrimming, index);
    TRY(journal.trim(index));
    return {};
  }
  Status restart(Journal& journal, Lsn lsn) {
    LogIndex next = journal.last() + 10;
    Vector covered;
    covered.set(origin_, lsn);
    covered.set(kOriginB, 7);
    disk->mark(kRestarting, next);
    TRY(journal.restart_at(next, covered));
    disk->mark(kRestarted, next);
    return {};
  }

  const Plan plan_;
  OriginId origin_;
};

// What may be found after a crash, as the marks say it.
class Model {
 public:
  explicit Model(const std::vector<uint64_t>& checksums) : checksums_(checksums) {}

  LogIndex acknowledged() const { return acknowledged_; }
  // The same, if the disk lied: nothing acknowledged counts, and whole segments at the front may be missing
  // as if trimmed. What there is must be an unbroken run of what was appended all the same.
  Model without_promises() const {
    Model other = *this;
    other.acknowledged_ = 0;
    other.trim_limit_ = UINT64_MAX;
    return other;
  }

  void advance(const DiskEvent& event) {
    if (event.kind != DiskEvent::kMark) return;
    LogIndex value = event.offset;
    switch (static_cast<Mark>(event.inode)) {
      case kAppending:
        batches_[value] = checksums_[appended_++];
        break;
      case kDurable:
        acknowledged_ = std::max(acknowledged_, value);
        break;
      case kTrimming:
        trim_limit_ = std::max(trim_limit_, value);
        break;
      case kRestarting:
        restarting_ = value;
        break;
      case kRestarted:
        acknowledged_ = trim_limit_ = value - 1;
        break;
      case kOpened:
        batches_.erase(batches_.upper_bound(value), batches_.end());
        break;
    }
  }

  // Empty, or what is wrong with a journal that was opened and holds `first` to `last`.
  std::string judge(LogIndex first, LogIndex last, Cursor& cursor) const {
    LogIndex newest = batches_.empty() ? 0 : batches_.rbegin()->first;
    bool restarted = restarting_ != 0 && first == restarting_;
    if (last < acknowledged_) return fmt::format("{} was acknowledged, {} is the last", acknowledged_, last);
    if (last > newest && !(restarted && last + 1 == first))
      return fmt::format("{} was appended, {} is the last", newest, last);
    if (first > std::max<LogIndex>(trim_limit_, 1) && !restarted)
      return fmt::format("trimmed up to {}, {} is the first", trim_limit_, first);
    LogIndex index = first;
    for (;; ++index) {
      auto logged = cursor.next();
      if (!logged) return logged.error().message();
      if (!*logged) break;
      auto expected = batches_.find(index);
      if ((*logged)->index != index || expected == batches_.end() ||
          (*logged)->batch.checksum() != expected->second)
        return fmt::format("another batch at {}", index);
    }
    if (index != last + 1) return fmt::format("the last is {}, reading ended at {}", last, index);
    return {};
  }

 private:
  const std::vector<uint64_t>& checksums_;
  size_t appended_ = 0;
  std::map<LogIndex, uint64_t> batches_;  // checksums
  LogIndex acknowledged_ = 0, trim_limit_ = 0, restarting_ = 0;
};

// Visits what a crash may leave, and counts it.
class Crashes {
 public:
  explicit Crashes(size_t cut_step) : cut_step_(cut_step) {}

  size_t states = 0, violations = 0, refusals = 0;

  // At every event of the program's trace from `from` on.
  void visit(const Program& program, size_t from, bool lying, const std::string& what) {
    Model model(program.checksums);
    Platters platters(program.disk->initial, lying);
    std::vector<DiskEvent> trace = program.disk->trace();
    for (size_t i = 0; i < trace.size() && violations < 5; ++i) {
      platters.advance(trace[i]);
      model.advance(trace[i]);
      if (i < from || trace[i].kind == DiskEvent::kMark) continue;
      what_ = fmt::format("{}, event {}", what, i);
      lying_ = lying;
      visit_point(platters, model, trace[i]);
    }
  }

 private:
  void visit_point(const Platters& platters, const Model& model, const DiskEvent& event) {
    using Fates = std::function<Fate(size_t)>;
    auto check_all = [&](const char* which, const Fates& fates) {
      check(platters.survivors(fates), model, which);
    };
    check_all("all kept", [](size_t) { return Fate{}; });
    check_all("all lost", [](size_t) { return Fate{.kind = Fate::kLost}; });
    size_t open = platters.open_changes();
    for (size_t one = 0; one < open && open > 1; ++one) {
      check_all("one lost", [&](size_t n) { return Fate{.kind = n == one ? Fate::kLost : Fate::kKept}; });
      check_all("one kept", [&](size_t n) { return Fate{.kind = n == one ? Fate::kKept : Fate::kLost}; });
    }
    for (int n = 0; n < 4 && open > 0; ++n) check_all("any", [&](size_t) { return any_fate(); });
    if (platters.newest_write() == SIZE_MAX) return;
    for (size_t cut = 0; cut < event.bytes.size(); cut += cut_step_) {
      check_all("cut", [&](size_t n) { return n == platters.newest_write() ? Fate{.cut = cut} : Fate{}; });
    }
  }

  Fate any_fate() {
    uint64_t drawn = chance_.next();
    if (drawn % 3 == 0) return {};
    if (drawn % 3 == 1) return {.kind = Fate::kLost};
    return {.kind = Fate::kTorn, .sectors = chance_.next()};
  }

  void check(const Files& files, const Model& model, const char* which) {
    ++states;
    std::vector<DiskEvent> recovery;
    std::string wrong = judge(files, model, recovery);
    if (!wrong.empty() && ++violations <= 5) ADD_FAILURE() << what_ << ", " << which << ": " << wrong;
    if (states % 128 == 0 && !recovering_ && !lying_) crash_in_recovery(files, model, recovery);
  }

  // Power fails again, while what the first failure left is being opened.
  void crash_in_recovery(const Files& files, const Model& model, const std::vector<DiskEvent>& recovery) {
    recovering_ = true;
    Platters platters(files);
    for (const DiskEvent& event : recovery) {
      platters.advance(event);
      check(platters.survivors([](size_t) { return Fate{.kind = Fate::kLost}; }), model, "again, all lost");
      for (int n = 0; n < 3; ++n)
        check(platters.survivors([&](size_t) { return any_fate(); }), model, "again, any");
    }
    recovering_ = false;
  }

  std::string judge(const Files& files, const Model& model, std::vector<DiskEvent>& recovery_trace) {
    // The catalogue may know what is durable, or lag. Of a disk that lies it may not: that it lied would
    // show.
    LogIndex hint = lying_ || states % 3 == 0 ? 0 : model.acknowledged();
    auto disk = std::make_shared<CrashDisk>(files);
    CrashDirectory directory(disk);
    LogIndex seen = 0;
    std::string unopened = read_unopened(directory, hint, seen);
    auto log = recover_log(directory, kIdentity, hint);
    if (!log && lying_ && log.error().code() == Code::kCorrupt) return refused();
    if (!log) return log.error().message();
    recovery_trace = disk->trace();
    if (!unopened.empty()) return lying_ ? refused() : "read beside: " + unopened;
    LogIndex first = log->segments.empty() ? 1 : log->recovery.first, last = log->recovery.last;
    if (seen != 0 && seen != last) return fmt::format("read beside up to {}, opened up to {}", seen, last);
    auto cursor = SegmentsCursor::open(directory, kIdentity, 0, last);
    if (!cursor) return cursor.error().message();
    std::string wrong = (lying_ ? model.without_promises() : model).judge(first, last, **cursor);
    if (!wrong.empty() || states % 16 != 0) return wrong;
    return go_on(disk, last);
  }

  std::string refused() {
    ++refusals;
    return {};
  }

  // As who only asks reads it, before anything is repaired.
  static std::string read_unopened(CrashDirectory& directory, LogIndex hint, LogIndex& seen) {
    auto cursor = SegmentsCursor::open(directory, kIdentity, 0, hint);
    if (!cursor) return cursor.error().message();
    for (;;) {
      auto logged = (*cursor)->next();
      if (!logged) return logged.error().message();
      if (!*logged) return {};
      seen = (*logged)->index;
    }
  }

  // As a journal that is opened and used; its thread makes that the slowest way to look.
  static std::string go_on(const std::shared_ptr<CrashDisk>& disk, LogIndex last) {
    Recovery recovery;
    auto opened = open_on(disk, Durability::kFsync, last, &recovery);
    if (!opened) return opened.error().message();
    if (recovery.last != last) return fmt::format("{} was the last, then {}", last, recovery.last);
    Journal& journal = **opened;
    auto index = journal.append(make_batch(fake_random.next_id<OriginId>(), 1));
    if (!index) return index.error().message();
    if (Status closed = journal.close(); !closed) return closed.error().message();
    CrashDirectory directory(disk);
    auto report = verify_journal(directory, kIdentity, *index);
    if (!report) return report.error().message();
    if (report->problem) return report->problem->message();
    return report->last == *index && report->clean_close ? "" : "verify finds another end";
  }

  const size_t cut_step_;  // a write is cut at every so many bytes
  FakeRandom chance_{7};
  bool lying_ = false, recovering_ = false;
  std::string what_;
};

constexpr LogIndex kBatches = 30;

class Crash : public testing::TestWithParam<Plan> {
 protected:
  // Says how much was looked at, and that it was something.
  void expect_seen(const Crashes& crashes, size_t least) {
    RecordProperty("crash_points", static_cast<int>(crashes.states));
    EXPECT_GT(crashes.states, least);
    EXPECT_EQ(crashes.violations, 0u);
    if (std::getenv("REPRISE_COUNT_CRASHES") != nullptr)
      fmt::print("{}: {} crash points, {} refused\n", GetParam().name, crashes.states, crashes.refusals);
  }

  // Power fails at any moment of runs of which the n-th sync, and nothing else, failed.
  void visit_after(const std::function<void(CrashDisk&, size_t n)>& fail, size_t least) {
    Crashes crashes(97);
    bool failed = true;
    for (size_t n = 0; failed && crashes.violations < 5; ++n) {
      Program program(GetParam());
      fail(*program.disk, n);
      Status status = program.run(20, 0);
      failed = program.disk->fault_happened();
      // A copy that cannot be made is nobody's loss.
      if (!GetParam().compresses) {
        ASSERT_EQ(status.has_value(), !failed) << n;
      }
      program.disk->heal();
      ASSERT_TRUE(program.run(4, 0)) << n;
      crashes.visit(program, 0, false, fmt::format("sync {} failed", n));
    }
    expect_seen(crashes, least);
  }
};

INSTANTIATE_TEST_SUITE_P(Modes, Crash,
                         testing::Values(Plan{"None", Durability::kNone, 0, false},
                                         Plan{"NoneWithSyncs", Durability::kNone, 6, true},
                                         Plan{"Lazy", Durability::kLazy, 0, true},
                                         Plan{"Fsync", Durability::kFsync, 5, true},
                                         Plan{"Always", Durability::kAlways, 1, false},
                                         Plan{"Compressing", Durability::kFsync, 5, true, true}),
                         [](const auto& parameter) { return parameter.param.name; });

TEST_P(Crash, PowerFailsAtEveryByteOfEveryWrite) {
  Program program(GetParam());
  ASSERT_TRUE(program.run(kBatches, 0));
  ASSERT_TRUE(program.run(3, 0));
  CrashDirectory directory(program.disk);
  bool compressed = false;
  const std::vector<uint64_t> sequences = list_segments(directory).value();
  for (uint64_t sequence : sequences)
    compressed |=
        SegmentReader::open(*directory.open(segment_name(sequence), OpenMode::kRead)).value()->compressed();
  EXPECT_EQ(compressed, GetParam().compresses);
  Crashes crashes(1);
  crashes.visit(program, 0, false, "powered off");
  expect_seen(crashes, 5000);
}

TEST_P(Crash, ADiskThatSyncsNothingLosesAnEndOrIsRefused) {
  Program program(GetParam());
  ASSERT_TRUE(program.run(kBatches, 0));
  Crashes crashes(17);
  crashes.visit(program, 0, true, "lied to");
  expect_seen(crashes, 1000);
}

// A killed process leaves what it wrote in the kernel's cache: the next one sees it, and it may be lost yet.
TEST_P(Crash, PowerFailsAfterAKillAtEveryEvent) {
  Crashes crashes(97);
  bool killed = true;
  for (size_t events = 0; killed && crashes.violations < 5; ++events) {
    Program program(GetParam());
    program.disk->die_after(events);
    killed = !program.run(20, 0);
    program.disk->revive();
    size_t from = program.disk->trace().size();
    ASSERT_TRUE(program.run(4, 0)) << events;
    crashes.visit(program, from, false, fmt::format("killed after {} events", events));
  }
  expect_seen(crashes, 5000);
}

// After a failed sync the kernel calls pages clean that never reached the disk.
TEST_P(Crash, PowerFailsAfterASyncFailed) {
  visit_after([](CrashDisk& disk, size_t n) { disk.fail_sync(n, EIO); }, 5000);
}

TEST_P(Crash, PowerFailsAfterASyncOfTheDirectoryFailed) {
  visit_after([](CrashDisk& disk, size_t n) { disk.fail_directory_sync(n, EIO); }, 2000);
}

}  // namespace
}  // namespace reprise::journal

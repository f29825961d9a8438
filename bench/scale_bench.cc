// A long journal: what it takes on the disk, and what opening it, finding one batch in it and checking all of
// it cost. The history is of a small tree that is changed over and over: files are created, written, renamed
// and removed.
//
// 200,000 operations, or as many as REPRISE_BENCH_OPERATIONS says.
#include <benchmark/benchmark.h>
#include <fmt/format.h>
#include <sys/stat.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <random>
#include <thread>

#include "bench/memory.h"
#include "bench/paired.h"
#include "bench/scratch_folder.h"
#include "fs/guest.h"
#include "instance/instance.h"
#include "journal/segments_cursor.h"
#include "journal/verify.h"

namespace reprise::bench {
namespace {

constexpr int kSeeks = 2000;

uint64_t operations_wanted() {
  const char* asked = std::getenv("REPRISE_BENCH_OPERATIONS");
  return asked != nullptr ? std::strtoull(asked, nullptr, 10) : 200'000;
}

double file_bytes(const std::string& folder) {
  double bytes = 0;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(folder))
    if (entry.is_regular_file()) bytes += static_cast<double>(entry.file_size());
  return bytes;
}

class LongJournal {
 public:
  void measure(Rows& rows) {
    CHECK(store::Store::create(store_path_, system_random().next_id<VolumeId>()));
    add(rows, "record", timed(1, [&] { record(); }));
    Row& record_row = rows["record"];
    record_row.counters["operations"] = static_cast<double>(operations_);
    record_row.counters["journal_bytes"] = journal_bytes_;
    record_row.counters["files_bytes"] = file_bytes(journal_folder());
    record_row.counters["segments"] = segments_;
    open_and_seek(rows);
    open_after_kill(rows);
    verify(rows);
  }

 private:
  static void add(Rows& rows, const std::string& row, double ns) { rows[row].ns.push_back(ns); }

  std::unique_ptr<instance::Instance> open() {
    auto instance = instance::Instance::open(*store::Store::open(store_path_), {});
    CHECK(instance);
    return std::move(*instance);
  }

  void change_files(instance::Instance& instance, const std::function<bool()>& goes_on) {
    fs::Guest guest(instance.filesystem());
    std::mt19937 chance(1);
    constexpr uint64_t kNames = 5000;
    for (uint64_t i = 0; goes_on(); ++i) {
      std::string path = fmt::format("/file-{}", chance() % kNames), other = path + ".old";
      CHECK(guest.write_file(path, fmt::format("version {} of it", i)));
      CHECK(guest.rename(path, other));
      CHECK(guest.write_file(path, "little"));
      CHECK(guest.chmod(path, 0600));
      CHECK(guest.unlink(other));
      operations_ += 7;
    }
  }

  void record() {
    auto instance = open();
    const uint64_t wanted = operations_wanted();
    change_files(*instance, [&] { return operations_ < wanted; });
    CHECK(instance->sync());
    for (auto files = instance->journal().files(); files->compressed + 1 < files->segments.size();
         files = instance->journal().files())
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
    segments_ = static_cast<double>(instance->journal().files()->segments.size());
    journal_bytes_ = static_cast<double>(instance->journal().bytes_from(1).value());
    volume_ = instance->volume();
    CHECK(instance->close());
  }

  void open_and_seek(Rows& rows) {
    std::unique_ptr<instance::Instance> instance;
    double peak = peak_of([&] { add(rows, "open", timed(1, [&] { instance = open(); })); });
    rows["open"].counters["peak_bytes"] = peak;
    journal::Journal& journal = instance->journal();
    std::mt19937_64 chance(2);
    std::vector<double> each;
    peak = peak_of([&] {
      for (int i = 0; i < kSeeks; ++i) {
        each.push_back(timed(1, [&] {
          LogIndex index = 1 + chance() % journal.last();
          auto logged = journal.read(index)->next();
          CHECK(logged && *logged && (*logged)->index == index);
        }));
      }
    });
    std::ranges::sort(each);
    add(rows, "seek", each[each.size() / 2]);
    rows["seek"].counters["p99_us"] = each[each.size() * 99 / 100] / 1000;
    rows["seek"].counters["peak_bytes"] = peak;
  }

  std::filesystem::path last_segment() const {
    std::filesystem::path last;
    for (const auto& entry : std::filesystem::directory_iterator(journal_folder()))
      if (entry.path().extension() == ".seg") last = std::max(last, entry.path());
    return last;
  }

  // As far behind the last checkpoint as an instance that is tended ever gets, and then no close.
  void open_after_kill(Rows& rows) {
    auto instance = open();
    const LogIndex from = instance->journal().last();
    const instance::Retention retention;
    const uint64_t wanted = 2 * operations_;
    change_files(*instance, [&] {
      return operations_ < wanted && instance->journal().last() - from < retention.reopen_batches &&
             instance->journal().bytes_from(from + 1).value() < retention.reopen_bytes;
    });
    CHECK(instance->sync());
    Row& row = rows["open_after_kill"];
    row.counters["behind_checkpoint_batches"] = static_cast<double>(instance->journal().last() - from);
    row.counters["behind_checkpoint_bytes"] =
        static_cast<double>(instance->journal().bytes_from(from + 1).value());
    // What the journal closes when its owner goes, a killed process would not have closed.
    const auto tail = last_segment(), kept = std::filesystem::path(tail) += ".kept";
    std::filesystem::copy_file(tail, kept);
    instance.reset();
    std::filesystem::rename(kept, tail);
    row.counters["peak_bytes"] =
        peak_of([&] { add(rows, "open_after_kill", timed(1, [&] { instance = open(); })); });
    CHECK(!instance->open_report().recovery.clean_close);
  }

  void verify(Rows& rows) {
    auto directory = *open_host_directory(journal_folder());
    double peak = peak_of([&] {
      add(rows, "verify", timed(1, [&] {
            auto report = journal::verify_journal(*directory, {volume_, "main"}, 0);
            CHECK(report && !report->problem && report->first == 1);
          }));
    });
    rows["verify"].counters["peak_bytes"] = peak;
  }

  std::string journal_folder() const {
    for (const auto& entry : std::filesystem::recursive_directory_iterator(store_path_))
      if (entry.path().extension() == ".seg") return entry.path().parent_path();
    CHECK(false);
    return {};
  }

  const ScratchFolder folder_;
  const std::string store_path_ = folder_ / "store";
  VolumeId volume_;
  uint64_t operations_ = 0;
  double journal_bytes_ = 0, segments_ = 0;
};

const bool registered = [] {
  register_rows("long_journal", {"record", "open", "seek", "open_after_kill", "verify"}, 1,
                [](Rows& rows) { LongJournal().measure(rows); });
  return true;
}();

}  // namespace
}  // namespace reprise::bench

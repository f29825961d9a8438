// What is left behind by forks that are joined or discarded, again and again, by one process that goes on.
//
// A parent with 1,000 small files, in memory and in a store on tmpfs, through the C interface as a host has
// it; each cycle forks it, writes one small file there, closes it, and joins or discards it. Beside it
// `cp_a`: such a directory on tmpfs copied and removed, which is how it is set aside without branches.
// REPRISE_BENCH_CYCLES says how many cycles (2,000; in memory ten times as many). A row's time is that of a
// cycle; `first_us` and `last_us` are those of the first and of the last tenth of them. The counters say what
// there was after the first tenth and at the end: memory of the process, its descriptors and threads, bytes
// of the store. Flat is what they should be.
#include <benchmark/benchmark.h>
#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>

#include "adapters/capi/reprise.hpp"
#include "base/check.h"
#include "bench/memory.h"
#include "bench/paired.h"
#include "bench/scratch_folder.h"

namespace reprise::bench {
namespace {

size_t cycles() {
  const char* asked = std::getenv("REPRISE_BENCH_CYCLES");
  return std::max<size_t>(asked != nullptr ? std::strtoull(asked, nullptr, 10) : 2'000, 10);
}

double entries_of(const char* directory) {
  double count = 0;
  for ([[maybe_unused]] const auto& entry : std::filesystem::directory_iterator(directory)) count++;
  return count;
}

double bytes_below(const std::string& directory) {
  double bytes = 0;
  std::error_code gone;  // a file that is being replaced
  for (const auto& entry : std::filesystem::recursive_directory_iterator(directory)) {
    if (!entry.is_regular_file(gone)) continue;
    auto size = entry.file_size(gone);
    if (!gone) bytes += static_cast<double>(size);
  }
  return bytes;
}

void look(Row& row, const std::string& when, const std::string& store) {
  row.counters[when + "_memory_kB"] = anonymous_bytes() / 1e3;
  row.counters[when + "_descriptors"] = entries_of("/proc/self/fd");
  row.counters[when + "_threads"] = entries_of("/proc/self/task");
  if (!store.empty()) row.counters[when + "_store_kB"] = bytes_below(store) / 1e3;
}

void cycle(Instance& parent, size_t number, bool joins) {
  {
    Instance child = parent.fork("try");
    Guest(child).write_file("/file" + std::to_string(number % 1'000), std::to_string(number));
    child.close();
  }
  if (joins) {
    parent.join("try");
  } else {
    parent.discard("try");
  }
}

constexpr int kFiles = 1'000;
constexpr size_t kFileBytes = 2'000;

void measure(Rows& rows, const std::string& name, bool in_memory, bool joins) {
  ScratchFolder folder(kSharedMemory);
  const std::string store = in_memory ? "" : folder / "store";
  Instance parent = in_memory ? Instance() : Instance(store);
  {
    Guest guest(parent);
    for (int file = 0; file < kFiles; file++)
      guest.write_file("/file" + std::to_string(file), std::string(kFileBytes, 'x'));
  }
  const size_t tenth = cycles() * (in_memory ? 10 : 1) / 10;
  Row& row = rows[name];
  size_t number = 0;
  auto some = [&](size_t count) {
    return timed(count, [&] {
      for (size_t i = 0; i < count; i++) cycle(parent, number++, joins);
    });
  };
  double first_ns = some(tenth);
  look(row, "first", store);
  double middle_ns = some(8 * tenth), last_ns = some(tenth);
  look(row, "last", store);
  row.ns.push_back((first_ns + 8 * middle_ns + last_ns) / 10);
  row.counters["first_us"] = first_ns / 1e3;
  row.counters["last_us"] = last_ns / 1e3;
}

void copy_aside(Rows& rows) {
  ScratchFolder folder(kSharedMemory);
  std::filesystem::create_directory(folder / "from");
  for (int file = 0; file < kFiles; file++)
    std::ofstream(folder / fmt::format("from/file{}", file)) << std::string(kFileBytes, 'x');
  const std::string copy = fmt::format("cp -a '{0}' '{1}' && rm -r '{1}'", folder / "from", folder / "to");
  constexpr size_t kCopies = 20;
  rows["cp_a"].ns.push_back(timed(kCopies, [&] {
    for (size_t i = 0; i < kCopies; i++) CHECK(std::system(copy.c_str()) == 0);
  }));
}

[[maybe_unused]] const bool kRegistered = [] {
  for (bool in_memory : {true, false}) {
    for (bool joins : {true, false}) {
      std::string name = fmt::format("{}_{}", in_memory ? "memory" : "store", joins ? "join" : "discard");
      register_rows("fork_cycles", {name}, 1, [=](Rows& rows) { measure(rows, name, in_memory, joins); });
    }
  }
  register_rows("fork_cycles", {"cp_a"}, 1, copy_aside);
  return true;
}();

}  // namespace
}  // namespace reprise::bench

// A script tried on a branch: fork, open, write a file, close; then join, or discard, or the instance is
// given back without being closed, as a crash would, and discarded. Of a volume of 1,000 files in memory, and
// of one in a store on tmpfs. `grown_kB` and `grown_fds`: what the process has more of after the last cycle
// than after the first tenth. Beside it `cp_a`, which is how a directory is set aside without branches.
#include <fmt/format.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <utility>

#include "base/check.h"
#include "bench/memory.h"
#include "bench/paired.h"
#include "bench/scratch_folder.h"
#include "fs/guest.h"
#include "instance/instance.h"

namespace reprise::bench {
namespace {

constexpr int kFiles = 1000;
constexpr size_t kFileBytes = 1024;

enum class End { kJoin, kDiscard, kCrash };

size_t cycles() {
  const char* asked = std::getenv("REPRISE_BENCH_CYCLES");
  return asked != nullptr ? std::strtoull(asked, nullptr, 10) : 1000;
}

double descriptors() {
  return static_cast<double>(std::distance(std::filesystem::directory_iterator("/proc/self/fd"), {}));
}

void one_cycle(instance::Instance& parent, const std::shared_ptr<store::Store>& store, End end, size_t n) {
  CHECK(parent.fork("try"));
  auto child = *instance::Instance::open(store, {.branch = "try"});
  CHECK(
      fs::Guest(child->filesystem()).write_file(fmt::format("/file-{}", n % kFiles), "written in the fork"));
  if (end != End::kCrash) CHECK(child->close());
  child.reset();
  if (end == End::kJoin) {
    auto joined = parent.join("try");
    CHECK(joined && joined->conflicts.empty());
  } else {
    CHECK(instance::discard_branch(*store, "try", {}));
  }
}

void measure_cycles(Rows& rows, const std::string& name, const std::shared_ptr<store::Store>& store,
                    End end) {
  auto parent = *instance::Instance::open(store, {});
  {
    fs::Guest guest(parent->filesystem());
    for (int i = 0; i < kFiles; i++)
      CHECK(guest.write_file(fmt::format("/file-{}", i), std::string(kFileBytes, 'x')));
  }
  const size_t all = cycles(), first = all / 10;
  for (size_t n = 0; n < first; n++) one_cycle(*parent, store, end, n);
  const double bytes = resident_bytes(), fds = descriptors();
  rows[name].ns.push_back(timed(all - first, [&] {
    for (size_t n = first; n < all; n++) one_cycle(*parent, store, end, n);
  }));
  rows[name].counters = {{"grown_kB", (resident_bytes() - bytes) / 1024}, {"grown_fds", descriptors() - fds}};
  CHECK(parent->close());
}

void copy_aside(Rows& rows) {
  ScratchFolder folder(kSharedMemory);
  std::filesystem::create_directory(folder / "from");
  for (int i = 0; i < kFiles; i++)
    std::ofstream(folder / fmt::format("from/file-{}", i)) << std::string(kFileBytes, 'x');
  const std::string copy = fmt::format("cp -a '{0}' '{1}' && rm -r '{1}'", folder / "from", folder / "to");
  constexpr size_t kCopies = 20;
  rows["cp_a"].ns.push_back(timed(kCopies, [&] {
    for (size_t i = 0; i < kCopies; i++) CHECK(std::system(copy.c_str()) == 0);
  }));
}

void branch(Rows& rows, bool in_memory) {
  constexpr std::pair<const char*, End> kEnds[] = {
      {"join", End::kJoin}, {"discard", End::kDiscard}, {"crash", End::kCrash}};
  for (const auto& [name, end] : kEnds) {
    VolumeId volume = system_random().next_id<VolumeId>();
    ScratchFolder folder(kSharedMemory);
    measure_cycles(
        rows, name,
        in_memory ? store::Store::in_memory(volume) : *store::Store::create(folder / "store", volume), end);
  }
  copy_aside(rows);
}

const bool registered = [] {
  const std::vector<std::string> rows{"join", "discard", "crash", "cp_a"};
  register_rows("branch_in_memory", rows, 3, [](Rows& to) { branch(to, true); });
  register_rows("branch_on_disk", rows, 3, [](Rows& to) { branch(to, false); });
  return true;
}();

}  // namespace
}  // namespace reprise::bench

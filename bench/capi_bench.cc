// What the C interface adds to a call, and what an instance and a guest that do nothing take.
//
// `capi`: the same calls through libreprise and put to an fs::Guest directly; and std::filesystem's on tmpfs,
// where it has one (`std_` rows: libreprise against that). `capi_idle`: bytes of memory for each of 1,000
// instances in memory, and of 100,000 guests on one.
#include <fcntl.h>

#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "adapters/capi/reprise.h"
#include "base/check.h"
#include "bench/memory.h"
#include "bench/paired.h"
#include "bench/scratch_folder.h"
#include "fs/guest.h"

namespace reprise::bench {
namespace {

constexpr size_t kCalls = 200'000;

void capi(Pairs& pairs, bool ours_first) {
  ScratchFolder folder(kSharedMemory);
  std::ofstream(folder / "file") << std::string(1024, 'x');
  const std::filesystem::path host_path = folder / "file";

  reprise_instance* instance = nullptr;
  reprise_guest* guest = nullptr;
  CHECK(reprise_instance_open(nullptr, nullptr, &instance) == 0);
  CHECK(reprise_guest_attach(instance, nullptr, &guest) == 0);
  auto ids = fs::local_inode_ids();
  fs::Filesystem filesystem(fs::Head::create(Timestamp{}), system_clock(), *ids);
  fs::Guest direct(filesystem);
  std::string text(1024, 'x');
  CHECK(reprise_write_file(guest, "/file", text.data(), text.size(), 0644) == 0);
  CHECK(direct.write_file("/file", text));
  int fd = reprise_open(guest, "/file", O_RDWR, 0), direct_fd = *direct.open("/file", O_RDWR);
  char into[1024];
  ByteSpan span(reinterpret_cast<std::byte*>(into), sizeof into);

  auto measure = [&](const char* row, const auto& ours, const auto& other) {
    auto run = [](const auto& call) {
      return timed(kCalls, [&] {
        for (size_t i = 0; i < kCalls; ++i) CHECK(call());
      });
    };
    if (ours_first) pairs[row].ours.push_back(run(ours));
    pairs[row].other.push_back(run(other));
    if (!ours_first) pairs[row].ours.push_back(run(ours));
  };
  reprise_attributes attributes;
  auto stat = [&] { return reprise_stat(guest, "/file", &attributes) == 0; };
  measure("stat", stat, [&] { return direct.stat("/file").has_value(); });
  measure(
      "pread_64", [&] { return reprise_pread(guest, fd, into, 64, 0) == 64; },
      [&] { return direct.pread(direct_fd, span.first(64), 0) == 64u; });
  measure(
      "pread_1k", [&] { return reprise_pread(guest, fd, into, 1024, 0) == 1024; },
      [&] { return direct.pread(direct_fd, span, 0) == 1024u; });
  measure(
      "seek", [&] { return reprise_seek(guest, fd, 5, SEEK_SET) == 5; },
      [&] { return direct.seek(direct_fd, 5, SEEK_SET) == 5; });
  measure("std_stat", stat,
          [&] { return std::filesystem::status(host_path).type() == std::filesystem::file_type::regular; });
  measure("std_size", stat, [&] { return std::filesystem::file_size(host_path) == 1024; });
  reprise_close(guest, fd);
  CHECK(reprise_guest_detach(guest) == 0 && reprise_instance_close(instance) == 0);
}

void idle(Rows& rows) {
  constexpr size_t kInstances = 1000, kGuests = 100'000;
  double before = resident_bytes();
  std::vector<reprise_instance*> instances(kInstances);
  rows["instance"].ns.push_back(timed(kInstances, [&] {
    for (auto& instance : instances) CHECK(reprise_instance_open(nullptr, nullptr, &instance) == 0);
  }));
  rows["instance"].counters["bytes"] = (resident_bytes() - before) / kInstances;
  before = resident_bytes();
  std::vector<reprise_guest*> guests(kGuests);
  rows["guest"].ns.push_back(timed(kGuests, [&] {
    for (auto& guest : guests) CHECK(reprise_guest_attach(instances[0], nullptr, &guest) == 0);
  }));
  rows["guest"].counters["bytes"] = (resident_bytes() - before) / kGuests;
  for (auto* guest : guests) CHECK(reprise_guest_detach(guest) == 0);
  for (auto* instance : instances) CHECK(reprise_instance_close(instance) == 0);
}

const bool registered = [] {
  register_pairs("capi", {"stat", "pread_64", "pread_1k", "seek", "std_stat", "std_size"}, 5, capi);
  register_rows("capi_idle", {"instance", "guest"}, 1, idle);
  return true;
}();

}  // namespace
}  // namespace reprise::bench

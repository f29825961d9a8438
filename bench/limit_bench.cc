// A limit at full speed: a guest overwrites 4 MiB of files in pieces of 64 KiB as fast as it may, without a
// pause, in an instance that is tended as a live one, while another thread adds up what the files of the
// store take. Rows: without a limit, and with one; `largest_MB` is the most that was seen, `of_limit` the
// part of the limit, `longest_ms` the longest write. What is written does not compress.
#include <fmt/format.h>

#include <atomic>
#include <cstdlib>
#include <filesystem>
#include <random>
#include <thread>

#include "base/check.h"
#include "bench/paired.h"
#include "bench/scratch_folder.h"
#include "fs/guest.h"
#include "instance/instance.h"
#include "instance/keeper.h"

namespace reprise::bench {
namespace {

constexpr size_t kPiece = 64 << 10, kFileBytes = 256 << 10;
constexpr int kFiles = 16;

uint64_t bytes_wanted() {
  const char* asked = std::getenv("REPRISE_BENCH_LIMIT_MB");
  return (asked != nullptr ? std::strtoull(asked, nullptr, 10) : 64) << 20;
}

uint64_t bytes_of_files(const std::string& folder) {
  uint64_t bytes = 0;
  std::error_code gone;  // files come and go meanwhile
  for (std::filesystem::recursive_directory_iterator at(folder, gone), end; at != end; at.increment(gone)) {
    if (gone) break;
    std::error_code failed;
    if (at->is_regular_file(failed)) {
      auto size = at->file_size(failed);
      if (!failed) bytes += size;
    }
  }
  return bytes;
}

// Another content each time, and never one that compresses.
class Pieces {
 public:
  Pieces() : bytes_(kPiece + kVariety) {
    std::mt19937_64 random(1);
    for (size_t i = 0; i + 8 <= bytes_.size(); i += 8) store_value(bytes_.data() + i, random());
  }
  ByteView next() {
    ++count_;
    const size_t from = count_ * 8 % kVariety;
    for (size_t at = 0; at < kPiece; at += 4096) store_value(bytes_.data() + from + at, count_ * kPiece + at);
    return ByteView(bytes_).subspan(from, kPiece);
  }

 private:
  static constexpr size_t kVariety = 4 << 20;
  Bytes bytes_;
  uint64_t count_ = 0;
};

void write_at_full_speed(Rows& rows, const std::string& name, const instance::Retention& retention,
                         uint64_t limit) {
  ScratchFolder place;
  std::string path = place / "store";
  std::shared_ptr<store::Store> store = *store::Store::create(path, system_random().next_id<VolumeId>());
  auto instance = *instance::Instance::open(store, {.retention = retention});
  uint64_t largest = 0, longest_ns = 0;
  const uint64_t wanted = bytes_wanted();
  Row& row = rows[name];
  {
    instance::Keeper keeper(*instance, [] { return std::vector<journal::Vector>(); });
    std::jthread sampler([&](const std::stop_token& stop) {
      while (!stop.stop_requested()) {
        const std::string measured = retention.journal_bytes != 0 ? path + "/branches" : path;
        largest = std::max(largest, bytes_of_files(measured));
        std::this_thread::sleep_for(std::chrono::milliseconds(1));
      }
    });
    fs::Guest guest(instance->filesystem());
    std::vector<int> files;
    for (int i = 0; i < kFiles; ++i)
      files.push_back(*guest.open(fmt::format("/file-{}", i), O_CREAT | O_WRONLY));
    Pieces pieces;
    row.ns.push_back(timed(wanted >> 20, [&] {
      for (uint64_t done = 0; done < wanted; done += kPiece) {
        const uint64_t begin = system_clock().monotonic_ns();
        CHECK(guest.pwrite(files[done / kFileBytes % kFiles], pieces.next(), done % kFileBytes));
        longest_ns = std::max(longest_ns, system_clock().monotonic_ns() - begin);
      }
      CHECK(instance->sync());
    }));
  }
  CHECK(instance->close());
  auto largest_MB = static_cast<double>(largest) / (1 << 20);
  row.counters = {{"largest_MB", largest_MB},
                  {"longest_ms", static_cast<double>(longest_ns) / 1e6},
                  {"MB_per_s", 1e9 / row.ns.back()}};
  if (limit != 0) row.counters["of_limit"] = static_cast<double>(largest) / static_cast<double>(limit);
}

constexpr uint64_t kLimits_MB[] = {16, 64, 256};

void measure(Rows& rows, uint64_t instance::Retention::* which) {
  write_at_full_speed(rows, "none", {}, 0);
  for (uint64_t limit_MB : kLimits_MB) {
    instance::Retention retention;
    retention.*which = limit_MB << 20;
    write_at_full_speed(rows, fmt::format("{}M", limit_MB), retention, limit_MB << 20);
  }
}

const bool registered = [] {
  const std::vector<std::string> rows{"none", "16M", "64M", "256M"};
  register_rows("store_limit", rows, 1, [](Rows& to) { measure(to, &instance::Retention::store_bytes); });
  register_rows("journal_limit", rows, 1, [](Rows& to) { measure(to, &instance::Retention::journal_bytes); });
  return true;
}();

}  // namespace
}  // namespace reprise::bench

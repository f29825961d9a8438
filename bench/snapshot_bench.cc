// A second snapshot against the share of files that have changed since the first.
#include <fmt/format.h>

#include <array>
#include <random>

#include "base/check.h"
#include "bench/paired.h"
#include "bench/scratch_folder.h"
#include "fs/tree.h"
#include "instance/snapshots.h"

namespace reprise::bench {
namespace {

constexpr size_t kFiles = 3000, kFilesPerDirectory = 100;
constexpr std::array<size_t, 8> kShares = {0, 1, 5, 10, 25, 50, 75, 100};  // per cent

// Half of it can be compressed.
std::string some_bytes(std::mt19937_64& random) {
  std::lognormal_distribution<double> sizes(9.2, 1.0);
  std::string bytes(static_cast<size_t>(std::min(sizes(random), 1e6)) + 1, '\0');
  for (size_t i = 0; i < bytes.size(); i += 2) bytes[i] = static_cast<char>(random());
  return bytes;
}

class Growing {
 public:
  Growing() {
    uint64_t next = kRootInode.value;
    InodeId directory;
    for (size_t i = 0; i < kFiles; i++) {
      if (i % kFilesPerDirectory == 0) {
        directory = {++next};
        apply(fs::Create{
            .parent = kRootInode, .name = fmt::format("d{}", i), .inode = directory, .mode = S_IFDIR | 0755});
      }
      files_.push_back({++next});
      apply(fs::Create{.parent = directory,
                       .name = fmt::format("f{}", i),
                       .inode = files_.back(),
                       .mode = S_IFREG | 0644});
      apply(fs::Write{.inode = files_.back(), .offset = 0, .data = as_bytes(some_bytes(random_))});
    }
    head_.settle();
  }

  struct Taken {
    double ns;
    uint64_t stored_bytes;
  };
  Taken take() {
    store::SnapshotRecord record{.branch = "main", .log_index = 1, .digest = head_.digest()};
    Taken taken{};
    taken.ns = timed(1, [&] {
      auto captured = instance::capture_snapshot(*store_, head_.view(), record);
      CHECK(captured);
      taken.stored_bytes = captured->stored_bytes;
    });
    return taken;
  }
  // Other bytes for so many of a hundred files, from `base` on: in a row, or here and there.
  void change(const fs::View& base, size_t share, bool in_a_row) {
    head_ = fs::Head(base);
    for (size_t i = 0; i < kFiles; i++) {
      const size_t place = in_a_row ? i * 100 / kFiles : i * 7919 % 100;
      if (place >= share) continue;
      apply(fs::Truncate{.inode = files_[i], .size = 0});
      apply(fs::Write{.inode = files_[i], .offset = 0, .data = as_bytes(some_bytes(random_))});
    }
    head_.settle();
  }
  fs::View view() const { return head_.view(); }

 private:
  void apply(const fs::Operation& operation) { CHECK(head_.apply(operation)); }

  ScratchFolder folder_;
  std::unique_ptr<store::Store> store_ =
      store::Store::create(folder_ / "store", system_random().next_id<VolumeId>()).value();
  std::mt19937_64 random_{7};
  fs::Head head_ = fs::Head::create({1'700'000'000, 0});
  std::vector<InodeId> files_;
};

void register_second() {
  std::vector<std::string> rows = {"first"};
  for (size_t share : kShares)
    for (const char* where : {"in_a_row", "scattered"}) rows.push_back(fmt::format("{}/{}", where, share));
  register_rows("snapshot", rows, 3, [](Rows& found) {
    Growing tree;
    const auto first = tree.take();
    found["first"].ns.push_back(first.ns);
    found["first"].counters["MB"] = static_cast<double>(first.stored_bytes) / 1e6;
    const fs::View base = tree.view();
    for (size_t share : kShares) {
      for (bool in_a_row : {true, false}) {
        tree.change(base, share, in_a_row);
        const auto second = tree.take();
        Row& row = found[fmt::format("{}/{}", in_a_row ? "in_a_row" : "scattered", share)];
        row.ns.push_back(second.ns);
        row.counters["time_percent"] = second.ns / first.ns * 100;
        row.counters["bytes_percent"] =
            static_cast<double>(second.stored_bytes) / static_cast<double>(first.stored_bytes) * 100;
      }
    }
  });
}

const bool registered = (register_second(), true);

}  // namespace
}  // namespace reprise::bench

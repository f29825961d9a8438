// Trees of many files: what a file takes, what views, forks, differences and digests cost as trees grow.
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <optional>
#include <random>
#include <string>

#include "base/check.h"
#include "bench/memory.h"
#include "bench/paired.h"
#include "bench/scratch_folder.h"
#include "fs/diff.h"
#include "fs/tree.h"

namespace reprise::bench {
namespace {

constexpr size_t kFilesPerDirectory = 1000;
constexpr size_t kNameBytes = 15;

// A tree of empty files by operations, as a replayer makes it: `file(i)` is the i-th, in `directory(i)`.
class Forest {
 public:
  explicit Forest(size_t files) : files_(files), head_(fs::Head::create(Timestamp{})) {
    for (size_t i = 0; i < files; i++) {
      if (i % kFilesPerDirectory == 0)
        apply(fs::Create{.parent = kRootInode,
                         .name = fmt::format("d{}", i / kFilesPerDirectory),
                         .inode = directory(i),
                         .mode = S_IFDIR | 0755});
      apply(fs::Create{.parent = directory(i), .name = name(i), .inode = file(i), .mode = S_IFREG | 0644});
    }
    head_.settle();
  }

  fs::Head& head() { return head_; }
  size_t random_file() { return random_() % files_; }
  InodeId file(size_t i) const { return {(uint64_t{1} << 32) + i}; }
  InodeId directory(size_t i) const { return {2 + i / kFilesPerDirectory}; }
  static std::string name(size_t i) { return fmt::format("{:0{}}", i, kNameBytes); }

  fs::Operation chmod(size_t i) {
    using Set = fs::SetAttributes;
    return Set{.inode = file(i), .mask = Set::kMode, .mode = static_cast<uint32_t>(random_() & 0777)};
  }
  static void apply(fs::Head& head, const fs::Operation& operation) { CHECK(head.apply(operation)); }
  void apply(const fs::Operation& operation) { apply(head_, operation); }

 private:
  size_t files_;
  std::mt19937_64 random_{5};
  fs::Head head_;
};

// Makes the tree; what it takes is the most of all rounds: later ones use memory again that the pools have
// kept.
void make(std::optional<Forest>& forest, size_t files, Row& row) {
  double before = resident_bytes();
  double peak = peak_of([&] { row.ns.push_back(timed(files, [&] { forest.emplace(files); })); });
  auto keep_most = [&](const char* counter, double value) {
    row.counters[counter] = std::max(row.counters[counter], value);
  };
  keep_most("peak_MB", peak / 1e6);
  keep_most("bytes_per_file", (resident_bytes() - before) / static_cast<double>(files));
}

// What the kernel takes for the same files on tmpfs. Only of many: what else it does meanwhile counts, too.
double tmpfs_bytes_per_file(size_t files) {
  ScratchFolder folder(kSharedMemory);
  double before = kernel_bytes();
  for (size_t i = 0; i < files; i++) {
    std::string directory = folder / fmt::format("d{}", i / kFilesPerDirectory);
    if (i % kFilesPerDirectory == 0) CHECK(::mkdir(directory.c_str(), 0755) == 0);
    int fd =
        ::open((directory + "/" + Forest::name(i)).c_str(), O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0644);
    CHECK(fd >= 0 && ::close(fd) == 0);
  }
  return (kernel_bytes() - before) / static_cast<double>(files);
}

constexpr std::array<size_t, 4> kTreeSizes = {1000, 10'000, 100'000, 1'000'000};

void register_growth() {
  std::vector<std::string> rows;
  for (size_t files : kTreeSizes) {
    for (const char* row : {"create", "view", "fork", "first_1000_writes", "next_1000_writes",
                            "diff_100_chmod", "diff_100_rename", "digest_after_1", "digest_after_1000"})
      rows.push_back(fmt::format("{}/{}", row, files));
  }
  register_rows("tree", rows, 3, [](Rows& found) {
    for (size_t files : kTreeSizes) {
      auto row = [&](const char* name) -> Row& { return found[fmt::format("{}/{}", name, files)]; };
      std::optional<Forest> forest;
      make(forest, files, row("create"));
      if (Row& create = row("create"); files >= 100'000 && create.ns.size() == 1)
        create.counters["tmpfs_bytes_per_file"] = tmpfs_bytes_per_file(files);

      constexpr size_t kViews = 100'000;
      row("view").ns.push_back(timed(kViews, [&] {
        for (size_t i = 0; i < kViews; i++) fs::View view = forest->head().view();
      }));
      fs::View base = forest->head().view();
      row("fork").ns.push_back(timed(kViews, [&] {
        for (size_t i = 0; i < kViews; i++) fs::Head fork(base);
      }));

      // The same number of changes in the fork and, not shared, again.
      constexpr size_t kWrites = 1000;
      fs::Head fork(base);
      auto change_some = [&] {
        for (size_t i = 0; i < kWrites; i++) Forest::apply(fork, forest->chmod(forest->random_file()));
      };
      row("first_1000_writes").ns.push_back(timed(kWrites, change_some));
      row("next_1000_writes").ns.push_back(timed(kWrites, change_some));
      fork.settle();

      auto diff_once = [&](const fs::Head& changed) {
        size_t count = 0;
        double ns = timed(1, [&] {
          fs::for_each_changed_inode(base, changed, [&](const fs::ChangedInode& change) {
            count++;
            if (change.names)
              fs::for_each_changed_name(base, changed, change.inode, [&](const fs::ChangedName&) {
                count++;
                return true;
              });
            return true;
          });
        });
        CHECK(count >= 100);
        return ns;
      };
      fs::Head modes(base), names(base);
      for (size_t i = 0; i < 100; i++) {
        Forest::apply(modes, forest->chmod(i * (files / 100)));
        size_t file = i * (files / 100) + 7;
        std::string old_name = Forest::name(file), new_name = "renamed" + old_name;
        Forest::apply(names, fs::Rename{.old_parent = forest->directory(file),
                                        .old_name = old_name,
                                        .new_parent = forest->directory(file),
                                        .new_name = new_name,
                                        .inode = forest->file(file)});
      }
      row("diff_100_chmod").ns.push_back(diff_once(modes));
      row("diff_100_rename").ns.push_back(diff_once(names));

      for (size_t changes : {1, 1000}) {
        std::vector<double> samples;
        for (int i = 0; i < 21; i++) {
          for (size_t j = 0; j < changes; j++) Forest::apply(fork, forest->chmod(forest->random_file()));
          samples.push_back(timed(1, [&] { fork.settle(); }));
        }
        std::ranges::sort(samples);
        Row& digest = row(changes == 1 ? "digest_after_1" : "digest_after_1000");
        digest.ns.push_back(samples[samples.size() / 2]);
        digest.counters["per_change"] = samples[samples.size() / 2] / static_cast<double>(changes);
      }
    }
  });
}

const bool registered = [] {
  register_growth();
  return true;
}();

}  // namespace
}  // namespace reprise::bench

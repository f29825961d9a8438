// A tree of 3,000 files in and out: import and export, each beside the tool one would use for the same files.
//
// All is on tmpfs. Ours go between a tree in memory and a directory, a tar or a ZIP; `cp -a`, `tar`, `zip`
// and `unzip` go between two of these. What they write is removed outside the clock. Times are those of one
// file.
#include <fmt/format.h>

#include <cstdlib>
#include <filesystem>
#include <random>

#include "base/check.h"
#include "base/host_stream.h"
#include "bench/paired.h"
#include "bench/scratch_folder.h"
#include "snapshot/export.h"
#include "snapshot/import.h"

namespace reprise::bench {
namespace {

constexpr int kFiles = 3000, kFilesPerDirectory = 30;

// Words, so that they pack as source code does.
std::string text(uint64_t seed, size_t bytes) {
  static constexpr std::string_view kWords[] = {"function", " return", "$this->", "array(",
                                                ");\n",     "    ",    "if (",    ") {\n"};
  std::mt19937_64 random(seed);
  std::string out;
  while (out.size() < bytes) out += kWords[random() % std::size(kWords)];
  out.resize(bytes);
  return out;
}

fs::Head make_tree() {
  fs::Head head = fs::Head::create({1'700'000'000, 0});
  Timestamp time{1'700'000'000, 0};
  uint64_t next = 2;
  InodeId directory;
  for (int i = 0; i < kFiles; i++) {
    if (i % kFilesPerDirectory == 0) {
      directory = InodeId{next++};
      std::string name = fmt::format("d{:03}", i / kFilesPerDirectory);
      CHECK(head.apply(fs::Create{.parent = kRootInode,
                                  .name = name,
                                  .inode = directory,
                                  .mode = S_IFDIR | 0755,
                                  .target = {},
                                  .time = time}));
    }
    InodeId file{next++};
    std::string name = fmt::format("f{:04}.php", i), bytes = text(next, 200 + next * 7919 % 8000);
    CHECK(head.apply(fs::Create{.parent = directory,
                                .name = name,
                                .inode = file,
                                .mode = S_IFREG | 0644,
                                .target = {},
                                .time = time}));
    CHECK(head.apply(fs::Write{file, 0, as_bytes(bytes), time}));
  }
  return head;
}

class InAndOut {
 public:
  InAndOut() {
    CHECK(snapshot::export_directory(tree_, kRootInode, folder_ / "dir", {}, system_random()));
    shell("tar -C dir -cf t.tar . && cd dir && zip -qr ../t.zip .");
  }

  void measure(Pairs& pairs, bool ours_first) {
    compare(pairs["import_directory"], ours_first, [&] { import("dir"); }, "cp -a dir out");
    compare(pairs["import_tar"], ours_first, [&] { import("t.tar"); }, "mkdir out && tar -C out -xf t.tar");
    compare(pairs["import_zip"], ours_first, [&] { import("t.zip"); }, "unzip -q t.zip -d out");
    compare(
        pairs["export_directory"], ours_first,
        [&] { CHECK(snapshot::export_directory(tree_, kRootInode, folder_ / "out", {}, system_random())); },
        "cp -a dir out");
    compare(
        pairs["export_tar"], ours_first,
        [&] {
          auto file = StagedFile::begin(folder_ / "out", system_random());
          CHECK(file && snapshot::export_tar(tree_, kRootInode, **file, {}) && (*file)->publish());
        },
        "tar -C dir -cf out .");
    compare(
        pairs["export_zip"], ours_first,
        [&] {
          auto file = StagedFile::begin(folder_ / "out", system_random());
          CHECK(file && snapshot::export_zip(tree_, kRootInode, (*file)->file(), {}) && (*file)->publish());
        },
        "cd dir && zip -qr ../out.zip . && mv ../out.zip ../out");
  }

 private:
  void compare(Pair& pair, bool ours_first, const std::function<void()>& ours, const std::string& other) {
    for (bool is_ours : {ours_first, !ours_first}) {
      (is_ours ? pair.ours : pair.other).push_back(timed(kFiles, [&] { is_ours ? ours() : shell(other); }));
      std::filesystem::remove_all(folder_ / "out");
    }
  }
  void import(const std::string& name) {
    fs::Head head = fs::Head::create({});
    auto done = name == "dir" ? snapshot::import_directory_into(head, folder_ / name, {})
                              : snapshot::import_archive(head, folder_ / name, {});
    CHECK(done && done->entries == kFiles + kFiles / kFilesPerDirectory);
  }
  void shell(const std::string& command) const {
    CHECK(std::system(fmt::format("cd {} && {}", folder_.path(), command).c_str()) ==
          0);  // NOLINT(concurrency-mt-unsafe)
  }

  const ScratchFolder folder_{kSharedMemory};
  const fs::Head tree_ = make_tree();
};

const bool registered = [] {
  register_pairs(
      "archive",
      {"import_directory", "import_tar", "import_zip", "export_directory", "export_tar", "export_zip"}, 7,
      [](Pairs& pairs, bool ours_first) {
        static InAndOut tree;
        tree.measure(pairs, ours_first);
      });
  return true;
}();

}  // namespace
}  // namespace reprise::bench

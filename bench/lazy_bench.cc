// An instance that opens on a snapshot of a store, and a state that is read without one: of which what is
// touched is read, beside one that is read whole.
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <random>

#include "base/check.h"
#include "bench/paired.h"
#include "bench/scratch_folder.h"
#include "fs/guest.h"
#include "instance/history.h"
#include "instance/instance.h"
#include "instance/snapshots.h"

namespace reprise::bench {
namespace {

constexpr size_t kFilesPerDirectory = 1000;
constexpr std::string_view kText = "a file of some thirty bytes\n";

std::string name_of(size_t file) {
  return fmt::format("/d{}/{:015}", file / kFilesPerDirectory, file);
}

// As a store has it that was closed.
void keep(store::Store& store, const fs::Head& head) {
  journal::Vector vector;
  vector.set(system_random().next_id<OriginId>(), 1);
  store::SnapshotRecord record;
  record.branch = "main";
  record.log_index = 0;  // the journal behind it is empty
  record.lamport = 1;
  record.vector = vector.encode();
  record.digest = head.digest();
  CHECK(instance::capture_snapshot(store, head.view(), record));
  CHECK(store.journal_directory("main"));
}

// Files of a line each.
void fill(store::Store& store, size_t files) {
  fs::Head head = fs::Head::create({1'700'000'000, 0});
  auto apply = [&](const fs::Operation& operation) { CHECK(head.apply(operation)); };
  uint64_t next = kRootInode.value;
  InodeId directory;
  for (size_t i = 0; i < files; i++) {
    if (i % kFilesPerDirectory == 0) {
      directory = {++next};
      apply(fs::Create{.parent = kRootInode,
                       .name = fmt::format("d{}", i / kFilesPerDirectory),
                       .inode = directory,
                       .mode = S_IFDIR | 0755});
    }
    const std::string path = name_of(i);
    const InodeId file{++next};
    apply(fs::Create{.parent = directory,
                     .name = std::string_view(path).substr(path.rfind('/') + 1),
                     .inode = file,
                     .mode = S_IFREG | 0644});
    apply(fs::Write{.inode = file, .offset = 0, .data = as_bytes(kText)});
  }
  head.settle();
  keep(store, head);
}

double seconds_since(std::chrono::steady_clock::time_point begin) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

std::unique_ptr<instance::Instance> open_instance(const std::string& path, instance::Opening opening) {
  std::shared_ptr<store::Store> store = store::Store::open(path).value();
  instance::InstanceOptions options;
  options.opening = opening;
  options.holder = {::getpid(), "reprise-bench"};
  return instance::Instance::open(store, std::move(options)).value();
}

// Of one opening, one stat and one read of another file, by nanoseconds.
struct Times {
  double open, stat, read;
};

Times open_and_read(const std::string& path, size_t files, instance::Opening opening) {
  std::mt19937_64 random(files);
  auto begin = std::chrono::steady_clock::now();
  auto lap = [&] {
    const double ns = seconds_since(begin) * 1e9;
    begin = std::chrono::steady_clock::now();
    return ns;
  };
  Times times;
  auto instance = open_instance(path, opening);
  times.open = lap();
  CHECK(instance->open_report().lazily == (opening == instance::Opening::kLazily));
  fs::Guest guest(instance->filesystem());
  CHECK(guest.stat(name_of(random() % files)));
  times.stat = lap();
  auto text = guest.read_file(name_of(random() % files));
  times.read = lap();
  CHECK(text && as_text(as_bytes(*text)) == kText);
  return times;
}

// One file of a stored state, as `cat` reads it without an instance; nanoseconds.
double read_of_state(const std::string& path, size_t files, bool lazily) {
  auto begin = std::chrono::steady_clock::now();
  std::shared_ptr<store::Store> store = store::Store::open(path, store::Access::kRead).value();
  auto state = lazily ? instance::open_state_at(store, "main", {}) : instance::state_at(*store, "main", {});
  CHECK(state && state->head.partial() == lazily);
  auto ids = fs::local_inode_ids();
  fs::Filesystem filesystem(std::move(state->head), system_clock(), *ids);
  auto text = fs::Guest(filesystem).read_file(name_of(files / 2));
  const double ns = seconds_since(begin) * 1e9;
  CHECK(text && as_text(as_bytes(*text)) == kText);
  return ns;
}

// All names and attributes of an instance that has just been opened, as `find -size` asks for them;
// nanoseconds with the opening.
double walk(const std::string& path, size_t files, bool lazily) {
  auto begin = std::chrono::steady_clock::now();
  auto instance = open_instance(path, lazily ? instance::Opening::kLazily : instance::Opening::kWhole);
  fs::Filesystem& filesystem = instance->filesystem();
  std::vector<InodeId> open{kRootInode};
  size_t found = 0;
  while (!open.empty()) {
    const InodeId directory = open.back();
    open.pop_back();
    CHECK(filesystem.read_directory({}, directory, 0, true,
                                    [&](const fs::Dentry& entry, const fs::Attributes* attributes) {
                                      if (entry.name == "." || entry.name == "..") return true;
                                      if (attributes->is_directory()) open.push_back(entry.inode);
                                      found += attributes->is_regular();
                                      return true;
                                    }));
  }
  CHECK(found == files);
  return seconds_since(begin) * 1e9;
}

// A file of this size, half of whose bytes are random, in a store that was closed.
constexpr uint64_t kLargeFile = uint64_t{1} << 30;

void fill_large(store::Store& store) {
  fs::Head head = fs::Head::create({1'700'000'000, 0});
  const InodeId file{kRootInode.value + 1};
  CHECK(head.apply(fs::Create{.parent = kRootInode, .name = "large", .inode = file, .mode = S_IFREG | 0644}));
  std::mt19937_64 random(1);
  Bytes piece(1 << 20);
  for (uint64_t offset = 0; offset < kLargeFile; offset += piece.size()) {
    for (size_t i = 0; i + 16 <= piece.size(); i += 16) store_value(piece.data() + i, random());
    CHECK(head.apply(fs::Write{.inode = file, .offset = offset, .data = piece}));
  }
  head.settle();
  keep(store, head);
}

// The first 4 KiB anywhere in the file, and all of it from the beginning on; nanoseconds with the opening.
std::pair<double, double> read_large(const std::string& path, bool lazily) {
  auto begin = std::chrono::steady_clock::now();
  auto instance = open_instance(path, lazily ? instance::Opening::kLazily : instance::Opening::kWhole);
  fs::Filesystem& filesystem = instance->filesystem();
  const InodeId file = fs::Guest(filesystem).stat("/large")->inode;
  Bytes piece(128 << 10);
  CHECK(filesystem.read(file, kLargeFile / 3, ByteSpan(piece).first(4096)) == 4096u);
  const double first = seconds_since(begin) * 1e9;
  for (uint64_t offset = 0; offset < kLargeFile; offset += piece.size())
    CHECK(filesystem.read(file, offset, piece) == piece.size());
  return {first, seconds_since(begin) * 1e9};
}

constexpr std::array<size_t, 3> kSizes = {10'000, 100'000, 1'000'000};

void register_openings() {
  std::vector<std::string> rows;
  for (size_t files : kSizes)
    for (const char* row : {"open", "first_stat", "first_read", "all", "read_of_state", "walk"})
      rows.push_back(fmt::format("{}/{}", row, files));
  auto scratch = std::make_shared<std::unique_ptr<ScratchFolder>>();
  register_pairs("lazy", rows, 3, [scratch](Pairs& pairs, bool lazily_first) {
    if (*scratch == nullptr) {
      *scratch = std::make_unique<ScratchFolder>();
      for (size_t files : kSizes) {
        auto store =
            store::Store::create(**scratch / std::to_string(files), system_random().next_id<VolumeId>());
        CHECK(store);
        fill(**store, files);
      }
    }
    for (size_t files : kSizes) {
      for (int i = 0; i < 2; i++) {
        const bool lazily = (i == 0) == lazily_first;
        Times times = open_and_read(**scratch / std::to_string(files), files,
                                    lazily ? instance::Opening::kLazily : instance::Opening::kWhole);
        auto add = [&](const char* row, double ns) {
          Pair& pair = pairs[fmt::format("{}/{}", row, files)];
          (lazily ? pair.ours : pair.other).push_back(ns);
        };
        add("open", times.open);
        add("first_stat", times.stat);
        add("first_read", times.read);
        add("all", times.open + times.stat + times.read);
        add("read_of_state", read_of_state(**scratch / std::to_string(files), files, lazily));
        add("walk", walk(**scratch / std::to_string(files), files, lazily));
      }
    }
  });
}

void register_large_file() {
  auto scratch = std::make_shared<std::unique_ptr<ScratchFolder>>();
  register_pairs("lazy_file", {"first_read", "all"}, 5, [scratch](Pairs& pairs, bool lazily_first) {
    if (*scratch == nullptr) {
      *scratch = std::make_unique<ScratchFolder>();
      auto store = store::Store::create(**scratch / "large", system_random().next_id<VolumeId>());
      CHECK(store);
      fill_large(**store);
    }
    for (int i = 0; i < 2; i++) {
      const bool lazily = (i == 0) == lazily_first;
      const auto [first, all] = read_large(**scratch / "large", lazily);
      auto add = [&](const char* row, double ns) {
        (lazily ? pairs[row].ours : pairs[row].other).push_back(ns);
      };
      add("first_read", first);
      add("all", all);
    }
  });
}

const bool registered = (register_openings(), register_large_file(), true);

}  // namespace
}  // namespace reprise::bench

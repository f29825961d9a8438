// How long until a peer process has the changes: by replay, by full overwrite, and with the tools one would
// use instead.
//
// All rows begin with a peer that has the old tree and end when every byte of the new one can be read there.
// The tree has 3,000 files, about 60 MB, and a 5 MB database; what changes between two measurements is the
// argument: N files rewritten, one page of the database (two blocks: the page and the header), or (`install`)
// a plugin of 685 files in 40 directories, 1.8 MB, and such a page. Ours keep both trees in memory in two
// processes; tar and rsync keep both on tmpfs, where their bytes never touch a disk either.
#include <benchmark/benchmark.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <random>

#include "bench/must.h"
#include "bench/peer_process.h"
#include "fs/guest.h"
#include "instance/instance.h"
#include "replay/leader.h"

namespace reprise::bench {
namespace {

constexpr int kFiles = 3000;
constexpr int kFilesPerDirectory = 30;
constexpr size_t kDatabaseBytes = 5 << 20;
constexpr int kOnePage = 0;  // the argument that stands for "one page of the database"
constexpr int kInstall = -1;
constexpr int kPluginFiles = 685, kPluginDirectories = 40;

// Text that compresses like source code does; different for every seed.
std::string text(uint64_t seed, size_t bytes) {
  static constexpr std::string_view kWords[] = {
      "function", " return", " $this->", "array(", "'post'",  ");\n", "    ", "public ",
      "static ",  "if (",    ") {\n",    "}\n\n",  "foreach", " as ", "null", "true"};
  std::mt19937_64 random(seed);
  std::string out;
  out.reserve(bytes + 16);
  while (out.size() < bytes) {
    uint64_t bits = random();
    for (int i = 0; i < 12; i++, bits >>= 4) out += kWords[bits & 15];
    out += fmt::format("{:x}", bits);
  }
  out.resize(bytes);
  return out;
}

std::string path_of(int file) {
  return fmt::format("d{:03}/f{:04}.php", file / kFilesPerDirectory, file);
}

// Sizes as in a real tree: many small, few large, 20 kB on average.
size_t size_of(int file) {
  std::mt19937_64 random(static_cast<uint64_t>(file));
  std::lognormal_distribution<double> size(8.9, 1.35);
  return std::clamp<size_t>(static_cast<size_t>(size(random)), 100, 400'000);
}

// Both worlds with the same tree: ours (a leader here, a follower in the peer process), and two directories
// on tmpfs.
class World {
 public:
  World() {
    char name[] = "/dev/shm/reprise-bench-XXXXXX";
    if (mkdtemp(name) == nullptr) die("cannot make a folder in /dev/shm");
    folder_ = name;
    peer_ = PeerProcess::fork(folder_ + "/leader");
    store_ = store::Store::in_memory(system_random().next_id<VolumeId>());
    leader_instance_ = must(instance::Instance::open(store_, {}));
    guest_ = std::make_unique<fs::Guest>(leader_instance_->filesystem());
    std::filesystem::create_directories(folder_ + "/new");
    for (int file = 0; file < kFiles; file++) {
      if (file % kFilesPerDirectory == 0) {
        std::string directory = path_of(file).substr(0, 4);
        must(guest_->mkdir("/" + directory), directory);
        std::filesystem::create_directory(folder_ + "/new/" + directory);
      }
      write_file(path_of(file), text(static_cast<uint64_t>(file), size_of(file)));
    }
    write_file("site.sqlite", text(77, kDatabaseBytes));
    leader_ = must(replay::Leader::listen(system_network(), {Endpoint::Kind::kUnix, folder_ + "/leader"},
                                          *leader_instance_, system_clock(), {.keeps_trees = false}));
    peer_->catch_up();
    peer_->disconnect();
    shell("cp -a new old");
  }
  ~World() {
    peer_.reset();
    leader_.reset();
    std::filesystem::remove_all(folder_);
  }

  // The next change, on both sides.
  void change(int files) {
    generation_++;
    if (files == kInstall) install();
    if (files == kOnePage || files == kInstall) {
      std::string page = text(generation_, 4096);
      write_at("site.sqlite", 4096 * (1 + generation_ * 37 % 1000), page);
      write_at("site.sqlite", 0, page);
      return;
    }
    for (int i = 0; i < files; i++) {
      int file = static_cast<int>((generation_ * 7919 + static_cast<uint64_t>(i) * 3) % kFiles);
      write_file(path_of(file), text(generation_ * kFiles + static_cast<uint64_t>(i), size_of(file)));
    }
  }

  // What there was of the last installation goes, on all sides.
  void prepare(int files) {
    if (files != kInstall || !std::filesystem::exists(folder_ + "/new/plugin")) return;
    for (int file = 0; file < kPluginFiles; file++) must(guest_->unlink("/" + plugin_path(file)), "unlink");
    for (int i = 0; i < kPluginDirectories; i++)
      must(guest_->rmdir(fmt::format("/plugin/{:02}", i)), "rmdir");
    must(guest_->rmdir("/plugin"), "rmdir");
    peer_->catch_up();
    peer_->disconnect();
    shell("rm -rf old/plugin new/plugin");
  }

  void trim_journal() {
    replay::Moment moment = must(leader_instance_->settle());
    must(leader_instance_->journal().trim(moment.log_index + 1));
  }
  PeerProcess& peer() { return *peer_; }
  bool peer_equals() { return peer_->digest() == leader_instance_->filesystem().digest(); }
  void shell(const std::string& command) {
    if (std::system(("cd " + folder_ + " && " + command).c_str()) != 0) die("failed: " + command);
  }

 private:
  static std::string plugin_path(int file) {
    return fmt::format("plugin/{:02}/f{:03}.php", file % kPluginDirectories, file);
  }
  void install() {
    auto mkdir = [&](const std::string& path) {
      must(guest_->mkdir("/" + path), path);
      std::filesystem::create_directory(folder_ + "/new/" + path);
    };
    mkdir("plugin");
    for (int i = 0; i < kPluginDirectories; i++) mkdir(fmt::format("plugin/{:02}", i));
    for (int file = 0; file < kPluginFiles; file++)
      write_file(plugin_path(file), text(generation_ * kFiles + static_cast<uint64_t>(file),
                                         300 + size_of(file) * 2300 / 20'000));
  }
  void write_file(const std::string& path, const std::string& bytes) {
    must(guest_->write_file("/" + path, bytes), path);
    int fd = ::open((folder_ + "/new/" + path).c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (fd < 0 || ::write(fd, bytes.data(), bytes.size()) != static_cast<ssize_t>(bytes.size()))
      die("cannot write " + path);
    ::close(fd);
  }
  void write_at(const std::string& path, uint64_t offset, const std::string& bytes) {
    auto fd = guest_->open("/" + path, O_WRONLY);
    must(fd, path);
    must(guest_->pwrite(*fd, as_bytes(bytes), static_cast<int64_t>(offset)), path);
    must(guest_->close(*fd), path);
    int host = ::open((folder_ + "/new/" + path).c_str(), O_WRONLY | O_CLOEXEC);
    if (host < 0 || ::pwrite(host, bytes.data(), bytes.size(), static_cast<off_t>(offset)) !=
                        static_cast<ssize_t>(bytes.size())) {
      die("cannot write " + path);
    }
    ::close(host);
  }

  std::string folder_;
  uint64_t generation_ = 0;
  std::unique_ptr<PeerProcess> peer_;
  std::shared_ptr<store::Store> store_;
  std::unique_ptr<instance::Instance> leader_instance_;
  std::unique_ptr<fs::Guest> guest_;
  std::unique_ptr<replay::Leader> leader_;
};

World& world() {
  static World world;
  return world;
}

// Runs `bring` between a change and a look whether it arrived, and times only it.
template <class Bring>
void measure(benchmark::State& state, const Bring& bring) {
  for (auto unused : state) {
    (void)unused;
    world().prepare(static_cast<int>(state.range(0)));
    world().change(static_cast<int>(state.range(0)));
    uint64_t begin_ns = system_clock().monotonic_ns();
    bring();
    state.SetIterationTime(static_cast<double>(system_clock().monotonic_ns() - begin_ns) / 1e9);
  }
}

void ours(benchmark::State& state, bool overwrite) {
  PeerProcess::CaughtUp last;
  uint64_t bytes = 0;
  for (auto unused : state) {
    (void)unused;
    world().prepare(static_cast<int>(state.range(0)));
    world().change(static_cast<int>(state.range(0)));
    if (overwrite) world().trim_journal();
    uint64_t begin_ns = system_clock().monotonic_ns();
    last = world().peer().catch_up();
    state.SetIterationTime(static_cast<double>(system_clock().monotonic_ns() - begin_ns) / 1e9);
    bytes += last.received_bytes;
    world().peer().disconnect();
    if (last.tier != (overwrite ? replay::Tier::kSnapshot : replay::Tier::kSuffix))
      state.SkipWithError("caught up another way than was to be measured");
    if (!world().peer_equals()) state.SkipWithError("the peer's tree differs");
  }
  state.counters["shipped"] =
      benchmark::Counter(static_cast<double>(bytes), benchmark::Counter::kAvgIterations);
}

void replay_to_peer(benchmark::State& state) {
  ours(state, false);
}
void overwrite_peer(benchmark::State& state) {
  ours(state, true);
}

void tar_to_tar(benchmark::State& state) {
  measure(state, [] { world().shell("tar cf - -C new . | tar xf - -C old"); });
}
void rsync_a(benchmark::State& state) {
  // Without whole seconds in between, rsync's quick check (size and time) would miss a change: compare by
  // checksum only where it must, which here is nowhere, because times have nanoseconds.
  measure(state, [] { world().shell("rsync -a new/ old/"); });
}

void arguments(benchmark::internal::Benchmark* row) {
  row->ArgName("files")
      ->Arg(1)
      ->Arg(10)
      ->Arg(100)
      ->Arg(1000)
      ->Arg(kOnePage)
      ->Arg(kInstall)
      ->UseManualTime()
      ->Unit(benchmark::kMillisecond)
      ->Iterations(7);
}

BENCHMARK(replay_to_peer)->Apply(arguments);
BENCHMARK(overwrite_peer)->Apply(arguments);
BENCHMARK(tar_to_tar)->Apply(arguments);
BENCHMARK(rsync_a)->Apply(arguments);

}  // namespace

}  // namespace reprise::bench

// What recording costs the guest that is recorded: the same calls on a filesystem without a sink
// ("detached"), with a recorder before a journal in files on tmpfs, and with one whose every call is closed
// into a batch of its own, as it is while a reader waits at the end of the journal. bytes/op are of encoded
// batches.
//
// CPU is the guest's thread alone. Time has in it what the thread waited for the journal.
#include <benchmark/benchmark.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <cstdlib>
#include <filesystem>
#include <thread>

#include "base/check.h"
#include "base/disk.h"
#include "base/hash.h"
#include "bench/scratch_folder.h"
#include "fs/filesystem.h"
#include "journal/recorder.h"

namespace reprise::bench {
namespace {

enum class Sink { kDetached, kRecorded, kBatchEachCall };

// A filesystem with files in one directory, and what is behind it.
class Recorded {
 public:
  explicit Recorded(Sink sink) : sink_(sink) {
    journal_ = std::move(*journal::Journal::open(
        std::move(*open_host_directory(folder_.path())), {VolumeId{.hi = 1, .lo = 2}, "main"},
        {.backlog_bytes = uint64_t{16} << 20}, system_random(), 0, nullptr));
    recorder_ = journal::Recorder::create(*journal_, system_clock(), system_random(), {}, 0, {});
    filesystem_ = std::make_unique<fs::Filesystem>(fs::Head::create({}), system_clock(), *recorder_,
                                                   sink == Sink::kDetached ? nullptr : recorder_.get());
  }
  ~Recorded() {
    filesystem_.reset();
    recorder_.reset();
    journal_.reset();
  }

  fs::Filesystem& filesystem() { return *filesystem_; }
  void end_call() {
    if (sink_ == Sink::kBatchEachCall) CHECK(recorder_->flush());
  }
  void report(benchmark::State& state, LogIndex from) {
    state.SetItemsProcessed(state.iterations());
    if (sink_ == Sink::kDetached) return;
    CHECK(recorder_->flush());
    auto operations = static_cast<double>(state.iterations());
    state.counters["bytes/op"] = static_cast<double>(*journal_->bytes_from(from)) / operations;
    state.counters["ops/batch"] = operations / static_cast<double>(journal_->last() - from + 1);
  }
  LogIndex next() {
    CHECK(recorder_->flush());
    return journal_->last() + 1;
  }
  // Until the journal's thread has written everything.
  void rest() {
    if (sink_ != Sink::kDetached) CHECK(journal_->sync(*recorder_->flush()));
  }

 private:
  Sink sink_;
  const ScratchFolder folder_{kSharedMemory};
  std::unique_ptr<journal::Journal> journal_;
  std::unique_ptr<journal::Recorder> recorder_;
  std::unique_ptr<fs::Filesystem> filesystem_;
};

constexpr int kFiles = 50'000;
const fs::Caller kCaller;

std::vector<std::string> names() {
  std::vector<std::string> names;
  names.reserve(kFiles);
  for (int i = 0; i < kFiles; ++i) names.push_back(fmt::format("some-file-{:05}", i));
  return names;
}

void create(benchmark::State& state, Sink sink) {
  const std::vector<std::string> name = names();
  Recorded recorded(sink);
  fs::Filesystem& filesystem = recorded.filesystem();
  LogIndex from = recorded.next();
  InodeId directory = kRootInode;
  size_t i = 0;
  for ([[maybe_unused]] auto _ : state) {
    if (i == kFiles) {
      state.PauseTiming();
      static int number = 0;
      directory = filesystem.make_directory(kCaller, kRootInode, fmt::format("d{}", number++), 0755)->inode;
      i = 0;
      state.ResumeTiming();
    }
    CHECK(filesystem.make_node(kCaller, directory, name[i++], S_IFREG | 0644, 0));
    recorded.end_call();
  }
  recorded.report(state, from);
}

void rename(benchmark::State& state, Sink sink) {
  const std::vector<std::string> name = names();
  Recorded recorded(sink);
  fs::Filesystem& filesystem = recorded.filesystem();
  for (int i = 0; i < kFiles; i += 2)
    CHECK(filesystem.make_node(kCaller, kRootInode, name[i], S_IFREG | 0644, 0));
  LogIndex from = recorded.next();
  size_t i = 0, back = 0;
  for ([[maybe_unused]] auto _ : state) {
    CHECK(filesystem.rename(kCaller, kRootInode, name[i + back], kRootInode, name[i + 1 - back]));
    recorded.end_call();
    i += 2;
    if (i == kFiles) i = 0, back ^= 1;
  }
  recorded.report(state, from);
}

void change_mode(benchmark::State& state, Sink sink) {
  Recorded recorded(sink);
  fs::Filesystem& filesystem = recorded.filesystem();
  std::vector<InodeId> inodes;
  for (const std::string& name : names())
    inodes.push_back(filesystem.make_node(kCaller, kRootInode, name, S_IFREG | 0644, 0)->inode);
  LogIndex from = recorded.next();
  size_t i = 0;
  for ([[maybe_unused]] auto _ : state) {
    CHECK(filesystem.set_attributes(kCaller, inodes[i % kFiles],
                                    {.mode = 0600 + i / kFiles % 8, .uid = {}, .gid = {}, .size = {}}));
    recorded.end_call();
    ++i;
  }
  recorded.report(state, from);
}

// In bursts after which the journal's thread may finish, and to a file that stays in the cache: what is
// measured is the call, not the memory of the machine or the speed of tmpfs.
void write_block(benchmark::State& state, Sink sink) {
  constexpr size_t kBlocks = 128, kBurst = 256;
  Recorded recorded(sink);
  fs::Filesystem& filesystem = recorded.filesystem();
  InodeId file = filesystem.make_node(kCaller, kRootInode, "file", S_IFREG | 0644, 0)->inode;
  Bytes block(4096, std::byte{'x'});
  for (size_t i = 0; i < kBlocks; ++i) CHECK(filesystem.write(kCaller, file, i * block.size(), block));
  LogIndex from = recorded.next();
  size_t i = 0;
  for ([[maybe_unused]] auto _ : state) {
    if (i % kBurst == 0) {
      state.PauseTiming();
      recorded.rest();
      state.ResumeTiming();
    }
    CHECK(filesystem.write(kCaller, file, i++ % kBlocks * block.size(), block));
    recorded.end_call();
  }
  recorded.report(state, from);
}

// What a write of 4 KiB may cost more when it is recorded, besides 80 ns: a copy into memory that was used
// before. What is recorded is read by another thread, so the same once more with memory that another has read
// since: the processor that copies has to fetch it back from the other one's cache.
void copy_block(benchmark::State& state, bool handed_over) {
  constexpr size_t kBlocks = 256;
  Bytes from(4096, std::byte{'x'}), to(kBlocks * 4096);
  std::atomic<uint64_t> sum{0}, atomic{0};
  size_t i = 0;
  for ([[maybe_unused]] auto _ : state) {
    if (handed_over && i % kBlocks == 0) {
      state.PauseTiming();
      std::jthread([&] { sum += hash64(to); }).join();
      state.ResumeTiming();
    }
    std::memcpy(to.data() + i++ % kBlocks * 4096, from.data(), 4096);
    atomic.fetch_add(1);  // waits for the bytes, as the locks of a call do
    benchmark::DoNotOptimize(to.data());
    benchmark::ClobberMemory();
  }
}

constexpr int kMetadataCalls = 400'000, kWrites = 100'000;
#define RECORD_ROWS(operation, calls)                                                        \
  BENCHMARK_CAPTURE(operation, detached, Sink::kDetached)->Iterations(calls)->UseRealTime(); \
  BENCHMARK_CAPTURE(operation, recorded, Sink::kRecorded)->Iterations(calls)->UseRealTime(); \
  BENCHMARK_CAPTURE(operation, batch_each_call, Sink::kBatchEachCall)->Iterations(calls)->UseRealTime()
RECORD_ROWS(create, kMetadataCalls);
RECORD_ROWS(rename, kMetadataCalls);
RECORD_ROWS(change_mode, kMetadataCalls);
RECORD_ROWS(write_block, kWrites);
BENCHMARK_CAPTURE(copy_block, own, false)->Iterations(kWrites)->UseRealTime();
BENCHMARK_CAPTURE(copy_block, handed_over, true)->Iterations(kWrites)->UseRealTime();

}  // namespace
}  // namespace reprise::bench

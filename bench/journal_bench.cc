// What the journal itself does, without a filesystem before it.
//
// `append`: writes of 4 KiB through a recorder until the disk has them, against write(2) of the same bytes to
// a file beside it and one fdatasync.
// `read_segment`: a cursor over all batches of a segment in the page cache, checked and parsed, against a
// memcpy of as many bytes; per KiB.
// `size`: bytes a create and a rename take in a segment, as written and as zstd leaves them once it has
// ended, and in the lines that `reprise log` prints of them.
// `peer_position`: where to begin for a peer that lacks the last batch of a full segment in which two origins
// take turns, so that nothing tells where but its headers.
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zstd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <random>
#include <thread>

#include "base/check.h"
#include "base/disk.h"
#include "bench/paired.h"
#include "bench/scratch_folder.h"
#include "journal/recorder.h"

namespace reprise::bench {
namespace {

constexpr size_t kBlock = 4096;

// A journal of one segment, with who writes it.
class Recording {
 public:
  explicit Recording(const std::string& folder)
      : journal_(*journal::Journal::open(*open_host_directory(folder), {VolumeId{.hi = 1, .lo = 2}, "main"},
                                         {.segment_bytes = uint64_t{1} << 40}, system_random(), 0, nullptr)),
        recorder_(journal::Recorder::create(*journal_, system_clock(), system_random(), {}, 0, {})) {}

  void record(const fs::Operation& operation) {
    CHECK(recorder_->reserve(kBlock));
    recorder_->record(operation, "request 42");
    CHECK(recorder_->end_call());
  }
  void sync() { CHECK(journal_->sync(*recorder_->flush())); }
  journal::Journal& journal() { return *journal_; }

 private:
  std::unique_ptr<journal::Journal> journal_;
  std::unique_ptr<journal::Recorder> recorder_;
};

Bytes random_bytes(size_t size) {
  std::mt19937_64 random(1);
  Bytes bytes(size);
  for (size_t i = 0; i + 8 <= size; i += 8) store_value(bytes.data() + i, random());
  return bytes;
}

void append(Pairs& pairs, bool ours_first) {
  constexpr size_t kWrites = 8192;
  static const Bytes data = random_bytes(256 * kBlock);
  auto block = [](size_t i) { return ByteView(data).subspan(i % 256 * kBlock, kBlock); };
  ScratchFolder folder;
  auto ours = [&] {
    Recording recording(folder.path());
    pairs["4KiB"].ours.push_back(timed(kWrites, [&] {
      for (size_t i = 0; i < kWrites; ++i)
        recording.record(fs::Write{.inode = {9}, .offset = i * kBlock, .data = block(i), .time = {}});
      recording.sync();
    }));
  };
  auto raw = [&] {
    int fd = ::open((folder.path() + "/raw").c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    CHECK(fd >= 0 && ::fsync(fd) == 0);
    pairs["4KiB"].other.push_back(timed(kWrites, [&] {
      for (size_t i = 0; i < kWrites; ++i)
        CHECK(::write(fd, block(i).data(), kBlock) == static_cast<ssize_t>(kBlock));
      CHECK(::fdatasync(fd) == 0);
    }));
    ::close(fd);
  };
  if (ours_first) ours();
  raw();
  if (!ours_first) ours();
}

// --- metadata

constexpr int kFiles = 50'000, kFilesPerDirectory = 100;
constexpr Timestamp kBegin{.sec = 1'800'000'000, .nsec = 1};

struct History {
  struct Step {
    fs::Operation operation;
    std::string path, path_to;
  };
  std::vector<std::string> names, new_names;
  std::vector<Step> creates, renames;

  // Names and moments as a program that installs or caches something makes them: alike, not regular.
  History() {
    static constexpr const char* kWords[] = {"class", "view",  "index", "cache",
                                             "block", "style", "admin", "post"};
    std::mt19937 random(1);
    Timestamp time = kBegin;
    auto inode = [](int file) { return InodeId::make(0x1234567890, static_cast<uint32_t>(file) + 1); };
    for (int file = 0; file < kFiles; ++file) {
      const char* word = kWords[random() % std::size(kWords)];
      names.push_back(fmt::format("{}-{:06x}.tmp", word, random() % (1 << 24)));
      new_names.push_back(fmt::format("{}-{:06x}.php", word, random() % (1 << 24)));
    }
    for (int file = 0; file < kFiles; ++file) {
      InodeId parent = inode(kFiles + file / kFilesPerDirectory);
      std::string directory = fmt::format("/directory-{:03}/", file / kFilesPerDirectory);
      auto at = static_cast<size_t>(file);
      time.nsec += static_cast<uint32_t>(2'000 + random() % 10'000);
      creates.push_back({fs::Create{.parent = parent,
                                    .name = names[at],
                                    .inode = inode(file),
                                    .mode = S_IFREG | 0644,
                                    .time = time},
                         directory + names[at],
                         {}});
      renames.push_back({fs::Rename{.old_parent = parent,
                                    .old_name = names[at],
                                    .new_parent = parent,
                                    .new_name = new_names[at],
                                    .inode = inode(file),
                                    .time = time},
                         directory + names[at], directory + new_names[at]});
    }
  }
};

const History& history() {
  static const History history;
  return history;
}

std::string read_segments(const std::string& folder) {
  std::string bytes;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    std::ifstream file(entry.path(), std::ios::binary);
    bytes.append(std::istreambuf_iterator<char>(file), {});
  }
  return bytes;
}

size_t compressed_bytes(std::string_view bytes) {
  std::string to(ZSTD_compressBound(bytes.size()), '\0');
  size_t size = ZSTD_compress(to.data(), to.size(), bytes.data(), bytes.size(), 3);
  CHECK(ZSTD_isError(size) == 0);
  return size;
}

// As tools/cli/log.cc prints it.
std::string log_line(LogIndex index, const journal::BatchHeader& header, const History::Step& step) {
  std::string_view kind = fs::operation_name(step.operation);
  return fmt::format("{:>7} {}#{:<6} 2027-01-15T08:00:00.{:03}Z {:14} {}{}{}{}  [request 42]\n", index,
                     header.origin.to_short_string(), header.lsn, index % 1000, kind, step.path,
                     step.path_to.empty() ? "" : " -> ", step.path_to,
                     kind == "create" ? " mode=100644" : "");
}

void size(Rows& rows) {
  for (const char* kind : {"create", "rename"}) {
    const auto& steps = kind == std::string_view("create") ? history().creates : history().renames;
    ScratchFolder folder(kSharedMemory);
    std::string text;
    double ns;
    {
      Recording recording(folder.path());
      ns = timed(steps.size(), [&] {
        for (const History::Step& step : steps) recording.record(step.operation);
        recording.sync();
      });
      auto cursor = recording.journal().read(2);  // behind the origin's start
      size_t next = 0;
      for (auto logged = *cursor->next(); logged; logged = *cursor->next()) {
        for (size_t n = logged->batch.operation_count(); n > 0; --n)
          text += log_line(logged->index, logged->batch.header(), steps[next++]);
      }
      CHECK(next == steps.size());
    }
    std::string segments = read_segments(folder.path());
    auto each = [&](size_t bytes) { return static_cast<double>(bytes) / static_cast<double>(steps.size()); };
    rows[kind].ns.push_back(ns);
    rows[kind].counters = {{"segment", each(segments.size())},
                           {"segment_zstd", each(compressed_bytes(segments))},
                           {"text", each(text.size())},
                           {"text_zstd", each(compressed_bytes(text))}};
  }
}

void read_segment(Pairs& pairs, bool) {
  for (const char* row : {"blocks", "metadata"}) {
    ScratchFolder folder(kSharedMemory);
    {
      Recording recording(folder.path());
      if (row == std::string_view("metadata")) {
        for (const History::Step& step : history().creates) recording.record(step.operation);
      } else {
        static const Bytes data = random_bytes(256 * kBlock);
        for (size_t i = 0; i < 8192; ++i)
          recording.record(fs::Write{.inode = {9},
                                     .offset = i * kBlock,
                                     .data = ByteView(data).subspan(i % 256 * kBlock, kBlock),
                                     .time = {}});
      }
      recording.sync();
    }
    Recording recording(folder.path());
    std::string bytes = read_segments(folder.path());
    size_t kibibytes = bytes.size() / 1024, read = 0;
    pairs[row].ours.push_back(timed(kibibytes, [&] {
      auto cursor = recording.journal().read(1);
      for (auto logged = *cursor->next(); logged; logged = *cursor->next())
        read += logged->batch.encoded_bytes();
    }));
    CHECK(read > bytes.size() * 9 / 10 && read < bytes.size());
    std::string to(bytes.size(), 'x');
    pairs[row].other.push_back(timed(kibibytes, [&] { std::memcpy(to.data(), bytes.data(), bytes.size()); }));
    CHECK(to == bytes);
  }
}

void peer_position(Rows& rows) {
  ScratchFolder folder(kSharedMemory);
  journal::JournalOptions options{.compress = false};
  journal::Vector all, but_last;
  LogIndex last = 0;
  auto open = [&] {
    return *journal::Journal::open(*open_host_directory(folder.path()), {VolumeId{.hi = 1, .lo = 2}, "main"},
                                   options, system_random(), 0, nullptr);
  };
  {
    auto journal = open();
    std::unique_ptr<journal::Recorder> two[2];
    for (auto& recorder : two)
      recorder = journal::Recorder::create(*journal, system_clock(), system_random(), {}, 0, {});
    for (size_t i = 0; journal->bytes_from(1).value() < options.segment_bytes * 3 / 4; ++i) {
      journal::Recorder& recorder = *two[i % 2];
      CHECK(recorder.reserve(kBlock));
      recorder.record(history().creates[i % kFiles].operation, "request 42");
      CHECK(recorder.end_call());
      CHECK(recorder.flush());
      but_last = all;
      for (auto& each : two) all.set(each->origin(), each->vector().get(each->origin()));
    }
    last = journal->last();
    CHECK(journal->end_segment());
  }
  for (const char* row : {"plain", "compressed"}) {
    options.compress = row == std::string_view("compressed");
    auto journal = open();
    while (options.compress && journal->files()->compressed == 0)
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    rows[row].ns.push_back(timed(1, [&] { CHECK(journal->position_of(but_last) == last); }));
    rows[row].counters["batches"] = static_cast<double>(last);
  }
}

const bool registered = [] {
  register_pairs("append", {"4KiB"}, 5, append);
  register_pairs("read_segment", {"blocks", "metadata"}, 5, read_segment);
  register_rows("size", {"create", "rename"}, 3, size);
  register_rows("peer_position", {"plain", "compressed"}, 3, peer_position);
  return true;
}();

}  // namespace
}  // namespace reprise::bench

// What the operations of a real history take: in a segment, in one that has ended, and beside it in the lines
// that `reprise log` prints, compressed by zstd in one piece.
//
//   REPRISE_BENCH_HISTORY=STORE REPRISE_BENCH_HISTORY_TEXT=FILE reprise-bench --benchmark_filter=^history/
//
// FILE has what `reprise log STORE` printed. Without them the history is a small one, made by a guest that
// works as git does, and there is no text.
//
// `all`: everything, the text with the bytes of files behind each batch's lines. `metadata`: without the
// bytes of files on either side. `create`, `rename`, …: what one more of these costs, that is, the difference
// that all of them make to `metadata` on each side.
#include <fmt/format.h>
#include <zstd.h>

#include <algorithm>
#include <charconv>
#include <cstdlib>
#include <fstream>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "base/check.h"
#include "bench/paired.h"
#include "bench/scratch_folder.h"
#include "fs/guest.h"
#include "instance/instance.h"
#include "journal/compressed_segment.h"
#include "journal/segments_cursor.h"

namespace reprise::bench {
namespace {

const std::vector<std::string> kKinds = {"create", "rename", "write", "set-attributes", "unlink"};

size_t compressed_bytes(std::string_view bytes) {
  std::string to(ZSTD_compressBound(bytes.size()), '\0');
  size_t size = ZSTD_compress(to.data(), to.size(), bytes.data(), bytes.size(), 3);
  CHECK(ZSTD_isError(size) == 0);
  return size;
}

// As a segment that has ended is: in blocks, each by itself.
size_t sealed_bytes(std::string_view bytes) {
  size_t sum = 0;
  for (size_t at = 0; at < bytes.size(); at += journal::CompressedSegment::kBlockBytes)
    sum += compressed_bytes(bytes.substr(at, journal::CompressedSegment::kBlockBytes));
  return sum;
}

void work_as_git(const std::string& path) {
  auto instance = instance::Instance::open(*store::Store::create(path, VolumeId{.hi = 1, .lo = 2}), {});
  CHECK(instance);
  fs::Guest guest((*instance)->filesystem());
  for (int i = 0; i < 2000; ++i) {
    const std::string object = fmt::format("/{:03x}", i * 2654435761u >> 20);
    CHECK(guest.write_file("/tmp_obj", fmt::format("blob {}{:0>{}}", i, i, i % 300)));
    CHECK(guest.chmod("/tmp_obj", 0444));
    CHECK(guest.rename("/tmp_obj", object));
    if (i % 10 == 9) CHECK(guest.unlink(object));
  }
  CHECK((*instance)->close());
}

// One side of the comparison: bytes that stand for a history.
struct Sides {
  std::string segment, text;
};

class History {
 public:
  explicit History(const std::string& store, const char* text) {
    auto opened = store::Store::open(store, store::Access::kRead);
    CHECK(opened);
    auto journal = (*opened)->journal_directory("main");
    CHECK(journal);
    auto cursor = journal::SegmentsCursor::open(**journal, {(*opened)->volume(), "main"}, 0, 0);
    CHECK(cursor);
    while (auto logged = (*cursor)->next().value()) batches_.push_back(std::move(*logged));
    if (text != nullptr) read_text(text);
  }

  size_t count(std::string_view kind) const {
    size_t count = 0;
    for (const auto& logged : batches_)
      logged.batch.for_each([&](const fs::Operation& o) { count += is(o, kind) ? 1 : 0; });
    return count;
  }
  size_t operation_count() const {
    size_t count = 0;
    for (const auto& logged : batches_) count += logged.batch.operation_count();
    return count;
  }
  bool has_text() const { return !lines_.empty(); }

  Sides all() const {
    Sides sides;
    size_t line = 0;
    for (const auto& logged : batches_) {
      const std::string_view body = as_text(logged.batch.body());
      append_frame_header(sides.segment, logged.index, logged.batch);
      sides.segment += as_text(logged.batch.message());
      sides.segment += body;
      for (; line < lines_.size() && index_of(lines_[line]) == logged.index; ++line)
        sides.text += lines_[line];
      sides.text += body;
    }
    return sides;
  }

  // Without file bytes, and without the operations of this kind; "" for none.
  Sides metadata_without(std::string_view kind) const {
    Sides sides;
    journal::BatchBuilder builder;
    for (const auto& logged : batches_) {
      logged.batch.for_each([&](const fs::Operation& operation) {
        if (!is(operation, kind)) builder.add(operation);
      });
      if (builder.empty()) continue;
      const journal::Batch batch = builder.finish(logged.batch.header());
      append_frame_header(sides.segment, logged.index, batch);
      sides.segment += as_text(batch.message());
    }
    const std::string word = fmt::format(" {} ", kind);
    for (const std::string& line : lines_)
      if (kind.empty() || line.find(word) == std::string::npos) sides.text += line;
    return sides;
  }

 private:
  static bool is(const fs::Operation& operation, std::string_view kind) {
    return fs::operation_name(operation) == kind;
  }
  static LogIndex index_of(const std::string& line) {
    const size_t begin = line.find_first_not_of(' ');
    LogIndex index = 0;
    std::from_chars(line.data() + begin, line.data() + line.size(), index);
    return index;
  }
  // What lies in a frame's header and does not follow from the batch is as hard to compress as it is there.
  static void append_frame_header(std::string& to, LogIndex index, const journal::Batch& batch) {
    Bytes header(journal::kFrameHeaderBytes);
    journal::encode_frame_header({.kind = journal::FrameKind::kBatch,
                                  .message_bytes = static_cast<uint32_t>(batch.message().size()),
                                  .body_bytes = static_cast<uint32_t>(batch.body().size()),
                                  .index = index,
                                  .durable_through = index - 1,
                                  .origin = batch.header().origin,
                                  .lsn = batch.header().lsn,
                                  .checksum = batch.checksum()},
                                 index, header.data());
    to += as_text(header);
  }
  void read_text(const char* path) {
    std::ifstream in(path);
    for (std::string line; std::getline(in, line);) lines_.push_back(line + "\n");
    CHECK(!lines_.empty());
  }

  std::vector<journal::Logged> batches_;
  std::vector<std::string> lines_;
};

void add_row(Row& row, double operations, const std::map<std::string, double>& bytes, bool text) {
  row.counters["operations"] = operations;
  for (const auto& [name, sum] : bytes)
    if (text || !name.starts_with("text")) row.counters[name] = sum / std::max(operations, 1.0);
}

std::map<std::string, double> bytes_of(const Sides& sides) {
  return {{"segment", static_cast<double>(sides.segment.size())},
          {"segment_sealed", static_cast<double>(sealed_bytes(sides.segment))},
          {"text", static_cast<double>(sides.text.size())},
          {"text_zstd", static_cast<double>(compressed_bytes(sides.text))}};
}

void measure(Rows& rows) {
  const char* given = std::getenv("REPRISE_BENCH_HISTORY");
  ScratchFolder folder(kSharedMemory);
  const std::string store = given != nullptr ? given : folder.path() + "/store";
  if (given == nullptr) work_as_git(store);
  History history(store, given != nullptr ? std::getenv("REPRISE_BENCH_HISTORY_TEXT") : nullptr);
  auto with_all = bytes_of(history.all()), metadata = bytes_of(history.metadata_without(""));
  const auto operations = static_cast<double>(history.operation_count());
  for (const std::string& kind : kKinds) {
    const auto count = static_cast<double>(history.count(kind));
    auto without = bytes_of(history.metadata_without(kind));
    for (auto& [name, sum] : without) sum = metadata[name] - sum;
    rows[kind].ns.push_back(0);
    add_row(rows[kind], count, without, history.has_text());
  }
  for (const char* row : {"all", "metadata"}) {
    rows[row].ns.push_back(0);
    add_row(rows[row], operations, row == std::string_view("all") ? with_all : metadata, history.has_text());
  }
}

const bool registered = [] {
  std::vector<std::string> rows = {"all", "metadata"};
  rows.insert(rows.end(), kKinds.begin(), kKinds.end());
  register_rows("history", rows, 1, measure);
  return true;
}();

}  // namespace
}  // namespace reprise::bench

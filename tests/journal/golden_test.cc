// Segments of every version that was ever released, as they were written then: they are read for ever.
//
// A folder tests/golden/journal-N holds a journal of format version N in three segments, the first of them
// compressed, the second ended, the last closed, and batches.txt, which says what is in them. It is written
// once: REPRISE_WRITE_GOLDEN=FOLDER journal_tests --gtest_filter=Golden.IsWritten
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "journal/compressed_segment.h"
#include "journal/segments_cursor.h"
#include "journal/verify.h"
#include "tests/journal/batches.h"
#include "tests/journal/fake_world.h"

namespace reprise::journal {
namespace {

using test::kIdentity;
using test::kOriginA;
using test::kOriginB;
using test::make_batch;
using test::show;

const std::string kGolden = REPRISE_SOURCE_DIR "/tests/golden";

// Every kind of operation, with every field set.
Batch every_operation() {
  const Timestamp time{.sec = -7, .nsec = 999'999'999};
  const InodeId directory{0x1234567}, file{0xfedcba9876543210};
  const std::string long_name(255, '\xff');
  BatchBuilder builder;
  builder.add(fs::Create{.parent = kRootInode,
                         .name = "link",
                         .inode = {77},
                         .mode = S_IFLNK | 0777,
                         .uid = 1,
                         .gid = 2,
                         .target = "../there",
                         .time = time});
  builder.add(fs::Create{.parent = directory,
                         .name = long_name,
                         .inode = file,
                         .mode = S_IFCHR | 06755,
                         .uid = 3,
                         .gid = 4,
                         .rdev = 0x501,
                         .time = time});
  builder.add(fs::Link{directory, "another", file, time});
  builder.add(fs::Unlink{directory, "another", file, time});
  builder.add(fs::Rmdir{kRootInode, "gone", directory, time});
  builder.add(fs::Rename{kRootInode, "from", directory, "to", file, InodeId{78}, false, time});
  builder.add(fs::Rename{kRootInode, "this", directory, "that", file, InodeId{79}, true, time});
  builder.add(
      fs::Write{.inode = file, .offset = (uint64_t{1} << 62) + 1, .data = as_bytes("bytes\n"), .time = time});
  builder.add(fs::Truncate{file, uint64_t{1} << 40, time});
  for (int change = 0; change < 5; ++change)
    builder.add(fs::Allocate{file, static_cast<fs::RangeChange>(change), change % 2 == 0, 4096, 8192, time});
  builder.add(fs::CopyRange{file, 1, InodeId{80}, 2, 3, time});
  builder.add(fs::SetAttributes{.inode = file,
                                .mask = 63,
                                .mode = 07777,
                                .uid = 5,
                                .gid = 6,
                                .atime = {1, 2},
                                .mtime = {3, 4},
                                .ctime = {5, 6}});
  builder.add(fs::SetXattr{file, "user.name", as_bytes("value"), time});
  builder.add(fs::RemoveXattr{file, "user.name", time});
  builder.add(fs::Barrier{"a-mark", time});
  builder.add(fs::ClaimPrefix{0x123456789});
  builder.add(fs::SetLimits{1, 2, 3, 4, 5});
  return builder.finish({.origin = kOriginB,
                         .lsn = 1,
                         .lamport = 99,
                         .time = {7, 8},
                         .label = "every operation",
                         .dependencies = {{kOriginA, 3}}});
}

// What is in the golden journal: LSN by LSN, and in which segment.
std::vector<std::vector<Batch>> golden_batches() {
  return {{make_batch(kOriginA, 1, 3000), make_batch(kOriginA, 2, 0), make_batch(kOriginA, 3, 300'000)},
          {every_operation(), make_batch(kOriginA, 4, 10)},
          {make_batch(kOriginA, 5, 5000)}};
}

// Long lines are cut: the checksum stands for their ends.
std::string show_cut(const Batch& batch) {
  std::istringstream lines(show(batch));
  std::string text;
  for (std::string line; std::getline(lines, line);)
    text += line.size() <= 1000 ? line + '\n' : fmt::format("{}… {}\n", line.substr(0, 200), line.size());
  return text;
}

std::string show_all(Cursor& cursor) {
  std::string text;
  for (;;) {
    auto logged = cursor.next();
    if (!logged) return text + logged.error().message();
    if (!*logged) return text;
    text += fmt::format("{} {:016x} {}", (*logged)->index, (*logged)->batch.checksum(),
                        show_cut((*logged)->batch));
  }
}

TEST(Golden, IsWritten) {
  const char* folder = std::getenv("REPRISE_WRITE_GOLDEN");
  if (folder == nullptr) return;
  auto directory = open_host_directory(folder, true).value();
  SegmentHeader header{.volume = kIdentity.volume, .branch = kIdentity.branch, .first_index = 1};
  std::vector<std::vector<Batch>> segments = golden_batches();
  for (size_t n = 0; n < segments.size(); ++n) {
    header.id = {.hi = 0x5e61e37, .lo = n + 1};
    header.sequence = n + 1;
    auto writer = SegmentWriter::create(*directory, header).value();
    for (const Batch& batch : segments[n]) {
      writer->add(batch, header.first_index - 1);
      header.covered.set(batch.header().origin, batch.header().lsn);
    }
    bool last = n + 1 == segments.size();
    ASSERT_TRUE(writer->add_summary(last ? FrameKind::kClose : FrameKind::kSeal, header.first_index - 1));
    ASSERT_TRUE(writer->sync());
    header.first_index = writer->state().next_index;
    header.previous = writer->state().summary.chain;
  }
  ASSERT_TRUE(compress_segment(*directory, 1, [] { return false; }));
  ASSERT_TRUE(replace_by_compressed(*directory, 1));
  auto cursor = SegmentsCursor::open(*directory, kIdentity, 0, 0).value();
  std::ofstream(std::string(folder) + "/batches.txt") << show_all(*cursor);
}

TEST(Golden, EveryVersionIsRead) {
  size_t versions = 0;
  for (const auto& entry : std::filesystem::directory_iterator(kGolden)) {
    if (!entry.path().filename().string().starts_with("journal-")) continue;
    SCOPED_TRACE(entry.path().string());
    ++versions;
    auto directory = open_host_directory(entry.path().string()).value();
    auto report = verify_journal(*directory, kIdentity, 0);
    ASSERT_TRUE(report) << report.error().message();
    EXPECT_FALSE(report->problem) << report->problem->message();
    EXPECT_EQ(report->segments, 3u);
    EXPECT_TRUE(report->clean_close);
    std::ifstream file(entry.path() / "batches.txt");
    std::stringstream expected;
    expected << file.rdbuf();
    ASSERT_GT(expected.str().size(), 2000u);
    EXPECT_EQ(show_all(**SegmentsCursor::open(*directory, kIdentity, 0, report->last)), expected.str());
    auto first = SegmentReader::open(directory->open("0000000001.seg", OpenMode::kRead).value()).value();
    EXPECT_TRUE(first->compressed());
  }
  EXPECT_GT(versions, 0u);
}

// What is written now is what was written when the version was new.
TEST(Golden, TheBytesOfABatchStayTheSame) {
  auto directory = open_host_directory(kGolden + "/journal-1").value();
  auto cursor = SegmentsCursor::open(*directory, kIdentity, 0, 0).value();
  for (const std::vector<Batch>& segment : golden_batches()) {
    for (const Batch& expected : segment) {
      auto logged = cursor->next();
      ASSERT_TRUE(logged) << logged.error().message();
      ASSERT_TRUE(*logged);
      EXPECT_EQ((*logged)->batch.checksum(), expected.checksum());
      EXPECT_EQ(to_hex((*logged)->batch.message()), to_hex(expected.message()));
    }
  }
  EXPECT_FALSE(cursor->next().value());
}

}  // namespace
}  // namespace reprise::journal

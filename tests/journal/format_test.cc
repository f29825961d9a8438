// docs/journal-format.md shows a segment byte by byte: this makes the same segment and compares.
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <sstream>

#include "journal/segment_reader.h"
#include "tests/journal/batches.h"
#include "tests/journal/fake_world.h"

namespace reprise::journal {
namespace {

using test::FakeDirectory;
using test::FakeDisk;

Bytes example_segment() {
  auto disk = FakeDisk::create();
  FakeDirectory directory(disk);
  SegmentHeader header{.volume = {.hi = 0x1111111111111111, .lo = 0x2222222222222222},
                       .id = {.hi = 0x3333333333333333, .lo = 0x4444444444444444},
                       .branch = "main",
                       .sequence = 1,
                       .first_index = 1};
  auto writer = *SegmentWriter::create(directory, header);
  BatchBuilder builder;
  builder.add(fs::Write{.inode = {2}, .offset = 4096, .data = as_bytes("hi"), .time = {.sec = 1, .nsec = 2}});
  Batch batch = builder.finish({.origin = {.hi = 0xaaaaaaaaaaaaaaaa, .lo = 0xbbbbbbbbbbbbbbbb},
                                .lsn = 1,
                                .lamport = 7,
                                .time = {.sec = 3, .nsec = 4},
                                .label = "demo"});
  writer->add(batch, 0);
  EXPECT_TRUE(writer->sync());
  EXPECT_TRUE(writer->add_summary(FrameKind::kClose, 1));
  return disk->files.at("0000000001.seg")->bytes;
}

// As the page has it: offset, sixteen bytes, one line each.
std::string dump(const Bytes& bytes) {
  std::string text;
  for (size_t at = 0; at < bytes.size(); at += 16) {
    text += fmt::format("{:04x} ", at);
    for (size_t i = at; i < std::min(at + 16, bytes.size()); ++i) {
      text += fmt::format("{}{:02x}", i % 8 == 0 ? " " : "", static_cast<uint8_t>(bytes[i]));
    }
    text += '\n';
  }
  return text;
}

TEST(Format, TheExampleInTheDocumentationIsWhatIsWritten) {
  std::filesystem::path page = REPRISE_SOURCE_DIR "/docs/journal-format.md";
  std::ifstream file(page);
  ASSERT_TRUE(file) << page;
  std::stringstream text;
  text << file.rdbuf();
  std::string expected = dump(example_segment());
  EXPECT_NE(text.str().find("```hex\n" + expected + "```"), std::string::npos) << "the page should show\n"
                                                                               << expected;
}

TEST(Format, TheExampleReadsBack) {
  auto disk = FakeDisk::create();
  disk->files["x"] = std::make_shared<FakeDisk::Content>(example_segment());
  auto reader = open_segment(*FakeDirectory(disk).open("x", OpenMode::kRead));
  ASSERT_TRUE(reader);
  EXPECT_EQ((*reader)->header().branch, "main");
  auto frame = *(*reader)->next();
  ASSERT_TRUE(frame && frame->is_batch());
  auto batch = (*reader)->batch(*frame);
  ASSERT_TRUE(batch);
  EXPECT_EQ(batch->header().label, "demo");
  batch->for_each([](const fs::Operation& o) { EXPECT_EQ(as_text(std::get<fs::Write>(o).data), "hi"); });
  frame = *(*reader)->next();
  ASSERT_TRUE(frame);
  EXPECT_EQ(frame->header.kind, FrameKind::kClose);
  EXPECT_EQ(frame->summary.batches, 1u);
  EXPECT_FALSE(*(*reader)->next());
}

TEST(Format, SegmentNamesAreTheirSequenceNumbers) {
  EXPECT_EQ(segment_name(12), "0000000012.seg");
  EXPECT_EQ(parse_segment_name("0000000012.seg"), 12u);
  EXPECT_EQ(parse_segment_name(segment_name(UINT64_MAX)), UINT64_MAX);
  for (const char* name : {"0000000000.seg", "12.seg", "0000000012.seg.new", "0000000012.seg.cut-1",
                           "000000001x.seg", ".seg", "-000000001.seg"}) {
    EXPECT_FALSE(parse_segment_name(name)) << name;
  }
}

}  // namespace
}  // namespace reprise::journal

#include "base/check.h"
#include "journal/recovery.h"
#include "journal/segments_cursor.h"
#include "journal/verify.h"
#include "tests/fuzz/target.h"
#include "tests/fuzz/volume.h"
#include "tests/journal/fake_world.h"
#include "tests/journal/mend_segment.h"

namespace reprise::fuzz {
namespace {

using namespace journal;
using test::FakeDirectory;
using test::FakeDisk;

constexpr const char* kName = "0000000001.seg";

void read_alone(Directory& directory) {
  auto reader = SegmentReader::open(*directory.open(kName, OpenMode::kRead));
  if (!reader) return;
  for (auto frame = (*reader)->next(); frame && *frame; frame = (*reader)->next()) {
    if (!(*frame)->is_batch()) continue;
    if (auto batch = (*reader)->batch(**frame)) batch->for_each([](const fs::Operation&) {});
  }
  for (auto frame = (*reader)->find_frame_after(0); frame && *frame;)
    frame = (*reader)->find_frame_after((*frame)->offset);
}

LogIndex read_beside(Directory& directory, LogIndex durable_hint) {
  auto cursor = SegmentsCursor::open(directory, kVolumeOfSeeds, 0, durable_hint);
  if (!cursor) return 0;
  LogIndex last = 0;
  for (auto logged = (*cursor)->next(); logged && *logged; logged = (*cursor)->next()) {
    CHECK(last == 0 || (*logged)->index == last + 1);
    last = (*logged)->index;
  }
  return last;
}

// What was opened once opens again as it was left, and holds what a reader beside it found.
void open_and_open_again(Directory& directory, LogIndex durable_hint) {
  LogIndex seen = read_beside(directory, durable_hint);
  auto log = recover_log(directory, kVolumeOfSeeds, durable_hint);
  if (!log) return;
  CHECK(seen <= log->recovery.last);
  auto again = recover_log(directory, kVolumeOfSeeds, log->recovery.last);
  CHECK(again);
  CHECK(again->recovery.last == log->recovery.last && again->recovery.cut_bytes == 0);
}

// Repair leaves nothing to be repaired, and what it says it leaves.
void repair_and_verify(Directory& directory) {
  auto repair = repair_journal(directory, kVolumeOfSeeds);
  if (!repair) return;
  auto report = verify_journal(directory, kVolumeOfSeeds, 0);
  CHECK(report);
  CHECK(!report->problem);
  CHECK(report->last == repair->last);
}

}  // namespace

void fuzz_segment(ByteView input) {
  if (input.empty()) return;
  auto flags = static_cast<uint8_t>(input[0]);
  Bytes file(input.begin() + 1, input.end());
  if ((flags & 1) != 0) test::mend_segment(file);
  auto disk = FakeDisk::create();
  disk->files[kName] = std::make_shared<FakeDisk::Content>(file);
  FakeDirectory damaged(disk->copy());
  read_alone(damaged);
  open_and_open_again(damaged, flags >> 1);
  FakeDirectory to_repair(disk);
  repair_and_verify(to_repair);
}

}  // namespace reprise::fuzz

REPRISE_FUZZ_TARGET(reprise::fuzz::fuzz_segment)

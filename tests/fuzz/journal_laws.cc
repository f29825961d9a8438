#include "tests/fuzz/journal_laws.h"

#include <cstdio>

#include "base/check.h"
#include "journal/recovery.h"
#include "journal/repair.h"
#include "journal/segments_cursor.h"
#include "tests/fuzz/volume.h"

namespace reprise::fuzz {
namespace {

using namespace journal;
using test::FakeDirectory;
using test::FakeDisk;

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

void open_and_open_again(Directory& directory, LogIndex durable_hint) {
  LogIndex seen = read_beside(directory, durable_hint);
  auto log = recover_log(directory, kVolumeOfSeeds, durable_hint);
  if (!log) return;
  CHECK(seen <= log->recovery.last);
  auto again = recover_log(directory, kVolumeOfSeeds, log->recovery.last);
  CHECK(again);
  CHECK(again->recovery.last == log->recovery.last && again->recovery.cut_bytes == 0);
}

void repair_and_open(Directory& directory, std::span<const RepairBase> bases) {
  test::FakeRandom random;
  // Not tried long: repair_test.cc does that.
  const CorrectionEffort kEffort{.every_value = 48, .every_bit = 128};
  constexpr size_t kNamed = 5;
  if (auto found = verify_journal(directory, kVolumeOfSeeds, 0); found && found->problem) {
    auto further = further_damage(directory, kVolumeOfSeeds, *found, kNamed);
    CHECK(!further || further->size() <= kNamed);
  }
  auto repair = repair_journal(directory, kVolumeOfSeeds, 0, bases, random, nullptr, kEffort);
  if (!repair) return;
  auto report = verify_journal(directory, kVolumeOfSeeds, 0);
  CHECK(report);
  CHECK(!report->problem);
  CHECK(report->last == repair->last);
  auto log = recover_log(directory, kVolumeOfSeeds, repair->last);
  // A feature that only keeps from writing does not keep from verifying.
  if (!log && log.error().code() != Code::kUnsupported)
    std::fputs((log.error().message() + "\n").c_str(), stderr);
  CHECK(log || log.error().code() == Code::kUnsupported);
  CHECK(!log || log->recovery.last == repair->last || log->segments.empty());
}

std::shared_ptr<FakeDisk> copy_of(const FakeDisk& disk) {
  auto copy = FakeDisk::create();
  for (const auto& [name, content] : disk.files)
    copy->files[name] = std::make_shared<FakeDisk::Content>(*content);
  return copy;
}

}  // namespace

void read_segment(Directory& directory, const std::string& name) {
  auto reader = SegmentReader::open(*directory.open(name, OpenMode::kRead));
  if (!reader) return;
  for (auto frame = (*reader)->next(); frame && *frame; frame = (*reader)->next()) {
    if (!(*frame)->is_batch()) continue;
    if (auto batch = (*reader)->batch(**frame)) batch->for_each([](const fs::Operation&) {});
  }
  for (auto frame = (*reader)->find_frame_after(0); frame && *frame;)
    frame = (*reader)->find_frame_after((*frame)->offset);
}

void use_journal(const FakeDisk& disk, LogIndex durable_hint) {
  {
    FakeDirectory to_open(copy_of(disk));
    open_and_open_again(to_open, durable_hint);
  }
  // Without snapshots; and with some that reach as far as is known, and further.
  for (LogIndex reach : {LogIndex{0}, durable_hint, durable_hint + 1}) {
    FakeDirectory to_repair(copy_of(disk));
    RepairBase base{.index = reach, .vector = {}};
    repair_and_open(to_repair, {&base, reach == 0 ? size_t{0} : size_t{1}});
  }
}

}  // namespace reprise::fuzz

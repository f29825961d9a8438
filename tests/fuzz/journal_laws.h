// What holds for whatever lies in a journal's folder, and is checked by the targets that make such folders.
#pragma once

#include <memory>

#include "tests/journal/fake_world.h"

namespace reprise::fuzz {

// The first segment's file.
inline constexpr const char* kFirstSegment = "0000000001.seg";

// Reads every frame and batch of a segment by itself, and every place where a frame may begin.
void read_segment(Directory& directory, const std::string& name);

// All who read, open, verify and repair this journal, of which the catalogue says that it is on the disk up
// to `durable_hint`. What was opened once opens again as it was left, and holds what a reader beside it
// found; what was repaired verifies, opens, and holds what repairing said.
void use_journal(const test::FakeDisk& disk, LogIndex durable_hint);

}  // namespace reprise::fuzz

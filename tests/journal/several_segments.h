// A journal of a few batches in several segments, on a disk in memory.
#pragma once

#include <gtest/gtest.h>

#include <memory>

#include "journal/journal.h"
#include "tests/journal/batches.h"
#include "tests/journal/fake_world.h"

namespace reprise::test {

inline FakeRandom fake_random;

inline Result<std::unique_ptr<Journal>> open_on(const std::shared_ptr<FakeDisk>& disk,
                                                LogIndex durable_hint = 0) {
  return Journal::open(std::make_unique<FakeDirectory>(disk), kIdentity,
                       {.segment_bytes = 1500, .compress = false}, fake_random, durable_hint, nullptr);
}

inline constexpr LogIndex kBatches = 12;

inline std::shared_ptr<FakeDisk> several_segments() {
  auto disk = FakeDisk::create();
  auto journal = *open_on(disk);
  for (LogIndex i = 1; i <= kBatches; ++i) EXPECT_TRUE(journal->append(make_batch(kOriginA, i)));
  EXPECT_TRUE(journal->close());
  EXPECT_GE(disk->files.size(), 3u);
  return disk;
}

inline uint64_t all_bytes(FakeDisk& disk) {
  uint64_t bytes = 0;
  for (const auto& [name, content] : disk.files) bytes += content->bytes.size();
  return bytes;
}

}  // namespace reprise::test

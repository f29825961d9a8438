#include "tests/fuzz/journal_laws.h"
#include "tests/fuzz/memory.h"
#include "tests/fuzz/target.h"
#include "tests/journal/mend_segment.h"

namespace reprise::fuzz {

void fuzz_segment(ByteView input) {
  if (input.empty()) return;
  auto flags = static_cast<uint8_t>(input[0]);
  Bytes file(input.begin() + 1, input.end());
  if ((flags & 1) != 0) test::mend_segment(file);
  auto disk = test::FakeDisk::create();
  disk->files[kFirstSegment] = std::make_shared<test::FakeDisk::Content>(file);
  test::FakeDirectory directory(disk);
  MemoryLimit limit(small_memory(file.size()));
  read_segment(directory, kFirstSegment);
  use_journal(*disk, flags >> 1);
}

}  // namespace reprise::fuzz

REPRISE_FUZZ_TARGET(reprise::fuzz::fuzz_segment)

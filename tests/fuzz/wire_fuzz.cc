#include <algorithm>

#include "base/check.h"
#include "replay/wire.h"
#include "tests/fuzz/memory.h"
#include "tests/fuzz/mend_frames.h"
#include "tests/fuzz/target.h"

namespace reprise::fuzz {
namespace {

using namespace replay;

// What was understood can be said again, and is then understood alike.
void say_again(const Incoming& incoming) {
  const auto* control = std::get_if<Control>(&incoming);
  if (control == nullptr) return;
  auto said = encode_control(*control);
  CHECK(said);
  auto understood = decode_control(ByteView(*said).subspan(kFrameHeaderBytes));
  CHECK(understood);
  CHECK(*encode_control(*understood) == *said);
}

}  // namespace

void fuzz_wire(ByteView input) {
  if (input.empty()) return;
  auto flags = static_cast<uint8_t>(input[0]);
  Bytes frames(input.begin() + 1, input.end());
  if ((flags & 128) != 0) mend_frames(frames);
  MemoryLimit limit(small_memory(frames.size()));
  size_t arrive = (flags & 127) + 1u;
  FrameReader reader;
  for (ByteView rest = frames; !rest.empty();) {
    ByteView part = rest.first(std::min(arrive, rest.size()));
    rest = rest.subspan(part.size());
    while (!part.empty()) {
      auto taken = reader.take(part);
      if (!taken) return;
      if (*taken) say_again(**taken);
    }
  }
}

}  // namespace reprise::fuzz

REPRISE_FUZZ_TARGET(reprise::fuzz::fuzz_wire)

#include <algorithm>

#include "base/check.h"
#include "base/hash.h"
#include "replay/wire.h"
#include "tests/fuzz/target.h"

namespace reprise::fuzz {
namespace {

using namespace replay;

void mend_checksums(Bytes& frames) {
  for (size_t at = 0; at + kFrameHeaderBytes <= frames.size();) {
    size_t payload = load_value<uint32_t>(frames.data() + at + 8);
    size_t begin = at + kFrameHeaderBytes;
    if (payload > frames.size() - begin) return;
    store_value(frames.data() + at + 16, hash64(ByteView(frames).subspan(begin, payload)));
    at = begin + payload;
  }
}

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
  if ((flags & 128) != 0) mend_checksums(frames);
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

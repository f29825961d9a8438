#include <algorithm>

#include "base/check.h"
#include "replay/follower_link.h"
#include "replay/leader_link.h"
#include "tests/fuzz/memory.h"
#include "tests/fuzz/mend_frames.h"
#include "tests/fuzz/target.h"
#include "tests/fuzz/token.h"
#include "tests/fuzz/volume.h"
#include "tests/replay/memory_member.h"

namespace reprise::fuzz {
namespace {

using namespace replay;

constexpr uint64_t kTreeBytes = 4 << 20;
constexpr uint8_t kMend = 128, kToLeader = 64, kNewFollower = 32, kToken = 16;

// Says the bytes in pieces of a few sizes, with time passing in between.
template <class Say>
void say_in_pieces(ByteView frames, size_t piece, ManualClock& clock, const Say& say) {
  while (!frames.empty()) {
    size_t n = std::min(piece, frames.size());
    say(frames.first(n));
    frames = frames.subspan(n);
    clock.advance_ms(60);
  }
}

void say_to_leader(ByteView frames, size_t piece, const SessionOptions& options) {
  MemoryMember member(kVolumeOfSeeds.volume);
  for (const char* name : {"a", "b", "c"}) member.write_file(name, "bytes");
  ManualClock clock;
  LeaderLink link(member, clock, options);
  auto work = [&] {
    for (int n = 0; n < 4 && link.step([](std::span<const ByteView>) { return Status(); }); ++n) {
    }
  };
  say_in_pieces(frames, piece, clock, [&](ByteView bytes) {
    link.receive(bytes);
    work();
  });
  // A follower can ask for things, not change them.
  CHECK(member.vector().entries().size() == 1 && member.read_file("c") == "bytes");
}

void say_to_follower(ByteView frames, size_t piece, bool is_new, const SessionOptions& options) {
  MemoryMember member(is_new ? VolumeId{} : kVolumeOfSeeds.volume, 2);
  if (!is_new) member.write_file("own", "bytes");
  ManualClock clock;
  ResyncBudget budget(3);
  UnfinishedTree unfinished;
  auto link = FollowerLink::begin(member, clock, options, budget, unfinished, kTreeBytes);
  CHECK(link);
  say_in_pieces(frames, piece, clock, [&](ByteView bytes) {
    (*link)->receive(bytes);
    (*link)->tick();
    (*link)->take_output();
  });
  // Whatever was taken over, it is a tree, and the sums of it are right.
  CHECK(member.settle()->position.digest == member.recomputed_digest());
}

}  // namespace

void fuzz_session(ByteView input) {
  if (input.empty()) return;
  auto flags = static_cast<uint8_t>(input[0]);
  Bytes frames(input.begin() + 1, input.end());
  if ((flags & kMend) != 0) mend_frames(frames);
  size_t piece = size_t{1} << (flags & 15);
  MemoryLimit limit(small_memory(frames.size()) + 2 * kTreeBytes);
  SameRandom random;  // so that proofs of the seeds hold
  SessionOptions options;
  options.random = &random;
  if ((flags & kToken) != 0) options.token = token_of_seeds();
  if ((flags & kToLeader) != 0) return say_to_leader(frames, piece, options);
  say_to_follower(frames, piece, (flags & kNewFollower) != 0, options);
}

}  // namespace reprise::fuzz

REPRISE_FUZZ_TARGET(reprise::fuzz::fuzz_session)

// Some seeds of the simulation; `simulate --seeds A..B` makes more of them.
#include <gtest/gtest.h>

#include <cerrno>
#include <cstdlib>
#include <string>

#include "tests/sim/machine.h"
#include "tests/sim/simulation.h"

namespace reprise::sim {
namespace {

uint64_t from_environment(const char* name, uint64_t otherwise) {
  const char* text = std::getenv(name);
  return text == nullptr ? otherwise : std::strtoull(text, nullptr, 10);
}

// A test for each part of the seeds, so that they run beside each other.
constexpr uint64_t kParts = 8;
class Seeds : public testing::TestWithParam<uint64_t> {};
INSTANTIATE_TEST_SUITE_P(Simulation, Seeds, testing::Range(uint64_t{0}, kParts));

TEST_P(Seeds, AllComeIntoStepWhateverBefallsThem) {
  uint64_t first = from_environment("REPRISE_SIM_SEED", 1),
           seeds = (from_environment("REPRISE_SIM_SEEDS", 400) + kParts - 1) / kParts;
  first += GetParam() * seeds;
  uint64_t calls = 0, simulated_ms = 0;
  std::map<std::string, uint64_t> events;
  for (uint64_t seed = first; seed < first + seeds; ++seed) {
    Outcome outcome = Simulation({.seed = seed}).run();
    ASSERT_FALSE(outcome.failure) << *outcome.failure;
    calls += outcome.calls;
    simulated_ms += outcome.simulated_ms;
    for (const auto& [what, n] : outcome.events) events[what] += n;
  }
  // What the simulation is for has happened.
  for (const char* what :
       {"power fails", "killed", "overwritten", "promoted", "disk full", "closed", "bytes damaged", "joined",
        "resolved", "discarded", "reset", "overwritten by missing blobs"})
    EXPECT_GT(events[what], 0U) << what;
  EXPECT_GT(calls, seeds * 500);
  RecordProperty("calls", std::to_string(calls));
  RecordProperty("simulated_s", std::to_string(simulated_ms / 1000));
}

TEST(Simulation, ASeedMakesTheSameRunAgain) {
  Plan plan{.seed = 7, .rounds = 2};
  Outcome once = Simulation(plan).run(), again = Simulation(plan).run();
  plan.seed = 8;
  Outcome another = Simulation(plan).run();
  EXPECT_EQ(once.trace, again.trace);
  EXPECT_EQ(once.calls, again.calls);
  EXPECT_NE(once.trace, another.trace);
}

// The snapshot is there, the journal cannot begin behind it, and the catalogue cannot give it up again: a
// batch that came now would be taken for one behind the snapshot.
TEST(Machine, NothingIsTakenBehindASnapshotThatCouldNotBeTakenBack) {
  World world;
  std::mt19937_64 chance(1);
  const VolumeId volume{.hi = 1, .lo = 2};
  Machine leader(world, 0, volume, 1), follower(world, 1, volume, 2);
  size_t refused = 0;
  for (uint64_t changes = 0; changes < 16; ++changes) {
    leader.forget_everything();
    ASSERT_TRUE(leader.start(false));
    ASSERT_TRUE(leader.guest().write_file("/new", "tree"));
    auto pinned = leader.instance().pin();
    ASSERT_TRUE(pinned);
    follower.forget_everything();
    ASSERT_TRUE(follower.start(false));
    ASSERT_TRUE(follower.guest().write_file("/old", "tree"));
    ASSERT_TRUE(follower.sync());
    follower.disk().fill_up_journals(changes);
    ASSERT_FALSE(
        follower.instance().install(pinned->view, pinned->moment.position, pinned->moment.lamport, {}));
    follower.disk().heal();
    follower.instance().journal().work();
    auto written = follower.guest().write_file("/later", "x");
    ASSERT_EQ(follower.sync().has_value(), written.has_value()) << changes;
    if (!written) {
      EXPECT_EQ(static_cast<int>(written.error()), EROFS);
      ++refused;
    }
    follower.stop_dead(false, chance);
    Status again = follower.start(false);
    ASSERT_TRUE(again) << changes << ": " << again.error().message();
    EXPECT_EQ(follower.guest().read_file("/new").has_value(), !written) << changes;
    EXPECT_EQ(follower.guest().read_file("/old").has_value(), written.has_value()) << changes;
    EXPECT_EQ(follower.guest().read_file("/later").has_value(), written.has_value()) << changes;
    auto settled = follower.instance().settle();
    ASSERT_TRUE(settled);
    EXPECT_EQ(settled->position.digest, follower.instance().filesystem().view().recompute_digest());
    follower.stop_dead(false, chance);
    pinned->view = {};
    leader.stop_dead(false, chance);
  }
  EXPECT_EQ(refused, 1U);
}

// All of a join was recorded when the disk was found full, so guests go on behind it: it is finished once
// there is space, or by the next opening, for which the journal keeps it.
TEST(Machine, AJoinThatIsNotOnTheDiskIsFinishedLater) {
  World world;
  std::mt19937_64 chance(1);
  Machine machine(world, 0, {.hi = 1, .lo = 2}, 1);
  size_t unfinished = 0;
  for (uint64_t room = 0; room < 40; ++room) {
    SCOPED_TRACE(room);
    if (machine.up()) machine.stop_dead(false, chance);
    machine.forget_everything();
    ASSERT_TRUE(machine.start(false));
    ASSERT_TRUE(machine.guest().write_file("/a", "1"));
    ASSERT_TRUE(machine.instance().fork("try"));
    {
      auto branch = machine.open_branch("try");
      ASSERT_TRUE(branch);
      fs::Guest guest((*branch)->filesystem());
      ASSERT_TRUE(guest.write_file("/b", "2"));
      ASSERT_TRUE((*branch)->close());
    }
    machine.disk().fill_up(room * 8);
    auto joined = machine.instance().join("try");
    machine.disk().heal();
    machine.instance().journal().work();
    if (joined || !machine.guest().write_file("/c", "3")) continue;  // not a join of which all was recorded
    if (!machine.guest().read_file("/b")) continue;
    ++unfinished;
    ASSERT_TRUE(machine.sync());
    if (room % 2 == 0) {
      ASSERT_TRUE(machine.instance().tend({}));
      EXPECT_EQ(machine.store().branch_names()->size(), 1U);
    } else {
      ASSERT_TRUE(machine.instance().snapshot(""));
      ASSERT_TRUE(machine.instance().trim());
    }
    machine.stop_dead(false, chance);
    ASSERT_TRUE(machine.start(false));
    EXPECT_EQ(machine.store().branch_names()->size(), 1U);
    for (const char* path : {"/a", "/b", "/c"}) EXPECT_TRUE(machine.guest().read_file(path)) << path;
  }
  machine.stop_dead(false, chance);
  EXPECT_GT(unfinished, 3U);
}

}  // namespace
}  // namespace reprise::sim

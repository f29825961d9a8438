// Some seeds of the simulation; `simulate --seeds A..B` makes more of them.
#include <gtest/gtest.h>

#include <cstdlib>
#include <string>

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
       {"power fails", "killed", "overwritten", "promoted", "disk full", "closed", "bytes damaged"})
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

}  // namespace
}  // namespace reprise::sim

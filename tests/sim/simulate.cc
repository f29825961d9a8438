// simulate [--seeds A..B] [--rounds N] [--steps N]: runs the simulation for each seed, to the first that
// fails.
#include <fmt/format.h>

#include <cstdio>
#include <cstdlib>
#include <string>
#include <string_view>

#include "tests/sim/simulation.h"

namespace {

int usage() {
  std::fputs("usage: simulate [--seeds A..B] [--rounds N] [--steps N] [--trace]\n", stderr);
  return 2;
}

}  // namespace

int main(int argc, char** argv) {
  uint64_t first = 1, last = 100;
  reprise::sim::Plan plan;
  bool trace = false;
  for (int i = 1; i < argc; ++i) {
    std::string_view option = argv[i];
    if (option == "--trace") {
      trace = true;
      continue;
    }
    if (i + 1 == argc) return usage();
    std::string value = argv[++i];
    if (option == "--seeds") {
      size_t dots = value.find("..");
      first = std::strtoull(value.c_str(), nullptr, 10);
      last = dots == std::string::npos ? first : std::strtoull(value.c_str() + dots + 2, nullptr, 10);
    } else if (option == "--rounds") {
      plan.rounds = std::strtoull(value.c_str(), nullptr, 10);
    } else if (option == "--steps") {
      plan.steps_per_round = std::strtoull(value.c_str(), nullptr, 10);
    } else {
      return usage();
    }
  }
  uint64_t calls = 0, simulated_ms = 0;
  std::map<std::string, uint64_t> events;
  for (plan.seed = first; plan.seed <= last; ++plan.seed) {
    reprise::sim::Outcome outcome = reprise::sim::Simulation(plan).run();
    if (trace) fmt::print("seed {}: trace {:016x}\n", plan.seed, outcome.trace);
    calls += outcome.calls;
    simulated_ms += outcome.simulated_ms;
    for (const auto& [what, n] : outcome.events) events[what] += n;
    if (!outcome.failure) continue;
    fmt::print("{}\nfound after {} seeds\n", *outcome.failure, plan.seed - first + 1);
    return 1;
  }
  fmt::print("{} seeds, {} calls that changed something, {} simulated seconds\n", last - first + 1, calls,
             simulated_ms / 1000);
  for (const auto& [what, n] : events) fmt::print("{:>9} {}\n", n, what);
  return 0;
}

#include "bench/paired.h"

#include <benchmark/benchmark.h>
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <utility>

#include "base/check.h"

namespace reprise::bench {
namespace {

double median(std::vector<double> samples) {
  CHECK(!samples.empty());
  std::ranges::sort(samples);
  return samples[samples.size() / 2];
}

// What a group has found, once it has been run.
template <class Found>
struct Group {
  int rounds;
  std::function<void(Found&, int round)> measure;
  Found found;
  bool done = false;

  Found& result() {
    for (int round = 0; !done && round < rounds; round++) measure(found, round);
    done = true;
    return found;
  }
};

void report(benchmark::State& state, double ns) {
  while (state.KeepRunning()) state.SetIterationTime(ns / 1e9);
}

}  // namespace

double timed(size_t count, const std::function<void()>& body) {
  auto begin = std::chrono::steady_clock::now();
  body();
  std::chrono::duration<double, std::nano> taken = std::chrono::steady_clock::now() - begin;
  return taken.count() / static_cast<double>(count);
}

void register_pairs(const std::string& group, const std::vector<std::string>& rows, int rounds,
                    std::function<void(Pairs&, bool)> measure) {
  auto shared = std::make_shared<Group<Pairs>>(
      Group<Pairs>{.rounds = rounds, .measure = [measure = std::move(measure)](Pairs& found, int round) {
                     measure(found, round % 2 == 0);
                   }});
  for (const std::string& row : rows) {
    benchmark::RegisterBenchmark(fmt::format("{}/{}", group, row).c_str(),
                                 [shared, row](benchmark::State& state) {
                                   const Pair& pair = shared->result()[row];
                                   double ours = median(pair.ours), other = median(pair.other);
                                   report(state, ours);
                                   state.counters["other_ns"] = other;
                                   state.counters["faster"] = other / ours;
                                 })
        ->UseManualTime()
        ->Iterations(1)
        ->Unit(benchmark::kNanosecond);
  }
}

void register_rows(const std::string& group, const std::vector<std::string>& rows, int rounds,
                   std::function<void(Rows&)> measure) {
  auto shared = std::make_shared<Group<Rows>>(Group<Rows>{
      .rounds = rounds, .measure = [measure = std::move(measure)](Rows& found, int) { measure(found); }});
  for (const std::string& row : rows) {
    benchmark::RegisterBenchmark(fmt::format("{}/{}", group, row).c_str(),
                                 [shared, row](benchmark::State& state) {
                                   const Row& found = shared->result()[row];
                                   report(state, median(found.ns));
                                   for (const auto& [name, value] : found.counters)
                                     state.counters[name] = value;
                                 })
        ->UseManualTime()
        ->Iterations(1)
        ->Unit(benchmark::kNanosecond);
  }
}

}  // namespace reprise::bench

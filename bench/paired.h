// Rows that compare two ways of doing one thing, measured alternately in one run.
//
// A measurement yields all its rows at once (a tree is created, looked at, renamed and removed in one go), so
// it runs when the first of them is asked for, and the others report what it found. A row's time is that of
// one operation by Reprise; `other_ns` is the same by what it is compared with, `faster` the ratio.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

namespace reprise::bench {

// Samples of one row, in ns per operation.
struct Pair {
  std::vector<double> ours, other;
};
using Pairs = std::map<std::string, Pair>;

// ns per operation of `count` operations done by `body`.
double timed(size_t count, const std::function<void()>& body);

// Registers `group/row` for each of `rows`. `measure` does everything once and adds a sample to both sides
// of each row; it is called `rounds` times, with `ours_first` changing. The median counts.
void register_pairs(const std::string& group, const std::vector<std::string>& rows, int rounds,
                    std::function<void(Pairs&, bool ours_first)> measure);

// Registers rows of which each has a time of its own and nothing beside it but `counters`.
struct Row {
  std::vector<double> ns;
  std::map<std::string, double> counters;
};
using Rows = std::map<std::string, Row>;
void register_rows(const std::string& group, const std::vector<std::string>& rows, int rounds,
                   std::function<void(Rows&)> measure);

}  // namespace reprise::bench

// exercise: a program that does random things to the filesystem of its working directory and checks what
// comes of it. Knows nothing of Reprise: it must be content on any Linux filesystem.
//
//   cd DIR && exercise file SEED STEPS [OUT]     one process, two files, every byte checked against a model
//   cd DIR && exercise tree SEED STEPS WORKERS   many processes in one small tree
//
// Exits with 1 and says what was wrong, and with which seed and step.
#pragma once

#include <cstdint>
#include <random>
#include <string>

namespace reprise::exercise {

// Says so on standard error, with the errno there is, and exits.
[[noreturn]] void fail(const std::string& what);

class Random {
 public:
  explicit Random(uint64_t seed) : engine_(seed) {}
  uint64_t below(uint64_t n) { return engine_() % n; }
  bool one_in(uint64_t n) { return below(n) == 0; }
  char byte() { return static_cast<char>(engine_()); }

 private:
  std::mt19937_64 engine_;
};

// With `out` what the files hold in the end is also put there, under their names.
int exercise_files(uint64_t seed, uint64_t steps, const std::string& out);
int exercise_tree(uint64_t seed, uint64_t steps, unsigned workers);

}  // namespace reprise::exercise

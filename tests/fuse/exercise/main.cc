#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "tests/fuse/exercise/exercise.h"

namespace reprise::exercise {

void fail(const std::string& what) {
  int error = errno;
  std::fprintf(stderr, "exercise: %s (errno %d, %s)\n", what.c_str(), error, std::strerror(error));
  std::exit(1);
}

}  // namespace reprise::exercise

int main(int argc, char** argv) {
  using namespace reprise::exercise;
  auto number = [&](int i) { return i < argc ? std::strtoull(argv[i], nullptr, 10) : 0; };
  std::string what = argc > 3 ? argv[1] : "";
  if (what == "file") return exercise_files(number(2), number(3), argc > 4 ? argv[4] : "");
  if (what == "tree" && argc > 4)
    return exercise_tree(number(2), number(3), static_cast<unsigned>(number(4)));
  std::fprintf(stderr, "usage: exercise file SEED STEPS [OUT] | exercise tree SEED STEPS WORKERS\n");
  return 2;
}

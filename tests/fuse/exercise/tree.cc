#include "tests/fuse/exercise/exercise.h"

namespace reprise::exercise {

int exercise_tree(uint64_t, uint64_t, unsigned) {
  return 2;
}

}  // namespace reprise::exercise

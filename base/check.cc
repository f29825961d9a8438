#include "base/check.h"

#include <cstdio>
#include <cstdlib>

namespace reprise {

void check_failed(const char* file, int line, const char* claim) {
  std::fprintf(stderr, "%s:%d: CHECK failed: %s\n", file, line, claim);
  std::abort();
}

}  // namespace reprise

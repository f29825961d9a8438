// What threads of the tests allocate: all of journal_tests runs on the operators that allocations.cc
// replaces.
#pragma once

#include <cstddef>

namespace reprise::test {

struct Allocations {
  size_t count = 0;       // calls so far
  size_t live_bytes = 0;  // allocated and not freed; wraps where another thread frees
  size_t peak_bytes = 0;  // of live_bytes
};
// Of this thread.
Allocations& allocations();

}  // namespace reprise::test

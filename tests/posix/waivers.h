// What a filesystem under test may answer otherwise than the kernel's own, or is not asked at all: one list,
// with the reasons, of the conformance suites and of the random scripts.
//
// A row of a table (tests/conformance/table.h) is made all the same, and must get the answer given here: one
// that no longer does has to leave the list. tests/conformance/waivers_test.cc looks for what nothing uses.
#pragma once

#include <span>
#include <string>
#include <string_view>

#include "tests/posix/script.h"

namespace reprise::posix {

enum class Which { kInProcess, kFuse, kTmpfs, kExt4 };
std::string name_of(Which which);
inline void PrintTo(Which which, std::ostream* out) {
  *out << name_of(which);
}

struct Waiver {
  Which which;
  std::string_view suite;    // of the conformance tests
  std::string_view row;      // of its table, as it is written there; empty: the suite is not run
  std::string_view instead;  // the row's answer there
  std::string_view reason;
};
std::span<const Waiver> waivers();
const Waiver* waiver_of(Which which, std::string_view suite, std::string_view row = {});

// What random scripts do not compare, whoever is tested. A call says which of them it is.
enum class NotCompared { kFifo, kSameSize, kPositions, kForeignLink };
struct Silence {
  NotCompared what;
  std::string_view reason;
};
std::span<const Silence> silences();

// A difference that random scripts do not count.
struct Excuse {
  Which which;
  bool (*applies)(const Step& step);
  std::string_view got, expected;
  std::string_view reason;
};
std::span<const Excuse> excuses();
bool excused(Which which, const Step& step, std::string_view got, std::string_view expected);

}  // namespace reprise::posix

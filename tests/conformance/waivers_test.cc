// What is not run where, and why. Everything else is run on all of them. Named as the test sources are, so
// that it is built with them.
#include <unistd.h>

#include <array>

#include "tests/conformance/conformance.h"

namespace reprise::conformance {
namespace {

struct Waiver {
  Which which;
  const char* suite;
  const char* reason;
};

constexpr std::array kWaivers{
    Waiver{Which::kFuse, "Shifts", "the kernel's FUSE client passes on no collapsing and inserting"},
    Waiver{Which::kFuse, "Acls", "refused, since nothing would enforce them (docs/fuse.md)"},
    Waiver{Which::kTmpfs, "Acls", "the kernel evaluates them and changes the mode; ours are passed through"},
    Waiver{Which::kInProcess, "Fifos", "guests in process have no pipes: opening a FIFO is ENXIO"},
};

bool waived(Which which, const std::string& suite) {
  for (const Waiver& one : kWaivers)
    if (one.which == which && suite == one.suite) return true;
  return false;
}

}  // namespace

std::vector<Which> filesystems_for(const std::string& suite, Which oracle) {
  std::vector<Which> all{Which::kInProcess};
  if (::geteuid() == 0) all.insert(all.end(), {Which::kFuse, oracle});
  std::erase_if(all, [&](Which which) { return waived(which, suite); });
  return all;
}

}  // namespace reprise::conformance

// Named as the test sources are, so that it is built with them.
// What is not run where, and why. Everything else is run on all of them.
#include <array>

#include "tests/conformance/conformance.h"

namespace reprise::conformance {
namespace {

struct Waiver {
  Which which;
  const char* test;
  const char* reason;
};

constexpr char kNoTmpfile[] = "libfuse 3.14 does not pass on O_TMPFILE; programs fall back to unlinking";
constexpr char kKernelRefuses[] = "the kernel's FUSE client passes on no collapsing and inserting";
constexpr char kNoAcls[] = "refused, since nothing would enforce them (docs/fuse.md)";
constexpr char kNoPipes[] = "guests in process have no pipes: opening a FIFO is ENXIO";

constexpr std::array kWaivers{
    Waiver{Which::kFuse, "UnnamedFiles.GetANameByLink", kNoTmpfile},
    Waiver{Which::kFuse, "UnnamedFiles.AreMadeForWriting", kNoTmpfile},
    Waiver{Which::kFuse, "UnnamedFiles.TakeModeAndOwnerAsOthersDo", kNoTmpfile},
    Waiver{Which::kFuse, "UnnamedFiles.StayUnnamedIfExclusive", kNoTmpfile},
    Waiver{Which::kFuse, "Ranges.CollapseCutsOut", kKernelRefuses},
    Waiver{Which::kFuse, "Ranges.InsertMakesRoom", kKernelRefuses},
    Waiver{Which::kFuse, "Ranges.ShiftsAreOfWholeBlocksWithinTheFile", kKernelRefuses},
    Waiver{Which::kFuse, "Xattrs.AclsArePassedThrough", kNoAcls},
    Waiver{Which::kTmpfs, "Xattrs.AclsArePassedThrough", "the kernel evaluates them and changes the mode"},
    Waiver{Which::kInProcess, "Nodes.FifosCanBeOpened", kNoPipes},
};

}  // namespace

const char* waiver(Which which, const std::string& test) {
  for (const Waiver& one : kWaivers)
    if (one.which == which && test == one.test) return one.reason;
  return nullptr;
}

}  // namespace reprise::conformance

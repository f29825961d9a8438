// The Guest and the kernel's own filesystem, side by side: the same calls must give the same answers and the same tree.
#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include "tests/fs/kernel_calls.h"

namespace reprise::fs {
namespace {

// A file of another owner that one may not write cannot be linked where fs.protected_hardlinks is set: a rule of that
// host's, so links are made by the first actor alone.
void use_first_actor_for_links(Call& call) {
  if (call.kind == Kind::kLink) call.actor = 0;
}

// Symlinks that climb could lead out of the temporary directory.
bool climbs(const Call& call) { return call.kind == Kind::kSymlink && call.other.find("..") != std::string::npos; }

// Above a removed directory that was in a removed directory the kernel still has the outer one, a Guest has nothing.
bool removes_twice(const Call& call) { return call.kind == Kind::kRmdir && call.path == "../../n"; }

RC_GTEST_PROP(Kernel, RandomCallsAreAnsweredAlike, ()) {
  std::vector<Credentials> actors = actors_of_this_process();
  KernelCallee kernel(actors);
  GuestCallee guest(actors, false);
  auto calls = *rc::gen::container<std::vector<Call>>(gen_call({.actors = static_cast<int>(actors.size())}));
  for (Call& call : calls) {
    use_first_actor_for_links(call);
    if (climbs(call) || removes_twice(call)) continue;
    std::string expected = kernel.perform(call), got = guest.perform(call);
    if (got != expected) RC_LOG() << call << "\nkernel: " << expected << "\nguest:  " << got << "\n";
    RC_ASSERT(got == expected);
  }
  RC_ASSERT(guest.tree() == kernel.tree());
}

}  // namespace
}  // namespace reprise::fs

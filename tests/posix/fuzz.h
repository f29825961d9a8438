// Random scripts put to two filesystems, and what to do when their answers differ: shrink the script to the
// calls that matter.
#pragma once

#include <functional>
#include <optional>
#include <random>
#include <string>

#include "tests/posix/script.h"

namespace reprise::posix {

// Who makes a script's calls: root, two users who share a group, one who has nothing in common with them.
const std::vector<Credentials>& script_callers();

// A fresh filesystem with a crew in it.
class Contestant {
 public:
  virtual ~Contestant() = default;
  virtual Crew& crew() = 0;
  // Empty, or what is wrong with it as it is; after every call, and with `finished` after the last.
  virtual std::string complaint(bool finished) = 0;
};
using MakeContestant = std::function<std::unique_ptr<Contestant>()>;

// A Guest each, in a filesystem that records; and tmpfs (KernelRoot: needs root).
std::unique_ptr<Contestant> guests_contestant();
std::unique_ptr<Contestant> tmpfs_contestant();

Script random_script(std::mt19937_64& random, size_t steps);

// The first call that is answered differently, or how the trees differ after the last; nullopt if nothing
// does. The first is the one that is tested, the second the one that is right.
std::optional<std::string> difference(const Script& script, const MakeContestant& tested,
                                      const MakeContestant& oracle);
// A script that still makes a difference and does not without any one of its calls.
Script shrink(Script script, const MakeContestant& tested, const MakeContestant& oracle);

}  // namespace reprise::posix

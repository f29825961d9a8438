// Random scripts put to two filesystems, and what to do when their answers differ: shrink the script to the
// calls that matter.
#pragma once

#include <chrono>
#include <filesystem>
#include <functional>
#include <map>
#include <optional>
#include <random>
#include <string>
#include <vector>

#include "tests/posix/script.h"

namespace reprise::posix {

// Who makes a script's calls: root, two users who share a group, one who has nothing in common with them.
const std::vector<Credentials>& script_callers();

// All of them.
Crew crew_of(const std::function<std::unique_ptr<Calls>(const Credentials&)>& make_calls);

// The same in a fresh filesystem, where everybody may write at the top from now on.
Crew first_crew_of(const std::function<std::unique_ptr<Calls>(const Credentials&)>& make_calls);

// A fresh filesystem with a crew in it.
class Contestant {
 public:
  virtual ~Contestant() = default;
  virtual Crew& crew() = 0;
  // Whether it cannot help answering a call differently, which leaves the same tree.
  virtual bool excused(const Step& /*step*/, const std::string& /*got*/, const std::string& /*expected*/) {
    return false;
  }
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
// Of two Crew::tree(): empty, or the first path that is not the same.
std::string differing_entry(const std::map<std::string, std::string>& tested,
                            const std::map<std::string, std::string>& oracle);
// A script that still makes a difference and does not without any one of its calls.
Script shrink(Script script, const MakeContestant& tested, const MakeContestant& oracle);

// Random scripts, for a while or for as many calls as REPRISE_FUZZ_CALLS says, beginning with seed
// REPRISE_FUZZ_SEED, until REPRISE_FUZZ_FINDINGS of them (1) have made a difference.
struct FuzzOptions {
  std::chrono::seconds usual_time{4};
  size_t steps_per_script = 150;
};
struct FuzzRun {
  uint64_t calls = 0;
  std::vector<std::string> findings;  // each a shrunk script and how it differs
};
uint64_t from_environment(const char* name, uint64_t otherwise);
FuzzRun fuzz(const MakeContestant& tested, const MakeContestant& oracle, const FuzzOptions& options);

// The files of tests/FOLDER/regressions, and what one says.
std::vector<std::filesystem::path> kept_scripts(const std::string& folder);
std::optional<Script> read_script(const std::filesystem::path& file);

}  // namespace reprise::posix

#include "tests/posix/fuzz.h"

#include <linux/falloc.h>
#include <stdio.h>
#include <sys/stat.h>

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <set>
#include <sstream>

#include "base/check.h"
#include "tests/fs/recording.h"
#include "tests/posix/guest_calls.h"
#include "tests/posix/kernel_calls.h"

namespace reprise::posix {

const std::vector<Credentials>& script_callers() {
  static const std::vector<Credentials> callers{
      {0, 0, {}}, {1000, 1000, {2000}}, {1001, 1001, {2000, 1000}}, {1002, 1002, {}}};
  return callers;
}

// --- the two

Crew crew_of(const std::function<std::unique_ptr<Calls>(const Credentials&)>& make_calls) {
  std::vector<Crew::Member> members;
  for (const Credentials& who : script_callers()) members.push_back({who, make_calls(who)});
  return Crew(std::move(members));
}
Crew first_crew_of(const std::function<std::unique_ptr<Calls>(const Credentials&)>& make_calls) {
  CHECK(make_calls(script_callers()[0])->chmod("/", 0777));
  return crew_of(make_calls);
}

namespace {

class Guests final : public Contestant {
 public:
  Crew& crew() override { return crew_; }
  std::string complaint(bool finished) override {
    if (!finished) return world_.filesystem.view().check_invariants();
    if (std::string broken = world_.broken_law(); !broken.empty()) return broken;
    if (world_.replayed().digest() != world_.filesystem.digest()) return "replayed, it is another tree";
    return {};
  }

 private:
  fs::Recorded world_;
  Crew crew_ = first_crew_of([this](const Credentials& who) { return guest_calls(world_.filesystem, who); });
};

class Tmpfs final : public Contestant {
 public:
  Crew& crew() override { return crew_; }
  std::string complaint(bool) override { return {}; }

 private:
  KernelRoot root_{mount_tmpfs()};
  Crew crew_ = first_crew_of([this](const Credentials& who) { return root_.calls(who); });
};

}  // namespace

std::unique_ptr<Contestant> guests_contestant() {
  return std::make_unique<Guests>();
}
std::unique_ptr<Contestant> tmpfs_contestant() {
  return std::make_unique<Tmpfs>();
}

// --- making scripts

namespace {

class Maker {
 public:
  explicit Maker(std::mt19937_64& random) : random_(random) {}

  Step step() {
    static const std::vector<std::string> kAll = Crew::call_names();
    static const std::vector<std::string> kOften = {"open",  "open",   "mkdir", "rename", "unlink",
                                                    "link",  "pwrite", "write", "chmod",  "symlink",
                                                    "lstat", "stat",   "read",  "rmdir",  "fallocate"};
    Step s;
    s.call = one_in(2) ? pick(kOften) : pick(kAll);
    s.caller = static_cast<int>(one_in(3) ? 0 : below(script_callers().size()));
    s.slot = static_cast<int>(below(Crew::kSlots));
    s.other = static_cast<int>(below(Crew::kSlots));
    s.at = one_in(6) ? static_cast<int>(below(Crew::kSlots)) : -1;
    s.path = path();
    fill_in(s);
    return s;
  }

 private:
  size_t below(size_t n) { return random_() % n; }
  bool one_in(size_t n) { return below(n) == 0; }
  template <class T>
  T pick(const std::vector<T>& all) {
    return all[below(all.size())];
  }
  template <class T>
  T pick(std::initializer_list<T> all) {
    return all.begin()[below(all.size())];
  }

  // Few names, so that they collide; what resolution trips over now and then.
  std::string path() {
    static const std::vector<std::string> kPlain = {"a",   "b",     "c",     "a/a", "a/b",
                                                    "b/a", "a/b/c", "b/c/a", "d"};
    static const std::vector<std::string> kOdd = {
        ".",   "..",   "a/",    "b/",          "a/.", "a/..", "b/../c", "../a",  "/",
        "/a",  "/b/c", "a//b",  "./a",         "",    "a/b/", "..",     "../..", "../../a",
        "/..", "//",   "a/./b", "\xff\x01 \n", "d/",  "c/..", "c/."};
    if (one_in(60)) return std::string(pick({255, 256}), 'n');
    if (one_in(400)) return long_path();
    return one_in(4) ? pick(kOdd) : pick(kPlain);
  }
  std::string long_path() {
    std::string path = "a";
    while (path.size() < pick({4093u, 4095u, 4096u, 4097u})) path += "/.";
    return path;
  }
  uint32_t permissions() {
    return pick({0755u,  0644u,  0777u, 0777u,  0700u, 0600u, 0u,    02755u, 04755u, 02775u,
                 06711u, 02644u, 0311u, 01777u, 0070u, 0007u, 0664u, 04777u, 06777u, 02767u});
  }
  uint32_t id() { return pick({0u, 1000u, 1001u, 1002u, 2000u, 0xffffffffu, 0xffffffffu}); }
  int64_t offset() {
    return pick<int64_t>({0, 0, 0, 0, 3, 3, 100, 100, 2047, 2048, 2049, 4095, 4096, 4096, 8192, 9000, 70000,
                          -1, int64_t{1} << 33});
  }
  size_t length() { return pick<size_t>({0, 1, 1, 10, 10, 100, 2100, 4096, 4096, 8192, 10000, 66000}); }

  void fill_in(Step& s) {
    if (s.call == "open") fill_in_open(s);
    if (s.call == "rename")
      s.to = path(), s.flags = pick<int>({0, 0, 0, RENAME_NOREPLACE, RENAME_EXCHANGE, RENAME_EXCHANGE,
                                          RENAME_NOREPLACE | RENAME_EXCHANGE});
    // Where fs.protected_hardlinks is set only root may link everything: a rule of that host's.
    if (s.call == "link") s.to = path(), s.flags = pick({0, AT_SYMLINK_FOLLOW}), s.caller = 0, s.at = -1;
    if (s.call == "linkfd") s.to = path();
    if (s.call == "symlink") s.to = path();
    if (s.call == "mkdir" || s.call == "chmod" || s.call == "fchmod") s.mode = permissions();
    if (s.call == "mknod")
      s.mode =
          permissions() | pick<uint32_t>({S_IFREG, 0, S_IFIFO, S_IFSOCK, S_IFCHR, S_IFBLK, S_IFDIR, S_IFLNK}),
      s.uid = 261;
    if (s.call == "umask") s.mode = pick({0u, 022u, 077u, 0777u, 027u, 02u});
    if (s.call == "access") s.flags = pick({0, 4, 2, 1, 6, 7, 8, 5, 3});
    if (s.call == "chown" || s.call == "fchown") s.uid = id(), s.gid = id();
    if (s.call == "chown" || s.call == "utimens") s.flags = pick({0, AT_SYMLINK_NOFOLLOW});
    if (s.call == "utimens" || s.call == "futimens") s.mode = static_cast<uint32_t>(below(37));
    if (s.call.ends_with("xattr")) fill_in_xattr(s);
    if (s.call == "setfl") s.flags = pick({0, O_APPEND});
    if (s.call == "seek") s.flags = pick({SEEK_SET, SEEK_CUR, SEEK_END, SEEK_DATA, SEEK_HOLE, 77});
    if (s.call == "fallocate") fill_in_fallocate(s);
    if (s.call == "copy") s.to_offset = offset();
    if (!takes(s, {"copy", "dup"})) s.other = 0;
    if (takes(s, {"read", "pread", "write", "pwrite", "fallocate", "copy"})) s.length = length();
    if (takes(s, {"pread", "pwrite", "fallocate", "copy", "seek", "truncate", "ftruncate"}))
      s.offset = offset();
    if (takes(s, {"write", "pwrite"})) s.fill = pick({'x', 'y', 'z', '\0'});
    if (s.call == "fallocate" && s.offset > 1 << 20) s.offset = 0;
  }
  static bool takes(const Step& s, std::initializer_list<std::string_view> calls) {
    return std::ranges::find(calls, std::string_view(s.call)) != calls.end();
  }
  void fill_in_open(Step& s) {
    s.mode = permissions();
    s.flags = pick({O_RDONLY, O_WRONLY, O_RDWR, O_RDWR, O_RDWR, O_ACCMODE});
    s.flags |= pick({0, O_CREAT, O_CREAT, O_CREAT, O_CREAT, O_CREAT | O_EXCL, O_DIRECTORY, O_PATH, O_TMPFILE,
                     O_CREAT | O_DIRECTORY, O_TMPFILE | O_EXCL});
    s.flags |= pick({0, 0, 0, O_TRUNC, O_APPEND, O_NOFOLLOW, O_APPEND | O_TRUNC, O_NOFOLLOW | O_DIRECTORY});
    s.flags |= O_NONBLOCK;  // a FIFO is not to be waited for
  }
  void fill_in_xattr(Step& s) {
    s.name = pick<std::string>({"user.a", "user.a", "user.b", "user.", "trusted.t", "security.s", "none", "",
                                "system.x", std::string("user.") + std::string(250, 'n'),
                                std::string("user.") + std::string(251, 'n')});
    s.to = std::string(pick<size_t>({0, 1, 5, 100}), pick({'v', 'w'}));
    s.flags = pick({0, 0, 1, 2});
  }
  void fill_in_fallocate(Step& s) {
    s.flags = pick<int>({0, FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                         FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE});
  }

  std::mt19937_64& random_;
};

}  // namespace

Script random_script(std::mt19937_64& random, size_t steps) {
  Maker maker(random);
  Script script;
  while (script.size() < steps) script.push_back(maker.step());
  return script;
}

// --- comparing

std::string differing_entry(const std::map<std::string, std::string>& tested,
                            const std::map<std::string, std::string>& oracle) {
  for (const auto& [path, text] : oracle) {
    auto found = tested.find(path);
    if (found == tested.end()) return path + " is missing";
    if (found->second != text) return path + "\n  tested: " + found->second + "\n  oracle: " + text;
  }
  for (const auto& [path, text] : tested)
    if (!oracle.contains(path)) return path + " is there: " + text;
  return {};
}

std::optional<std::string> difference(const Script& script, const MakeContestant& make_tested,
                                      const MakeContestant& make_oracle) {
  auto tested = make_tested();
  auto oracle = make_oracle();
  for (size_t i = 0; i < script.size(); ++i) {
    std::string expected = oracle->crew().perform(script[i]), got = tested->crew().perform(script[i]);
    auto said = [&](const std::string& what) {
      return "call " + std::to_string(i + 1) + ": " + to_text(script[i]) + "\n" + what;
    };
    if (got != expected && !tested->excused(script[i], got, expected))
      return said("  tested: " + got + "\n  oracle: " + expected);
    if (std::string wrong = tested->complaint(false); !wrong.empty()) return said(wrong);
  }
  if (std::string differs = differing_entry(tested->crew().tree(), oracle->crew().tree()); !differs.empty())
    return "in the end: " + differs;
  if (std::string wrong = tested->complaint(true); !wrong.empty()) return "in the end: " + wrong;
  return std::nullopt;
}

Script shrink(Script script, const MakeContestant& tested, const MakeContestant& oracle) {
  for (size_t chunk = std::max<size_t>(script.size() / 2, 1);;) {
    bool smaller = false;
    for (size_t begin = 0; begin < script.size();) {
      Script without = script;
      auto from = without.begin() + static_cast<std::ptrdiff_t>(begin);
      without.erase(from, from + static_cast<std::ptrdiff_t>(std::min(chunk, script.size() - begin)));
      if (difference(without, tested, oracle)) {
        script = std::move(without);
        smaller = true;
      } else {
        begin += chunk;
      }
    }
    if (chunk == 1 && !smaller) return script;
    if (chunk > 1) chunk /= 2;
  }
}

// --- running them

uint64_t from_environment(const char* name, uint64_t otherwise) {
  const char* text = std::getenv(name);
  return text == nullptr ? otherwise : std::strtoull(text, nullptr, 10);
}

FuzzRun fuzz(const MakeContestant& tested, const MakeContestant& oracle, const FuzzOptions& options) {
  const uint64_t calls = from_environment("REPRISE_FUZZ_CALLS", 0);
  const uint64_t findings = from_environment("REPRISE_FUZZ_FINDINGS", 1);
  const auto end = std::chrono::steady_clock::now() + options.usual_time;
  FuzzRun run;
  std::set<std::string> kinds;  // the last call and how it differs
  for (uint64_t seed = from_environment("REPRISE_FUZZ_SEED", 1);
       calls != 0 ? run.calls < calls : std::chrono::steady_clock::now() < end; ++seed) {
    std::mt19937_64 random(seed);
    Script script = random_script(random, options.steps_per_script);
    run.calls += script.size();
    if (!difference(script, tested, oracle)) continue;
    script = shrink(script, tested, oracle);
    std::string how = difference(script, tested, oracle).value_or("none any more");
    std::string last = script.empty() ? "" : script.back().call;
    if (!kinds.insert(last + how.substr(std::min(how.size(), how.find('\n')))).second) continue;
    run.findings.push_back("seed " + std::to_string(seed) + ", " + std::to_string(run.calls) + " calls\n" +
                           to_text(script) + how);
    if (run.findings.size() >= findings) break;
  }
  return run;
}

std::vector<std::filesystem::path> kept_scripts(const std::string& folder) {
  std::vector<std::filesystem::path> found;
  for (const auto& entry :
       std::filesystem::directory_iterator(REPRISE_SOURCE_DIR "/tests/" + folder + "/regressions"))
    if (entry.path().extension() == ".script") found.push_back(entry.path());
  std::ranges::sort(found);
  return found;
}

std::optional<Script> read_script(const std::filesystem::path& file) {
  std::stringstream text;
  text << std::ifstream(file).rdbuf();
  return parse_script(text.str());
}

}  // namespace reprise::posix

// The facade against the kernel's tmpfs: random scripts, and those that ever made a difference.
//
//   REPRISE_FUZZ_CALLS=1000000 fs_tests --gtest_filter='Fuzz.*'      as many calls, however long it takes
//   REPRISE_FUZZ_SEED=7        another beginning
//   REPRISE_FUZZ_FINDINGS=10   go on until so many scripts have made a difference
//
// A script that makes a difference is shrunk and printed: kept as a file in tests/fs/regressions it is run
// every time.
#include "tests/posix/fuzz.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <set>
#include <sstream>

namespace reprise::posix {
namespace {

constexpr size_t kStepsPerScript = 150;
constexpr std::chrono::seconds kUsualTime{4};

uint64_t from_environment(const char* name, uint64_t otherwise) {
  const char* text = std::getenv(name);
  return text == nullptr ? otherwise : std::strtoull(text, nullptr, 10);
}

// Without root there is no tmpfs: then the laws of our own tree are what is tested.
std::unique_ptr<Contestant> oracle() {
  static const bool root = ::geteuid() == 0;
  return root ? tmpfs_contestant() : guests_contestant();
}

TEST(Fuzz, RandomCallsAreAnsweredAsByTmpfs) {
  const uint64_t calls = from_environment("REPRISE_FUZZ_CALLS", 0);
  const uint64_t first_seed = from_environment("REPRISE_FUZZ_SEED", 1);
  const auto end = std::chrono::steady_clock::now() + kUsualTime;
  const uint64_t findings = from_environment("REPRISE_FUZZ_FINDINGS", 1);
  uint64_t made = 0;
  std::set<std::string> found;
  for (uint64_t seed = first_seed; calls != 0 ? made < calls : std::chrono::steady_clock::now() < end;
       ++seed) {
    std::mt19937_64 random(seed);
    Script script = random_script(random, kStepsPerScript);
    made += script.size();
    if (!difference(script, guests_contestant, oracle)) continue;
    script = shrink(script, guests_contestant, oracle);
    std::string how = difference(script, guests_contestant, oracle).value_or("none any more");
    if (!found.insert(script.back().call + how.substr(std::min(how.size(), how.find('\n')))).second) continue;
    ADD_FAILURE() << "seed " << seed << ", " << made << " calls\n" << to_text(script) << how;
    if (found.size() >= findings) break;
  }
  RecordProperty("calls", std::to_string(made));
  std::cout << made << " calls\n";
}

class Regression : public testing::TestWithParam<std::filesystem::path> {};

TEST_P(Regression, IsAnsweredAsByTmpfs) {
  std::stringstream text;
  text << std::ifstream(GetParam()).rdbuf();
  auto script = parse_script(text.str());
  ASSERT_TRUE(script && !script->empty()) << GetParam() << " is no script";
  EXPECT_EQ(difference(*script, guests_contestant, oracle).value_or(""), "");
}

std::vector<std::filesystem::path> kept_scripts() {
  std::vector<std::filesystem::path> found;
  for (const auto& entry : std::filesystem::directory_iterator(REPRISE_SOURCE_DIR "/tests/fs/regressions"))
    if (entry.path().extension() == ".script") found.push_back(entry.path());
  std::ranges::sort(found);
  return found;
}

INSTANTIATE_TEST_SUITE_P(Fuzz, Regression, testing::ValuesIn(kept_scripts()),
                         [](const auto& named) { return named.param.stem().string(); });

TEST(Script, TextAndBack) {
  std::mt19937_64 random(1);
  Script script = random_script(random, 2000);
  auto parsed = parse_script(to_text(script));
  ASSERT_TRUE(parsed);
  for (size_t i = 0; i < script.size(); ++i) EXPECT_EQ(to_text((*parsed)[i]), to_text(script[i]));
  EXPECT_TRUE(*parsed == script);
  EXPECT_FALSE(parse_script("0 nosuchcall\n"));
  EXPECT_FALSE(parse_script("0 open path\n"));
}

TEST(Fuzz, ShrinksToTheCallsThatMatter) {
  // Against a filesystem with one file too many every script differs that looks for it.
  auto other = [] {
    auto made = guests_contestant();
    made->crew().perform({.call = "mkdir", .path = "b/odd", .mode = 0777});
    made->crew().perform({.call = "mkdir", .path = "e", .mode = 0777});
    return made;
  };
  std::mt19937_64 random(3);
  Script script = random_script(random, 30);
  EXPECT_TRUE(difference(script, other, guests_contestant));
  EXPECT_EQ(to_text(shrink(script, other, guests_contestant)), "");
}

}  // namespace
}  // namespace reprise::posix

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

#include <iostream>

namespace reprise::posix {
namespace {

// Without root there is no tmpfs: then the laws of our own tree are what is tested.
std::unique_ptr<Contestant> oracle() {
  static const bool root = ::geteuid() == 0;
  return root ? tmpfs_contestant() : guests_contestant();
}

TEST(Fuzz, RandomCallsAreAnsweredAsByTmpfs) {
  FuzzRun run = fuzz(guests_contestant, oracle, {.usual_time = std::chrono::seconds(4)});
  for (const std::string& finding : run.findings) ADD_FAILURE() << finding;
  RecordProperty("calls", std::to_string(run.calls));
  std::cout << run.calls << " calls\n";
}

class Regression : public testing::TestWithParam<std::filesystem::path> {};

TEST_P(Regression, IsAnsweredAsByTmpfs) {
  auto script = read_script(GetParam());
  ASSERT_TRUE(script && !script->empty()) << GetParam() << " is no script";
  EXPECT_EQ(difference(*script, guests_contestant, oracle).value_or(""), "");
}

INSTANTIATE_TEST_SUITE_P(Fuzz, Regression, testing::ValuesIn(kept_scripts("fs")),
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

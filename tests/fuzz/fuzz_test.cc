// The fuzz targets without a fuzzer: their seeds, small damage to these, and every input that once broke one.
#include <gtest/gtest.h>

#include <algorithm>

#include "base/disk.h"
#include "tests/fuzz/target.h"

namespace reprise::fuzz {
namespace {

class FuzzTarget : public testing::TestWithParam<Target> {};

INSTANTIATE_TEST_SUITE_P(All, FuzzTarget, testing::ValuesIn(targets()),
                         [](const auto& parameter) { return std::string(parameter.param.name); });

TEST_P(FuzzTarget, SurvivesItsSeedsCutAnywhereAndWithAnyByteChanged) {
  auto seeds = GetParam().seeds();
  ASSERT_FALSE(seeds.empty());
  for (const Bytes& seed : seeds) {
    GetParam().run(seed);
    size_t step = std::max<size_t>(1, seed.size() / 400);
    for (size_t at = 0; at < seed.size(); at += step) {
      GetParam().run(ByteView(seed).first(at));
      for (std::byte flip : {std::byte{1}, std::byte{0x80}, std::byte{0xff}}) {
        Bytes changed = seed;
        changed[at] ^= flip;
        GetParam().run(changed);
      }
    }
  }
}

// The inputs in tests/fuzz/FOLDER/TARGET.
void run_inputs(const Target& target, const std::string& folder) {
  auto directory =
      open_host_directory(std::string(REPRISE_SOURCE_DIR "/tests/fuzz/") + folder + "/" + target.name);
  ASSERT_TRUE(directory) << directory.error().message();
  auto names = (*directory)->list();
  ASSERT_TRUE(names);
  ASSERT_FALSE(names->empty());
  for (const std::string& name : *names) {
    auto input = (*directory)->read_file(name, 64 << 20);
    ASSERT_TRUE(input) << input.error().message();
    target.run(*input);
  }
}

// Found by tools/fuzz, and mended.
TEST_P(FuzzTarget, SurvivesWhatOnceBrokeIt) {
  run_inputs(GetParam(), "regressions");
}

// What tools/fuzz has learned: an input for each way through the code that it knows.
TEST_P(FuzzTarget, SurvivesItsCorpus) {
  run_inputs(GetParam(), "corpus");
}

}  // namespace
}  // namespace reprise::fuzz

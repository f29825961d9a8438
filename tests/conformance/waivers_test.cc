// That the list of waivers (tests/posix/waivers.cc) says no more than it must: each is of a suite and a row
// that there are.
#include "tests/posix/waivers.h"

#include <unistd.h>

#include <algorithm>
#include <set>

#include "tests/conformance/table.h"

namespace reprise::conformance {
namespace {

const testing::TestSuite* suite_named(std::string_view name) {
  const testing::UnitTest& all = *testing::UnitTest::GetInstance();
  for (int i = 0; i < all.total_test_suite_count(); ++i)
    if (all.GetTestSuite(i)->name() == name) return all.GetTestSuite(i);
  return nullptr;
}

// Whether all its tests there are part of this run.
bool runs_whole(const testing::TestSuite& suite, Which which) {
  bool any = false;
  for (int i = 0; i < suite.total_test_count(); ++i) {
    const testing::TestInfo& test = *suite.GetTestInfo(i);
    if (!std::string_view(test.name()).ends_with("/" + name_of(which))) continue;
    if (!test.should_run() || !test.result()->Passed() || test.result()->Skipped()) return false;
    any = true;
  }
  return any;
}

class EachIsUsed final : public testing::Environment {
 public:
  void TearDown() override {
    for (const posix::Waiver& waiver : posix::waivers()) {
      const testing::TestSuite* suite = suite_named(waiver.suite);
      if (waiver.row.empty() || suite == nullptr || !runs_whole(*suite, waiver.which)) continue;
      EXPECT_TRUE(House::waivers_used().contains(&waiver))
          << waiver.suite << " has no row " << waiver.row << " on " << name_of(waiver.which);
    }
  }
};
const testing::Environment* const kEachIsUsed = testing::AddGlobalTestEnvironment(new EachIsUsed);

TEST(Waivers, AreOfSuitesThatThereAreAndHaveReasons) {
  for (const posix::Waiver& waiver : posix::waivers()) {
    EXPECT_FALSE(waiver.reason.empty()) << waiver.suite << " " << waiver.row;
    EXPECT_EQ(waiver.row.empty(), waiver.instead.empty()) << waiver.suite << " " << waiver.row;
    // Who is not root has what is waived for the guests in process nowhere.
    if (::geteuid() != 0) continue;
    EXPECT_NE(suite_named(waiver.suite), nullptr) << "no suite " << waiver.suite;
  }
  for (const posix::Silence& silence : posix::silences()) EXPECT_FALSE(silence.reason.empty());
  for (const posix::Excuse& excuse : posix::excuses()) EXPECT_FALSE(excuse.reason.empty());
}

}  // namespace
}  // namespace reprise::conformance

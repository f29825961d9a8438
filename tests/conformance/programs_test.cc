// What runs from a filesystem, and what writes to it: each keeps the other away. The kernel sees to it, on a
// FUSE mount as on its own filesystems; guests in process run nothing.
#include <unistd.h>

#include <fstream>
#include <iterator>

#include "tests/conformance/table.h"
#include "tests/posix/kernel_calls.h"

namespace reprise::conformance {
namespace {

// The house, and in it "program" with a second name.
class HouseWithProgram : public House {
 protected:
  void SetUp() override {
    House::SetUp();
    if (IsSkipped()) return;
    posix::KernelRoot::leave();
    std::ifstream file("/bin/sleep", std::ios::binary);
    std::string sleep{std::istreambuf_iterator<char>(file), {}};
    ASSERT_FALSE(sleep.empty());
    OK(root().write_file("program", sleep, 0777));
    OK(root().chmod("program", 0755));
    OK(root().link("program", "alias"));
  }
  int opened(int flags) { return must(root().open("program", flags)); }
};

GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(Programs);  // who is not root has nothing that runs them
CONFORMANCE_SUITE_OF(HouseWithProgram, Programs, Which::kTmpfs);

TEST_P(Programs, ThatRunAreNotWritten) {
  posix::RunningProgram running(opened(O_RDONLY));
  ASSERT_EQ(posix::name_of(running.error()), "ok");
  expect({
      ROW(ETXTBSY, root, open("program", O_WRONLY)),
      ROW(ETXTBSY, root, open("program", O_RDWR)),
      ROW(ETXTBSY, root, open("program", O_WRONLY | O_APPEND)),
      ROW(ETXTBSY, root, open("program", O_RDONLY | O_TRUNC)),
      ROW(ETXTBSY, root, open("program", O_WRONLY | O_CREAT | O_TRUNC)),
      ROW(ETXTBSY, root, open("alias", O_RDWR)),
      ROW(ETXTBSY, root, truncate("program", 0)),
      ROW(ETXTBSY, root, truncate("alias", 1 << 20)),
      ROW(EEXIST, root, open("program", O_RDWR | O_CREAT | O_EXCL)),
      ROW(EACCES, alice, open("program", O_WRONLY)),
      ROW(EACCES, alice, truncate("program", 0)),
      ROW(EINVAL, root, truncate("program", -1)),
      ROW(ok, root, access("program", W_OK)),
      ROW(ok, root, open("program", O_RDONLY)),
      ROW(ok, root, open("program", O_PATH | O_TRUNC)),
  });
}

// Everything but its bytes may change while it runs; what takes its name may be written.
TEST_P(Programs, ThatRunAreRenamedReplacedAndRemoved) {
  posix::RunningProgram running(opened(O_RDONLY));
  ASSERT_EQ(posix::name_of(running.error()), "ok");
  OK(root().chmod("program", 0700));
  OK(root().chown("program", 1, 1));
  OK(root().rename("program", "elsewhere"));
  FAILS(ETXTBSY, root().open("elsewhere", O_WRONLY));
  OK(root().write_file("program", "another"));
  OK(root().rename("program", "elsewhere"));
  OK(root().write_file("elsewhere", "written"));
  FAILS(ETXTBSY, root().open("alias", O_WRONLY));
  OK(root().unlink("alias"));
}

TEST_P(Programs, AreWrittenOnceTheyHaveEnded) {
  {
    posix::RunningProgram running(opened(O_RDONLY));
  }
  OK(root().truncate("program", 5));
  OK(root().write_file("program", "bytes"));
}

TEST_P(Programs, ThatAreBeingWrittenDoNotRun) {
  int reading = opened(O_RDONLY);
  int writing = opened(O_RDWR);
  EXPECT_EQ(posix::name_of(posix::RunningProgram(reading).error()), "ETXTBSY");
  OK(root().close(writing));
  EXPECT_EQ(posix::name_of(posix::RunningProgram(reading).error()), "ok");
}

}  // namespace
}  // namespace reprise::conformance

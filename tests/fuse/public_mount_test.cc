// A mount that everybody sees: what it refuses, in one line each.
#include "adapters/fuse/public_mount.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdlib>
#include <fstream>

#include "tests/fuse/mounted.h"
#include "tests/posix/kernel_calls.h"

// libfuse 3.14 leaks the arguments that its fuse_open_channel() puts together, some bytes a mount. Its frames
// do not say who called, so the name is that of the function which allocates.
extern "C" const char* __lsan_default_suppressions();
extern "C" const char* __lsan_default_suppressions() {
  return "leak:fuse_opt_add_arg\n";
}

namespace reprise::fuse::testing {
namespace {

Error refusal(const std::string& mountpoint) {
  auto mount = PublicMount::make(mountpoint, false);
  Error error = mount ? Error(Code::kTimeout, "no refusal") : mount.error();
  EXPECT_EQ(error.message().find('\n'), std::string::npos) << error.message();
  return error;
}

TEST(PublicMount, RefusesADirectoryWhereSomethingIsMounted) {
  ASSERT_EQ(::geteuid(), 0u) << "mounting where no other process sees it needs root";
  ASSERT_EQ(posix::keep_mounts_private(), "");
  Mounted mounted;
  auto mount = PublicMount::make(mounted.mountpoint(), false);
  ASSERT_TRUE(mount) << mount.error().message();
  auto server = Server::start(mounted.filesystem(), system_clock(), (*mount)->take_fuse_fd(), {});
  ASSERT_TRUE(server) << server.error().message();
  Error refused = refusal(mounted.mountpoint());
  EXPECT_EQ(refused.code(), Code::kAlreadyExists) << refused.message();
  EXPECT_NE(refused.message().find(mounted.mountpoint()), std::string::npos) << refused.message();
  ASSERT_TRUE((*mount)->unmount());
  (*server)->stop();
  EXPECT_TRUE(PublicMount::make(mounted.mountpoint(), false)) << "it is free again";
}

TEST(PublicMount, NamesWhatIsMissing) {
  TemporaryDirectory outside;
  EXPECT_EQ(refusal(outside / "none").code(), Code::kNotFound);
  std::ofstream(outside / "file") << "x";
  EXPECT_EQ(refusal(outside / "file").code(), Code::kInvalidArgument);
  ASSERT_EQ(::setenv("REPRISE_FUSE_DEVICE", "/dev/null", 1), 0);
  Error other_device = refusal(outside.path());
  EXPECT_EQ(other_device.code(), Code::kUnsupported) << other_device.message();
  ASSERT_EQ(::setenv("REPRISE_FUSE_DEVICE", (outside / "none").c_str(), 1), 0);
  EXPECT_EQ(refusal(outside.path()).code(), Code::kNotFound);
  ASSERT_EQ(::unsetenv("REPRISE_FUSE_DEVICE"), 0);
}

}  // namespace
}  // namespace reprise::fuse::testing

// Filesystems of the kernel, mounted where only this process sees them.
#include <fcntl.h>
#include <linux/loop.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>

#include "base/check.h"
#include "tests/posix/kernel_calls.h"

namespace reprise::posix {
namespace {

MountedFilesystem refused(const std::string& what) {
  return {.refusal = what + ": " + std::strerror(errno)};
}

MountedFilesystem mount_somewhere(const char* source, const char* type, const std::string& options) {
  char where[] = "/tmp/reprise-oracle-XXXXXX";
  if (::mkdtemp(where) == nullptr) return refused(where);
  if (::mount(source, where, type, MS_NOATIME | MS_NODEV | MS_NOSUID, options.c_str()) != 0) {
    MountedFilesystem none = refused(std::string("mounting ") + type);
    ::rmdir(where);
    return none;
  }
  int root = ::open(where, O_PATH | O_DIRECTORY | O_CLOEXEC);
  CHECK(root >= 0 && ::umount2(where, MNT_DETACH) == 0 && ::rmdir(where) == 0);
  return {.root = root};
}

int run_quietly(const std::string& command) {
  return std::system((command + " >/dev/null 2>&1").c_str());  // NOLINT: no input of anybody in it
}

// A free loop device that shows an image and lets it go when it is no longer used. -1 if there is none.
int attach_loop(const std::string& image, std::string& device) {
  int control = ::open("/dev/loop-control", O_RDWR | O_CLOEXEC);
  int backing = ::open(image.c_str(), O_RDWR | O_CLOEXEC);
  int loop = -1;
  for (int tries = 0; tries < 16 && control >= 0 && backing >= 0 && loop < 0; ++tries) {
    int number = ::ioctl(control, LOOP_CTL_GET_FREE);
    if (number < 0) break;
    device = "/dev/loop" + std::to_string(number);
    loop_config config = {};
    config.fd = static_cast<uint32_t>(backing);
    config.info.lo_flags = LO_FLAGS_AUTOCLEAR;
    loop = ::open(device.c_str(), O_RDWR | O_CLOEXEC);
    if (loop >= 0 && ::ioctl(loop, LOOP_CONFIGURE, &config) != 0) ::close(std::exchange(loop, -1));
  }
  if (control >= 0) ::close(control);
  if (backing >= 0) ::close(backing);
  return loop;
}

}  // namespace

std::string keep_mounts_private() {
  KernelRoot::leave();
  static const std::string refusal = []() -> std::string {
    if (::geteuid() != 0) return "mounting needs root";
    if (::unshare(CLONE_NEWNS) != 0) return "no mount namespace of its own";
    if (::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0) return "mounts stay shared";
    return {};
  }();
  return refusal;
}

MountedFilesystem mount_tmpfs(uint64_t size_bytes, uint64_t inodes) {
  if (std::string refusal = keep_mounts_private(); !refusal.empty()) return {.refusal = refusal};
  std::string options = "mode=0755";
  if (size_bytes != 0) options += ",size=" + std::to_string(size_bytes);
  if (inodes != 0) options += ",nr_inodes=" + std::to_string(inodes);
  return mount_somewhere("tmpfs", "tmpfs", options);
}

MountedFilesystem mount_ext4() {
  if (std::string refusal = keep_mounts_private(); !refusal.empty()) return {.refusal = refusal};
  char image[] = "/tmp/reprise-ext4-XXXXXX";
  int fd = ::mkstemp(image);
  if (fd < 0 || ::ftruncate(fd, 64 << 20) != 0) return refused(image);
  ::close(fd);
  MountedFilesystem made{.refusal = "mkfs.ext4 is not here or has failed"};
  std::string device;
  int loop = -1;
  if (run_quietly(std::string("PATH=$PATH:/usr/sbin:/sbin mkfs.ext4 -q -F -b 4096 ") + image) == 0) {
    loop = attach_loop(image, device);
    made = loop < 0 ? refused("no free loop device") : mount_somewhere(device.c_str(), "ext4", "");
  }
  if (loop >= 0) ::close(loop);
  ::unlink(image);
  return made;
}

}  // namespace reprise::posix

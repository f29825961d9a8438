// Launching a command: exit statuses, signals, what is missing on the machine, users without privileges.
#include <grp.h>
#include <gtest/gtest.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstdlib>
#include <fstream>
#include <thread>

#include "base/check.h"
#include "tests/fuse/mounted.h"

namespace reprise::fuse::testing {
namespace {

TEST(Launch, ExitsAsEnvDoes) {
  struct Case {
    std::vector<std::string> command;
    int status;
  };
  Mounted mounted;
  ASSERT_EQ(mounted.run("printf 'not a program' > text; chmod 644 text; mkdir directory").status, 0);
  for (const Case& c :
       {Case{{"true"}, 0}, Case{{"sh", "-c", "exit 7"}, 7}, Case{{"sh", "-c", "kill -TERM $$"}, 143},
        Case{{"sh", "-c", "kill -KILL $$"}, 137}, Case{{"no-such-command"}, 127},
        Case{{"./no-such-file"}, 127}, Case{{"./text"}, 126}, Case{{"./directory"}, 126}}) {
    EXPECT_EQ(mounted.run_command(c.command).status, c.status) << c.command.back();
  }
}

TEST(Launch, SaysWhichCommandIsMissing) {
  Mounted mounted;
  Ran ran = mounted.run_command({"no-such-command"});
  EXPECT_EQ(ran.output, "no-such-command: No such file or directory");
}

TEST(Launch, RunsWhatLiesInTheMount) {
  Mounted mounted;
  Ran ran = mounted.run("cp /bin/echo mine; ./mine from inside");
  EXPECT_EQ(ran.output, "from inside\n");
}

TEST(Launch, NamesWhatTheMachineLacks) {
  TemporaryDirectory outside;
  auto refusal = [&](LaunchOptions options) {
    auto launch = Launch::prepare(std::move(options));
    return launch ? Error(Code::kAlreadyExists, "no refusal") : launch.error();
  };
  Error no_mountpoint = refusal({.command = {"true"}, .mountpoint = outside / "none"});
  EXPECT_EQ(no_mountpoint.code(), Code::kNotFound);
  EXPECT_NE(no_mountpoint.message().find(outside / "none"), std::string::npos) << no_mountpoint.message();

  Error no_device = refusal({.command = {"true"}, .mountpoint = outside.path(), .device = outside / "fuse"});
  EXPECT_EQ(no_device.code(), Code::kNotFound);
  EXPECT_NE(no_device.message().find("modprobe fuse"), std::string::npos) << no_device.message();

  Error wrong_device = refusal({.command = {"true"}, .mountpoint = outside.path(), .device = "/dev/null"});
  EXPECT_NE(wrong_device.message().find("mounting at " + outside.path()), std::string::npos)
      << wrong_device.message();

  Error no_command = refusal({.mountpoint = outside.path()});
  EXPECT_EQ(no_command.code(), Code::kInvalidArgument);
}

TEST(Launch, NobodyElseSeesTheMount) {
  Mounted mounted;
  ASSERT_EQ(mounted.run("touch inside").status, 0);
  Guest guest(mounted);
  EXPECT_EQ(guest.ask("ls()"), "['inside']");
  EXPECT_TRUE(std::filesystem::is_empty(mounted.mountpoint()));
}

TEST(Launch, PassesSignalsOn) {
  Mounted mounted;
  pid_t self = ::getpid();
  std::string ready = mounted.outside() / "ready";
  // Blocked in the thread below too, which is started before prepare() could see to it.
  sigset_t term, before;
  sigemptyset(&term);
  sigaddset(&term, SIGTERM);
  pthread_sigmask(SIG_BLOCK, &term, &before);
  std::thread sender([&] {
    while (::access(ready.c_str(), F_OK) != 0) ::usleep(1000);
    ::kill(self, SIGTERM);
  });
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  Ran ran = mounted.run("trap 'echo got it; exit 5' TERM; : > $OUT/ready; while :; do sleep 0.01; done");
  sender.join();
  EXPECT_EQ(ran.status, 5);
  EXPECT_EQ(ran.output, "got it\n");
}

TEST(Launch, WhatOutlivesTheCommandLosesTheMount) {
  Mounted mounted;
  Ran ran = mounted.run(
      "{ while test ! -e $OUT/stopped; do sleep 0.01; done; cat f 2> $OUT/left || :; : > $OUT/end; } "
      ">/dev/null & echo x > f");
  EXPECT_EQ(ran.status, 0);
  std::ofstream stopped(mounted.outside() / "stopped");
  while (::access((mounted.outside() / "end").c_str(), F_OK) != 0) ::usleep(1000);
  EXPECT_NE(read_host_file(mounted.outside() / "left").find("Transport endpoint is not connected"),
            std::string::npos);
}

TEST(Launch, WhatOutlivesTheCommandKeepsWhatItHasChangedByAMapping) {
  Mounted mounted;
  Ran ran = mounted.run(R"sh(
cat > $OUT/left.py <<'E'
import mmap, os, time
f = os.open("f", os.O_RDWR | os.O_CREAT)
os.ftruncate(f, 1 << 20)
mapped = mmap.mmap(f, 1 << 20)
for at in range(0, 1 << 20, 4096): mapped[at] = 66
open(os.environ["OUT"] + "/dirty", "w")
while os.path.exists(os.environ["OUT"]) and not os.path.exists(os.environ["OUT"] + "/stopped"): time.sleep(0.01)
E
setsid $PYTHON $OUT/left.py > /dev/null 2>&1 &
until test -e $OUT/dirty; do sleep 0.01; done
)sh");
  std::ofstream stopped(mounted.outside() / "stopped");
  ASSERT_EQ(ran.status, 0) << ran.output;
  std::string bytes(1 << 20, '\0');
  ASSERT_EQ(mounted.filesystem().read(mounted.inode_at("f"), 0, std::as_writable_bytes(std::span(bytes))),
            bytes.size());
  EXPECT_EQ(std::count(bytes.begin(), bytes.end(), 'B'), 256);
}

TEST(Launch, RootSeesAndGivesTrueOwners) {
  if (::geteuid() != 0) return;  // the next test is what others get
  Mounted mounted;
  Ran ran = mounted.run("touch f; chown 1234:5678 f; stat -c %u:%g f");
  EXPECT_EQ(ran.output, "1234:5678\n");
  auto attributes = mounted.filesystem().get_attributes(mounted.inode_at("f"));
  ASSERT_TRUE(attributes);
  EXPECT_EQ(attributes->uid, 1234u);
  EXPECT_EQ(attributes->gid, 5678u);
}

// Everything is the caller's, and journaled as 0:0. Empty, or what is not so.
std::string run_without_privileges() {
  Mounted mounted;
  auto made = mounted.filesystem().make_node({}, kRootInode, "theirs", S_IFREG | 0600, 0);
  if (!made) return "could not make a file";
  auto given = mounted.filesystem().set_attributes({}, made->inode, {.uid = 4242, .gid = 4242});
  if (!given) return "could not give it away";
  Ran ran = mounted.run(R"sh(
    me=$(id -u):$(id -g)
    test "$(stat -c %u:%g .)" = $me; test "$(stat -c %u:%g theirs)" = $me; cat theirs
    echo x > mine; test "$(stat -c %u:%g mine)" = $me; mkdir d; ln -s x s; test "$(stat -c %u:%g d)" = $me
    chown $me mine; fails chown 0 mine; chmod 600 mine; test "$(cat mine)" = x
    git init -q . && git -c user.name=n -c user.email=e@f commit -q --allow-empty -m x
  )sh");
  if (ran.status != 0) return "status " + std::to_string(ran.status) + ": " + ran.output;
  auto mine = mounted.filesystem().get_attributes(mounted.inode_at("mine"));
  if (!mine || mine->uid != 0 || mine->gid != 0) return "not journaled as 0:0";
  auto theirs = mounted.filesystem().get_attributes(made->inode);
  if (!theirs || theirs->uid != 4242) return "an owner changed by looking at it";
  return "";
}

void become_nobody() {
  constexpr uid_t kNobody = 65534;
  CHECK(::setgroups(0, nullptr) == 0 && ::setgid(kNobody) == 0 && ::setuid(kNobody) == 0);
  CHECK(::prctl(PR_SET_DUMPABLE, 1) == 0);  // as after an exec: the process owns its files in /proc
}

TEST(Launch, WithoutPrivilegesEverythingIsTheCallers) {
  if (::geteuid() != 0) {
    EXPECT_EQ(run_without_privileges(), "");
    return;
  }
  TemporaryDirectory outside;
  // On most systems the device is for everybody; here one that surely is.
  std::string device = outside / "fuse", result = outside / "result";
  ASSERT_EQ(::mknod(device.c_str(), S_IFCHR | 0666, makedev(10, 229)), 0);
  ASSERT_EQ(::chmod(device.c_str(), 0666), 0);
  pid_t pid = ::fork();
  if (pid == 0) {
    become_nobody();
    ::setenv("REPRISE_FUSE_DEVICE", device.c_str(), 1);
    std::ofstream(result) << "done " << run_without_privileges();
    ::_exit(0);
  }
  int status;
  ASSERT_EQ(::waitpid(pid, &status, 0), pid);
  EXPECT_EQ(read_host_file(result), "done ");
}

}  // namespace
}  // namespace reprise::fuse::testing

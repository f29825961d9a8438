// The C interface as a host sees it: nothing of the library is included here but its headers.
#include <dirent.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <functional>
#include <string>
#include <thread>
#include <vector>

#include "reprise.hpp"
#include "tests/capi/host.h"

namespace {

using namespace std::chrono_literals;
using reprise::Guest;
using reprise::Instance;
using reprise::InstanceOptions;
using reprise::host::Capi;
using reprise::host::error_of;

int free_port() {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof address;
  int fd = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  EXPECT_EQ(::bind(fd, reinterpret_cast<sockaddr*>(&address), size), 0);
  EXPECT_EQ(::getsockname(fd, reinterpret_cast<sockaddr*>(&address), &size), 0);
  ::close(fd);
  return ntohs(address.sin_port);
}

size_t threads() {
  size_t count = 0;
  for ([[maybe_unused]] const auto& entry : std::filesystem::directory_iterator("/proc/self/task")) ++count;
  return count;
}

TEST_F(Capi, TwoInstancesInStepWithoutAFileOrASocketThatOthersSee) {
  InstanceOptions leading, following;
  leading.listen = following.follow = "process:site";
  Instance a(leading);
  Instance b(following);
  Guest(a).write_file("/hello", "hi");
  b.wait_for(a.position(), 10s);
  EXPECT_EQ(Guest(b).read_file("/hello"), "hi");
  EXPECT_EQ(error_of([&] { Instance again(leading); }), EBUSY);
}

TEST_F(Capi, TwoInstancesInStepAForkJoinedAndAnotherDiscarded) {
  InstanceOptions leading, following;
  leading.listen = following.follow = "unix:" + path("socket");
  Instance a(path("a.store"), leading), b(following);
  Guest(a).write_file("/hello", "hi");
  b.wait_for(a.position(), 10s);
  EXPECT_EQ(Guest(b).read_file("/hello"), "hi");
  EXPECT_EQ(error_of([&] { Guest(b).write_file("/hello", "ho"); }), EROFS);

  {
    Instance child = a.fork("try1");
    Guest(child).write_file("/hello", "better");
    EXPECT_EQ(Guest(a).read_file("/hello"), "hi");
    EXPECT_EQ(error_of([&] { a.join("try1"); }), EBUSY);
    child.close();
  }
  EXPECT_TRUE(a.join("try1").empty());
  EXPECT_EQ(Guest(a).read_file("/hello"), "better");

  {
    Instance child = a.fork("try2");
    Guest(child).write_file("/hello", "worse");
    Guest(a).write_file("/hello", "best");
  }
  auto conflicts = a.join("try2");
  ASSERT_EQ(conflicts.size(), 1u);
  EXPECT_EQ(conflicts[0].path, "/hello");
  EXPECT_EQ(conflicts[0].what, "both changed it");
  a.discard("try2");
  EXPECT_EQ(error_of([&] { a.discard("try2"); }), ENOENT);

  EXPECT_GT(a.snapshot("released"), 0);
  a.mark("end");
  b.wait_for_mark("end", 10s);
  EXPECT_EQ(Guest(b).read_file("/hello"), "best");
  EXPECT_EQ(a.digest(), b.digest());
  EXPECT_NE(a.statistics().find("\"role\":\"leader\""), std::string::npos);
  b.close();
  a.close();
  EXPECT_EQ(Guest(Instance(path("a.store"))).read_file("/hello"), "best");
}

TEST_F(Capi, OverTcpWithATokenThatBothKnow) {
  InstanceOptions leading, following;
  leading.listen = following.follow = "tcp:127.0.0.1:" + std::to_string(free_port());
  leading.token = following.token = "a token of some length";
  Instance a(path("a.store"), leading), b(following);
  Guest(a).write_file("/hello", "hi");
  b.wait_for(a.position(), 10s);
  EXPECT_EQ(Guest(b).read_file("/hello"), "hi");
  following.token = "another token, as long";
  EXPECT_NE(error_of([&] { Instance c(following); }), 0);
  following.token = "short";
  EXPECT_EQ(error_of([&] { Instance c(following); }), EINVAL);
}

TEST_F(Capi, InMemoryItNeedsNoDiskAndNoThreads) {
  size_t before = threads();
  Instance a, b;
  EXPECT_EQ(threads(), before);
  Guest(a).write_file("/only", "in a");
  EXPECT_EQ(error_of([&] { Guest(b).read_file("/only"); }), ENOENT);
  {
    Instance tried = a.fork("try");
    Guest(tried).write_file("/more", "in the fork");
    tried.close();
    EXPECT_EQ(error_of([&] { Guest(a).read_file("/more"); }), ENOENT);
    a.join("try");
    EXPECT_EQ(Guest(a).read_file("/more"), "in the fork");
  }
  EXPECT_EQ(error_of([&] { a.join("try"); }), ENOENT);
  EXPECT_STREQ(reprise_last_error(), "the volume in memory: there is no branch try");
  EXPECT_EQ(threads(), before);
  a.close();
  EXPECT_EQ(error_of([&] { a.sync(); }), EBADF);
}

TEST_F(Capi, FilesAsTheSystemHasThem) {
  Instance instance;
  Guest guest(instance);
  reprise_guest* g = guest.handle();
  EXPECT_EQ(reprise_mkdir(g, "/d", 0755), 0);
  EXPECT_EQ(reprise_chdir(g, "d"), 0);
  EXPECT_EQ(guest.getcwd(), "/d");
  int fd = reprise_open(g, "f", O_RDWR | O_CREAT | O_EXCL, 0640);
  ASSERT_GE(fd, 0);
  EXPECT_EQ(reprise_open(g, "f", O_RDWR | O_CREAT | O_EXCL, 0640), -EEXIST);
  EXPECT_EQ(reprise_write(g, fd, "0123456789", 10), 10);
  EXPECT_EQ(reprise_pwrite(g, fd, "ab", 2, 4), 2);
  EXPECT_EQ(reprise_seek(g, fd, -8, SEEK_END), 2);
  char bytes[16] = {};
  EXPECT_EQ(reprise_read(g, fd, bytes, sizeof bytes), 8);
  EXPECT_STREQ(bytes, "23ab6789");
  EXPECT_EQ(reprise_read(g, fd, bytes, sizeof bytes), 0);
  EXPECT_EQ(reprise_pread(g, fd, bytes, 2, 4), 2);
  EXPECT_EQ(std::string(bytes, 2), "ab");
  EXPECT_EQ(reprise_fallocate(g, fd, 0, 0, 8192), 0);
  EXPECT_EQ(reprise_ftruncate(g, fd, 5000), 0);
  EXPECT_EQ(reprise_flock(g, fd, LOCK_EX, 0), 0);
  Guest other(instance);
  int held = other.open("/d/f", O_RDONLY);
  EXPECT_EQ(reprise_flock(other.handle(), held, LOCK_SH, 0), -EWOULDBLOCK);
  EXPECT_EQ(reprise_fsync(g, fd), 0);
  int twin = reprise_dup(g, fd);
  ASSERT_GT(twin, fd);
  EXPECT_EQ(reprise_close(g, fd), 0);
  EXPECT_EQ(reprise_close(g, fd), -EBADF);
  EXPECT_STREQ(reprise_last_error(), "reprise_close descriptor 0: Bad file descriptor (EBADF)");
  reprise_attributes attributes;
  EXPECT_EQ(reprise_fstat(g, twin, &attributes), 0);
  EXPECT_EQ(attributes.bytes, 5000u);
  EXPECT_EQ(attributes.mode, S_IFREG | 0640u);
  EXPECT_EQ(attributes.blocks, 8u);

  EXPECT_EQ(reprise_symlink(g, "f", "s"), 0);
  EXPECT_EQ(reprise_link(g, "f", "l"), 0);
  EXPECT_EQ(reprise_stat(g, "s", &attributes), 0);
  EXPECT_EQ(attributes.links, 2u);
  EXPECT_EQ(reprise_lstat(g, "s", &attributes), 0);
  EXPECT_TRUE(S_ISLNK(attributes.mode));
  char target[2];
  EXPECT_EQ(reprise_readlink(g, "s", target, sizeof target), 1);
  EXPECT_STREQ(target, "f");
  EXPECT_EQ(reprise_readlink(g, "f", target, sizeof target), -EINVAL);
  EXPECT_EQ(reprise_rename(g, "l", "m"), 0);
  EXPECT_EQ(reprise_truncate(g, "m", 3), 0);
  EXPECT_EQ(reprise_chmod(g, "m", 0600), 0);
  EXPECT_EQ(reprise_chown(g, "m", 7, 8), 0);
  const reprise_time times[2] = {{1, 2}, {3'000'000'000, 4}};
  EXPECT_EQ(reprise_utimens(g, "m", times), 0);
  EXPECT_EQ(reprise_stat(g, "/d/m", &attributes), 0);
  EXPECT_EQ(attributes.uid, 7u);
  EXPECT_EQ(attributes.gid, 8u);
  EXPECT_EQ(attributes.atime.nsec, 2);
  EXPECT_EQ(attributes.mtime.sec, 3'000'000'000);
  EXPECT_EQ(reprise_access(g, "m", R_OK), 0);
  EXPECT_EQ(guest.read_file("m"), "012");

  auto entries = guest.list("/d");
  ASSERT_EQ(entries.size(), 3u);
  EXPECT_EQ(entries[0].name + entries[1].name + entries[2].name, "fms");
  EXPECT_EQ(entries[2].type, DT_LNK);
  EXPECT_EQ(reprise_rmdir(g, "/d"), -ENOTEMPTY);
  EXPECT_STREQ(reprise_last_error(), "reprise_rmdir /d: Directory not empty (ENOTEMPTY)");
  for (const char* name : {"f", "m", "s"}) EXPECT_EQ(reprise_unlink(g, name), 0);
  EXPECT_EQ(reprise_rmdir(g, "/d"), 0);
  EXPECT_EQ(reprise_getcwd(g, bytes, sizeof bytes), -ENOENT);
}

TEST_F(Capi, WholeFilesTellTheirLengthAndFitWhatRoomThereIs) {
  Instance instance;
  Guest guest(instance);
  guest.write_file("/f", std::string(100'000, 'x'));
  EXPECT_EQ(reprise_read_file(guest.handle(), "/f", nullptr, 0), 100'000);
  char few[3];
  EXPECT_EQ(reprise_read_file(guest.handle(), "/f", few, sizeof few), 100'000);
  EXPECT_EQ(std::string(few, 3), "xxx");
  EXPECT_EQ(guest.read_file("/f"), std::string(100'000, 'x'));
  guest.write_file("/f", "");
  EXPECT_EQ(guest.read_file("/f"), "");
}

TEST_F(Capi, PermissionsAreCheckedWhereTheHostWantsIt) {
  Instance instance;
  Guest(instance).write_file("/secret", "s", 0600);
  reprise::GuestOptions options;
  options.checked = true;
  options.uid = 1000;
  Guest guest(instance, options);
  EXPECT_EQ(error_of([&] { guest.read_file("/secret"); }), EACCES);
}

TEST_F(Capi, StreamsOfTheCLibrary) {
  Instance instance;
  Guest guest(instance);
  FILE* file = reprise_fopen(guest.handle(), "/lines", "w");
  ASSERT_NE(file, nullptr);
  for (int i = 0; i < 5000; ++i) EXPECT_GT(std::fprintf(file, "line %d\n", i), 0);
  EXPECT_EQ(std::fclose(file), 0);
  file = reprise_fopen(guest.handle(), "/lines", "a+");
  EXPECT_GT(std::fprintf(file, "the end\n"), 0);
  EXPECT_EQ(std::fseek(file, -8, SEEK_END), 0);
  char line[32];
  EXPECT_STREQ(std::fgets(line, sizeof line, file), "the end\n");
  EXPECT_EQ(std::fclose(file), 0);
  file = reprise_fopen(guest.handle(), "/lines", "r");
  int lines = 0;
  while (std::fgets(line, sizeof line, file) != nullptr) ++lines;
  EXPECT_EQ(lines, 5001);
  EXPECT_LT(std::fputs("no", file), 0);
  std::fclose(file);
  for (const char* mode : {"", "q", "w!", "rw"}) {
    errno = 0;
    EXPECT_EQ(reprise_fopen(guest.handle(), "/lines", mode), nullptr) << mode;
    EXPECT_EQ(errno, EINVAL) << mode;
  }
  EXPECT_EQ(reprise_fopen(guest.handle(), "/lines", nullptr), nullptr);
  EXPECT_EQ(reprise_fopen(guest.handle(), "/none", "r"), nullptr);
  EXPECT_EQ(errno, ENOENT);
  EXPECT_EQ(reprise_fopen(guest.handle(), "/lines", "wx"), nullptr);
  EXPECT_EQ(errno, EEXIST);
  // A stream that outlives its guest: an error, and nothing else.
  file = reprise_fopen(guest.handle(), "/lines", "r");
  ASSERT_NE(file, nullptr);
  {
    Guest gone(std::move(guest));
  }
  EXPECT_EQ(std::fgetc(file), EOF);
  EXPECT_NE(std::fclose(file), 0);
  EXPECT_EQ(errno, EBADF);
}

TEST_F(Capi, LimitsOfTheVolume) {
  InstanceOptions options;
  options.volume_inodes = 3;
  Instance instance(path("s"), options);
  Guest guest(instance);
  guest.write_file("/one", "1");
  guest.write_file("/two", "2");
  EXPECT_EQ(error_of([&] { guest.write_file("/three", "3"); }), ENOSPC);
}

// --- what is wrong

reprise_instance* instance_of(uintptr_t number) {
  return reinterpret_cast<reprise_instance*>(number);
}

// Every call of an instance, with the handle given and all else as it should be.
std::vector<std::function<int64_t(reprise_instance*)>> calls_of_instance() {
  static char text[64];
  static unsigned char digest[16];
  return {
      [](auto* i) { return reprise_sync(i); },
      [](auto* i) { return reprise_mark(i, "m"); },
      [](auto* i) { return reprise_wait_for_mark(i, "m", 0); },
      [](auto* i) { return reprise_position(i, text, sizeof text); },
      [](auto* i) { return reprise_wait_for(i, "r0.", 0); },
      [](auto* i) { return reprise_snapshot(i, nullptr); },
      [](auto* i) { return reprise_statistics(i, text, sizeof text); },
      [](auto* i) { return reprise_digest(i, digest); },
      [](auto* i) {
        reprise_instance* child = nullptr;
        return reprise_fork(i, "b", &child);
      },
      [](auto* i) { return reprise_join(i, "b", nullptr, nullptr); },
      [](auto* i) { return reprise_join_resolved(i, "b", REPRISE_OURS, nullptr, nullptr, nullptr); },
      [](auto* i) { return reprise_reset(i, "1", nullptr, nullptr, nullptr); },
      [](auto* i) { return reprise_discard(i, "b"); },
      [](auto* i) { return reprise_flush(i, 0, 0, 0); },
      [](auto* i) { return reprise_diff(i, nullptr, i, nullptr, nullptr, nullptr); },
      [](auto* i) { return reprise_import(i, "/no/such", nullptr); },
      [](auto* i) { return reprise_export(i, "/no/such/place", nullptr); },
      [](auto* i) {
        reprise_watch* watch = nullptr;
        return reprise_watch_begin(i, &watch);
      },
      [](auto* i) {
        reprise_guest* guest = nullptr;
        return reprise_guest_attach(i, nullptr, &guest);
      },
      [](auto* i) { return reprise_instance_close(i); },
  };
}

std::vector<std::function<int64_t(reprise_guest*)>> calls_of_guest() {
  static char bytes[64];
  static reprise_attributes attributes;
  static const reprise_time times[2] = {};
  return {
      [](auto* g) { return reprise_guest_set_label(g, "l"); },
      [](auto* g) { return reprise_open(g, "/f", O_RDONLY, 0); },
      [](auto* g) { return reprise_close(g, 0); },
      [](auto* g) { return reprise_dup(g, 0); },
      [](auto* g) { return reprise_read(g, 0, bytes, 1); },
      [](auto* g) { return reprise_pread(g, 0, bytes, 1, 0); },
      [](auto* g) { return reprise_write(g, 0, bytes, 1); },
      [](auto* g) { return reprise_pwrite(g, 0, bytes, 1, 0); },
      [](auto* g) { return reprise_seek(g, 0, 0, SEEK_SET); },
      [](auto* g) { return reprise_ftruncate(g, 0, 0); },
      [](auto* g) { return reprise_fallocate(g, 0, 0, 0, 1); },
      [](auto* g) { return reprise_fsync(g, 0); },
      [](auto* g) { return reprise_fstat(g, 0, &attributes); },
      [](auto* g) { return reprise_flock(g, 0, LOCK_SH, 0); },
      [](auto* g) { return reprise_lock(g, 0, LOCK_SH, 0, 0, 0); },
      [](auto* g) { return reprise_test_lock(g, 0, LOCK_SH, 0, 0, nullptr); },
      [](auto* g) { return reprise_guest_interrupt(g); },
      [](auto* g) { return reprise_stat(g, "/f", &attributes); },
      [](auto* g) { return reprise_lstat(g, "/f", &attributes); },
      [](auto* g) { return reprise_access(g, "/f", R_OK); },
      [](auto* g) { return reprise_mkdir(g, "/f", 0); },
      [](auto* g) { return reprise_rmdir(g, "/f"); },
      [](auto* g) { return reprise_unlink(g, "/f"); },
      [](auto* g) { return reprise_rename(g, "/f", "/g"); },
      [](auto* g) { return reprise_link(g, "/f", "/g"); },
      [](auto* g) { return reprise_symlink(g, "/f", "/g"); },
      [](auto* g) { return reprise_readlink(g, "/f", bytes, 1); },
      [](auto* g) { return reprise_truncate(g, "/f", 0); },
      [](auto* g) { return reprise_chmod(g, "/f", 0); },
      [](auto* g) { return reprise_chown(g, "/f", 0, 0); },
      [](auto* g) { return reprise_utimens(g, "/f", times); },
      [](auto* g) { return reprise_chdir(g, "/f"); },
      [](auto* g) { return reprise_getcwd(g, bytes, sizeof bytes); },
      [](auto* g) {
        return reprise_list(g, "/", [](void*, const char*, uint64_t, int) { return 0; }, nullptr);
      },
      [](auto* g) { return reprise_read_file(g, "/f", bytes, 1); },
      [](auto* g) { return reprise_write_file(g, "/f", bytes, 1, 0); },
      [](auto* g) { return reprise_guest_detach(g); },
  };
}

TEST_F(Capi, HandlesThatAreNoneAreRefusedByEveryCall) {
  reprise_instance *instance = nullptr, *gone = nullptr;
  reprise_guest *guest = nullptr, *detached = nullptr;
  ASSERT_EQ(reprise_instance_open(nullptr, nullptr, &gone), 0);
  ASSERT_EQ(reprise_instance_close(gone), 0);
  ASSERT_EQ(reprise_instance_open(nullptr, nullptr, &instance), 0);
  ASSERT_NE(instance, gone) << "the same slot, but not the same instance";
  ASSERT_EQ(reprise_guest_attach(instance, nullptr, &detached), 0);
  ASSERT_EQ(reprise_guest_detach(detached), 0);
  ASSERT_EQ(reprise_guest_attach(instance, nullptr, &guest), 0);

  std::vector<uintptr_t> wrong = {0,
                                  1,
                                  2,
                                  3,
                                  4,
                                  ~uintptr_t{0},
                                  uintptr_t{1} << 63,
                                  0x7ffff7fc0010,
                                  reinterpret_cast<uintptr_t>(gone),
                                  reinterpret_cast<uintptr_t>(detached)};
  for (uintptr_t bit = 1; bit != 0; bit <<= 1) {
    wrong.push_back(reinterpret_cast<uintptr_t>(instance) ^ bit);
    wrong.push_back(reinterpret_cast<uintptr_t>(guest) ^ bit);
  }
  for (uintptr_t number : wrong) {
    for (auto& call : calls_of_instance()) EXPECT_EQ(call(instance_of(number)), -EBADF) << number;
    for (auto& call : calls_of_guest())
      EXPECT_EQ(call(reinterpret_cast<reprise_guest*>(number)), -EBADF) << number;
  }
  for (auto& call : calls_of_guest()) EXPECT_EQ(call(reinterpret_cast<reprise_guest*>(instance)), -EBADF);
  for (auto& call : calls_of_instance()) EXPECT_EQ(call(reinterpret_cast<reprise_instance*>(guest)), -EBADF);
  EXPECT_STREQ(reprise_last_error(),
               "reprise_instance_close: expected the handle of an instance, found one that is "
               "null, was given back or is of another kind");
  EXPECT_EQ(reprise_fopen(nullptr, "/f", "r"), nullptr);
  EXPECT_EQ(errno, EBADF);
  EXPECT_EQ(reprise_guest_detach(guest), 0);
  EXPECT_EQ(reprise_instance_close(instance), 0);
}

TEST_F(Capi, PointersThatAreNullAndSizesThatAreNoneAreRefused) {
  Instance instance;
  Guest guest(instance);
  reprise_instance* i = instance.handle();
  reprise_guest* g = guest.handle();
  guest.write_file("/f", "text");
  int fd = guest.open("/f", O_RDWR);

  EXPECT_EQ(reprise_instance_open("x", nullptr, nullptr), -EINVAL);
  EXPECT_EQ(reprise_guest_attach(i, nullptr, nullptr), -EINVAL);
  EXPECT_EQ(reprise_fork(i, "b", nullptr), -EINVAL);
  for (auto call : {reprise_mark, reprise_discard}) EXPECT_EQ(call(i, nullptr), -EINVAL);
  EXPECT_EQ(reprise_wait_for_mark(i, nullptr, 0), -EINVAL);
  EXPECT_EQ(reprise_wait_for(i, nullptr, 0), -EINVAL);
  EXPECT_EQ(reprise_wait_for(i, "nonsense", 0), -EINVAL);
  EXPECT_EQ(reprise_join(i, nullptr, nullptr, nullptr), -EINVAL);
  EXPECT_EQ(reprise_digest(i, nullptr), -EINVAL);
  EXPECT_GT(reprise_position(i, nullptr, 0), 3);
  EXPECT_GT(reprise_statistics(i, nullptr, 99), 3);

  reprise_attributes attributes;
  for (auto call : {reprise_stat, reprise_lstat}) {
    EXPECT_EQ(call(g, nullptr, &attributes), -EINVAL);
    EXPECT_EQ(call(g, "/f", nullptr), -EINVAL);
  }
  for (auto call : {reprise_rmdir, reprise_unlink, reprise_chdir}) EXPECT_EQ(call(g, nullptr), -EINVAL);
  for (auto call : {reprise_mkdir, reprise_chmod}) EXPECT_EQ(call(g, nullptr, 0), -EINVAL);
  for (auto call : {reprise_rename, reprise_link, reprise_symlink}) {
    EXPECT_EQ(call(g, nullptr, "/g"), -EINVAL);
    EXPECT_EQ(call(g, "/f", nullptr), -EINVAL);
  }
  EXPECT_EQ(reprise_open(g, nullptr, 0, 0), -EINVAL);
  EXPECT_EQ(reprise_access(g, nullptr, 0), -EINVAL);
  EXPECT_EQ(reprise_truncate(g, nullptr, 0), -EINVAL);
  EXPECT_EQ(reprise_chown(g, nullptr, 0, 0), -EINVAL);
  EXPECT_EQ(reprise_utimens(g, nullptr, nullptr), -EINVAL);
  EXPECT_EQ(reprise_utimens(g, "/f", nullptr), 0);
  EXPECT_EQ(reprise_fstat(g, fd, nullptr), -EINVAL);
  EXPECT_EQ(reprise_readlink(g, nullptr, nullptr, 0), -EINVAL);
  EXPECT_EQ(reprise_list(g, "/", nullptr, nullptr), -EINVAL);
  EXPECT_EQ(reprise_list(g, nullptr, [](void*, const char*, uint64_t, int) { return 0; }, nullptr), -EINVAL);
  EXPECT_EQ(reprise_read(g, fd, nullptr, 1), -EINVAL);
  EXPECT_EQ(reprise_read(g, fd, nullptr, 0), 0);
  EXPECT_EQ(reprise_pread(g, fd, nullptr, 1, 0), -EINVAL);
  EXPECT_EQ(reprise_write(g, fd, nullptr, 1), -EINVAL);
  EXPECT_EQ(reprise_write(g, fd, nullptr, 0), 0);
  EXPECT_EQ(reprise_pwrite(g, fd, nullptr, 1, 0), -EINVAL);
  EXPECT_EQ(reprise_read_file(g, "/f", nullptr, 1), -EINVAL);
  EXPECT_EQ(reprise_read_file(g, nullptr, nullptr, 0), -EINVAL);
  EXPECT_EQ(reprise_write_file(g, "/f", nullptr, 1, 0), -EINVAL);
  EXPECT_EQ(reprise_write_file(g, nullptr, "", 0, 0), -EINVAL);
  EXPECT_EQ(reprise_guest_set_label(g, std::string(256, 'x').c_str()), -EINVAL);
  EXPECT_EQ(reprise_guest_set_label(g, nullptr), 0);
  EXPECT_EQ(guest.read_file("/f"), "text");
}

TEST_F(Capi, PathsOfEveryWrongKind) {
  Instance instance;
  Guest guest(instance);
  guest.write_file("/f", "");
  EXPECT_EQ(error_of([&] { guest.stat(""); }), ENOENT);
  EXPECT_EQ(error_of([&] { guest.stat("/f/g"); }), ENOTDIR);
  EXPECT_EQ(error_of([&] { guest.stat("/" + std::string(256, 'n')); }), ENAMETOOLONG);
  EXPECT_EQ(error_of([&] { guest.stat(std::string(5000, '/')); }), ENAMETOOLONG);
  EXPECT_EQ(error_of([&] { Instance(""); }), EINVAL);
  EXPECT_EQ(error_of([&] { Instance("/dev/null/store"); }), ENOENT);
  EXPECT_EQ(error_of([&] { Instance("/tmp"); }), ENOENT);
}

TEST_F(Capi, OptionsOfOtherVersionsAndOfNoSense) {
  reprise_instance* instance = nullptr;
  struct {
    reprise_instance_options known = REPRISE_INSTANCE_OPTIONS_INIT;
    uint64_t more = 1;
  } newer;
  newer.known.size = sizeof newer;
  EXPECT_EQ(reprise_instance_open(nullptr, &newer.known, &instance), -EINVAL);
  reprise_instance_options options = REPRISE_INSTANCE_OPTIONS_INIT;
  options.size = 0;
  EXPECT_EQ(reprise_instance_open(nullptr, &options, &instance), -EINVAL);
  EXPECT_EQ(instance, nullptr);
  options.branch = "main";
  for (size_t size = 0; size < sizeof options; ++size) {  // half a pointer must not be followed
    options.size = size;
    EXPECT_EQ(reprise_instance_open(nullptr, &options, &instance), -EINVAL) << size;
  }
  options.size = sizeof options;
  options.durability = "forever";
  EXPECT_EQ(reprise_instance_open(nullptr, &options, &instance), -EINVAL);
  options = REPRISE_INSTANCE_OPTIONS_INIT;
  options.branch = "none";
  EXPECT_EQ(reprise_instance_open(path("s").c_str(), &options, &instance), -ENOENT);
  options.branch = "../x";
  EXPECT_EQ(reprise_instance_open(path("s").c_str(), &options, &instance), -EINVAL);
  options = REPRISE_INSTANCE_OPTIONS_INIT;
  options.follow = "unix:/tmp/nobody/listens";
  options.contact_timeout_ms = 50;
  EXPECT_EQ(reprise_instance_open(nullptr, &options, &instance), -ECONNREFUSED);
  options.follow = "pigeon";
  EXPECT_EQ(reprise_instance_open(nullptr, &options, &instance), -EINVAL);
  options.follow = "unix:";
  EXPECT_EQ(reprise_instance_open(nullptr, &options, &instance), -EINVAL);

  Instance good;
  reprise_guest* guest = nullptr;
  reprise_guest_options guest_options = REPRISE_GUEST_OPTIONS_INIT;
  guest_options.label = "label";
  for (size_t size = 0; size < sizeof guest_options; ++size) {
    guest_options.size = size;
    EXPECT_EQ(reprise_guest_attach(good.handle(), &guest_options, &guest), -EINVAL) << size;
  }
  guest_options.size = sizeof guest_options;
  guest_options.group_count = 1;
  EXPECT_EQ(reprise_guest_attach(good.handle(), &guest_options, &guest), -EINVAL);
  guest_options.group_count = 0;
  guest_options.umask = 01000;
  EXPECT_EQ(reprise_guest_attach(good.handle(), &guest_options, &guest), -EINVAL);
  EXPECT_EQ(guest, nullptr);
}

TEST_F(Capi, AnInstanceWithGuestsStays) {
  Instance instance;
  {
    Guest guest(instance);
    EXPECT_EQ(error_of([&] { instance.close(); }), EBUSY);
    guest.write_file("/still", "there");
  }
  instance.close();
}

TEST_F(Capi, ABranchIsOpenOnce) {
  Instance first(path("s"));
  EXPECT_EQ(error_of([&] { Instance(path("s")); }), EBUSY);
}

TEST_F(Capi, AGuestThatAnotherThreadUsesIsBusy) {
  Instance instance;
  Guest guest(instance);
  guest.write_file("/f", std::string(1 << 20, 'x'));
  std::atomic<int> busy{0}, other{0}, running{2};
  auto read_on = [&] {
    std::vector<char> into(1 << 20);
    auto begin = std::chrono::steady_clock::now();
    while (busy == 0 && std::chrono::steady_clock::now() - begin < 20s) {
      int64_t n = reprise_read_file(guest.handle(), "/f", into.data(), into.size());
      if (n == -EBUSY) {
        ++busy;
      } else if (n != 1 << 20) {
        ++other;
      }
    }
    --running;
  };
  std::thread one(read_on), two(read_on);
  one.join();
  two.join();
  EXPECT_GT(busy, 0);
  EXPECT_EQ(other, 0);
  EXPECT_EQ(guest.read_file("/f").size(), 1u << 20);
}

TEST_F(Capi, AChildOfAForkMayNotUseWhatItsParentHas) {
  Instance instance(path("s"));
  Guest guest(instance);
  pid_t child = ::fork();
  if (child == 0) {
    char text[8];
    bool refused = reprise_stat(guest.handle(), "/", nullptr) == -EPERM &&
                   reprise_sync(instance.handle()) == -EPERM &&
                   reprise_position(instance.handle(), text, sizeof text) == -EPERM;
    reprise_instance* another = instance.handle();
    refused = refused && another == instance.handle() &&
              reprise_instance_open(nullptr, nullptr, &another) == -EPERM;
    ::_exit(refused ? 0 : 1);
  }
  int status = -1;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
  guest.write_file("/after", "x");
}

TEST_F(Capi, ProgramsThatTheHostStartsGetNoDescriptorOfTheStore) {
  InstanceOptions options;
  options.listen = "unix:" + path("socket");
  Instance instance(path("s"), options);
  Guest(instance).write_file("/f", "x");
  instance.snapshot();
  int found = 0;
  for (const auto& entry : std::filesystem::directory_iterator("/proc/self/fd")) {
    std::error_code gone;  // the one that lists
    std::string to = std::filesystem::read_symlink(entry.path(), gone);
    int fd = std::stoi(entry.path().filename());
    if (to.rfind(path("s"), 0) != 0 && to.rfind("socket:", 0) != 0) continue;
    int flags = ::fcntl(fd, F_GETFD);
    EXPECT_TRUE(flags >= 0 && (flags & FD_CLOEXEC) != 0) << to;
    ++found;
  }
  EXPECT_GT(found, 2);
}

TEST_F(Capi, CallbacksMayCallBackAndStop) {
  Instance instance;
  Guest guest(instance);
  for (int i = 0; i < 10; ++i) guest.write_file("/" + std::to_string(i), "x");
  auto remove = [](void* context, const char* name, uint64_t, int) {
    auto* g = static_cast<reprise_guest*>(context);
    return *name == '7' ? 77 : reprise_unlink(g, name);
  };
  EXPECT_EQ(reprise_list(guest.handle(), "/", remove, guest.handle()), 77);
  EXPECT_EQ(guest.list("/").size(), 3u);
}

TEST_F(Capi, TheHostIsToldWhatTheLibraryHasToSay) {
  std::vector<std::string> lines;
  auto gather = [](void* context, int, const char* line) {
    static_cast<std::vector<std::string>*>(context)->push_back(line);
  };
  reprise_set_log(gather, &lines);
  InstanceOptions options;
  options.listen = "unix:" + path("socket");
  options.await_followers = 10ms;
  {
    Instance instance(path("s"), options);
    Guest(instance).write_file("/f", "x");
    instance.sync();
    // As a crash leaves it: a copy of the store as it is now.
    std::filesystem::create_directory(path("t"));
    for (const auto& entry : std::filesystem::recursive_directory_iterator(path("s"))) {
      std::string to = path("t") + entry.path().string().substr(path("s").size());
      if (entry.is_directory()) std::filesystem::create_directories(to);
      if (entry.is_regular_file()) std::filesystem::copy_file(entry.path(), to);
    }
  }
  {
    Instance instance(path("t"), options);
  }
  reprise_set_log(nullptr, nullptr);
  ASSERT_FALSE(lines.empty());
  EXPECT_NE(lines[0].find("was not closed cleanly"), std::string::npos) << lines[0];
}

TEST_F(Capi, ManyInstancesAndGuestsLeaveNothingBehind) {
  size_t before = threads();
  for (int i = 0; i < 300; ++i) {
    std::vector<Instance> instances;
    std::vector<Guest> guests;
    for (int n = 0; n < 10; ++n) instances.emplace_back();
    for (const Instance& instance : instances)
      for (int n = 0; n < 10; ++n) guests.emplace_back(instance);
    guests.front().write_file("/f", "x");
    guests.clear();
  }
  EXPECT_EQ(threads(), before);
}

}  // namespace

// What mounted.h declares. Named as the test sources are, so that it is built with them.
#include "tests/fuse/mounted.h"

#include <sys/stat.h>
#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <sstream>

#include "base/check.h"

namespace reprise::fuse::testing {
namespace {

constexpr char kPython[] = "/usr/bin/python3";

constexpr char kGuestProgram[] = R"python(
import ctypes, errno, io, mmap, os, subprocess, sys, time
from os import *
# Without Python's own files: those ask each whether it is a terminal, and FUSE passes the question on.
def read(path):
    fd, parts = os.open(path, os.O_RDONLY), [b'']
    try:
        while part := os.read(fd, 1 << 20): parts.append(part)
    finally: os.close(fd)
    return b''.join(parts)
def write(path, data, flags=os.O_TRUNC):
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | flags, 0o644)
    try: return os.write(fd, data)
    finally: os.close(fd)
# What has been read of it stays in the kernel's cache, whatever else the machine wants the memory for.
def hold(path):
    fd = os.open(path, os.O_RDONLY)
    try:
        libc, locked = ctypes.CDLL(None, use_errno=True), 0x2000
        libc.mmap.restype = ctypes.c_void_p
        libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
        where = libc.mmap(None, os.fstat(fd).st_size, mmap.PROT_READ, mmap.MAP_SHARED | locked, fd, 0)
        return where != ctypes.c_void_p(-1).value
    finally: os.close(fd)
def size(path): return os.stat(path).st_size
def ls(path='.'): return sorted(os.listdir(path))
def exists(path): return os.path.lexists(path)
kept = {}
def keep(name, value): kept[name] = value
requests, replies = io.open(sys.argv[1], 'r'), io.open(sys.argv[2], 'w')
for line in requests:
    try: answer = repr(eval(line))
    except OSError as error: answer = errno.errorcode[error.errno]
    replies.write(answer + '\n')
    replies.flush()
)python";

}  // namespace

TemporaryDirectory::TemporaryDirectory() {
  char path[] = "/tmp/reprise-fuse-XXXXXX";
  CHECK(::mkdtemp(path) != nullptr);
  CHECK(::chmod(path, 0777) == 0);
  path_ = path;
}

TemporaryDirectory::~TemporaryDirectory() {
  std::filesystem::remove_all(path_);
}

std::string read_host_file(const std::string& path) {
  std::stringstream text;
  text << std::ifstream(path).rdbuf();
  return text.str();
}

Mounted::Mounted(bool read_only)
    : mountpoint_(outside_ / "mnt"),
      read_only_(read_only),
      ids_(fs::local_inode_ids()),
      filesystem_(fs::Head::create(system_clock().realtime()), system_clock(), *ids_) {
  CHECK(::mkdir(mountpoint_.c_str(), 0777) == 0);
  if (::geteuid() != 0) return;
  auto opened = filesystem_.set_attributes({}, kRootInode, {.mode = 0777});
  CHECK(opened.has_value());
}

Ran Mounted::run(const std::string& script) {
  constexpr char kFails[] = R"sh(fails() { if "$@"; then echo "should have failed: $*"; exit 1; fi; })sh";
  return run_command(
      {"sh", "-c", std::string(kFails) + "\n{ set -e\n" + script + "\n} >\"$OUT/output\" 2>&1"});
}

Ran Mounted::run_command(std::vector<std::string> command) {
  auto launch = Launch::prepare({.command = std::move(command),
                                 .mountpoint = mountpoint_,
                                 .environment = {{"OUT", outside_.path()}, {"PYTHON", kPython}},
                                 .read_only = read_only_});
  if (!launch) return {Launch::kOwnFailure, launch.error().message()};
  ServerOptions options = options_;
  options.show_all_as = (*launch)->owner();
  auto server = Server::start(filesystem_, system_clock(), (*launch)->take_fuse_fd(), options);
  if (!server) return {Launch::kOwnFailure, server.error().message()};
  Status started = (*launch)->start();
  int status = (*launch)->wait();
  Status written = started ? (*launch)->sync() : Status{};
  EXPECT_TRUE((*server)->drain(5000));
  (*server)->stop();
  for (const Status& done : {started, written}) {
    if (!done) return {status, done.error().message()};
  }
  return {status, read_host_file(outside_ / "output")};
}

InodeId Mounted::inode_at(std::string_view path) {
  InodeId inode = kRootInode;
  while (!path.empty()) {
    std::string_view name = path.substr(0, path.find('/'));
    path.remove_prefix(std::min(path.size(), name.size() + 1));
    auto found = filesystem_.lookup({}, inode, name);
    if (!found) return {};
    inode = found->inode;
  }
  return inode;
}

Guest::Guest(Mounted& mounted)
    : request_path_(mounted.outside() / "requests"), reply_path_(mounted.outside() / "replies") {
  CHECK(::mkfifo(request_path_.c_str(), 0600) == 0);
  CHECK(::mkfifo(reply_path_.c_str(), 0600) == 0);
  auto launch = Launch::prepare({.command = {kPython, "-I", "-c", kGuestProgram, request_path_, reply_path_},
                                 .mountpoint = mounted.mountpoint()});
  if (!launch) ADD_FAILURE() << launch.error().message();
  CHECK(launch.has_value());
  launch_ = std::move(*launch);
  ServerOptions options = mounted.options();
  options.show_all_as = launch_->owner();
  auto server = Server::start(mounted.filesystem(), system_clock(), launch_->take_fuse_fd(), options);
  CHECK(server.has_value());
  server_ = std::move(*server);
  CHECK(launch_->start().has_value());
  ::signal(SIGPIPE, SIG_IGN);  // a guest that died answers with nothing
  requests_ = std::fopen(request_path_.c_str(), "w");
  replies_ = std::fopen(reply_path_.c_str(), "r");
  CHECK(requests_ != nullptr && replies_ != nullptr);
}

Guest::~Guest() {
  std::fclose(requests_);
  launch_->wait();
  std::fclose(replies_);
  server_->stop();
  ::unlink(request_path_.c_str());
  ::unlink(reply_path_.c_str());
}

std::string Guest::ask(const std::string& expression) {
  std::fprintf(requests_, "%s\n", expression.c_str());
  std::fflush(requests_);
  std::string answer;
  for (int c; (c = std::fgetc(replies_)) != EOF && c != '\n';) answer.push_back(static_cast<char>(c));
  return answer;
}

}  // namespace reprise::fuse::testing

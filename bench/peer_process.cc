#include "bench/peer_process.h"

#include <fmt/format.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <cstdlib>

#include "base/check.h"
#include "bench/must.h"
#include "instance/instance.h"
#include "replay/follower.h"

namespace reprise::bench {
namespace {

constexpr uint32_t kPatience_ms = 60'000;

void read_all(int fd, void* to, size_t bytes) {
  for (char* at = static_cast<char*>(to); bytes > 0;) {
    ssize_t n = ::read(fd, at, bytes);
    if (n <= 0) std::_Exit(0);  // the other process has gone
    at += n;
    bytes -= static_cast<size_t>(n);
  }
}

void write_all(int fd, const void* from, size_t bytes) {
  ssize_t n = ::write(fd, from, bytes);
  CHECK(n == static_cast<ssize_t>(bytes));  // far less than a pipe holds
}

std::unique_ptr<instance::Instance> new_instance() {
  instance::InstanceOptions options;
  options.follower = true;
  return must(instance::Instance::open_new_follower("", options));
}

[[noreturn]] void serve(const std::string& socket, int from, int to) {
  auto instance = new_instance();
  std::unique_ptr<replay::Follower> follower;
  replay::FollowerOptions options;
  for (;;) {
    char command = 0;
    read_all(from, &command, 1);
    char done = 1;
    switch (command) {
      case 'n':
        follower.reset();
        instance = new_instance();
        write_all(to, &done, 1);
        break;
      case 'c': {
        follower = replay::Follower::start(system_network(), {Endpoint::Kind::kUnix, socket}, *instance,
                                           system_clock(), options);
        must(follower->wait_caught_up(kPatience_ms));
        replay::FollowerStatus status = follower->status();
        const auto& decision = status.decision;
        PeerProcess::CaughtUp caught_up{status.catch_up_bytes,
                                        decision ? decision->tier : replay::Tier::kNothing,
                                        decision ? decision->snapshot_bytes : 0};
        write_all(to, &caught_up, sizeof caught_up);
        break;
      }
      case 'o':
      case 'O':
        options.offers_tree_here = command == 'O';
        write_all(to, &done, 1);
        break;
      case 'd':
        follower.reset();
        must(instance->journal().trim(instance->journal().last() + 1));
        write_all(to, &done, 1);
        break;
      default: {
        Digest128 digest = instance->filesystem().view().recompute_digest();
        write_all(to, &digest, sizeof digest);
      }
    }
  }
}

}  // namespace

std::unique_ptr<PeerProcess> PeerProcess::fork(const std::string& socket) {
  int down[2], up[2];
  CHECK(::pipe(down) == 0 && ::pipe(up) == 0);
  pid_t pid = ::fork();
  CHECK(pid >= 0);
  if (pid == 0) {
    ::close(down[1]);
    ::close(up[0]);
    serve(socket, down[0], up[1]);
  }
  ::close(down[0]);
  ::close(up[1]);
  return std::unique_ptr<PeerProcess>(new PeerProcess(pid, down[1], up[0]));
}

PeerProcess::~PeerProcess() {
  ::close(to_);
  ::close(from_);
  ::waitpid(pid_, nullptr, 0);
}

void PeerProcess::ask(char command, void* answer, size_t bytes) {
  write_all(to_, &command, 1);
  for (char* at = static_cast<char*>(answer); bytes > 0;) {
    ssize_t n = ::read(from_, at, bytes);
    if (n <= 0) {
      fmt::print(stderr, "reprise-bench: the peer process ended\n");
      std::_Exit(3);
    }
    at += n;
    bytes -= static_cast<size_t>(n);
  }
}

void PeerProcess::start_anew() {
  char done;
  ask('n', &done, 1);
}

PeerProcess::CaughtUp PeerProcess::catch_up() {
  CaughtUp caught_up;
  ask('c', &caught_up, sizeof caught_up);
  return caught_up;
}

void PeerProcess::offer_tree(bool offers) {
  char done;
  ask(offers ? 'O' : 'o', &done, 1);
}

void PeerProcess::disconnect() {
  char done;
  ask('d', &done, 1);
}

void PeerProcess::stall() {
  CHECK(::kill(pid_, SIGSTOP) == 0);
}

void PeerProcess::wake() {
  CHECK(::kill(pid_, SIGCONT) == 0);
}

Digest128 PeerProcess::digest() {
  Digest128 digest;
  ask('h', &digest, sizeof digest);
  return digest;
}

}  // namespace reprise::bench

// How long until one operation is in another instance, beside a bare message of the same size.
//
// The other instance is in another process and follows over a Unix socket. `instance` is the time from before
// a guest's call here until it has been applied and can be read there; `message` that from before a write(2)
// of as many bytes as the operation takes on the wire until a read(2) of a thread there, which waits for
// nothing else, has them. Both processes read the same clock. One of each by turns, with a pause between
// them, so that everybody sleeps when the next one comes. Both processes are bound to one core, or each to
// one of its own.
//
// A row's time is the median. `p90_us` and so on are the time that so many of a hundred do not exceed;
// `to_16us` and so on are how many were within that, and not within half of it.
#include <benchmark/benchmark.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdlib>
#include <new>
#include <thread>

#include "base/check.h"
#include "bench/forwarding_member.h"
#include "bench/must.h"
#include "bench/paired.h"
#include "bench/scratch_folder.h"
#include "fs/guest.h"
#include "replay/follower.h"
#include "replay/leader.h"

namespace reprise::bench {
namespace {

constexpr int kOperations = 10'000;
constexpr auto kPause = std::chrono::microseconds(200);
constexpr uint64_t kGiveUp_ns = 10'000'000'000;

// --- the cores

// Those that this process may use.
std::vector<int> cores() {
  cpu_set_t may;
  CHECK(::sched_getaffinity(0, sizeof may, &may) == 0);
  std::vector<int> all;
  for (int core = 0; core < CPU_SETSIZE; core++)
    if (CPU_ISSET(core, &may)) all.push_back(core);
  return all;
}

// Binds this thread, and those that it makes, as long as it lives.
class Bound {
 public:
  explicit Bound(int core) {
    CHECK(::sched_getaffinity(0, sizeof before_, &before_) == 0);
    cpu_set_t only;
    CPU_ZERO(&only);
    CPU_SET(core, &only);
    CHECK(::sched_setaffinity(0, sizeof only, &only) == 0);
  }
  ~Bound() { CHECK(::sched_setaffinity(0, sizeof before_, &before_) == 0); }
  Bound(const Bound&) = delete;
  Bound& operator=(const Bound&) = delete;

 private:
  cpu_set_t before_;
};

// --- the other process

// What it has seen. In memory that both processes have.
struct Seen {
  std::atomic<uint64_t> number{0}, at_ns{0};
  void next() {
    at_ns.store(system_clock().monotonic_ns(), std::memory_order_relaxed);
    number.fetch_add(1, std::memory_order_release);
  }
  // When the next one after `before` came.
  uint64_t wait(uint64_t before) const {
    uint64_t begin_ns = system_clock().monotonic_ns();
    while (number.load(std::memory_order_acquire) == before) {
      if (system_clock().monotonic_ns() - begin_ns > kGiveUp_ns) die("nothing arrived in the other process");
      std::this_thread::sleep_for(kPause);
    }
    if (number.load() != before + 1) die("expected one batch of one operation, found more");
    return at_ns.load(std::memory_order_relaxed);
  }
};
struct Shared {
  Seen batches, messages;
  std::atomic<uint64_t> message_bytes{0};
};

class Timed final : public ForwardingMember {
 public:
  Timed(instance::Instance& instance, Seen& seen) : ForwardingMember(instance), seen_(seen) {}
  Status apply(std::span<const journal::Batch> group) override {
    Status applied = ForwardingMember::apply(group);
    for (size_t i = 0; i < group.size(); i++) seen_.next();
    return applied;
  }

 private:
  Seen& seen_;
};

void read_messages(int fd, Shared& shared) {
  Bytes into(64 << 10);
  for (;;) {
    uint64_t bytes = shared.message_bytes;
    for (uint64_t had = 0; had == 0 || had < bytes; bytes = shared.message_bytes) {
      ssize_t n = ::read(fd, into.data(), into.size());
      if (n <= 0) std::_Exit(0);  // the other process has gone, or is done
      had += static_cast<uint64_t>(n);
    }
    shared.messages.next();
  }
}

[[noreturn]] void follow(const std::string& socket, int messages, Shared& shared) {
  instance::InstanceOptions options;
  options.follower = true;
  auto instance = must(instance::Instance::open_new_follower("", options));
  Timed member(*instance, shared.batches);
  auto follower =
      replay::Follower::start(system_network(), {Endpoint::Kind::kUnix, socket}, member, system_clock());
  read_messages(messages, shared);
  std::_Exit(0);
}

class OtherProcess {
 public:
  OtherProcess(const std::string& socket, int core) {
    void* memory = ::mmap(nullptr, sizeof(Shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CHECK(memory != MAP_FAILED);
    shared_ = new (memory) Shared;
    int ends[2];
    CHECK(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) == 0);
    pid_ = ::fork();
    CHECK(pid_ >= 0);
    if (pid_ == 0) {
      ::close(ends[0]);
      Bound bound(core);
      follow(socket, ends[1], *shared_);
    }
    ::close(ends[1]);
    socket_ = ends[0];
  }
  ~OtherProcess() {
    ::close(socket_);
    ::waitpid(pid_, nullptr, 0);
    ::munmap(shared_, sizeof(Shared));
  }
  OtherProcess(const OtherProcess&) = delete;
  OtherProcess& operator=(const OtherProcess&) = delete;

  Seen& batches() { return shared_->batches; }
  // In ns.
  uint64_t time_message(const std::string& message) {
    shared_->message_bytes = message.size();
    uint64_t before = shared_->messages.number;
    uint64_t begin_ns = system_clock().monotonic_ns();
    CHECK(::write(socket_, message.data(), message.size()) == static_cast<ssize_t>(message.size()));
    return shared_->messages.wait(before) - begin_ns;
  }

 private:
  pid_t pid_;
  int socket_;
  Shared* shared_;
};

// --- this process

enum class Operation : uint8_t { kChmod, kWrite };

class Writer {
 public:
  Writer(Operation operation, int core, int other_core)
      : operation_(operation), other_(folder_ / "leader", other_core), bound_(core) {
    store_ = store::Store::in_memory(system_random().next_id<VolumeId>());
    instance_ = must(instance::Instance::open(store_, {}));
    guest_ = std::make_unique<fs::Guest>(instance_->filesystem());
    fd_ = *guest_->open("/file", O_RDWR | O_CREAT);
    operate();
    leader_ = must(replay::Leader::listen(system_network(), {Endpoint::Kind::kUnix, folder_ / "leader"},
                                          *instance_, system_clock()));
    wait_until_live();
  }
  // In ns.
  uint64_t time_operation() {
    uint64_t before = other_.batches().number;
    uint64_t begin_ns = system_clock().monotonic_ns();
    operate();
    return other_.batches().wait(before) - begin_ns;
  }
  uint64_t time_message(const std::string& message) { return other_.time_message(message); }
  // What the last operation took on the wire.
  size_t bytes() {
    must(instance_->settle());
    journal::Journal& journal = instance_->journal();
    return must(journal.bytes_from(journal.last())) + replay::kFrameHeaderBytes;
  }

 private:
  void operate() {
    turn_++;
    if (operation_ == Operation::kChmod) {
      CHECK(guest_->fchmod(fd_, turn_ % 2 == 0 ? 0600 : 0640));
    } else {
      std::ranges::fill(block_, static_cast<std::byte>(turn_ | 1));
      CHECK(guest_->pwrite(fd_, block_, 0));
    }
  }
  void wait_until_live() {
    uint64_t begin_ns = system_clock().monotonic_ns();
    auto live = [&] {
      auto peers = leader_->peers();
      return !peers.empty() && peers[0].decided && peers[0].acked == instance_->vector();
    };
    while (!live()) {
      if (system_clock().monotonic_ns() - begin_ns > kGiveUp_ns) die("the other process does not follow");
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
  }

  const Operation operation_;
  ScratchFolder folder_{kSharedMemory};
  OtherProcess other_;  // before this process has threads
  Bound bound_;
  std::shared_ptr<store::Store> store_;
  std::unique_ptr<instance::Instance> instance_;
  std::unique_ptr<fs::Guest> guest_;
  std::unique_ptr<replay::Leader> leader_;
  int fd_ = -1;
  uint64_t turn_ = 0;
  Bytes block_ = Bytes(4096);
};

void describe(Row& row) {
  std::vector<double> sorted = row.ns;
  std::ranges::sort(sorted);
  auto of_1000 = [&](size_t part) {
    return sorted[std::min(sorted.size() - 1, sorted.size() * part / 1000)] / 1e3;
  };
  row.counters["p50_us"] = of_1000(500);
  row.counters["p90_us"] = of_1000(900);
  row.counters["p99_us"] = of_1000(990);
  row.counters["p99.9_us"] = of_1000(999);
  row.counters["max_us"] = sorted.back() / 1e3;
  size_t before = 0;
  for (uint64_t us = 4; before < sorted.size(); us *= 2) {
    auto within =
        static_cast<size_t>(std::ranges::upper_bound(sorted, static_cast<double>(us) * 1e3) - sorted.begin());
    if (within > before) row.counters[fmt::format("to_{:06}us", us)] = static_cast<double>(within - before);
    before = within;
  }
}

void measure(Rows& rows, Operation operation, int core, int other_core) {
  Writer writer(operation, core, other_core);
  for (int i = 0; i < 200; i++) writer.time_operation();  // until memory and caches are as they stay
  const std::string message(writer.bytes(), 'x');
  for (int i = 0; i < 200; i++) writer.time_message(message);
  for (int i = 0; i < kOperations; i++) {
    rows["instance"].ns.push_back(static_cast<double>(writer.time_operation()));
    rows["message"].ns.push_back(static_cast<double>(writer.time_message(message)));
  }
  for (auto& [name, row] : rows) {
    describe(row);
    row.counters["bytes"] = static_cast<double>(message.size());
  }
}

void add(const std::string& name, Operation operation) {
  std::vector<int> all = cores();
  const std::vector<std::string> kRows = {"instance", "message"};
  register_rows(fmt::format("latency/{}/one_core", name), kRows, 1,
                [=](Rows& rows) { measure(rows, operation, all[0], all[0]); });
  if (all.size() < 2) return;
  register_rows(fmt::format("latency/{}/two_cores", name), kRows, 1,
                [=](Rows& rows) { measure(rows, operation, all[0], all[1]); });
}

[[maybe_unused]] const bool kRegistered = [] {
  add("chmod", Operation::kChmod);
  add("write_4k", Operation::kWrite);
  return true;
}();

}  // namespace
}  // namespace reprise::bench

// One simulated machine: a disk, and on it the store of one instance, which runs or does not. What the
// operator of such a machine does: start it, kill it, cut the power, close it. It knows nothing of others.
#pragma once

#include <memory>
#include <optional>
#include <random>
#include <string>

#include "fs/guest.h"
#include "instance/instance.h"
#include "replay/difference.h"
#include "replay/session.h"
#include "tests/sim/machine_disk.h"

namespace reprise::sim {

// One time for all; each machine has its own idea of the date.
struct World {
  uint64_t now_ns = 1'000'000'000;
};

class MachineClock final : public Clock {
 public:
  explicit MachineClock(World& world) : world_(world) {}
  Timestamp realtime() override {
    int64_t ns = static_cast<int64_t>(world_.now_ns) + ahead_ns_;
    int64_t sec = 1'700'000'000 + ns / 1'000'000'000;
    ns %= 1'000'000'000;
    if (ns < 0) ns += 1'000'000'000, --sec;
    return {sec, static_cast<uint32_t>(ns)};
  }
  uint64_t monotonic_ns() override { return world_.now_ns; }
  void sleep_ns(uint64_t ns) override { world_.now_ns += ns; }
  void jump_s(int64_t seconds) { ahead_ns_ += seconds * 1'000'000'000; }

 private:
  World& world_;
  int64_t ahead_ns_ = 0;
};

class SeededRandom final : public Random {
 public:
  explicit SeededRandom(uint64_t seed) : generator_(seed) {}
  uint64_t next() override { return generator_(); }

 private:
  std::mt19937_64 generator_;
};

class Machine {
 public:
  Machine(World& world, size_t number, VolumeId volume, uint64_t seed);

  const size_t number;
  const std::string name;
  MachineClock clock;
  SeededRandom random;

  bool up() const { return instance_ != nullptr; }
  uint64_t starts() const { return starts_; }
  instance::Instance& instance() { return *instance_; }
  fs::Guest& guest() { return *guest_; }
  MachineDisk& disk() { return *disk_; }
  store::Store& store() { return *store_; }
  static store::LockHolder holder() { return {1, "a simulated program"}; }
  replay::KeptTrees& kept_trees() { return *kept_trees_; }
  bool died() const { return disk_->program().dead(); }

  // An error is the error that opening has given.
  Status start(bool as_follower);
  // Every link to it must be gone.
  void stop_dead(bool power_too, std::mt19937_64& chance);
  Status close();
  // A branch of the store of the instance that runs.
  Result<std::unique_ptr<instance::Instance>> open_branch(const std::string& name);
  // Another store, with nothing in it.
  void forget_everything();
  Status promote();

  // Everything up to now is on the disk, if it says so.
  Status sync();
  // What must be there whatever happens to the machine.
  void note_durable(const journal::Vector& vector);
  void note_overwritten();  // by the newest snapshot there is
  const journal::Vector& durable() const { return durable_; }
  // How many branches and snapshots keep what was overwritten, more than when this was last asked.
  size_t count_kept();

 private:
  const VolumeId volume_;
  std::unique_ptr<MachineDisk> disk_;
  std::shared_ptr<store::Store> store_;
  std::unique_ptr<instance::Instance> instance_;
  std::unique_ptr<fs::Guest> guest_;
  std::unique_ptr<replay::KeptTrees> kept_trees_;
  journal::Vector durable_;
  uint64_t starts_ = 0;
  size_t kept_ = 0;
  instance::Retention retention_;
  instance::InstanceOptions options(bool as_follower);
  Status leave_half_joined();
};

}  // namespace reprise::sim

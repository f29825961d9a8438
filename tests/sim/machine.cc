#include "tests/sim/machine.h"

#include "base/check.h"
#include "instance/branches.h"

namespace reprise::sim {
namespace {

const store::LockHolder kHolder{1, "a simulated program"};

}  // namespace

Machine::Machine(World& world, size_t index, VolumeId volume, uint64_t seed)
    : number(index),
      name("m" + std::to_string(index)),
      clock(world),
      random(seed),
      volume_(volume),
      disk_(std::make_unique<MachineDisk>(volume)) {
  // Small, so that it happens often.
  retention_.reopen_bytes = 40'000 + random.next() % 100'000;
  retention_.reopen_batches = 50 + random.next() % 200;
  if (random.next() % 2 == 0) retention_.journal_bytes = 60'000 + random.next() % 200'000;
}

instance::InstanceOptions Machine::options(bool as_follower) {
  instance::InstanceOptions options{
      .retention = retention_, .follower = as_follower, .holder = kHolder, .clock = clock, .random = random};
  options.journal.threads = false;
  options.journal.segment_bytes = 24 << 10;
  options.journal.backlog_bytes = 128 << 10;
  options.journal.recent_bytes = 4 << 10;
  return options;
}

// Who has begun to join a branch, and is to follow now, keeps what has come over.
Status Machine::leave_half_joined() {
  for (const std::string& name : TRY(instance::unfinished_joins(*store_, "main")))
    TRY(instance::discard_branch(*store_, name, kHolder, true));
  return {};
}

Result<std::unique_ptr<instance::Instance>> Machine::open_branch(const std::string& name) {
  instance::InstanceOptions of_branch = options(false);
  of_branch.branch = name;
  of_branch.retention = {};
  return instance::Instance::open(store_, of_branch);
}

Status Machine::start(bool as_follower) {
  CHECK(!up());
  ++starts_;
  store_ = disk_->open_store();
  if (as_follower) TRY(leave_half_joined());
  auto instance = instance::Instance::open(store_, options(as_follower));
  if (!instance) {
    store_.reset();
    return std::unexpected(instance.error());
  }
  instance_ = std::move(*instance);
  kept_trees_ = std::make_unique<replay::KeptTrees>();
  guest_ = std::make_unique<fs::Guest>(instance_->filesystem(), fs::GuestOptions{.label = name});
  return {};
}

void Machine::stop_dead(bool power_too, std::mt19937_64& chance) {
  if (!disk_->program().dead()) disk_->program().die_after(0);
  kept_trees_.reset();
  guest_.reset();
  instance_.reset();
  store_.reset();
  if (power_too) {
    disk_->after_power_loss(chance);
  } else {
    disk_->after_kill();
  }
}

Status Machine::close() {
  guest_.reset();
  journal::Vector vector = instance_->vector();
  Status closed = instance_->close();
  if (closed && !died()) note_durable(vector);
  return closed;
}

void Machine::forget_everything() {
  CHECK(!up());
  disk_ = std::make_unique<MachineDisk>(volume_);
  durable_ = {};
  kept_ = 0;
}

Status Machine::promote() {
  CHECK(!up());
  return instance::promote(*disk_->open_store(), "main", kHolder);
}

Status Machine::sync() {
  TRY(instance_->sync());
  if (!died()) note_durable(instance_->vector());
  return {};
}

void Machine::note_durable(const journal::Vector& vector) {
  for (const auto& [origin, lsn] : vector.entries())
    if (durable_.get(origin) < lsn) durable_.set(origin, lsn);
}

void Machine::note_overwritten() {
  auto records = store_->catalogue().snapshots();
  durable_ = records->empty() ? journal::Vector{} : journal::Vector::decode(records->back().vector).value();
}

size_t Machine::count_kept() {
  size_t kept = 0;
  auto branches = store_->branch_names();
  for (const std::string& name : branches.value()) kept += name != "main" && !name.starts_with("try");
  auto records = store_->catalogue().snapshots();
  for (const store::SnapshotRecord& record : records.value())
    kept += record.label == "before it was overwritten";
  size_t before = std::exchange(kept_, kept);
  return kept > before ? kept - before : 0;
}

}  // namespace reprise::sim

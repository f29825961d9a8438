// ForwardingMember: an instance as its sessions see it; for benchmarks that look at one of the calls, or
// answer it otherwise. Threads: as replay::Member. The instance outlives it.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "instance/instance.h"
#include "replay/member.h"

namespace reprise::bench {

class ForwardingMember : public replay::Member {
 public:
  explicit ForwardingMember(instance::Instance& instance) : instance_(instance) {}

  VolumeId volume() const override { return instance_.volume(); }
  std::string branch() const override { return instance_.branch(); }
  journal::Vector vector() const override { return instance_.vector(); }
  bool is_new() const override { return instance_.is_new(); }
  Result<replay::Moment> settle() override { return instance_.settle(); }
  Result<replay::Pinned> pin() override { return instance_.pin(); }
  Result<std::vector<replay::Mark>> marks() override { return instance_.marks(); }
  uint64_t estimated_snapshot_bytes() const override { return instance_.estimated_snapshot_bytes(); }
  journal::Journal& journal() override { return instance_.journal(); }
  bool would_take_back(const journal::Vector& peer) override { return instance_.would_take_back(peer); }
  Status take_back(const journal::Vector& giver, std::span<const journal::Batch> group,
                   bool complete) override {
    return instance_.take_back(giver, group, complete);
  }
  Status sync() override { return instance_.sync(); }
  Status adopt_volume(VolumeId volume) override { return instance_.adopt_volume(volume); }
  Status apply(std::span<const journal::Batch> group) override { return instance_.apply(group); }
  Status install(const fs::View& tree, const journal::Position& position, uint64_t lamport,
                 std::span<const replay::Mark> marks) override {
    return instance_.install(tree, position, lamport, marks);
  }

 private:
  instance::Instance& instance_;
};

}  // namespace reprise::bench

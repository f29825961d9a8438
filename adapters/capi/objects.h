// What the handles of the C interface stand for. Threads: an Instance's members are called from any, a
// Guest's from one at a time, which Handles sees to.
#pragma once

#include <atomic>
#include <memory>
#include <string>

#include "adapters/capi/handles.h"
#include "fs/guest.h"
#include "instance/host.h"

namespace reprise::capi {

struct Instance {
  Instance(std::unique_ptr<instance::Host> with, instance::HostOptions from)
      : options(std::move(from)), host(std::move(with)) {}
  instance::Instance& operator*() { return host->instance(); }
  instance::Instance* operator->() { return &host->instance(); }

  const instance::HostOptions options;  // it was opened with; no store of a new follower, which makes its own
  std::unique_ptr<instance::Host> host;
  std::atomic<uint32_t> attached{0};  // guests and watches
  std::atomic<bool> closing{false};   // who waits for something of it need not any more
};

using Instances = Handles<Instance, 1>;

// One who uses an instance until it is given back. The instance can therefore not be closed.
class Attached {
 public:
  explicit Attached(Instances::Use of) : instance_(std::move(of)) { ++instance_->attached; }
  Attached(const Attached&) = delete;
  Attached& operator=(const Attached&) = delete;
  ~Attached() { --instance_->attached; }
  instance::Instance& operator*() const { return **instance_; }
  instance::Instance* operator->() const { return &**instance_; }

 private:
  Instances::Use instance_;
};

struct Guest {
  Guest(Instances::Use of, fs::GuestOptions options)
      : instance(std::move(of)), guest(instance->filesystem(), std::move(options)) {}

  Attached instance;
  fs::Guest guest;
};

using Guests = Handles<Guest, 2>;

class Watch;  // changes.cc
using Watches = Handles<Watch, 3>;

// Never destroyed: a host may call until the very end.
Instances& instances();
Guests& guests();

}  // namespace reprise::capi

// What the handles of the C interface stand for. Threads: an Instance's members are called from any, a
// Guest's from one at a time, which Handles sees to.
#pragma once

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
};

using Instances = Handles<Instance, 1>;

struct Guest {
  Guest(Instances::Use of, fs::GuestOptions options)
      : instance(std::move(of)), guest((*instance)->filesystem(), std::move(options)) {}

  Instances::Use instance;  // which can therefore not be closed
  fs::Guest guest;
};

using Guests = Handles<Guest, 2>;

// Never destroyed: a host may call until the very end.
Instances& instances();
Guests& guests();

}  // namespace reprise::capi

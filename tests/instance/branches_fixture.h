// A store with branches: main, which is open, and those that tests fork from it.
#pragma once

#include <memory>
#include <string>

#include "tests/instance/instance_fixture.h"

namespace reprise::instance {

class BranchesTest : public InstanceTest {
 protected:
  void TearDown() override {
    main_.reset();
    store_.reset();
    InstanceTest::TearDown();
  }
  void begin(const std::string& name = "s") {
    store_ = in_memory() ? store::Store::in_memory(system_random().next_id<VolumeId>()) : create_store(name);
    main_ = open(store_);
  }
  virtual bool in_memory() const { return false; }
  std::unique_ptr<Instance> open_branch(const std::string& name) {
    InstanceOptions settings = options();
    settings.branch = name;
    auto instance = Instance::open(store_, settings);
    EXPECT_TRUE(instance) << instance.error().message();
    return instance ? std::move(*instance) : nullptr;
  }

  std::shared_ptr<store::Store> store_;
  std::unique_ptr<Instance> main_;
};

}  // namespace reprise::instance

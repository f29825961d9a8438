// Instances over stores in a temporary folder: what the tests of instance/ share.
#pragma once

#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "fs/guest.h"
#include "instance/instance.h"

namespace reprise::instance {

// Changes a few bytes in the middle of the largest pack of a store.
inline void damage_a_pack(const std::string& store) {
  std::filesystem::path largest;
  for (const auto& entry : std::filesystem::directory_iterator(store + "/packs"))
    if (largest.empty() || entry.file_size() > std::filesystem::file_size(largest)) largest = entry.path();
  std::fstream file(largest, std::ios::in | std::ios::out | std::ios::binary);
  file.seekp(static_cast<std::streamoff>(std::filesystem::file_size(largest) / 2));
  file.write("damaged!", 8);
}

class InstanceTest : public testing::Test {
 protected:
  void SetUp() override {
    char name[] = "/tmp/reprise-instance-XXXXXX";
    ASSERT_NE(mkdtemp(name), nullptr);
    folder_ = name;
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  std::string path(std::string_view name) const { return folder_ + "/" + std::string(name); }
  static InstanceOptions options(bool follower = false) {
    InstanceOptions options;
    options.follower = follower;
    options.holder = {getpid(), "instance_test"};
    return options;
  }
  std::shared_ptr<store::Store> create_store(std::string_view name) {
    auto store = store::Store::create(path(name), system_random().next_id<VolumeId>());
    EXPECT_TRUE(store) << store.error().message();
    return std::move(*store);
  }
  std::shared_ptr<store::Store> open_store(std::string_view name) {
    auto store = store::Store::open(path(name));
    EXPECT_TRUE(store) << store.error().message();
    return std::move(*store);
  }
  static std::unique_ptr<Instance> open(std::shared_ptr<store::Store> store, bool follower = false) {
    auto instance = Instance::open(std::move(store), options(follower));
    EXPECT_TRUE(instance) << instance.error().message();
    return std::move(*instance);
  }
  static void write(Instance& instance, std::string_view path, std::string_view text) {
    fs::Guest guest(instance.filesystem());
    auto done = guest.write_file(path, text);
    ASSERT_TRUE(done) << fs::errno_text(done.error());
  }
  static std::string read(Instance& instance, std::string_view path) {
    fs::Guest guest(instance.filesystem());
    auto text = guest.read_file(path);
    return text ? std::string(as_text(as_bytes(*text))) : fs::errno_text(text.error());
  }
  // Every batch the journal has from `from` on.
  static std::vector<journal::Batch> batches(Instance& instance, LogIndex from = 1) {
    std::vector<journal::Batch> all;
    auto cursor = instance.journal().read(from);
    for (;;) {
      auto logged = cursor->next();
      EXPECT_TRUE(logged) << logged.error().message();
      if (!logged || !*logged) return all;
      all.push_back((*logged)->batch);
    }
  }

  std::string folder_;
};

inline std::string random_bytes(size_t count) {
  std::string bytes(count, '\0');
  for (char& c : bytes) c = static_cast<char>(system_random().next());
  return bytes;
}

}  // namespace reprise::instance

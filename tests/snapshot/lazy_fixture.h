// For tests of trees of which only what is touched is loaded: blobs in memory that count how often they are
// asked for, and trees opened on them.
#pragma once

#include <gtest/gtest.h>

#include <atomic>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "base/hash.h"
#include "snapshot/snapshot.h"
#include "tests/snapshot/sample_tree.h"

namespace reprise::snapshot {

class CountingBlobs final : public store::BlobSink, public store::BlobSource {
 public:
  Result<BlobId> put(ByteView bytes) override {
    BlobId id = hash128(bytes);
    puts++;
    blobs[id] = Bytes(bytes.begin(), bytes.end());
    return id;
  }
  Result<Bytes> get(BlobId id) override {
    gets++;
    auto it = blobs.find(id);
    if (it == blobs.end()) return fail(Code::kNotFound, "no blob " + id.to_string());
    return it->second;
  }
  std::map<BlobId, Bytes> blobs;
  std::atomic<int> gets = 0, puts = 0;
};

class Lazy : public testing::Test {
 protected:
  void capture_of(const TreeMaker& tree) {
    auto captured = capture(tree.head.view(), *blobs_);
    ASSERT_TRUE(captured) << captured.error().message();
    root_ = captured->root;
  }
  fs::View open() {
    blobs_->gets = 0;
    auto view = open_lazily(root_, blobs_, [this](const Error& error) {
      std::lock_guard lock(mutex_);
      damage_.push_back(error.message());
    });
    EXPECT_TRUE(view) << view.error().message();
    return view ? std::move(*view) : fs::View();
  }
  fs::View load_whole() {
    auto view = load(root_, *blobs_);
    EXPECT_TRUE(view) << view.error().message();
    return view ? std::move(*view) : fs::View();
  }

  std::shared_ptr<CountingBlobs> blobs_ = std::make_shared<CountingBlobs>();
  BlobId root_;
  std::mutex mutex_;
  std::vector<std::string> damage_;
};

inline std::string read_all(const fs::Tree& tree, InodeId file, size_t size) {
  std::string bytes(size, '?');
  auto got = tree.read(file, 0, {reinterpret_cast<std::byte*>(bytes.data()), size});
  return got ? bytes.substr(0, *got) : "cannot be read";
}

}  // namespace reprise::snapshot

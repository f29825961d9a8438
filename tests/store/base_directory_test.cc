// The file that says which directory a store rests on.
#include "store/base_directory.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <memory>

#include "store/host_source.h"
#include "store/store.h"

namespace reprise::store {
namespace {

class BaseFile : public testing::Test {
 protected:
  void SetUp() override {
    char name[] = "/tmp/reprise-base-XXXXXX";
    ASSERT_NE(mkdtemp(name), nullptr);
    path_ = name;
    folder_ = std::move(*open_host_directory(path_));
  }
  void TearDown() override { std::filesystem::remove_all(path_); }

  std::string path_;
  std::unique_ptr<Directory> folder_;
  const BaseDirectory base_{.path = "/srv/site \xff", .snapshot = 7, .time = {1'700'000'000, 42}};
};

TEST_F(BaseFile, IsReadAsItWasWritten) {
  auto none = read_base(*folder_);
  ASSERT_TRUE(none);
  EXPECT_FALSE(*none);
  ASSERT_TRUE(write_base(*folder_, base_));
  auto read = read_base(*folder_);
  ASSERT_TRUE(read) << read.error().message();
  ASSERT_TRUE(*read);
  EXPECT_EQ((*read)->path, base_.path);
  EXPECT_EQ((*read)->snapshot, base_.snapshot);
  EXPECT_EQ((*read)->time, base_.time);
}

TEST_F(BaseFile, DamagedAnywhereIsRefused) {
  ASSERT_TRUE(write_base(*folder_, base_));
  const Bytes whole = *folder_->read_file(kBaseFile, 8192);
  for (size_t at = 0; at < whole.size(); at++) {
    Bytes damaged = whole;
    damaged[at] ^= std::byte{1};
    ASSERT_TRUE(folder_->replace_file(kBaseFile, damaged));
    EXPECT_FALSE(read_base(*folder_)) << "byte " << at;
    ASSERT_TRUE(folder_->replace_file(kBaseFile, ByteView(whole).first(at)));
    EXPECT_FALSE(read_base(*folder_)) << "cut to " << at;
  }
}

TEST_F(BaseFile, AStoreKnowsItsSourceAndGoesWithAll) {
  const std::string path = path_ + "/S";
  {
    auto store = Store::create(path, system_random().next_id<VolumeId>());
    ASSERT_TRUE(store) << store.error().message();
    EXPECT_EQ(*(*store)->source(), nullptr);
    ASSERT_TRUE((*store)->set_base_directory(base_));
    auto source = (*store)->source();
    ASSERT_TRUE(source);
    ASSERT_NE(*source, nullptr);
    EXPECT_EQ((*source)->path(), base_.path);
    EXPECT_EQ(*(*store)->source(), *source);
  }
  ASSERT_TRUE(Store::remove_unused(path));
  EXPECT_TRUE(std::filesystem::is_empty(path));
}

TEST(HostSourceKey, IsReadAsItWasWrittenAndComparesEachPart) {
  HostEntry entry{.mode = S_IFREG | 0644, .size = 10, .inode = 5, .mtime = {3, 4}, .ctime = {6, 7}};
  const Bytes bytes = HostSource::key_of("a/b", entry);
  auto key = HostSource::parse_key(bytes);
  ASSERT_TRUE(key);
  EXPECT_EQ(key->path, "a/b");
  EXPECT_TRUE(key->matches(entry));
  auto differs = [&](auto change) {
    HostEntry other = entry;
    change(other);
    return !key->matches(other);
  };
  EXPECT_TRUE(differs([](HostEntry& e) { e.size++; }));
  EXPECT_TRUE(differs([](HostEntry& e) { e.inode++; }));
  EXPECT_TRUE(differs([](HostEntry& e) { e.mtime.nsec++; }));
  EXPECT_TRUE(differs([](HostEntry& e) { e.ctime.nsec++; }));
  EXPECT_TRUE(differs([](HostEntry& e) { e.mode = S_IFIFO | 0644; }));
  for (size_t cut = 0; cut <= bytes.size() - 3; cut++)
    EXPECT_FALSE(HostSource::parse_key(ByteView(bytes).first(cut))) << cut;
}

}  // namespace
}  // namespace reprise::store

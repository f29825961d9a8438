// Trees for the tests of snapshot/: one with everything in it, and random ones.
#pragma once

#include <gtest/gtest.h>

#include <random>
#include <string>
#include <vector>

#include "fs/tree.h"

namespace reprise::snapshot {

// Applies operations to a head, and keeps what there is for the random ones.
class TreeMaker {
 public:
  fs::Head head = fs::Head::create({1'700'000'000, 5});

  InodeId create(InodeId parent, const std::string& name, uint32_t mode, const std::string& target = "",
                 uint64_t rdev = 0) {
    InodeId id{next_++};
    apply(fs::Create{.parent = parent,
                     .name = name,
                     .inode = id,
                     .mode = mode,
                     .uid = 1000,
                     .gid = 100,
                     .rdev = rdev,
                     .target = target,
                     .time = tick()});
    if (S_ISDIR(mode)) directories.push_back(id);
    if (S_ISREG(mode)) files.push_back(id);
    return id;
  }
  InodeId directory(InodeId parent, const std::string& name) { return create(parent, name, S_IFDIR | 0755); }
  InodeId file(InodeId parent, const std::string& name, const std::string& bytes) {
    InodeId id = create(parent, name, S_IFREG | 0644);
    write(id, 0, bytes);
    return id;
  }
  void write(InodeId id, uint64_t offset, const std::string& bytes) {
    apply(fs::Write{.inode = id, .offset = offset, .data = as_bytes(bytes), .time = tick()});
  }
  void xattr(InodeId id, const std::string& name, const std::string& value) {
    apply(fs::SetXattr{.inode = id, .name = name, .value = as_bytes(value), .time = tick()});
  }
  void chmod(InodeId id, uint32_t mode) {
    apply(fs::SetAttributes{.inode = id, .mask = fs::SetAttributes::kMode, .mode = mode});
  }
  void apply(const fs::Operation& operation) {
    auto applied = head.apply(operation);
    ASSERT_TRUE(applied) << fs::operation_name(operation) << ": " << fs::errno_text(applied.error());
  }
  Timestamp tick() { return {1'700'000'000 + ++ticks_, 123'456'789}; }
  void skip_ids(uint64_t count) { next_ += count; }
  void ids_from(InodeId id) { next_ = id.value; }

  std::vector<InodeId> directories = {kRootInode}, files;

 private:
  uint64_t next_ = 2;
  int64_t ticks_ = 0;
};

inline std::string random_bytes(size_t size, uint64_t seed) {
  std::mt19937_64 random(seed);
  std::string out(size, '\0');
  for (char& c : out) c = static_cast<char>(random());
  return out;
}

// Every kind of node and inode, and every way of lying in blobs.
inline void make_everything(TreeMaker& tree) {
  InodeId dir = tree.directory(kRootInode, "dir");
  tree.directory(kRootInode, "empty");
  InodeId big = tree.directory(dir, "big");
  for (int i = 0; i < 600; i++)
    tree.file(big, "file number " + std::to_string(i), std::string(static_cast<size_t>(i), 'x'));
  tree.create(dir, "no bytes", S_IFREG | 0600);
  InodeId small = tree.file(dir, "small", "hello");
  InodeId medium = tree.file(dir, "medium", random_bytes(100'000, 1));
  InodeId large = tree.file(dir, "large", random_bytes(3'000'000, 2));
  tree.file(dir, "block", std::string(4096, 'b') + std::string(10, '\0'));
  InodeId sparse = tree.create(dir, "sparse", S_IFREG | 0644);
  tree.write(sparse, uint64_t{5} << 30, "far");
  tree.apply(fs::Truncate{.inode = sparse, .size = uint64_t{6} << 30, .time = tree.tick()});
  InodeId hole = tree.create(dir, "hole", S_IFREG | 0644);
  tree.apply(fs::Truncate{.inode = hole, .size = 1 << 20, .time = tree.tick()});
  InodeId copy = tree.create(dir, "copy", S_IFREG | 0644);  // shares blocks, at the same place and at others
  tree.apply(fs::CopyRange{
      .from = large, .from_offset = 0, .to = copy, .to_offset = 0, .length = 1 << 20, .time = tree.tick()});
  tree.apply(fs::CopyRange{.from = large,
                           .from_offset = 0,
                           .to = copy,
                           .to_offset = 2 << 20,
                           .length = 1 << 20,
                           .time = tree.tick()});
  tree.file(dir, "pattern", std::string(1 << 20, 'p'));  // one leaf's blob, at 16 places
  tree.create(dir, "link", S_IFLNK | 0777, "../somewhere/else");
  tree.create(dir, "long link", S_IFLNK | 0777, std::string(4095, 'l'));
  tree.create(dir, "fifo", S_IFIFO | 0640);
  tree.create(dir, "socket", S_IFSOCK | 0640);
  tree.create(dir, "null", S_IFCHR | 0666, "", 0x103);
  tree.apply(fs::Link{.parent = kRootInode, .name = "hard", .inode = medium, .time = tree.tick()});
  tree.xattr(small, "user.short", "value");
  tree.xattr(medium, "user.long", std::string(3000, 'v'));
  tree.xattr(large, "user.long", std::string(3000, 'v'));  // one blob for both
  tree.chmod(large, 06755);
  tree.chmod(big, 0500);
  tree.directory(dir, std::string(255, 'n'));
  tree.directory(dir, "\xff\xfe not utf-8 \n");
  tree.ids_from(InodeId::make(0xdeadbeef42, 7));  // a second writer's
  tree.file(dir, "from elsewhere", random_bytes(5000, 3));
}

// A few operations at random; returns how many.
inline void change_at_random(TreeMaker& tree, std::mt19937_64& random, int count) {
  for (int i = 0; i < count; i++) {
    InodeId directory = tree.directories[random() % tree.directories.size()];
    std::string name = "n" + std::to_string(random());
    InodeId file = tree.files.empty() ? InodeId{} : tree.files[random() % tree.files.size()];
    switch (random() % 8) {
      case 0:
        tree.directory(directory, name);
        break;
      case 1:
        tree.file(directory, name, random_bytes(1 + random() % 300, random()));
        break;
      case 2:
        tree.file(directory, name, random_bytes(random() % 200'000 + 1, random()));
        break;
      case 3:
        tree.create(directory, name, S_IFLNK | 0777, std::string(1 + random() % 200, 't'));
        break;
      case 4:
        if (file) tree.write(file, random() % 300'000, random_bytes(1 + random() % 10'000, random()));
        break;
      case 5:
        if (file) tree.apply(fs::Truncate{.inode = file, .size = random() % 300'000, .time = tree.tick()});
        break;
      case 6:
        if (file) tree.xattr(file, "user.a" + std::to_string(random() % 5), std::string(random() % 900, 'a'));
        break;
      case 7:
        tree.skip_ids(random() % 300);
        break;
    }
  }
}

}  // namespace reprise::snapshot

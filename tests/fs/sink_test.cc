// What a call makes of its sink: errors of the journal become the call's, and nobody waits under the lock.
#include <gtest/gtest.h>
#include <sys/stat.h>

#include "fs/filesystem.h"
#include "tests/fs/recording.h"

namespace reprise::fs {
namespace {

class Sink : public testing::Test {
 protected:
  TickingClock clock_;
  std::unique_ptr<InodeIdSource> ids_ = local_inode_ids();
  RecordingSink sink_;
  Filesystem filesystem_{Head::create({}), clock_, *ids_, &sink_};
  const Caller caller_;
  Bytes bytes_ = Bytes(100);

  InodeId file(std::string_view name) {
    return filesystem_.make_node(caller_, kRootInode, name, S_IFREG | 0644, 0)->inode;
  }
  // Every kind of call that changes something, on a file that is there.
  std::vector<std::function<Outcome<void>()>> calls(InodeId inode, std::string_view name) {
    auto drop = [](auto&& outcome) {
      return outcome ? Outcome<void>{} : errno_of(static_cast<int>(outcome.error()));
    };
    return {
        [=, this] {
          return drop(filesystem_.make_node(caller_, kRootInode, "new", S_IFREG | 0600, 0, Hold::kPin));
        },
        [=, this] { return drop(filesystem_.make_directory(caller_, kRootInode, "d", 0755)); },
        [=, this] { return drop(filesystem_.make_symlink(caller_, kRootInode, "l", "target")); },
        [=, this] { return drop(filesystem_.link(caller_, inode, kRootInode, "other", Hold::kPin)); },
        [=, this] { return drop(filesystem_.write(caller_, inode, 0, bytes_)); },
        [=, this] {
          return drop(
              filesystem_.set_attributes(caller_, inode, {.mode = 0600, .uid = {}, .gid = {}, .size = {}}));
        },
        [=, this] { return filesystem_.allocate(caller_, inode, RangeChange::kZero, false, 0, 50); },
        [=, this] { return drop(filesystem_.copy_range(caller_, inode, 0, inode, 200, 50)); },
        [=, this] { return filesystem_.set_xattr(caller_, inode, "user.a", bytes_, XattrMode::kAny); },
        [=, this] { return filesystem_.remove_xattr(caller_, inode, "user.a"); },
        [=, this] { return filesystem_.barrier("mark", ""); },
        [=, this] { return filesystem_.rename(caller_, kRootInode, name, kRootInode, "renamed"); },
        [=, this] { return filesystem_.unlink(caller_, kRootInode, "renamed"); },
        [=, this] { return filesystem_.remove_directory(caller_, kRootInode, "d"); },
    };
  }
};

TEST_F(Sink, EveryCallThatRecordsIsCommittedOnce) {
  int expected = 1;  // file() itself
  for (auto& call : calls(file("file"), "file")) {
    EXPECT_TRUE(call());
    EXPECT_EQ(sink_.commits, ++expected);
  }
}

TEST_F(Sink, WhatTheJournalLosesIsAnErrorOfTheCall) {
  InodeId inode = file("file");
  int number = 0;
  for (auto& call : calls(inode, "file")) {
    bool late = number++ % 2 == 0;  // when the call ends, or when it is committed
    (late ? sink_.fail_commit : sink_.lose) = EIO;
    auto done = call();
    ASSERT_FALSE(done) << number;
    EXPECT_EQ(done.error(), Errno{EIO}) << number;
    sink_.fail_commit = sink_.lose = 0;
  }
  // Whoever was told of an error holds nothing: the inode goes with its last name.
  InodeId made = filesystem_.lookup(caller_, kRootInode, "new")->inode;
  ASSERT_TRUE(filesystem_.unlink(caller_, kRootInode, "new"));
  EXPECT_EQ(filesystem_.get_attributes(made).error(), Errno{ESTALE});
}

TEST_F(Sink, WhatFailsIsNotCommitted) {
  InodeId inode = file("file");
  int commits = sink_.commits;
  EXPECT_FALSE(filesystem_.make_directory(caller_, kRootInode, "file", 0755));
  EXPECT_FALSE(filesystem_.unlink(caller_, kRootInode, "missing"));
  EXPECT_FALSE(filesystem_.remove_xattr(caller_, inode, "user.a"));
  EXPECT_EQ(sink_.commits, commits);
}

// While one guest waits for the disk, others read and write.
TEST_F(Sink, NoLockIsHeldWhileACallIsCommitted) {
  struct Waiting final : OperationSink {
    Filesystem* filesystem = nullptr;
    Outcome<void> reserve(size_t) override { return look(); }
    void record(const Operation&, std::string_view) override {}
    Outcome<void> end_call() override { return {}; }
    Outcome<void> commit() override { return look(); }
    Outcome<void> look() {
      looked += filesystem->get_attributes(kRootInode).has_value();
      filesystem->replay([](Head&) {});  // would wait for ever
      return {};
    }
    int looked = 0;
  } waiting;
  waiting.filesystem = &filesystem_;
  filesystem_.set_sink(&waiting);
  file("file");
  EXPECT_EQ(waiting.looked, 2);
}

}  // namespace
}  // namespace reprise::fs

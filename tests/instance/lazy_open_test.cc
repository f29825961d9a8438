// Instances that open on a snapshot of which only what is touched is read: docs/lazy.md.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include "fs/node_pool.h"
#include "instance/snapshots.h"
#include "instance/watch.h"
#include "snapshot/collect.h"
#include "tests/instance/instance_fixture.h"

namespace reprise::instance {
namespace {

constexpr int kDirectories = 30, kFiles = 100;

std::string text_of(int d, int f) {
  return fmt::format("file {} of directory {}", f, d) + std::string(2500, static_cast<char>('a' + f % 26));
}

class LazyOpen : public InstanceTest {
 protected:
  void SetUp() override {
    InstanceTest::SetUp();
    auto instance = open(create_store("s"));
    fs::Guest guest(instance->filesystem());
    for (int d = 0; d < kDirectories; d++) {
      ASSERT_TRUE(guest.mkdir(fmt::format("/d{}", d), 0755));
      for (int f = 0; f < kFiles; f++) write(*instance, name(d, f), text_of(d, f));
    }
    digest_ = instance->filesystem().digest();
    ASSERT_TRUE(instance->close());
  }
  static std::string name(int d, int f) { return fmt::format("/d{}/f{}", d, f); }
  std::unique_ptr<Instance> open_again(Opening opening = Opening::kBySize) {
    InstanceOptions how = options();
    how.opening = opening;
    auto instance = Instance::open(open_store("s"), std::move(how));
    EXPECT_TRUE(instance) << instance.error().message();
    return instance ? std::move(*instance) : nullptr;
  }
  static void expect_all(Instance& instance) {
    for (int d = 0; d < kDirectories; d++)
      for (int f = 0; f < kFiles; f++) ASSERT_EQ(read(instance, name(d, f)), text_of(d, f));
  }

  Digest128 digest_;
};

TEST_F(LazyOpen, ALargeTreeIsReadWhereItIsTouchedAndASmallOneWhole) {
  auto instance = open_again();
  EXPECT_TRUE(instance->open_report().lazily);
  EXPECT_EQ(instance->filesystem().digest(), digest_);
  EXPECT_EQ(read(*instance, name(17, 42)), text_of(17, 42));
  expect_all(*instance);
  EXPECT_TRUE(instance->damage().empty());
  instance.reset();
  instance = open_again(Opening::kWhole);
  EXPECT_FALSE(instance->open_report().lazily);
  EXPECT_EQ(instance->filesystem().digest(), digest_);
  EXPECT_FALSE(open(create_store("small"))->open_report().lazily);
}

TEST_F(LazyOpen, WhatIsChangedIsThereAfterClosingAndAfterACrash) {
  for (bool crash : {false, true}) {
    auto instance = open_again();
    ASSERT_TRUE(instance->open_report().lazily);
    write(*instance, name(3, crash), "changed");
    ASSERT_TRUE(fs::Guest(instance->filesystem()).unlink(name(4, crash)));
    ASSERT_TRUE(fs::Guest(instance->filesystem()).rename(name(5, crash), fmt::format("/d6/moved{}", crash)));
    Digest128 digest = instance->filesystem().digest();
    ASSERT_TRUE(instance->sync());
    if (!crash) {
      ASSERT_TRUE(instance->close());
    }
    instance.reset();
    for (Opening opening : {Opening::kLazily, Opening::kWhole}) {
      instance = open_again(opening);
      EXPECT_EQ(instance->open_report().batches_replayed > 0, crash);
      EXPECT_EQ(instance->filesystem().digest(), digest);
      EXPECT_EQ(instance->filesystem().view().check_invariants(), "");
      EXPECT_EQ(read(*instance, name(3, crash)), "changed");
      EXPECT_EQ(read(*instance, fmt::format("/d6/moved{}", crash)), text_of(5, crash));
      instance.reset();
    }
  }
}

// Nothing that the tree may still have to read is collected, whatever is deleted meanwhile.
TEST_F(LazyOpen, TheSnapshotItWasOpenedOnStays) {
  auto instance = open_again();
  ASSERT_TRUE(instance->open_report().lazily);
  const fs::View before = instance->filesystem().view();
  for (int d = 0; d < kDirectories; d++) {
    fs::Guest guest(instance->filesystem());
    for (int f = 0; f < kFiles; f++) ASSERT_TRUE(guest.unlink(name(d, f)));
  }
  ASSERT_TRUE(instance->snapshot("after"));
  EXPECT_EQ(instance->drop_snapshot(instance->open_report().snapshot), false) << "kept as a checkpoint";
  ASSERT_TRUE(instance->tend({}));
  auto collected = instance->collect(0);
  ASSERT_TRUE(collected) << collected.error().message();
  EXPECT_EQ(before.recompute_digest(), digest_);
  EXPECT_EQ(before.check_invariants(), "");
  ASSERT_TRUE(instance->close());
  instance.reset();
  EXPECT_EQ(before.recompute_digest(), digest_) << "all loaded by now";
  // The next one does not need it.
  instance = open_again(Opening::kWhole);
  write(*instance, "/new", "text");
  ASSERT_TRUE(instance->close());
  instance.reset();
  instance = open_again(Opening::kWhole);
  collected = instance->collect(0);
  ASSERT_TRUE(collected);
  EXPECT_GT(collected->blobs_dropped, 100u);
}

// Three times what memory it may take, read and changed all over.
TEST_F(LazyOpen, ATreeLargerThanItsMemoryWorks) {
  constexpr int kLarge = 48;
  constexpr size_t kBytes = 1 << 20;
  auto text = [](int i, int round) {
    return fmt::format("{} {} ", i, round) + std::string(kBytes, static_cast<char>('a' + (i + round) % 26));
  };
  store::Store* store = nullptr;
  InstanceOptions how = options();
  const uint64_t others = fs::memory_in_use();  // trees of other tests, if any
  how.retention.memory_bytes = others + (16 << 20);
  how.opening = Opening::kLazily;
  auto instance = Instance::open(open_store("s"), std::move(how)).value();
  store = instance->store();
  for (int round = 0; round < 3; round++) {
    uint64_t most = 0;
    for (int i = 0; i < kLarge; i++) {
      const std::string name = fmt::format("/large{}", i);
      if (round > 0) {
        ASSERT_EQ(read(*instance, name), text(i, i % 3 == 0 ? round - 1 : 0));
      }
      if (round == 0 || i % 3 == 0) write(*instance, name, text(i, round));
      if (i % 4 == 3) {
        ASSERT_TRUE(instance->tend({}));
        most = std::max(most, fs::memory_in_use() - others);
      }
    }
    EXPECT_LE(most, uint64_t{24} << 20) << "round " << round;
    ASSERT_TRUE(instance->collect(0));
  }
  EXPECT_GT(instance->evicted_bytes(), uint64_t{100} << 20);
  EXPECT_TRUE(instance->damage().empty());
  // Checkpoints that nothing is read from any more are gone.
  EXPECT_LE(store->catalogue().snapshots().value().size(), 8u);
  expect_all(*instance);
  const Digest128 digest = instance->filesystem().digest();
  EXPECT_EQ(instance->filesystem().view().check_invariants(), "");
  ASSERT_TRUE(instance->close());
  instance.reset();
  instance = open_again(Opening::kWhole);
  EXPECT_EQ(instance->filesystem().digest(), digest);
}

// Read and changed from its beginning to its end, between two looks by no more than there is room for.
TEST_F(LazyOpen, AFileLargerThanItsMemoryWorks) {
  constexpr size_t kPiece = 1 << 20;
  constexpr int kPieces = 48;
  auto text = [](int i) {
    return fmt::format("{} ", i) + std::string(kPiece - 10, static_cast<char>('a' + i % 26));
  };
  {
    auto instance = open_again();
    fs::Guest guest(instance->filesystem());
    const int file = guest.open("/one", O_CREAT | O_RDWR).value();
    for (int i = 0; i < kPieces; i++) ASSERT_TRUE(guest.pwrite(file, as_bytes(text(i)), i * kPiece));
    ASSERT_TRUE(guest.close(file));
    ASSERT_TRUE(instance->close());
  }
  InstanceOptions how = options();
  const uint64_t others = fs::memory_in_use();
  how.retention.memory_bytes = others + (16 << 20);
  how.opening = Opening::kLazily;
  auto instance = Instance::open(open_store("s"), std::move(how)).value();
  fs::Guest guest(instance->filesystem());
  const int file = guest.open("/one", O_RDWR).value();
  for (int round = 0; round < 2; round++) {
    uint64_t most = 0;
    for (int i = 0; i < kPieces; i++) {
      std::string want = text(i), got(want.size(), '?');
      if (round > 0) want[kPiece / 2] = '!';
      ASSERT_TRUE(guest.pread(file, {reinterpret_cast<std::byte*>(got.data()), got.size()}, i * kPiece));
      ASSERT_EQ(got, want) << i;
      if (round == 0) {
        ASSERT_TRUE(guest.pwrite(file, as_bytes("!"), i * kPiece + kPiece / 2));
      }
      if (i % 4 == 3) {
        ASSERT_TRUE(instance->tend({}));
        most = std::max(most, fs::memory_in_use() - others);
      }
    }
    EXPECT_LE(most, uint64_t{24} << 20) << "round " << round;
  }
  EXPECT_GT(instance->evicted_bytes(), uint64_t{50} << 20);
  EXPECT_EQ(instance->filesystem().view().check_invariants(), "");
}

TEST_F(LazyOpen, DamageIsNamedWhereItIsTouchedAndTheRestIsReadable) {
  damage_a_pack(path("s"));
  auto instance = open_again();
  ASSERT_NE(instance, nullptr);
  ASSERT_TRUE(instance->open_report().lazily);
  EXPECT_TRUE(instance->damage().empty());
  int unreadable = 0, wrong = 0;
  for (int d = 0; d < kDirectories; d++) {
    for (int f = 0; f < kFiles; f++) {
      std::string text = read(*instance, name(d, f));
      unreadable += text == fs::errno_text(fs::Errno{EIO});
      wrong += text != text_of(d, f) && text != fs::errno_text(fs::Errno{EIO});
    }
  }
  EXPECT_EQ(wrong, 0);
  EXPECT_GT(unreadable, 0);
  EXPECT_LE(unreadable, 2 * kFiles) << "a blob and what depends on it";
  ASSERT_FALSE(instance->damage().empty());
  EXPECT_NE(instance->damage()[0].find("depend"), std::string::npos) << instance->damage()[0];
  // Writing goes on where it can.
  write(*instance, "/new", "text");
  EXPECT_EQ(read(*instance, "/new"), "text");
  instance.reset();
  // Read whole, the journal makes good what the snapshot has lost.
  instance = open_again(Opening::kWhole);
  ASSERT_NE(instance, nullptr);
  expect_all(*instance);
}

// What the journal changes cannot be loaded: then an older snapshot, or none, is gone on from.
TEST_F(LazyOpen, AJournalThatCannotBeReplayedOnItIsReplayedOnWhatIsWhole) {
  {
    auto instance = open_again();
    for (int d = 0; d < kDirectories; d++)
      for (int f = 0; f < kFiles; f++) write(*instance, name(d, f), text_of(d, f));
    digest_ = instance->filesystem().digest();
    ASSERT_TRUE(instance->sync());
  }
  damage_a_pack(path("s"));
  auto instance = open_again(Opening::kLazily);
  ASSERT_NE(instance, nullptr);
  EXPECT_FALSE(instance->open_report().lazily);
  EXPECT_EQ(instance->filesystem().digest(), digest_);
  expect_all(*instance);
}

// An older snapshot, and the journal behind it, may be all that is left of what was damaged.
TEST_F(LazyOpen, WhatIsKnownToBeDamagedGivesUpNoHistory) {
  for (bool damaged : {false, true}) {
    if (damaged) damage_a_pack(path("s"));
    InstanceOptions how = options();
    how.opening = Opening::kLazily;
    how.retention.journal_bytes = 100'000;
    how.retention.snapshots = 1;
    auto instance = Instance::open(open_store("s"), std::move(how)).value();
    for (int d = 0; d < kDirectories; d++)
      for (int f = 0; f < kFiles; f++) read(*instance, name(d, f));
    ASSERT_EQ(instance->damage().empty(), !damaged);
    const LogIndex first = instance->journal().first();
    for (int i = 0; i < 30; i++) {
      std::string text(10'000, '\0');  // that does not get smaller
      for (char& c : text) c = static_cast<char>(system_random().next());
      write(*instance, fmt::format("/new{}", i), text);
      ASSERT_TRUE(instance->snapshot(""));
      ASSERT_TRUE(instance->tend({}));
    }
    size_t unlabelled = 0;
    const auto records = instance->store()->catalogue().snapshots().value();
    for (const store::SnapshotRecord& record : records) unlabelled += !record.checkpoint;
    EXPECT_EQ(instance->journal().first() > first, !damaged);
    EXPECT_EQ(unlabelled > 20, damaged) << unlabelled;
    ASSERT_TRUE(instance->close());
  }
}

// Nothing else has the state: opened on what is left of it, the next loss would be for good, and without it
// the volume would seem to be new.
TEST_F(LazyOpen, WhatNoJournalLeadsToMustBeThereAsAWhole) {
  std::filesystem::remove_all(path("s/branches/main/journal"));
  {
    auto store = open_store("s");
    ASSERT_TRUE(store->catalogue().update_branch(
        "main", [](store::BranchRecord& branch) { branch.durable_hint = 0; }));
  }
  for (Opening opening : {Opening::kLazily, Opening::kWhole}) {
    auto instance = open_again(opening);
    ASSERT_NE(instance, nullptr);
    EXPECT_EQ(instance->filesystem().digest(), digest_);
    EXPECT_FALSE(instance->open_report().lazily && instance->journal().first() == 1);
  }
  std::filesystem::remove_all(path("s/branches/main/journal"));
  {
    auto store = open_store("s");
    ASSERT_TRUE(store->catalogue().update_branch(
        "main", [](store::BranchRecord& branch) { branch.durable_hint = 0; }));
  }
  damage_a_pack(path("s"));
  for (Opening opening : {Opening::kLazily, Opening::kWhole}) {
    InstanceOptions how = options();
    how.opening = opening;
    auto instance = Instance::open(open_store("s"), std::move(how));
    ASSERT_FALSE(instance);
    EXPECT_EQ(instance.error().code(), Code::kCorrupt) << instance.error().message();
  }
}

TEST_F(LazyOpen, AWatchOfATreeWhoseNamesCannotBeReadIsRefused) {
  auto instance = open_again(Opening::kLazily);
  ASSERT_TRUE(Watch::begin(*instance, {}));
  instance.reset();
  // Not the page of the root directory, which comes first, nor the top of the table, which comes last.
  for (const auto& pack : std::filesystem::directory_iterator(path("s/packs"))) {
    std::fstream file(pack.path(), std::ios::in | std::ios::out | std::ios::binary);
    const uintmax_t bytes = std::filesystem::file_size(pack.path());
    file.seekp(static_cast<std::streamoff>(bytes / 4));
    file << std::string(bytes / 4, '\0');
  }
  instance = open_again(Opening::kLazily);
  ASSERT_TRUE(instance != nullptr && instance->open_report().lazily);
  auto watch = Watch::begin(*instance, {});
  ASSERT_FALSE(watch);
  EXPECT_EQ(watch.error().code(), Code::kCorrupt);
}

}  // namespace
}  // namespace reprise::instance

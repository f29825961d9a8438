#include "store/catalogue.h"

#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <filesystem>
#include <fstream>

#include "base/hash.h"
#include "store/records.h"
#include "temp_directory.h"

namespace reprise::store {
namespace {

SnapshotRecord some_snapshot() {
  SnapshotRecord record;
  record.branch = "main";
  record.label = "released";
  record.checkpoint = true;
  record.time = {-5, 999'999'999};
  record.root = {1, 2};
  record.log_index = 77;
  record.vector = Bytes(29, std::byte{7});
  record.digest = {3, 4};
  record.lamport = 5;
  record.inodes = 6;
  record.bytes = 7;
  record.stored_bytes = 8;
  return record;
}
const MarkRecord kMark{"before_update", "main", 12, "r0.abc", {10, 20}};

// Both implementations, one body of tests.
class CatalogueTest : public testing::TestWithParam<bool> {
 protected:
  void SetUp() override { reopen(); }
  void reopen() {
    if (GetParam()) {
      catalogue_ = catalogue_in_memory();
      return;
    }
    catalogue_.reset();
    auto opened = open_catalogue(directory_ / "catalogue.lmdb");
    ASSERT_TRUE(opened) << opened.error().message();
    catalogue_ = std::move(*opened);
  }
  TempDirectory directory_;
  std::unique_ptr<Catalogue> catalogue_;
};
INSTANTIATE_TEST_SUITE_P(Both, CatalogueTest, testing::Bool(),
                         [](const auto& tested) { return tested.param ? "InMemory" : "Lmdb"; });

TEST_P(CatalogueTest, MarksComeWithTheirSnapshotOrNotAtAll) {
  MarkRecord second = kMark;
  second.name = "second";
  EXPECT_EQ(catalogue_->add_snapshot(some_snapshot(), {kMark, second}), 1u);
  EXPECT_EQ(catalogue_->mark("main", kMark.name), kMark);
  EXPECT_EQ(catalogue_->mark("main", "second"), second);
  MarkRecord bad = kMark;
  bad.name = "third";
  MarkRecord unnamed = kMark;
  unnamed.name = "";
  EXPECT_FALSE(catalogue_->add_snapshot(some_snapshot(), {bad, unnamed}));
  EXPECT_EQ(catalogue_->snapshots()->size(), 1u);
  EXPECT_FALSE(catalogue_->mark("main", "third")->has_value());
}

TEST_P(CatalogueTest, SnapshotsAreNumberedAndNumbersNeverComeBack) {
  SnapshotRecord record = some_snapshot();
  EXPECT_EQ(catalogue_->add_snapshot(record), 1u);
  EXPECT_EQ(catalogue_->add_snapshot(record), 2u);
  ASSERT_TRUE(catalogue_->remove_snapshot(2));
  EXPECT_EQ(catalogue_->add_snapshot(record), 3u);
  auto all = catalogue_->snapshots();
  ASSERT_TRUE(all);
  ASSERT_EQ(all->size(), 2u);
  record.id = 1;
  EXPECT_EQ((*all)[0], record);
  record.id = 3;
  EXPECT_EQ((*all)[1], record);
  EXPECT_EQ(catalogue_->remove_snapshot(2).error().code(), Code::kNotFound);
}

TEST_P(CatalogueTest, SnapshotsComeInOrderOfTheirNumbers) {
  for (int i = 0; i < 300; i++) ASSERT_TRUE(catalogue_->add_snapshot(some_snapshot()));
  auto all = catalogue_->snapshots();
  ASSERT_TRUE(all);
  ASSERT_EQ(all->size(), 300u);
  for (size_t i = 0; i < 300; i++) EXPECT_EQ((*all)[i].id, i + 1);
}

TEST_P(CatalogueTest, MarksAreReplacedByNameAndBranch) {
  MarkRecord other_branch = kMark, again = kMark;
  other_branch.branch = "try1";
  again.log_index = 13;
  ASSERT_TRUE(catalogue_->put_mark(kMark));
  ASSERT_TRUE(catalogue_->put_mark(other_branch));
  ASSERT_TRUE(catalogue_->put_mark(again));
  EXPECT_EQ(catalogue_->mark("main", kMark.name), again);
  EXPECT_EQ(catalogue_->mark("try1", kMark.name), other_branch);
  EXPECT_FALSE(catalogue_->mark("main", "nothing")->has_value());
  EXPECT_EQ(catalogue_->marks()->size(), 2u);
}

TEST_P(CatalogueTest, AMarkOnTheDiskRaisesWhatIsKnownOfItsBranch) {
  ASSERT_TRUE(catalogue_->put_mark(kMark));
  EXPECT_FALSE(catalogue_->branch("main")->has_value()) << "nothing is known of the disk";
  for (LogIndex durable : {5, 9, 7, 0}) ASSERT_TRUE(catalogue_->put_mark(kMark, durable));
  EXPECT_EQ(catalogue_->branch("main"), (BranchRecord{"main", 9}));
  ASSERT_TRUE(catalogue_->remove_mark("main", kMark.name));
  EXPECT_FALSE(catalogue_->mark("main", kMark.name)->has_value());
  EXPECT_EQ(catalogue_->remove_mark("main", kMark.name).error().code(), Code::kNotFound);
}

TEST_P(CatalogueTest, WhatIsKnownToBeOnTheDiskIsOnlyRaised) {
  for (LogIndex durable : {5, 9, 7, 0}) ASSERT_TRUE(catalogue_->raise_durable_hint("main", durable));
  EXPECT_EQ(catalogue_->branch("main"), (BranchRecord{"main", 9}));
  ASSERT_TRUE(catalogue_->put_branch({"main", 3})) << "but for who says so";
  EXPECT_EQ(catalogue_->branch("main"), (BranchRecord{"main", 3}));
}

TEST_P(CatalogueTest, ABranchIsChangedAsAWholeAndRaisingItsHintLeavesTheRest) {
  const OriginId one{.hi = 1, .lo = 2}, two{.hi = 3, .lo = 4};
  auto add = [&](OriginId writer) {
    return catalogue_->update_branch("main", [&](BranchRecord& branch) {
      branch.writers.push_back(writer);
      branch.journal_begins = 5 * branch.writers.size();
    });
  };
  ASSERT_TRUE(add(one));
  ASSERT_TRUE(add(two));
  ASSERT_TRUE(catalogue_->raise_durable_hint("main", 7));
  BranchRecord expected{.name = "main", .durable_hint = 7, .journal_begins = 10, .writers = {one, two}};
  EXPECT_EQ(catalogue_->branch("main"), expected);
  ASSERT_TRUE(catalogue_->update_branch("main", [](BranchRecord&) {}));
  EXPECT_EQ(catalogue_->branch("main"), expected);
  Status too_many = catalogue_->update_branch(
      "main", [](BranchRecord& branch) { branch.writers.resize(kBranchWritersMax + 1); });
  EXPECT_EQ(too_many.error().code(), Code::kInvalidArgument);
  EXPECT_EQ(catalogue_->branch("main"), expected);
  ASSERT_TRUE(catalogue_->update_branch("fresh", [](BranchRecord&) {}));
  EXPECT_FALSE(catalogue_->branch("fresh")->has_value()) << "nothing is known of it";
}

// With the checksum that these bytes would have.
Bytes sealed(Bytes bytes) {
  append_value(bytes, hash64(bytes));
  return bytes;
}

TEST(Records, ABranchAsEarlierVersionsWroteItKnowsNotWhereItBegins) {
  BranchRecord now{.name = "main", .durable_hint = 9, .journal_begins = 3, .writers = {{.hi = 1, .lo = 2}}};
  Bytes bytes = encode(now);
  EXPECT_EQ(decode<BranchRecord>(bytes), now);
  Bytes earlier(bytes.begin(), bytes.begin() + 1 + 4 + 4 + 8);
  EXPECT_FALSE(decode<BranchRecord>(sealed(earlier))) << "cut off";
  earlier[0] = std::byte{0};
  EXPECT_EQ(decode<BranchRecord>(sealed(earlier)),
            (BranchRecord{.name = "main", .durable_hint = 9, .journal_begins = 0}));
}

TEST_P(CatalogueTest, BranchesAndBlobsAreFoundAgain) {
  ASSERT_TRUE(catalogue_->put_branch({"main", 5}));
  ASSERT_TRUE(catalogue_->put_branch({"main", 9}));
  EXPECT_EQ(catalogue_->branch("main"), (BranchRecord{"main", 9}));
  EXPECT_FALSE(catalogue_->branch("other")->has_value());
  EXPECT_EQ(catalogue_->branches()->size(), 1u);
  BlobPlace place{.pack = 3, .offset = 1ull << 40, .stored_bytes = 99};
  ASSERT_TRUE(catalogue_->put_blobs({{BlobId{1, 2}, place}}));
  EXPECT_EQ(catalogue_->blob({1, 2}), place);
  EXPECT_FALSE(catalogue_->blob({2, 1})->has_value());
}

TEST_P(CatalogueTest, BadNamesAndLengthsAreRefused) {
  MarkRecord mark = kMark;
  mark.name = "no/slash";
  EXPECT_EQ(catalogue_->put_mark(mark).error().code(), Code::kInvalidArgument);
  EXPECT_EQ(catalogue_->put_branch({"head", 0}).error().code(), Code::kInvalidArgument);
  SnapshotRecord record = some_snapshot();
  record.label = std::string(kCatalogueTextLimit + 1, 'x');
  EXPECT_EQ(catalogue_->add_snapshot(record).error().code(), Code::kInvalidArgument);
  EXPECT_FALSE(catalogue_->mark(std::string(600, 'x'), "m")->has_value());
}

TEST(Catalogue, SurvivesReopening) {
  TempDirectory directory;
  std::string path = directory / "catalogue.lmdb";
  {
    auto catalogue = open_catalogue(path);
    ASSERT_TRUE(catalogue) << catalogue.error().message();
    ASSERT_TRUE((*catalogue)->put_mark(kMark));
    EXPECT_EQ((*catalogue)->add_snapshot(some_snapshot()), 1u);
  }
  auto catalogue = open_catalogue(path);
  ASSERT_TRUE(catalogue) << catalogue.error().message();
  EXPECT_EQ((*catalogue)->mark("main", kMark.name), kMark);
  EXPECT_EQ((*catalogue)->add_snapshot(some_snapshot()), 2u);
}

TEST(Catalogue, ASecondOpenInOneProcessIsRefusedUnderAnyName) {
  TempDirectory directory;
  auto first = open_catalogue(directory / "c.lmdb");
  ASSERT_TRUE(first);
  ASSERT_EQ(::symlink(directory.path().c_str(), (directory / "same").c_str()), 0);
  for (const std::string& path : {directory / "c.lmdb", directory / "same/c.lmdb", directory / "./c.lmdb"}) {
    auto second = open_catalogue(path);
    ASSERT_FALSE(second) << path;
    EXPECT_EQ(second.error().code(), Code::kBusy);
    EXPECT_NE(second.error().message().find(path), std::string::npos);
  }
  first->reset();
  EXPECT_TRUE(open_catalogue(directory / "c.lmdb"));
}

TEST(Catalogue, AFullMapGrows) {
  TempDirectory directory;
  auto catalogue = open_catalogue(directory / "c.lmdb", Access::kWrite, 256 * 1024);
  ASSERT_TRUE(catalogue) << catalogue.error().message();
  std::vector<std::pair<BlobId, BlobPlace>> places;
  for (uint64_t i = 0; i < 50'000; i++) places.push_back({{i * 0x9e3779b97f4a7c15, i}, {1, i, 7}});
  ASSERT_TRUE((*catalogue)->put_blobs(places));  // several megabytes in one transaction
  for (uint64_t i = 0; i < 50'000; i += 997) EXPECT_EQ((*catalogue)->blob(places[i].first), places[i].second);
}

// The map is grown by one process while another has the file open with the small one.
TEST(Catalogue, SeesWhatAnotherProcessWroteEvenIfThatGrewTheMap) {
  TempDirectory directory;
  std::string path = directory / "c.lmdb";
  int to_child[2], to_parent[2];
  ASSERT_EQ(::pipe(to_child), 0);
  ASSERT_EQ(::pipe(to_parent), 0);
  pid_t child = ::fork();
  if (child == 0) {
    char go;
    if (::read(to_child[0], &go, 1) != 1) ::_exit(1);
    auto catalogue = open_catalogue(path, Access::kWrite, 256 * 1024);
    if (!catalogue) ::_exit(2);
    std::vector<std::pair<BlobId, BlobPlace>> places;
    for (uint64_t i = 0; i < 50'000; i++) places.push_back({{i, 1}, {1, i, 7}});
    if (!(*catalogue)->put_blobs(places)) ::_exit(3);
    if (::write(to_parent[1], "x", 1) != 1 || ::read(to_child[0], &go, 1) != 1) ::_exit(4);
    ::_exit((*catalogue)->mark("main", kMark.name) == kMark ? 0 : 5);
  }
  auto catalogue = open_catalogue(path, Access::kWrite, 256 * 1024);
  ASSERT_TRUE(catalogue) << catalogue.error().message();
  char done;
  ASSERT_EQ(::write(to_child[1], "x", 1), 1);
  ASSERT_EQ(::read(to_parent[0], &done, 1), 1);
  EXPECT_EQ((*catalogue)->blob({49'999, 1}), (BlobPlace{1, 49'999, 7}));
  ASSERT_TRUE((*catalogue)->put_mark(kMark));
  ASSERT_EQ(::write(to_child[1], "x", 1), 1);
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
}

TEST(Catalogue, AFileThatIsNoneIsCorrupt) {
  TempDirectory directory;
  std::ofstream(directory / "c.lmdb") << std::string(20'000, 'x');
  auto opened = open_catalogue(directory / "c.lmdb");
  ASSERT_FALSE(opened);
  EXPECT_EQ(opened.error().code(), Code::kCorrupt);
  EXPECT_NE(opened.error().message().find("c.lmdb"), std::string::npos);
}

template <class Record>
void expect_only_whole_records_decode(const Record& record) {
  Bytes bytes = encode(record);
  EXPECT_EQ(decode<Record>(bytes), record);
  for (size_t n = 0; n < bytes.size(); n++)
    EXPECT_EQ(decode<Record>(ByteView(bytes).first(n)), std::nullopt) << n;
  bytes.push_back(std::byte{0});
  EXPECT_EQ(decode<Record>(bytes), std::nullopt);
  bytes.pop_back();
  bytes[0] = std::byte{2};  // another version
  EXPECT_EQ(decode<Record>(bytes), std::nullopt);
}

TEST(Records, OnlyWholeOnesOfThisVersionDecode) {
  expect_only_whole_records_decode(some_snapshot());
  expect_only_whole_records_decode(kMark);
  expect_only_whole_records_decode(BranchRecord{"main", 4});
  expect_only_whole_records_decode(BlobPlace{1, 2, 3});
}

TEST(Records, ALengthBeyondTheLimitIsRefused) {
  Bytes bytes = encode(BranchRecord{"main", 4});
  bytes.erase(bytes.end() - sizeof(uint64_t), bytes.end());
  ASSERT_TRUE(decode<BranchRecord>(sealed(bytes)));
  store_value(bytes.data() + 1, uint32_t{0xffffffff});
  EXPECT_EQ(decode<BranchRecord>(sealed(bytes)), std::nullopt);
}

// The disk takes some of what is written and no more, here because files may not be longer.
TEST(Catalogue, AWriteThatIsCutShortIsAFullDisk) {
  TempDirectory directory;
  pid_t child = ::fork();
  if (child == 0) {
    auto catalogue = open_catalogue(directory / "catalogue.lmdb").value();
    ::signal(SIGXFSZ, SIG_IGN);
    const rlimit before = {RLIM_INFINITY, RLIM_INFINITY};
    const rlimit cut = {std::filesystem::file_size(directory / "catalogue.lmdb") + 10'000, RLIM_INFINITY};
    ::setrlimit(RLIMIT_FSIZE, &cut);
    SnapshotRecord record = some_snapshot();
    record.vector = Bytes(100'000);
    auto full = catalogue->add_snapshot(record);
    if (full) ::_exit(1);
    if (full.error().code() != Code::kNoSpace || full.error().sys_errno() != ENOSPC) ::_exit(2);
    ::setrlimit(RLIMIT_FSIZE, &before);
    auto added = catalogue->add_snapshot(record);
    ::_exit(added && catalogue->snapshots()->size() == 1 ? 0 : 3);
  }
  int status = -1;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0) << "exit status " << WEXITSTATUS(status);
}

}  // namespace
}  // namespace reprise::store

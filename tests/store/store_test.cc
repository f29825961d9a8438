#include "store/store.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <fstream>
#include <functional>
#include <map>

#include "temp_directory.h"

namespace reprise::store {
namespace {

using testing::HasSubstr;

const VolumeId kVolume{0x1234, 0x5678};

template <class T>
void expect_error(const Result<T>& result, Code code, const std::string& words) {
  ASSERT_FALSE(result) << "expected an error with: " << words;
  EXPECT_EQ(result.error().code(), code) << result.error().message();
  EXPECT_THAT(result.error().message(), HasSubstr(words));
}

TEST(Store, IsThereAgainAfterReopening) {
  TempDirectory directory;
  std::string path = directory / "deep/site.store";
  EXPECT_FALSE(Store::looks_like_store(path));
  BlobId id;
  {
    auto store = Store::create(path, kVolume);
    ASSERT_TRUE(store) << store.error().message();
    EXPECT_EQ((*store)->volume(), kVolume);
    EXPECT_EQ((*store)->path(), path);
    id = (*store)->blobs().put(as_bytes("hello")).value();
    ASSERT_TRUE((*store)->blobs().sync());
    ASSERT_TRUE((*store)->catalogue().put_branch({"main", 3}));
    ASSERT_TRUE((*store)->journal_directory("main"));
  }
  EXPECT_TRUE(Store::looks_like_store(path));
  EXPECT_TRUE(std::filesystem::is_directory(path + "/branches/main/journal"));
  auto store = Store::open(path);
  ASSERT_TRUE(store) << store.error().message();
  EXPECT_EQ((*store)->volume(), kVolume);
  EXPECT_EQ(as_text(*(*store)->blobs().get(id)), "hello");
  EXPECT_EQ((*store)->catalogue().branch("main"), (BranchRecord{"main", 3}));
  EXPECT_EQ((*store)->control_socket_path("main"), path + "/branches/main/control");
}

TEST(Store, SaysWhatItFoundInsteadOfAStore) {
  TempDirectory directory;
  std::filesystem::create_directory(directory / "empty");
  std::filesystem::create_directory(directory / "other");
  std::ofstream(directory / "other/file") << "x";
  std::ofstream(directory / "file") << "x";
  struct {
    const char* name;
    Code code;
    const char* found;
  } cases[] = {
      {"missing", Code::kNotFound, "expected a store, found nothing"},
      {"file", Code::kNotFound, "expected a store (a directory), found a file"},
      {"empty", Code::kNotFound, "expected a store, found an empty directory"},
      {"other", Code::kNotFound, "expected a store, found a directory without a file reprise.store"}};
  for (const auto& c : cases) {
    expect_error(Store::open(directory / c.name), c.code, (directory / c.name) + ": " + c.found);
    EXPECT_FALSE(Store::looks_like_store(directory / c.name));
  }
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(directory / "empty"), {}), 0)
      << "nothing was made there";
}

TEST(Store, IsCreatedOnlyWhereNothingIs) {
  TempDirectory directory;
  std::filesystem::create_directory(directory / "other");
  std::ofstream(directory / "other/file") << "x";
  std::ofstream(directory / "file") << "x";
  expect_error(Store::create(directory / "other", kVolume), Code::kAlreadyExists, "found other files");
  expect_error(Store::create(directory / "file", kVolume), Code::kAlreadyExists, "found a file");
  std::filesystem::create_directory(directory / "empty");
  ASSERT_TRUE(Store::create(directory / "empty", kVolume));
  expect_error(Store::create(directory / "empty", kVolume), Code::kAlreadyExists, "found a store");
}

TEST(Store, AnInterruptedCreationCanBeRepeated) {
  TempDirectory directory;
  std::filesystem::create_directory(directory / "s");
  std::ofstream(directory / "s/reprise.store.new") << "half";
  EXPECT_TRUE(Store::create(directory / "s", kVolume));
}

// Processes, not threads: the lock is between descriptors, but that is how it is used.
TEST(Store, OfManyThatCreateItAtOnceOneDoes) {
  constexpr int kProcesses = 8, kRounds = 50;
  TempDirectory directory;
  for (int round = 0; round < kRounds; round++) {
    std::string path = directory / fmt::format("s{}", round);
    std::vector<pid_t> children;
    int gate[2];
    ASSERT_EQ(pipe(gate), 0);
    for (int i = 0; i < kProcesses; i++) {
      pid_t child = fork();
      if (child == 0) {
        char byte;
        close(gate[1]);
        (void)!read(gate[0], &byte, 1);
        auto store = Store::create(path, VolumeId{1, static_cast<uint64_t>(i + 1)});
        _exit(store ? 100 + i : store.error().code() == Code::kAlreadyExists ? 1 : 2);
      }
      children.push_back(child);
    }
    close(gate[0]);
    close(gate[1]);
    std::vector<int> winners;
    for (pid_t child : children) {
      int status = 0;
      ASSERT_EQ(waitpid(child, &status, 0), child);
      ASSERT_TRUE(WIFEXITED(status));
      ASSERT_NE(WEXITSTATUS(status), 2);
      if (WEXITSTATUS(status) >= 100) winners.push_back(WEXITSTATUS(status) - 100);
    }
    ASSERT_EQ(winners.size(), 1u);
    auto store = Store::open(path);
    ASSERT_TRUE(store) << store.error().message();
    EXPECT_EQ((*store)->volume(), (VolumeId{1, static_cast<uint64_t>(winners[0] + 1)}));
  }
}

TEST(Store, IsRemovedOnlyWhileNobodyUsesIt) {
  TempDirectory directory;
  std::string path = directory / "s";
  {
    auto store = Store::create(path, kVolume);
    ASSERT_TRUE(store) << store.error().message();
    expect_error(Store::remove_unused(path), Code::kBusy, path);
    ASSERT_TRUE((*store)->journal_directory("main"));
  }
  EXPECT_TRUE(Store::open(path));
  std::filesystem::create_directory(path + "/mnt");
  ASSERT_TRUE(Store::remove_unused(path));
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(path), {}), 1) << "mnt stays";
  EXPECT_TRUE(Store::create(path, kVolume));
}

// Every byte of the identity flipped and every length cut.
TEST(Store, ADamagedIdentityIsRefused) {
  TempDirectory directory;
  std::string path = directory / "s", file = path + "/reprise.store";
  ASSERT_TRUE(Store::create(path, kVolume));
  std::string identity;
  {
    std::ifstream in(file, std::ios::binary);
    identity.assign(std::istreambuf_iterator<char>(in), {});
  }
  ASSERT_EQ(identity.size(), 48u);
  auto open_with = [&](const std::string& bytes) {
    std::ofstream(file, std::ios::binary | std::ios::trunc) << bytes;
    return Store::open(path);
  };
  for (size_t i = 0; i < identity.size(); i++) {
    std::string flipped = identity;
    flipped[i] = static_cast<char>(flipped[i] ^ 0x40);
    expect_error(open_with(flipped), Code::kCorrupt, file + ": expected");
    expect_error(open_with(identity.substr(0, i)), Code::kCorrupt, file + ": expected");
  }
  expect_error(open_with(identity + "x"), Code::kCorrupt, "expected 48 bytes, found 49");
  expect_error(open_with(std::string(5000, 'x')), Code::kCorrupt, "found 5000");
  EXPECT_TRUE(open_with(identity));
}

TEST(Store, AnotherVersionIsNamed) {
  TempDirectory directory;
  std::string path = directory / "s";
  ASSERT_TRUE(Store::create(path, kVolume));
  {
    std::fstream file(path + "/reprise.store", std::ios::in | std::ios::out | std::ios::binary);
    file.seekp(16);
    file.put(7);
    file.seekp(40);
    file << "checksum";  // its own
  }
  expect_error(Store::open(path), Code::kUnsupported, "expected store version 0, found 7");
}

class AnyStore : public testing::TestWithParam<bool> {
 protected:
  AnyStore() : store_(GetParam() ? Store::in_memory(kVolume) : *Store::create(directory_ / "s", kVolume)) {}
  TempDirectory directory_;
  std::unique_ptr<Store> store_;
};
INSTANTIATE_TEST_SUITE_P(Both, AnyStore, testing::Bool(),
                         [](const auto& tested) { return tested.param ? "InMemory" : "OnDisk"; });

TEST_P(AnyStore, ABranchIsLockedOnceAndNamesItsHolder) {
  EXPECT_EQ(store_->lock_holder("main")->has_value(), false);
  auto lock = store_->lock_branch("main", {4711, "reprise run --store s -- php"});
  ASSERT_TRUE(lock) << lock.error().message();
  auto holder = store_->lock_holder("main");
  ASSERT_TRUE(holder && *holder);
  EXPECT_EQ((*holder)->pid, 4711);
  EXPECT_EQ((*holder)->command, "reprise run --store s -- php");
  expect_error(store_->lock_branch("main", {1, "another"}), Code::kBusy,
               "process 4711 (reprise run --store s -- php)");
  EXPECT_TRUE(store_->lock_branch("try1", {1, "another"})) << "branches do not lock each other";
  lock->reset();
  EXPECT_EQ(store_->lock_holder("main")->has_value(), false);
  EXPECT_TRUE(store_->lock_branch("main", {1, "another"}));
}

TEST_P(AnyStore, BadBranchNamesAreRefused) {
  for (std::string name : {"", "head", "..", "a/b", "1st", ".hidden", "a b"}) {
    EXPECT_EQ(store_->lock_branch(name, {}).error().code(), Code::kInvalidArgument) << name;
    EXPECT_EQ(store_->branch_directory(name).error().code(), Code::kInvalidArgument) << name;
  }
}

TEST(Store, TheLockOfAKilledProcessIsFree) {
  TempDirectory directory;
  std::string path = directory / "s";
  ASSERT_TRUE(Store::create(path, kVolume));
  int ready[2];
  ASSERT_EQ(::pipe(ready), 0);
  pid_t child = ::fork();
  if (child == 0) {
    auto store = Store::open(path);
    if (!store) ::_exit(1);
    auto lock = (*store)->lock_branch("main", {::getpid(), "child"});
    if (!lock || ::write(ready[1], "x", 1) != 1) ::_exit(1);
    for (;;) ::pause();
  }
  char byte;
  ASSERT_EQ(::read(ready[0], &byte, 1), 1);
  auto store = Store::open(path);  // while the child has it open
  ASSERT_TRUE(store) << store.error().message();
  expect_error((*store)->lock_branch("main", {::getpid(), "parent"}), Code::kBusy,
               "process " + std::to_string(child) + " (child)");
  ::kill(child, SIGKILL);
  ASSERT_EQ(::waitpid(child, nullptr, 0), child);
  EXPECT_EQ((*store)->lock_holder("main")->has_value(), false) << "what the file still says is nobody's";
  EXPECT_TRUE((*store)->lock_branch("main", {::getpid(), "parent"}));
}

// --- opened to read

// Every file's path, bytes, and whether it can be told from before.
std::map<std::string, std::string> contents(const std::string& path) {
  std::map<std::string, std::string> all;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(path)) {
    std::string bytes;
    if (entry.is_regular_file()) {
      std::ifstream in(entry.path(), std::ios::binary);
      bytes.assign(std::istreambuf_iterator<char>(in), {});
    }
    all[entry.path()] = bytes;
  }
  return all;
}

BlobId make_store_with_something(const std::string& path) {
  auto store = Store::create(path, kVolume);
  EXPECT_TRUE(store);
  BlobId id = (*store)->blobs().put(as_bytes("hello")).value();
  EXPECT_TRUE((*store)->blobs().sync());
  EXPECT_TRUE((*store)->catalogue().put_branch({"main", 3}));
  EXPECT_TRUE((*store)->journal_directory("main"));
  return id;
}

TEST(Store, OpenedToReadNothingIsWrittenWhateverIsAskedOfIt) {
  TempDirectory directory;
  std::string path = directory / "s";
  BlobId id = make_store_with_something(path);
  std::filesystem::remove(path + "/catalogue.lmdb-lock");
  auto before = contents(path);
  {
    auto store = Store::open(path, Access::kRead);
    ASSERT_TRUE(store) << store.error().message();
    EXPECT_EQ(as_text(*(*store)->blobs().get(id)), "hello");
    EXPECT_EQ((*store)->catalogue().branch("main"), (BranchRecord{"main", 3}));
    EXPECT_TRUE((*store)->journal_directory("main"));
    EXPECT_EQ((*store)->journal_directory("other").error().code(), Code::kNotFound);
    EXPECT_EQ((*store)->catalogue().put_branch({"main", 4}).error().code(), Code::kReadOnly);
    EXPECT_EQ((*store)->catalogue().add_snapshot({.branch = "main", .root = {1, 1}}).error().code(),
              Code::kReadOnly);
  }
  std::filesystem::remove(path + "/catalogue.lmdb-lock");  // LMDB's table of readers, which it makes anew
  EXPECT_EQ(contents(path), before);
}

TEST(Store, WhatACrashLeftOfAStoreThatWasBeingMadeCanBeRead) {
  TempDirectory directory;
  std::string path = directory / "s";
  make_store_with_something(path);
  for (const char* gone : {"branches", "packs", "snapshots", "catalogue.lmdb", "catalogue.lmdb-lock"}) {
    std::filesystem::remove_all(path + "/" + gone);
    auto store = Store::open(path, Access::kRead);
    ASSERT_TRUE(store) << gone << ": " << store.error().message();
    EXPECT_TRUE((*store)->catalogue().snapshots());
    auto journal = (*store)->journal_directory("main");
    ASSERT_FALSE(journal);
    EXPECT_THAT(journal.error().message(), testing::HasSubstr("branch main"));
  }
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(path), {}), 1);
  std::ofstream(path + "/catalogue.lmdb").flush();  // made, and nothing written to it
  for (Access access : {Access::kRead, Access::kWrite, Access::kRead}) {
    auto store = Store::open(path, access);
    ASSERT_TRUE(store) << store.error().message();
    EXPECT_EQ((*store)->catalogue().snapshots()->size(), 0u);
  }
}

// Runs as somebody who may read the store and change nothing in it; true if all it expected was so.
bool as_another_user(const std::string& path, const std::function<bool()>& run) {
  for (const auto& entry : std::filesystem::recursive_directory_iterator(path)) {
    std::filesystem::permissions(entry.path(), std::filesystem::perms(entry.is_directory() ? 0555 : 0444));
  }
  std::filesystem::permissions(path, std::filesystem::perms(0555));
  std::filesystem::permissions(std::filesystem::path(path).parent_path(), std::filesystem::perms(0755));
  pid_t child = ::fork();
  if (child == 0) {
    bool able = ::geteuid() != 0 || (::setgid(65534) == 0 && ::setuid(65534) == 0);
    ::_exit(able && run() ? 0 : 1);
  }
  int status = -1;
  EXPECT_EQ(::waitpid(child, &status, 0), child);
  for (const auto& entry : std::filesystem::recursive_directory_iterator(path)) {
    if (entry.is_directory()) std::filesystem::permissions(entry.path(), std::filesystem::perms(0755));
  }
  std::filesystem::permissions(path, std::filesystem::perms(0755));
  return status == 0;
}

TEST(Store, CanBeReadByWhoMayNotWriteIt) {
  TempDirectory directory;
  std::string path = directory / "s";
  BlobId id = make_store_with_something(path);
  EXPECT_TRUE(as_another_user(path, [&] {
    bool refused = !Store::open(path, Access::kWrite);
    auto store = Store::open(path, Access::kRead);
    return refused && store && as_text(*(*store)->blobs().get(id)) == "hello" &&
           (*store)->catalogue().branch("main") == BranchRecord{"main", 3} &&
           (*store)->catalogue().put_branch({"main", 4}).error().code() == Code::kReadOnly &&
           !(*store)->lock_holder("main")->has_value();
  }));
}

// Branches b0 … b39 are written one after the other with one number, then with the next: what is seen at any
// moment is some of a number in front, and then the number before it.
constexpr int kBranches = 40;

Status write_branches(Catalogue& catalogue, LogIndex number) {
  for (int i = 0; i < kBranches; ++i) TRY(catalogue.put_branch({"b" + std::to_string(i), number}));
  return {};
}
bool is_a_moment(const std::vector<BranchRecord>& branches) {
  std::map<int, LogIndex> numbers;
  for (const BranchRecord& branch : branches) numbers[std::stoi(branch.name.substr(1))] = branch.durable_hint;
  if (numbers.size() != kBranches) return false;
  bool falls_once = numbers[0] - numbers[kBranches - 1] <= 1;
  for (int i = 1; i < kBranches; ++i) falls_once &= numbers[i - 1] >= numbers[i];
  return falls_once;
}

TEST(Store, WhoReadsWithoutALockNeverSeesAMixOfWhatIsWritten) {
  TempDirectory directory;
  std::filesystem::permissions(directory / ".", std::filesystem::perms(0755));
  std::string path = directory / "catalogue.lmdb";
  ASSERT_TRUE(write_branches(**open_catalogue(path), 1));
  std::filesystem::permissions(path + "-lock", std::filesystem::perms(0444));
  int stop[2], reading[2];
  ASSERT_EQ(::pipe(stop), 0);
  ASSERT_EQ(::pipe(reading), 0);
  pid_t child = ::fork();
  if (child == 0) {
    bool able = ::geteuid() != 0 || (::setgid(65534) == 0 && ::setuid(65534) == 0);
    if (!able) ::_exit(2);
    auto reader = open_catalogue(path, Access::kRead);
    if (!reader || ::write(reading[1], "x", 1) != 1) ::_exit(3);
    ::fcntl(stop[0], F_SETFL, O_NONBLOCK);
    for (char byte; ::read(stop[0], &byte, 1) < 0;) {
      auto branches = (*reader)->branches();
      if (!branches && branches.error().code() == Code::kBusy) continue;
      if (!branches || !is_a_moment(*branches)) ::_exit(4);
    }
    ::_exit(0);
  }
  char byte;
  ASSERT_EQ(::read(reading[0], &byte, 1), 1);
  std::filesystem::permissions(path + "-lock", std::filesystem::perms(0644));
  {
    auto writer = open_catalogue(path);
    ASSERT_TRUE(writer);
    for (LogIndex number = 2; number <= 12; ++number) ASSERT_TRUE(write_branches(**writer, number));
  }
  ASSERT_EQ(::write(stop[1], "x", 1), 1);
  int status = -1;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_EQ(WEXITSTATUS(status), 0);
  EXPECT_TRUE(WIFEXITED(status));
}

TEST(Store, NamesOfBranchesAndMarks) {
  for (const std::string& good :
       std::vector<std::string>{"main", "_x", "a.b-c_9", "Head", std::string(64, 'x')}) {
    EXPECT_TRUE(Store::check_name("branch", good)) << good;
  }
  const std::vector<std::string> all_bad = {"",    "head", "9a",  "-a", ".a",
                                            "a/b", "a b",  "a\n", "é",  std::string(65, 'x')};
  for (const std::string& bad : all_bad) {
    EXPECT_FALSE(Store::check_name("branch", bad)) << bad;
  }
  expect_error(Store::check_name("mark", "a\nb"), Code::kInvalidArgument, "a\\x0ab");
}

}  // namespace
}  // namespace reprise::store

// Fork, join, discard: what is in which branch afterwards, what is refused, and what a crash leaves.
#include <fcntl.h>
#include <fmt/format.h>

#include <algorithm>
#include <fstream>
#include <future>
#include <map>
#include <random>
#include <thread>

#include "instance/branches.h"
#include "instance/history.h"
#include "tests/instance/branches_fixture.h"

namespace reprise::instance {
namespace {

class JoinTest : public BranchesTest {
 protected:
  void SetUp() override {
    InstanceTest::SetUp();
    begin();
    fs::Guest guest(main_->filesystem());
    for (const char* directory : {"/d", "/e", "/d/sub"}) ASSERT_TRUE(guest.mkdir(directory));
    for (const char* file : {"/d/a", "/b", "/e/c"}) write(*main_, file, "as it was");
  }
  void fork(const std::string& name) {
    auto made = main_->fork(name);
    ASSERT_TRUE(made) << made.error().message();
  }
  // Runs `change` on the branch and closes it.
  template <class Change>
  Digest128 work_on(const std::string& name, const Change& change) {
    auto branch = open_branch(name);
    if (branch == nullptr) return {};
    fs::Guest guest(branch->filesystem());
    change(guest);
    Digest128 digest = branch->digests()->recomputed;
    EXPECT_TRUE(branch->close());
    return digest;
  }
  Digest128 digest() {
    auto digests = main_->digests();
    EXPECT_TRUE(digests);
    EXPECT_EQ(digests->kept, digests->recomputed);
    EXPECT_EQ(main_->filesystem().view().check_invariants(), "");
    return digests->recomputed;
  }
  // Closed and opened again: what the journal has is what was seen.
  void reopen() {
    if (in_memory()) return;  // which closing takes away
    Digest128 before = digest();
    ASSERT_TRUE(main_->close());
    main_.reset();
    main_ = open(store_);
    EXPECT_EQ(digest(), before);
  }
  std::vector<std::string> branch_names() {
    std::vector<std::string> names;
    auto branches = list_branches(*store_);
    EXPECT_TRUE(branches);
    for (const Branch& branch : *branches) names.push_back(branch.name);
    return names;
  }
};

// Of a store on disk, and of one in memory.
class AnyJoinTest : public JoinTest, public testing::WithParamInterface<bool> {
 protected:
  bool in_memory() const override { return GetParam(); }
};
INSTANTIATE_TEST_SUITE_P(Stores, AnyJoinTest, testing::Bool(),
                         [](const auto& one) { return one.param ? "InMemory" : "OnDisk"; });

void append_to(fs::Guest& guest, const char* path) {
  auto fd = guest.open(path, O_WRONLY | O_APPEND);
  ASSERT_TRUE(fd);
  ASSERT_TRUE(guest.write(*fd, as_bytes(" and more")));
  ASSERT_TRUE(guest.close(*fd));
}

TEST_P(AnyJoinTest, BranchesDoNotSeeEachOther) {
  fork("try");
  write(*main_, "/b", "changed in main");
  work_on("try", [&](fs::Guest& guest) {
    EXPECT_EQ(*guest.read_file("/b"), "as it was");
    EXPECT_TRUE(guest.write_file("/d/a", "changed in try"));
  });
  EXPECT_EQ(read(*main_, "/d/a"), "as it was");
  EXPECT_EQ(branch_names(), (std::vector<std::string>{"main", "try"}));
}

TEST_P(AnyJoinTest, AJoinIsWhatTheBranchHad) {
  fork("try");
  Digest128 there = work_on("try", [&](fs::Guest& guest) {
    EXPECT_TRUE(guest.write_file("/d/a", "changed"));
    EXPECT_TRUE(guest.unlink("/b"));
    EXPECT_TRUE(guest.rename("/e", "/f"));
  });
  LogIndex before = main_->journal().last();
  auto joined = main_->join("try");
  ASSERT_TRUE(joined) << joined.error().message();
  EXPECT_TRUE(joined->conflicts.empty());
  EXPECT_FALSE(joined->moved);
  EXPECT_EQ(digest(), there);
  EXPECT_GT(main_->journal().last(), before);
  EXPECT_EQ(branch_names(), std::vector<std::string>{"main"});
  write(*main_, "/later", "goes on");
  reopen();
  EXPECT_EQ(read(*main_, "/f/c"), "as it was");
  EXPECT_EQ(read(*main_, "/later"), "goes on");
}

TEST_P(AnyJoinTest, WhatBothDidApartIsThereAfterwards) {
  fork("try");
  work_on("try", [&](fs::Guest& guest) {
    EXPECT_TRUE(guest.write_file("/d/new", "of the branch"));
    EXPECT_TRUE(guest.unlink("/b"));
    EXPECT_TRUE(guest.rename("/d/sub", "/d/moved"));
  });
  write(*main_, "/d/own", "of main");
  write(*main_, "/e/c", "changed in main");
  auto joined = main_->join("try");
  ASSERT_TRUE(joined) << joined.error().message();
  EXPECT_TRUE(joined->conflicts.empty());
  EXPECT_TRUE(joined->moved);
  reopen();
  EXPECT_EQ(read(*main_, "/d/new"), "of the branch");
  EXPECT_EQ(read(*main_, "/d/own"), "of main");
  EXPECT_EQ(read(*main_, "/e/c"), "changed in main");
  EXPECT_EQ(read(*main_, "/b"), fs::errno_text(fs::Errno{ENOENT}));
}

TEST_P(AnyJoinTest, WhatBothChangedIsListedAndNothingIsDone) {
  using Change = void (*)(fs::Guest&);
  struct Case {
    Change here, there;
    std::vector<std::string> paths;
  };
  const Case cases[] = {
      {[](fs::Guest& guest) { append_to(guest, "/b"); },
       [](fs::Guest& guest) { append_to(guest, "/b"); },
       {"/b"}},
      {[](fs::Guest& guest) { EXPECT_TRUE(guest.unlink("/b")); },
       [](fs::Guest& guest) { append_to(guest, "/b"); },
       {"/b"}},
      {[](fs::Guest& guest) { EXPECT_TRUE(guest.write_file("/n", "1")); },
       [](fs::Guest& guest) { EXPECT_TRUE(guest.mkdir("/n")); },
       {"/n"}},
      {[](fs::Guest& guest) { EXPECT_TRUE(guest.rmdir("/d/sub")); },
       [](fs::Guest& guest) { EXPECT_TRUE(guest.write_file("/d/sub/x", "1")); },
       {"/d/sub"}},
      {[](fs::Guest& guest) { EXPECT_TRUE(guest.write_file("/d/sub/x", "1")); },
       [](fs::Guest& guest) { EXPECT_TRUE(guest.rmdir("/d/sub")); },
       {"/d/sub"}},
      {[](fs::Guest& guest) { EXPECT_TRUE(guest.chmod("/d", 0700)); },
       [](fs::Guest& guest) { EXPECT_TRUE(guest.chmod("/d", 0711)); },
       {"/d"}},
      {[](fs::Guest& guest) { EXPECT_TRUE(guest.link("/b", "/e/b1")); },
       [](fs::Guest& guest) { EXPECT_TRUE(guest.link("/b", "/d/b2")); },
       {"/b"}},
      // Each is possible alone.
      {[](fs::Guest& guest) { EXPECT_TRUE(guest.rename("/d", "/e/d")); },
       [](fs::Guest& guest) { EXPECT_TRUE(guest.rename("/e", "/d/e")); },
       {"/e", "/e/d"}},
      // What does not show in the end all the same was in the way.
      {[](fs::Guest& guest) { EXPECT_TRUE(guest.write_file("/tmp", "stays")); },
       [](fs::Guest& guest) { EXPECT_TRUE(guest.write_file("/tmp", "goes") && guest.unlink("/tmp")); },
       {"/"}},
  };
  for (const Case& one : cases) {
    SCOPED_TRACE(&one - cases);
    fork("try");
    Digest128 there = work_on("try", one.there);
    {
      fs::Guest guest(main_->filesystem());
      one.here(guest);
    }
    Digest128 here = digest();
    LogIndex last = main_->journal().last();
    auto joined = main_->join("try");
    ASSERT_TRUE(joined) << joined.error().message();
    std::vector<std::string> paths;
    for (const replay::Conflict& conflict : joined->conflicts) {
      if (paths.empty() || paths.back() != conflict.path) paths.push_back(conflict.path);
    }
    for (const std::string& path : one.paths) EXPECT_NE(std::ranges::find(paths, path), paths.end()) << path;
    EXPECT_EQ(digest(), here);
    EXPECT_EQ(main_->journal().last(), last);
    // The branch is as it was, too.
    EXPECT_EQ(work_on("try", [](fs::Guest&) {}), there);
    ASSERT_TRUE(discard_branch(*store_, "try", options().holder));
    TearDown();
    SetUp();
  }
}

// Everything a tree holds, by path.
std::map<std::string, std::string> contents(fs::Guest& guest) {
  std::map<std::string, std::string> all;
  std::vector<std::string> todo{""};
  while (!todo.empty()) {
    std::string at = todo.back();
    todo.pop_back();
    auto fd = guest.open(at.empty() ? "/" : at, O_RDONLY | O_DIRECTORY);
    EXPECT_TRUE(fd);
    for (;;) {
      auto entries = guest.read_directory(*fd, 100);
      EXPECT_TRUE(entries);
      if (entries->empty()) break;
      for (const auto& entry : *entries) {
        std::string name(entry.name);
        if (name == "." || name == "..") continue;
        std::string path = at + "/" + name;
        auto attributes = guest.lstat(path);
        EXPECT_TRUE(attributes);
        if (attributes->is_directory()) {
          all[path] = fmt::format("directory {:o}", attributes->mode);
          todo.push_back(path);
        } else {
          all[path] = fmt::format("{:o} {}", attributes->mode, *guest.read_file(path));
        }
      }
    }
    EXPECT_TRUE(guest.close(*fd));
  }
  return all;
}

void change_at_random(fs::Guest& guest, std::mt19937& random, const std::string& who) {
  auto any = [&] {
    static const char* const kPaths[] = {"/d",   "/e",   "/d/sub", "/d/a", "/b",
                                         "/e/c", "/d/x", "/e/y",   "/z",   "/d/sub/w"};
    return std::string(kPaths[random() % std::size(kPaths)]);
  };
  for (int i = 0; i < 3; i++) {
    switch (random() % 6) {
      case 0:
        static_cast<void>(guest.write_file(any(), who + std::to_string(i)));
        break;
      case 1:
        static_cast<void>(guest.mkdir(any()));
        break;
      case 2:
        static_cast<void>(guest.unlink(any()));
        break;
      case 3:
        static_cast<void>(guest.rmdir(any()));
        break;
      case 4:
        static_cast<void>(guest.rename(any(), any()));
        break;
      case 5:
        static_cast<void>(guest.chmod(any(), 0700 + random() % 8));
        break;
    }
  }
}

// A join that finds nothing in its way has what each of the two changed, and nothing else.
TEST_P(AnyJoinTest, AJoinIsTheSumOfBothOrNothing) {
  std::mt19937 random(5);
  int clean = 0, refused = 0;
  for (int round = 0; round < 60; round++) {
    SCOPED_TRACE(round);
    fs::Guest guest(main_->filesystem());
    auto base = contents(guest);
    fork("try");
    std::map<std::string, std::string> theirs;
    work_on("try", [&](fs::Guest& there) {
      change_at_random(there, random, "there");
      theirs = contents(there);
    });
    change_at_random(guest, random, "here");
    auto ours = contents(guest);
    Digest128 before = digest();
    auto joined = main_->join("try");
    ASSERT_TRUE(joined) << joined.error().message();
    digest();
    auto result = contents(guest);
    if (!joined->conflicts.empty()) {
      refused++;
      EXPECT_EQ(digest(), before);
      EXPECT_EQ(result, ours);
      ASSERT_TRUE(discard_branch(*store_, "try", options().holder));
      continue;
    }
    clean++;
    bool directories_moved = false;
    auto value = [](const auto& map, const std::string& path) {
      auto found = map.find(path);
      return found == map.end() ? std::string("nothing") : found->second;
    };
    for (const auto& [path, what] : base)
      directories_moved |= what.starts_with("directory") &&
                           (value(ours, path) == "nothing" || value(theirs, path) == "nothing");
    // Below a directory that one of the two moved, paths say nothing.
    if (directories_moved) continue;
    std::map<std::string, std::string> expected = ours;
    for (const auto& map : {base, theirs}) {
      for (const auto& [path, unused] : map) {
        if (value(theirs, path) == value(base, path)) continue;
        if (value(theirs, path) == "nothing") {
          expected.erase(path);
        } else {
          expected[path] = value(theirs, path);
        }
      }
    }
    EXPECT_EQ(result, expected);
  }
  EXPECT_GT(clean, 8);
  EXPECT_GT(refused, 8);
  reopen();
}

TEST_F(JoinTest, AJoinThatACrashInterruptedIsFinishedByTheNextOpening) {
  for (bool some : {false, true}) {
    SCOPED_TRACE(some);
    fork("try");
    Digest128 there;
    std::vector<journal::Batch> done;
    {
      auto branch = open_branch("try");
      LogIndex first = branch->journal().last() + 1;
      for (int i = 0; i < 20; i++) {
        write(*branch, fmt::format("/d/{}", i), "x");
        ASSERT_TRUE(branch->sync());
      }
      ASSERT_TRUE(branch->mark("half", ""));
      there = branch->digests()->recomputed;
      done = batches(*branch, first);
      ASSERT_TRUE(branch->close());
    }
    Digest128 before = digest();
    ASSERT_TRUE(begin_joining(*store_, "try", main_->journal().last()));
    ASSERT_TRUE(main_->close());
    main_.reset();
    if (some) {
      // As only a join itself may go on; and no checkpoint, as after a kill.
      std::filesystem::rename(path("s/branches/try/joining"), path("joining"));
      auto half = open(store_, true);
      ASSERT_TRUE(half->apply(std::span(done).first(done.size() / 2)));
      ASSERT_TRUE(half->sync());
      half.reset();
      std::filesystem::rename(path("joining"), path("s/branches/try/joining"));
      // Nobody sees a part of it, works on it, or takes it away.
      auto state = state_at(*store_, "main", std::nullopt);
      ASSERT_TRUE(state) << state.error().message();
      EXPECT_EQ(state->head.recompute_digest(), before);
      EXPECT_EQ(Instance::open(store_, options(true)).error().code(), Code::kInvalidArgument);
      InstanceOptions branch = options();
      branch.branch = "try";
      EXPECT_EQ(Instance::open(store_, branch).error().code(), Code::kInvalidArgument);
      EXPECT_EQ(discard_branch(*store_, "try", options().holder).error().code(), Code::kInvalidArgument);
    }
    main_ = open(store_);
    EXPECT_EQ(digest(), there);
    EXPECT_EQ(branch_names(), std::vector<std::string>{"main"});
    auto mark = store_->catalogue().mark("main", "half");
    ASSERT_TRUE(mark && *mark);
    EXPECT_LT((*mark)->log_index, main_->journal().last());
    TearDown();
    SetUp();
  }
}

// But claims of ids, of which who goes on makes one of its own.
uint64_t operations_in(const std::vector<journal::Batch>& batches) {
  uint64_t count = 0;
  for (const journal::Batch& batch : batches) {
    batch.for_each([&](const fs::Operation& operation) {
      if (!std::holds_alternative<fs::ClaimPrefix>(operation)) ++count;
    });
  }
  return count;
}

// After any number of the batches that a join records, the next opening records the rest, nothing twice.
TEST_F(JoinTest, AJoinOfWhichTheJournalHasAnyPartIsFinished) {
  fork("try");
  {
    auto branch = open_branch("try");
    for (int i = 0; i < 12; i++) {
      fs::Guest guest(branch->filesystem(), {.label = i % 5 < 3 ? "one" : "another"});
      ASSERT_TRUE(guest.write_file(fmt::format("/d/{}", i % 7), std::string(i % 4 * 5000, 'x')));
      ASSERT_TRUE(i % 3 != 0 || branch->sync());
      ASSERT_TRUE(i != 6 || branch->mark("half", ""));
    }
    ASSERT_TRUE(branch->close());
  }
  write(*main_, "/meanwhile", "in main");
  ASSERT_TRUE(main_->close());
  main_.reset();
  const LogIndex last = open(store_)->journal().last();  // not closed: nothing was written
  store_.reset();
  std::filesystem::copy(path("s"), path("before"), std::filesystem::copy_options::recursive);

  store_ = open_store("s");
  main_ = open(store_);
  ASSERT_TRUE(main_->join("try"));
  const Digest128 joined = digest();
  const std::vector<journal::Batch> done = batches(*main_, last + 1);
  const auto mark = **store_->catalogue().mark("main", "half");
  ASSERT_GT(done.size(), 6u);
  for (size_t there = 0; there <= done.size(); there++) {
    SCOPED_TRACE(there);
    main_.reset();
    store_.reset();
    std::filesystem::remove_all(path("s"));
    std::filesystem::copy(path("before"), path("s"), std::filesystem::copy_options::recursive);
    store_ = open_store("s");
    ASSERT_TRUE(begin_joining(*store_, "try", last));
    {
      auto journal = journal::Journal::open(*store_->journal_directory("main"), {store_->volume(), "main"},
                                            {}, system_random(), last, nullptr);
      ASSERT_TRUE(journal) << journal.error().message();
      for (size_t i = 0; i < there; i++) ASSERT_TRUE((*journal)->append(done[i]));
      ASSERT_TRUE((*journal)->sync(last + there));
    }
    main_ = open(store_);
    ASSERT_NE(main_, nullptr);
    EXPECT_EQ(digest(), joined);
    EXPECT_EQ(branch_names(), std::vector<std::string>{"main"});
    EXPECT_EQ(operations_in(batches(*main_, last + 1)), operations_in(done));
    auto found = store_->catalogue().mark("main", "half");
    ASSERT_TRUE(found && *found);
    auto position = journal::Position::parse_token((*found)->token);
    ASSERT_TRUE(position);
    EXPECT_TRUE(main_->vector().covers(position->vector));
    EXPECT_EQ(position->digest, journal::Position::parse_token(mark.token)->digest);
  }
}

TEST_F(JoinTest, NoNumberOfJoinsMakesVectorsLonger) {
  for (int i = 0; i < 3; i++) {
    fork("try");
    work_on("try", [&](fs::Guest& guest) { EXPECT_TRUE(guest.write_file("/d/a", std::to_string(i))); });
    ASSERT_TRUE(main_->join("try"));
    EXPECT_EQ(main_->vector().entries().size(), 1u);
  }
  reopen();
}

// Whoever keeps the store within its limits can do so at any time that a join may wait.
class WhileAJoinWaits : public JoinTest {
 protected:
  static constexpr std::chrono::seconds kLong{20};
  void SetUp() override {
    JoinTest::SetUp();
    fork("w");
    work_on("w", [](fs::Guest& guest) { ASSERT_TRUE(guest.write_file("/new", std::string(10'000, 'x'))); });
  }
  bool can_be_tended() {
    tended_ = std::async(std::launch::async, [&] { return main_->tend({}).has_value(); });
    return tended_.wait_for(kLong) == std::future_status::ready && tended_.get();
  }
  std::future<bool> tended_;
};

TEST_F(WhileAJoinWaits, ForRoomTheKeeperCanMakeIt) {
  journal::Allowance& allowance = main_->allowance();
  allowance.begin();
  auto joined = std::async(std::launch::async, [&] { return main_->join("w").has_value(); });
  while (allowance.waiting() == 0) std::this_thread::yield();
  EXPECT_TRUE(can_be_tended());
  EXPECT_TRUE(joined.get());
  EXPECT_GE(allowance.taken(), 10'000u);
}

TEST_F(WhileAJoinWaits, ForTheCallsOfAMountTheKeeperCanMakeRoomForThose) {
  struct Hook : CoherenceHook {
    Status apply_remotely(std::span<const fs::Operation>, const std::function<Status()>& apply) override {
      return apply();
    }
    Status replace_all(const std::function<Result<fs::View>()>& install, const fs::View*) override {
      TRY(install());
      could_be_tended = can_be_tended();
      return {};
    }
    std::function<bool()> can_be_tended;
    bool could_be_tended = false;
  } hook;
  hook.can_be_tended = [&] { return can_be_tended(); };
  main_->set_coherence_hook(&hook);
  EXPECT_TRUE(main_->join("w"));
  EXPECT_TRUE(hook.could_be_tended);
  EXPECT_TRUE(main_->filesystem().view().lookup(kRootInode, "new"));
  main_->set_coherence_hook(nullptr);
}

TEST_F(JoinTest, ABranchThatWasKilledIsJoinedOnlyOnceItHasBeenTakenAsItIs) {
  fork("try");
  {
    auto killed = open_branch("try");
    write(*killed, "/half", "done");
    ASSERT_TRUE(killed->sync());
    // What the disk has at this moment is what a kill leaves.
    std::filesystem::copy(path("s/branches/try/journal"), path("journal"));
  }
  std::filesystem::remove_all(path("s/branches/try/journal"));
  std::filesystem::rename(path("journal"), path("s/branches/try/journal"));
  auto joined = main_->join("try");
  ASSERT_FALSE(joined);
  EXPECT_EQ(joined.error().code(), Code::kInvalidArgument) << joined.error().message();
  EXPECT_EQ(read(*main_, "/half"), fs::errno_text(fs::Errno{ENOENT}));
  work_on("try", [](fs::Guest&) {});
  ASSERT_TRUE(main_->join("try"));
  EXPECT_EQ(read(*main_, "/half"), "done");
}

// In memory nothing of it is lost, as nothing is written that could be cut.
TEST(JoinInMemory, ABranchThatWasNotClosedIsJoinedOnlyOnceItHasBeenTakenAsItIs) {
  std::shared_ptr<store::Store> store = store::Store::in_memory(system_random().next_id<VolumeId>());
  auto main = Instance::open(store, {});
  ASSERT_TRUE(main);
  ASSERT_TRUE((*main)->fork("try"));
  for (const char* name : {"/half", "/more"}) {
    auto killed = Instance::open(store, {.branch = "try"});
    ASSERT_TRUE(killed) << killed.error().message();
    ASSERT_TRUE(fs::Guest((*killed)->filesystem()).write_file(name, "done"));
    ASSERT_TRUE((*killed)->sync());
    killed->reset();
    auto joined = (*main)->join("try");
    ASSERT_FALSE(joined);
    EXPECT_EQ(joined.error().code(), Code::kInvalidArgument);
    EXPECT_NE(joined.error().message().find("closed"), std::string::npos) << joined.error().message();
  }
  auto taken = Instance::open(store, {.branch = "try"});
  ASSERT_TRUE(taken);
  Digest128 there = (*taken)->digests()->recomputed;
  ASSERT_TRUE((*taken)->close());
  taken->reset();
  auto joined = (*main)->join("try");
  ASSERT_TRUE(joined) << joined.error().message();
  EXPECT_EQ((*main)->digests()->recomputed, there);
  fs::Guest guest((*main)->filesystem());
  EXPECT_TRUE(guest.stat("/half") && guest.stat("/more"));
}

TEST_F(JoinTest, AFollowerInMemoryIsForkedOnceItHasMetItsLeader) {
  auto follower = Instance::open_new_follower("", options(true));
  ASSERT_TRUE(follower);
  EXPECT_EQ((*follower)->fork("try").error().code(), Code::kUnreachable);
  ASSERT_TRUE((*follower)->adopt_volume(store_->volume()));
  ASSERT_TRUE((*follower)->apply(batches(*main_)));
  ASSERT_TRUE((*follower)->fork("try"));
  auto child = Instance::open((*follower)->shared_store(), {.branch = "try"});
  ASSERT_TRUE(child) << child.error().message();
  EXPECT_EQ(read(**child, "/d/a"), "as it was");
  write(**child, "/d/a", "tried");
  ASSERT_TRUE((*child)->close());
  child->reset();
  EXPECT_EQ((*follower)->join("try").error().code(), Code::kReadOnly);
  EXPECT_EQ(read(**follower, "/d/a"), "as it was");
  EXPECT_TRUE(discard_branch(*(*follower)->store(), "try", options().holder));
}

TEST_P(AnyJoinTest, MarksComeAlong) {
  fork("try");
  Result<store::MarkRecord> set;
  {
    auto branch = open_branch("try");
    write(*branch, "/before", "1");
    set = branch->mark("point", "");
    ASSERT_TRUE(set);
    write(*branch, "/after", "1");
    ASSERT_TRUE(branch->close());
  }
  write(*main_, "/meanwhile", "1");
  ASSERT_TRUE(main_->join("try"));
  auto mark = store_->catalogue().mark("main", "point");
  ASSERT_TRUE(mark && *mark);
  auto logged = main_->journal().read((*mark)->log_index)->next();
  ASSERT_TRUE(logged && *logged);
  std::string name;
  (*logged)->batch.for_each([&](const fs::Operation& operation) {
    if (const auto* barrier = std::get_if<fs::Barrier>(&operation)) name = barrier->name;
  });
  EXPECT_EQ(name, "point");
  auto position = journal::Position::parse_token((*mark)->token);
  ASSERT_TRUE(position);
  EXPECT_TRUE(main_->vector().covers(position->vector));
}

TEST_P(AnyJoinTest, AMarkThatBothHaveSetIsAConflict) {
  ASSERT_TRUE(main_->mark("old", ""));
  fork("try");
  {
    auto branch = open_branch("try");
    ASSERT_TRUE(branch->mark("old", ""));
    ASSERT_TRUE(branch->mark("rel", ""));
    ASSERT_TRUE(branch->close());
  }
  auto set = main_->mark("rel", "");
  ASSERT_TRUE(set);
  auto joined = main_->join("try");
  ASSERT_TRUE(joined);
  ASSERT_EQ(joined->conflicts.size(), 1u);
  EXPECT_EQ(joined->conflicts[0].path, "rel");
  EXPECT_EQ((*store_->catalogue().mark("main", "rel"))->log_index, set->log_index);
}

TEST_P(AnyJoinTest, ABranchThatOthersWereForkedFromStays) {
  fork("try");
  auto branch = open_branch("try");
  ASSERT_TRUE(branch->fork("grandchild"));
  ASSERT_TRUE(branch->close());
  branch.reset();
  Status discarded = discard_branch(*store_, "try", options().holder);
  auto joined = main_->join("try");
  ASSERT_FALSE(discarded || joined);
  for (const Error& refused : {discarded.error(), joined.error()}) {
    EXPECT_EQ(refused.code(), Code::kInvalidArgument);
    EXPECT_NE(refused.message().find("grandchild"), std::string::npos);
  }
}

TEST_P(AnyJoinTest, AnOpenFileThatTheBranchRemovedStaysReadable) {
  fork("try");
  work_on("try", [](fs::Guest& guest) { EXPECT_TRUE(guest.unlink("/b")); });
  uint64_t before = main_->filesystem().usage().inodes;
  fs::Guest guest(main_->filesystem());
  auto fd = guest.open("/b", O_RDONLY);
  ASSERT_TRUE(fd);
  ASSERT_TRUE(main_->join("try"));
  Bytes text(9);
  EXPECT_EQ(guest.pread(*fd, text, 0), 9u);
  EXPECT_EQ(as_text(text), "as it was");
  EXPECT_EQ(main_->filesystem().usage().inodes, before);
  ASSERT_TRUE(guest.close(*fd));
  EXPECT_EQ(main_->filesystem().usage().inodes, before - 1);
}

TEST_P(AnyJoinTest, ManyCyclesLeaveNothingBehind) {
  const size_t snapshots = store_->catalogue().snapshots()->size();
  const size_t branches = store_->catalogue().branches()->size();
  for (int i = 0; i < 50; i++) {
    fork("try");
    work_on("try", [&](fs::Guest& guest) { EXPECT_TRUE(guest.write_file("/d/a", std::to_string(i))); });
    if (i % 2 == 0) {
      ASSERT_TRUE(main_->join("try"));
    } else {
      ASSERT_TRUE(discard_branch(*store_, "try", options().holder));
    }
  }
  EXPECT_EQ(read(*main_, "/d/a"), "48");
  EXPECT_EQ(*store_->branch_names(), std::vector<std::string>{"main"});
  EXPECT_EQ(store_->catalogue().snapshots()->size(), snapshots);
  EXPECT_EQ(store_->catalogue().branches()->size(), branches);
  reopen();
}

TEST_F(JoinTest, WhatAnInterruptedDiscardLeftIsNoPartOfTheNextBranchOfThatName) {
  fork("try");
  work_on("try", [](fs::Guest& guest) { EXPECT_TRUE(guest.write_file("/of the first", "1")); });
  ASSERT_TRUE(begin_joining(*store_, "try", main_->journal().last()));
  // So far it came: the record and the file `fork` go first.
  ASSERT_TRUE(store_->catalogue().remove_branch("try"));
  std::filesystem::remove(path("s/branches/try/fork"));
  EXPECT_EQ(branch_names(), std::vector<std::string>{"main"});

  write(*main_, "/since", "1");
  fork("try");
  auto branch = find_branch(*store_, "try");
  ASSERT_TRUE(branch);
  EXPECT_FALSE(branch->joining);
  Digest128 there = work_on("try", [](fs::Guest& guest) {
    EXPECT_FALSE(guest.lstat("/of the first"));
    EXPECT_TRUE(guest.write_file("/of the second", "2"));
  });
  ASSERT_TRUE(main_->join("try"));
  EXPECT_EQ(digest(), there);
}

TEST_P(AnyJoinTest, NobodyTakesWhatIsInUseOrNotThere) {
  fork("try");
  EXPECT_EQ(main_->fork("try").error().code(), Code::kAlreadyExists);
  EXPECT_EQ(main_->join("nope").error().code(), Code::kNotFound);
  EXPECT_EQ(main_->join("main").error().code(), Code::kBusy);
  EXPECT_EQ(discard_branch(*store_, "main", options().holder).error().code(), Code::kInvalidArgument);
  auto live = open_branch("try");
  EXPECT_EQ(main_->join("try").error().code(), Code::kBusy);
  EXPECT_EQ(discard_branch(*store_, "try", options().holder).error().code(), Code::kBusy);
  ASSERT_TRUE(live->fork("grandchild"));
  EXPECT_EQ(main_->join("grandchild").error().code(), Code::kInvalidArgument);
  ASSERT_TRUE(live->join("grandchild"));
  InstanceOptions unknown = options();
  unknown.branch = "nope";
  EXPECT_EQ(Instance::open(store_, unknown).error().code(), Code::kNotFound);
}

TEST_F(JoinTest, ADamagedForkFileIsRefusedByName) {
  fork("try");
  std::string file = path("s/branches/try/fork");
  std::ifstream in(file, std::ios::binary);
  std::string good((std::istreambuf_iterator<char>(in)), {});
  auto put = [&](const std::string& bytes) {
    std::ofstream(file, std::ios::binary | std::ios::trunc) << bytes;
  };
  auto is_refused = [&] {
    auto found = find_branch(*store_, "try");
    EXPECT_TRUE(list_branches(*store_));
    bool refused = !found &&
                   (found.error().code() == Code::kCorrupt || found.error().code() == Code::kUnsupported) &&
                   found.error().message().find("branches/try/fork") != std::string::npos;
    return refused;
  };
  for (size_t i = 0; i < good.size(); i++) {
    std::string bad = good;
    bad[i] = static_cast<char>(bad[i] ^ 0x10);
    put(bad);
    EXPECT_TRUE(is_refused()) << i;
    put(good.substr(0, i));
    EXPECT_TRUE(is_refused()) << i;
  }
  put(good);
  EXPECT_TRUE(find_branch(*store_, "try"));
}

}  // namespace
}  // namespace reprise::instance

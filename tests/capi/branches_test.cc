// What becomes of branches, through the C interface: joins that are decided, resets, and what is refused.
#include <cerrno>
#include <chrono>
#include <climits>

#include "tests/capi/host.h"

namespace {

using reprise::Conflict;
using reprise::Guest;
using reprise::Instance;
using reprise::InstanceOptions;
using reprise::Resolved;
using reprise::Winner;
using reprise::host::error_of;

struct Branches : reprise::host::Capi {
  // Both have written /f; each has a file of its own; the branch has a mark.
  void part(Instance& site, const std::string& name) {
    Guest(site).write_file("/f", "before");
    Instance child = site.fork(name);
    {
      Guest guest(child);
      guest.write_file("/f", "theirs");
      guest.write_file("/of_theirs", "x");
    }
    child.mark(name + ".mark");
    child.close();
    Guest guest(site);
    guest.write_file("/f", "ours");
    guest.write_file("/of_ours", "x");
  }
};

int64_t reset(const Instance& instance, const char* position, const char* branch, const char* keep) {
  return reprise_reset(instance.handle(), position, branch, keep, nullptr);
}

std::string text_of(const std::vector<Conflict>& all) {
  std::string text;
  for (const Conflict& one : all) text += one.path + ": " + one.what + "\n";
  return text;
}

TEST_F(Branches, AJoinIsDecidedAndWhatIsLeftOutIsTold) {
  for (Winner winner : {Winner::ours, Winner::theirs}) {
    const bool ours = winner == Winner::ours;
    const std::string store = path(ours ? "ours" : "theirs");
    Instance site(store);
    part(site, "try");
    EXPECT_EQ(site.join("try").size(), 1u) << "not decided: refused";
    EXPECT_EQ(Guest(site).read_file("/f"), "ours");
    Resolved resolved = site.join("try", winner);
    EXPECT_EQ(text_of(resolved.conflicts), "/f: both changed it\n");
    EXPECT_EQ(text_of(resolved.left_out), "/f: changed there\ntry.mark: a mark that was set there\n");
    Guest guest(site);
    EXPECT_EQ(guest.read_file("/f"), ours ? "ours" : "theirs");
    EXPECT_EQ(guest.read_file("/of_ours") + guest.read_file("/of_theirs"), "xx");
    // The branch is still there.
    InstanceOptions of_branch;
    of_branch.branch = "try";
    EXPECT_EQ(Guest(Instance(store, of_branch)).read_file("/f"), "theirs");
    site.discard("try");
  }
}

TEST_F(Branches, WithNothingToDecideItIsAJoinAsAny) {
  Instance site(path("s"));
  {
    Instance child = site.fork("try");
    Guest(child).write_file("/new", "x");
  }
  Guest(site).write_file("/other", "x");
  Resolved resolved = site.join("try", Winner::theirs);
  EXPECT_TRUE(resolved.conflicts.empty());
  EXPECT_TRUE(resolved.left_out.empty());
  EXPECT_EQ(Guest(site).read_file("/new"), "x");
  EXPECT_EQ(error_of([&] { site.discard("try"); }), ENOENT) << "it went with the join";
}

TEST_F(Branches, NobodyNeedBeToldWhatWasDecided) {
  Instance site(path("s"));
  part(site, "try");
  EXPECT_EQ(reprise_join_resolved(site.handle(), "try", REPRISE_THEIRS, nullptr, nullptr, nullptr), 1);
  EXPECT_EQ(Guest(site).read_file("/f"), "theirs");
}

TEST_F(Branches, DecisionsThatAreNoneChangeNothing) {
  Instance site(path("s"));
  part(site, "try");
  auto decide = [&](const char* name, int winner) {
    return reprise_join_resolved(site.handle(), name, winner, nullptr, nullptr, nullptr);
  };
  for (int winner : {0, 3, -1, INT_MAX, INT_MIN}) EXPECT_EQ(decide("try", winner), -EINVAL) << winner;
  EXPECT_STREQ(reprise_last_error(),
               "reprise_join_resolved: winner: expected REPRISE_OURS (1) or REPRISE_THEIRS (2), found "
               "-2147483648");
  EXPECT_EQ(decide(nullptr, REPRISE_OURS), -EINVAL);
  EXPECT_EQ(decide("none", REPRISE_OURS), -ENOENT);
  for (const char* name : {"", "../try", "a/b", "1"}) EXPECT_EQ(decide(name, REPRISE_OURS), -EINVAL) << name;
  EXPECT_EQ(decide("main", REPRISE_OURS), -EBUSY) << "it is open: this is it";
  {
    InstanceOptions of_branch;
    of_branch.branch = "try";
    Instance open(path("s"), of_branch);
    EXPECT_EQ(decide("try", REPRISE_OURS), -EBUSY);
    EXPECT_EQ(reprise_join_resolved(open.handle(), "main", REPRISE_OURS, nullptr, nullptr, nullptr), -EBUSY);
  }
  EXPECT_EQ(Guest(site).read_file("/f"), "ours");
  EXPECT_EQ(reprise_join_resolved(nullptr, "try", 7, nullptr, nullptr, nullptr), -EBADF);
}

TEST_F(Branches, AResetMakesItWhatItWasAndCanBeTakenBack) {
  Instance site(path("s"));
  Guest guest(site);
  guest.write_file("/f", "then");
  site.mark("then");
  guest.write_file("/f", "now");
  guest.write_file("/new", "x");
  reprise::Reset reset = site.reset("then");
  EXPECT_GT(reset.operations, 0);
  EXPECT_EQ(guest.read_file("/f"), "then");
  EXPECT_EQ(error_of([&] { guest.stat("/new"); }), ENOENT);
  EXPECT_EQ(site.reset("then").operations, 0) << "it is so already";
  EXPECT_GT(site.reset(std::to_string(reset.before)).operations, 0);
  EXPECT_EQ(guest.read_file("/f") + guest.read_file("/new"), "nowx");
}

TEST_F(Branches, WhatThereWasIsKeptAndAForkBecomesWhatItsParentIs) {
  Instance site(path("s"));
  Guest guest(site);
  guest.write_file("/f", "then");
  site.mark("then");
  Instance child = site.fork("try");
  guest.write_file("/f", "now");
  EXPECT_EQ(error_of([&] { site.reset("then", {}, "try"); }), EEXIST);
  EXPECT_EQ(guest.read_file("/f"), "now");
  site.reset("then", {}, "kept");
  EXPECT_EQ(guest.read_file("/f"), "then");
  child.reset({}, "kept");
  EXPECT_EQ(Guest(child).read_file("/f"), "now");
  child.reset("then", "main");
  EXPECT_EQ(Guest(child).read_file("/f"), "then");
  // Of a branch that is open, what it has synced.
  guest.write_file("/f", "later");
  site.sync();
  child.reset({}, "main");
  EXPECT_EQ(Guest(child).read_file("/f"), "later");
}

TEST_F(Branches, FollowersGetWhatLeadsToIt) {
  InstanceOptions leading, following;
  leading.listen = following.follow = "unix:" + path("socket");
  Instance site(path("s"), leading);
  Guest(site).write_file("/f", "then");
  site.mark("then");
  Instance follower(following);
  Guest(site).write_file("/f", "now");
  site.reset("then");
  follower.wait_for(site.position(), std::chrono::seconds(10));
  EXPECT_EQ(Guest(follower).read_file("/f"), "then");
  EXPECT_EQ(follower.digest(), site.digest());
  EXPECT_EQ(reset(follower, "then", nullptr, nullptr), -EROFS);
  EXPECT_EQ(reprise_join_resolved(follower.handle(), "b", REPRISE_OURS, nullptr, nullptr, nullptr), -EROFS);
}

TEST_F(Branches, ResetsThatMakeNoSenseChangeNothing) {
  Instance site(path("s"));
  Guest guest(site);
  guest.write_file("/f", "then");
  site.mark("then");
  guest.write_file("/f", "now");
  const std::string before = site.digest();
  for (const char* nothing : {static_cast<const char*>(nullptr), ""}) {
    EXPECT_EQ(reset(site, nothing, nullptr, nullptr), -EINVAL);
    EXPECT_EQ(reset(site, nothing, "main", nullptr), -EINVAL);
  }
  EXPECT_STREQ(reprise_last_error(),
               "reprise_reset: expected a position of branch main, or another branch, found none");
  for (const char* position : {"never", "999999", "{9999d}", "not a position", "@", "-1", "../x"})
    EXPECT_EQ(reset(site, position, nullptr, nullptr), -ENOENT) << position;
  EXPECT_EQ(reset(site, "{10y}", nullptr, nullptr), -EINVAL);
  for (const char* name : {"", "../main", "a/b", "1", "a b"}) {
    EXPECT_EQ(reset(site, "then", name, nullptr), -EINVAL) << name;
    EXPECT_EQ(reset(site, "then", nullptr, name), -EINVAL) << name;
  }
  EXPECT_EQ(reset(site, nullptr, "none", nullptr), -ENOENT);
  EXPECT_EQ(reset(site, "then", "none", nullptr), -ENOENT);
  EXPECT_EQ(reset(site, "then", nullptr, "main"), -EEXIST);
  uint64_t left = 77;  // what is written there, is of one that was made
  EXPECT_EQ(reprise_reset(site.handle(), "never", nullptr, "kept", &left), -ENOENT);
  EXPECT_EQ(left, 77u);
  EXPECT_EQ(error_of([&] { site.discard("kept"); }), ENOENT) << "nothing was kept";
  EXPECT_EQ(site.digest(), before);

  Instance memory;
  for (const char* branch : {static_cast<const char*>(nullptr), "other"})
    EXPECT_EQ(reset(memory, "1", branch, nullptr), -ENOTSUP);
  EXPECT_EQ(reprise_reset(nullptr, "then", nullptr, nullptr, nullptr), -EBADF);
}

}  // namespace

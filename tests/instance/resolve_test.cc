// join --resolve: for each way in which two can have changed the same, the tree that comes of it, written
// out, and what is said to be left out of it. Nothing is lost: the branch and the parent's history have the
// rest.
#include <dirent.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>

#include <map>
#include <sstream>
#include <tuple>

#include "instance/branches.h"
#include "instance/history.h"
#include "tests/instance/branches_fixture.h"

namespace reprise::instance {
namespace {

using replay::Winner;

// "write FILE TEXT; mv A B; rm F; rmdir D; mkdir D; ln A B; symlink TARGET L; chmod MODE P; xattr P NAME
// VALUE"
void run(fs::Guest& guest, const std::string& script) {
  std::istringstream commands(script);
  for (std::string command; std::getline(commands, command, ';');) {
    std::istringstream words(command);
    std::string verb, a, b, c;
    words >> verb >> a >> b >> c;
    const std::map<std::string, std::function<fs::Outcome<void>()>> verbs = {
        {"write", [&] { return guest.write_file("/" + a, b); }},
        {"mv", [&] { return guest.rename("/" + a, "/" + b); }},
        {"rm", [&] { return guest.unlink("/" + a); }},
        {"rmdir", [&] { return guest.rmdir("/" + a); }},
        {"mkdir", [&] { return guest.mkdir("/" + a, 0755); }},
        {"ln", [&] { return guest.link("/" + a, "/" + b); }},
        {"symlink", [&] { return guest.symlink(a, "/" + b); }},
        {"chmod", [&] { return guest.chmod("/" + b, std::stoul(a, nullptr, 8)); }},
        {"xattr", [&] { return guest.set_xattr("/" + a, b, as_bytes(c)); }},
    };
    auto known = verbs.find(verb);
    ASSERT_NE(known, verbs.end()) << command;
    auto done = known->second();
    ASSERT_TRUE(done) << command << ": " << fs::errno_text(done.error());
  }
}

std::string describe(fs::Guest& guest, const std::string& path) {
  auto attributes = guest.lstat(path);
  std::string text = path.substr(1);
  uint32_t mode = attributes->mode & 07777;
  bool directory = attributes->is_directory();
  if (directory) text += "/";
  if (mode != (directory ? 0755u : attributes->is_symlink() ? 0777u : 0644u))
    text += fmt::format("({:o})", mode);
  if (attributes->is_symlink()) text += "->" + *guest.readlink(path);
  if (attributes->is_regular()) text += "=" + *guest.read_file(path);
  if (!directory && attributes->nlink > 1) text += fmt::format("*{}", attributes->nlink);
  auto xattrs = *guest.list_xattrs(path, AT_SYMLINK_NOFOLLOW);
  if (!xattrs.empty()) {
    std::string name = xattrs.c_str();
    text += fmt::format("[{}={}]", name, as_text(*guest.get_xattr(path, name, AT_SYMLINK_NOFOLLOW)));
  }
  return text;
}

// In order of path: "d/ d/x=text f(600)=text l->target two=names*2".
std::string listing(fs::Guest& guest) {
  std::map<std::string, std::string> all;
  std::vector<std::string> todo{""};
  while (!todo.empty()) {
    std::string at = todo.back();
    todo.pop_back();
    auto listed = guest.list(at.empty() ? "/" : at);
    for (const auto& entry : *listed) {
      std::string path = at + "/" + entry.name;
      all[path] = describe(guest, path);
      if (entry.type == DT_DIR) todo.push_back(path);
    }
  }
  std::string text;
  for (const auto& [path, what] : all) text += (text.empty() ? "" : " ") + what;
  return text;
}

struct Case {
  const char *name, *base, *ours, *theirs;
  // By who counts: the tree, and the paths that are left out.
  const char *if_ours, *if_ours_without, *if_theirs, *if_theirs_without;
};

// Beside each conflict there are "mine" and "yours", which nobody else has touched: they are always there.
const Case kCases[] = {
    {"BothEdit", "write f 0", "write f ours", "write f theirs",  //
     "f=ours", "/f", "f=theirs", "/f"},
    {"EditAndDelete", "write f 0", "write f ours", "rm f",  //
     "f=ours", "/f", "", "/f"},
    {"DeleteAndEdit", "write f 0", "rm f", "write f theirs",  //
     "", "/f", "f=theirs", "/f"},
    {"RenameToTwoNames", "write f 0", "mv f a", "mv f b",  //
     "a=0", "/b", "b=0", "/a"},
    {"RenameToOneName", "write a 1; write b 2", "mv a c", "mv b c",  //
     "b=2 c=1", "/b /c", "a=1 c=2", "/a /c"},
    {"RenameAndEdit", "write f 0", "mv f a", "write f theirs",  //
     "a=0", "/f", "f=theirs", "/a /f"},
    {"RenameOverWhatTheOtherEdits", "write a 1; write f 0", "write f ours", "mv a f",  //
     "a=1 f=ours", "/a /f", "f=1", "/f"},
    {"ReplaceByWhatTheOtherEdits", "write a 1; write f 0", "write a ours", "mv a f",  //
     "a=ours f=0", "/a /f", "f=1", "/a"},
    {"BothReplaceAtOnce", "write f 0", "write t ours; mv t f", "write t theirs; mv t f",  //
     "f=ours", "/f", "f=theirs", "/f"},
    {"BothMake", "", "write f ours", "mkdir f; write f/x theirs",  //
     "f=ours", "/f /f/x", "f/ f/x=theirs", "/f"},
    {"TypeChangeAndEdit", "write f 0", "rm f; symlink t f", "write f theirs",  //
     "f->t", "/f", "f=theirs", "/f"},
    {"FileBecomesDirectory", "write f 0", "write f ours", "rm f; mkdir f; write f/x theirs",  //
     "f=ours", "/f /f/x", "f/ f/x=theirs", "/f"},
    {"DirectoryBecomesFile", "mkdir d; write d/x 0", "write d/x ours", "rm d/x; rmdir d; write d theirs",  //
     "d/ d/x=ours", "/d /d/x", "d=theirs", "/d/x"},
    {"FileInARemovedDirectory", "mkdir d", "write d/new ours", "rmdir d",  //
     "d/ d/new=ours", "/d", "", "/d/new"},
    {"RemovedDirectoryWithAFile", "mkdir d", "rmdir d", "write d/new theirs",  //
     "", "/d/new", "d/ d/new=theirs", "/d"},
    {"TreeInARemovedDirectory", "mkdir d; write d/x 0", "rm d/x; rmdir d",
     "mkdir d/e; write d/e/y theirs",  //
     "", "/d/e /d/e/y", "d/ d/e/ d/e/y=theirs", "/d"},
    {"MovedIntoARemovedDirectory", "mkdir d; write f 0", "rmdir d", "mv f d/f",  //
     "f=0", "/d/f /f", "d/ d/f=0", "/d"},
    {"BothMoveADirectory", "mkdir d; write d/x 0", "mv d a", "mv d b",  //
     "a/ a/x=0", "/b", "b/ b/x=0", "/a"},
    {"MovesThatMakeACircle", "mkdir a; mkdir b", "mv a b/a", "mv b a/b",  //
     "b/ b/a/", "/a/b /b", "a/ a/b/", "/a /b/a"},
    {"LinkAndEdit", "write f 0", "ln f g", "write f theirs",  //
     "f=0*2 g=0*2", "/f", "f=theirs", "/g"},
    {"OneOfTwoNamesEach", "write f 0; ln f g", "rm f", "rm g",  //
     "g=0", "/g", "f=0", "/f"},
    {"LinkToWhatIsRemoved", "write f 0", "rm f", "ln f g",  //
     "", "/g", "f=0*2 g=0*2", "/f"},
    {"ChmodAndEdit", "write f 0", "chmod 600 f", "write f theirs",  //
     "f(600)=0", "/f", "f=theirs", "/f"},
    {"BothChmodADirectory", "mkdir d", "chmod 700 d", "chmod 711 d; write d/x theirs",  //
     "d/(700) d/x=theirs", "/d", "d/(711) d/x=theirs", "/d"},
    {"XattrAndEdit", "write f 0", "xattr f user.a ours", "write f theirs",  //
     "f=0[user.a=ours]", "/f", "f=theirs", "/f"},
    {"BothSetAnXattr", "write f 0", "xattr f user.a ours", "xattr f user.a theirs",  //
     "f=0[user.a=ours]", "/f", "f=0[user.a=theirs]", "/f"},
    {"SymlinkToTwoTargets", "symlink 0 l", "rm l; symlink ours l", "rm l; symlink theirs l",  //
     "l->ours", "/l", "l->theirs", "/l"},
};

std::ostream& operator<<(std::ostream& to, const Case& it) {
  return to << it.name;
}

class ResolveTest : public BranchesTest {
 protected:
  // A store whose main and whose branch "try" have both gone on since that was forked.
  void part(const Case& it) {
    begin(fmt::format("s{}", stores_++));
    fs::Guest guest(main_->filesystem());
    run(guest, it.base);
    ASSERT_TRUE(main_->fork("try"));
    run(guest, "write mine 1");
    run(guest, it.ours);
    ours_ = listing(guest);
    auto branch = open_branch("try");
    ASSERT_TRUE(branch);
    {
      fs::Guest there(branch->filesystem());
      run(there, it.theirs);
      run(there, "write yours 2");
      theirs_ = listing(there);
    }
    ASSERT_TRUE(branch->close());
  }
  std::string state(std::string_view branch, std::optional<LogIndex> until) {
    auto found = state_at(*store_, std::string(branch), until);
    EXPECT_TRUE(found) << found.error().message();
    auto ids = fs::local_inode_ids();
    fs::Filesystem filesystem(fs::Head(found->head.view()), system_clock(), *ids);
    fs::Guest guest(filesystem);
    return listing(guest);
  }
  void resolve(const Case& it, Winner winner) {
    ASSERT_NO_FATAL_FAILURE(part(it));
    auto refused = main_->join("try");
    ASSERT_TRUE(refused) << refused.error().message();
    ASSERT_FALSE(refused->conflicts.empty());
    LogIndex before = main_->journal().last();

    auto joined = main_->join("try", winner);
    ASSERT_TRUE(joined) << joined.error().message();
    EXPECT_EQ(joined->conflicts, refused->conflicts);
    EXPECT_EQ(joined->resolved, winner);
    std::string left_out;
    for (const auto& one : joined->left_out) left_out += (left_out.empty() ? "" : " ") + one.path;
    bool ours = winner == Winner::kOurs;
    EXPECT_EQ(left_out, ours ? it.if_ours_without : it.if_theirs_without);
    fs::Guest guest(main_->filesystem());
    std::string expected = ours ? it.if_ours : it.if_theirs;
    EXPECT_EQ(without_witnesses(listing(guest)), expected);
    EXPECT_EQ(main_->filesystem().view().check_invariants(), "");

    // The rest is still there to be had.
    if (in_memory()) {
      auto branch = open_branch("try");
      ASSERT_TRUE(branch);
      fs::Guest there(branch->filesystem());
      EXPECT_EQ(listing(there), theirs_);
    } else {
      EXPECT_EQ(state("main", before), ours_);
      EXPECT_EQ(state("try", std::nullopt), theirs_);
      EXPECT_EQ(state("main", std::nullopt), listing(guest));
    }
    follow();
  }
  // Who follows has got the same.
  void follow() {
    auto follower = Instance::open_new_follower(path(fmt::format("f{}", stores_)), options(true));
    ASSERT_TRUE(follower);
    ASSERT_TRUE((*follower)->adopt_volume(store_->volume()));
    ASSERT_TRUE((*follower)->apply(batches(*main_)));
    EXPECT_EQ((*follower)->digests()->recomputed, main_->digests()->recomputed);
    EXPECT_EQ(main_->digests()->kept, main_->digests()->recomputed);
  }
  static std::string without_witnesses(std::string text) {
    for (std::string witness : {"mine=1", "yours=2"}) {
      size_t at = text.find(witness);
      EXPECT_NE(at, std::string::npos) << witness << " in " << text;
      if (at == std::string::npos) continue;
      text.erase(at, witness.size());
      if (at > 0 && text[at - 1] == ' ') {
        text.erase(at - 1, 1);
      } else if (at < text.size()) {
        text.erase(at, 1);
      }
    }
    return text;
  }

  int stores_ = 0;
  std::string ours_, theirs_;
};

class EachConflict : public ResolveTest, public testing::WithParamInterface<std::tuple<Case, bool>> {
 protected:
  bool in_memory() const override { return std::get<bool>(GetParam()); }
};

TEST_P(EachConflict, IsResolvedByWhoCounts) {
  for (Winner winner : {Winner::kOurs, Winner::kTheirs}) {
    SCOPED_TRACE(winner == Winner::kOurs ? "ours" : "theirs");
    resolve(std::get<Case>(GetParam()), winner);
  }
}

INSTANTIATE_TEST_SUITE_P(Of, EachConflict, testing::Combine(testing::ValuesIn(kCases), testing::Bool()),
                         [](const auto& one) {
                           bool in_memory = std::get<bool>(one.param);
                           return std::string(std::get<Case>(one.param).name) + (in_memory ? "InMemory" : "");
                         });

TEST_F(ResolveTest, MarksStayOnTheBranchAndAreSaid) {
  ASSERT_NO_FATAL_FAILURE(part({"", "write f 0", "write f ours", "write f theirs", "", "", "", ""}));
  auto branch = open_branch("try");
  ASSERT_TRUE(branch);
  ASSERT_TRUE(branch->mark("good", "test"));
  ASSERT_TRUE(branch->close());
  auto joined = main_->join("try", Winner::kTheirs);
  ASSERT_TRUE(joined) << joined.error().message();
  ASSERT_EQ(joined->left_out.size(), 2u);
  EXPECT_EQ(joined->left_out.back().path, "good");
  EXPECT_TRUE(*store_->catalogue().mark("try", "good"));
  EXPECT_FALSE(*store_->catalogue().mark("main", "good"));
}

TEST_F(ResolveTest, AMarkThatBothHaveSetIsSaidToo) {
  ASSERT_NO_FATAL_FAILURE(part({"", "write f 0", "write g ours", "write h theirs", "", "", "", ""}));
  ASSERT_TRUE(main_->mark("good", "test"));
  auto branch = open_branch("try");
  ASSERT_TRUE(branch);
  ASSERT_TRUE(branch->mark("good", "test"));
  ASSERT_TRUE(branch->close());
  auto refused = main_->join("try");
  ASSERT_TRUE(refused);
  ASSERT_EQ(refused->conflicts.size(), 1u);
  auto joined = main_->join("try", Winner::kOurs);
  ASSERT_TRUE(joined) << joined.error().message();
  EXPECT_EQ(joined->conflicts, refused->conflicts);
  EXPECT_EQ(read(*main_, "/h"), "theirs");
}

TEST_F(ResolveTest, WithNothingToDecideItIsAJoin) {
  ASSERT_NO_FATAL_FAILURE(part({"", "", "write f ours", "write g theirs", "", "", "", ""}));
  auto joined = main_->join("try", Winner::kOurs);
  ASSERT_TRUE(joined) << joined.error().message();
  EXPECT_TRUE(joined->conflicts.empty());
  EXPECT_FALSE(joined->resolved);
  EXPECT_EQ(*store_->branch_names(), std::vector<std::string>{"main"});
}

// Whatever guests have called their files, no name of theirs is in the way of the hidden directory.
TEST_F(ResolveTest, NoNameOfAGuestIsInTheWay) {
  std::string hidden = ".reprise-ffffffffffffffff";
  ASSERT_NO_FATAL_FAILURE(part({"", ("write " + hidden + " 0; write a 1; write b 2").c_str(), "write b ours",
                                "mv a c; write b theirs", "", "", "", ""}));
  auto joined = main_->join("try", Winner::kOurs);
  ASSERT_TRUE(joined) << joined.error().message();
  fs::Guest guest(main_->filesystem());
  EXPECT_EQ(without_witnesses(listing(guest)), hidden + "=0 b=ours c=1");
}

}  // namespace
}  // namespace reprise::instance

// What table.h declares. Named as the test sources are, so that it is built with them.
#include "tests/conformance/table.h"

#include <algorithm>
#include <iostream>

namespace reprise::conformance {
namespace {

constexpr timespec kThen[2] = {{5, 6}, {7, 8}};

std::string line_of(const std::string& path, const Attributes& a) {
  char text[400];
  snprintf(text, sizeof text, ": %lu %o %u:%u links %u size %lu a %ld.%u m %ld.%u c %ld.%u\n", a.inode.value,
           a.mode, a.uid, a.gid, a.nlink, a.size, a.atime.sec, a.atime.nsec, a.mtime.sec, a.mtime.nsec,
           a.ctime.sec, a.ctime.nsec);
  return path + text;
}

// Everything below a directory as root sees it.
void describe_below(Calls& root, const std::string& directory, std::string& into) {
  auto entries = root.list(directory);
  EXPECT_TRUE(entries) << directory;
  if (!entries) return;
  for (const DirectoryEntry& entry : *entries) {
    std::string path = (directory == "/" ? "" : directory) + "/" + entry.name;
    auto a = root.lstat(path);
    EXPECT_TRUE(a) << path;
    if (!a) continue;
    into += line_of(path, *a);
    if (a->is_directory()) describe_below(root, path, into);
  }
}

std::string first_difference(const std::string& before, const std::string& after) {
  size_t at = static_cast<size_t>(std::ranges::mismatch(before, after).in1 - before.begin());
  size_t line = before.rfind('\n', at == 0 ? 0 : at - 1);
  line = line == std::string::npos ? 0 : line + 1;
  auto that_line_of = [line](const std::string& text) {
    return line < text.size() ? text.substr(line, text.find('\n', line) - line) : std::string("(nothing)");
  };
  return "\n  before: " + that_line_of(before) + "\n  after:  " + that_line_of(after);
}

}  // namespace

std::string long_name() {
  return std::string(256, 'n');
}
std::string long_path() {
  std::string path = "full";
  while (path.size() < 4094) path += "/.";
  return path + "/.";
}

void House::SetUp() {
  Conformance::SetUp();
  if (!IsSkipped()) build();
}

void House::TearDown() {
  if (!IsSkipped()) std::cout << rows_ << " rows\n";
  Conformance::TearDown();
}

// Modes as they are written, all of root unless it says otherwise.
void House::build() {
  auto file = [this](const std::string& path, uint32_t mode, uint32_t uid = 0, uint32_t gid = 0) {
    OK(root().write_file(path, "bytes"));
    OK(root().chown(path, uid, gid));
    OK(root().chmod(path, mode));
  };
  auto directory = [this](const std::string& path, uint32_t mode, uint32_t uid = 0, uint32_t gid = 0) {
    OK(root().mkdir(path));
    OK(root().chown(path, uid, gid));
    OK(root().chmod(path, mode));
  };
  file("file", 0644);
  file("mine", 0644, 1000, 1000);  // alice's
  file("theirs", 0666);            // root's, for all to write
  file("secret", 0600);
  file("owners", 0077, 1000, 2000);  // one class each may nothing
  file("groups", 0707, 1000, 2000);
  file("others", 0770, 1000, 2000);
  file("suid", 04755);
  directory("full", 0755);
  file("full/file", 0666);
  directory("full/sub", 0777);
  directory("full/sub/sub", 0777);
  directory("empty", 0755);
  directory("hers", 0755, 1000, 1000);
  directory("closed", 0700);  // alice cannot search it
  file("closed/file", 0666);
  directory("closed/sub", 0777);
  directory("nosearch", 0766);
  file("nosearch/file", 0666);
  directory("noread", 0711);
  directory("tmp", 01777);  // as /tmp
  file("tmp/file", 0666, 1000, 1000);
  directory("tmp/sub", 0777, 1000, 1000);
  file("tmp/bobs", 0666, 1001, 1001);
  directory("tmp/hers", 01777, 1000, 1000);
  file("tmp/hers/bobs", 0666, 1001, 1001);
  OK(root().mknod("fifo", S_IFIFO | 0666));
  OK(root().mknod("socket", S_IFSOCK | 0666));
  OK(root().mknod("device", S_IFCHR | 0666, 0x103));
  build_ways();
}

// Symlinks; what has extended attributes; where the lost one is.
void House::build_ways() {
  OK(root().symlink("file", "link"));
  OK(root().symlink("full", "dirlink"));
  OK(root().symlink("none", "gone"));
  OK(root().symlink("none/none", "gonefar"));
  OK(root().symlink("loop", "loop"));
  OK(root().symlink("closed", "door"));
  OK(root().symlink("closed/file", "peep"));
  OK(root().symlink("full", "d1"));
  for (int i = 2; i <= 41; ++i) OK(root().symlink("d" + std::to_string(i - 1), "d" + std::to_string(i)));
  OK(root().set_xattr("file", "user.a", "value"));
  OK(root().set_xattr("file", "trusted.a", "value"));
  OK(root().set_xattr("secret", "user.a", "value"));
  OK(root().mkdir("removed"));
  OK(lost().chdir("removed"));
  OK(root().rmdir("removed"));
}

std::set<const posix::Waiver*>& House::waivers_used() {
  static std::set<const posix::Waiver*> used;
  return used;
}

int House::open_for_row(Calls& who, const char* path, int flags) {
  auto opened = who.open(path, flags);
  EXPECT_TRUE(opened) << "opening " << path << ": " << posix::name_of(opened);
  if (opened) opened_.emplace_back(&who, *opened);
  return opened.value_or(-1);
}

std::string House::state() {
  std::string text = line_of("/", must(root().stat("/")));
  describe_below(root(), "/", text);
  return text;
}

void House::expect_answer(const std::string& answer, const std::string& text,
                          const std::function<int(House&)>& call) {
  ++rows_;
  if (standing_.empty()) standing_ = state();
  const std::string history = recorded();
  const std::string got = posix::name_of(call(*this));
  for (auto [who, fd] : std::exchange(opened_, {})) OK(who->close(fd));
  std::string expected = answer;
  if (const posix::Waiver* waiver = waiver_of(text)) {
    EXPECT_NE(waiver->instead, answer) << text << " needs no waiver";
    expected = waiver->instead;
    waivers_used().insert(waiver);
  }
  EXPECT_EQ(got, expected) << text;
  if (std::string after = state(); after != standing_) {
    ADD_FAILURE() << text << " has changed something:" << first_difference(standing_, after);
    standing_ = after;
  }
  if (got != "ok") {
    EXPECT_EQ(recorded(), history) << text << " is recorded";
  }
  expect_sound(text);
}

void House::expect_of_path(const char* answer, Member who, const std::string& path, unsigned traits) {
  const std::string shown = path.size() < 40 ? path : "(" + std::to_string(path.size()) + " bytes)";
  for (const PathCall& one : path_calls()) {
    if ((one.traits & traits) != traits) continue;
    expect_answer(answer, std::string(one.text) + " of \"" + shown + "\"",
                  [&](House& house) { return one.call((house.*who)(), path); });
  }
}

const std::vector<House::PathCall>& path_calls() {
#define PATH_CALL(traits, ...)                                                               \
  House::PathCall {                                                                          \
    #__VA_ARGS__, traits,                                                                    \
        [](Calls& who, const std::string& path) -> int { return error_of(who.__VA_ARGS__); } \
  }
  static const std::vector<House::PathCall> calls{
      PATH_CALL(kNeeds | kFollows, stat(path)),
      PATH_CALL(kNeeds | kFollows, access(path, F_OK)),
      PATH_CALL(kNeeds | kFollows, chmod(path, 0600)),
      PATH_CALL(kNeeds | kFollows, chown(path, 5, 5)),
      PATH_CALL(kNeeds | kFollows, utimens(path, kThen)),
      PATH_CALL(kNeeds | kFollows, utimens(path, nullptr)),
      PATH_CALL(kNeeds | kFollows, truncate(path, 0)),
      PATH_CALL(kNeeds | kFollows, chdir(path)),
      PATH_CALL(kNeeds | kFollows, link(path, "made", AT_SYMLINK_FOLLOW)),
      PATH_CALL(kNeeds | kFollows, open(path, O_RDONLY)),
      PATH_CALL(kNeeds | kFollows, open(path, O_RDWR)),
      PATH_CALL(kNeeds | kFollows, open(path, O_WRONLY | O_TRUNC)),
      PATH_CALL(kNeeds | kFollows, open(path, O_RDONLY | O_DIRECTORY)),
      PATH_CALL(kNeeds | kFollows, open(path, O_PATH)),
      PATH_CALL(kNeeds | kFollows, open(path, O_TMPFILE | O_RDWR)),
      PATH_CALL(kNeeds, lstat(path)),
      PATH_CALL(kNeeds, readlink(path)),
      PATH_CALL(kNeeds, chown(path, 5, 5, AT_SYMLINK_NOFOLLOW)),
      PATH_CALL(kNeeds, utimens(path, kThen, AT_SYMLINK_NOFOLLOW)),
      PATH_CALL(kNeeds, open(path, O_RDONLY | O_NOFOLLOW)),
      PATH_CALL(kNeeds, open(path, O_PATH | O_NOFOLLOW)),
      PATH_CALL(kNeeds, get_xattr(path, "user.a")),
      PATH_CALL(kNeeds, set_xattr(path, "user.a", "x")),
      PATH_CALL(kNeeds, list_xattrs(path)),
      PATH_CALL(kNeeds, remove_xattr(path, "user.a")),
      PATH_CALL(kNeeds, link(path, "made")),
      PATH_CALL(kNeeds | kNames, rename(path, "made")),
      PATH_CALL(kNeeds | kNames, rename(path, "made", RENAME_NOREPLACE)),
      PATH_CALL(kNeeds | kNames, rename(path, "mine", RENAME_EXCHANGE)),
      PATH_CALL(kNeeds | kNames, rename("mine", path, RENAME_EXCHANGE)),
      PATH_CALL(kNeeds | kNames, unlink(path)),
      PATH_CALL(kNeeds | kNames, rmdir(path)),
      PATH_CALL(kNames, rename("mine", path)),
      PATH_CALL(kNames, open(path, O_WRONLY | O_CREAT)),
      PATH_CALL(kNames, open(path, O_WRONLY | O_CREAT | O_EXCL)),
      PATH_CALL(kNames | kMakes, rename("mine", path, RENAME_NOREPLACE)),
      PATH_CALL(kNames | kMakes, mkdir(path)),
      PATH_CALL(kNames | kMakes, mknod(path, S_IFREG | 0666)),
      PATH_CALL(kNames | kMakes, mknod(path, S_IFIFO | 0666)),
      PATH_CALL(kNames | kMakes, mknod(path, S_IFSOCK | 0666)),
      PATH_CALL(kNames | kMakes, mknod(path, S_IFCHR | 0666, 0x103)),
      PATH_CALL(kNames | kMakes, mknod(path, S_IFBLK | 0666, 0x103)),
      PATH_CALL(kNames | kMakes, symlink("to", path)),
      PATH_CALL(kNames | kMakes, link("mine", path)),
  };
#undef PATH_CALL
  return calls;
}

}  // namespace reprise::conformance

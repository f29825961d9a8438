// What a call that succeeds changes, and that it changes nothing else: of the object, of its directory, of
// everything beside them.
#include <stdio.h>

#include <map>

#include "tests/conformance/table.h"

namespace reprise::conformance {
namespace {

constexpr uint32_t kKeep = UINT32_MAX;
constexpr timespec kThen[2] = {{5, 6}, {7, 8}};
constexpr timespec kMtimeNow[2] = {{0, UTIME_OMIT}, {0, UTIME_NOW}};
constexpr timespec kNothing[2] = {{0, UTIME_OMIT}, {0, UTIME_OMIT}};

// A directory for each row, the caller's working directory:
//   file, other, empty   of root, for all to write; file holds 5 bytes and has user.a
//   two, too             one file
//   suid                 alice's, 06777, with bytes
//   dir/ dir/file, sub/  link -> file, fifo
class Changes : public House {
 protected:
  void SetUp() override { Conformance::SetUp(); }

  void expect_changes(std::initializer_list<Row> rows) {
    for (const Row& row : rows) expect_change(row);
  }

 private:
  using Seen = std::map<std::string, Attributes>;

  void expect_change(const Row& row) {
    ++rows_;
    const std::string top = "/" + std::to_string(next_++);
    build(top);
    for (Calls* who : {&root(), &alice(), &bob()}) OK(who->chdir(top));
    std::ignore = look();  // what is cached may be as old as this
    const Seen before = look();
    tick();
    EXPECT_EQ(posix::name_of(row.call(*this)), "ok") << row.text;
    expect_sound(row.text);
    EXPECT_EQ(difference(before, look()), row.answer) << row.text;
    for (Calls* who : {&root(), &alice(), &bob()}) OK(who->chdir("/"));
  }

  void build(const std::string& top) {
    auto path = [&](const char* name) { return top + "/" + name; };
    OK(root().mkdir(top));
    OK(root().chmod(top, 0777));
    for (const char* name : {"file", "other", "two", "suid", "empty"}) {
      OK(root().write_file(path(name), std::string_view(name) == "empty" ? "" : "bytes"));
      OK(root().chmod(path(name), 0666));
    }
    OK(root().set_xattr(path("file"), "user.a", "value"));
    OK(root().link(path("two"), path("too")));
    OK(root().chown(path("suid"), 1000, 1000));
    OK(root().chmod(path("suid"), 06777));
    OK(root().mkdir(path("dir")));
    OK(root().write_file(path("dir/file"), "bytes"));
    OK(root().mkdir(path("sub")));
    OK(root().symlink("file", path("link")));
    OK(root().mknod(path("fifo"), S_IFIFO | 0666));
  }

  Seen look() {
    Seen seen;
    look_below(".", seen);
    return seen;
  }
  void look_below(const std::string& path, Seen& seen) {
    Attributes here = must(root().lstat(path));
    seen[path] = here;
    if (!here.is_directory()) return;
    for (const DirectoryEntry& entry : must(root().list(path)))
      look_below(path == "." ? entry.name : path + "/" + entry.name, seen);
  }

  // For each path what is not as before: o owner or mode, n links, s size (of files), a m c times, i another
  // inode; + it is new, - it has gone.
  static std::string difference(const Seen& before, const Seen& after) {
    Seen all = before;
    all.insert(after.begin(), after.end());
    std::string text;
    for (const auto& [path, unused] : all) {
      auto old = before.find(path), now = after.find(path);
      std::string marks = old == before.end()  ? "+"
                          : now == after.end() ? "-"
                                               : marks_of(old->second, now->second);
      if (!marks.empty()) text += (text.empty() ? "" : " ") + path + ":" + marks;
    }
    return text;
  }
  static std::string marks_of(const Attributes& old, const Attributes& now) {
    if (old.inode != now.inode) return "i";
    std::string marks;
    if (old.mode != now.mode || old.uid != now.uid || old.gid != now.gid) marks += "o";
    if (old.nlink != now.nlink) marks += "n";
    if (old.size != now.size && !old.is_directory()) marks += "s";
    if (old.atime != now.atime) marks += "a";
    if (old.mtime != now.mtime) marks += "m";
    if (old.ctime != now.ctime) marks += "c";
    return marks;
  }

  int next_ = 0;
};

// A row whose answer is what changes.
#define CHANGE(changes, who, ...)                                 \
  House::Row {                                                    \
    changes, #who "." #__VA_ARGS__, CALL_OF_ROW(who, __VA_ARGS__) \
  }

CONFORMANCE_SUITE_OF(Changes, Changed, Which::kTmpfs);

TEST_P(Changed, ByCallsOnAttributes) {
  expect_changes({
      CHANGE("file:oc", root, chmod("file", 0600)),
      CHANGE("file:c", root, chmod("file", 0666)),
      CHANGE("file:oc", root, chmod("link", 0600)),
      CHANGE("dir:oc", root, chmod("dir", 0700)),
      CHANGE("file:oc", root, fchmod(fd("file", O_RDONLY), 0600)),
      CHANGE("file:oc", root, chown("file", 5, 5)),
      CHANGE("file:c", root, chown("file", 0, 0)),
      CHANGE("link:oc", root, chown("link", 5, 5, AT_SYMLINK_NOFOLLOW)),
      CHANGE("suid:oc", root, chown("suid", kKeep, 2000)),
      CHANGE("file:oc", root, fchown(fd("file", O_RDONLY), 5, kKeep)),
      CHANGE("file:amc", root, utimens("file", kThen)),
      CHANGE("file:amc", root, utimens("file", nullptr)),
      CHANGE("file:mc", root, utimens("file", kMtimeNow)),
      CHANGE("", root, utimens("file", kNothing)),
      CHANGE("link:amc", root, utimens("link", kThen, AT_SYMLINK_NOFOLLOW)),
      CHANGE("file:amc", root, futimens(fd("file", O_RDONLY), kThen)),
      CHANGE("file:c", root, set_xattr("file", "user.b", "x")),
      CHANGE("file:c", root, set_xattr("file", "user.a", "x")),
      CHANGE("file:c", root, remove_xattr("file", "user.a")),
      CHANGE("", root, get_xattr("file", "user.a")),
      CHANGE("", root, list_xattrs("file")),
      CHANGE("", root, stat("file")),
      CHANGE("", root, access("file", W_OK)),
      CHANGE("", root, readlink("link")),
      CHANGE("", root, list("dir")),
  });
}

TEST_P(Changed, ByCallsOnBytes) {
  expect_changes({
      CHANGE("", root, read(fd("file", O_RDONLY), 10)),
      CHANGE("", root, open("file", O_RDWR)),
      CHANGE("", root, open("file", O_RDWR | O_CREAT)),
      CHANGE("file:smc", root, open("file", O_RDWR | O_TRUNC)),
      CHANGE("empty:mc", root, open("empty", O_RDWR | O_TRUNC)),
      CHANGE("file:mc", root, write(fd("file", O_RDWR), "bytes")),
      CHANGE("file:smc", root, write(fd("file", O_RDWR), "more bytes")),
      CHANGE("file:smc", root, write(fd("file", O_WRONLY | O_APPEND), "x")),
      CHANGE("", root, write(fd("file", O_RDWR), "")),
      CHANGE("", root, pwrite(fd("file", O_RDWR), "", 100)),
      CHANGE("file:smc", root, pwrite(fd("file", O_RDWR), "x", 100)),
      CHANGE("file:smc", root, truncate("file", 2)),
      CHANGE("file:smc", root, truncate("file", 10)),
      CHANGE("file:smc", root, ftruncate(fd("file", O_RDWR), 0)),
      CHANGE("", root, seek(fd("file", O_RDWR), 100, SEEK_SET)),
      CHANGE("", root, fsync(fd("file", O_RDWR))),
      CHANGE("file:smc", root, fallocate(fd("file", O_RDWR), 0, 0, 100)),
      CHANGE("other:mc", root,
             copy_file_range(fd("file", O_RDONLY), nullptr, fd("other", O_RDWR), nullptr, 5)),
      CHANGE("suid:omc", bob, write(fd("suid", O_RDWR), "bytes")),
      CHANGE("suid:osmc", bob, truncate("suid", 1)),
      CHANGE("suid:mc", root, write(fd("suid", O_RDWR), "bytes")),
  });
}

TEST_P(Changed, ByMakingAndRemovingNames) {
  expect_changes({
      CHANGE(".:mc new:+", root, open("new", O_RDWR | O_CREAT)),
      CHANGE(".:mc new:+", root, mknod("new", S_IFIFO | 0666)),
      CHANGE(".:mc new:+", root, symlink("to", "new")),
      CHANGE(".:nmc new:+", root, mkdir("new")),
      CHANGE("dir:nmc dir/new:+", root, mkdir("dir/new")),
      CHANGE(".:mc file:nc new:+", root, link("file", "new")),
      CHANGE("dir:mc dir/new:+ file:nc", root, link("file", "dir/new")),
      CHANGE(".:mc link:nc new:+", root, link("link", "new")),
      CHANGE("", root, open("dir", O_TMPFILE | O_RDWR)),
      CHANGE(".:mc new:+", root, link_descriptor(fd("dir", O_TMPFILE | O_RDWR), "new")),
      CHANGE(".:mc file:-", root, unlink("file")),
      CHANGE(".:mc too:- two:nc", root, unlink("too")),
      CHANGE(".:mc link:-", root, unlink("link")),
      CHANGE("dir:mc dir/file:-", root, unlink("dir/file")),
      CHANGE(".:nmc sub:-", root, rmdir("sub")),
  });
}

TEST_P(Changed, ByRenaming) {
  expect_changes({
      CHANGE(".:mc file:- new:+", root, rename("file", "new")),
      CHANGE(".:mc dir:mc dir/new:+ file:-", root, rename("file", "dir/new")),
      CHANGE(".:mc file:- other:i", root, rename("file", "other")),
      CHANGE(".:mc file:- too:nc two:i", root, rename("file", "two")),
      CHANGE("", root, rename("too", "two")),
      CHANGE("", root, rename("file", "file")),
      CHANGE(".:mc new:+ sub:-", root, rename("sub", "new")),
      CHANGE(".:nmc dir:nmc dir/new:+ sub:-", root, rename("sub", "dir/new")),
      CHANGE(".:nmc dir:- dir/file:- sub:i sub/file:+", root, rename("dir", "sub")),
      CHANGE(".:mc file:i other:i", root, rename("file", "other", RENAME_EXCHANGE)),
      CHANGE(".:mc dir:mc dir/file:i file:i", root, rename("file", "dir/file", RENAME_EXCHANGE)),
      CHANGE(".:nmc dir:nmc dir/file:i sub:i", root, rename("sub", "dir/file", RENAME_EXCHANGE)),
  });
}

}  // namespace
}  // namespace reprise::conformance

// Programs in a mount: what a guest may expect of it.
#include <gtest/gtest.h>

#include <atomic>
#include <optional>
#include <string>

#include "tests/fuse/mounted.h"

namespace reprise::fuse::testing {
namespace {

// Scripts that must end with status 0: each line is a claim.
struct Script {
  const char* name;
  const char* text;
};
void PrintTo(const Script& script, std::ostream* out) {
  *out << script.name;
}

class Guests : public ::testing::TestWithParam<Script> {};

TEST_P(Guests, Run) {
  Mounted mounted;
  Ran ran = mounted.run(GetParam().text);
  EXPECT_EQ(ran.status, 0) << ran.output;
}

const Script kScripts[] = {
    {"Files", R"sh(
      echo hello > a; test "$(cat a)" = hello
      echo world >> a; test "$(wc -c < a)" = 12
      : > a; test ! -s a
      head -c 3000000 /dev/urandom > big; cp big copy; cmp big copy
      cat big >> copy; test "$(stat -c %s copy)" = 6000000
      chmod 640 a; test "$(stat -c %a a)" = 640
      touch -d '2001-02-03 04:05:06.789' a; test "$(stat -c %y a | cut -c1-23)" = '2001-02-03 04:05:06.789'
      rm a; test ! -e a; rm -f big copy; test -z "$(ls -A)"
    )sh"},
    {"Directories", R"sh(
      mkdir -p a/b/c; test -d a/b/c; touch a/b/f
      fails rmdir a/b; rmdir a/b/c; test ! -e a/b/c
      mkdir many; for i in $(seq 1 2000); do : > many/file-$i; done
      test "$(ls many | wc -l)" = 2000; test "$(ls -l many | wc -l)" = 2001
      test "$(stat -c %h a)" = 3
      rm -r many a; test -z "$(ls -A)"
    )sh"},
    {"Links", R"sh(
      echo one > a; ln a b; test "$(stat -c %h a)" = 2; test a -ef b
      echo two >> b; test "$(tail -1 a)" = two; rm a; test "$(stat -c %h b)" = 1; test "$(head -1 b)" = one
      ln -s b s; test "$(readlink s)" = b; test "$(cat s)" = "$(cat b)"
      ln -s nowhere dangling; fails cat dangling 2>/dev/null; ln -s loop loop; fails cat loop 2>/dev/null
    )sh"},
    {"Rename", R"sh(
      echo a > a; echo b > b; mv a b; test "$(cat b)" = a; test ! -e a
      mkdir d e; echo x > d/x; mv d e/; test "$(cat e/d/x)" = x
      mkdir empty; mv -T empty e/d/empty; test -d e/d/empty
      fails mv e e/d/ 2>/dev/null; echo c > c; mv -n c b; test "$(cat b)" = a; test -e c
    )sh"},
    {"TruncateAndHoles", R"sh(
      truncate -s 1M f; test "$(stat -c %s f)" = 1048576; test "$(stat -c %b f)" = 0
      printf x | dd of=f bs=1 seek=500000 conv=notrunc status=none
      test "$(stat -c %s f)" = 1048576; test "$(stat -c %b f)" -lt 100
      truncate -s 10 f; test "$(stat -c %s f)" = 10; truncate -s 100 f; test "$(tr -d '\0' < f | wc -c)" = 0
      fallocate -l 5000 g; test "$(stat -c %s g)" = 5000
      head -c 100000 /dev/urandom > h; fallocate -p -o 4096 -l 8192 h; test "$(stat -c %s h)" = 100000
      test "$(dd if=h bs=4096 skip=1 count=2 status=none | tr -d '\0' | wc -c)" = 0
      cp --sparse=always f i; cmp f i
    )sh"},
    {"OpenAfterUnlink", R"sh(
      $PYTHON -I - <<'EOF'
import os
f = open('gone', 'w+b'); f.write(b'before'); f.flush()
os.unlink('gone'); assert not os.path.exists('gone')
f.write(b' and after'); f.flush(); f.seek(0)
assert f.read() == b'before and after'
assert os.fstat(f.fileno()).st_nlink == 0
os.mkdir('d'); d = os.open('d', os.O_RDONLY); os.rmdir('d'); assert os.listdir(d) == []
EOF
    )sh"},
    {"ManySystemCalls", R"sh(
      $PYTHON -I - <<'EOF'
import errno, fcntl, os, stat
def fails(number, call, *args, **named):
    try: call(*args, **named)
    except OSError as error: assert error.errno == number, error
    else: assert False, 'should have failed'
fd = os.open('f', os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
fails(errno.EEXIST, os.open, 'f', os.O_CREAT | os.O_EXCL)
os.pwrite(fd, b'0123456789', 5); assert os.pread(fd, 100, 0) == b'\0' * 5 + b'0123456789'
a = os.open('f', os.O_WRONLY | os.O_APPEND); os.write(a, b'end'); assert os.fstat(fd).st_size == 18
os.setxattr('f', 'user.colour', b'blue'); assert os.getxattr('f', 'user.colour') == b'blue'
assert os.listxattr('f') == ['user.colour']
fails(errno.EEXIST, os.setxattr, 'f', 'user.colour', b'x', os.XATTR_CREATE)
os.removexattr('f', 'user.colour'); fails(errno.ENODATA, os.getxattr, 'f', 'user.colour')
os.mkfifo('p'); assert stat.S_ISFIFO(os.stat('p').st_mode)
fails(errno.ENAMETOOLONG, os.mkdir, 'n' * 256); os.mkdir('n' * 255)
fails(errno.ENOTDIR, os.mkdir, 'f/x'); fails(errno.EISDIR, os.open, 'n' * 255, os.O_WRONLY)
g = os.open('g', os.O_RDWR | os.O_CREAT); assert os.copy_file_range(fd, g, 10, 5, 0) == 10
assert os.pread(g, 100, 0) == b'0123456789'
h = os.open('h', os.O_RDWR | os.O_CREAT); os.pwrite(h, b'x', 1 << 20)
assert os.lseek(h, 0, os.SEEK_DATA) > 0 and os.lseek(h, 0, os.SEEK_HOLE) == 0
fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
other = os.open('f', os.O_RDWR); fails(errno.EAGAIN, fcntl.flock, other, fcntl.LOCK_EX | fcntl.LOCK_NB)
os.fsync(fd); os.fdatasync(fd); assert os.statvfs('.').f_namemax == 255
os.utime('f', ns=(1, 2)); assert os.stat('f').st_mtime_ns == 2
EOF
    )sh"},
    {"WritingTakesSetUserIdAway", R"sh(
      if test "$(id -u)" != 0; then exit 0; fi
      umask 0; for f in a b c d; do echo x > $f; chmod 6777 $f; done; chmod 2767 d
      test "$(stat -c %a a)" = 6777
      echo more >> a; test "$(stat -c %a a)" = 6777   # root may
      nobody() { setpriv --reuid 65534 --regid 65534 --clear-groups sh -c "$1"; }
      nobody 'echo more >> a'; test "$(stat -c %a a)" = 777
      nobody ': > b'; test "$(stat -c %a b)" = 777
      chown 1:1 c; test "$(stat -c %a c)" = 777
      nobody 'echo more >> d'; test "$(stat -c %a d)" = 767
      echo x > e; chgrp 65534 e; chmod 2767 e; nobody 'echo more >> e'; test "$(stat -c %a e)" = 2767
    )sh"},
    {"SharedMappings", R"sh(
      $PYTHON -I - <<'EOF'
import mmap, os
with open('m', 'wb') as f: f.truncate(1 << 20)
f = open('m', 'r+b'); first = mmap.mmap(f.fileno(), 0); second = mmap.mmap(os.open('m', os.O_RDWR), 0)
first[5000:5005] = b'hello'; assert second[5000:5005] == b'hello'
assert os.pread(f.fileno(), 5, 5000) == b'hello'
os.pwrite(f.fileno(), b'world', 9000); assert second[9000:9005] == b'world'
first.flush()
EOF
      test "$(dd if=m bs=1 skip=5000 count=5 status=none)" = hello
    )sh"},
    {"SqliteRollbackJournal", R"sh(
      $PYTHON -I - <<'EOF'
import sqlite3
db = sqlite3.connect('site.db'); assert db.execute('pragma journal_mode').fetchone()[0] == 'delete'
db.execute('create table post(id integer primary key, text)')
for i in range(20):
    with db: db.executemany('insert into post(text) values(?)', [('x' * 500,)] * 50)
try:
    with db: db.execute('delete from post'); raise KeyError
except KeyError: pass
assert db.execute('select count(*) from post').fetchone() == (1000,)
db.execute('vacuum'); assert db.execute('pragma integrity_check').fetchone() == ('ok',)
EOF
      test ! -e site.db-journal
    )sh"},
    {"SqliteWriteAheadLogOfTwoProcesses", R"sh(
      $PYTHON -I - <<'EOF'
import sqlite3
db = sqlite3.connect('wal.db'); assert db.execute('pragma journal_mode=wal').fetchone()[0] == 'wal'
db.execute('create table t(x)')
EOF
      for i in 1 2; do $PYTHON -I -c "
import sqlite3
db = sqlite3.connect('wal.db', timeout=60)
for i in range(200):
    with db: db.execute('insert into t values(1)')" & pids="$pids $!"; done
      for pid in $pids; do wait $pid; done
      $PYTHON -I -c "
import sqlite3
db = sqlite3.connect('wal.db'); assert db.execute('select sum(x) from t').fetchone() == (400,)
assert db.execute('pragma integrity_check').fetchone() == ('ok',)"
    )sh"},
    {"Git", R"sh(
      export HOME=$PWD GIT_CONFIG_NOSYSTEM=1; git init -q work; cd work; git config user.email a@b; git config user.name n
      for i in $(seq 1 50); do echo $i > file-$i; done; git add .; git commit -qm one
      echo more >> file-1; git commit -qam two; git checkout -qb side HEAD~1; echo side > s; git add s; git commit -qm three
      git merge -q -m merge master 2>/dev/null || git merge -q -m merge main; git gc -q; git fsck --strict
      cd ..; git clone -q work clone; test "$(git -C clone log --oneline | wc -l)" = 4; diff -r --exclude=.git work clone
    )sh"},
};

INSTANTIATE_TEST_SUITE_P(Programs, Guests, ::testing::ValuesIn(kScripts),
                         [](const auto& script) { return std::string(script.param.name); });

TEST(Mount, ShowsWhatIsInTheFilesystem) {
  Mounted mounted;
  auto made = mounted.filesystem().make_node({}, kRootInode, "greeting", S_IFREG | 0644, 0);
  ASSERT_TRUE(made);
  ASSERT_TRUE(mounted.filesystem().write({}, made->inode, 0, as_bytes("from the host\n")));
  Ran ran = mounted.run("cat greeting; echo from the guest > answer");
  EXPECT_EQ(ran.status, 0);
  EXPECT_EQ(ran.output, "from the host\n");
  InodeId answer = mounted.inode_at("answer");
  ASSERT_TRUE(answer);
  Bytes bytes(100);
  auto count = mounted.filesystem().read(answer, 0, bytes);
  ASSERT_TRUE(count);
  EXPECT_EQ(as_text(ByteView(bytes).first(*count)), "from the guest\n");
}

TEST(Mount, KeepsNothingOfUnlinkedFilesAfterwards) {
  Mounted mounted;
  uint64_t before = mounted.filesystem().usage().inodes;
  Ran ran = mounted.run("exec 3> gone; echo text >&3; rm gone; mkdir d; rmdir d; echo done");
  EXPECT_EQ(ran.output, "done\n");
  EXPECT_EQ(mounted.filesystem().usage().inodes, before);
}

TEST(Mount, AWriteIsOneRequest) {
  Mounted mounted;
  Guest guest(mounted);
  guest.ask("write('f', b'x')");
  uint64_t before = guest.server().requests().total();
  guest.ask("keep('f', os.open('f', os.O_WRONLY))");
  for (int i = 0; i < 100; ++i) ASSERT_EQ(guest.ask("pwrite(kept['f'], b'x' * 4096, 0)"), "4096");
  EXPECT_LE(guest.server().requests().total() - before, 105u);
}

TEST(Mount, FsyncAsksTheHostAndPassesItsRefusalOn) {
  struct Case {
    std::optional<Code> refusal;
    const char* expected;
  };
  for (const Case& c : {Case{std::nullopt, "0"}, Case{Code::kNoSpace, "28"}, Case{Code::kReadOnly, "30"},
                        Case{Code::kCorrupt, "5"}}) {
    Mounted mounted;
    std::atomic<int> asked = 0;
    mounted.options().on_fsync = [&]() -> Status {
      ++asked;
      if (c.refusal) return fail(*c.refusal, "refused");
      return {};
    };
    Ran ran = mounted.run(R"sh($PYTHON -I -c "
import os
fd = os.open('f', os.O_CREAT | os.O_RDWR)
try: os.fsync(fd); print(0)
except OSError as error: print(error.errno)")sh");
    EXPECT_EQ(ran.output, std::string(c.expected) + "\n");
    EXPECT_EQ(asked, 1);
  }
}

TEST(Mount, ReadOnlyRefusesToOpenForWriting) {
  Mounted mounted(/*read_only=*/true);
  ASSERT_TRUE(mounted.filesystem().make_node({}, kRootInode, "f", S_IFREG | 0666, 0));
  Ran ran = mounted.run("cat f; { echo x > f; } 2>&1 || true");
  EXPECT_NE(ran.output.find("Read-only file system"), std::string::npos) << ran.output;
}

std::string requests_by_kind(const RequestCounts& counts) {
  std::string text;
  for (uint32_t opcode = 0; opcode < RequestCounts::kOpcodes; ++opcode) {
    if (counts.of(opcode) != 0)
      text += "opcode " + std::to_string(opcode) + ": " + std::to_string(counts.of(opcode)) + "\n";
  }
  return text;
}

TEST(Mount, ASecondReadOfAnUnchangedFileSendsNoRequest) {
  Mounted mounted;
  Guest guest(mounted);
  guest.ask("mkdir('d')");
  guest.ask("write('d/f', b'x' * 300000)");
  std::string first = guest.ask("[len(read('d/f')), size('d/f'), ls('d'), exists('d/none')]");
  EXPECT_EQ(first, "[300000, 300000, ['f'], False]");
  guest.ask("ls('d')");  // the second listing is the one that is kept
  uint64_t before = guest.server().requests().total();
  for (int i = 0; i < 10; ++i) {
    EXPECT_EQ(guest.ask("[len(read('d/f')), size('d/f'), ls('d'), exists('d/none')]"), first);
  }
  uint64_t after = guest.server().requests().total();
  EXPECT_EQ(after - before, 0u) << requests_by_kind(guest.server().requests());
  EXPECT_EQ(guest.ask("write('d/g', b'y')"), "1");
  EXPECT_GT(guest.server().requests().total(), before);
}

}  // namespace
}  // namespace reprise::fuse::testing

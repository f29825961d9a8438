// Advisory locks of programs in a mount: as on tmpfs, and without a request to the server.
#include <gtest/gtest.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <cstdlib>
#include <fstream>

#include "tests/fuse/mounted.h"

namespace reprise::fuse::testing {
namespace {

// Each is a Python program that ends with status 0 in an empty directory. Child(function) runs it in another
// process, which may say() something that its parent then has heard().
struct Program {
  const char* name;
  const char* text;
};
void PrintTo(const Program& program, std::ostream* out) {
  *out << program.name;
}

constexpr char kHelpers[] = R"python(
import errno, fcntl, os, signal, struct, sys, time
from fcntl import LOCK_EX, LOCK_NB, LOCK_SH, LOCK_UN, F_RDLCK, F_UNLCK, F_WRLCK, F_GETLK, F_SETLK, F_SETLKW
from fcntl import F_OFD_GETLK, F_OFD_SETLK, F_OFD_SETLKW
LOCK = 'hhqqi4x'
def opened(path='f', flags=os.O_RDWR | os.O_CREAT): return os.open(path, flags, 0o666)
def put(fd, command, type, start=0, length=0): fcntl.fcntl(fd, command, struct.pack(LOCK, type, 0, start, length, 0))
def get(fd, command, type, start=0, length=0):
    type, _, start, length, pid = struct.unpack(LOCK, fcntl.fcntl(fd, command, struct.pack(LOCK, type, 0, start, length, 0)))
    return None if type == F_UNLCK else (type, start, length, pid)
def refused(expected, call, *arguments):
    try: call(*arguments)
    except OSError as error: assert error.errno == expected, error
    else: assert False, 'was not refused'
class Child:
    def __init__(self, body):
        self.told, tell = os.pipe()
        self.pid = os.fork()
        if self.pid: os.close(tell); return
        self.tell = tell
        try: body(self); status = 0
        except BaseException as error: print('child:', repr(error)); sys.stdout.flush(); status = 1
        os._exit(status)
    def say(self): os.write(self.tell, b'.')       # in the child
    def heard(self): assert os.read(self.told, 1) == b'.', 'the child has ended'
    def ended(self):
        _, status = os.waitpid(self.pid, 0)
        assert status == 0, status
    def kill(self): os.kill(self.pid, signal.SIGKILL); os.waitpid(self.pid, 0)
    def until_it_waits(self):
        end = time.monotonic() + 20
        while not any(' -> ' in line and f' {self.pid} ' in line for line in open('/proc/locks')):
            assert time.monotonic() < end, 'it does not wait'
            time.sleep(.001)
)python";

const Program kPrograms[] = {
    {"WholeFiles", R"python(
a, b = opened(), opened()
fcntl.flock(a, LOCK_SH); fcntl.flock(b, LOCK_SH)
refused(errno.EAGAIN, fcntl.flock, a, LOCK_EX | LOCK_NB)
fcntl.flock(b, LOCK_EX | LOCK_NB)                 # the refusal has lost a its lock
refused(errno.EAGAIN, fcntl.flock, a, LOCK_SH | LOCK_NB)
copy = os.dup(b); os.close(b)
refused(errno.EAGAIN, fcntl.flock, a, LOCK_SH | LOCK_NB)
os.close(copy); fcntl.flock(a, LOCK_EX | LOCK_NB)
def other(child): refused(errno.EAGAIN, fcntl.flock, opened(), LOCK_SH | LOCK_NB)
Child(other).ended()
def inherited(child): fcntl.flock(a, LOCK_SH | LOCK_NB)
Child(inherited).ended()                          # the same open file
fcntl.flock(opened(), LOCK_SH | LOCK_NB)
d = os.open('.', os.O_RDONLY); fcntl.flock(d, LOCK_EX | LOCK_NB)
)python"},
    {"RangesOfProcesses", R"python(
fd = opened()
put(fd, F_SETLK, F_WRLCK, 10, 10); put(fd, F_SETLK, F_RDLCK, 13, 2); put(fd, F_SETLK, F_UNLCK, 18, 1)
def other(child):
    fd = opened()
    me = os.getppid()
    assert get(fd, F_GETLK, F_RDLCK) == (F_WRLCK, 10, 3, me), get(fd, F_GETLK, F_RDLCK)
    assert get(fd, F_GETLK, F_WRLCK, 13, 1) == (F_RDLCK, 13, 2, me)
    assert get(fd, F_GETLK, F_WRLCK, 18, 1) is None
    refused(errno.EAGAIN, put, fd, F_SETLK, F_RDLCK, 0, 11)
    put(fd, F_SETLK, F_RDLCK, 13, 2); put(fd, F_SETLK, F_WRLCK, 20, 0)
Child(other).ended()
refused(errno.EBADF, put, opened('f', os.O_RDONLY), F_SETLK, F_WRLCK)    # stays open
fcntl.flock(fd, LOCK_EX | LOCK_NB)                # of the other kind
os.close(opened())                                # any descriptor of it
def free(child): put(opened(), F_SETLK, F_WRLCK)
Child(free).ended()
)python"},
    {"RangesOfOpenFiles", R"python(
a, b = opened(), opened()
put(a, F_OFD_SETLK, F_WRLCK, 0, 10)
refused(errno.EAGAIN, put, b, F_OFD_SETLK, F_RDLCK, 9, 1)
refused(errno.EAGAIN, put, a, F_SETLK, F_RDLCK, 9, 1)      # ranges of processes and open files see each other
assert get(b, F_OFD_GETLK, F_WRLCK) == (F_WRLCK, 0, 10, -1)
os.close(opened())                                # nobody else's close matters
refused(errno.EAGAIN, put, b, F_OFD_SETLK, F_RDLCK, 9, 1)
copy = os.dup(a); os.close(a)
refused(errno.EAGAIN, put, b, F_OFD_SETLK, F_RDLCK, 9, 1)
os.close(copy); put(b, F_OFD_SETLK, F_WRLCK)
)python"},
    {"Waiting", R"python(
for take, leave in ((lambda fd: fcntl.flock(fd, LOCK_EX), lambda fd: fcntl.flock(fd, LOCK_UN)),
                    (lambda fd: put(fd, F_SETLKW, F_WRLCK, 3, 4), lambda fd: put(fd, F_SETLK, F_UNLCK)),
                    (lambda fd: put(fd, F_OFD_SETLKW, F_WRLCK, 3, 4), lambda fd: put(fd, F_OFD_SETLK, F_UNLCK))):
    fd = opened(); take(fd)
    def other(child):
        take(opened()); child.say()
    children = [Child(other) for _ in range(3)]
    time.sleep(.05)
    leave(fd)
    for child in children: child.heard(); child.ended()
    os.close(fd)
)python"},
    {"Interruption", R"python(
class Alarm(Exception): pass
def on_alarm(*_): raise Alarm
fd = opened(); fcntl.flock(fd, LOCK_EX); put(fd, F_SETLK, F_WRLCK)
def other(child):
    signal.signal(signal.SIGALRM, on_alarm)
    mine = opened()
    for wait in (lambda: fcntl.flock(mine, LOCK_SH), lambda: put(mine, F_SETLKW, F_RDLCK), lambda: put(mine, F_OFD_SETLKW, F_RDLCK)):
        signal.setitimer(signal.ITIMER_REAL, .05)
        try: wait()
        except Alarm: continue
        assert False, 'it got the lock'
Child(other).ended()
)python"},
    {"Deadlock", R"python(
fd = opened(); put(fd, F_SETLK, F_WRLCK, 0, 1)
def other(child):
    fd = opened(); put(fd, F_SETLK, F_WRLCK, 1, 1); child.say()
    put(fd, F_SETLKW, F_WRLCK, 0, 1)
child = Child(other); child.heard(); child.until_it_waits()
refused(errno.EDEADLK, put, fd, F_SETLKW, F_WRLCK, 1, 1)
put(fd, F_SETLK, F_UNLCK); child.ended()
)python"},
    {"AHolderThatIsKilledLetsOthersIn", R"python(
def holder(child):
    fd = opened(); fcntl.flock(fd, LOCK_EX); put(fd, F_SETLK, F_WRLCK, 0, 10); put(fd, F_OFD_SETLK, F_WRLCK, 10, 10)
    child.say(); signal.pause()
first = Child(holder); first.heard()
fd = opened()
refused(errno.EAGAIN, fcntl.flock, fd, LOCK_SH | LOCK_NB)
refused(errno.EAGAIN, put, fd, F_SETLK, F_RDLCK, 9, 1)
refused(errno.EAGAIN, put, fd, F_SETLK, F_RDLCK, 10, 1)
def waiter(child): put(opened(), F_SETLKW, F_WRLCK, 0, 20)
second = Child(waiter); second.until_it_waits()
first.kill(); second.ended()
fcntl.flock(fd, LOCK_EX | LOCK_NB); put(fd, F_SETLK, F_WRLCK)
)python"},
    {"LocksStayWithTheFile", R"python(
fd = opened(); fcntl.flock(fd, LOCK_EX); put(fd, F_OFD_SETLK, F_WRLCK)
os.link('f', 'g'); os.rename('f', 'h')
refused(errno.EAGAIN, fcntl.flock, opened('g'), LOCK_EX | LOCK_NB)
refused(errno.EAGAIN, put, opened('h'), F_OFD_SETLK, F_RDLCK)
fcntl.flock(opened('f'), LOCK_EX | LOCK_NB)       # another file of the old name
other = opened('g'); os.unlink('g'); os.unlink('h')
refused(errno.EAGAIN, fcntl.flock, other, LOCK_EX | LOCK_NB)
os.close(fd); fcntl.flock(other, LOCK_EX | LOCK_NB); put(other, F_OFD_SETLK, F_WRLCK)
)python"},
    {"CountersUnderLocks", R"python(
kinds = ((lambda fd: fcntl.flock(fd, LOCK_EX), lambda fd: fcntl.flock(fd, LOCK_UN)),
         (lambda fd: put(fd, F_SETLKW, F_WRLCK), lambda fd: put(fd, F_SETLK, F_UNLCK)),
         (lambda fd: put(fd, F_OFD_SETLKW, F_WRLCK), lambda fd: put(fd, F_OFD_SETLK, F_UNLCK)))
for number, (take, leave) in enumerate(kinds):
    os.close(opened(f'c{number}'))
    os.truncate(f'c{number}', 8)
    def count(child):
        for i in range(100):
            fd = opened(f'c{number}'); take(fd)
            value = struct.unpack('q', os.pread(fd, 8, 0))[0]
            os.pwrite(fd, struct.pack('q', value + 1), 0)
            if i % 2: leave(fd)
            os.close(fd)
    for child in [Child(count) for _ in range(4)]: child.ended()
    assert struct.unpack('q', open(f'c{number}', 'rb').read())[0] == 400
)python"},
    {"SqliteOfTwoWriters", R"python(
import sqlite3
db = sqlite3.connect('site.db')
assert db.execute('pragma journal_mode').fetchone()[0] == 'delete'
db.execute('create table t(who, x)'); db.commit(); db.close()
def writer(who):
    def run(child):
        db = sqlite3.connect('site.db', timeout=60, isolation_level=None)
        for i in range(60):
            db.execute('begin immediate')
            n = db.execute('select count(*) from t').fetchone()[0]
            db.execute('insert into t values(?, ?)', (who, n))
            db.execute('commit')
    return run
for child in [Child(writer(who)) for who in 'ab']: child.ended()
db = sqlite3.connect('site.db', isolation_level=None)
assert [x for x, in db.execute('select x from t order by x')] == list(range(120))     # nobody saw half of the other
assert db.execute('pragma integrity_check').fetchone() == ('ok',)
db.execute('begin exclusive')
def shut_out(child):
    other = sqlite3.connect('site.db', timeout=0)
    try: other.execute('select * from t').fetchone()
    except sqlite3.OperationalError as error: assert 'locked' in str(error), error
    else: assert False, 'read what is locked'
Child(shut_out).ended()
def dies(child):
    other = sqlite3.connect('site.db', timeout=60, isolation_level=None)
    other.execute('begin exclusive'); other.execute('pragma cache_size = 1'); other.execute('delete from t')
    child.say(); signal.pause()
db.execute('rollback'); db.close()
killed = Child(dies); killed.heard(); killed.kill()
db = sqlite3.connect('site.db', timeout=0)
assert db.execute('select count(*) from t').fetchone() == (120,)
)python"},
};

class LockPrograms : public ::testing::TestWithParam<Program> {};

std::string program_file(const TemporaryDirectory& directory) {
  std::ofstream(directory / "program.py") << kHelpers << LockPrograms::GetParam().text;
  return directory / "program.py";
}

TEST_P(LockPrograms, InAMount) {
  Mounted mounted;
  program_file(mounted.outside());
  Ran ran = mounted.run("timeout 60 $PYTHON -I $OUT/program.py");
  EXPECT_EQ(ran.status, 0) << ran.output;
}

// What the programs claim is what the kernel's own filesystem does.
TEST_P(LockPrograms, OnTmpfs) {
  char path[] = "/dev/shm/reprise-locks-XXXXXX";
  struct statfs fs;
  if (::mkdtemp(path) == nullptr || ::statfs(path, &fs) != 0 || fs.f_type != 0x01021994)
    GTEST_SKIP() << "/dev/shm is no tmpfs that may be written to";
  TemporaryDirectory outside;
  std::string command = "cd " + std::string(path) + " && timeout 60 /usr/bin/python3 -I " +
                        program_file(outside) + " >" + outside / "output" + " 2>&1";
  EXPECT_EQ(std::system(command.c_str()), 0) << read_host_file(outside / "output");
  std::filesystem::remove_all(path);
}

INSTANTIATE_TEST_SUITE_P(Locks, LockPrograms, ::testing::ValuesIn(kPrograms),
                         [](const auto& program) { return std::string(program.param.name); });

TEST(MountLocks, CostNoRequest) {
  Mounted mounted;
  Guest guest(mounted);
  guest.ask("write('f', b'text')");
  guest.ask("keep('fcntl', __import__('fcntl'))");
  const std::string once =
      "[keep('fd', os.open('f', os.O_RDWR)), kept['fcntl'].flock(kept['fd'], 2), "
      "kept['fcntl'].lockf(kept['fd'], 2, 4), kept['fcntl'].lockf(kept['fd'], 8), os.close(kept['fd'])]";
  ASSERT_EQ(guest.ask(once), "[None, None, None, None, None]");
  uint64_t before = guest.server().requests().total();
  for (int i = 0; i < 10; ++i) ASSERT_EQ(guest.ask(once), "[None, None, None, None, None]");
  EXPECT_EQ(guest.server().requests().total(), before);
}

// Has the guest make "f" and hold an exclusive flock of it, by kept['fd'].
void hold_flock(Guest& guest) {
  guest.ask("write('f', b'text')");
  guest.ask("keep('fcntl', __import__('fcntl'))");
  guest.ask("keep('fd', os.open('f', os.O_RDWR))");
  EXPECT_EQ(guest.ask("kept['fcntl'].flock(kept['fd'], 2)"), "None");
}

// A peer's change drops names and attributes that the kernel has cached, but not the inode that is open.
TEST(MountLocks, OutliveWhatAPeerChanges) {
  Mounted mounted;
  Guest guest(mounted);
  hold_flock(guest);
  InodeId inode = mounted.inode_at("f");
  const std::string try_it = "kept['fcntl'].flock(os.open('f', os.O_RDWR), 2 | 4)";
  ASSERT_EQ(guest.ask(try_it), "EAGAIN");
  std::vector<fs::Operation> operations{
      fs::Write{.inode = inode, .data = as_bytes("other"), .time = {1'700'000'000, 5}},
      fs::Rename{.old_parent = kRootInode,
                 .old_name = "f",
                 .new_parent = kRootInode,
                 .new_name = "g",
                 .inode = inode,
                 .time = {1'700'000'000, 5}},
      fs::Rename{.old_parent = kRootInode,
                 .old_name = "g",
                 .new_parent = kRootInode,
                 .new_name = "f",
                 .inode = inode,
                 .time = {1'700'000'000, 5}}};
  Status applied = guest.coherence().apply_remotely(operations, [&]() -> Status {
    mounted.filesystem().replay([&](fs::Head& head) {
      for (const fs::Operation& operation : operations) EXPECT_TRUE(head.apply(operation));
    });
    return {};
  });
  ASSERT_TRUE(applied) << applied.error().message();
  EXPECT_EQ(guest.ask("read('f')"), "b'other'");
  EXPECT_EQ(guest.ask(try_it), "EAGAIN");
  fs::View same = mounted.filesystem().view();
  Status replaced = guest.coherence().replace_all(
      [&]() -> Result<fs::View> { return mounted.filesystem().install(same); }, &same);
  ASSERT_TRUE(replaced) << replaced.error().message();
  EXPECT_EQ(guest.ask(try_it), "EAGAIN");
  EXPECT_EQ(guest.ask("os.close(kept['fd'])"), "None");
  EXPECT_EQ(guest.ask(try_it), "None");
}

// What docs/fuse.md says of guests of both kinds at once: two tables.
TEST(MountLocks, OfGuestsInProcessAreOthers) {
  Mounted mounted;
  Guest guest(mounted);
  hold_flock(guest);
  EXPECT_EQ(mounted.filesystem().locks().held(), 0u);
}

}  // namespace
}  // namespace reprise::fuse::testing

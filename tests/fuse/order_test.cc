// What a program on a follower sees while changes are applied: never the one and then, looking again, what
// was before another that came before it.
//
//   REPRISE_ORDER_GROUPS=20000 fuse_tests --gtest_filter='Order.*'
//
// Thirteen things are changed in each group of operations, each in another way and each group in another
// order. A program looks at them at random, most often at what it has cached. From the last change it has
// seen follows how new everything else must be.
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <fstream>
#include <iostream>
#include <string>
#include <vector>

#include "tests/fuse/mounted.h"
#include "tests/posix/fuzz.h"

namespace reprise::fuse::testing {
namespace {

constexpr uint64_t kThings = 13;  // a prime, so that any step goes round all of them

// The thing that group `group` changes as its `place`th.
uint64_t thing_at(uint64_t group, uint64_t place) {
  return (place * (1 + group % (kThings - 1)) + group * 7) % kThings;
}

// Says "wrong: …", or how often it looked and how many groups it saw.
constexpr char kObserver[] = R"python(
import mmap, os, random, sys
last = int(sys.argv[1])
THINGS = 13
def place(group, thing):  # the inverse of thing_at
    step = 1 + group % (THINGS - 1)
    return (thing - group * 7) * pow(step, -1, THINGS) % THINGS
held = [os.open(f'bytes{i}', os.O_RDONLY) for i in range(4)]
mapped = [mmap.mmap(fd, 8, prot=mmap.PROT_READ) for fd in held]
def named(least):  # names come and stay; one that is not there yet has been looked for before
    group = max(least, 0)
    while True:
        try: os.stat(f'names/{group + 1}')
        except FileNotFoundError: break
        group += 1
    return group if group == 0 or os.path.exists(f'names/{group}') else group - 1
def replaced(least):
    fd = os.open('replaced', os.O_RDONLY)
    try: return int(os.read(fd, 8))
    finally: os.close(fd)
def long(least):
    fd = os.open('long', os.O_RDONLY)
    try: return len(os.read(fd, 1 << 20)) - 70000
    finally: os.close(fd)
def shrunk(least):
    fd = os.open('shrinks', os.O_RDONLY)
    try: return 200000 - len(os.read(fd, 1 << 22))
    finally: os.close(fd)
def end(least):
    fd = os.open('end', os.O_RDONLY)
    try: return os.lseek(fd, 0, os.SEEK_END)
    finally: os.close(fd)
look = [lambda _: int(os.pread(held[0], 8, 0)), lambda _: int(os.pread(held[1], 8, 0)),
        lambda _: int(mapped[2][:]), lambda _: int(mapped[3][:]),
        lambda _: os.stat('grows').st_size, lambda _: int(os.stat('time').st_mtime),
        lambda _: max(map(int, os.listdir('listed'))), named, replaced,
        lambda _: int(os.getxattr('xattr', 'user.n')), long, shrunk, end]
NAMES = 'read read mapped mapped grows time listed named replaced xattr long shrinks end'.split()
random.seed(os.getpid())
newest, looks, groups = (0, -1), 0, 0
while newest[0] < last:
    thing = random.randrange(THINGS)
    group, at = newest
    least = group if place(group, thing) <= at else group - 1
    seen = look[thing](least)
    looks += 1
    if seen < least:
        print(f'wrong: {NAMES[thing]} is that of group {seen} after change {at} of group {group} was seen')
        sys.exit(1)
    if (seen, place(seen, thing)) > newest:
        groups += seen != group
        newest = seen, place(seen, thing)
print(looks, groups)
)python";

class World {
 public:
  World() {
    std::vector<fs::Operation> operations;
    for (const char* name :
         {"bytes0", "bytes1", "bytes2", "bytes3", "grows", "time", "xattr", "long", "shrinks", "end"})
      make(operations, kRootInode, name, S_IFREG | 0644);
    names_ = make(operations, kRootInode, "names", S_IFDIR | 0755);
    listed_ = make(operations, kRootInode, "listed", S_IFDIR | 0755);
    make(operations, listed_, "0", S_IFREG | 0644);
    replacing(operations, 0);
    std::string zeros(70'000, '0');
    for (size_t i = 0; i < 4; ++i)
      operations.push_back(fs::Write{.inode = files_[i], .data = as_bytes(zeros).first(8)});
    operations.push_back(fs::Write{.inode = files_[7], .data = as_bytes(zeros)});
    operations.push_back(fs::Truncate{.inode = files_[8], .size = 200'000});
    operations.push_back(fs::SetXattr{.inode = files_[6], .name = "user.n", .value = as_bytes("0")});
    apply(operations);
  }

  // One group, each thing once.
  void change(uint64_t group) { apply(operations_of(group)); }

  // A group by an overwrite: with that and all before it.
  void overwrite(uint64_t group) {
    fs::Head head(mounted.filesystem().view());
    for (const fs::Operation& operation : operations_of(group)) ASSERT_TRUE(head.apply(operation));
    fs::View next = head.view();
    Status done = guest.coherence().replace_all(
        [&]() -> Result<fs::View> { return mounted.filesystem().install(next); }, &next);
    ASSERT_TRUE(done) << done.error().message();
  }

  Mounted mounted;
  Guest guest{mounted};

 private:
  std::string_view keep(std::string text) { return texts_.emplace_back(std::move(text)); }
  static std::string eight(uint64_t number) {
    std::string digits = std::to_string(number);
    return std::string(8 - digits.size(), '0') + digits;
  }
  InodeId make(std::vector<fs::Operation>& operations, InodeId parent, std::string_view name, uint32_t mode) {
    InodeId inode{++next_};
    operations.push_back(fs::Create{.parent = parent, .name = name, .inode = inode, .mode = mode});
    if (parent == kRootInode) files_.push_back(inode);
    return inode;
  }
  void replacing(std::vector<fs::Operation>& operations, uint64_t group) {
    InodeId inode{++next_};
    operations.push_back(
        fs::Create{.parent = kRootInode, .name = "new", .inode = inode, .mode = S_IFREG | 0644});
    operations.push_back(fs::Write{.inode = inode, .data = as_bytes(keep(eight(group)))});
    operations.push_back(fs::Rename{.old_parent = kRootInode,
                                    .old_name = "new",
                                    .new_parent = kRootInode,
                                    .new_name = "replaced",
                                    .inode = inode,
                                    .replaced = replaced_});
    replaced_ = inode;
  }
  void change(std::vector<fs::Operation>& operations, uint64_t thing, uint64_t group) {
    if (thing < 4) {
      operations.push_back(fs::Write{.inode = files_[thing], .data = as_bytes(keep(eight(group)))});
    } else if (thing == 4) {
      operations.push_back(fs::Truncate{.inode = files_[4], .size = group});
    } else if (thing == 5) {
      operations.push_back(fs::SetAttributes{
          .inode = files_[5], .mask = fs::SetAttributes::kMtime, .mtime = {static_cast<int64_t>(group), 0}});
    } else if (thing == 6) {
      InodeId inode{++next_};
      operations.push_back(fs::Create{
          .parent = listed_, .name = keep(std::to_string(group)), .inode = inode, .mode = S_IFREG | 0644});
      if (group > 2) {
        operations.push_back(fs::Unlink{
            .parent = listed_, .name = keep(std::to_string(group - 2)), .inode = listed_files_[group % 2]});
      }
      listed_files_[group % 2] = inode;
    } else if (thing == 7) {
      make(operations, names_, keep(std::to_string(group)), S_IFREG | 0644);
    } else if (thing == 8) {
      replacing(operations, group);
    } else if (thing == 9) {
      operations.push_back(
          fs::SetXattr{.inode = files_[6], .name = "user.n", .value = as_bytes(keep(std::to_string(group)))});
    } else if (thing == 11) {
      operations.push_back(fs::Truncate{.inode = files_[8], .size = 200'000 - group});
    } else if (thing == 12) {
      operations.push_back(fs::Truncate{.inode = files_[9], .size = group});
    } else {
      operations.push_back(
          fs::Write{.inode = files_[7], .offset = 70'000 + group - 1, .data = as_bytes(keep("x"))});
    }
  }
  std::vector<fs::Operation> operations_of(uint64_t group) {
    texts_.clear();
    texts_.reserve(2 * kThings);
    std::vector<fs::Operation> operations;
    for (uint64_t place = 0; place < kThings; ++place) change(operations, thing_at(group, place), group);
    return operations;
  }
  void apply(const std::vector<fs::Operation>& operations) {
    Status applied = guest.coherence().apply_remotely(operations, [&]() -> Status {
      Status status;
      mounted.filesystem().replay([&](fs::Head& head) {
        for (const fs::Operation& operation : operations) {
          if (auto done = head.apply(operation); !done)
            status = fail(Code::kDivergence,
                          std::string(fs::operation_name(operation)) + ": " + fs::errno_text(done.error()));
        }
      });
      return status;
    });
    ASSERT_TRUE(applied) << applied.error().message();
  }

  std::vector<std::string> texts_;  // that the operations of a group are made of
  std::vector<InodeId> files_;
  InodeId names_, listed_, replaced_, listed_files_[2];
  uint64_t next_ = uint64_t{7} << InodeId::kCounterBits;
};

// Every `overwrites`th group comes by an overwrite.
void look_while_it_changes(const std::string& observers, uint64_t overwrites) {
  const uint64_t groups = posix::from_environment("REPRISE_ORDER_GROUPS", 300);
  World world;
  std::string program = world.mounted.outside() / "observer.py";
  std::ofstream(program) << kObserver;
  world.guest.ask("keep('observers', [subprocess.Popen([sys.executable, '-I', '" + program + "', '" +
                  std::to_string(groups) + "'], stdout=subprocess.PIPE, text=True) for _ in range(" +
                  observers + ")])");
  for (uint64_t group = 1; group <= groups; ++group) {
    group % overwrites == 0 ? world.overwrite(group) : world.change(group);
    if (group % 3 == 0) ::usleep(500);
  }
  std::string said = world.guest.ask("[observer.communicate()[0].strip() for observer in kept['observers']]");
  EXPECT_EQ(said.find("wrong"), std::string::npos) << said;
  EXPECT_EQ(world.guest.ask("[observer.wait() == 0 for observer in kept['observers']].count(True)"),
            observers);
  std::cout << groups << " groups; looks, and groups seen: " << said << "\n";
}

TEST(Order, IsThatOfTheChangesToAProgramThatLooksMeanwhile) {
  look_while_it_changes("1", ~uint64_t{0});
}

TEST(Order, AlsoAmongSeveralThatNeverPause) {
  look_while_it_changes("3", ~uint64_t{0});
}

TEST(Order, AlsoAcrossOverwrites) {
  look_while_it_changes("2", 2);
}

}  // namespace
}  // namespace reprise::fuse::testing

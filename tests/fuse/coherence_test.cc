// Changes that do not come through the mount, seen by guests that had cached what was there before.
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <fstream>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "adapters/fuse/in_flight.h"
#include "adapters/fuse/kernel_cache.h"
#include "adapters/fuse/lookup_table.h"
#include "adapters/fuse/touched.h"
#include "tests/fuse/mounted.h"

namespace reprise::fuse::testing {
namespace {

constexpr Timestamp kTime{1'700'000'000, 5};

// The other instance: applies operations to this one as a replayer does.
class Remote {
 public:
  Remote(fs::Filesystem& filesystem, instance::CoherenceHook& hook) : filesystem_(filesystem), hook_(hook) {}

  void apply(const std::vector<fs::Operation>& operations) {
    Status applied = hook_.apply_remotely(operations, [&]() -> Status {
      Status status;
      filesystem_.replay([&](fs::Head& head) {
        for (const fs::Operation& operation : operations) {
          if (auto done = head.apply(operation); !done) {
            status = fail(Code::kDivergence,
                          std::string(fs::operation_name(operation)) + ": " + fs::errno_text(done.error()));
          }
        }
      });
      return status;
    });
    ASSERT_TRUE(applied) << applied.error().message();
  }

  InodeId create(InodeId parent, std::string_view name, std::string_view text,
                 uint32_t mode = S_IFREG | 0644) {
    InodeId inode{++next_};
    std::vector<fs::Operation> operations{
        fs::Create{.parent = parent, .name = name, .inode = inode, .mode = mode, .time = kTime}};
    if (!text.empty()) operations.push_back(fs::Write{.inode = inode, .data = as_bytes(text), .time = kTime});
    apply(operations);
    return inode;
  }
  InodeId mkdir(InodeId parent, std::string_view name) { return create(parent, name, "", S_IFDIR | 0755); }
  void write(InodeId inode, uint64_t offset, std::string_view text) {
    apply({fs::Write{.inode = inode, .offset = offset, .data = as_bytes(text), .time = kTime}});
  }

 private:
  fs::Filesystem& filesystem_;
  instance::CoherenceHook& hook_;
  uint64_t next_ = uint64_t{7} << InodeId::kCounterBits;
};

// As Python's zlib has it.
uint32_t crc32(std::string_view bytes) {
  uint32_t sum = ~uint32_t{0};
  for (char byte : bytes) {
    sum ^= static_cast<unsigned char>(byte);
    for (int bit = 0; bit < 8; ++bit) sum = (sum >> 1) ^ ((sum & 1) != 0 ? 0xedb88320 : 0);
  }
  return ~sum;
}

// A guest beside a remote writer.
class Coherence : public ::testing::Test {
 protected:
  Coherence() : guest(mounted), remote(mounted.filesystem(), guest.coherence()) {}

  // Three processes of their own, so that the lookups of one are the cache of another, which do `body`
  // without a pause.
  void start_readers(const std::string& body) {
    std::string program = mounted.outside() / "reader.py";
    // What a reader has cached outlives the mount: it has to notice that its guest is gone.
    std::ofstream(program) << "import os\nguest = os.getppid()\n"
                           << "while os.getppid() == guest and os.path.exists('go'):\n    try:\n"
                           << body << "\n    except FileNotFoundError: pass\n";
    EXPECT_EQ(guest.ask("write('go', b'x')"), "1");
    guest.ask("keep('readers', [subprocess.Popen([sys.executable, '-I', '" + program +
              "']) for _ in range(3)])");
  }
  // Until the kernel caches again what it is told of a file (LookupTable).
  void let_settle(const std::string& name) {
    guest.ask("[(read('" + name + "'), size('" + name +
              "'), size('.'), time.sleep(0.03)) for _ in range(10)]");
  }
  void stop_readers() {
    guest.ask("unlink('go')");
    EXPECT_EQ(guest.ask("[reader.wait() for reader in kept['readers']]"), "[0, 0, 0]");
  }

  Mounted mounted;
  Guest guest;
  Remote remote;
};

TEST_F(Coherence, AFileThatIsAbsentAppears) {
  EXPECT_EQ(guest.ask("[exists('f'), ls(), ls()]"), "[False, [], []]");
  remote.create(kRootInode, "f", "text");
  EXPECT_EQ(guest.ask("[exists('f'), ls(), size('f'), read('f')]"), "[True, ['f'], 4, b'text']");
}

TEST_F(Coherence, BytesGrowShrinkAndChangeInPlace) {
  InodeId f = remote.create(kRootInode, "f", std::string(10'000, 'a'));
  EXPECT_EQ(guest.ask("read('f') == b'a' * 10000"), "True");
  remote.write(f, 10'000, "tail");
  EXPECT_EQ(guest.ask("[size('f'), read('f') == b'a' * 10000 + b'tail']"), "[10004, True]");
  remote.apply({fs::Truncate{.inode = f, .size = 5000, .time = kTime}});
  EXPECT_EQ(guest.ask("[size('f'), read('f') == b'a' * 5000]"), "[5000, True]");
  remote.write(f, 100, "B");
  EXPECT_EQ(guest.ask("[size('f'), read('f') == b'a' * 100 + b'B' + b'a' * 4899]"), "[5000, True]");
  remote.apply({fs::Truncate{.inode = f, .size = 20'000, .time = kTime}});
  EXPECT_EQ(guest.ask("[size('f'), read('f')[5000:] == bytes(15000)]"), "[20000, True]");
  remote.apply(
      {fs::Allocate{.inode = f, .change = fs::RangeChange::kPunch, .keep_size = true, .length = 4096}});
  EXPECT_EQ(guest.ask("read('f')[:4096] == bytes(4096)"), "True");
}

TEST_F(Coherence, OnlyWhatWasWrittenIsReadAgain) {
  InodeId f = remote.create(kRootInode, "f", std::string(4 << 20, 'a'));
  EXPECT_EQ(guest.ask("len(read('f'))"), "4194304");
  constexpr uint32_t kRead = 15;
  uint64_t before = guest.server().requests().of(kRead);
  remote.write(f, 1 << 20, "B");
  EXPECT_EQ(guest.ask("read('f').count(b'B')"), "1");
  EXPECT_EQ(guest.server().requests().of(kRead) - before, 1u);
}

// The files are made before the kernel knows of them, so nothing is about to be dropped.
TEST_F(Coherence, WhatAListingBroughtIsNotAskedForAgain) {
  fs::Filesystem& filesystem = mounted.filesystem();
  auto d = filesystem.make_directory({}, kRootInode, "d", 0755);
  ASSERT_TRUE(d);
  for (size_t i = 0; i < 20; ++i) {
    auto f = filesystem.make_node({}, d->inode, "f" + std::to_string(i), S_IFREG | 0644, 0);
    ASSERT_TRUE(f && filesystem.write({}, f->inode, 0, as_bytes(std::string(i, 'x'))));
  }
  EXPECT_EQ(guest.ask("len(ls('d'))"), "20");
  uint64_t before = guest.server().requests().total();
  EXPECT_EQ(guest.ask("[size(f'd/f{i}') for i in range(20)] == list(range(20))"), "True");
  EXPECT_EQ(guest.server().requests().total(), before) << "attributes came with the listing";
  EXPECT_EQ(guest.ask("[len(ls('d')), exists('d/none'), len(read('d/f7'))]"), "[20, False, 7]");
  before = guest.server().requests().total();
  EXPECT_EQ(guest.ask("[len(ls('d')), exists('d/none'), len(read('d/f7'))]"), "[20, False, 7]");
  EXPECT_EQ(guest.server().requests().total(), before) << "the listing, what is absent, and bytes";
}

TEST_F(Coherence, AttributesChange) {
  InodeId f = remote.create(kRootInode, "f", "");
  EXPECT_EQ(guest.ask("oct(stat('f').st_mode)"), "'0o100644'");
  using Set = fs::SetAttributes;
  remote.apply({Set{.inode = f, .mask = Set::kMode | Set::kMtime, .mode = 0600, .mtime = {42, 7}}});
  EXPECT_EQ(guest.ask("[oct(stat('f').st_mode), stat('f').st_mtime_ns]"), "['0o100600', 42000000007]");
  remote.apply({fs::SetXattr{.inode = f, .name = "user.a", .value = as_bytes("b"), .time = kTime}});
  EXPECT_EQ(guest.ask("getxattr('f', 'user.a')"), "b'b'");
  remote.apply({fs::Link{.parent = kRootInode, .name = "g", .inode = f, .time = kTime}});
  EXPECT_EQ(guest.ask("[stat('f').st_nlink, ls()]"), "[2, ['f', 'g']]");
}

TEST_F(Coherence, NamesAreReplacedRemovedAndMadeAgain) {
  InodeId d = remote.mkdir(kRootInode, "d");
  InodeId old_file = remote.create(d, "f", "old");
  InodeId new_file = remote.create(d, "new", "new");
  EXPECT_EQ(guest.ask("[read('d/f'), ls('d'), ls('d')]"), "[b'old', ['f', 'new'], ['f', 'new']]");
  guest.ask("keep('open', os.open('d/f', 0))");

  remote.apply({fs::Rename{.old_parent = d,
                           .old_name = "new",
                           .new_parent = d,
                           .new_name = "f",
                           .inode = new_file,
                           .replaced = old_file,
                           .time = kTime}});
  EXPECT_EQ(guest.ask("[read('d/f'), ls('d'), exists('d/new')]"), "[b'new', ['f'], False]");
  EXPECT_EQ(guest.ask("pread(kept['open'], 10, 0)"), "b'old'");

  remote.apply({fs::Unlink{.parent = d, .name = "f", .inode = new_file, .time = kTime}});
  EXPECT_EQ(guest.ask("read('d/f')"), "ENOENT");
  EXPECT_EQ(guest.ask("ls('d')"), "[]");
  remote.create(d, "f", "again");
  EXPECT_EQ(guest.ask("[read('d/f'), ls('d')]"), "[b'again', ['f']]");
}

// Neither a name that the kernel knew nor a new time tells it that the listing it keeps is old.
TEST_F(Coherence, ListingsChangeThoughNoTimeDoes) {
  InodeId d = remote.mkdir(kRootInode, "d");
  InodeId f = remote.create(d, "f", "");
  for (int i = 0; i < 3; ++i) EXPECT_EQ(guest.ask("ls('d')"), "['f']");
  remote.create(d, "g", "");
  for (int i = 0; i < 3; ++i) EXPECT_EQ(guest.ask("ls('d')"), "['f', 'g']");
  remote.apply({fs::Link{.parent = d, .name = "h", .inode = f, .time = kTime}});
  EXPECT_EQ(guest.ask("ls('d')"), "['f', 'g', 'h']");
}

// One mapping that stays, and one that is private and was never written to: what is changed is seen in both,
// what is cut off is zeros once it is there again.
TEST_F(Coherence, MappingsSeeEachChange) {
  constexpr size_t kSize = 100'000;
  std::string model(kSize, 'a');
  InodeId f = remote.create(kRootInode, "f", model);
  guest.ask("keep('fd', os.open('f', os.O_RDWR))");
  guest.ask("keep('shared', __import__('mmap').mmap(kept['fd'], 100000))");
  guest.ask("keep('private', __import__('mmap').mmap(kept['fd'], 100000, flags=2))");
  const std::string look =
      "(lambda a, b, c: a == b == c and __import__('zlib').crc32(a))(kept['shared'][:], kept['private'][:], "
      "read('f'))";
  ASSERT_EQ(guest.ask("kept['shared'][:] == b'a' * 100000 == kept['private'][:]"), "True");
  std::mt19937_64 random(3);
  for (int change = 0; change < 1000; ++change) {
    size_t offset = random() % kSize, length = std::min<size_t>(1 + random() % 9000, kSize - offset);
    char fill = static_cast<char>('a' + random() % 26);
    switch (random() % 4) {
      case 0:  // shorter, and back to its size
        remote.apply({fs::Truncate{.inode = f, .size = offset, .time = kTime},
                      fs::Truncate{.inode = f, .size = kSize, .time = kTime}});
        std::fill(model.begin() + static_cast<std::ptrdiff_t>(offset), model.end(), '\0');
        break;
      case 1:
        remote.apply({fs::Allocate{.inode = f,
                                   .change = fs::RangeChange::kPunch,
                                   .keep_size = true,
                                   .offset = offset,
                                   .length = length,
                                   .time = kTime}});
        model.replace(offset, length, length, '\0');
        break;
      default:
        model.replace(offset, length, length, fill);
        remote.write(f, offset, std::string_view(model).substr(offset, length));
    }
    ASSERT_EQ(guest.ask(look), std::to_string(crc32(model))) << change;
  }
}

TEST_F(Coherence, DirectoriesMoveAndGo) {
  InodeId a = remote.mkdir(kRootInode, "a"), b = remote.mkdir(a, "b");
  InodeId f = remote.create(b, "f", "text");
  EXPECT_EQ(guest.ask("[read('a/b/f'), exists('c')]"), "[b'text', False]");
  guest.ask("chdir('a/b')");
  remote.apply({fs::Rename{.old_parent = kRootInode,
                           .old_name = "a",
                           .new_parent = kRootInode,
                           .new_name = "c",
                           .inode = a,
                           .time = kTime}});
  EXPECT_EQ(guest.ask("[read('f'), read('../b/f'), exists('../../a'), ls('../..')]"),
            "[b'text', b'text', False, ['c']]");
  remote.apply({fs::Unlink{.parent = b, .name = "f", .inode = f, .time = kTime},
                fs::Rmdir{.parent = a, .name = "b", .inode = b, .time = kTime}});
  EXPECT_EQ(guest.ask("exists('f')"), "False");
  EXPECT_EQ(guest.ask("ls('..')"), "[]");
}

TEST_F(Coherence, AnOverwriteShowsTheNewTreeOnly) {
  InodeId d = remote.mkdir(kRootInode, "d");
  InodeId kept = remote.create(d, "kept", "old bytes");
  remote.create(d, "goes", "x");
  InodeId replaced = remote.create(kRootInode, "replaced", "old");
  guest.ask("chdir('d')");
  guest.ask("keep('open', os.open('kept', 0))");
  EXPECT_EQ(guest.ask("[read('kept'), read('goes'), read('../replaced'), exists('comes'), exists('../top'), "
                      "ls(), ls('..')]"),
            "[b'old bytes', b'x', b'old', False, False, ['goes', 'kept'], ['d', 'replaced']]");

  fs::View now = mounted.filesystem().view();
  fs::Head next(now);
  InodeId goes = mounted.inode_at("d/goes"), comes{100}, top{101}, other{102};
  for (const fs::Operation& operation : std::vector<fs::Operation>{
           fs::Write{.inode = kept, .data = as_bytes("new"), .time = kTime},
           fs::Truncate{.inode = kept, .size = 3, .time = kTime},
           fs::Unlink{.parent = d, .name = "goes", .inode = goes, .time = kTime},
           fs::Create{.parent = d, .name = "comes", .inode = comes, .mode = S_IFREG | 0644, .time = kTime},
           fs::Create{
               .parent = kRootInode, .name = "top", .inode = top, .mode = S_IFDIR | 0755, .time = kTime},
           fs::Unlink{.parent = kRootInode, .name = "replaced", .inode = replaced, .time = kTime},
           fs::Create{.parent = kRootInode,
                      .name = "replaced",
                      .inode = other,
                      .mode = S_IFREG | 0644,
                      .time = kTime}}) {
    ASSERT_TRUE(next.apply(operation));
  }
  Status done = guest.coherence().replace_all(
      [&]() -> Result<fs::View> { return mounted.filesystem().install(next.view()); }, nullptr);
  ASSERT_TRUE(done) << done.error().message();
  EXPECT_EQ(guest.ask("[read('kept'), exists('goes'), read('../replaced'), exists('comes'), "
                      "exists('../top'), ls(), ls('..')]"),
            "[b'new', False, b'', True, True, ['comes', 'kept'], ['d', 'replaced', 'top']]");
  EXPECT_EQ(guest.ask("pread(kept['open'], 10, 0)"), "b'new'");
}

TEST_F(Coherence, WhatAnOverwriteDoesNotChangeStaysCached) {
  InodeId same = remote.create(kRootInode, "same", std::string(100'000, 's'));
  InodeId other = remote.create(kRootInode, "other", std::string(1 << 20, 'o'));
  let_settle("same");
  let_settle("other");
  ASSERT_EQ(guest.ask("[hold('same'), hold('other')]"), "[True, True]");

  fs::View now = mounted.filesystem().view();
  fs::Head next(now);
  ASSERT_TRUE(
      next.apply(fs::Write{.inode = other, .offset = 500'000, .data = as_bytes("new"), .time = kTime}));
  ASSERT_TRUE(next.apply(fs::Write{.inode = same, .offset = 5, .data = as_bytes("s"), .time = kTime}));
  Status done = guest.coherence().replace_all(
      [&]() -> Result<fs::View> { return mounted.filesystem().install(next.view()); }, nullptr);
  ASSERT_TRUE(done) << done.error().message();
  uint64_t before = guest.server().requests().total();
  EXPECT_EQ(guest.ask("[read('same') == b's' * 100000, size('same')]"), "[True, 100000]");
  EXPECT_EQ(guest.server().requests().total(), before);
  constexpr uint32_t kRead = 15;
  before = guest.server().requests().of(kRead);
  EXPECT_EQ(guest.ask("read('other').count(b'new')"), "1");
  EXPECT_EQ(guest.server().requests().of(kRead) - before, 1u) << "for the block that changed";
}

TEST_F(Coherence, ARefusedChangeIsReportedAndLeavesNoMarks) {
  InodeId f = remote.create(kRootInode, "f", "text");
  std::vector<fs::Operation> operations{fs::Write{.inode = f, .data = as_bytes("x")}};
  Status refused = guest.coherence().apply_remotely(
      operations, [] { return Status(fail(Code::kCorrupt, "a batch nobody can apply")); });
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code(), Code::kCorrupt);
  let_settle("f");
  uint64_t before = guest.server().requests().total();
  EXPECT_EQ(guest.ask("[read('f'), size('f')]"), "[b'text', 4]");
  EXPECT_EQ(guest.server().requests().total(), before);
}

// Readers that never pause beside a writer that never pauses: every answer that begins after apply() returned
// must show what apply() did, and no reader may ever hang or see a torn name.
TEST_F(Coherence, HoldsUnderReadersThatNeverPause) {
  InodeId d = remote.mkdir(kRootInode, "d");
  std::vector<InodeId> files;
  for (int i = 0; i < 8; ++i) files.push_back(remote.create(d, "f" + std::to_string(i), "0"));
  start_readers(R"python(
        for i in range(8):
            os.stat(f'd/f{i}'); fd = os.open(f'd/f{i}', 0); os.read(fd, 9); os.close(fd); os.listdir('d')
)python");
  std::mt19937 random(20);
  for (int round = 1; round <= 400; ++round) {
    size_t i = random() % files.size();
    std::string name = "f" + std::to_string(i), text = std::to_string(round);
    switch (random() % 3) {
      case 0: {
        remote.apply({fs::Truncate{.inode = files[i], .time = kTime},
                      fs::Write{.inode = files[i], .data = as_bytes(text), .time = kTime}});
        break;
      }
      case 1: {
        remote.apply({fs::Unlink{.parent = d, .name = name, .inode = files[i], .time = kTime}});
        ASSERT_EQ(guest.ask("[exists('d/" + name + "'), '" + name + "' in ls('d')]"), "[False, False]")
            << round;
        files[i] = remote.create(d, name, text);
        break;
      }
      case 2: {
        InodeId replacement = remote.create(d, "new", text);
        remote.apply({fs::Rename{.old_parent = d,
                                 .old_name = "new",
                                 .new_parent = d,
                                 .new_name = name,
                                 .inode = replacement,
                                 .replaced = files[i],
                                 .time = kTime}});
        files[i] = replacement;
        break;
      }
    }
    ASSERT_EQ(guest.ask("[read('d/" + name + "'), size('d/" + name + "'), len(ls('d'))]"),
              "[b'" + text + "', " + std::to_string(text.size()) + ", 8]")
        << round;
  }
  stop_readers();
}

// A file that is written right after it appeared: the reply to somebody's first lookup of it is still on its
// way into the kernel's cache, with the old size, when the write drops an inode that the kernel does not have
// yet.
TEST_F(Coherence, AnInodeOnItsWayIntoTheCacheIsNotMissed) {
  start_readers("        os.stat('x')\n");
  std::mt19937 random(4);
  for (int round = 0; round < 1000; ++round) {
    InodeId x = remote.create(kRootInode, "x", "");
    for (auto spins = random() % 20'000; spins > 0; --spins)
      std::atomic_signal_fence(std::memory_order_seq_cst);
    remote.write(x, 0, "text");
    ASSERT_EQ(guest.ask("size('x')"), "4") << round;
    remote.apply({fs::Unlink{.parent = kRootInode, .name = "x", .inode = x, .time = kTime}});
  }
  stop_readers();
}

// See LookupTable: the attributes that follow a change are asked for more than once, and cached in the end.
TEST_F(Coherence, WhatChangedIsCachedOnceItHasSettled) {
  constexpr uint32_t kGetattr = 3;
  InodeId f = remote.create(kRootInode, "f", "a");
  EXPECT_EQ(guest.ask("[size('f'), size('f')]"), "[1, 1]");
  remote.write(f, 1, "b");
  uint64_t before = guest.server().requests().of(kGetattr);
  EXPECT_EQ(guest.ask("size('f')"), "2");
  EXPECT_GT(guest.server().requests().of(kGetattr), before);
  let_settle("f");
  before = guest.server().requests().total();
  EXPECT_EQ(guest.ask("size('f')"), "2");
  EXPECT_EQ(guest.server().requests().total(), before);
}

TEST(LookupTable, AttributesSettleAfterAnAnswerToARequestThatIsNewerThanTheChange) {
  auto ids = fs::local_inode_ids();
  fs::Filesystem filesystem(fs::Head::create(system_clock().realtime()), system_clock(), *ids);
  constexpr uint64_t kMs = 1'000'000, kNow = 1000 * kMs;
  fs::Attributes file = *filesystem.make_node({}, kRootInode, "f", S_IFREG | 0644, 0);
  LookupTable table(filesystem);
  EXPECT_FALSE(table.unsettle(file.inode, kNow)) << "the kernel was never told of it";
  table.add(file.inode);
  EXPECT_TRUE(table.settled(file.inode, kNow));

  EXPECT_TRUE(table.unsettle(file.inode, kNow));
  EXPECT_TRUE(table.settled(kRootInode, kNow));
  EXPECT_FALSE(table.settled(file.inode, kNow + 1 * kMs)) << "may answer a request from before";
  EXPECT_FALSE(table.settled(file.inode, kNow + 900 * kMs)) << "the first answer that is sure to be used";
  EXPECT_FALSE(table.settled(file.inode, kNow + 920 * kMs)) << "it may be on its way still";
  EXPECT_TRUE(table.settled(file.inode, kNow + 1000 * kMs));
  EXPECT_TRUE(table.settled(file.inode, kNow + 1000 * kMs));

  EXPECT_TRUE(table.unsettle(file.inode, kNow + 2000 * kMs));
  EXPECT_FALSE(table.settled(file.inode, kNow + 2900 * kMs));
  EXPECT_TRUE(table.unsettle(file.inode, kNow + 2950 * kMs)) << "from the beginning";
  EXPECT_FALSE(table.settled(file.inode, kNow + 3100 * kMs));
  table.remove(file.inode, 1);
  EXPECT_TRUE(table.settled(file.inode, kNow + 3101 * kMs)) << "the kernel has forgotten it";
  EXPECT_FALSE(table.unsettle(file.inode, kNow));
}

TEST(InFlight, DrainWaitsForThoseWhoEnteredBeforeAndForNobodyElse) {
  InFlight in_flight(3, system_clock());
  in_flight.drain();
  in_flight.slot(0).enter(in_flight);
  in_flight.slot(2).enter(in_flight);
  in_flight.slot(2).leave();
  std::atomic<bool> left = false;
  std::thread worker([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
    left = true;
    in_flight.slot(0).leave();
    in_flight.slot(0).enter(in_flight);  // the next request: nobody waits for that
  });
  in_flight.drain();
  EXPECT_TRUE(left);
  worker.join();
  in_flight.slot(0).leave();
  in_flight.slot(0).leave();  // twice is once
  in_flight.drain();
}

// Its journal may have it already. The session has not shaken hands, so the kernel cannot be told anything.
TEST(KernelCache, AChangeIsMadeEvenWhereWhatItTouchesCannotBeDropped) {
  auto ids = fs::local_inode_ids();
  fs::Filesystem filesystem(fs::Head::create(kTime), system_clock(), *ids);
  LookupTable lookups(filesystem);
  Marks marks;
  InFlight in_flight(1, system_clock());
  KernelCache cache(filesystem, lookups, marks, in_flight, system_clock());
  char name[] = "test";
  char* argv[] = {name, nullptr};
  fuse_args args = FUSE_ARGS_INIT(1, argv);
  const fuse_lowlevel_ops none = {};
  std::unique_ptr<fuse_session, decltype(&fuse_session_destroy)> session(
      fuse_session_new(&args, &none, sizeof none, nullptr), fuse_session_destroy);
  fuse_opt_free_args(&args);
  ASSERT_NE(session, nullptr);
  cache.connect(session.get());

  std::vector<fs::Operation> operations{
      fs::Create{.parent = kRootInode, .name = "n", .inode = {7}, .mode = S_IFREG | 0644, .time = kTime}};
  bool applied = false;
  Status told = cache.apply_remotely(operations, [&]() -> Status {
    applied = true;
    return {};
  });
  EXPECT_TRUE(applied);
  ASSERT_FALSE(told);
  EXPECT_NE(told.error().message().find("dropping the name"), std::string::npos) << told.error().message();

  fs::Head next(filesystem.view());
  ASSERT_TRUE(next.apply(operations[0]));
  fs::View tree = next.view();
  told = cache.replace_all([&]() -> Result<fs::View> { return filesystem.install(tree); }, &tree);
  EXPECT_FALSE(told);
  EXPECT_TRUE(filesystem.view().lookup(kRootInode, "n")) << "the tree of before stayed";
  cache.disconnect();
}

TEST(InFlight, ClosedNobodyIsAnswered) {
  InFlight in_flight(2, system_clock());
  in_flight.slot(0).enter(in_flight);
  std::atomic<int> entered = 0, left = 0;
  std::thread first([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
    left = 1;
    in_flight.slot(0).leave();
  });
  in_flight.close();
  EXPECT_EQ(left, 1);
  std::thread second([&] {
    in_flight.slot(1).enter(in_flight);
    entered = 1;
    in_flight.slot(1).leave();
  });
  std::this_thread::sleep_for(std::chrono::milliseconds(50));
  EXPECT_EQ(entered, 0);
  in_flight.open();
  second.join();
  EXPECT_EQ(entered, 1);
  first.join();
}

TEST(Marks, WhatIsReadOfWhatIsMarkedIsNoted) {
  std::vector<fs::Operation> operations{
      fs::Write{.inode = {5}, .offset = 5000, .data = as_bytes("0123456789")},
      fs::Write{.inode = {5}, .offset = 90'000, .data = as_bytes("x")},
      fs::SetAttributes{.inode = {6}},
      fs::Create{.parent = {1}, .name = "n", .inode = {7}},
  };
  Touched touched = Touched::by(operations);
  Marks marks;
  marks.note_read({5}, 0, 100'000);
  EXPECT_TRUE(marks.take_read().empty()) << "nothing was marked";
  marks.set(&touched);
  marks.note_read({5}, 0, 4096);
  marks.note_read({5}, 8192, 4096);
  marks.note_read({6}, 0, 4096);
  marks.note_read({8}, 0, 4096);
  EXPECT_TRUE(marks.take_read().empty()) << "other bytes, or none";
  marks.note_read({5}, 4096, 4096);
  marks.note_read({5}, 0, 5001);
  marks.note_read({5}, 86'016, 8192);
  marks.note_listed({1});
  EXPECT_EQ(marks.take_read(), (std::vector<TouchedInode>{{InodeId{5}, 5000, 5010},
                                                          {InodeId{5}, 90'000, 90'001},
                                                          {InodeId{1}, 0, TouchedInode::kToEnd}}));
  EXPECT_TRUE(marks.take_read().empty());
  marks.note_listed({1});
  marks.set(nullptr);
  EXPECT_TRUE(marks.take_read().empty());
}

TEST(TouchedBy, RangesOfOneInodeAreJoinedAndNamesKeptOnce) {
  std::vector<fs::Operation> operations{
      fs::Write{.inode = {5}, .offset = 100, .data = as_bytes("0123456789")},
      fs::Write{.inode = {5}, .offset = 105, .data = as_bytes("0123456789")},
      fs::Write{.inode = {5}, .offset = 9000, .data = as_bytes("x")},
      fs::SetAttributes{.inode = {5}},
      fs::Create{.parent = {1}, .name = "n", .inode = {6}},
      fs::Unlink{.parent = {1}, .name = "n", .inode = {6}},
      fs::SetXattr{.inode = {7}},
  };
  Touched touched = Touched::by(operations);
  EXPECT_EQ(touched.names(), (std::vector<TouchedName>{{InodeId{1}, "n"}}));
  EXPECT_EQ(touched.inodes(), (std::vector<TouchedInode>{{InodeId{1}, 0, TouchedInode::kToEnd},
                                                         {InodeId{5}, 100, 115},
                                                         {InodeId{5}, 9000, 9001},
                                                         {InodeId{6}, 0, 0},
                                                         {InodeId{7}, 0, 0}}));
  EXPECT_TRUE(touched.inode({5}));
  EXPECT_FALSE(touched.inode({8}));
  EXPECT_TRUE(touched.name({1}, "n"));
  EXPECT_FALSE(touched.name({2}, "n"));
}

}  // namespace
}  // namespace reprise::fuse::testing

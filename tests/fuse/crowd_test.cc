// Much at once: open files, entries that are listed while others come and go, threads, names of any bytes.
#include <dirent.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "tests/fs/recording.h"
#include "tests/fuse/mounted.h"
#include "tests/fuse/served_mount.h"

namespace reprise::fuse::testing {
namespace {

class Crowd : public ::testing::Test {
 protected:
  void SetUp() override {
    ASSERT_EQ(::geteuid(), 0u) << "calls of this process need root";
    auto made = ServedMount::make(world.filesystem);
    ASSERT_TRUE(made) << made.error().message();
    mount = std::move(*made);
    top = mount->open_top();
  }
  void TearDown() override {
    if (mount == nullptr) return;
    ::close(top);
    mount.reset();
    EXPECT_EQ(world.broken_law(), "");
    fs::Head replayed = world.replayed();
    EXPECT_EQ(replayed.digest().to_string(), world.filesystem.digest().to_string());
    EXPECT_EQ(replayed.usage().inodes, world.filesystem.usage().inodes) << "inodes that nobody can reach";
  }
  int make(const std::string& name, int flags = O_CREAT | O_EXCL | O_RDWR) {
    return ::openat(top, name.c_str(), flags | O_CLOEXEC, 0644);
  }
  std::multiset<std::string> list() {
    std::multiset<std::string> names;
    DIR* directory = ::fdopendir(::openat(top, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    if (directory == nullptr) {
      ADD_FAILURE() << "the top cannot be listed: errno " << errno;
      return names;
    }
    while (dirent* entry = ::readdir(directory)) names.insert(entry->d_name);
    ::closedir(directory);
    return names;
  }

  fs::Recorded world;
  std::unique_ptr<ServedMount> mount;
  int top = -1;
};

TEST_F(Crowd, TenThousandFilesAreOpenAtOnce) {
  constexpr int kFiles = 10'000;
  rlimit limit;
  ASSERT_EQ(::getrlimit(RLIMIT_NOFILE, &limit), 0);
  rlimit more{std::max<rlim_t>(limit.rlim_cur, kFiles + 200), std::max<rlim_t>(limit.rlim_max, kFiles + 200)};
  ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &more), 0);
  std::vector<int> open;
  for (int i = 0; i < kFiles; ++i) {
    std::string name = "f" + std::to_string(i);
    open.push_back(make(name));
    ASSERT_GE(open.back(), 0) << i;
    ASSERT_EQ(::write(open.back(), name.data(), name.size()), static_cast<ssize_t>(name.size()));
    ASSERT_TRUE(i % 2 != 0 || ::unlinkat(top, name.c_str(), 0) == 0);
  }
  for (int i = 0; i < kFiles; ++i) {
    char bytes[16] = {};
    ASSERT_GT(::pread(open[static_cast<size_t>(i)], bytes, sizeof bytes - 1, 0), 0);
    ASSERT_EQ(std::string(bytes), "f" + std::to_string(i));
  }
  EXPECT_EQ(list().size(), kFiles / 2 + 2u);
  for (int fd : open) ::close(fd);
  ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &limit), 0);
}

// POSIX leaves open only whether those are listed that come or go meanwhile.
TEST_F(Crowd, TenThousandEntriesAreEachListedOnceWhileOthersComeAndGo) {
  constexpr int kStay = 10'000;
  std::set<std::string> staying;
  for (int i = 0; i < kStay; ++i) {
    staying.insert("stays-" + std::to_string(i));
    ::close(make("stays-" + std::to_string(i)));
  }
  std::atomic<bool> stop = false;
  std::thread others([&] {
    for (int i = 0; !stop; ++i) {
      ::close(make("comes-" + std::to_string(i)));
      if (i >= 50) ::unlinkat(top, ("comes-" + std::to_string(i - 50)).c_str(), 0);
      if (i % 7 == 0)
        ::renameat(top, ("comes-" + std::to_string(i)).c_str(), top,
                   ("moves-" + std::to_string(i % 100)).c_str());
    }
  });
  for (int round = 0; round < 15; ++round) {
    std::multiset<std::string> listed = list();
    size_t found = 0;
    for (const std::string& name : listed) {
      if (staying.contains(name)) ++found;
      if (listed.count(name) != 1) ADD_FAILURE() << name << " is listed more than once";
    }
    EXPECT_EQ(found, staying.size()) << round;
  }
  stop = true;
  others.join();
}

TEST_F(Crowd, NamesOf255BytesOfAnyValue) {
  std::set<std::string> made;
  for (int value = 1; value < 256; ++value) {
    if (value == '/') continue;
    std::string name(255, static_cast<char>(value));
    int fd = make(name);
    ASSERT_GE(fd, 0) << value;
    ASSERT_EQ(::write(fd, &value, 1), 1);
    ::close(fd);
    made.insert(name);
  }
  std::string all;  // each value there is, the last of them left out
  for (int value = 1; value < 256; ++value)
    if (value != '/') all += static_cast<char>(value);
  ::close(make(all));
  made.insert(all);
  auto listed = list();
  for (const std::string& name : made) EXPECT_EQ(listed.count(name), 1u);
  EXPECT_EQ(listed.size(), made.size() + 2);
  EXPECT_LT(make(std::string(256, 'n')), 0);
  EXPECT_EQ(errno, ENAMETOOLONG);
  for (const std::string& name : made) {
    struct stat st;
    EXPECT_EQ(::fstatat(top, name.c_str(), &st, 0), 0);
    std::string other = name;
    other[200] = name[200] == 'x' ? 'y' : 'x';
    EXPECT_EQ(::renameat(top, name.c_str(), top, other.c_str()), 0);
    EXPECT_EQ(::unlinkat(top, other.c_str(), 0), 0);
  }
  EXPECT_EQ(list().size(), 2u);
}

// Each counts up its own file and, with appends, one that all share.
TEST_F(Crowd, SixtyFourThreadsAtOnce) {
  constexpr int kThreads = 64, kRounds = 60;
  ::close(make("shared"));
  std::atomic<int> wrong = 0;
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      std::string directory = "d" + std::to_string(t % 8), name = directory + "/" + std::to_string(t);
      ::mkdirat(top, directory.c_str(), 0755);
      int shared = make("shared", O_WRONLY | O_APPEND);
      for (int round = 0; round < kRounds; ++round) {
        int fd = make(name, O_CREAT | O_RDWR);
        char last = 0, next = static_cast<char>(round + 1);
        if (round > 0 && (::pread(fd, &last, 1, 0) != 1 || last != round)) ++wrong;
        if (::pwrite(fd, &next, 1, 0) != 1) ++wrong;
        if (::write(shared, "line\n", 5) != 5) ++wrong;
        ::close(fd);
        std::string moved = name + "-moved";
        if (::renameat(top, name.c_str(), top, moved.c_str()) != 0) ++wrong;
        if (::renameat(top, moved.c_str(), top, name.c_str()) != 0) ++wrong;
      }
      ::close(shared);
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(wrong, 0);
  struct stat st;
  ASSERT_EQ(::fstatat(top, "shared", &st, 0), 0);
  EXPECT_EQ(st.st_size, kThreads * kRounds * 5) << "appends were lost";
}

// What runs is mapped; it cannot be written meanwhile, and its bytes come from the mount.
TEST(CrowdOfOne, AProgramIsMappedFromTheMountAndRuns) {
  Mounted mounted;
  Ran ran = mounted.run(R"sh(
    cp $PYTHON python; cp -L /bin/sleep sleep; ./sleep 5 & pid=$!
    while test "$(readlink /proc/$pid/exe)" != "$PWD/sleep"; do :; done
    $PYTHON -I -c "
import errno, os
try: os.open('sleep', os.O_WRONLY)
except OSError as error: assert error.errno == errno.ETXTBSY, error
else: assert False"
    kill $pid; cmp python $PYTHON; ./python -I -c 'print(6 * 7)'
  )sh");
  EXPECT_EQ(ran.output, "42\n");
}

}  // namespace
}  // namespace reprise::fuse::testing

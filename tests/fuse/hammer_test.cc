// A leader that changes without a pause, and a mount of a follower in which everything is looked at after
// each change, by callers whose kernel has cached all that was there before.
//
//   REPRISE_HAMMER_CHANGES=100000 fuse_tests --gtest_filter='Hammer.*'     REPRISE_HAMMER_SEED=7
//
// The leader's changes are random calls of guests (tests/posix/fuzz.h): files extended, truncated, written
// to, replaced by rename, exchanged, deleted and made again, linked, their modes, owners, times and
// attributes changed. Now and then the follower is overwritten.
#include <dirent.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <iostream>
#include <map>
#include <random>
#include <thread>

#include "tests/fs/recording.h"
#include "tests/fuse/served_mount.h"
#include "tests/posix/fuzz.h"
#include "tests/posix/guest_calls.h"
#include "tests/posix/kernel_calls.h"

namespace reprise::fuse::testing {
namespace {

using posix::Calls;
using posix::Crew;
using posix::KernelRoot;

// Every path with all that can be said of it; and the names that are not there, of which the kernel remembers
// that they are absent. Without those a new name is found by a listing alone.
class Look {
 public:
  Look(Calls& who, bool absent_names) : who_(who), absent_names_(absent_names) {}

  std::map<std::string, std::string> everything() {
    found_.clear();
    say("", who_.stat("/"));
    look_into("");
    return std::move(found_);
  }
  static std::string text(const fs::Attributes& a) {
    return fmt::format(
        "inode {} mode {:o} owner {}:{} links {} size {} blocks {} rdev {} mtime {}.{} ctime {}.{}",
        a.inode.value, a.mode, a.uid, a.gid, a.nlink, a.size, a.blocks, a.rdev, a.mtime.sec, a.mtime.nsec,
        a.ctime.sec, a.ctime.nsec);
  }

 private:
  void say(const std::string& path, const fs::Outcome<fs::Attributes>& a) {
    found_[path] = a ? text(*a) : posix::name_of(a);
  }
  void look_into(const std::string& directory) {
    std::vector<std::string> names;
    if (absent_names_) names = {"a", "b", "c", "d"};
    std::string listing;
    auto entries = who_.list(directory + "/");
    if (!entries) listing = posix::name_of(entries);
    for (const auto& entry : entries.value_or(std::vector<fs::DirectoryEntry>{})) {
      listing += fmt::format(" {}:{}:{}", entry.name, entry.inode.value, entry.type);
      if (std::ranges::find(names, entry.name) == names.end()) names.push_back(entry.name);
    }
    found_[directory + "/"] = listing;
    for (const std::string& name : names) look_at(directory + "/" + name);
  }
  void look_at(const std::string& path) {
    auto a = who_.lstat(path);
    say(path, a);
    if (!a) return;
    if (a->is_symlink()) found_[path] += " to " + who_.readlink(path).value_or("?");
    if (a->is_regular()) found_[path] += " bytes " + bytes_of(path);
    std::string names = who_.list_xattrs(path).value_or("unlisted");
    for (const char* name : {"user.a", "trusted.t"}) {
      if (names.find(name) == std::string::npos) continue;
      auto value = who_.get_xattr(path, name);
      found_[path] += std::string(" ") + name + " " + (value ? *value : posix::name_of(value));
    }
    if (a->is_directory()) look_into(path);
  }
  std::string bytes_of(const std::string& path) {
    auto fd = who_.open(path, O_RDONLY);
    if (!fd) return posix::name_of(fd);
    constexpr size_t kSeen = 128 << 10;
    auto bytes = who_.pread(*fd, kSeen, 0);
    (void)who_.close(*fd);
    return bytes ? std::to_string(std::hash<std::string>{}(*bytes)) : posix::name_of(bytes);
  }

  Calls& who_;
  const bool absent_names_;
  std::map<std::string, std::string> found_;
};

// The instance that is followed.
class Leader {
 public:
  explicit Leader(uint64_t seed) : random_(seed) { perform({.call = "chmod", .path = "/", .mode = 0777}); }

  // The operations of one random call that changed something.
  std::vector<fs::Operation> change() {
    for (;;) {
      if (next_ == script_.size()) script_ = posix::random_script(random_, 200), next_ = 0;
      if (auto operations = perform(script_[next_++]); !operations.empty()) return operations;
    }
  }
  // The tree as an overwrite has it: without inodes that have no name and are only held open.
  fs::View named_tree() {
    for (int slot = 0; slot < Crew::kSlots; ++slot) crew_.perform({.call = "close", .slot = slot});
    for (size_t i = 0; i < posix::script_callers().size(); ++i)
      crew_.perform({.call = "chdir", .caller = static_cast<int>(i), .path = "/"});
    return world_.filesystem.view();
  }
  fs::Filesystem& filesystem() { return world_.filesystem; }
  std::map<std::string, std::string> look(bool absent_names) {
    return Look(*looker_, absent_names).everything();
  }

 private:
  std::vector<fs::Operation> perform(const posix::Step& step) {
    size_t before = world_.sink.operations.size();
    crew_.perform(step);
    auto made = world_.sink.operations.begin() + static_cast<std::ptrdiff_t>(before);
    return {made, world_.sink.operations.end()};
  }

  std::mt19937_64 random_;
  fs::Recorded world_;
  Crew crew_ = posix::crew_of(
      [this](const posix::Credentials& who) { return posix::guest_calls(world_.filesystem, who); });
  std::unique_ptr<Calls> looker_ = posix::guest_calls(world_.filesystem, {});
  posix::Script script_;
  size_t next_ = 0;
};

// The instance that follows, mounted.
class Follower {
 public:
  void apply(const std::vector<fs::Operation>& operations) {
    Status applied = mount_->coherence().apply_remotely(operations, [&]() -> Status {
      Status status;
      filesystem_.replay([&](fs::Head& head) {
        for (const fs::Operation& operation : operations)
          if (auto done = head.apply(operation); !done)
            status = reprise::fail(Code::kDivergence, fs::errno_text(done.error()));
      });
      return status;
    });
    ASSERT_TRUE(applied) << applied.error().message();
  }
  void overwrite(const fs::View& tree) {
    Status done = mount_->coherence().replace_all(
        [&]() -> Result<fs::View> { return filesystem_.install(tree); }, &tree);
    ASSERT_TRUE(done) << done.error().message();
  }
  std::map<std::string, std::string> look(bool absent_names) {
    return Look(*looker_, absent_names).everything();
  }
  // Of what is open, by descriptor, with its inode.
  fs::Outcome<fs::Attributes> stat_open(int fd) { return looker_->fstat(fd); }
  fs::Outcome<int> open(const std::string& path) { return looker_->open(path, O_RDONLY | O_NONBLOCK); }
  void close(int fd) { (void)looker_->close(fd); }
  // Until the kernel caches again the attributes of what has changed (LookupTable).
  void settle(bool absent_names) {
    for (int i = 0; i < 2; ++i) {
      look(absent_names);
      ::usleep(55'000);
    }
    look(absent_names);
  }
  int top() const { return top_; }
  ~Follower() {
    looker_.reset();
    root_.reset();
    ::close(top_);
  }

 private:
  static std::unique_ptr<ServedMount> mounted(fs::Filesystem& filesystem) {
    auto mount = ServedMount::make(filesystem);
    if (!mount) ADD_FAILURE() << mount.error().message();
    CHECK(mount.has_value());
    return std::move(*mount);
  }

  std::unique_ptr<fs::InodeIdSource> ids_ = fs::local_inode_ids();
  fs::Filesystem filesystem_{fs::Head::create(fs::kBeginning), system_clock(), *ids_};
  std::unique_ptr<ServedMount> mount_ = mounted(filesystem_);
  int top_ = mount_->open_top();
  std::optional<KernelRoot> root_{std::in_place, posix::MountedFilesystem{.root = mount_->open_top()}};
  std::unique_ptr<Calls> looker_ = root_->calls({});
};

// Threads that look at all names there may be without a pause, so that there are always answers on their way
// into the kernel's caches.
class Readers {
 public:
  Readers(int top, int count) {
    KernelRoot::leave();
    for (int i = 0; i < count; ++i)
      threads_.emplace_back([this, top, i] { look(top, static_cast<uint64_t>(i)); });
  }
  ~Readers() {
    stop_ = true;
    for (std::thread& thread : threads_) thread.join();
  }

 private:
  void look(int top, uint64_t seed) {
    static const std::array<const char*, 12> kPaths{"a",     "b",     "c",   "d",   "a/a", "a/b",
                                                    "a/b/c", "b/c/a", "b/a", "b/c", "d/a", "."};
    std::mt19937_64 random(seed);
    std::array<char, 8192> buffer;
    while (!stop_) {
      const char* path = kPaths[random() % kPaths.size()];
      struct stat st;
      ::fstatat(top, path, &st, AT_SYMLINK_NOFOLLOW);
      int fd = ::openat(top, path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
      if (fd < 0) continue;
      if (::read(fd, buffer.data(), buffer.size()) < 0) (void)::getdents64(fd, buffer.data(), buffer.size());
      ::fgetxattr(fd, "user.a", buffer.data(), buffer.size());
      ::close(fd);
    }
  }

  std::atomic<bool> stop_{false};
  std::vector<std::thread> threads_;
};

// A few descriptors that stay open in the follower while what they are open on is written, moved and removed.
class OpenFiles {
 public:
  OpenFiles(Leader& leader, Follower& follower) : leader_(leader), follower_(follower) {}
  ~OpenFiles() {
    for (auto& file : files_) close(file);
  }
  void exchange_one(uint64_t which, const std::string& path) {
    auto& file = files_[which % files_.size()];
    close(file);
    if (auto fd = follower_.open(path)) file.fd = *fd;
    if (file.fd < 0) return;
    auto attributes = follower_.stat_open(file.fd);
    file.inode = attributes ? attributes->inode : InodeId{};
  }
  // Empty, or what is not as it is with the leader. What has no name left there is nobody's any more.
  std::string difference() {
    for (const auto& file : files_) {
      if (file.fd < 0) continue;
      auto expected = leader_.filesystem().get_attributes(file.inode);
      if (!expected || expected->nlink == 0) continue;
      auto got = follower_.stat_open(file.fd);
      std::string text = got ? Look::text(*got) : posix::name_of(got);
      if (text != Look::text(*expected)) return "open: " + text + "\n expected " + Look::text(*expected);
    }
    return {};
  }

 private:
  struct Open {
    int fd = -1;
    InodeId inode;
  };
  void close(Open& file) {
    if (file.fd >= 0) follower_.close(std::exchange(file.fd, -1));
  }
  Leader& leader_;
  Follower& follower_;
  std::array<Open, 4> files_;
};

void hammer(uint64_t seed, uint64_t changes, int readers, std::map<std::string, uint64_t>& kinds) {
  (void)posix::keep_mounts_private();  // before there are threads, which have this one's
  Leader leader(seed);
  Follower follower;
  follower.overwrite(leader.named_tree());
  OpenFiles open_files(leader, follower);
  Readers busy(follower.top(), readers);
  std::mt19937_64 random(seed);
  const bool absent_names = seed % 2 == 0;
  for (uint64_t change = 1; change <= changes; ++change) {
    std::vector<fs::Operation> operations = leader.change();
    bool overwrite = random() % 200 == 0;
    if (overwrite) {
      for (int more = 0; more < 20; ++more) leader.change();
      follower.overwrite(leader.named_tree());
    } else {
      follower.apply(operations);
    }
    for (const fs::Operation& operation : operations)
      ++kinds[overwrite ? "overwrite" : std::string(fs::operation_name(operation))];
    auto said = [&] {
      std::string text = fmt::format("seed {}, change {}:", seed, change);
      for (const fs::Operation& operation : operations)
        text += fmt::format(" {}", fs::operation_name(operation));
      return text + (overwrite ? " and more, by an overwrite" : "");
    };
    auto seen = follower.look(absent_names), expected = leader.look(absent_names);
    ASSERT_EQ(posix::differing_entry(seen, expected), "") << said();
    ASSERT_EQ(open_files.difference(), "") << said();
    if (change % 128 == 0) follower.settle(absent_names);
    if (random() % 8 == 0) open_files.exchange_one(random(), "/" + std::string(1, "abcd"[random() % 4]));
  }
}

uint64_t changes() {
  return posix::from_environment("REPRISE_HAMMER_CHANGES", 500);
}
uint64_t seed() {
  return posix::from_environment("REPRISE_HAMMER_SEED", 1);
}

void hammer_for_a_while(int readers) {
  ASSERT_EQ(::geteuid(), 0u) << "mounting for this process needs root";
  std::map<std::string, uint64_t> kinds;
  constexpr uint64_t kAtATime = 250;  // then from an empty tree again
  uint64_t made = 0;
  for (uint64_t s = seed(); made < changes() && !::testing::Test::HasFatalFailure(); ++s) {
    uint64_t now = std::min(kAtATime, changes() - made);
    hammer(s, now, readers, kinds);
    made += now;
  }
  std::cout << made << " changes, of which";
  for (const auto& [kind, count] : kinds) std::cout << " " << kind << " " << count;
  std::cout << "\n";
}

TEST(Hammer, EveryChangeIsSeenAtOnceByWhoHadCachedWhatWasBefore) {
  hammer_for_a_while(0);
}

TEST(Hammer, AlsoAmongReadersThatNeverPause) {
  hammer_for_a_while(2);
}

}  // namespace
}  // namespace reprise::fuse::testing

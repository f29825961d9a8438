// Advisory locks of guests and of the kernel's tmpfs, side by side: the same calls by several owners must
// give the same answers, and the same calls must wait.
//
//   REPRISE_LOCK_STEPS=300000 fs_tests --gtest_filter='KernelLocks.*'     as many steps, however long it
//   takes REPRISE_LOCK_SEED=7                                                   another beginning
#include <gtest/gtest.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdlib>
#include <fstream>
#include <functional>
#include <iostream>
#include <random>
#include <thread>

#include "base/check.h"
#include "fs/guest.h"
#include "tests/fs/recording.h"

namespace reprise::fs {
namespace {

constexpr size_t kActors = 5, kSlots = 3, kSteps = 400;
constexpr std::array<const char*, 3> kFiles = {"f", "g", "d"};  // d is a directory
constexpr int64_t kFileBytes = 10;
constexpr std::chrono::seconds kUsualTime{2};

struct Step {
  enum class Kind { kOpen, kClose, kDup, kDupTo, kSeek, kFlock, kSetLock, kGetLock, kInterrupt };
  Kind kind = Kind::kOpen;
  size_t actor = 0, slot = 0, other_slot = 0, file = 0;
  int flags = 0;  // of open; operation; command; where to seek to
  struct flock lock = {};
  bool brief = false;  // of what is in the way, say only whether it is read or write
};

std::string to_text(const Step& step) {
  static const char* const kNames[] = {"open",  "close", "dup", "dup2",     "seek",
                                       "flock", "set",   "get", "interrupt"};
  std::string text = "actor " + std::to_string(step.actor) + " " + kNames[static_cast<int>(step.kind)] +
                     " slot " + std::to_string(step.slot);
  switch (step.kind) {
    case Step::Kind::kOpen:
      return text + " file " + kFiles[step.file] + " flags " + std::to_string(step.flags);
    case Step::Kind::kDup:
    case Step::Kind::kDupTo:
      return text + " to slot " + std::to_string(step.other_slot);
    case Step::Kind::kSeek:
    case Step::Kind::kFlock:
      return text + " " + std::to_string(step.flags);
    case Step::Kind::kSetLock:
    case Step::Kind::kGetLock:
      return text + " command " + std::to_string(step.flags) + " type " + std::to_string(step.lock.l_type) +
             " whence " + std::to_string(step.lock.l_whence) + " " + std::to_string(step.lock.l_start) + "+" +
             std::to_string(step.lock.l_len);
    default:
      return text;
  }
}

bool may_wait(const Step& step) {
  if (step.kind == Step::Kind::kFlock) return (step.flags & LOCK_NB) == 0 && step.flags != LOCK_UN;
  return step.kind == Step::Kind::kSetLock && (step.flags == F_SETLKW || step.flags == F_OFD_SETLKW);
}

std::string shown(const Step& step, const struct flock& lock) {
  if (lock.l_type == F_UNLCK) return "free";
  if (step.brief) return lock.l_type == F_RDLCK ? "read" : "write";
  return std::string(lock.l_type == F_RDLCK ? "read " : "write ") + std::to_string(lock.l_start) + "+" +
         std::to_string(lock.l_len) + " pid " + std::to_string(lock.l_pid);
}

// One process, as far as locks are concerned: descriptors in slots.
class Process {
 public:
  virtual ~Process() = default;
  // Runs on the thread that the process is used by.
  virtual void begin() {}
  virtual std::string perform(const Step& step) = 0;
  // From another thread: the call that waits.
  virtual void interrupt(pthread_t thread) = 0;
};

class GuestProcess final : public Process {
 public:
  explicit GuestProcess(Filesystem& filesystem) : guest_(filesystem, {.pid = getpid()}) {}

  std::string perform(const Step& step) override {
    int& fd = slots_[step.slot];
    switch (step.kind) {
      case Step::Kind::kOpen: {
        auto opened = guest_.open(kFiles[step.file], step.flags);
        if (opened) put(step.slot, *opened);
        return std::to_string(error_of(opened));
      }
      case Step::Kind::kClose:
        return std::to_string(error_of(guest_.close(std::exchange(fd, -1))));
      case Step::Kind::kDup: {
        auto copy = guest_.dup(fd);
        if (copy && step.slot != step.other_slot) put(step.other_slot, *copy);
        if (copy && step.slot == step.other_slot) CHECK(guest_.close(*copy));
        return std::to_string(error_of(copy));
      }
      case Step::Kind::kDupTo:
        return std::to_string(error_of(guest_.dup_to(fd, slots_[step.other_slot])));
      case Step::Kind::kSeek:
        return std::to_string(error_of(guest_.seek(fd, step.flags, SEEK_SET)));
      case Step::Kind::kFlock:
        return std::to_string(error_of(guest_.flock(fd, step.flags, token())));
      case Step::Kind::kSetLock:
        if (counts_from_end_of_directory(step)) return "not compared";
        return std::to_string(error_of(guest_.set_lock(fd, step.flags, step.lock, token())));
      case Step::Kind::kGetLock: {
        if (counts_from_end_of_directory(step)) return "not compared";
        auto found = guest_.get_lock(fd, step.flags, step.lock);
        return found ? shown(step, *found) : std::to_string(error_of(found));
      }
      case Step::Kind::kInterrupt:
        break;
    }
    return "not a call";
  }
  // Directories are of another size in each filesystem.
  bool counts_from_end_of_directory(const Step& step) {
    auto opened = guest_.fstat(slots_[step.slot]);
    return opened && opened->is_directory() && step.lock.l_whence == SEEK_END;
  }
  void interrupt(pthread_t) override {
    std::lock_guard lock(mutex_);
    stop_.request_stop();
  }

 private:
  std::stop_token token() {
    std::lock_guard lock(mutex_);
    stop_ = {};
    return stop_.get_token();
  }
  void put(size_t slot, int fd) {
    if (slots_[slot] >= 0) CHECK(guest_.close(slots_[slot]));
    slots_[slot] = fd;
  }

  Guest guest_;
  std::array<int, kSlots> slots_{-1, -1, -1};
  std::mutex mutex_;
  std::stop_source stop_;
};

// A thread with a descriptor table of its own: to the kernel that is what owns POSIX locks.
class KernelProcess final : public Process {
 public:
  explicit KernelProcess(std::string directory) : directory_(std::move(directory)) {}
  ~KernelProcess() override = default;  // descriptors go with the thread

  void begin() override { CHECK(unshare(CLONE_FILES) == 0); }
  std::string perform(const Step& step) override {
    errno = 0;
    int& fd = slots_[step.slot];
    switch (step.kind) {
      case Step::Kind::kOpen: {
        int opened = ::open((directory_ + "/" + kFiles[step.file]).c_str(), step.flags);
        if (opened >= 0) put(step.slot, opened);
        return answer(opened);
      }
      case Step::Kind::kClose:
        return answer(::close(std::exchange(fd, -1)));
      case Step::Kind::kDup: {
        int copy = ::dup(fd);
        if (copy >= 0 && step.slot != step.other_slot) put(step.other_slot, copy);
        if (copy >= 0 && step.slot == step.other_slot) CHECK(::close(copy) == 0);
        return answer(copy);
      }
      case Step::Kind::kDupTo:
        return answer(::dup2(fd, slots_[step.other_slot]));
      case Step::Kind::kSeek:
        return answer(::lseek(fd, step.flags, SEEK_SET));
      case Step::Kind::kFlock:
        return answer(::flock(fd, step.flags));
      case Step::Kind::kSetLock: {
        if (counts_from_end_of_directory(step)) return "not compared";
        struct flock lock = step.lock;
        return answer(::fcntl(fd, step.flags, &lock));
      }
      case Step::Kind::kGetLock: {
        if (counts_from_end_of_directory(step)) return "not compared";
        struct flock lock = step.lock;
        return ::fcntl(fd, step.flags, &lock) < 0 ? answer(-1) : shown(step, lock);
      }
      case Step::Kind::kInterrupt:
        break;
    }
    return "not a call";
  }
  bool counts_from_end_of_directory(const Step& step) {
    struct stat st;
    return fstat(slots_[step.slot], &st) == 0 && S_ISDIR(st.st_mode) && step.lock.l_whence == SEEK_END;
  }
  void interrupt(pthread_t thread) override { pthread_kill(thread, SIGUSR1); }

 private:
  static std::string answer(int64_t result) { return std::to_string(result < 0 ? errno : 0); }
  void put(size_t slot, int fd) {
    if (slots_[slot] >= 0) CHECK(::close(slots_[slot]) == 0);
    slots_[slot] = fd;
  }

  const std::string directory_;
  std::array<int, kSlots> slots_{-1, -1, -1};
};

// A process and the thread that makes its calls.
class Actor {
 public:
  explicit Actor(std::unique_ptr<Process> process) : process_(std::move(process)) {
    thread_ = std::jthread([this] { work(); });
  }
  ~Actor() {
    {
      std::lock_guard lock(mutex_);
      ending_ = true;
    }
    changed_.notify_one();
  }

  void start(const Step& step) {
    {
      std::lock_guard lock(mutex_);
      step_ = step;
      busy_ = true;
    }
    changed_.notify_one();
  }
  bool busy() const { return busy_; }
  void interrupt() { process_->interrupt(thread_.native_handle()); }
  // Once: what the last call that ended has answered.
  std::string take_answer() {
    std::lock_guard lock(mutex_);
    return std::exchange(answer_, "");
  }

 private:
  void work() {
    process_->begin();
    std::unique_lock lock(mutex_);
    for (;;) {
      changed_.wait(lock, [&] { return ending_ || step_; });
      if (ending_) return;
      Step step = *step_;
      step_.reset();
      lock.unlock();
      std::string answer = process_->perform(step);
      lock.lock();
      answer_ = answer;
      busy_ = false;
    }
  }

  const std::unique_ptr<Process> process_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::optional<Step> step_;
  std::string answer_;
  bool ending_ = false;
  std::atomic<bool> busy_ = false;
  std::jthread thread_;
};

// Several processes on the same files.
class Side {
 public:
  Side(std::vector<std::unique_ptr<Process>> processes, std::function<size_t()> waiting)
      : waiting_(std::move(waiting)) {
    for (auto& process : processes) actors_.push_back(std::make_unique<Actor>(std::move(process)));
  }

  bool busy(size_t actor) const { return actors_[actor]->busy(); }
  // Does it, and waits until every call has ended or waits for a lock. What has ended since, by actor.
  std::string perform(const Step& step) {
    if (step.kind == Step::Kind::kInterrupt)
      actors_[step.actor]->interrupt();
    else
      actors_[step.actor]->start(step);
    settle(step);
    std::string ended;
    for (size_t i = 0; i < actors_.size(); ++i)
      if (std::string answer = actors_[i]->take_answer(); !answer.empty())
        ended += " " + std::to_string(i) + ": " + answer;
    return ended + (busy(step.actor) ? " waits" : "");
  }

 private:
  size_t busy_count() const {
    return static_cast<size_t>(
        std::ranges::count_if(actors_, [](const auto& actor) { return actor->busy(); }));
  }
  void settle(const Step& step) {
    bool alone = step.kind != Step::Kind::kInterrupt && !may_wait(step);
    while (alone && busy(step.actor)) std::this_thread::yield();
    if (step.kind == Step::Kind::kInterrupt)
      while (busy(step.actor)) std::this_thread::yield();
    while (busy_count() != 0 && busy_count() != waiting_()) std::this_thread::yield();
  }

  std::function<size_t()> waiting_;
  std::vector<std::unique_ptr<Actor>> actors_;
};

// A directory in the kernel's memory with the files in it.
class TmpfsDirectory {
 public:
  TmpfsDirectory() {
    char path[] = "/dev/shm/reprise-locks-XXXXXX";
    struct statfs fs;
    if (mkdtemp(path) == nullptr) return;
    path_ = path;
    is_tmpfs_ = statfs(path, &fs) == 0 && fs.f_type == 0x01021994;
    for (const char* file : kFiles) {
      std::string name = path_ + "/" + file;
      if (*file == 'd')
        CHECK(mkdir(name.c_str(), 0777) == 0);
      else
        std::ofstream(name) << std::string(kFileBytes, 'x');
      struct stat st;
      CHECK(stat(name.c_str(), &st) == 0);
      inodes_.push_back(":" + std::to_string(st.st_ino) + " ");
    }
  }
  ~TmpfsDirectory() {
    for (const char* file : kFiles) ::remove((path_ + "/" + file).c_str());
    ::rmdir(path_.c_str());
  }
  bool is_tmpfs() const { return is_tmpfs_; }
  const std::string& path() const { return path_; }
  // Requests of this process that wait for one of the files. /proc/locks comes in pieces: a lock that is set
  // between two of them shifts the rest, and a line is there twice. So it is read until it is twice the same.
  size_t waiting() const {
    std::vector<std::string> lines = waiting_lines();
    for (;;) {
      std::vector<std::string> again = waiting_lines();
      if (again == lines) return lines.size();
      lines = std::move(again);
    }
  }

 private:
  std::vector<std::string> waiting_lines() const {
    std::ifstream locks("/proc/locks");
    std::string self = " " + std::to_string(getpid()) + " ";
    std::vector<std::string> lines;
    for (std::string line; std::getline(locks, line);) {
      if (line.find("->") == line.npos) continue;
      bool ours =
          std::ranges::any_of(inodes_, [&](const std::string& i) { return line.find(i) != line.npos; });
      if (ours && (line.find(self) != line.npos || line.find(" -1 ") != line.npos)) lines.push_back(line);
    }
    return lines;
  }

  std::string path_;
  bool is_tmpfs_ = false;
  std::vector<std::string> inodes_;
};

// Random steps. `blocking`: calls may wait, and are simple otherwise.
//
// Among requests that wait and are in each other's way, guests serve the one that came first. The kernel does
// so too as long as all wait for the same holder; then it requeues. Such steps are not made.
class Steps {
 public:
  Steps(uint64_t seed, bool blocking) : random_(seed), blocking_(blocking) {}

  Step next(const Side& side) {
    Step step;
    step.actor = below(kActors);
    step.slot = below(kSlots);
    step.other_slot = below(kSlots);
    if (side.busy(step.actor)) {
      step.kind = Step::Kind::kInterrupt;
      return below(8) == 0 ? step : next(side);
    }
    size_t kind = below(100);
    if (kind < 10) return open(step);
    if (kind < 16) return of_kind(step, Step::Kind::kClose);
    if (kind < 19) return of_kind(step, Step::Kind::kDup);
    if (kind < 21) return of_kind(step, Step::Kind::kDupTo);
    if (kind < 23) {
      step.flags = static_cast<int>(below(12));
      return of_kind(step, Step::Kind::kSeek);
    }
    if (kind < 40) return whole_file(step, side);
    return range(step, kind < 55, side);
  }

 private:
  size_t below(size_t end) { return random_() % end; }
  static Step of_kind(Step step, Step::Kind kind) {
    step.kind = kind;
    return step;
  }
  Step open(Step step) {
    static constexpr int kModes[] = {O_RDWR, O_RDWR, O_RDWR, O_RDWR, O_RDONLY, O_WRONLY, O_PATH};
    step.file = below(8) == 0 ? 2 : below(2);
    step.flags = step.file == 2 ? O_RDONLY : kModes[below(std::size(kModes))];
    return of_kind(step, Step::Kind::kOpen);
  }
  Step whole_file(Step step, const Side& side) {
    static constexpr int kOperations[] = {LOCK_SH, LOCK_EX, LOCK_UN, LOCK_SH, LOCK_EX};
    step.flags = kOperations[below(5)];
    step.lock = {.l_type = step.flags == LOCK_EX ? short{F_WRLCK} : short{F_RDLCK}};
    step.kind = Step::Kind::kFlock;
    if (!blocking_ || below(3) == 0 || (may_wait(step) && !order_is_certain(step, side)))
      step.flags |= LOCK_NB;
    if (below(50) == 0) step.flags = LOCK_SH | LOCK_EX;
    return step;
  }
  // Whether what waits, whichever file it is of, can be served in one order only.
  bool order_is_certain(const Step& step, const Side& side) {
    waiting_[step.actor].reset();
    for (size_t other = 0; other < kActors; ++other) {
      if (!side.busy(other)) waiting_[other].reset();
      if (!waiting_[other] || waiting_[other]->kind != step.kind) continue;
      const struct flock &a = step.lock, &b = waiting_[other]->lock;
      auto end = [](const struct flock& lock) {
        return lock.l_len == 0 ? INT64_MAX : lock.l_start + lock.l_len;
      };
      bool apart = end(a) <= b.l_start || end(b) <= a.l_start;
      if (!apart && (a.l_type == F_WRLCK || b.l_type == F_WRLCK)) return false;
    }
    waiting_[step.actor] = step;
    return true;
  }
  Step range(Step step, bool get, const Side& side) {
    static constexpr short kTypes[] = {F_RDLCK, F_WRLCK, F_UNLCK, F_RDLCK, F_WRLCK};
    bool open_file = below(2) == 0;
    step.kind = get ? Step::Kind::kGetLock : Step::Kind::kSetLock;
    step.lock = {.l_type = kTypes[below(5)],
                 .l_whence = SEEK_SET,
                 .l_start = static_cast<int64_t>(below(12)),
                 .l_len = static_cast<int64_t>(below(5)),  // 0: to the end
                 .l_pid = 0};
    if (!blocking_) make_odd(step.lock);
    if (get) {
      // Of several that got theirs at once it is the kernel's own business who comes first.
      if (blocking_) step.brief = true, step.lock.l_len = 1;
      step.flags = open_file ? F_OFD_GETLK : F_GETLK;
      // What an open file's own locks are asked for with F_UNLCK is new in Linux 6.
      bool own = open_file && step.lock.l_type != F_RDLCK && step.lock.l_type != F_WRLCK;
      if (own) step.lock.l_type = F_WRLCK;
      return step;
    }
    bool wait = blocking_ && below(3) != 0 && order_is_certain(step, side);
    step.flags = open_file ? (wait ? F_OFD_SETLKW : F_OFD_SETLK) : (wait ? F_SETLKW : F_SETLK);
    return step;
  }
  void make_odd(struct flock& lock) {
    if (below(4) == 0) lock.l_whence = below(2) ? SEEK_CUR : SEEK_END;
    if (below(4) == 0) lock.l_start = -lock.l_start;
    if (below(4) == 0) lock.l_len = -lock.l_len;
    if (below(20) == 0) lock.l_start = INT64_MAX - static_cast<int64_t>(below(3));
    if (below(20) == 0) lock.l_len = INT64_MAX - static_cast<int64_t>(below(12));
    if (below(50) == 0) lock.l_type = 9;
    if (below(50) == 0) lock.l_whence = 9;
    if (below(50) == 0) lock.l_pid = 1;
  }

  std::mt19937_64 random_;
  const bool blocking_;
  std::array<std::optional<Step>, kActors> waiting_;  // what each waited for last
};

uint64_t from_environment(const char* name, uint64_t otherwise) {
  const char* text = std::getenv(name);
  return text == nullptr ? otherwise : std::strtoull(text, nullptr, 10);
}

// The same processes twice, on new files: guests, and the kernel's.
class Both {
 public:
  Both() {
    Guest maker(world_.filesystem);
    for (const char* file : {"f", "g"}) CHECK(maker.write_file(file, std::string(kFileBytes, 'x')));
    CHECK(maker.mkdir("d"));
    std::vector<std::unique_ptr<Process>> guests, processes;
    for (size_t i = 0; i < kActors; ++i) {
      guests.push_back(std::make_unique<GuestProcess>(world_.filesystem));
      processes.push_back(std::make_unique<KernelProcess>(directory_.path()));
    }
    guests_.emplace(std::move(guests), [this] { return world_.filesystem.locks().waiting(); });
    kernel_.emplace(std::move(processes), [this] { return directory_.waiting(); });
  }
  // Nobody may wait any more for what another has.
  ~Both() {
    for (Side* side : {&*guests_, &*kernel_})
      for (size_t actor = 0; actor < kActors; ++actor)
        if (side->busy(actor)) side->perform({.kind = Step::Kind::kInterrupt, .actor = actor});
    guests_.reset();
    EXPECT_EQ(world_.filesystem.locks().held() + world_.filesystem.locks().waiting(), 0u);
  }

  const Side& kernel() const { return *kernel_; }
  // What the kernel's processes answer; a failure if it is not what guests do.
  std::string perform(const Step& step) {
    std::string expected = kernel_->perform(step), got = guests_->perform(step);
    history_ += to_text(step) + " ->" + expected + "\n";
    std::string wrong = world_.filesystem.locks().check_invariants();
    alike_ = got == expected && wrong.empty();
    EXPECT_TRUE(alike_) << history_ << "kernel:" << expected << "\nguests:" << got << "\n" << wrong;
    return expected;
  }
  bool alike() const { return alike_; }

 private:
  TmpfsDirectory directory_;
  Recorded world_;
  std::string history_;
  bool alike_ = true;
  std::optional<Side> guests_, kernel_;
};

// Empty, or why there is nothing to compare with.
std::string no_kernel() {
#ifdef __SANITIZE_THREAD__
  return "threads with descriptors of their own look like races to the thread sanitizer";
#else
  return TmpfsDirectory().is_tmpfs() ? "" : "/dev/shm is no tmpfs that may be written to";
#endif
}

// Without SA_RESTART: a call that waits for a lock is EINTR.
class SignalsInterrupt {
 public:
  SignalsInterrupt() {
    struct sigaction action = {};
    action.sa_handler = [](int) {};
    CHECK(sigaction(SIGUSR1, &action, &before_) == 0);
  }
  ~SignalsInterrupt() { CHECK(sigaction(SIGUSR1, &before_, nullptr) == 0); }

 private:
  struct sigaction before_;
};

void compare(bool blocking) {
  if (std::string reason = no_kernel(); !reason.empty()) GTEST_SKIP() << reason;
  SignalsInterrupt interrupts;
  const uint64_t wanted = from_environment("REPRISE_LOCK_STEPS", 0);
  const auto end = std::chrono::steady_clock::now() + kUsualTime;
  uint64_t made = 0;
  for (uint64_t seed = from_environment("REPRISE_LOCK_SEED", 1);
       wanted != 0 ? made < wanted : std::chrono::steady_clock::now() < end; ++seed, made += kSteps) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    Both both;
    Steps steps(seed, blocking);
    for (size_t i = 0; i < kSteps && both.alike(); ++i) both.perform(steps.next(both.kernel()));
    if (!both.alike()) break;
  }
  std::cout << made << " steps\n";
}

TEST(KernelLocks, CallsThatDoNotWaitAreAnsweredAlike) {
  compare(false);
}

TEST(KernelLocks, CallsThatWaitAreAnsweredAlike) {
  compare(true);
}

TEST(KernelLocks, WhoWaitsForOneHolderIsServedInOrderOfArrival) {
  if (std::string reason = no_kernel(); !reason.empty()) GTEST_SKIP() << reason;
  SignalsInterrupt interrupts;
  struct flock all = {.l_type = F_WRLCK}, none = {.l_type = F_UNLCK};
  struct Row {
    Step lock, unlock;
  };
  const Row rows[] = {
      {{.kind = Step::Kind::kFlock, .flags = LOCK_EX}, {.kind = Step::Kind::kFlock, .flags = LOCK_UN}},
      {{.kind = Step::Kind::kSetLock, .flags = F_SETLKW, .lock = all},
       {.kind = Step::Kind::kSetLock, .flags = F_SETLK, .lock = none}},
      {{.kind = Step::Kind::kSetLock, .flags = F_OFD_SETLKW, .lock = all},
       {.kind = Step::Kind::kSetLock, .flags = F_OFD_SETLK, .lock = none}},
  };
  for (const Row& row : rows) {
    Both both;
    constexpr std::array<size_t, kActors> kOrder = {3, 1, 4, 0, 2};
    auto as = [](Step step, size_t actor) {
      step.actor = actor;
      return step;
    };
    for (size_t actor : kOrder) both.perform({.kind = Step::Kind::kOpen, .actor = actor, .flags = O_RDWR});
    EXPECT_EQ(both.perform(as(row.lock, kOrder[0])), " 3: 0");
    for (size_t i = 1; i < kActors; ++i) EXPECT_EQ(both.perform(as(row.lock, kOrder[i])), " waits");
    both.perform({.kind = Step::Kind::kInterrupt, .actor = kOrder.back()});
    for (size_t i = 0; i + 2 < kActors; ++i) {
      std::string next = std::to_string(kOrder[i + 1]) + ": 0";
      EXPECT_NE(both.perform(as(row.unlock, kOrder[i])).find(next), std::string::npos)
          << "after " << kOrder[i];
    }
    EXPECT_TRUE(both.alike());
  }
}

}  // namespace
}  // namespace reprise::fs

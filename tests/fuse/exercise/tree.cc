// Many processes that do random things to one small tree, so that they are in each other's way all the time.
// No call's result is known beforehand; but some errors no filesystem may answer, and in the end each block
// of a file is of one writer.
#include <dirent.h>
#include <fcntl.h>
#include <ftw.h>
#include <linux/falloc.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <set>
#include <vector>

#include "tests/fuse/exercise/exercise.h"

namespace reprise::exercise {
namespace {

constexpr size_t kBlock = 4096;

// Errors that a call may end with when others change what it works on. What is missing would be a fault of
// the filesystem: EIO, ESTALE, ENOTCONN, ENOSYS, EDEADLK, …
bool may_be(int error) {
  for (int usual : {ENOENT, EEXIST, ENOTDIR, EISDIR, ENOTEMPTY, EINVAL, ELOOP, EXDEV, EBUSY, ENODATA, ENXIO,
                    EOPNOTSUPP, EPERM, EMLINK, ETXTBSY, ESPIPE, ENODEV, EAGAIN, EPIPE})  // the last of FIFOs
    if (error == usual) return true;
  return false;
}

class Worker {
 public:
  Worker(uint64_t seed, unsigned number) : seed_(seed), number_(number), random_(seed * 1000 + number) {}

  void run(uint64_t steps) {
    for (step_ = 1; step_ <= steps; ++step_) (this->*kActions[random_.below(kActions.size())])();
  }

 private:
  static const std::array<void (Worker::*)(), 23> kActions;

  std::string name() { return std::string(1, "abcde"[random_.below(5)]); }
  std::string path() {
    std::string path = name();
    for (uint64_t depth = random_.below(3); depth > 0; --depth) path += "/" + name();
    return path;
  }
  std::string block() { return std::string(kBlock, static_cast<char>('A' + number_)); }
  [[noreturn]] void wrong(const std::string& what) {
    fail("seed " + std::to_string(seed_) + " worker " + std::to_string(number_) + " step " +
         std::to_string(step_) + ": " + what);
  }
  // The result, if it is one; errors that may be are let pass.
  long allow(long result, const char* call) {
    if (result < 0 && !may_be(errno)) wrong(call);
    return result;
  }
  int open(int flags) {
    return static_cast<int>(
        allow(::open(path().c_str(), flags | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC, 0644), "open"));
  }
  void close(int fd) {
    if (fd >= 0 && ::close(fd) != 0) wrong("close");
  }

  // --- names
  void create() { close(open(O_CREAT | O_RDWR | (random_.one_in(4) ? O_EXCL : 0))); }
  void make_directory() { allow(::mkdir(path().c_str(), 0755), "mkdir"); }
  void make_node() {
    allow(::mknod(path().c_str(), (random_.one_in(2) ? S_IFIFO : S_IFREG) | 0644, 0), "mknod");
  }
  void remove() { allow(::unlink(path().c_str()), "unlink"); }
  void remove_directory() { allow(::rmdir(path().c_str()), "rmdir"); }
  void rename() {
    static constexpr unsigned kFlags[] = {0, 0, RENAME_NOREPLACE, RENAME_EXCHANGE};
    std::string from = path(), to = path();
    allow(::renameat2(AT_FDCWD, from.c_str(), AT_FDCWD, to.c_str(), kFlags[random_.below(4)]), "rename");
  }
  void link() {
    std::string from = path(), to = path();
    allow(::link(from.c_str(), to.c_str()), "link");
  }
  void symlink() {
    std::string target = path(), at = path();
    allow(::symlink(target.c_str(), at.c_str()), "symlink");
  }
  void list() {
    DIR* directory = ::opendir(path().c_str());
    if (directory == nullptr) {
      allow(-1, "opendir");
      return;
    }
    std::set<std::string> names;
    while (dirent* entry = ::readdir(directory))
      if (!names.insert(entry->d_name).second) wrong(std::string("a name listed twice: ") + entry->d_name);
    ::closedir(directory);
  }

  // --- bytes: whole blocks, each of one letter
  void write() {
    int fd = open(O_WRONLY);
    if (fd < 0) return;
    std::string bytes;
    for (uint64_t blocks = 1 + random_.below(4); blocks > 0; --blocks) bytes += block();
    auto offset = static_cast<off_t>(kBlock * random_.below(30));
    allow(::pwrite(fd, bytes.data(), bytes.size(), offset), "pwrite");
    close(fd);
  }
  void append() {
    int fd = open(O_WRONLY | O_APPEND);
    if (fd < 0) return;
    struct stat st;
    if (::fstat(fd, &st) == 0 && st.st_size < 1 << 20) allow(::write(fd, block().data(), kBlock), "append");
    close(fd);
  }
  void read() {
    int fd = open(O_RDONLY);
    if (fd < 0) return;
    std::vector<char> bytes(64 * kBlock);
    allow(::pread(fd, bytes.data(), bytes.size(), 0), "pread");
    close(fd);
  }
  void truncate() {
    allow(::truncate(path().c_str(), static_cast<off_t>(kBlock * random_.below(20))), "truncate");
  }
  void reserve() {
    int fd = open(O_WRONLY);
    if (fd < 0) return;
    int mode = random_.one_in(2) ? FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE : 0;
    allow(::fallocate(fd, mode, static_cast<off_t>(kBlock * random_.below(20)), kBlock * 3), "fallocate");
    close(fd);
  }
  void copy() {
    int from = open(O_RDONLY), to = from < 0 ? -1 : open(O_WRONLY);
    auto from_offset = static_cast<off_t>(kBlock * random_.below(8)),
         to_offset = static_cast<off_t>(kBlock * random_.below(8));
    if (to >= 0)
      allow(::copy_file_range(from, &from_offset, to, &to_offset, kBlock * 4, 0), "copy_file_range");
    close(from);
    close(to);
  }

  // --- attributes
  void change_mode() {
    allow(::chmod(path().c_str(), static_cast<mode_t>(0600 | random_.below(0200))), "chmod");
  }
  void change_times() {
    timespec times[2] = {{0, UTIME_NOW}, {static_cast<time_t>(random_.below(1000)), 0}};
    allow(::utimensat(AT_FDCWD, path().c_str(), times, AT_SYMLINK_NOFOLLOW), "utimensat");
  }
  void change_xattr() {
    std::string value(random_.below(200), 'v'), where = path();
    allow(::setxattr(where.c_str(), "user.x", value.data(), value.size(), 0), "setxattr");
    if (random_.one_in(3)) allow(::removexattr(where.c_str(), "user.x"), "removexattr");
  }
  void look() {
    struct stat st;
    allow(::lstat(path().c_str(), &st), "lstat");
  }

  // --- files without a name
  void unnamed() {
    int fd = ::open(".", O_TMPFILE | O_RDWR | O_CLOEXEC, 0644);
    if (allow(fd, "O_TMPFILE") < 0) return;
    allow(::write(fd, block().data(), kBlock), "write without a name");
    std::string it = "/proc/self/fd/" + std::to_string(fd);
    allow(::linkat(AT_FDCWD, it.c_str(), AT_FDCWD, path().c_str(), AT_SYMLINK_FOLLOW), "linkat");
    close(fd);
  }
  // Of its own, so that nobody cuts off what is mapped.
  void use_after_removal() {
    std::string own = "own-" + std::to_string(number_);
    int fd = ::open(own.c_str(), O_CREAT | O_EXCL | O_RDWR | O_CLOEXEC, 0644);
    if (fd < 0 || ::unlink(own.c_str()) != 0) wrong("making and removing its own file");
    if (::ftruncate(fd, kBlock) != 0) wrong("ftruncate of its own file");
    void* at = ::mmap(nullptr, kBlock, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (at == MAP_FAILED) wrong("mmap of its own file");
    static_cast<char*>(at)[77] = 'm';
    if (random_.one_in(2) && ::msync(at, kBlock, MS_SYNC) != 0) wrong("msync");
    char byte = '?', other = '?';
    if (::pwrite(fd, "x", 1, 5000) != 1 || ::pread(fd, &byte, 1, 77) != 1 ||
        ::pread(fd, &other, 1, 5000) != 1)
      wrong("reading and writing its own file");
    if (byte != 'm' || other != 'x') wrong("a file without a name lost a byte");
    ::munmap(at, kBlock);
    close(fd);
  }

  const uint64_t seed_;
  const unsigned number_;
  Random random_;
  uint64_t step_ = 0;
};

const std::array<void (Worker::*)(), 23> Worker::kActions{&Worker::create,
                                                          &Worker::create,
                                                          &Worker::make_directory,
                                                          &Worker::make_node,
                                                          &Worker::remove,
                                                          &Worker::remove_directory,
                                                          &Worker::rename,
                                                          &Worker::rename,
                                                          &Worker::link,
                                                          &Worker::symlink,
                                                          &Worker::write,
                                                          &Worker::append,
                                                          &Worker::read,
                                                          &Worker::truncate,
                                                          &Worker::reserve,
                                                          &Worker::copy,
                                                          &Worker::change_mode,
                                                          &Worker::change_times,
                                                          &Worker::change_xattr,
                                                          &Worker::look,
                                                          &Worker::list,
                                                          &Worker::unnamed,
                                                          &Worker::use_after_removal};

int check_blocks(const char* path, const struct stat* st, int kind, FTW*) {
  if (kind != FTW_F || !S_ISREG(st->st_mode)) return 0;
  int fd = ::open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) fail(std::string("opening ") + path);
  std::array<char, kBlock> block;
  for (off_t offset = 0; ::pread(fd, block.data(), kBlock, offset) == static_cast<ssize_t>(kBlock);
       offset += kBlock)
    if (std::memcmp(block.data(), block.data() + 1, kBlock - 1) != 0)
      fail(std::string(path) + ": a block of more than one writer at " + std::to_string(offset));
  ::close(fd);
  return 0;
}

}  // namespace

int exercise_tree(uint64_t seed, uint64_t steps, unsigned workers) {
  ::signal(SIGPIPE, SIG_IGN);
  for (unsigned number = 0; number < workers; ++number) {
    pid_t pid = ::fork();
    if (pid < 0) fail("fork");
    if (pid != 0) continue;
    Worker(seed, number).run(steps);
    ::_exit(0);
  }
  int wrong = 0;
  for (int status; ::wait(&status) > 0;)
    if (status != 0) ++wrong;
  if (wrong != 0) return 1;
  if (::nftw(".", check_blocks, 16, FTW_PHYS) != 0) fail("walking the tree");
  return 0;
}

}  // namespace reprise::exercise

// Two files and what they must hold. Each step changes or reads one of them by one of the ways there are, at
// random; reads are compared at once, a window is after each step, everything is now and then.
#include <fcntl.h>
#include <linux/falloc.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <memory>
#include <vector>

#include "tests/fuse/exercise/exercise.h"

namespace reprise::exercise {
namespace {

constexpr size_t kSizeMax = 300'000;  // of a file; not a multiple of a page
constexpr size_t kMapped = (kSizeMax + 4095) / 4096 * 4096;
constexpr size_t kAlignment = 4096;

enum Way { kPlain, kOther, kDirect, kAppending, kWays };
constexpr int kFlags[kWays] = {O_RDWR, O_RDWR, O_RDWR | O_DIRECT, O_RDWR | O_APPEND};

// A file, its descriptors, a mapping that lives across steps, and its model.
class File {
 public:
  explicit File(std::string name) : name_(std::move(name)) {
    int made = ::open(name_.c_str(), O_CREAT | O_TRUNC | O_RDWR | O_CLOEXEC, 0644);
    if (made < 0) fail("making " + name_);
    ::close(made);
    for (int way = 0; way < kWays; ++way) reopen(way);
    remap();
  }

  // --- what is there
  const std::string& name() const { return name_; }
  size_t size() const { return model_.size(); }
  int fd(int way) const { return fds_[static_cast<size_t>(way)]; }
  char* mapped() { return mapping_; }
  std::string& model() { return model_; }

  void reopen(int way) {
    int& fd = fds_[static_cast<size_t>(way)];
    if (fd >= 0 && ::close(fd) != 0) fail("closing " + name_);
    fd = ::open(name_.c_str(), kFlags[way] | O_CLOEXEC);
    if (fd < 0) fail("opening " + name_);
  }
  void remap() {
    if (mapping_ != nullptr && ::munmap(mapping_, kMapped) != 0) fail("munmap");
    void* at = ::mmap(nullptr, kMapped, PROT_READ | PROT_WRITE, MAP_SHARED, fd(kPlain), 0);
    if (at == MAP_FAILED) fail("mmap of " + name_);
    mapping_ = static_cast<char*>(at);
  }

  // --- what must be
  void put(size_t offset, std::string_view bytes) {
    if (bytes.empty()) return;
    if (model_.size() < offset + bytes.size()) model_.resize(offset + bytes.size(), '\0');
    bytes.copy(model_.data() + offset, bytes.size());
  }
  void resize(size_t size) { model_.resize(size, '\0'); }
  std::string_view expected(size_t offset, size_t length) const {
    return offset >= model_.size() ? std::string_view() : std::string_view(model_).substr(offset, length);
  }

 private:
  std::string name_;
  std::array<int, kWays> fds_{-1, -1, -1, -1};
  char* mapping_ = nullptr;
  std::string model_;
};

class Exercise {
 public:
  explicit Exercise(uint64_t seed) : seed_(seed), random_(seed) {
    void* at = nullptr;
    if (::posix_memalign(&at, kAlignment, kMapped) != 0) fail("memory");
    aligned_.reset(static_cast<char*>(at));
  }

  void run(uint64_t steps) {
    for (step_ = 1; step_ <= steps; ++step_) {
      File& file = one();
      const Action& action = kActions[random_.below(kActions.size())];
      doing_ = action.name;
      (this->*action.act)(file);
      check_window(file);
      check_size(file);
      if (random_.one_in(60)) check_all(one());
    }
    for (File& file : files_) check_all(file);
  }
  // After the last step, with nothing synced that was not.
  void put_models(const std::string& directory) {
    for (File& file : files_) {
      std::FILE* out = std::fopen((directory + "/" + file.name()).c_str(), "w");
      if (out == nullptr) fail("writing to " + directory);
      std::fwrite(file.model().data(), 1, file.size(), out);
      if (std::fclose(out) != 0) fail("writing to " + directory);
    }
  }

 private:
  struct Action {
    const char* name;
    void (Exercise::*act)(File&);
  };
  static const std::array<Action, 27> kActions;

  File& one() { return files_[random_.below(files_.size())]; }
  size_t somewhere(size_t bound) {
    if (bound == 0) return 0;
    size_t at = random_.below(bound);
    return random_.one_in(3) ? at / 4096 * 4096 : at;  // pages' beginnings more often
  }
  size_t offset_in(const File& file) { return somewhere(std::min(file.size() + 5000, kSizeMax)); }
  size_t length_from(size_t offset) {
    static constexpr size_t kLargest[] = {1, 100, 4096, 4096, 20'000, 100'000};
    return std::min(1 + random_.below(kLargest[random_.below(std::size(kLargest))]), kSizeMax - offset);
  }
  std::string bytes(size_t length) {
    std::string some(length, random_.byte());
    for (size_t i = random_.below(64); i < length; i += 1 + random_.below(64)) some[i] = random_.byte();
    return some;
  }

  [[noreturn]] void wrong(const std::string& what) {
    fail("seed " + std::to_string(seed_) + " step " + std::to_string(step_) + ", " + doing_ + ": " + what);
  }
  void must(bool done, const std::string& what) {
    if (!done) wrong(what);
  }
  void expect(const File& file, size_t offset, std::string_view got, std::string_view expected,
              const char* how) {
    if (got == expected) return;
    errno = 0;
    size_t at = 0;
    while (at < got.size() && at < expected.size() && got[at] == expected[at]) ++at;
    wrong(file.name() + " by " + how + " from " + std::to_string(offset) + ": " + std::to_string(got.size()) +
          " bytes, expected " + std::to_string(expected.size()) + "; first difference at " +
          std::to_string(offset + at) + ", size " + std::to_string(file.size()));
  }
  std::string read_at(File& file, int way, size_t offset, size_t length) {
    std::string got(length, '?');
    ssize_t count = ::pread(file.fd(way), got.data(), length, static_cast<off_t>(offset));
    must(count >= 0, "pread");
    got.resize(static_cast<size_t>(count));
    return got;
  }

  // From memory and to places that are aligned, as filesystems may insist.
  void direct_read_at(File& file, size_t offset, size_t length) {
    ssize_t count = ::pread(file.fd(kDirect), aligned_.get(), length, static_cast<off_t>(offset));
    must(count >= 0, "O_DIRECT pread");
    expect(file, offset, {aligned_.get(), static_cast<size_t>(count)}, file.expected(offset, length),
           "O_DIRECT pread");
  }

  // --- checks
  void check_window(File& file) {
    size_t offset = somewhere(file.size() + 1), length = length_from(std::min(offset, kSizeMax - 1));
    expect(file, offset, read_at(file, kOther, offset, length), file.expected(offset, length), "pread");
  }
  void check_size(File& file) {
    struct stat st;
    must(::fstat(file.fd(kPlain), &st) == 0, "fstat");
    errno = 0;
    must(static_cast<size_t>(st.st_size) == file.size(), file.name() + " has size " +
                                                             std::to_string(st.st_size) + ", expected " +
                                                             std::to_string(file.size()));
    must(::stat(file.name().c_str(), &st) == 0 && static_cast<size_t>(st.st_size) == file.size(), "stat");
  }
  void check_all(File& file) {
    doing_ += " then all";
    expect(file, 0, read_at(file, kPlain, 0, kMapped), file.expected(0, kMapped), "pread of all");
    expect(file, 0, {file.mapped(), file.size()}, file.expected(0, kMapped), "the mapping");
    direct_read_at(file, 0, kMapped);
  }

  // --- actions
  void pread(File& file) {
    size_t offset = offset_in(file), length = length_from(offset);
    expect(file, offset, read_at(file, kPlain, offset, length), file.expected(offset, length), "pread");
  }
  void read(File& file) {
    size_t offset = offset_in(file), length = length_from(offset);
    must(::lseek(file.fd(kOther), static_cast<off_t>(offset), SEEK_SET) >= 0, "lseek");
    std::string got(length, '?');
    ssize_t count = ::read(file.fd(kOther), got.data(), length);
    must(count >= 0, "read");
    expect(file, offset, std::string_view(got).substr(0, static_cast<size_t>(count)),
           file.expected(offset, length), "read");
  }
  void pwrite(File& file) {
    size_t offset = offset_in(file);
    std::string data = bytes(length_from(offset));
    must(::pwrite(file.fd(kPlain), data.data(), data.size(), static_cast<off_t>(offset)) ==
             static_cast<ssize_t>(data.size()),
         "pwrite");
    file.put(offset, data);
  }
  void write(File& file) {
    size_t offset = offset_in(file);
    std::string data = bytes(length_from(offset));
    must(::lseek(file.fd(kOther), static_cast<off_t>(offset), SEEK_SET) >= 0, "lseek");
    must(::write(file.fd(kOther), data.data(), data.size()) == static_cast<ssize_t>(data.size()), "write");
    file.put(offset, data);
  }
  void write_parts(File& file) {
    size_t offset = offset_in(file);
    std::string data = bytes(length_from(offset));
    size_t half = random_.below(data.size() + 1);
    iovec parts[] = {{data.data(), half}, {data.data() + half, data.size() - half}};
    must(
        ::pwritev(file.fd(kPlain), parts, 2, static_cast<off_t>(offset)) == static_cast<ssize_t>(data.size()),
        "pwritev");
    file.put(offset, data);
  }
  void append(File& file) {
    if (file.size() >= kSizeMax) return;
    std::string data = bytes(length_from(file.size()));
    must(::write(file.fd(kAppending), data.data(), data.size()) == static_cast<ssize_t>(data.size()),
         "append");
    file.put(file.size(), data);
  }
  void direct_read(File& file) {
    size_t offset = offset_in(file) / kAlignment * kAlignment;
    size_t length = (length_from(offset) + kAlignment - 1) / kAlignment * kAlignment;
    direct_read_at(file, offset, length);
  }
  void direct_write(File& file) {
    size_t offset = offset_in(file) / kAlignment * kAlignment;
    if (offset + kAlignment > kSizeMax) return;
    std::string data = bytes((length_from(offset) + kAlignment - 1) / kAlignment * kAlignment);
    if (offset + data.size() > kSizeMax) data.resize((kSizeMax - offset) / kAlignment * kAlignment);
    std::memcpy(aligned_.get(), data.data(), data.size());
    must(::pwrite(file.fd(kDirect), aligned_.get(), data.size(), static_cast<off_t>(offset)) ==
             static_cast<ssize_t>(data.size()),
         "O_DIRECT pwrite");
    file.put(offset, data);
  }
  void truncate_to(File& file, size_t size) {
    bool by_name = random_.one_in(2);
    int done = by_name ? ::truncate(file.name().c_str(), static_cast<off_t>(size))
                       : ::ftruncate(file.fd(kPlain), static_cast<off_t>(size));
    must(done == 0, "truncate");
    file.resize(size);
  }
  void truncate_down(File& file) { truncate_to(file, somewhere(file.size() + 1)); }
  void truncate_up(File& file) { truncate_to(file, std::min(file.size() + random_.below(20'000), kSizeMax)); }
  void truncate_on_open(File& file) {
    if (!random_.one_in(8)) return;
    int fd = ::open(file.name().c_str(), O_WRONLY | O_TRUNC | O_CLOEXEC);
    must(fd >= 0 && ::close(fd) == 0, "open to truncate");
    file.resize(0);
  }

  // Within the file: what lies behind its end is nobody's.
  void map_write(File& file) {
    if (file.size() == 0) return;
    size_t offset = somewhere(file.size());
    std::string data = bytes(std::min(length_from(offset), file.size() - offset));
    data.copy(file.mapped() + offset, data.size());
    file.put(offset, data);
  }
  void map_write_and_sync(File& file) {
    map_write(file);
    must(::msync(file.mapped(), kMapped, random_.one_in(4) ? MS_ASYNC : MS_SYNC) == 0, "msync");
  }
  void map_read(File& file) {
    if (file.size() == 0) return;
    size_t offset = somewhere(file.size()), length = std::min(length_from(offset), file.size() - offset);
    expect(file, offset, {file.mapped() + offset, length}, file.expected(offset, length), "the mapping");
  }
  void remap(File& file) { file.remap(); }
  // What is written to a private mapping is seen there alone.
  void map_private(File& file) {
    if (file.size() == 0) return;
    void* at = ::mmap(nullptr, kMapped, PROT_READ | PROT_WRITE, MAP_PRIVATE, file.fd(kPlain), 0);
    must(at != MAP_FAILED, "private mmap");
    char* mapping = static_cast<char*>(at);
    size_t offset = somewhere(file.size()), length = std::min(length_from(offset), file.size() - offset);
    expect(file, offset, {mapping + offset, length}, file.expected(offset, length), "a private mapping");
    std::memset(mapping + offset, '!', length);
    must(::munmap(at, kMapped) == 0, "munmap");
  }

  void fallocate(File& file, int mode, bool zeroes) {
    size_t offset = offset_in(file), length = length_from(offset);
    must(::fallocate(file.fd(kPlain), mode, static_cast<off_t>(offset), static_cast<off_t>(length)) == 0 ||
             ((mode & FALLOC_FL_ZERO_RANGE) != 0 && errno == EOPNOTSUPP),  // not by tmpfs
         "fallocate " + std::to_string(mode));
    if (errno == EOPNOTSUPP) {
      errno = 0;
      return;
    }
    size_t end = offset + length;
    if ((mode & FALLOC_FL_KEEP_SIZE) == 0 && end > file.size()) file.resize(end);
    if (zeroes && offset < file.size())
      file.put(offset, std::string(std::min(length, file.size() - offset), '\0'));
  }
  void reserve(File& file) { errno = 0, fallocate(file, 0, false); }
  void reserve_behind(File& file) { errno = 0, fallocate(file, FALLOC_FL_KEEP_SIZE, false); }
  void punch(File& file) { errno = 0, fallocate(file, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, true); }
  void zero(File& file) {
    errno = 0;
    fallocate(file, FALLOC_FL_ZERO_RANGE | (random_.one_in(2) ? FALLOC_FL_KEEP_SIZE : 0), true);
  }

  void copy(File& from) {
    File& to = one();
    auto from_offset = static_cast<off_t>(offset_in(from)), to_offset = static_cast<off_t>(offset_in(to));
    size_t length = length_from(static_cast<size_t>(std::max(from_offset, to_offset)));
    auto first = static_cast<size_t>(from_offset), target = static_cast<size_t>(to_offset);
    bool overlaps = &from == &to && first < target + length && target < first + length;
    std::string data(from.expected(first, length));
    ssize_t copied = ::copy_file_range(from.fd(kPlain), &from_offset, to.fd(kOther), &to_offset, length, 0);
    if (overlaps && copied < 0 && errno == EINVAL) return;  // whether it does depends on the size
    must(copied >= 0 && static_cast<size_t>(copied) <= data.size(), "copy_file_range");
    data.resize(static_cast<size_t>(copied));
    must(copied > 0 || first >= from.size(), "copy_file_range copied nothing");
    to.put(target, data);
    check_size(to);
    expect(to, target, read_at(to, kPlain, target, data.size()), data, "pread of what was copied");
  }

  // What is no data must be zeros; where there is a hole there must be zeros until the next data.
  void seek(File& file) {
    size_t offset = somewhere(file.size() + 1);
    off_t data = ::lseek(file.fd(kPlain), static_cast<off_t>(offset), SEEK_DATA);
    must(data >= 0 || errno == ENXIO, "SEEK_DATA");
    size_t end = data < 0 ? file.size() : static_cast<size_t>(data);
    must(end >= offset && end <= file.size(), "SEEK_DATA is out of range");
    must_be_zeros(file, offset, end);
    if (offset >= file.size()) return;
    off_t hole = ::lseek(file.fd(kPlain), static_cast<off_t>(offset), SEEK_HOLE);
    must(hole >= static_cast<off_t>(offset) && hole <= static_cast<off_t>(file.size()), "SEEK_HOLE");
    data = ::lseek(file.fd(kPlain), hole, SEEK_DATA);
    must(data >= 0 || errno == ENXIO, "SEEK_DATA of a hole");
    must_be_zeros(file, static_cast<size_t>(hole), data < 0 ? file.size() : static_cast<size_t>(data));
  }
  void must_be_zeros(File& file, size_t offset, size_t end) {
    for (size_t i = offset; i < end && i < file.size(); ++i) {
      if (file.model()[i] == '\0') continue;
      errno = 0;
      wrong(file.name() + ": byte " + std::to_string(i) + " is said to be in a hole (" +
            std::to_string(offset) + " to " + std::to_string(end) + ")");
    }
  }

  void reopen(File& file) { file.reopen(static_cast<int>(random_.below(kWays))); }
  void sync(File& file) {
    must((random_.one_in(2) ? ::fsync(file.fd(kPlain)) : ::fdatasync(file.fd(kPlain))) == 0, "fsync");
  }
  void drop_cache(File& file) {
    must(::fsync(file.fd(kPlain)) == 0, "fsync");
    must(::posix_fadvise(file.fd(kPlain), 0, 0, POSIX_FADV_DONTNEED) == 0, "fadvise");
  }

  struct Free {
    void operator()(char* at) const { ::free(at); }
  };
  const uint64_t seed_;
  Random random_;
  uint64_t step_ = 0;
  std::string doing_;
  std::array<File, 2> files_{File("one"), File("two")};
  std::unique_ptr<char, Free> aligned_;
};

const std::array<Exercise::Action, 27> Exercise::kActions{{
    {"pread", &Exercise::pread},
    {"read", &Exercise::read},
    {"pwrite", &Exercise::pwrite},
    {"pwrite", &Exercise::pwrite},
    {"write", &Exercise::write},
    {"pwritev", &Exercise::write_parts},
    {"append", &Exercise::append},
    {"O_DIRECT read", &Exercise::direct_read},
    {"O_DIRECT write", &Exercise::direct_write},
    {"truncate down", &Exercise::truncate_down},
    {"truncate up", &Exercise::truncate_up},
    {"O_TRUNC", &Exercise::truncate_on_open},
    {"mapped write", &Exercise::map_write},
    {"mapped write", &Exercise::map_write},
    {"mapped write and msync", &Exercise::map_write_and_sync},
    {"mapped read", &Exercise::map_read},
    {"remap", &Exercise::remap},
    {"private mapping", &Exercise::map_private},
    {"fallocate", &Exercise::reserve},
    {"fallocate behind the end", &Exercise::reserve_behind},
    {"punch", &Exercise::punch},
    {"zero range", &Exercise::zero},
    {"copy_file_range", &Exercise::copy},
    {"seek", &Exercise::seek},
    {"reopen", &Exercise::reopen},
    {"fsync", &Exercise::sync},
    {"drop the cache", &Exercise::drop_cache},
}};

}  // namespace

int exercise_files(uint64_t seed, uint64_t steps, const std::string& out) {
  Exercise exercise(seed);
  exercise.run(steps);
  if (!out.empty()) exercise.put_models(out);
  return 0;
}

}  // namespace reprise::exercise

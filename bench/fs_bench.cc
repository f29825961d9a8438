// The instance filesystem in process, against tmpfs by system calls: the same sequence of calls with the same
// paths, relative to a directory, one after the other in one run. A Guest does here what a process does
// there.
#include <dirent.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <linux/magic.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <random>
#include <thread>

#include "base/check.h"
#include "bench/paired.h"
#include "fs/guest.h"

namespace reprise::bench {
namespace {

using Paths = std::vector<std::string>;

// --- the two contenders, with the same members

class Ours {
 public:
  Ours()
      : ids_(fs::local_inode_ids()),
        filesystem_(fs::Head::create(Timestamp{}), system_clock(), *ids_),
        guest_(filesystem_) {}

  void mkdir(const std::string& path) { CHECK(guest_.mkdir(path)); }
  void create(const std::string& path) {
    auto fd = guest_.open(path, O_CREAT | O_EXCL | O_WRONLY, 0644);
    CHECK(fd && guest_.close(*fd));
  }
  void stat(const std::string& path) { CHECK(guest_.stat(path)); }
  void rename(const std::string& from, const std::string& to) { CHECK(guest_.rename(from, to)); }
  void unlink(const std::string& path) { CHECK(guest_.unlink(path)); }
  size_t list(const std::string& path) {
    auto fd = guest_.open(path, O_RDONLY | O_DIRECTORY);
    CHECK(fd);
    size_t count = 0;
    for (;;) {
      auto entries = guest_.read_directory(*fd, 1024);
      CHECK(entries);
      if (entries->empty()) break;
      count += entries->size();
    }
    CHECK(guest_.close(*fd));
    return count;
  }
  int open(const std::string& path) {
    auto fd = guest_.open(path, O_CREAT | O_RDWR, 0644);
    CHECK(fd);
    return *fd;
  }
  void close(int fd) { CHECK(guest_.close(fd)); }
  fs::Filesystem& filesystem() { return filesystem_; }
  void pwrite(int fd, ByteView data, uint64_t at) {
    CHECK(guest_.pwrite(fd, data, static_cast<int64_t>(at)) == data.size());
  }
  void pread(int fd, ByteSpan into, uint64_t at) {
    CHECK(guest_.pread(fd, into, static_cast<int64_t>(at)) == into.size());
  }

 private:
  std::unique_ptr<fs::InodeIdSource> ids_;
  fs::Filesystem filesystem_;
  fs::Guest guest_;
};

class Tmpfs {
 public:
  Tmpfs() {
    char path[] = "/dev/shm/reprise-bench-XXXXXX";
    CHECK(::mkdtemp(path) != nullptr);
    path_ = path;
    top_ = ::open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    struct statfs found;
    CHECK(top_ >= 0 && ::fstatfs(top_, &found) == 0 && found.f_type == TMPFS_MAGIC);
  }
  ~Tmpfs() {
    ::close(top_);
    CHECK(std::system(fmt::format("rm -rf {}", path_).c_str()) == 0);
  }

  void mkdir(const std::string& path) { CHECK(::mkdirat(top_, path.c_str(), 0755) == 0); }
  void create(const std::string& path) {
    int fd = ::openat(top_, path.c_str(), O_CREAT | O_EXCL | O_WRONLY, 0644);
    CHECK(fd >= 0 && ::close(fd) == 0);
  }
  void stat(const std::string& path) {
    struct stat found;
    CHECK(::fstatat(top_, path.c_str(), &found, 0) == 0);
  }
  void rename(const std::string& from, const std::string& to) {
    CHECK(::renameat(top_, from.c_str(), top_, to.c_str()) == 0);
  }
  void unlink(const std::string& path) { CHECK(::unlinkat(top_, path.c_str(), 0) == 0); }
  size_t list(const std::string& path) {
    int fd = ::openat(top_, path.c_str(), O_RDONLY | O_DIRECTORY);
    CHECK(fd >= 0);
    DIR* directory = ::fdopendir(fd);
    CHECK(directory != nullptr);
    size_t count = 0;
    while (::readdir(directory) != nullptr) count++;
    ::closedir(directory);
    return count;
  }
  int open(const std::string& path) {
    int fd = ::openat(top_, path.c_str(), O_CREAT | O_RDWR, 0644);
    CHECK(fd >= 0);
    return fd;
  }
  void close(int fd) { CHECK(::close(fd) == 0); }
  void pwrite(int fd, ByteView data, uint64_t at) {
    CHECK(::pwrite(fd, data.data(), data.size(), static_cast<off_t>(at)) ==
          static_cast<ssize_t>(data.size()));
  }
  void pread(int fd, ByteSpan into, uint64_t at) {
    CHECK(::pread(fd, into.data(), into.size(), static_cast<off_t>(at)) == static_cast<ssize_t>(into.size()));
  }

 private:
  std::string path_;
  int top_ = -1;
};

// --- names

struct Layout {
  Paths directories, files, renamed;
};

// 15-byte names, as many a directory as said.
Layout layout_of(size_t files, size_t files_per_directory) {
  Layout layout;
  for (size_t i = 0; i < files; i++) {
    if (i % files_per_directory == 0)
      layout.directories.push_back(fmt::format("d{:06}", i / files_per_directory));
    const std::string& directory = layout.directories.back();
    layout.files.push_back(fmt::format("{}/file-{:06}.php", directory, i % 1'000'000));
    layout.renamed.push_back(fmt::format("{}/moved-{:05}.php", directory, i % 1'000'000));
  }
  return layout;
}

// What to touch: all in the order of creation, or some at random.
std::vector<size_t> order_of(size_t files, size_t touched, bool random) {
  std::vector<size_t> order(files);
  for (size_t i = 0; i < files; i++) order[i] = i;
  if (random) std::ranges::shuffle(order, std::mt19937_64(7));
  order.resize(std::min(files, touched));
  return order;
}

template <class Filesystem>
std::map<std::string, double> names_once(const Layout& layout, const std::vector<size_t>& touched) {
  Filesystem filesystem;
  std::map<std::string, double> ns;
  for (const std::string& directory : layout.directories) filesystem.mkdir(directory);
  ns["create"] = timed(layout.files.size(), [&] {
    for (const std::string& path : layout.files) filesystem.create(path);
  });
  ns["stat"] = timed(touched.size(), [&] {
    for (size_t i : touched) filesystem.stat(layout.files[i]);
  });
  size_t listed = 0;
  ns["list"] = timed(layout.files.size(), [&] {
    for (const std::string& directory : layout.directories) listed += filesystem.list(directory);
  });
  CHECK(listed == layout.files.size() + 2 * layout.directories.size());  // with "." and ".."
  ns["rename"] = timed(touched.size(), [&] {
    for (size_t i : touched) filesystem.rename(layout.files[i], layout.renamed[i]);
  });
  ns["unlink"] = timed(touched.size(), [&] {
    for (size_t i : touched) filesystem.unlink(layout.renamed[i]);
  });
  return ns;
}

template <class Once>
void add_samples(Pairs& pairs, bool ours_first, const Once& once) {
  auto ours = [&] {
    for (auto& [row, ns] : once.template operator()<Ours>()) pairs[row].ours.push_back(ns);
  };
  if (ours_first) ours();
  for (auto& [row, ns] : once.template operator()<Tmpfs>()) pairs[row].other.push_back(ns);
  if (!ours_first) ours();
}

void register_names(const std::string& name, size_t files, size_t per_directory, size_t touched, bool random,
                    int rounds) {
  register_pairs("names/" + name, {"create", "stat", "list", "rename", "unlink"}, rounds,
                 [=](Pairs& pairs, bool ours_first) {
                   Layout layout = layout_of(files, per_directory);
                   std::vector<size_t> order = order_of(files, touched, random);
                   add_samples(pairs, ours_first,
                               [&]<class Filesystem>() { return names_once<Filesystem>(layout, order); });
                 });
}

// --- bytes

constexpr size_t kPage = 4096;

// Beside both: the same copies between two arrays.
class Memory {
 public:
  explicit Memory(size_t bytes) : bytes_(bytes) {}
  void pwrite(ByteView data, uint64_t at) { std::memcpy(bytes_.data() + at, data.data(), data.size()); }
  void pread(ByteSpan into, uint64_t at) { std::memcpy(into.data(), bytes_.data() + at, into.size()); }

 private:
  Bytes bytes_;
};

std::vector<uint64_t> offsets_of(size_t bytes, size_t part, size_t count) {
  std::mt19937_64 random(3);
  std::vector<uint64_t> offsets(count);
  for (uint64_t& offset : offsets) offset = random() % (bytes / part) * part;
  return offsets;
}

template <class Filesystem>
std::map<std::string, double> bytes_once(size_t bytes, size_t part, size_t count) {
  Filesystem filesystem;
  std::map<std::string, double> ns;
  Bytes data(part, std::byte{'x'});
  int fd = filesystem.open("file");
  ns["append"] = timed(bytes / part, [&] {
    for (uint64_t at = 0; at < bytes; at += part) filesystem.pwrite(fd, data, at);
  });
  std::vector<uint64_t> offsets = offsets_of(bytes, part, count);
  for (uint64_t at : offsets) filesystem.pread(fd, data, at);  // warm
  ns["overwrite"] = timed(count, [&] {
    for (uint64_t at : offsets) filesystem.pwrite(fd, data, at);
  });
  ns["read"] = timed(count, [&] {
    for (uint64_t at : offsets) filesystem.pread(fd, data, at);
  });
  filesystem.close(fd);
  return ns;
}

void register_bytes(const std::string& name, size_t bytes, size_t part, size_t count) {
  register_pairs("bytes/" + name, {"append", "overwrite", "read"}, 7, [=](Pairs& pairs, bool ours_first) {
    add_samples(pairs, ours_first,
                [&]<class Filesystem>() { return bytes_once<Filesystem>(bytes, part, count); });
  });
  register_pairs("memcpy/" + name, {"overwrite", "read"}, 7, [=](Pairs& pairs, bool) {
    for (auto& [row, ns] : bytes_once<Ours>(bytes, part, count)) pairs[row].ours.push_back(ns);
    Memory memory(bytes);
    Bytes data(part, std::byte{'x'});
    std::vector<uint64_t> offsets = offsets_of(bytes, part, count);
    for (uint64_t at : offsets) memory.pread(data, at);
    pairs["overwrite"].other.push_back(timed(count, [&] {
      for (uint64_t at : offsets) memory.pwrite(data, at);
    }));
    pairs["read"].other.push_back(timed(count, [&] {
      for (uint64_t at : offsets) memory.pread(data, at);
    }));
  });
}

// --- readers

// ns of one of `threads` times `count` reads that as many threads do at once.
double read_at_once(size_t threads, size_t count, const std::function<void(size_t thread)>& reads) {
  return timed(threads * count, [&] {
    std::vector<std::jthread> running;
    running.reserve(threads);
    for (size_t i = 0; i < threads; i++) running.emplace_back([&, i] { reads(i); });
  });
}

// Beside each row: one thread alone, and how many times as much two get done. copy_4k is what the machine can
// do. apart: each thread reads its half of one file, or array; together: both read all of it.
void register_readers() {
  register_rows(
      "readers",
      {"stat_of_head", "stat_of_view", "read_4k/apart", "copy_4k/apart", "read_4k/together",
       "copy_4k/together"},
      1, [](Rows& found) {
        constexpr size_t kFiles = 3000, kReads = 300'000, kHalf = 128;  // pages
        Ours ours;
        Layout layout = layout_of(kFiles, 30);
        for (const std::string& directory : layout.directories) ours.mkdir(directory);
        for (const std::string& file : layout.files) ours.create(file);
        Bytes page(kPage, std::byte{'x'});
        int fd = ours.open("file");
        for (size_t i = 0; i < 2 * kHalf; i++) ours.pwrite(fd, page, i * kPage);
        ours.close(fd);
        fs::View view = ours.filesystem().view();
        auto row = [&](const char* name, const std::function<void(size_t)>& reads) {
          std::vector<double> alone, both;
          for (int round = 0; round < 7; round++) {
            alone.push_back(read_at_once(1, kReads, reads));
            both.push_back(read_at_once(2, kReads, reads));
          }
          std::ranges::sort(alone);
          std::ranges::sort(both);
          found[name].ns = both;
          found[name].counters["alone_ns"] = alone[alone.size() / 2];
          found[name].counters["two_readers"] = alone[alone.size() / 2] / both[both.size() / 2];
        };
        row("stat_of_head", [&](size_t thread) {
          fs::Guest guest(ours.filesystem());
          for (size_t i = 0; i < kReads; i++) CHECK(guest.stat(layout.files[(thread * 1500 + i) % kFiles]));
        });
        auto read_file = [&](size_t thread, size_t pages) {
          fs::Guest guest(ours.filesystem());
          Bytes into(kPage);
          int mine = *guest.open("file", O_RDONLY);
          for (size_t i = 0; i < kReads; i++)
            CHECK(guest.pread(mine, into,
                              static_cast<int64_t>((thread * kHalf + i % pages) % (2 * kHalf) * kPage)) ==
                  kPage);
        };
        Memory memory(2 * kHalf * kPage);
        auto copy_array = [&](size_t thread, size_t pages) {
          Bytes into(kPage);
          for (size_t i = 0; i < kReads; i++)
            memory.pread(into, (thread * kHalf + i % pages) % (2 * kHalf) * kPage);
        };
        row("read_4k/apart", [&](size_t thread) { read_file(thread, kHalf); });
        row("copy_4k/apart", [&](size_t thread) { copy_array(thread, kHalf); });
        row("read_4k/together", [&](size_t thread) { read_file(thread, 2 * kHalf); });
        row("copy_4k/together", [&](size_t thread) { copy_array(thread, 2 * kHalf); });
        row("stat_of_view", [&](size_t thread) {
          for (size_t i = 0; i < kReads; i++) {
            std::string_view path = layout.files[(thread * 1500 + i) % kFiles];
            size_t slash = path.find('/');
            auto directory = view.lookup(kRootInode, path.substr(0, slash));
            CHECK(directory && view.stat(view.lookup(directory->inode, path.substr(slash + 1))->inode));
          }
        });
      });
}

const bool registered = [] {
  constexpr size_t kAll = ~size_t{0};
  register_names("tree:3000", 3000, 30, kAll, false, 9);
  register_names("flat:50000", 50'000, 50'000, kAll, false, 5);
  register_names("random:1000000", 1'000'000, 1000, 200'000, true, 3);
  register_names("flat:1000000", 1'000'000, 1'000'000, kAll, false, 1);
  for (size_t files : {1000, 10'000, 100'000, 1'000'000})
    register_names(fmt::format("growth:{}", files), files, 1000, kAll, false, files > 100'000 ? 1 : 5);
  register_readers();
  register_bytes("4k_of_1M", 1 << 20, kPage, 100'000);
  register_bytes("4k_of_128M", 128 << 20, kPage, 100'000);
  register_bytes("1M_of_64M", 64 << 20, 1 << 20, 500);
  return true;
}();

}  // namespace
}  // namespace reprise::bench

#include "base/host_stream.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <utility>

#include "base/check.h"
#include "base/host_file.h"
#include "base/host_tree.h"

namespace reprise {
namespace {

std::unexpected<Error> failed(const std::string& path, std::string_view doing) {
  int code = errno;
  return std::unexpected(Error::from_errno(code, fmt::format("{}: cannot {}", printable(path), doing)));
}

class HostStream final : public ByteSource, public ByteSink {
 public:
  HostStream(int fd, std::string path, bool owned) : fd_(fd), path_(std::move(path)), owned_(owned) {}
  ~HostStream() override {
    if (owned_) ::close(fd_);
  }
  HostStream(const HostStream&) = delete;
  HostStream& operator=(const HostStream&) = delete;

  Result<size_t> read(ByteSpan into) override {
    size_t done = 0;
    while (done < into.size()) {
      ssize_t n = ::read(fd_, into.data() + done, into.size() - done);
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) return failed(path_, "read");
      if (n == 0) break;
      done += static_cast<size_t>(n);
    }
    taken_bytes_ += done;
    return done;
  }
  uint64_t taken_bytes() const override { return taken_bytes_; }
  Status write(ByteView bytes) override {
    while (!bytes.empty()) {
      ssize_t n = ::write(fd_, bytes.data(), bytes.size());
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) return failed(path_, "write");
      bytes = bytes.subspan(static_cast<size_t>(n));
    }
    return {};
  }
  const std::string& path() const override { return path_; }

 private:
  int fd_;
  std::string path_;
  bool owned_;
  uint64_t taken_bytes_ = 0;
};

}  // namespace

Result<std::unique_ptr<ByteSource>> open_host_source(const std::string& path) {
  int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return failed(path, "open");
  auto source = std::make_unique<HostStream>(fd, path, true);
  struct stat st;
  if (::fstat(fd, &st) != 0) return failed(path, "stat");
  if (S_ISDIR(st.st_mode))
    return fail(Code::kInvalidArgument, printable(path) + ": expected a file, found a directory");
  return source;
}

std::unique_ptr<ByteSource> standard_input() {
  return std::make_unique<HostStream>(STDIN_FILENO, "standard input", false);
}

std::unique_ptr<ByteSink> standard_output() {
  return std::make_unique<HostStream>(STDOUT_FILENO, "standard output", false);
}

Result<std::unique_ptr<File>> open_regular_file(const std::string& path) {
  // Not to wait for whoever might write into a FIFO.
  int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0) return failed(path, "open");
  auto file = std::make_unique<HostFile>(Descriptor(fd), path);
  struct stat st;
  if (::fstat(fd, &st) != 0) return failed(path, "stat");
  if (!S_ISREG(st.st_mode)) return nullptr;
  return file;
}

Result<std::unique_ptr<File>> make_unnamed_file() {
  const char* named = std::getenv("TMPDIR");  // NOLINT(concurrency-mt-unsafe): nothing here sets variables
  std::string directory = named != nullptr && *named != '\0' ? named : "/var/tmp";
  int fd = ::open(directory.c_str(), O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
  if (fd < 0) return failed(directory, "make a temporary file in");
  return std::make_unique<HostFile>(Descriptor(fd), directory + "/(a temporary file)");
}

Result<std::unique_ptr<StagedFile>> StagedFile::begin(const std::string& path, Random& random) {
  size_t slash = path.rfind('/');
  std::string parent = slash == std::string::npos ? "." : slash == 0 ? "/" : path.substr(0, slash);
  std::string name = path.substr(slash + 1);
  if (name.empty() || name == "." || name == "..") {
    return fail(Code::kInvalidArgument,
                printable(path) + ": expected the path of a file to make, found one without a name");
  }
  auto host = TRY(HostTree::open(parent));
  auto found = host->stat(name);
  if (!found && found.error().code() != Code::kNotFound) return std::unexpected(found.error());
  if (found && !S_ISREG(found->mode)) {
    return fail(Code::kAlreadyExists,
                printable(path) + ": expected a new path or a file to replace, found something else");
  }
  std::unique_ptr<StagedFile> staged(new StagedFile());
  staged->path_ = path;
  staged->name_ = name;
  staged->directory_ = TRY(open_host_directory(parent));
  staged->temporary_ =
      fmt::format(".{}.reprise-{:08x}", name.substr(0, 200), static_cast<uint32_t>(random.next()));
  staged->file_ = TRY(staged->directory_->open(staged->temporary_, OpenMode::kCreate));
  return staged;
}

StagedFile::~StagedFile() {
  // Nobody is left to hear of a failure; what stays behind is hidden and says by its name what it is.
  if (!published_ && file_ != nullptr) static_cast<void>(directory_->unlink(temporary_));
}

Status StagedFile::write(ByteView bytes) {
  TRY(file_->pwrite(bytes, written_));
  written_ += bytes.size();
  return {};
}

Status StagedFile::publish() {
  CHECK(!published_);
  TRY(file_->sync_data());
  TRY(directory_->rename(temporary_, name_));
  published_ = true;
  return directory_->sync();
}

}  // namespace reprise

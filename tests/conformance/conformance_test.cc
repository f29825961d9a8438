// What conformance.h declares. Named as the test sources are, so that it is built with them.
#include "tests/conformance/conformance.h"

#include <unistd.h>

#include "tests/fs/recording.h"
#include "tests/fuse/served_mount.h"
#include "tests/posix/guest_calls.h"
#include "tests/posix/kernel_calls.h"

namespace reprise::conformance {
namespace {

std::string complaint_of(fs::Recorded& world) {
  if (std::string broken = world.broken_law(); !broken.empty()) return broken;
  if (world.replayed().digest() != world.filesystem.digest()) return "replayed, it is another tree";
  return {};
}

std::string recorded_by(fs::Recorded& world) {
  return std::to_string(world.sink.operations.size()) + " operations, digest " +
         world.filesystem.digest().to_string();
}

// After every call, but for trees that are large and tests that make thousands of calls: those are looked at
// in the end (complaint_of).
std::string unsound_in(fs::Recorded& world) {
  constexpr uint64_t kInodesMax = 300;
  if (world.filesystem.usage().inodes > kInodesMax) return {};
  return world.broken_law();
}

class InProcess final : public Subject {
 public:
  std::unique_ptr<Calls> calls(const Credentials& who) override {
    return posix::guest_calls(world_.filesystem, who);
  }
  std::string unsound() override { return unsound_in(world_); }
  std::string complaint() override { return complaint_of(world_); }
  std::string recorded() override { return recorded_by(world_); }
  void make_read_only() override { world_.filesystem.set_read_only(true); }

 private:
  fs::Recorded world_;
};

class OfTheKernel final : public Subject {
 public:
  explicit OfTheKernel(posix::MountedFilesystem mounted) : root_(std::move(mounted)) {}
  std::unique_ptr<Calls> calls(const Credentials& who) override { return root_.calls(who); }
  // Its clock moves on only every few milliseconds.
  void tick() override { ::usleep(12'000); }
  void make_read_only() override { root_.make_read_only(); }

 private:
  posix::KernelRoot root_;
};

// Served by this process, called by this process: the calls come from a thread that serves nothing.
class Fuse final : public Subject {
 public:
  static std::unique_ptr<Fuse> mount(std::string& refusal) {
    auto subject = std::make_unique<Fuse>();
    if (refusal = subject->start(); !refusal.empty()) return nullptr;
    return subject;
  }
  ~Fuse() override { stop(); }

  std::unique_ptr<Calls> calls(const Credentials& who) override { return root_->calls(who); }
  std::string unsound() override { return unsound_in(world_); }
  std::string complaint() override {
    stop();
    return complaint_of(world_);
  }
  std::string recorded() override { return recorded_by(world_); }
  void make_read_only() override { root_->make_read_only(); }
  // The kernel forgets files a moment after they have gone.
  void tick() override { ::usleep(2'000); }

 private:
  std::string start() {
    if (::geteuid() != 0) return "calling as several users needs root";
    auto mount = fuse::testing::ServedMount::make(world_.filesystem);
    if (!mount) return mount.error().message();
    mount_ = std::move(*mount);
    root_.emplace(posix::MountedFilesystem{.root = mount_->open_top()});
    return {};
  }
  void stop() {
    root_.reset();
    mount_.reset();
  }

  fs::Recorded world_;
  std::unique_ptr<fuse::testing::ServedMount> mount_;
  std::optional<posix::KernelRoot> root_;
};

}  // namespace

std::unique_ptr<Subject> make_subject(Which which, std::string& refusal) {
  if (which == Which::kInProcess) return std::make_unique<InProcess>();
  if (which == Which::kFuse) return Fuse::mount(refusal);
  auto mounted = which == Which::kTmpfs ? posix::mount_tmpfs() : posix::mount_ext4();
  refusal = mounted.refusal;
  return mounted.root < 0 ? nullptr : std::make_unique<OfTheKernel>(std::move(mounted));
}

void Conformance::SetUp() {
  std::string refusal;
  subject_ = make_subject(GetParam(), refusal);
  if (subject_ == nullptr) GTEST_SKIP() << name_of(GetParam()) << ": " << refusal;
  OK(root().chmod("/", 0777));
}

void Conformance::TearDown() {
  callers_.clear();
  if (subject_ == nullptr) return;
  EXPECT_EQ(subject_->complaint(), "");
  subject_.reset();
}

Calls& Conformance::as(const Credentials& who) {
  auto& calls = callers_[who];
  if (calls == nullptr) calls = subject_->calls(who);
  return *calls;
}

void Conformance::expect_sound(std::string_view call) {
  if (subject_ == nullptr) return;
  if (std::string wrong = subject_->unsound(); !wrong.empty())
    ADD_FAILURE() << "after " << call << ": " << wrong;
}

const posix::Waiver* Conformance::waiver_of(std::string_view row) const {
  return posix::waiver_of(GetParam(), testing::UnitTest::GetInstance()->current_test_suite()->name(), row);
}

std::vector<Which> filesystems_for(const std::string& suite, Which oracle) {
  std::vector<Which> all{Which::kInProcess};
  if (::geteuid() == 0) all.insert(all.end(), {Which::kFuse, oracle});
  std::erase_if(all, [&](Which which) { return posix::waiver_of(which, suite) != nullptr; });
  return all;
}

std::string names_in(Calls& who, const std::string& path) {
  auto entries = who.list(path);
  if (!entries) return posix::name_of(entries);
  std::string names;
  for (const DirectoryEntry& entry : *entries) names += entry.name + " ";
  return names;
}

}  // namespace reprise::conformance

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

class InProcess final : public Subject {
 public:
  std::unique_ptr<Calls> calls(const Credentials& who) override {
    return posix::guest_calls(world_.filesystem, who);
  }
  std::string complaint() override { return complaint_of(world_); }

 private:
  fs::Recorded world_;
};

class OfTheKernel final : public Subject {
 public:
  explicit OfTheKernel(posix::MountedFilesystem mounted) : root_(std::move(mounted)) {}
  std::unique_ptr<Calls> calls(const Credentials& who) override { return root_.calls(who); }
  // Its clock moves on only every few milliseconds.
  void tick() override { ::usleep(12'000); }

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
  std::string complaint() override {
    stop();
    return complaint_of(world_);
  }
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

std::string name_of(Which which) {
  switch (which) {
    case Which::kInProcess:
      return "InProcess";
    case Which::kFuse:
      return "Fuse";
    case Which::kTmpfs:
      return "Tmpfs";
    case Which::kExt4:
      return "Ext4";
  }
  return "?";
}

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

std::string names_in(Calls& who, const std::string& path) {
  auto entries = who.list(path);
  if (!entries) return posix::name_of(entries);
  std::string names;
  for (const DirectoryEntry& entry : *entries) names += entry.name + " ";
  return names;
}

}  // namespace reprise::conformance

#include "adapters/fuse/mount.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>

#include "base/check.h"

namespace reprise::fuse {
namespace {

// How far the child came. What it reports to its parent is one of these with an errno.
enum class Step : int32_t {
  kReady,  // with the descriptor of the mounted device, later with that of its root
  kUserNamespace,
  kIdMap,
  kMountNamespace,
  kPrivateMounts,
  kDevice,
  kMount,
  kDirectory,
  kExec,
};

struct Report {
  Step step = Step::kReady;
  int32_t error = 0;
  int32_t in_user_namespace = 0;
};

bool send_report(int channel, const Report& report, int fd = -1) {
  iovec data = {.iov_base = const_cast<Report*>(&report), .iov_len = sizeof report};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof fd)] = {};
  msghdr message = {.msg_iov = &data, .msg_iovlen = 1};
  if (fd >= 0) {
    message.msg_control = control;
    message.msg_controllen = sizeof control;
    cmsghdr* header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof fd);
    std::memcpy(CMSG_DATA(header), &fd, sizeof fd);
  }
  return ::sendmsg(channel, &message, MSG_NOSIGNAL) == sizeof report;
}

// A report and the descriptor with it, if any; nullopt at the end of the channel.
std::optional<Report> receive_report(int channel, int& fd) {
  Report report;
  iovec data = {.iov_base = &report, .iov_len = sizeof report};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof fd)] = {};
  msghdr message = {
      .msg_iov = &data, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
  ssize_t received;
  do {
    received = ::recvmsg(channel, &message, MSG_CMSG_CLOEXEC);
  } while (received < 0 && errno == EINTR);
  if (received != sizeof report) return std::nullopt;
  cmsghdr* header = CMSG_FIRSTHDR(&message);
  if (header != nullptr && header->cmsg_type == SCM_RIGHTS) std::memcpy(&fd, CMSG_DATA(header), sizeof fd);
  return report;
}

// --- in the child, which has one thread and ends in exec or _exit

bool write_whole_file(const char* path, const std::string& text) {
  int fd = ::open(path, O_WRONLY | O_CLOEXEC);
  if (fd < 0) return false;
  bool written = ::write(fd, text.data(), text.size()) == static_cast<ssize_t>(text.size());
  int error = errno;
  ::close(fd);
  errno = error;
  return written;
}

class Child {
 public:
  Child(const LaunchOptions& options, int channel, pid_t parent, const sigset_t& signals)
      : options_(options), channel_(channel), parent_(parent), signals_(signals) {}

  [[noreturn]] void run() {
    enter_namespaces();
    die_with_parent();
    mount_and_hand_over();
    char go;
    if (::recv(channel_, &go, sizeof go, 0) != sizeof go) ::_exit(Launch::kOwnFailure);
    become_command();
  }

 private:
  [[noreturn]] void give_up(Step step, int exit_status = Launch::kOwnFailure) {
    send_report(channel_, {.step = step, .error = errno});
    ::_exit(exit_status);
  }

  void enter_namespaces() {
    if (::geteuid() == 0 && ::unshare(CLONE_NEWNS) == 0) {
      make_mounts_private();
      return;
    }
    // Also root's way in a container that denies it namespaces of the outer kind.
    uid_t uid = ::geteuid();
    gid_t gid = ::getegid();
    if (::unshare(CLONE_NEWUSER) != 0) give_up(Step::kUserNamespace);
    if (!write_whole_file("/proc/self/setgroups", "deny") ||
        !write_whole_file("/proc/self/uid_map", fmt::format("{0} {0} 1", uid)) ||
        !write_whole_file("/proc/self/gid_map", fmt::format("{0} {0} 1", gid))) {
      give_up(Step::kIdMap);
    }
    if (::unshare(CLONE_NEWNS) != 0) give_up(Step::kMountNamespace);
    in_user_namespace_ = true;
    make_mounts_private();
  }

  void make_mounts_private() {
    if (::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0) give_up(Step::kPrivateMounts);
  }

  // After each change of credentials, which forgets it.
  void die_with_parent() {
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (::getppid() != parent_) ::_exit(Launch::kOwnFailure);
  }

  void mount_and_hand_over() {
    // The kernel wants a device opened in the user namespace of the mount.
    int device = ::open(options_.device.c_str(), O_RDWR | O_CLOEXEC);
    if (device < 0) give_up(Step::kDevice);
    std::string data =
        fmt::format("fd={},rootmode=40000,user_id={},group_id={},default_permissions,allow_other", device,
                    ::geteuid(), ::getegid());
    unsigned long flags = MS_NOSUID | MS_NODEV | (options_.read_only ? MS_RDONLY : 0);
    if (::mount("reprise", options_.mountpoint.c_str(), "fuse.reprise", flags, data.c_str()) != 0) {
      give_up(Step::kMount);
    }
    if (!send_report(channel_, {.step = Step::kReady, .in_user_namespace = in_user_namespace_}, device)) {
      ::_exit(Launch::kOwnFailure);
    }
    ::close(device);  // or the mount would outlive the server
  }

  [[noreturn]] void become_command() {
    if (::chdir(options_.mountpoint.c_str()) != 0) give_up(Step::kDirectory);
    // The parent could come here by /proc only if it may trace this process. A root that its owner may not
    // read is not handed over.
    int root = ::open(".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (!send_report(channel_, {.step = Step::kReady}, root)) ::_exit(Launch::kOwnFailure);
    if (root >= 0) ::close(root);
    for (const auto& [name, value] : options_.environment)
      ::setenv(name.c_str(), value.c_str(), 1);  // NOLINT(concurrency-mt-unsafe): forked just now
    std::vector<char*> argv;
    argv.reserve(options_.command.size() + 1);
    for (const std::string& argument : options_.command) argv.push_back(const_cast<char*>(argument.c_str()));
    argv.push_back(nullptr);
    die_with_parent();
    ::signal(SIGPIPE, SIG_DFL);  // what this program ignores, the command shall not
    ::pthread_sigmask(SIG_SETMASK, &signals_, nullptr);
    ::execvp(argv[0], argv.data());
    give_up(Step::kExec, errno == ENOENT ? Launch::kNotFound : Launch::kNotExecutable);
  }

  const LaunchOptions& options_;
  const int channel_;
  const pid_t parent_;
  const sigset_t& signals_;
  bool in_user_namespace_ = false;
};

// --- in the parent

// What stopped the child, and what can be done about it.
Error explain(const Report& report, const LaunchOptions& options) {
  auto because = [&](const std::string& what) { return Error::from_errno(report.error, what); };
  switch (report.step) {
    case Step::kUserNamespace:
      return Error(
          Code::kPermission,
          fmt::format("{}: the system does not let this user make a user namespace; allow it (sysctl "
                      "user.max_user_namespaces, kernel.unprivileged_userns_clone, "
                      "kernel.apparmor_restrict_unprivileged_userns) or run as root",
                      because("unshare").message()),
          report.error);
    case Step::kIdMap:
      return because(
          "mapping user and group into a new user namespace; allow it "
          "(kernel.apparmor_restrict_unprivileged_userns=0) or run as root");
    case Step::kMountNamespace:
      return because("making a mount namespace; allow it or run as root");
    case Step::kPrivateMounts:
      return because("making the mounts of a new namespace private");
    case Step::kDevice:
      if (report.error == ENOENT || report.error == ENXIO || report.error == ENODEV) {
        return Error(
            Code::kNotFound,
            fmt::format("there is no FUSE device at {}: load the kernel module (modprobe fuse), or give the "
                        "container the device (--device /dev/fuse)",
                        options.device),
            report.error);
      }
      return because(
          fmt::format("opening the FUSE device {}, which must be readable and writable for this user: have "
                      "its owner allow it "
                      "(chmod a+rw {}, or a group), or run as root",
                      options.device, options.device));
    case Step::kMount:
      if (report.error == ENODEV) return Error(Code::kUnsupported, "this kernel has no FUSE", report.error);
      if (report.error == EINVAL) {
        return because(
            fmt::format("mounting at {}; expected a FUSE device at {}", options.mountpoint, options.device));
      }
      return because(fmt::format("mounting at {}", options.mountpoint));
    case Step::kDirectory:
      return because(fmt::format("changing to {}", options.mountpoint));
    case Step::kExec:
      return because(options.command[0]);
    case Step::kReady:
      break;
  }
  return Error(Code::kIo, "the child that was to mount sent what it should not");
}

// Blocked so that wait() takes them one by one.
sigset_t signals_of_wait() {
  sigset_t signals;
  sigemptyset(&signals);
  for (int signal : {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGCHLD}) sigaddset(&signals, signal);
  return signals;
}

Status check_options(const LaunchOptions& options) {
  if (options.command.empty()) return fail(Code::kInvalidArgument, "no command to run");
  struct stat found;
  if (::stat(options.mountpoint.c_str(), &found) != 0) {
    return std::unexpected(Error::from_errno(errno, fmt::format("the mountpoint {}", options.mountpoint)));
  }
  if (!S_ISDIR(found.st_mode)) {
    return fail(Code::kInvalidArgument,
                fmt::format("the mountpoint {} is not a directory", options.mountpoint));
  }
  return {};
}

std::string default_device() {
  const char* device = ::getenv("REPRISE_FUSE_DEVICE");
  return device != nullptr && *device != '\0' ? device : "/dev/fuse";
}

int exit_status_of(int wait_status) {
  return WIFSIGNALED(wait_status) ? 128 + WTERMSIG(wait_status) : WEXITSTATUS(wait_status);
}

}  // namespace

Result<std::unique_ptr<Launch>> Launch::prepare(LaunchOptions options) {
  TRY(check_options(options));
  if (options.device.empty()) options.device = default_device();

  int channel[2];
  if (::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, channel) != 0) {
    return std::unexpected(Error::from_errno(errno, "socketpair"));
  }
  std::unique_ptr<Launch> launch(new Launch);
  launch->command_ = options.command[0];
  launch->mountpoint_ = options.mountpoint;
  launch->channel_ = channel[0];
  sigset_t signals = signals_of_wait();
  ::pthread_sigmask(SIG_BLOCK, &signals, &launch->signals_before_);
  ::signal(SIGCHLD, SIG_DFL);  // ignored, it would take the exit status with it

  pid_t self = ::getpid();
  launch->pid_ = ::fork();
  if (launch->pid_ == 0) {
    ::close(channel[0]);
    Child(options, channel[1], self, launch->signals_before_).run();
  }
  int fork_error = errno;
  ::close(channel[1]);
  if (launch->pid_ < 0) return std::unexpected(Error::from_errno(fork_error, "fork"));

  std::optional<Report> report = receive_report(launch->channel_, launch->fuse_fd_);
  if (!report) return fail(Code::kIo, "the child that was to mount ended without a word");
  if (report->step != Step::kReady) return std::unexpected(explain(*report, options));
  if (launch->fuse_fd_ < 0) return fail(Code::kIo, "the child that mounted sent no descriptor");
  if (report->in_user_namespace) launch->owner_ = Owner{::geteuid(), ::getegid()};
  return launch;
}

Status Launch::start() {
  CHECK(channel_ >= 0);
  char go = 1;
  std::optional<Report> report;
  if (::send(channel_, &go, sizeof go, MSG_NOSIGNAL) == sizeof go)
    report = receive_report(channel_, root_fd_);
  // The channel ends when exec closes it.
  int no_fd = -1;
  if (report && report->step == Step::kReady) report = receive_report(channel_, no_fd);
  ::close(std::exchange(channel_, -1));
  if (!report) return {};
  LaunchOptions options{.command = {command_}, .mountpoint = mountpoint_};
  return std::unexpected(explain(*report, options));
}

int Launch::wait() {
  sigset_t signals = signals_of_wait();
  while (pid_ > 0) {
    int status;
    pid_t ended = ::waitpid(pid_, &status, WNOHANG);
    CHECK(ended >= 0);
    if (ended == pid_) {
      exit_status_ = exit_status_of(status);
      pid_ = -1;
      break;
    }
    siginfo_t info;
    int signal = ::sigwaitinfo(&signals, &info);
    bool from_terminal = info.si_code == SI_KERNEL && (signal == SIGINT || signal == SIGQUIT);
    if (signal > 0 && signal != SIGCHLD && !from_terminal) ::kill(pid_, signal);
  }
  return exit_status_;
}

Status Launch::sync() {
  CHECK(pid_ < 0);
  if (root_fd_ < 0 || ::syncfs(root_fd_) == 0) return {};
  return std::unexpected(Error::from_errno(errno, mountpoint_ + ": cannot write back what is mapped"));
}

Launch::~Launch() {
  if (root_fd_ >= 0) ::close(root_fd_);
  if (channel_ >= 0) ::close(channel_);  // a child that still waits takes this for the end
  if (fuse_fd_ >= 0) ::close(fuse_fd_);
  if (pid_ > 0) {
    ::kill(pid_, SIGKILL);
    ::waitpid(pid_, nullptr, 0);
  }
  ::pthread_sigmask(SIG_SETMASK, &signals_before_, nullptr);
}

}  // namespace reprise::fuse

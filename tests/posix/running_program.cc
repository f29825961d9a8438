#include <sys/wait.h>
#include <unistd.h>

#include <csignal>

#include "base/check.h"
#include "tests/posix/kernel_calls.h"

namespace reprise::posix {

// From the thread's own root, where the libraries are that a program needs. The pipe closes with the exec.
RunningProgram::RunningProgram(int fd) {
  KernelRoot::leave();
  int ends[2];
  CHECK(::pipe2(ends, O_CLOEXEC) == 0);
  process_ = ::fork();
  CHECK(process_ >= 0);
  if (process_ == 0) {
    const char* const arguments[] = {"sleep", "1000", nullptr};
    const char* const environment[] = {nullptr};
    ::execveat(fd, "", const_cast<char* const*>(arguments), const_cast<char* const*>(environment),
               AT_EMPTY_PATH);
    int error = errno;
    _exit(::write(ends[1], &error, sizeof error) == sizeof error ? 1 : 2);
  }
  ::close(ends[1]);
  if (::read(ends[0], &error_, sizeof error_) != sizeof error_) error_ = 0;
  ::close(ends[0]);
}

RunningProgram::~RunningProgram() {
  ::kill(process_, SIGKILL);
  CHECK(::waitpid(process_, nullptr, 0) == process_);
}

}  // namespace reprise::posix

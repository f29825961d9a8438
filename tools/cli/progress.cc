#include "tools/cli/progress.h"

#include <fmt/format.h>
#include <unistd.h>

#include <cstdio>

#include "base/clock.h"

namespace reprise::cli {

Progress::Progress(std::string what) : what_(std::move(what)), terminal_(isatty(STDERR_FILENO) != 0) {}

Progress::~Progress() {
  if (shown_) fmt::print(stderr, "\r\033[K");
}

void Progress::show(std::string_view text) {
  uint64_t now_ns = system_clock().monotonic_ns();
  if (!terminal_ || (shown_ && now_ns - last_ns_ < 100'000'000)) return;
  last_ns_ = now_ns;
  shown_ = true;
  fmt::print(stderr, "\r\033[K{}: {}", what_, text);
  std::fflush(stderr);
}

bool Progress::operator()(const replay::ReplayProgress& progress) {
  show(fmt::format("{} operations, {}", progress.operations, format_bytes(progress.bytes)));
  return true;
}

}  // namespace reprise::cli
